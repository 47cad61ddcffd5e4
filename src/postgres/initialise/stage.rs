//! Atomic initialisation: a data directory is built under another name and gets its own in one step.
//!
//! Whatever happens on the way (a bad script, SIGKILL, a full disk), the next start finds either nothing but a *stage*,
//! which it removes and makes again, or a finished data directory, which it never touches.
//!
//! Two ways lead from the stage to the name:
//!
//! - **Beside**: `PGDATA` is missing or an empty directory whose parent is ours to write: the stage is its sibling
//!   `.<name>.podgres-init`, and one `rename(2)` publishes it.
//! - **Inside**: `PGDATA` is a mount point, holds a `lost+found`, or has a parent that is not ours: the stage is
//!   `PGDATA/.podgres-init`. A file `complete` in it, fsynced, says that the contents may move up; they do, one by one
//!   and `PG_VERSION` last. A start that finds `complete` goes on moving; one that finds a stage without it removes it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::postgres::{
    datadir,
    lock::{self, DirLock},
};

/// A data directory in the making.
#[derive(Debug)]
pub struct Stage {
    pgdata: PathBuf,
    root: PathBuf,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Beside,
    Inside,
}

const VERSION: &str = "PG_VERSION";

impl Stage {
    /// Begins a new stage for `pgdata`, which exists, is locked by the caller and holds no cluster.
    ///
    /// # Errors
    /// When the stage's directory cannot be made.
    pub fn begin(pgdata: &Path) -> io::Result<Self> {
        let beside = beside(pgdata);
        let way = if beside.is_some() && is_replaceable(pgdata)? { Way::Beside } else { Way::Inside };
        let root = match (way, beside) {
            (Way::Beside, Some(path)) => path,
            _ => inside(pgdata),
        };
        let make = |root: &Path| fs::DirBuilder::new().mode(0o700).create(root);
        let (root, way) = match make(&root) {
            Ok(()) => (root, way),
            // The parent belongs to somebody else (a bind mount's, or the image's).
            Err(_) if way == Way::Beside => {
                make(&inside(pgdata))?;
                (inside(pgdata), Way::Inside)
            }
            Err(e) => return Err(e),
        };
        Ok(Self { pgdata: pgdata.to_path_buf(), root, way })
    }

    /// Where the data directory is built. It does not exist yet: initdb makes it.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Notes that initialisation will fill `waldir`, which was found empty, so that a start after a crash empties it.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn note_waldir(&self, waldir: &Path) -> io::Result<()> {
        let mut note = File::create(self.root.join("waldir"))?;
        note.write_all(waldir.as_os_str().as_encoded_bytes())?;
        note.sync_all()?;
        sync(&self.root)
    }

    /// Gives the finished directory its name. Everything in it must be on disk already. Returns the lock on what now
    /// has the name, if that is another inode than before.
    ///
    /// # Errors
    /// When the system refuses; the stage is still there then.
    pub fn publish(self) -> Result<Option<DirLock>, PublishError> {
        match self.way {
            Way::Beside => {
                let lock = DirLock::acquire(&self.data())?;
                fs::rename(self.data(), &self.pgdata)?;
                if let Some(parent) = self.pgdata.parent() {
                    sync(parent)?;
                }
                fs::remove_dir_all(&self.root)?;
                Ok(lock)
            }
            Way::Inside => {
                File::create(self.root.join("complete"))?.sync_all()?;
                sync(&self.root)?;
                move_up(&self.pgdata, &self.root)?;
                Ok(None)
            }
        }
    }

    /// Removes the stage and everything in it.
    ///
    /// # Errors
    /// When something cannot be removed; the next start tries again.
    pub fn discard(self) -> io::Result<()> {
        discard(&self.pgdata, &self.root)
    }
}

/// Why a finished directory did not get its name.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The new directory could not be locked.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The system refused.
    #[error("cannot move the initialised data directory into place: {0}")]
    Io(#[from] io::Error),
}

