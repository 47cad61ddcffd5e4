//! Why the manager is where it is, as a value with a text.

use std::fmt;

use super::Stop;
use crate::pid1::{Exit, Signal};

/// Why the manager is where it is: logged when it changes, shown by `status`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing has happened yet.
    Begun,
    /// The data directory is empty.
    NoData,
    /// The data directory is there.
    DataFound,
    /// The initialisation is over.
    Initialised,
    /// The initialisation failed.
    InitialisationFailed(String),
    /// PostgreSQL says that it is ready.
    Ready,
    /// A signal said so.
    Told(Signal),
    /// A command on the control socket said so.
    RestartCommanded,
    /// The stop before took longer than it may.
    TookTooLong(Stop),
    /// PostgreSQL could not be started.
    NotStarted(String),
    /// PostgreSQL ended by itself before it had ever been ready.
    NeverReady(Exit),
    /// PostgreSQL ended and nobody had told it to.
    Crashed(Exit),
    /// PostgreSQL shut down in order, told by somebody else.
    ShutDownByOthers,
    /// PostgreSQL ended as it was told.
    Stopped(Exit),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun => write!(f, "the manager has just started"),
            Self::NoData => write!(f, "the data directory is empty"),
            Self::DataFound => write!(f, "the data directory is initialised"),
            Self::Initialised => write!(f, "initialisation is complete"),
            Self::InitialisationFailed(why) => write!(f, "initialisation failed: {why}"),
            Self::Ready => write!(f, "PostgreSQL accepts connections"),
            Self::Told(signal) => write!(f, "SIG{} was received", signal.name()),
            Self::RestartCommanded => write!(f, "a restart was commanded"),
            Self::TookTooLong(Stop::Immediate) => write!(f, "the fast shutdown took longer than shutdown-timeout"),
            Self::TookTooLong(_) => write!(f, "PostgreSQL did not answer the immediate shutdown"),
            Self::NotStarted(why) => write!(f, "PostgreSQL could not be started: {why}"),
            Self::NeverReady(exit) => write!(f, "PostgreSQL {exit} before it was ready; its own lines say why"),
            Self::Crashed(exit) => write!(f, "PostgreSQL {exit} and nobody had told it to stop"),
            Self::ShutDownByOthers => write!(f, "PostgreSQL was shut down in order, not by this manager"),
            Self::Stopped(exit) => write!(f, "PostgreSQL {exit} as it was told"),
        }
    }
}
