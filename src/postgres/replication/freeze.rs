//! A standby that receives nothing more, and how far it has come.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use tokio::time::{Instant, sleep};
use tokio_postgres::types::PgLsn;

use super::lsn::{Lsn, Timeline};
use crate::{
    pid1::{Child, Runner},
    postgres::{
        bindir::Bindir,
        processes,
        sql::{self, Local},
    },
};

const POLL: Duration = Duration::from_millis(3);
/// For one query, and for pg_waldump.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Between the end of a walreceiver and the second look: the startup process may have asked for another one before.
const SETTLE: Duration = Duration::from_millis(15);

/// A standby that is frozen. Its file says already that it has no source.
pub struct Frozen {
    /// The data directory.
    pub pgdata: PathBuf,
    /// The own server.
    pub local: Local,
    /// Its postmaster.
    pub postmaster: Child,
    /// The programs.
    pub bindir: Bindir,
    /// Starts them.
    pub runner: Runner,
}

impl Frozen {
    /// Waits until it receives nothing and will not, and says where the valid WAL that it has ends, and on which timeline.
    /// `replayed`: waits until all of it is replayed too.
    ///
    /// There is no deadline in here.
    ///
    /// # Errors
    /// PostgreSQL does not answer, or ends.
    pub async fn end_of_wal(&self, replayed: bool) -> Result<(Lsn, Option<Timeline>), String> {
        while !self.has_no_source().await? {
            self.alive()?;
            sleep(POLL).await;
        }
        self.end_receiver().await?;
        let at = self.replayed().await?;
        let end = at.max(self.valid_wal(at).await?);
        while replayed && self.replayed().await? < end {
            self.alive()?;
            // A promotion would end a pause, too.
            self.ask("select pg_wal_replay_resume() from (values (1)) one where pg_is_wal_replay_paused()").await?;
            sleep(POLL).await;
        }
        // The file of the last byte: what comes next may be in another one, which is not there yet.
        let size = self.segment_size().await?;
        Ok((end, newest_timeline(&self.pgdata, Lsn(end.0.saturating_sub(1)), size)))
    }

    fn alive(&self) -> Result<(), String> {
        self.postmaster.is_running().then_some(()).ok_or_else(|| "PostgreSQL has ended".into())
    }

    /// In a new connection: those that are there see what their postmaster saw when it last read its files.
    async fn has_no_source(&self) -> Result<bool, String> {
        let query = "select current_setting('primary_conninfo') = '' and pg_is_in_recovery()";
        let asked = self.local.within(TIMEOUT, async |client| Ok(client.query_one(query, &[]).await?.try_get(0)?));
        asked.await.map_err(words)
    }

