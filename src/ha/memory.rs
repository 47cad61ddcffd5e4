//! What the decision about the cluster remembers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Goal, Mono,
    failsafe::{Bound, Failsafe},
    input::{Local, Standby},
    lease::Lease,
    member::{Account, Pod, Status},
    quorum::{Quorum, Stage},
    record::{Copy, Record},
    votes::Candidacy,
};

/// What is known of the Lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[allow(clippy::large_enum_variant, reason = "there is one, and it nearly always is the largest")]
pub enum Known {
    /// It was not read yet.
    #[default]
    Nothing,
    /// There is none.
    Absent {
        /// Seen first.
        since: Mono,
    },
    /// It is there.
    Lease {
        /// What it says.
        lease: Lease,
        /// When its holder was last seen to renew it, by the own clock.
        since: Mono,
    },
}

/// Whether this member leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[allow(clippy::large_enum_variant, reason = "there is one")]
pub enum Office {
    /// It does not.
    #[default]
    Out,
    /// Its write is on the way.
    Taking,
    /// It holds the Lease, by a write of its own.
    In(In),
}

/// In office.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct In {
    /// The term.
    pub term: u64,
    /// Since when.
    pub since: Mono,
    /// When the last renewal that succeeded was sent.
    pub sent: Mono,
    /// When all is killed, unless that is moved.
    pub fires: Mono,
    /// The records of renewals since then: nobody knows whether they arrived, or will.
    pub written: Vec<Record>,
    /// By whose consent it leads while the API does not answer.
    pub failsafe: Failsafe,
    /// Whether the own data are the last leader's.
    pub direct: bool,
    /// Who streams.
    pub standbys: Vec<Standby>,
    /// When that was last seen.
    pub looked: Mono,
    /// When each standby was last seen streaming, by name.
    pub streamed: BTreeMap<String, Mono>,
    /// Whether writes were accepted in this office.
    pub was_writable: bool,
    /// The office is being left.
    pub leaving: Option<Leaving>,
    /// Who confirms commits, in a synchronous cluster.
    pub quorum: Option<Quorum>,
}

impl In {
    /// Whether clients may be let in: what is confirmed to them is safe.
    pub(super) fn is_open(&self) -> bool {
        self.quorum.as_ref().is_none_or(|q| q.open)
    }

    /// What is known of the stream to `copy`.
    pub(super) fn row(&self, copy: &Copy) -> Option<&Standby> {
        let name = copy.application_name();
        self.standbys.iter().find(|s| s.name == name)
    }
}

/// An office is left step by step: checkpoint, shutdown, the Lease freed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Leaving {
    /// The pod that it is meant for; none: whoever is best.
    pub to: Option<String>,
    /// Why.
    pub why: Why,
    /// When the server was told to stop: from then on nobody writes.
    pub stopped: Option<Mono>,
    /// Whether the target has everything, once that is known.
    pub caught_up: Option<bool>,
    /// Whether the shutdown took too long and the server was killed.
    pub killed: bool,
}

/// Why an office is left.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Why {
    /// Somebody asked for it.
    Switchover(Request),
    /// The manager is to end.
    Terminating,
    /// `podgres.io/fenced`.
    Fenced,
    /// The server is not healthy, or cannot be started.
    Unable(String),
    /// A volume has no room, and another member may have some.
    Full,
}

/// Who asked, and so where the answer goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// The annotation `podgres.io/promote` of this pod.
    Promote(String),
    /// The annotation `podgres.io/switchover-to` of the Lease.
    SwitchoverTo(String),
}

/// A write of the Lease that is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Writing {
    /// Takes office.
    Take {
        /// Whether the own data are the last leader's.
        direct: bool,
    },
    /// Renews.
    Renew,
    /// Gives it up.
    Free,
}

/// A hand-over whose end is awaited, to tell people how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HandedOver {
    /// The request.
    pub request: Request,
    /// The term that ended.
    pub term: u64,
    /// Since when nobody could write.
    pub stopped: Mono,
}

/// A restart or a new clone of this member that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commanded {
    /// The annotation.
    pub key: &'static str,
    /// Since when.
    pub since: Mono,
    /// The copy that was here.
    pub copy: String,
    /// Whether the server that was there is gone.
    pub interrupted: bool,
}

