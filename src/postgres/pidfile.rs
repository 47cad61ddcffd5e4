//! `postmaster.pid`: what PostgreSQL says of itself while it runs
//! (`src/include/utils/pidfile.h`; the same eight lines from 10 to 18).

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::Pid;

/// The content of `postmaster.pid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PidFile {
    /// The postmaster's pid, in its own PID namespace.
    pub pid: Pid,
    /// When it started, in seconds since 1970.
    pub start_time: i64,
    /// The TCP port, which is also part of the socket's name.
    pub port: u16,
    /// The first of its socket directories, if it has one.
    pub socket_dir: Option<PathBuf>,
    /// How far it is; none while the line has not been written yet.
    pub status: Option<Status>,
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not yet accepting connections.
    Starting,
    /// Shutting down.
    Stopping,
    /// Accepts connections: a primary, and also a hot standby.
    Ready,
    /// In recovery and, since `hot_standby` is off, accepts no connections.
    Standby,
}

/// When the file in `pgdata` was last written. A server that was killed leaves one, which says that it is ready, and in the
/// next container the next server may well have the same pid.
pub fn written(pgdata: &Path) -> Option<SystemTime> {
    std::fs::metadata(pgdata.join("postmaster.pid")).ok()?.modified().ok()
}

impl PidFile {
    /// Reads the file in `pgdata`. None: there is none, or it is not whole (yet).
    pub fn read(pgdata: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(pgdata.join("postmaster.pid")).ok()?)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |n: usize| lines.get(n).copied().unwrap_or_default();
        Some(Self {
            // Negative: a server in single-user mode.
            pid: line(0).parse().ok().and_then(i32::checked_abs).filter(|pid| *pid > 0).map(Pid::from_raw)?,
            start_time: line(2).parse().unwrap_or(0),
            port: line(3).parse().unwrap_or(0),
            socket_dir: Some(line(4)).filter(|l| !l.is_empty()).map(PathBuf::from),
            status: match line(7) {
                "starting" => Some(Status::Starting),
                "stopping" => Some(Status::Stopping),
                "ready" => Some(Status::Ready),
                "standby" => Some(Status::Standby),
                _ => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines() {
        let file = PidFile::parse("42\n/data\n1700000000\n5433\n/run/pg\n*\n  5432001    32770\nready   \n").unwrap();
        assert_eq!(file.pid, Pid::from_raw(42));
        assert_eq!((file.port, file.start_time), (5433, 1_700_000_000));
        assert_eq!(file.socket_dir.as_deref(), Some(Path::new("/run/pg")));
        assert_eq!(file.status, Some(Status::Ready));
    }

    #[test]
    fn half_written_or_nonsense() {
        assert_eq!(PidFile::parse("42\n/data\n").unwrap().status, None);
        assert_eq!(PidFile::parse(""), None);
        for nonsense in ["none\n", "0\n", "-2147483648\n", "99999999999\n"] {
            assert_eq!(PidFile::parse(nonsense), None);
        }
        assert_eq!(PidFile::parse("-42\n").unwrap().pid, Pid::from_raw(42));
    }
}