    /// The reload alone ends no walreceiver while replay is paused, delayed or in conflict. The startup process may ask for
    /// one more until it has read its file too; that one finds no password.
    async fn end_receiver(&self) -> Result<(), String> {
        let mut quiet: Option<Instant> = None;
        while quiet.is_none_or(|since| since.elapsed() < SETTLE) {
            self.alive()?;
            let there = receivers(&self.pgdata);
            if there.is_empty() {
                quiet.get_or_insert_with(Instant::now);
            } else {
                quiet = None;
                processes::signal_all(&there, Signal::SIGTERM);
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    async fn ask(&self, query: &str) -> Result<(), String> {
        let asked = self.local.within(TIMEOUT, async |client| Ok(client.batch_execute(query).await?));
        asked.await.map_err(words)
    }

    async fn replayed(&self) -> Result<Lsn, String> {
        let query = "select coalesce(pg_last_wal_replay_lsn(), '0/0')";
        let asked = self.local.within(TIMEOUT, async |client| {
            let lsn: PgLsn = client.query_one(query, &[]).await?.try_get(0)?;
            Ok(Lsn(lsn.into()))
        });
        asked.await.map_err(words)
    }

    /// The end of the last whole record behind `from`, without what page headers take. `pg_last_wal_receive_lsn()` is no such
    /// thing: it is null, or the beginning of a segment, in a server that has not streamed, whatever an earlier one received.
    ///
    /// The records before `from` are read too: each names the one before it, and what a recycled segment has behind the end of
    /// the WAL may look like a record where nothing does.
    async fn valid_wal(&self, from: Lsn) -> Result<Lsn, String> {
        let size = self.segment_size().await?;
        let mut end = from;
        loop {
            let Some(Timeline(timeline)) = newest_timeline(&self.pgdata, end, size) else { return Ok(end) };
            let before = Lsn(end.0.saturating_sub(BEFORE));
            let there = newest_timeline(&self.pgdata, before, size) == Some(Timeline(timeline));
            let start = if there { before } else { Lsn(end.0 / size * size) };
            let mut command = Command::new(self.bindir.program("pg_waldump"));
            command.args(["--path", &self.pgdata.join("pg_wal").to_string_lossy()]);
            command.args(["--timeline", &timeline.to_string(), "--start", &start.to_string()]).env("LC_ALL", "C");
            let said = self.runner.capture(&mut command, TIMEOUT).await;
            let said = said.map_err(|e| format!("pg_waldump cannot be run: {e}"))?;
            let last = said.stdout.lines().rev().find_map(record_end).unwrap_or(end);
            tracing::debug!("pg_waldump from {start} on: {last}, {}", said.stderr.trim());
            // What is cut off of a long answer is asked for by another question.
            if last <= end || said.stdout.len() < LONG {
                return Ok(end.max(last));
            }
            end = last;
        }
    }

    async fn segment_size(&self) -> Result<u64, String> {
        let query = "select setting::int8 from pg_settings where name = 'wal_segment_size'";
        let asked =
            self.local.within(TIMEOUT, async |client| Ok(client.query_one(query, &[]).await?.try_get::<_, i64>(0)?));
        asked.await.map_err(words).map(|size| size.unsigned_abs().max(1))
    }
}

/// So many bytes before the position are read.
const BEFORE: u64 = 64 << 10;
/// An answer of this length may be the beginning of a longer one ([`Runner::capture`] keeps a megabyte).
const LONG: usize = 1 << 19;

fn words(error: sql::Error) -> String {
    format!("its PostgreSQL does not say how far it is: {error}")
}

/// The walreceivers of the server on `pgdata`, as the kernel knows them.
fn receivers(pgdata: &Path) -> Vec<Pid> {
    let title = |pid: &Pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let receives = |pid: &Pid| String::from_utf8_lossy(&title(pid)).contains("walreceiver");
    processes::of_postgres_on(pgdata).into_iter().filter(receives).collect()
}

/// The newest timeline that has a file for the segment in which `at` is. None: there is no such file, and no WAL from there on.
fn newest_timeline(pgdata: &Path, at: Lsn, size: u64) -> Option<Timeline> {
    let segment = at.segment(size);
    let names = fs::read_dir(pgdata.join("pg_wal")).ok()?.flatten();
    let timeline = |name: &str| u32::from_str_radix(name.strip_suffix(&segment)?, 16).ok();
    names.filter_map(|f| timeline(f.file_name().to_str().filter(|n| n.len() == 24)?)).max().map(Timeline)
}

/// `rmgr: Heap  len (rec/tot): 54/ 150, tx: 738, lsn: 0/01500028, prev 0/…`: where that record ends.
fn record_end(line: &str) -> Option<Lsn> {
    let (_, rest) = line.split_once("len (rec/tot):")?;
    let length: u64 = rest.split_once('/')?.1.split_once(',')?.0.trim().parse().ok()?;
    let lsn: Lsn = rest.split_once("lsn: ")?.1.split_once(',')?.0.parse().ok()?;
    // Records begin at multiples of eight (`MAXALIGN`).
    Some(Lsn((lsn.0 + length).next_multiple_of(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_record_ends() {
        let line = "rmgr: Standby     len (rec/tot):     50/    50, tx:          0, lsn: 0/03000028, prev 0/02000100, desc: \
                    RUNNING_XACTS nextXid 735";
        assert_eq!(record_end(line), Some(Lsn(0x300_0060)));
        assert_eq!(record_end("pg_waldump: error: x"), None);
    }

    #[test]
    fn the_newest_timeline_of_a_segment() {
        let dir = tempfile::tempdir().unwrap();
        let (wal, size) = (dir.path().join("pg_wal"), 16 << 20);
        fs::create_dir(&wal).unwrap();
        for name in
            ["000000010000000000000003", "000000020000000000000003", "000000030000000000000004", "00000003.history"]
        {
            fs::write(wal.join(name), "").unwrap();
        }
        let newest = |lsn| newest_timeline(dir.path(), Lsn(lsn), size).map(|t| t.0);
        assert_eq!((newest(3 << 24), newest((4 << 24) + 5), newest(5 << 24)), (Some(2), Some(3), None));
    }
}
