//! Positions in the WAL, and the timelines on which they are
//! (<https://www.postgresql.org/docs/current/datatype-pg-lsn.html>).

use std::{fmt, str::FromStr};

/// A position in the WAL: bytes since the cluster's beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// A timeline's number, from 1 on. Each promotion begins a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Timeline(pub u32);

/// A text that is no LSN.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a position in the WAL such as 0/16B3748")]
pub struct NotAnLsn(String);

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |t: &str| u32::from_str_radix(t, 16).ok().filter(|_| !t.starts_with('+')).map(u64::from);
        let (high, low) = text.trim().split_once('/').ok_or_else(|| NotAnLsn(text.into()))?;
        match (half(high), half(low)) {
            (Some(high), Some(low)) => Ok(Self(high << 32 | low)),
            _ => Err(NotAnLsn(text.into())),
        }
    }
}

impl Lsn {
    /// What the name of its segment ends with, behind the timeline: 16 hexadecimal digits (`XLogFileName`,
    /// xlog_internal.h). `size`: of a segment in bytes, a power of two.
    pub fn segment(self, size: u64) -> String {
        let (number, per_id) = (self.0 / size, (1 << 32) / size);
        format!("{:08X}{:08X}", number / per_id, number % per_id)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Timeline {
    /// The number in front of the names of its files: `0000000A` for timeline 10.
    pub fn file_prefix(self) -> String {
        format!("{:08X}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_postgres_writes_them() {
        assert_eq!("0/16B3748".parse(), Ok(Lsn(0x16B_3748)));
        assert_eq!("1/0".parse(), Ok(Lsn(1 << 32)));
        for nonsense in ["", "/", "0", "0/", "x/1", "+1/1", "1/2/3", "100000000/0"] {
            assert!(nonsense.parse::<Lsn>().is_err(), "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read(position: u64) {
            prop_assert_eq!(Lsn(position).to_string().parse(), Ok(Lsn(position)));
        }
    }
}
