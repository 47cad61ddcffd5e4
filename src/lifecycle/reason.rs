//! Why the manager is where it is, as a value with a text.

use std::{fmt, time::Duration};

use super::{Job, Stop};
use crate::{
    ha::Goal,
    pid1::{Exit, Signal},
};

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
    /// A clone or a rewind is over.
    JobDone(Job),
    /// A job failed, and will be tried again or another way.
    JobFailed(Job, String),
    /// A job that failed is tried again.
    TryingAgain(Job),
    /// The data directory holds what the source has not.
    Diverged(String),
    /// A rewind of the data directory was begun and not finished.
    HalfRewound,
    /// The source must not be followed.
    Refused(String),
    /// The source was looked at: this directory can follow it.
    Follows(String),
    /// The source could not be looked at.
    SourceSilent(String),
    /// This member was promoted over its source, which has not been promoted since.
    WasPromoted(String),
    /// A promotion is over.
    Promoted(Duration),
    /// A new clone was commanded.
    ReinitCommanded,
    /// PostgreSQL says that it is ready.
    Ready,
    /// A signal said so.
    Told(Signal),
    /// It was promoted, and not by the cluster.
    PromotedByOthers,
    /// The cluster wants this of the member.
    ClusterDecided(Goal),
    /// A command on the control socket said so.
    RestartCommanded,
    /// A standby's replay waits until it has as much of something as its primary.
    TooSmall(String),
    /// The stop before took longer than it may.
    TookTooLong(Stop),
    /// PostgreSQL could not be started.
    NotStarted(String),
    /// The configuration has mistakes.
    ConfigurationRefused(String),
    /// PostgreSQL ended before it was ready, with a configuration that had never worked.
    ConfigurationFailed(Exit),
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
            Self::JobDone(job) => write!(f, "{} is complete", job.name()),
            Self::JobFailed(job, why) => write!(f, "{} failed: {why}", job.name()),
            Self::TryingAgain(job) => write!(f, "{} again", job.name()),
            Self::Diverged(why) | Self::Refused(why) | Self::Follows(why) | Self::WasPromoted(why) => f.write_str(why),
            Self::HalfRewound => write!(
                f,
                "a rewind of the data directory was cut short, and it must not be started like this: start it with \
                 standby-of to finish, or restore it"
            ),
            Self::SourceSilent(why) => write!(f, "started as a standby that accepts reads, without its source: {why}"),
            Self::Promoted(took) => write!(f, "promoted: writes are accepted, {} ms after the order", took.as_millis()),
            Self::ReinitCommanded => write!(f, "a new clone was commanded"),
            Self::Ready => write!(f, "PostgreSQL accepts connections"),
            Self::Told(signal) => write!(f, "SIG{} was received", signal.name()),
            Self::PromotedByOthers => {
                write!(
                    f,
                    "PostgreSQL was promoted by somebody else than the cluster: killed, another may be the primary"
                )
            }
            Self::ClusterDecided(goal) => match goal {
                Goal::Down => write!(f, "the cluster wants no PostgreSQL here for now"),
                Goal::Initialise => write!(f, "the cluster is made here"),
                Goal::Standby => write!(f, "the cluster wants a standby here"),
                Goal::Primary { .. } => write!(f, "the cluster wants the primary here"),
            },
            Self::RestartCommanded => write!(f, "a restart was commanded"),
            Self::TooSmall(why) => {
                write!(f, "replay waits, so the standby is restarted with what its primary has: {why}")
            }
            Self::TookTooLong(Stop::Immediate) => write!(f, "the fast shutdown took longer than shutdown-timeout"),
            Self::TookTooLong(_) => write!(f, "PostgreSQL did not answer the immediate shutdown"),
            Self::NotStarted(why) => write!(f, "PostgreSQL could not be started: {why}"),
            Self::ConfigurationRefused(why) => write!(f, "{why}"),
            Self::ConfigurationFailed(exit) => {
                write!(f, "PostgreSQL {exit} before it was ready with its changed configuration; its own lines say why")
            }
            Self::NeverReady(exit) => write!(f, "PostgreSQL {exit} before it was ready; its own lines say why"),
            Self::Crashed(exit) => write!(f, "PostgreSQL {exit} and nobody had told it to stop"),
            Self::ShutDownByOthers => write!(f, "PostgreSQL was shut down in order, not by this manager"),
            Self::Stopped(exit) => write!(f, "PostgreSQL {exit} as it was told"),
        }
    }
}
