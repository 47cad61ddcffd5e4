//! What a data directory has outside of itself: a WAL directory, tablespaces.
//! (<https://www.postgresql.org/docs/current/storage-file-layout.html>: `pg_wal` and the entries of `pg_tblspc` may be
//! symbolic links.)

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::sync;

/// A directory elsewhere that is filled for a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// It was there before, empty, and is emptied again.
    Emptied(PathBuf),
    /// It is made for this directory alone, and removed with it.
    Removed(PathBuf),
}

const NOTE: &str = "outside";

/// Writes down in the stage at `root` what is going to be filled.
pub(super) fn note(root: &Path, outside: &[Outside]) -> io::Result<()> {
    let mut text = Vec::new();
    for one in outside {
        let (word, path) = match one {
            Outside::Emptied(path) => (b"empty ".as_slice(), path),
            Outside::Removed(path) => (b"remove ".as_slice(), path),
        };
        text.extend_from_slice(word);
        text.extend_from_slice(path.as_os_str().as_encoded_bytes());
        // No path contains it, unlike a newline.
        text.push(0);
    }
    let mut file = File::create(root.join(NOTE))?;
    file.write_all(&text)?;
    file.sync_all()?;
    sync(root)
}

/// Empties or removes what the stage at `root` has noted.
pub(super) fn remove_noted(root: &Path) -> io::Result<()> {
    let text = match fs::read(root.join(NOTE)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    for line in text.split(|byte| *byte == 0) {
        if let Some(path) = line.strip_prefix(b"empty ") {
            empty(path_of(path))?;
        } else if let Some(path) = line.strip_prefix(b"remove ") {
            remove(path_of(path))?;
        }
    }
    Ok(())
}

fn path_of(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Removes what the data directory `old` has outside of itself and `current` has not, not even within.
pub(super) fn remove_all_but(old: &Path, current: &Path) -> io::Result<()> {
    let used = targets(current);
    for target in targets(old).difference(&used) {
        empty_but(target, |path| used.iter().any(|u| u.starts_with(path)))?;
        let ours = target.file_name().is_some_and(|n| n.to_string_lossy().starts_with("podgres_"));
        if ours && fs::read_dir(target)?.next().is_none() {
            fs::remove_dir(target)?;
        }
    }
    Ok(())
}

/// Where the links of a data directory lead.
fn targets(data: &Path) -> BTreeSet<PathBuf> {
    let tablespaces = fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten().map(|e| e.path());
    let links = tablespaces.chain([data.join("pg_wal")]).filter(|p| p.is_symlink());
    links.filter_map(|link| fs::canonicalize(link).ok()).collect()
}

fn empty(dir: &Path) -> io::Result<()> {
    empty_but(dir, |_| false)
}

fn empty_but(dir: &Path, stays: impl Fn(&Path) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == "lost+found" || stays(&entry.path()) {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