/// What an earlier initialisation left behind.
#[derive(Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing.
    None,
    /// An unfinished stage; it was removed.
    Removed,
    /// A complete one; it was moved into place.
    Finished,
}

/// Finishes or removes what an interrupted initialisation of `pgdata` left behind. The caller holds the lock.
///
/// # Errors
/// When something cannot be moved or removed.
pub fn recover(pgdata: &Path) -> io::Result<Leftover> {
    let mut found = Leftover::None;
    if let Some(root) = beside(pgdata).filter(|r| r.exists()) {
        discard(pgdata, &root)?;
        found = Leftover::Removed;
    }
    let root = inside(pgdata);
    if root.join("complete").exists() {
        move_up(pgdata, &root)?;
        found = Leftover::Finished;
    } else if root.exists() {
        discard(pgdata, &root)?;
        found = Leftover::Removed;
    }
    Ok(found)
}

fn beside(pgdata: &Path) -> Option<PathBuf> {
    let name = pgdata.file_name()?.to_str()?;
    Some(pgdata.parent()?.join(format!(".{name}.podgres-init")))
}

fn inside(pgdata: &Path) -> PathBuf {
    pgdata.join(".podgres-init")
}

/// Whether `rename(2)` can put a directory in the place of `pgdata`: an empty directory that is no mount point.
fn is_replaceable(pgdata: &Path) -> io::Result<bool> {
    let Some(parent) = pgdata.parent() else { return Ok(false) };
    let same_device = fs::metadata(pgdata)?.dev() == fs::metadata(parent)?.dev();
    Ok(same_device && !is_mount_point(pgdata) && !pgdata.is_symlink() && fs::read_dir(pgdata)?.next().is_none())
}

/// A bind mount has the device number of its surroundings; only the list of mounts tells.
fn is_mount_point(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|l| l.split(' ').nth(4).is_some_and(|m| Path::new(m) == path))
}

/// Moves everything from the complete stage at `root` into `pgdata`. What an earlier try moved is not there any more.
fn move_up(pgdata: &Path, root: &Path) -> io::Result<()> {
    // A mount point has the mode of its volume, which PostgreSQL refuses; a renamed stage has initdb's.
    datadir::repair_mode(pgdata)?;
    let data = root.join("data");
    if data.exists() {
        for entry in fs::read_dir(&data)? {
            let entry = entry?;
            if entry.file_name() != VERSION {
                fs::rename(entry.path(), pgdata.join(entry.file_name()))?;
            }
        }
        sync(pgdata)?;
        if data.join(VERSION).exists() {
            fs::rename(data.join(VERSION), pgdata.join(VERSION))?;
        }
        sync(pgdata)?;
        fs::remove_dir(&data)?;
    }
    fs::remove_dir_all(root)?;
    sync(pgdata)
}

/// Removes a stage, and what it put into a WAL directory elsewhere. Where `pgdata` has got its name already the WAL is
/// in use, and only the empty shell of the stage is left: the start was cut short between the naming and the cleaning.
fn discard(pgdata: &Path, root: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStringExt;
    let published = pgdata.join(VERSION).exists();
    if let (false, Ok(bytes)) = (published, fs::read(root.join("waldir"))) {
        empty(Path::new(&std::ffi::OsString::from_vec(bytes)))?;
    }
    fs::remove_dir_all(root)
}

