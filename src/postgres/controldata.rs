//! `global/pg_control`: what only this file tells, read without running `pg_controldata`.

use std::{fs::File, io::Read, path::Path};

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

    fn parse(head: [u8; 20]) -> Option<Self> {
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
}
