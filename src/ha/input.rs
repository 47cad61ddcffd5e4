//! What the decision is told, and what it answers.

use std::collections::BTreeMap;

use super::{
    Mono,
    failsafe::Bound,
    lease::{Began, Lease},
    member::{Account, Pod},
    quorum::Names,
    record::{Copy, Record},
    votes::Vote,
};

/// What is in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Data {
    /// Nothing.
    #[default]
    Empty,
    /// Made here by initdb, and not on the Lease yet: it has served nobody.
    Unrecorded,
    /// A member's data.
    Present,
}

/// The own server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Server {
    /// No process of a server is there.
    #[default]
    Down,
    /// It is starting, recovering, or stopping.
    Changing,
    /// It runs in recovery and accepts connections.
    Standby,
    /// It accepts writes.
    Primary,
}

/// How this member is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Local {
    /// What is in the data directory.
    pub data: Data,
    /// Its id; one that will be made has it already.
    pub copy: String,
    /// The identity of its data.
    pub system_id: Option<u64>,
    /// What began the timeline that it is on.
    pub began: Option<Began>,
    /// The newest record that this member has seen.
    pub record: Option<Record>,
    /// The last term in which this copy was the leader's.
    pub held: u64,
    /// The term that this member has promised last: it receives nothing before it has seen the Lease at that term.
    pub promised: u64,
    /// Where others reach its PostgreSQL.
    pub address: String,
    /// The server.
    pub server: Server,
    /// A word for what it does ([`crate::lifecycle::Phase::name`]).
    pub state: &'static str,
    /// Whether a job works on the data directory.
    pub busy: bool,
    /// Starts in a row after which it was never ready.
    pub failed_starts: u32,
    /// Since when a start or a recovery has made no progress.
    pub stuck_since: Option<Mono>,
    /// Why it is not proven healthy, as a primary.
    pub sick: Option<String>,
    /// Since when a volume of a primary has no room.
    pub full_since: Option<Mono>,
    /// PostgreSQL's version.
    pub version: Option<String>,
    /// Whether changed settings wait for a restart.
    pub pending_restart: bool,
    /// What is wrong, for people.
    pub problem: Option<String>,
}

/// A row of `pg_stat_replication` on the leader.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Standby {
    /// `application_name`.
    pub name: String,
    /// How many bytes it is behind in what it has flushed; none: not known.
    pub lag: Option<u64>,
    /// Whether its state is `streaming`.
    pub streaming: bool,
    /// How far it has flushed.
    pub flushed: Option<u64>,
    /// `reply_time`, which changes with each sign of life. Nobody compares it with a clock.
    pub replied: Option<String>,
}

/// Why a write was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The version has moved, or what was to be made is there.
    Conflict,
    /// The Lease is gone.
    Missing,
    /// The API does not let this member: 401 or 403.
    Denied(String),
    /// Nobody knows whether it was.
    Other(String),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The watch shows the Lease, or that there is none.
    Lease(Option<Lease>),
    /// [`Action::ReadLease`] ended.
    Read(Result<Option<Lease>, String>),
    /// The watch shows the cluster's pods.
    Pods(BTreeMap<String, Pod>),
    /// Whether the watches are in touch with the API.
    Reachable(bool),
    /// How this member is.
    Local(Local),
    /// Who streams from this leader.
    Standbys(Vec<Standby>),
    /// [`Action::WriteLease`] ended.
    Written {
        /// When its first byte was about to be sent.
        sent: Mono,
        /// The Lease as it is now.
        result: Result<Lease, Refusal>,
    },
    /// [`Action::Ask`] ended. The own account is among them.
    Accounts(Vec<Account>),
    /// [`Action::Checkpoint`] ended, one way or the other.
    Checkpointed,
    /// Before that the member that is to take over was asked whether it is there, and it is not: why.
    TargetSilent(String),
    /// [`Action::AwaitTarget`] ended: the server shut down in order and the target has replayed all of it.
    CaughtUp(Result<(), String>),
    /// A member is frozen for a term: this one ([`Action::Freeze`]) or another ([`Action::AskVotes`]).
    Voted(Vote),
    /// A member does not vote.
    Refused {
        /// Its pod.
        pod: String,
        /// Why.
        why: String,
    },
    /// [`Action::Stop`] ended: nothing is confirmed any more. All that was is in the WAL before this position, which the
    /// own disk has.
    Proven(u64),
    /// [`Action::Confirm`] ended.
    Confirmed(Names),
    /// [`Action::AskConsent`] ended.
    Answered {
        /// When the first of them was about to be asked.
        sent: Mono,
        /// Who has promised to wait.
        consents: Vec<Copy>,
        /// Who has not, by pod, and why.
        refusals: Vec<(String, String)>,
    },
    /// This member has promised a leader to wait.
    Bound(Bound),
    /// A person wants this member to lead, with what it has, when nobody is in office.
    Force,
    /// The fence fired: no process of a server is left, or will be in a moment.
    Fired,
    /// A pod could not be patched.
    Unpatched(String),
    /// An orderly end is wanted.
    Terminate {
        /// Whether the lead is handed over first, if there is somebody.
        hand_over: bool,
    },
    /// [`super::Memory::wake`] has passed.
    Timer,
}