fn empty(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == "lost+found" {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// Makes the names in a directory durable.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(stage: &Stage) {
        fs::create_dir_all(stage.data().join("global")).unwrap();
        fs::write(stage.data().join("global/pg_control"), "x").unwrap();
        fs::write(stage.data().join(VERSION), "15").unwrap();
    }

    fn assert_whole(pgdata: &Path) {
        assert!(pgdata.join(VERSION).exists() && pgdata.join("global/pg_control").exists());
        let names: Vec<_> = fs::read_dir(pgdata).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!names.iter().any(|n| n == ".podgres-init"), "{names:?}");
        assert!(!beside(pgdata).unwrap().exists());
        assert_eq!(recover(pgdata).unwrap(), Leftover::None);
    }

    #[test]
    fn an_empty_directory_is_replaced_in_one_step_with_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let pgdata = dir.path().join("pgdata");
        fs::create_dir(&pgdata).unwrap();
        let _old = DirLock::acquire(&pgdata).unwrap();
        let stage = Stage::begin(&pgdata).unwrap();
        assert_eq!(stage.way, Way::Beside);
        fill(&stage);
        let lock = stage.publish().unwrap();
        assert!(lock.is_some());
        assert!(matches!(DirLock::acquire(&pgdata), Err(lock::Error::Held(_))));
        assert_whole(&pgdata);
    }

    #[test]
    fn a_directory_with_lost_and_found_is_filled_from_inside() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        let stage = Stage::begin(dir.path()).unwrap();
        assert_eq!(stage.way, Way::Inside);
        fill(&stage);
        assert!(stage.publish().unwrap().is_none());
        assert_whole(dir.path());
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o7777, 0o700, "or PostgreSQL would refuse it");
    }

    #[test]
    fn an_unfinished_stage_is_removed_with_what_it_left_in_the_wal_directory() {
        let dir = tempfile::tempdir().unwrap();
        for lost_and_found in [false, true] {
            let (pgdata, waldir) = (dir.path().join("pgdata"), dir.path().join("wal"));
            fs::create_dir_all(&waldir).unwrap();
            fs::create_dir_all(&pgdata).unwrap();
            if lost_and_found {
                fs::create_dir(pgdata.join("lost+found")).unwrap();
            }
            let stage = Stage::begin(&pgdata).unwrap();
            fill(&stage);
            stage.note_waldir(&waldir).unwrap();
            fs::write(waldir.join("000000010000000000000001"), "x").unwrap();
            drop(stage); // as SIGKILL would
            assert_eq!(recover(&pgdata).unwrap(), Leftover::Removed);
            assert!(!pgdata.join(VERSION).exists());
            assert_eq!(fs::read_dir(&waldir).unwrap().count(), 0);
            assert_eq!(recover(&pgdata).unwrap(), Leftover::None);
        }
    }

    #[test]
    fn the_wal_of_a_published_directory_is_never_touched() {
        for lost_and_found in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (pgdata, waldir) = (dir.path().join("pgdata"), dir.path().join("wal"));
            fs::create_dir(&waldir).unwrap();
            fs::create_dir(&pgdata).unwrap();
            if lost_and_found {
                fs::create_dir(pgdata.join("lost+found")).unwrap();
            }
            let stage = Stage::begin(&pgdata).unwrap();
            stage.note_waldir(&waldir).unwrap();
            fs::write(waldir.join("000000010000000000000001"), "x").unwrap();
            fs::write(pgdata.join(VERSION), "15").unwrap(); // named, then killed before the stage was removed
            assert_eq!(recover(&pgdata).unwrap(), Leftover::Removed);
            assert_eq!(fs::read_dir(&waldir).unwrap().count(), 1);
        }
    }

    /// Every moment at which the moving up can be cut short: after each of its renames.
    #[test]
    fn a_complete_stage_is_finished_wherever_it_was_cut_short() {
        for moved in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("lost+found")).unwrap();
            let stage = Stage::begin(dir.path()).unwrap();
            fill(&stage);
            File::create(stage.root.join("complete")).unwrap();
            for name in ["global", VERSION].iter().take(moved) {
                fs::rename(stage.data().join(name), dir.path().join(name)).unwrap();
            }
            if moved == 3 {
                fs::remove_dir(stage.data()).unwrap();
            }
            assert_eq!(recover(dir.path()).unwrap(), Leftover::Finished);
            assert_whole(dir.path());
        }
    }
}
