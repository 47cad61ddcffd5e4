//! `global/pg_control`: its state word, read directly, and all that `pg_controldata` tells of it
//! (<https://www.postgresql.org/docs/current/app-pgcontroldata.html>).

use std::{fs::File, io, io::Read, path::Path, process::Command, time::Duration};

use super::{
    bindir::Bindir,
    replication::{
        divergence::Position,
        lsn::{Lsn, Timeline},
    },
};
use crate::pid1::{Exit, Runner};

/// The state of the cluster (`DBState`, `src/include/catalog/pg_control.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Never started since initdb.
    Startup,
    /// Shut down in order.
    ShutDown,
    /// Shut down in order while it was a standby.
    ShutDownInRecovery,
    /// The checkpoint of a shutdown is being written.
    ShuttingDown,
    /// Recovers from a crash.
    InCrashRecovery,
    /// A standby, or a restore from an archive.
    InArchiveRecovery,
    /// Accepts writes, or was killed while it did.
    InProduction,
}

impl State {
    /// Reads the state of the data directory `pgdata`. None: the file is missing or makes no sense.
    ///
    /// The file begins with the system identifier (8 bytes), the file's own version (4) and the catalogue's (4); the
    /// state follows. That has been so since 8.0. PostgreSQL overwrites it in place with one write of less than a
    /// sector, so that what is read is never torn.
    pub fn read(pgdata: &Path) -> Option<Self> {
        let mut head = [0; 20];
        File::open(pgdata.join("global/pg_control")).ok()?.read_exact(&mut head).ok()?;
        Self::parse(head)
    }

    pub(crate) fn parse(head: [u8; 20]) -> Option<Self> {
        let [.., a, b, c, d] = head;
        Some(match u32::from_ne_bytes([a, b, c, d]) {
            0 => Self::Startup,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
}

/// The cluster's identity, the first word of the file; none where there is no data directory.
pub fn system_identifier(pgdata: &Path) -> Option<u64> {
    let mut head = [0; 8];
    File::open(pgdata.join("global/pg_control")).ok()?.read_exact(&mut head).ok()?;
    Some(u64::from_ne_bytes(head))
}

/// How long `pg_controldata` may take to read one file of 8 kB.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What `pg_controldata` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlData {
    /// The cluster's identity.
    pub system_identifier: u64,
    /// `Database cluster state`, in English.
    pub state: String,
    /// `Latest checkpoint location`: where that record begins.
    pub checkpoint: Lsn,
    /// `Latest checkpoint's TimeLineID`.
    pub checkpoint_timeline: Timeline,
    /// `Minimum recovery ending location`: how far a standby had replayed when it last wrote this down; zero on a primary.
    pub recovery_end: Lsn,
    /// `Min recovery ending loc's timeline`.
    pub recovery_timeline: Timeline,
}

impl ControlData {
    /// Asks `pg_controldata` about the data directory `pgdata`.
    ///
    /// # Errors
    /// When it cannot be run, fails, or says something else than it does from 13 to 18.
    pub async fn read(pgdata: &Path, bindir: &Bindir, runner: &Runner) -> io::Result<Self> {
        let mut command = Command::new(bindir.program("pg_controldata"));
        command.arg("-D").arg(pgdata).env("LC_ALL", "C");
        let said = runner.capture(&mut command, TIMEOUT).await?;
        let failed = |why: &str| io::Error::other(format!("pg_controldata {}: {why}", pgdata.display()));
        match said.exit {
            Exit::Code(0) => Self::parse(&said.stdout).ok_or_else(|| failed("its answer makes no sense")),
            _ => Err(failed(said.stderr.trim())),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        Some(Self {
            system_identifier: field("Database system identifier")?.parse().ok()?,
            state: field("Database cluster state")?.into(),
            checkpoint: field("Latest checkpoint location")?.parse().ok()?,
            checkpoint_timeline: Timeline(field("Latest checkpoint's TimeLineID")?.parse().ok()?),
            recovery_end: field("Minimum recovery ending location")?.parse().ok()?,
            recovery_timeline: Timeline(field("Min recovery ending loc's timeline")?.parse().ok()?),
        })
    }

    /// How far a standby that was not shut down in order is at least; it may have replayed more.
    pub fn least_position(&self) -> Option<Position> {
        let known = self.state == "in archive recovery" && self.recovery_end > Lsn(0);
        let (timeline, end) = (self.recovery_timeline, self.recovery_end);
        known.then_some(Position { system_identifier: self.system_identifier, timeline, end })
    }

    /// How far the data directory is, if it was shut down in order. What crashed may hold more WAL than this file knows.
    pub fn position(&self) -> Option<Position> {
        let (timeline, end) = match self.state.as_str() {
            // The shutdown checkpoint is the last record: the next one would begin behind it, at least one byte on.
            "shut down" => (self.checkpoint_timeline, Lsn(self.checkpoint.0.saturating_add(1))),
            "shut down in recovery" => (self.recovery_timeline, self.recovery_end),
            _ => return None,
        };
        Some(Position { system_identifier: self.system_identifier, timeline, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_the_fifth_word() {
        let mut head = [7; 20];
        head[16..].copy_from_slice(&6_u32.to_ne_bytes());
        assert_eq!(State::parse(head), Some(State::InProduction));
        assert_eq!(State::parse([7; 20]), None);
        assert_eq!(State::read(Path::new("/does/not/exist")), None);
    }

    const SAID: &str = "pg_control version number:            1300
Database system identifier:           7711597542332502966
Database cluster state:               shut down
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000060
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
";

    #[test]
    fn a_position_at_the_end_of_all_is_no_reason_to_end() {
        let last = ControlData::parse(&SAID.replace("0/3000060", "FFFFFFFF/FFFFFFFF")).unwrap();
        assert_eq!(last.position().unwrap().end, Lsn(u64::MAX));
    }

    #[test]
    fn the_position_of_what_was_shut_down_in_order() {
        let clean = ControlData::parse(SAID).unwrap();
        let position = clean.position().unwrap();
        assert_eq!((position.timeline, position.end), (Timeline(2), Lsn(0x300_0061)));
        let standby = SAID.replace("shut down", "shut down in recovery").replace("0/0\n", "0/4000000\n");
        let position =
            ControlData::parse(&standby.replace("timeline:   0", "timeline:   3")).unwrap().position().unwrap();
        assert_eq!((position.timeline, position.end), (Timeline(3), Lsn(0x400_0000)));
        assert_eq!(ControlData::parse(&SAID.replace("shut down", "in production")).unwrap().position(), None);
    }
}
