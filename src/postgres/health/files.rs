//! The checks of storage: a small write with fsync, each round in a thread of its own, because a system call on a stalled volume
//! does not come back.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, sys::statvfs::fstatvfs};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::Health;
use crate::beat::beat;

/// The file that is written. Its name begins as those of PostgreSQL's temporary files do (`PG_TEMP_FILE_PREFIX`), which
/// pg_basebackup leaves out wherever they are (`sendDir`, basebackup.c) and pg_rewind in all directories but the topmost;
/// there it is one of the small files that it copies or removes. It is written anew each time and removed at the end, so
/// that a crash leaves at most this one, to be written by the next watch.
pub const PROBE: &str = "pgsql_tmp_podgres";

/// The thread needs a few system calls' worth, in bytes.
const STACK: usize = 64 << 10;

/// What a table grows by, in bytes.
const PAGE: u64 = 8192;

/// Ends the checks when dropped.
pub(super) struct Stop {
    probes: Arc<Probes>,
    rounds: JoinHandle<()>,
}

struct Probes {
    data: PathBuf,
    wal: PathBuf,
    stopped: AtomicBool,
}

impl Probes {
    fn remove(&self) {
        let _ = (fs::remove_file(&self.data), fs::remove_file(&self.wal));
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.rounds.abort();
        self.probes.stopped.store(true, SeqCst);
        let probes = self.probes.clone();
        // A round that is under way removes what it has written.
        let _ = in_thread(move || probes.remove());
    }
}

/// Begins to write into `pgdata` and its `pg_wal` every so often. A round has a thread for as long as it takes: one that
/// waited in between would be one more to keep, and a round that storage holds is followed by no other.
pub(super) fn watch(pgdata: &Path, every: Duration, publish: watch::Sender<Health>) -> Stop {
    let (data, wal) = (pgdata.join(PROBE), pgdata.join("pg_wal").join(PROBE));
    let probes = Arc::new(Probes { data, wal, stopped: AtomicBool::new(false) });
    let probed = probes.clone();
    let rounds = tokio::spawn(async move {
        let mut ticks = beat(every);
        for number in 1.. {
            let (done, is_done) = oneshot::channel();
            let (probes, publish) = (probed.clone(), publish.clone());
            let begun = in_thread(move || {
                round(&probes.data, &probes.wal, number, &publish);
                if probes.stopped.load(SeqCst) {
                    probes.remove();
                }
                let _ = done.send(());
            });
            if let Err(error) = begun {
                tracing::warn!("no thread to check storage with: {error}");
            }
            let _ = is_done.await;
            ticks.tick().await;
        }
    });
    Stop { probes, rounds }
}

fn in_thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("storage".into()).stack_size(STACK).spawn(work).map(drop)
}

/// Both are written even if they are on one volume: a quota or a mount may part them, and it is one small write.
fn round(data: &Path, wal: &Path, number: u64, publish: &watch::Sender<Health>) {
    let sent = Instant::now();
    let written = write(data, number);
    let mut full = matches!(written, Ok(Written::Full));
    publish.send_modify(|health| health.data.note(sent, written.map(drop).map_err(|e| e.to_string())));

    let sent = Instant::now();
    let written = write(wal, number);
    full |= matches!(written, Ok(Written::Full));
    publish.send_modify(|health| {
        health.wal.note(sent, written.map(drop).map_err(|e| e.to_string()));
        health.full = full;
    });
}

/// What became of a write that storage answered.
#[derive(Debug, PartialEq, Eq)]
enum Written {
    /// It is on storage.
    Synced,
    /// There is no room. Storage has answered; what that means is for PostgreSQL to decide ([`super::verdict`]).
    Full,
}

/// Opens the file each time, so that it is the file of the directory that is there now; the number makes it differ from
/// what is there.
fn write(path: &Path, number: u64) -> io::Result<Written> {
    let written = (|| -> io::Result<bool> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.write_all_at(&number.to_le_bytes(), 0)?;
        file.sync_all()?;
        // The file has its room since it was first written: it says nothing of room for another page.
        Ok(fstatvfs(&file).is_ok_and(|s| s.blocks() > 0 && s.blocks_available() * s.fragment_size() < PAGE))
    })();
    match written {
        Ok(false) => Ok(Written::Synced),
        Ok(true) => Ok(Written::Full),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Ok(Written::Full),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_that_answers_is_not_stalled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PROBE);
        assert_eq!(write(&path, 1).unwrap(), Written::Synced);
        assert_eq!(write(&path, 2).unwrap(), Written::Synced);
        assert_eq!(fs::read(&path).unwrap(), 2_u64.to_le_bytes());
        // Always full.
        assert_eq!(write(Path::new("/dev/full"), 1).unwrap(), Written::Full);
        assert!(write(&dir.path().join("gone").join(PROBE), 1).is_err());
    }

    #[test]
    fn nothing_is_left_when_the_watch_ends() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pg_wal")).unwrap();
        let (publish, mut health) = watch::channel(Health::starting(Instant::now()));
        let files = [dir.path().join(PROBE), dir.path().join("pg_wal").join(PROBE)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stop = runtime.block_on(async { super::watch(dir.path(), Duration::from_secs(3600), publish) });
        let begun = health.borrow().wal.last;
        let proven = async { drop(health.wait_for(|h| h.wal.last > begun && h.data.last > begun).await.unwrap()) };
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), proven).await }).unwrap();
        assert!(files.iter().all(|f| f.exists()));
        drop(stop);
        let waited = Instant::now();
        while files.iter().any(|f| f.exists()) {
            assert!(waited.elapsed() < Duration::from_secs(30), "it ends at once, not after the pause");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
