//! Going on where an earlier run was cut short.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{COMPLETE, REPLACES, VERSION, beside, discard_kept, inside, outside, sync, sync_parent};
use crate::postgres::datadir;

/// What an earlier run left behind.
#[derive(Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing.
    None,
    /// An unfinished stage; it was removed.
    Removed,
    /// A complete one; it was moved into place.
    Finished,
}

/// Finishes or removes what an interrupted initialisation or clone of `pgdata` left behind. The caller holds the lock,
/// and takes it anew if this answers [`Leftover::Finished`].
///
/// # Errors
/// When something cannot be moved or removed.
pub fn recover(pgdata: &Path) -> io::Result<Leftover> {
    let mut found = Leftover::None;
    if let Some(root) = beside(pgdata, "new").filter(|r| r.exists()) {
        if root.join(COMPLETE).exists() {
            exchange(pgdata, &root)?;
            found = Leftover::Finished;
        } else {
            discard(pgdata, &root)?;
            found = Leftover::Removed;
        }
    }
    let root = inside(pgdata);
    if root.join(COMPLETE).exists() {
        move_up(pgdata, &root)?;
        found = Leftover::Finished;
    } else if root.exists() {
        discard(pgdata, &root)?;
        found = Leftover::Removed;
    }
    Ok(found)
}

/// Lets the complete directory in the stage at `root` and the one named `pgdata` change places, unless an earlier try
/// did, and keeps the former one. The inode in `complete` tells which is which.
pub(super) fn exchange(pgdata: &Path, root: &Path) -> io::Result<()> {
    let (data, aside) = (root.join("data"), root.join("aside"));
    let noted = fs::read_to_string(root.join(COMPLETE))?;
    if fs::metadata(&data).is_ok_and(|m| m.ino().to_string() == noted) {
        match renameat2(AT_FDCWD, &data, AT_FDCWD, pgdata, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => {}
            // Some network file systems cannot. Then there is a moment without the name, which `complete` bridges.
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
                if pgdata.join(VERSION).exists() {
                    fs::rename(pgdata, &aside)?;
                }
                fs::rename(&data, pgdata)?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    sync_parent(pgdata)?;
    sync(root)?;
    let former = if aside.exists() { aside } else { data };
    if let (true, Some(old)) = (former.join(VERSION).exists(), beside(pgdata, "old")) {
        discard_kept(pgdata)?;
        fs::rename(&former, old)?;
    }
    fs::remove_dir_all(root)?;
    sync_parent(pgdata)
}

/// Moves everything from the complete stage at `root` into `pgdata`, after what was there has moved out. What an earlier
/// try moved is not there any more.
pub(super) fn move_up(pgdata: &Path, root: &Path) -> io::Result<()> {
    // A mount point has the mode of its volume, which PostgreSQL refuses; a renamed stage has initdb's.
    datadir::repair_mode(pgdata)?;
    move_out(pgdata, root)?;
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
    outside::remove_all_but(&root.join("old"), pgdata)?;
    fs::remove_dir_all(root)?;
    sync(pgdata)
}

/// Moves the entries of the data directory that is replaced into the stage's `old`. The file `out` says that all are
/// there, and that what is in `pgdata` from then on is new.
fn move_out(pgdata: &Path, root: &Path) -> io::Result<()> {
    let (old, out) = (root.join("old"), root.join("out"));
    if !root.join(REPLACES).exists() || out.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&old)?;
    for entry in fs::read_dir(pgdata)? {
        let entry = entry?;
        // The stage itself, the manager's own files, and what belongs to the volume rather than to PostgreSQL.
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && name != "lost+found" {
            fs::rename(entry.path(), old.join(name))?;
        }
    }
    sync(&old)?;
    sync(pgdata)?;
    fs::File::create(&out)?.sync_all()?;
    sync(root)
}

/// Removes a stage, and what its directory had outside of itself. Where a new `pgdata` has got its name already all of
/// that is in use, and only the empty shell of the stage is left: the start was cut short between the naming and the
/// cleaning.
pub(super) fn discard(pgdata: &Path, root: &Path) -> io::Result<()> {
    let published = pgdata.join(VERSION).exists() && !root.join(REPLACES).exists();
    if !published {
        outside::remove_noted(root)?;
    }
    fs::remove_dir_all(root)
}
