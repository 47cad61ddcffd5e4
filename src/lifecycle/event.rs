//! What the decision is told, and what it answers.

use super::{Job, Reason, Role, Stop};
use crate::{
    ha::Aim,
    pid1::{Exit, Signal},
};

/// What is in the data directory when the manager begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Data {
    /// Nothing.
    #[default]
    Empty,
    /// A cluster.
    Whole,
    /// A cluster that was being rewound: it must not be started.
    HalfRewound {
        /// How often that was begun.
        tries: u32,
    },
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It may work later.
    ForNow(String),
    /// It will not work, another way may.
    Hopeless(String),
    /// Somebody has to change something first.
    Final(String),
}

impl Failure {
    pub(super) fn why(self) -> String {
        match self {
            Self::ForNow(why) | Self::Hopeless(why) | Self::Final(why) => why,
        }
    }
}

/// What a look at the source showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Start as a standby. Whether it has its source already, or gets it when more is known, is another matter.
    Standby(Reason),
    /// Start as what the directory is: it was promoted, and the source has not been since.
    AsItIs(Reason),
    /// It has diverged.
    Diverged(Repair),
    /// Following would be wrong.
    Refused(String),
}

/// What a standby needs that cannot follow as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repair {
    /// [`Job::Rewind`] or [`Job::Clone`].
    pub job: Job,
    /// Why.
    pub why: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The manager begins, with this data directory.
    Begin(Data),
    /// A job ended.
    Done(Job, Result<(), Failure>),
    /// [`Job::Look`] ended.
    Looked(Look),
    /// The standby cannot follow its source as it is.
    Diverged(Repair),
    /// The standby streams.
    Streaming,
    /// Somebody commands a promotion.
    Promote,
    /// Somebody commands a new clone, whatever is there.
    Reinit,
    /// PostgreSQL could not be executed.
    NotStarted(String),
    /// The configuration has mistakes, and there is no other to start with.
    Refused {
        /// What they are.
        why: String,
        /// The exit code that goes with them.
        exit: i32,
    },
    /// The primary was restarted with more of something than this standby has, whose replay waits for a restart.
    TooSmall(String),
    /// PostgreSQL was started with a configuration that never worked, and there is another that did.
    Unproven,
    /// PostgreSQL accepts connections, or changed its role.
    Ready(Role),
    /// The postmaster ended.
    Exited(Exit),
    /// No process of the server is left.
    CleanedUp,
    /// A signal to the manager.
    Signal(Signal),
    /// Somebody commands a restart.
    Restart,
    /// The cluster decided what this member is to be.
    Aim(Aim),
    /// What is left of a server that is being stopped is to end at once.
    Quit,
    /// What is in the data directory counts as nothing.
    Discarded,
    /// [`super::Memory::deadline`] has passed.
    Timer,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin a job.
    Work(Job),
    /// Give it up.
    Cancel,
    /// Start PostgreSQL.
    Start {
        /// As a standby, whatever it was before; else as what its data directory says.
        standby: bool,
    },
    /// Tell it to stop.
    Stop(Stop),
    /// Use the configuration that last worked, until the present one changes.
    RejectConfiguration,
    /// See to it that no process of the server is left, then say [`Input::CleanedUp`].
    CleanUp,
    /// Re-read the settings and tell PostgreSQL to do the same.
    Reload,
    /// Promote PostgreSQL.
    Promote,
    /// Write the manager's state to the log.
    LogState,
    /// End the manager with this code.
    Exit(i32),
}
