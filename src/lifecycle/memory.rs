//! What the decision remembers: where the manager is, since when and why.

use std::time::Duration;

use serde::Serialize;

use super::{Data, Mono, Outcomes, Reason};
use crate::ha::Goal;

/// So many rewinds and clones in a row, without streaming in between, and there is something that another one will not
/// cure either, while each of them loads the source.
pub(super) const MOST_REPAIRS: u32 = 3;

/// Whether the server takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Accepts writes.
    Primary,
    /// In recovery.
    Standby,
}

/// How PostgreSQL is told to stop (<https://www.postgresql.org/docs/current/server-shutdown.html>). Smart is never used:
/// one idle session would hold it until the kubelet kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// Sessions are ended, a checkpoint is written.
    Fast,
    /// No checkpoint: crash recovery at the next start.
    Immediate,
    /// SIGKILL to every process of the server, when it does not even answer SIGQUIT.
    Kill,
}

/// Long work on the data directory, while no server runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// A new data directory is made.
    Initialise,
    /// The source is looked at: may this data directory follow it, and how?
    Look,
    /// A copy of the source is made, and takes the place of what is there.
    Clone,
    /// What is there is taken back to where it and the source parted.
    Rewind,
}

impl Job {
    /// The word for it in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initialise => "initialising",
            Self::Look => "joining",
            Self::Clone => "cloning",
            Self::Rewind => "rewinding",
        }
    }
}

/// Where the manager is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Nothing has been started.
    Begun,
    /// The cluster wants no server here for now.
    Idle,
    /// A job is being done.
    Working {
        /// Which one.
        job: Job,
    },
    /// The postmaster runs and does not accept connections yet.
    Starting,
    /// It accepts connections.
    Running {
        /// In which role.
        role: Role,
    },
    /// It was told to stop.
    Stopping {
        /// The latest order.
        stop: Stop,
        /// When the next harder one follows; none follows a kill.
        #[serde(skip)]
        escalate: Option<Mono>,
    },
    /// The job was told to stop.
    Cancelling,
    /// The postmaster has ended; other processes of the server may still be there.
    CleaningUp,
    /// It crashed and will be started again, or a job failed and will be tried again.
    Waiting {
        /// When.
        #[serde(skip)]
        until: Mono,
        /// The job; none: a start.
        job: Option<Job>,
    },
    /// The manager is done.
    Ended {
        /// Its exit code.
        code: i32,
    },
}

impl Phase {
    /// All that [`Phase::name`] can be.
    pub const NAMES: [&str; 12] = [
        "begun",
        "idle",
        "initialising",
        "joining",
        "cloning",
        "rewinding",
        "starting",
        "running",
        "stopping",
        "cleaning up",
        "crashed",
        "stopped",
    ];

    /// The word for it in `status`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Idle => "idle",
            Self::Working { job } | Self::Waiting { job: Some(job), .. } => job.name(),
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } | Self::Cancelling => "stopping",
            Self::CleaningUp => "cleaning up",
            Self::Waiting { job: None, .. } => "crashed",
            Self::Ended { .. } => "stopped",
        }
    }
}

/// What happens when the postmaster is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Next {
    Exit(i32),
    StartAt(Mono),
    Work(Job),
    /// Whatever the cluster's goal asks for.
    Pursue,
}

/// Everything that the decision remembers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Memory {
    /// Where the manager is.
    pub phase: Phase,
    /// Since when.
    pub since: Mono,
    /// Why.
    pub reason: Reason,
    /// How often PostgreSQL was started again after a crash.
    pub restarts: u32,
    /// Whether the server is started as a standby.
    pub standby: bool,
    /// Rewinds and clones since it last streamed.
    pub repairs: u32,
    /// How long the last promotion took, from the order to the first moment at which writes are accepted.
    pub promotion: Option<Duration>,
    /// What the cluster wants of this member; none: there is no cluster that decides.
    pub goal: Option<Goal>,
    /// What is in the data directory.
    pub data: Data,
    /// Starts in a row after which PostgreSQL was never ready.
    pub failed_starts: u32,
    /// How jobs ended so far.
    pub outcomes: Outcomes,
    /// Since when a promotion is ordered that has not happened.
    pub promoting: Option<Mono>,
    pub(super) next: Option<Next>,
    /// Whether PostgreSQL was ever ready: then its death is a crash, not a refusal to start.
    pub(super) was_ready: bool,
    pub(super) started: Mono,
    pub(super) delay: Duration,
    pub(super) job_delay: Duration,
    /// Orders that wait until PostgreSQL is ready: before it has its signal handlers they would kill it.
    pub(super) reload_when_ready: bool,
    pub(super) promote_when_ready: bool,
    /// Whether PostgreSQL was started with a configuration that never worked, and there is another that did.
    pub(super) unproven: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            phase: Phase::Begun,
            since: Mono::ZERO,
            reason: Reason::Begun,
            restarts: 0,
            standby: false,
            repairs: 0,
            promotion: None,
            goal: None,
            data: Data::Empty,
            failed_starts: 0,
            outcomes: Outcomes::default(),
            promoting: None,
            next: None,
            was_ready: false,
            started: Mono::ZERO,
            delay: Duration::ZERO,
            job_delay: Duration::ZERO,
            reload_when_ready: false,
            promote_when_ready: false,
            unproven: false,
        }
    }
}

impl Memory {
    /// When [`super::Input::Timer`] is due, if at all.
    pub fn deadline(&self) -> Option<Mono> {
        match self.phase {
            Phase::Stopping { escalate, .. } => escalate,
            Phase::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Whether repairs have not helped and no more are tried.
    pub fn gave_up(&self) -> bool {
        self.repairs >= MOST_REPAIRS
    }

    pub(super) fn enter(mut self, now: Mono, phase: Phase, reason: Reason) -> Self {
        if self.phase != phase {
            self.since = now;
        }
        self.phase = phase;
        self.reason = reason;
        self
    }
}
