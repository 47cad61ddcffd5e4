//! The lock that keeps a second manager off a data directory, across containers and PID namespaces of one node.
//!
//! PostgreSQL's own interlock (a pid file and a shared memory segment) is void between containers: a second one starts
//! crash recovery under the feet of the first. So the manager takes `flock(2)` on the data directory itself and lets
//! the postmaster, and through it every process of PostgreSQL, inherit the descriptor: the lock lives exactly as long
//! as any of them. Released by the kernel in every kind of death, it is never stale. Other children must not inherit
//! it, which Rust's close-on-exec default sees to; [`DirLock::descriptor`] is for the postmaster alone.
//!
//! What is locked is the inode that `PGDATA` names. Whoever exchanges the directory locks the new one before it gets
//! the name; whoever locks checks afterwards that the name still means what was locked.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

/// A held lock. Dropping it closes this process's descriptor; the lock itself goes with the last copy of it.
#[derive(Debug)]
pub struct DirLock {
    dir: File,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else holds it.
    #[error(
        "the data directory {0} is in use: another podgres, or a PostgreSQL that one left behind, holds its lock. \
         Two servers on one data directory destroy it, so this one does not start. Stop the other container \
         that uses this volume first"
    )]
    Held(PathBuf),
    /// The system refused.
    #[error("cannot lock the data directory {0} as uid {us}: {1}", us = nix::unistd::geteuid())]
    Io(PathBuf, #[source] io::Error),
}

impl DirLock {
    /// Locks `dir`, which must exist. `Ok(None)`: the file system has no such locks (some network file systems).
    ///
    /// # Errors
    /// [`Error::Held`] at once, without waiting, when another process has it.
    pub fn acquire(dir: &Path) -> Result<Option<Self>, Error> {
        let failed = |e| Error::Io(dir.to_path_buf(), e);
        loop {
            let file = File::open(dir).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::Held(dir.to_path_buf())),
                Err(TryLockError::Error(e)) if is_unsupported(&e) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
            if same_inode(&file, dir).map_err(failed)? {
                return Ok(Some(Self { dir: file }));
            }
            // The directory was exchanged between the opening and the locking: lock what has its name now.
        }
    }

    /// Whether what it locks is what has the name `path`.
    pub fn is_on(&self, path: &Path) -> bool {
        same_inode(&self.dir, path).unwrap_or(false)
    }

    /// A copy of the descriptor for the postmaster to inherit.
    ///
    /// # Errors
    /// Only when the process is out of file descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.dir.try_clone()?.into())
    }
}

fn same_inode(file: &File, path: &Path) -> io::Result<bool> {
    let (a, b) = (file.metadata()?, fs::metadata(path)?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// NFS turns `flock` into a lock that needs a file open for writing, which no directory can be (EBADF).
fn is_unsupported(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EBADF | Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_it_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::acquire(dir.path()).unwrap().unwrap();
        assert!(matches!(DirLock::acquire(dir.path()), Err(Error::Held(_))));
        let inherited = first.descriptor().unwrap();
        drop(first);
        assert!(matches!(DirLock::acquire(dir.path()), Err(Error::Held(_))), "a copy of the descriptor keeps it");
        drop(inherited);
        assert!(DirLock::acquire(dir.path()).unwrap().is_some());
    }

    #[test]
    fn directories_beside_each_other_do_not_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|n| dir.path().join(n));
        let locks = paths.each_ref().map(|p| {
            fs::create_dir(p).unwrap();
            DirLock::acquire(p).unwrap().unwrap()
        });
        drop(locks);
    }
}
