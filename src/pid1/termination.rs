//! What this container leaves behind when it ends, whoever ends it: the kubelet reads the termination log after the
//! container's last process is dead and shows it as `terminated.message`
//! (<https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>). With the instance in it,
//! that is proof of this instance's death for the other members.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
};

use nix::unistd::{Pid, getpid};

/// Where the kubelet reads it, unless the pod's `terminationMessagePath` says otherwise.
pub const PATH: &str = "/dev/termination-log";

/// Why there will be no proof of death: whoever takes over waits for the Lease to run out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Processes of this PID namespace would outlive this one.
    #[error(
        "this process has pid {0}, so it is not PID 1 of its PID namespace and its end would not be the end of all it has \
         started: no proof of death is left behind, and a failover waits for the Lease to run out"
    )]
    NotPid1(Pid),
    /// The file cannot be written.
    #[error(
        "cannot write the termination log {path}: {error}; no proof of death is left behind, and a failover waits for the \
         Lease to run out. Is terminationMessagePath of this container another than {PATH}?"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Writes the instance, and nothing else, into the file at `path`, which must be there: whoever makes it is the one who
/// reads it.
///
/// # Errors
/// When nothing was written, or not all of it. A part of an instance proves nothing.
pub fn note_instance(path: &Path, instance: &str) -> Result<(), Error> {
    if getpid() != Pid::from_raw(1) {
        return Err(Error::NotPid1(getpid()));
    }
    let write = || OpenOptions::new().write(true).truncate(true).open(path)?.write_all(instance.as_bytes());
    write().map_err(|error| Error::File { path: path.into(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pid_1_proves_anything() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = note_instance(file.path(), "an instance").unwrap_err().to_string();
        assert!(error.contains("not PID 1") && error.contains("waits for the Lease"), "{error}");
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "");
    }
}
