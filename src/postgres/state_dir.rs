//! The manager's own durable files: what it must still know after the container is gone, beside the data that it is
//! about. They never hold anything without which PostgreSQL could not start.
//!
//! They are in `.<name>.podgres` beside the data directory, so that a data directory that is exchanged (a clone, a
//! restored backup) neither takes them along nor brings another member's. Where `PGDATA` is a mount point, or its parent
//! is not ours to write, nothing beside it would survive: then they are in `PGDATA/.podgres`.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::datadir::{is_mount_point, sync};

/// The directory. It is made when something is first written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The directory that belongs to the data directory `pgdata`. Changes nothing.
    pub fn of(pgdata: &Path) -> Self {
        let path = beside(pgdata).filter(|_| !is_mount_point(pgdata)).unwrap_or_else(|| pgdata.join(".podgres"));
        Self { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file so that after a crash at any moment it has either its old contents or these. `name` may name a
    /// file in a directory (`config/postgresql.conf`).
    ///
    /// # Errors
    /// When the system refuses; the old contents are still there then.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path.join(name);
        let dir = path.parent().unwrap_or(&self.path);
        make(dir)?;
        // Not hidden behind the final name's own extension, and never two writers: the manager is one task.
        let temporary = PathBuf::from(format!("{}.new", path.display()));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync(dir)
    }

    /// Reads a file. None: it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes a file, if it is there, durably.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Ok(()) => sync(path.parent().unwrap_or(&self.path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// None where the parent is not ours to write.
fn beside(pgdata: &Path) -> Option<PathBuf> {
    let (parent, name) = (pgdata.parent()?, pgdata.file_name()?.to_str()?);
    let path = parent.join(format!(".{name}.podgres"));
    access(parent, AccessFlags::W_OK | AccessFlags::X_OK).ok().map(|()| path)
}

/// Makes `dir` and what is missing above it, with durable names.
fn make(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let Some(parent) = dir.parent() else { return Ok(()) };
    make(parent)?;
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    sync(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_written_is_read_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::of(&dir.path().join("pgdata"));
        assert_eq!(state.path(), dir.path().join(".pgdata.podgres"));
        assert_eq!(state.read("config/a.conf").unwrap(), None);
        state.remove("config/a.conf").unwrap();
        for text in ["one", "two"] {
            state.write("config/a.conf", text.as_bytes()).unwrap();
            assert_eq!(state.read("config/a.conf").unwrap().unwrap(), text.as_bytes());
        }
        let mode = |p: &str| fs::metadata(state.path().join(p)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("config"), mode("config/a.conf")), (0o700, 0o600));
        assert_eq!(fs::read_dir(state.path().join("config")).unwrap().count(), 1);
        state.remove("config/a.conf").unwrap();
        assert_eq!(state.read("config/a.conf").unwrap(), None);
    }

    #[test]
    fn it_is_inside_where_nothing_beside_would_survive() {
        assert_eq!(StateDir::of(Path::new("/proc")).path(), Path::new("/proc/.podgres"));
        assert_eq!(StateDir::of(Path::new("/proc/sys/data")).path(), Path::new("/proc/sys/data/.podgres"));
    }
}