/// Everything that the decision remembers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Memory {
    /// Whether this member leads.
    pub office: Office,
    /// The Lease.
    pub known: Known,
    /// The highest term seen.
    pub term: u64,
    /// The cluster's pods; none: not seen yet.
    pub pods: Option<BTreeMap<String, Pod>>,
    /// How this member is.
    pub local: Local,
    /// What the server is to become.
    pub goal: Option<Goal>,
    /// Why.
    pub reason: Reason,
    /// When [`super::Input::Timer`] is due.
    pub wake: Option<Mono>,
    /// Since when the API does not answer.
    pub silent_since: Option<Mono>,
    /// What the last failed write met with.
    pub trouble: Option<String>,
    /// Since when an orderly end is wanted.
    pub terminating: Option<Mono>,
    /// No election before.
    pub stand_back_until: Mono,
    /// Stood back for a better one since then, and whether that one has more.
    pub stood_back: Option<(Mono, bool)>,
    /// A hand-over that was begun here and is to be told of.
    pub handed_over: Option<HandedOver>,
    /// A restart or a new clone that is to be told of.
    pub commanded: Option<Commanded>,
    /// Since when a person wants this member to lead with what it has.
    pub forced: Option<Mono>,
    /// What this member has promised to a leader that does not reach the API.
    pub bound: Option<Bound>,
    /// The UID of the leader's pod, and since when it is not ready.
    pub(super) unready: Option<(String, Mono)>,
    /// Whether the API refused the last write because of who asked: that is no outage.
    pub(super) denied: bool,
    /// Who has voted for this member.
    pub candidacy: Option<Candidacy>,
    pub(super) writing: Option<Writing>,
    pub(super) reading: bool,
    /// Whether the Lease was seen since the read was sent.
    pub(super) overtaken: bool,
    pub(super) retry_at: Mono,
    /// Pods that were patched since they were last seen.
    pub(super) patched: BTreeSet<String>,
    /// Annotations that were dealt with and are not gone yet: the pod's UID (the Lease: empty), key and value.
    /// Since when a request waits for a standby to be fit for it.
    pub(super) request_since: Option<Mono>,
    pub(super) handled: BTreeSet<(String, &'static str, String)>,
    /// What the others said, and when.
    pub(super) accounts: Option<(Mono, Vec<Account>)>,
    pub(super) asking: bool,
    /// The accounts for which the Lease was read again.
    pub(super) read_for: Option<Mono>,
    /// The status that the own pod was last given, and when.
    pub(super) told: Option<(Mono, Status)>,
    pub(super) hands_over: bool,
    pub(super) exiting: bool,
    pub(super) armed: bool,
}

impl Memory {
    /// Of a member that has seen this term.
    pub fn after(term: u64) -> Self {
        Self { term, ..Self::default() }
    }

