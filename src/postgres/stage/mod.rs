//! A data directory is built under another name and gets its own in one step.
//!
//! Whatever happens on the way (a bad script, SIGKILL, a full disk), the next start finds either nothing but a *stage*,
//! which it removes and makes again, or a finished data directory, which it never touches. What the new directory
//! replaces is whole until the moment of the exchange, and kept after it.
//!
//! Two ways lead from the stage to the name:
//!
//! - **Beside**: the parent of `PGDATA` is ours to write: the stage is its sibling `.<name>.podgres-new`. Where there
//!   was nothing one `rename(2)` publishes it. Where a data directory is replaced, a file `complete` in the stage says
//!   that the two may change places, and which one is the new one; `RENAME_EXCHANGE` does it; the former one is kept as
//!   `.<name>.podgres-old`.
//! - **Inside**: `PGDATA` is a mount point, holds a `lost+found`, or has a parent that is not ours: the stage is
//!   `PGDATA/.podgres-new`. Once `complete` is on disk, a former data directory's entries move out of the way, then the
//!   new ones up, one by one and `PG_VERSION` last. A start that finds `complete` goes on moving. The former directory
//!   is not kept: a base backup of the new one would copy it too.
//!
//! What a directory has outside of itself (WAL, tablespaces) is noted in the stage before it is made; see [`outside`].

pub mod outside;
mod recover;

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

pub use recover::{Leftover, recover};

use crate::postgres::{
    datadir::{is_mount_point, sync},
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
/// In a stage: the new directory takes the place of one that is there.
const REPLACES: &str = "replaces";
/// In a stage: the new directory is whole; its inode number.
const COMPLETE: &str = "complete";

/// Why a finished directory did not get its name.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The new directory could not be locked.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The system refused.
    #[error("cannot move the new data directory into place: {0}")]
    Io(#[from] io::Error),
}

impl Stage {
    /// Begins a new stage for `pgdata`, which exists and is locked by the caller. If it holds a data directory, that one
    /// is to be replaced.
    ///
    /// # Errors
    /// When the stage's directory cannot be made.
    pub fn begin(pgdata: &Path) -> io::Result<Self> {
        let beside = beside(pgdata, "new");
        let way = if beside.is_some() && can_change_name(pgdata)? { Way::Beside } else { Way::Inside };
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
        if is_cluster(pgdata) {
            File::create(root.join(REPLACES))?.sync_all()?;
            sync(&root)?;
        }
        Ok(Self { pgdata: pgdata.to_path_buf(), root, way })
    }

    /// Where the data directory is built. It does not exist yet: initdb or pg_basebackup makes it.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Notes, before it is made, what the directory will have outside of itself, so that a start after a crash removes
    /// it.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn note(&self, outside: &[outside::Outside]) -> io::Result<()> {
        outside::note(&self.root, outside)
    }

    /// Gives the finished directory its name. Everything in it must be on disk already. Returns the lock on what now
    /// has the name, if that is another inode than before. No PostgreSQL may run on either.
    ///
    /// # Errors
    /// When the system refuses; the stage is still there then.
    pub fn publish(&self) -> Result<Option<DirLock>, PublishError> {
        match self.way {
            Way::Beside if !self.replaces() => {
                let lock = DirLock::acquire(&self.data())?;
                fs::rename(self.data(), &self.pgdata)?;
                sync_parent(&self.pgdata)?;
                fs::remove_dir_all(&self.root)?;
                Ok(lock)
            }
            Way::Beside => {
                let lock = DirLock::acquire(&self.data())?;
                self.complete()?;
                recover::exchange(&self.pgdata, &self.root)?;
                Ok(lock)
            }
            Way::Inside => {
                self.complete()?;
                recover::move_up(&self.pgdata, &self.root)?;
                Ok(None)
            }
        }
    }

    fn replaces(&self) -> bool {
        self.root.join(REPLACES).exists()
    }

    fn complete(&self) -> io::Result<()> {
        let mut file = File::create(self.root.join(COMPLETE))?;
        write!(file, "{}", fs::metadata(self.data())?.ino())?;
        file.sync_all()?;
        sync(&self.root)
    }

    /// Removes the stage and everything in it.
    ///
    /// # Errors
    /// When something cannot be removed; the next start tries again.
    pub fn discard(self) -> io::Result<()> {
        recover::discard(&self.pgdata, &self.root)
    }
}

/// The data directory that was replaced last, if it is still kept.
pub fn kept(pgdata: &Path) -> Option<PathBuf> {
    beside(pgdata, "old").filter(|path| path.exists())
}

/// Removes what [`kept`] names, with what it alone has outside of itself.
///
/// # Errors
/// When something cannot be removed.
pub fn discard_kept(pgdata: &Path) -> io::Result<()> {
    let Some(old) = kept(pgdata) else { return Ok(()) };
    outside::remove_all_but(&old, pgdata)?;
    match fs::remove_dir_all(&old) {
        // A clone that needs the room does the same.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The share of a volume that is to be free before a former data directory is kept on it: PostgreSQL stops when it is full.
const KEPT_WHILE_FREE: u64 = 10;

/// Removes what [`kept`] names if less than a tenth of the volume is free. Says what was removed.
///
/// # Errors
/// When it cannot be removed.
pub fn make_room(pgdata: &Path) -> io::Result<Option<PathBuf>> {
    let Some(old) = kept(pgdata) else { return Ok(None) };
    let volume = nix::sys::statvfs::statvfs(pgdata)?;
    if volume.blocks_available() >= volume.blocks() / KEPT_WHILE_FREE {
        return Ok(None);
    }
    discard_kept(pgdata)?;
    Ok(Some(old))
}

/// Whether a data directory has `pgdata`'s name, and may have another one: whether nothing but the name stands in the
/// way of keeping a directory beside it.
pub fn has_room_beside(pgdata: &Path) -> bool {
    let writable = |p: &Path| nix::unistd::access(p, nix::unistd::AccessFlags::W_OK).is_ok();
    can_change_name(pgdata).unwrap_or(false) && pgdata.parent().is_some_and(writable)
}

fn beside(pgdata: &Path, what: &str) -> Option<PathBuf> {
    let name = pgdata.file_name()?.to_str()?;
    Some(pgdata.parent()?.join(format!(".{name}.podgres-{what}")))
}

fn inside(pgdata: &Path) -> PathBuf {
    pgdata.join(".podgres-new")
}

fn is_cluster(pgdata: &Path) -> bool {
    pgdata.join(VERSION).exists()
}

/// Whether `rename(2)` can put a directory in the place of `pgdata`: no mount point, and either a data directory or
/// empty.
fn can_change_name(pgdata: &Path) -> io::Result<bool> {
    let Some(parent) = pgdata.parent() else { return Ok(false) };
    let same_device = fs::metadata(pgdata)?.dev() == fs::metadata(parent)?.dev();
    let content = is_cluster(pgdata) || fs::read_dir(pgdata)?.next().is_none();
    Ok(same_device && !is_mount_point(pgdata) && !pgdata.is_symlink() && content)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync)
}

#[cfg(test)]
mod tests;
