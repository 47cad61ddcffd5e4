//! The segment in which a timeline forked off its parent, received only in part.
//!
//! A standby receives a new timeline from the beginning of the segment in which that one forked off: first what the parent's
//! segment has, too. Killed before it came to the fork, it never starts again. Recovery opens the newest timeline's file,
//! finds its end, and does not go back to the parent's: "according to history file, WAL location … belongs to timeline …, but
//! previous recovered WAL file came from timeline …" (`WaitForWALToBecomeAvailable`, xlogrecovery.c). What such a file has, the
//! parent's has, so it can go; it is received again.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::{
    history::History,
    lsn::{Lsn, Timeline},
};

/// Removes such segments from the `pg_wal` of a data directory on which no server runs. Their names.
///
/// # Errors
/// A file cannot be read or removed.
pub fn remove_torn(pgdata: &Path) -> io::Result<Vec<String>> {
    let wal = pgdata.join("pg_wal");
    let mut removed = Vec::new();
    for entry in fs::read_dir(&wal)? {
        let name = entry?.file_name();
        let Some(history) = name.to_str().and_then(|name| history(&wal, name)) else { continue };
        let Some(&(parent, fork)) = history.ancestors.last() else { continue };
        if let Some(torn) = torn(&wal, history.timeline, parent, fork)? {
            fs::remove_file(wal.join(&torn))?;
            removed.push(torn);
        }
    }
    Ok(removed)
}

/// Of `0000000A.history`.
fn history(wal: &Path, name: &str) -> Option<History> {
    let number = name.strip_suffix(".history").filter(|number| number.len() == 8)?;
    let timeline = Timeline(u32::from_str_radix(number, 16).ok()?);
    History::parse(timeline, &fs::read_to_string(wal.join(name)).ok()?).ok()
}

/// The child's segment, if the last byte before the fork is in the parent's and not in the child's.
fn torn(wal: &Path, child: Timeline, parent: Timeline, fork: Lsn) -> io::Result<Option<String>> {
    let Some(last) = fork.0.checked_sub(1).map(Lsn) else { return Ok(None) };
    let Some(ours) = Segment::open(wal, parent, last)? else { return Ok(None) };
    // Where the fork is at the beginning of a segment the child has nothing of its parent's.
    let Some(theirs) = Segment::open(wal, child, last)? else { return Ok(None) };
    let torn = ours.size == theirs.size && ours.has(last)? && !theirs.has(last)?;
    Ok(torn.then_some(theirs.name))
}

struct Segment {
    file: File,
    name: String,
    size: u64,
}

/// `XLOG_BLCKSZ`, as PostgreSQL is built unless somebody wants it otherwise.
const PAGE: u64 = 8192;
/// `XLogPageHeaderData`: magic (2 bytes), flags (2), timeline (4), position of the page (8), …
const POSITION: u64 = 8;

impl Segment {
    /// The one in which `at` is. All segments have the same size, and their names count them.
    fn open(wal: &Path, timeline: Timeline, at: Lsn) -> io::Result<Option<Self>> {
        for entry in fs::read_dir(wal)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.len() != 24 || !name.starts_with(&timeline.file_prefix()) {
                continue;
            }
            let size = entry.metadata()?.len();
            if size.is_power_of_two() && size >= 1 << 20 && name[8..] == at.segment(size) {
                return Ok(Some(Self { file: File::open(entry.path())?, name, size }));
            }
        }
        Ok(None)
    }

    /// Whether the page on which `at` is was written. What a recycled segment has there is another page.
    fn has(&self, at: Lsn) -> io::Result<bool> {
        let page = at.0 / PAGE * PAGE;
        let mut header = [0; 8];
        self.file.read_exact_at(&mut header, page % self.size + POSITION)?;
        Ok(u64::from_ne_bytes(header) == page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;
    const FORK: Lsn = Lsn(3 * SIZE + 20_000);

    /// A segment of this timeline, written up to `end`.
    fn write(wal: &Path, timeline: u32, end: Lsn) {
        let file = File::create(wal.join(format!("{timeline:08X}{}", end.segment(SIZE)))).unwrap();
        file.set_len(SIZE).unwrap();
        for page in (end.0 / SIZE * SIZE..end.0).step_by(usize::try_from(PAGE).unwrap()) {
            file.write_all_at(&page.to_ne_bytes(), page % SIZE + POSITION).unwrap();
        }
    }

    /// What is removed where timeline 2 forked off in a segment that both have up to these positions.
    fn removed(parent: Lsn, child: Lsn) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        fs::write(wal.join("00000002.history"), format!("1\t{FORK}\tno recovery target specified\n")).unwrap();
        write(&wal, 1, parent);
        write(&wal, 2, child);
        let removed = remove_torn(dir.path()).unwrap();
        assert!(removed.iter().all(|name| !wal.join(name).exists()) && wal.join("000000010000000000000003").exists());
        removed
    }

    #[test]
    fn what_ends_before_the_fork_goes_where_the_parent_has_it() {
        let torn = vec!["000000020000000000000003".to_string()];
        assert_eq!(removed(FORK, Lsn(3 * SIZE + 10_000)), torn);
        assert_eq!(removed(FORK, Lsn(3 * SIZE + 1)), torn);
        assert_eq!(removed(FORK, FORK), Vec::<String>::new(), "it came to the fork");
        assert_eq!(removed(FORK, Lsn(4 * SIZE - 1)), Vec::<String>::new());
        assert_eq!(removed(Lsn(3 * SIZE + 10_000), Lsn(3 * SIZE + 1)), Vec::<String>::new(), "nobody else has it");
    }

    #[test]
    fn a_directory_with_one_timeline_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        write(&wal, 1, FORK);
        assert_eq!(remove_torn(dir.path()).unwrap(), Vec::<String>::new());
    }
}