    /// The Lease, if it is there.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.known {
            Known::Lease { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// Whether a look at who streams is wanted sooner than usual: a member with data does not stream, or is not on the record
    /// yet, somebody asks for one that does not, or who confirms is about to change.
    /// `own`: the own pod.
    pub fn hurries(&self, own: &str) -> bool {
        let Some(office) = self.in_office() else { return false };
        let pods = self.pods.iter().flatten().filter(|(name, pod)| !pod.deleting && *name != own);
        let mut copies = pods.filter_map(|(name, _)| self.copy_of(name));
        let record = self.lease().and_then(|l| l.record.as_ref());
        let settled = |copy: Copy| {
            record.is_some_and(|r| r.members.contains(&copy)) && office.row(&copy).is_some_and(|row| row.streaming)
        };
        let changes = office.quorum.as_ref().is_some_and(|q| q.stage != Stage::Settled);
        changes || self.request_since.is_some() || self.terminating.is_some() || !copies.all(settled)
    }

    /// The data directory of a pod, as its status says.
    pub(super) fn copy_of(&self, pod: &str) -> Option<Copy> {
        let copy = self.pods.as_ref()?.get(pod)?.status.as_ref()?.copy.clone()?;
        Some(Copy { pod: pod.into(), copy })
    }

    /// What a manager writes where the kubelet finds it, when the kubelet shows it as the message of a container that is
    /// terminated. A leader whose pod stays is not replaced for it: it restarts in place, and loses nothing.
    pub(super) fn is_proven_dead(&self, lease: &Lease) -> bool {
        let Some(pod) = self.pods.as_ref().and_then(|p| p.get(&lease.holder)) else { return false };
        !lease.instance.is_empty() && pod.deleting && pod.uid == lease.pod_uid && pod.ended.contains(&lease.instance)
    }

    /// Whether the record has more members than one: whether somebody else may lead.
    pub(super) fn may_others_lead(&self) -> bool {
        self.lease().and_then(|l| l.record.as_ref()).is_some_and(|r| r.members.len() > 1)
    }

    /// The office, if this member is in it.
    pub fn in_office(&self) -> Option<&In> {
        match &self.office {
            Office::In(office) => Some(office),
            _ => None,
        }
    }
}

/// Why things are as they are: logged when it changes, shown by `status`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Reason {
    /// Nothing is known yet.
    #[default]
    Begun,
    /// The API has not answered since the start.
    NoApi {
        /// Whether there are data to read meanwhile.
        data: bool,
    },
    /// The others have to say first whether they have data.
    WaitsForAccounts,
    /// Nobody has data: this member makes the cluster.
    Founds,
    /// Another member makes the cluster.
    WaitsForFounder,
    /// No data here, and no primary to clone from.
    WaitsForPrimary,
    /// A standby of this leader.
    Follows(String),
    /// A pause has ended, and this holder of the Lease may not know it.
    Resumed(String),
    /// There is no leader, for this reason nor from here.
    NoLeader(String),
    /// Fewer members are frozen for this one than an election takes.
    ShortOfVotes {
        /// So many are.
        counted: usize,
        /// So many it takes.
        needed: usize,
        /// Who is waited for, and why.
        missing: String,
    },
    /// The Lease is being taken.
    Takes(String),
    /// In office.
    Leads(u64),
    /// The same, by the consent of the others while the API does not answer.
    Stays(u64),
    /// The office is being left.
    Leaves(String),
    /// `podgres.io/fenced`.
    Fenced,
    /// The data are another cluster's.
    Foreign {
        /// The identity of the data here.
        ours: u64,
        /// The cluster's.
        theirs: u64,
    },
    /// An orderly end.
    Terminating,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun => write!(f, "the cluster was not looked at yet"),
            Self::NoApi { data: false } => {
                write!(f, "no data here, and the Kubernetes API does not say from where to clone")
            }
            Self::NoApi { data: true } => {
                write!(f, "the Kubernetes API does not answer: reads only, from the last known primary")
            }
            Self::WaitsForAccounts => write!(f, "waiting until every pod has said whether it has data"),
            Self::Founds => write!(f, "no member has data: this one makes the cluster"),
            Self::WaitsForFounder => write!(f, "waiting: another member makes the cluster"),
            Self::WaitsForPrimary => write!(f, "waiting for a primary to clone from"),
            Self::Follows(leader) => write!(f, "{leader} leads"),
            Self::Resumed(holder) => write!(
                f,
                "the pause is over, and {holder} has not renewed the Lease since: it may still be a primary that does not \
                 know, and nobody takes over before it renews, comes back, or is deleted and proven dead"
            ),
            Self::NoLeader(why) => write!(f, "no member leads: {why}"),
            Self::ShortOfVotes { counted, needed, missing } => {
                write!(f, "no member leads: {counted} of {needed} votes for this one, waiting for {missing}")
            }
            Self::Takes(why) => write!(f, "takes over: {why}"),
            Self::Leads(term) => write!(f, "this member leads, in term {term}"),
            Self::Stays(term) => {
                write!(f, "this member leads without the API, in term {term}, as the others have promised")
            }
            Self::Leaves(why) => write!(f, "gives up the lead: {why}"),
            Self::Fenced => write!(f, "fenced: podgres.io/fenced says that PostgreSQL stays down"),
            Self::Foreign { ours, theirs } => write!(
                f,
                "the data here are another cluster's (system identifier {ours}, the cluster's is {theirs}). Nothing was \
                 changed: remove the data, or give the pod another cluster"
            ),
            Self::Terminating => write!(f, "told to stop"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switchover(Request::Promote(pod)) => write!(f, "podgres.io/promote on {pod} asks for it"),
            Self::Switchover(Request::SwitchoverTo(to)) => write!(f, "podgres.io/switchover-to asks for {to}"),
            Self::Terminating => write!(f, "the manager is told to stop"),
            Self::Fenced => write!(f, "podgres.io/fenced"),
            Self::Unable(why) => f.write_str(why),
            Self::Full => write!(f, "its volume is full"),
        }
    }
}