/// What the own server is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Goal {
    /// No server.
    Down,
    /// An initialised data directory, and no server yet.
    Initialise,
    /// A standby, of the leader on the Lease if there is one.
    Standby,
    /// The primary.
    Primary {
        /// Whether its data are the last leader's: then it starts on the same timeline, else it is promoted.
        direct: bool,
    },
}

/// How the goal is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Aim {
    /// The goal.
    pub goal: Goal,
    /// Whether a server that is in the way is killed: it does not answer, or must not live a moment longer.
    pub kill: bool,
}

/// What an Event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum About {
    /// A pod, by name.
    Pod(String),
    /// The Lease.
    Lease,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make this of the own server.
    Aim(Aim),
    /// Kill everything at this moment, unless it is moved.
    Arm(Mono),
    /// Kill nothing.
    Disarm,
    /// Note durably that this copy is the leader's in this term, before PostgreSQL is writable.
    NoteOffice(u64),
    /// Note durably that the system identifier is on the Lease.
    NoteRecorded,
    /// What initdb made here is nobody's.
    Discard,
    /// Read the Lease.
    ReadLease,
    /// Write the Lease over this version, or make it.
    WriteLease {
        /// `metadata.resourceVersion`.
        over: Option<String>,
        /// What it is to say.
        lease: Box<Lease>,
    },
    /// Ask these members, by pod, for their accounts.
    Ask(Vec<String>),
    /// Write a checkpoint, so that the one of the shutdown is short.
    Checkpoint,
    /// Wait until the server that is being stopped has written its last and this pod has replayed it.
    AwaitTarget(String),
    /// The target has everything: end what is left of the server at once.
    Quit,
    /// Change a pod's labels and annotations. None: remove.
    PatchPod {
        /// Its name.
        pod: String,
        /// Its UID: another pod of that name is left alone.
        uid: String,
        /// Label `podgres.io/role`, if it is to change.
        role: Option<Option<String>>,
        /// Annotations, without `podgres.io/`.
        annotations: BTreeMap<&'static str, Option<String>>,
    },
    /// Take the request off the Lease.
    ClearSwitchover,
    /// Tell people.
    Event {
        /// What it is about.
        about: About,
        /// Whether it is a Warning.
        warning: bool,
        /// Its reason, in CamelCase.
        reason: &'static str,
        /// What happened.
        note: String,
    },
    /// Promise this term, receive nothing more, and replay all there is.
    Freeze(u64),
    /// Ask these members, by pod, to freeze for a term.
    AskVotes {
        /// The term.
        term: u64,
        /// Whom.
        of: Vec<String>,
    },
    /// Ask these members, by pod, to let the leader of this term stay without the API.
    AskConsent {
        /// The term.
        term: u64,
        /// Whom.
        of: Vec<String>,
    },
    /// Set a name that nobody bears, and wait until nothing is confirmed any more by any of these standbys, by name, that
    /// were set before.
    Stop(Vec<String>),
    /// Set who confirms, and have waiting commits look again.
    Confirm(Names),
    /// Restart the own server.
    Restart,
    /// Clone the own data directory anew.
    Reinit,
    /// End the manager in order.
    Exit,
}
