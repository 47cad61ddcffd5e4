//! The directory for what need not outlive the container: sockets, log files on their way, a password file for one
//! program. One manager owns it, which a lock on the directory sees to.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// The control socket's name in the directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// A directory that this manager owns for as long as the value lives.
#[derive(Debug)]
pub struct RunDir {
    /// Its path.
    pub path: PathBuf,
    _lock: File,
}

/// Why there is no such directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The one that was named, or the last one tried, cannot be used.
    #[error("run-dir: cannot use {path}: {reason}. Name a directory with run-dir that uid {uid} can write")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
        /// Who asks.
        uid: u32,
    },
    /// Another manager uses it.
    #[error("run-dir: another podgres uses {0}: give each of them its own with run-dir")]
    InUse(PathBuf),
}

/// Where the directory is looked for when nobody named one. `/dev/shm` can be written even where the root file system
/// is read-only and nothing else was mounted.
pub fn candidates() -> [PathBuf; 3] {
    let uid = nix::unistd::geteuid();
    ["/run/podgres".into(), format!("/tmp/podgres-{uid}").into(), format!("/dev/shm/podgres-{uid}").into()]
}

impl RunDir {
    /// Takes the directory that was named, or the first of the [`candidates`] that can be used.
    ///
    /// # Errors
    /// When there is none, or another manager has it.
    pub fn acquire(named: Option<&Path>) -> Result<Self, Error> {
        if let Some(path) = named {
            return Self::take(path);
        }
        let mut last = None;
        for path in candidates() {
            match Self::take(&path) {
                Err(error @ Error::Unusable { .. }) => last = Some(error),
                taken_or_in_use => return taken_or_in_use,
            }
        }
        Err(last.unwrap_or(Error::InUse(PathBuf::new())))
    }

    fn take(path: &Path) -> Result<Self, Error> {
        let uid = nix::unistd::geteuid().as_raw();
        let unusable = |e: io::Error| Error::Unusable { path: path.to_path_buf(), reason: e.to_string(), uid };
        fs::DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(unusable)?;
        // In a directory that everybody can write (/tmp) somebody else may have made it first, to read what we put in.
        let meta = fs::symlink_metadata(path).map_err(unusable)?;
        let shared = path.parent() == Some(Path::new("/tmp")) || path.parent() == Some(Path::new("/dev/shm"));
        if shared && (meta.uid() != uid || !meta.is_dir()) {
            return Err(unusable(io::Error::other("it belongs to somebody else")));
        }
        nix::unistd::access(path, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK)
            .map_err(|e| unusable(e.into()))?;
        let lock = File::open(path).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(path.to_path_buf())),
            Err(TryLockError::Error(e)) => return Err(unusable(e)),
        }
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }
}

/// The control socket of the manager that runs here: in the directory that was named, or in the first of the
/// [`candidates`] that has one.
pub fn find_control_socket(named: Option<&Path>) -> Option<PathBuf> {
    let dirs = match named {
        Some(dir) => vec![dir.to_path_buf()],
        None => candidates().to_vec(),
    };
    dirs.into_iter().map(|dir| dir.join(CONTROL_SOCKET)).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_manager_owns_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = RunDir::acquire(Some(&path)).unwrap();
        assert!(matches!(RunDir::acquire(Some(&path)), Err(Error::InUse(_))));
        drop(first);
        assert!(RunDir::acquire(Some(&path)).is_ok());
    }

    #[test]
    fn one_that_cannot_be_made_is_named() {
        let error = RunDir::acquire(Some(Path::new("/proc/nowhere"))).unwrap_err().to_string();
        assert!(error.contains("/proc/nowhere") && error.contains("run-dir"), "{error}");
    }
}
