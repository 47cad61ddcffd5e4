//! Logs: every line that any process of the container writes becomes exactly one line on stdout.
//!
//! ```text
//! tracing events of podgres ────────────── own ──┐
//! stderr of initdb, psql, … ── lines ───── raw ──┤
//! postgres.log  ┐                          raw ──┼─ Record ── Batch ── Sink ── thread log-writer ── stdout
//! postgres.json ├─ tail ────────── postgres_json ┤
//! postgres.csv  ┘                   postgres_csv ┘
//! ```
//!
//! A stalled reader of stdout stalls nobody: [`Sink`] is the only way to stdout, and it drops and counts what it
//! cannot hold. This module never decides what is worth logging. Whoever logs keeps secrets out; only PostgreSQL does not,
//! when it says what a setting was changed to, so values in its messages are looked at here ([`crate::secrets`]).

pub(crate) mod batch;
mod lines;
mod own;
mod postgres_csv;
mod postgres_json;
mod raw;
mod record;
mod sink;
mod splitter;
pub(crate) mod tail;

#[cfg(feature = "fuzzing")]
pub(crate) use self::splitter::MAX_LINE;
pub use self::{
    lines::{lines, lines_but},
    own::init,
    postgres_json::postgres_json,
    raw::raw,
    sink::Sink,
    tail::{Kind, Tailer},
};

/// How a line on stdout looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line: `ts`, `level`, `logger`, `msg`, then further fields.
    Json,
    /// For people at a terminal. The only format in which a message may take more than one line.
    Text,
}

/// How grave a line is. PostgreSQL's severities are mapped onto these five; its own word stays in `error_severity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For developers.
    Debug,
    /// Normal operation.
    Info,
    /// Works, but somebody should look.
    Warn,
    /// Something failed.
    Error,
    /// A session, or all of Postgres, ended because of it.
    Fatal,
}

impl Level {
    /// The level as it stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }

    /// The level of a word that PostgreSQL puts before a message (servers in capitals, client programs in small
    /// letters): a severity, or the name of a part of a message. `None` for any other word.
    fn of_severity(word: &str) -> Option<Level> {
        const WORDS: [(&str, Level); 15] = [
            ("LOG", Level::Info),
            ("ERROR", Level::Error),
            ("FATAL", Level::Fatal),
            ("PANIC", Level::Fatal),
            ("WARNING", Level::Warn),
            ("NOTICE", Level::Info),
            ("INFO", Level::Info),
            ("DEBUG", Level::Debug),
            ("DETAIL", Level::Info),
            ("HINT", Level::Info),
            ("CONTEXT", Level::Info),
            ("STATEMENT", Level::Info),
            ("QUERY", Level::Info),
            ("LOCATION", Level::Info),
            ("BACKTRACE", Level::Info),
        ];
        WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|&(_, level)| level)
    }

    /// The level of a message of the server. PostgreSQL translates severities in CSV (`lc_messages`), so where the
    /// word is unknown the class of the SQLSTATE decides: 00 is success, 01 a warning.
    fn of_message(severity: &str, state_code: &str) -> Level {
        Level::of_severity(severity).unwrap_or(match state_code.get(..2) {
            None | Some("00") => Level::Info,
            Some("01") => Level::Warn,
            Some(_) => Level::Error,
        })
    }
}
