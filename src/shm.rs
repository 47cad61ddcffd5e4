//! `/dev/shm`, where PostgreSQL keeps the memory that parallel queries share.

/// Docker's default, with which a parallel hash join soon fails with "could not resize shared memory segment".
const TOO_SMALL: u64 = 64 << 20;

/// What is wrong with it, and the cure.
pub fn warning() -> Option<String> {
    let stat = nix::sys::statvfs::statvfs("/dev/shm").ok()?;
    let size = stat.blocks() * stat.fragment_size();
    (size <= TOO_SMALL).then(|| {
        format!(
            "/dev/shm has only {} MB: parallel queries may fail with \"could not resize shared memory segment\". \
             Give it more: docker run --shm-size=1g, or in Kubernetes an emptyDir with medium Memory at /dev/shm",
            size >> 20
        )
    })
}
