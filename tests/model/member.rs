//! A member: what is lost in a crash, and what is kept.

use podgres::ha::{
    Config, Data, Goal, Known, Local, Memory, Mono, Office, Server,
    history::Origin,
    lease::{Began, Lease},
    member::Account,
    record::{Copy, Record},
};

use crate::{
    confirm::{Confirms, Wire},
    failsafe::Asking,
    votes::Question,
    world::Request,
};

/// What survives a crash: the data directory and the notes beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Disk {
    pub(crate) data: Data,
    /// The cluster's identity, which each initdb draws.
    pub(crate) system: u64,
    pub(crate) copy: String,
    pub(crate) held: u64,
    pub(crate) began: Option<Began>,
    pub(crate) term: u64,
    pub(crate) record: Option<Record>,
    pub(crate) leader: String,
    /// The term in which that one was seen to lead.
    pub(crate) leader_term: u64,
    /// The term of the leader that was followed last.
    pub(crate) follows: u64,
    /// The term that was promised last.
    pub(crate) promised: u64,
    /// PostgreSQL's timeline.
    pub(crate) timeline: u32,
    /// The history: each commit and each promotion is one entry, different from all others.
    pub(crate) log: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) config: Config,
    /// The pod's number in `World::pods`.
    pub(crate) pod: usize,
    pub(crate) starts: u8,
    pub(crate) up: bool,
    pub(crate) slow: bool,
    pub(crate) cut: bool,
    pub(crate) memory: Memory,
    pub(crate) disk: Disk,
    pub(crate) server: Server,
    pub(crate) goal: Option<Goal>,
    /// When the fence fires, by the member's own clock.
    pub(crate) fence: Option<Mono>,
    /// It has fired: what writes here is dead before the next tick.
    pub(crate) dying: bool,
    /// So many ticks from now.
    pub(crate) dies_in: u8,
    /// It has fired, and the manager does not know yet.
    pub(crate) fired: bool,
    pub(crate) requests: Vec<Request>,
    pub(crate) asked: Option<Vec<String>>,
    /// The start of the manager whose server its own streamed from last.
    pub(crate) followed: Option<String>,
    /// Whose consent it asks for.
    pub(crate) asking: Option<Asking>,
    pub(crate) checkpoint: bool,
    pub(crate) awaits: Option<String>,
    pub(crate) told_to_end: bool,
    /// What the watches told last.
    pub(crate) lease_seen: Option<u64>,
    /// What the Lease's watch is about to tell.
    pub(crate) lease_coming: Option<Option<Lease>>,
    pub(crate) pods_seen: Option<u64>,
    /// Whether the timeline of the primary is yet to be noted.
    pub(crate) timeline_unnoted: bool,
    /// The term of a better member of which this one was told, and since when it may stand.
    pub(crate) better: Option<(u64, u64)>,
    /// The term in which its server became a primary: it starts on that timeline again.
    pub(crate) led: u64,
    /// Its walreceiver's connection, in a synchronous cluster.
    pub(crate) wire: Option<Wire>,
    /// Who confirms, as the processes of its primary know it.
    pub(crate) confirms: Confirms,
    /// That none of these standbys confirms any more is to be proven.
    pub(crate) stopping: Option<Vec<String>>,
    /// That this was put in force is to be told.
    pub(crate) confirming: Option<podgres::ha::quorum::Names>,
    /// Whom it asked for votes, itself too.
    pub(crate) questions: Vec<Question>,
}

impl Member {
    /// One that does not run yet.
    pub(crate) fn new(config: Config, pod: usize, disk: Disk) -> Self {
        Self {
            config,
            pod,
            starts: 0,
            up: false,
            slow: false,
            cut: false,
            memory: Memory::default(),
            disk,
            server: Server::Down,
            goal: None,
            fence: None,
            dying: false,
            dies_in: 0,
            fired: false,
            requests: Vec::new(),
            asked: None,
            followed: None,
            asking: None,
            checkpoint: false,
            awaits: None,
            told_to_end: false,
            lease_seen: None,
            lease_coming: None,
            pods_seen: None,
            timeline_unnoted: false,
            better: None,
            led: 0,
            wire: None,
            confirms: Confirms::default(),
            stopping: None,
            confirming: None,
            questions: Vec::new(),
        }
    }

    /// What is left of it when all processes of its container are gone.
    pub(crate) fn after_crash(&self) -> Self {
        let (pod, disk) = (self.pod, self.disk.clone());
        Self { starts: self.starts, wire: self.wire.clone(), ..Self::new(self.config.clone(), pod, disk) }
    }

    pub(crate) fn uid(&self) -> &str {
        &self.config.uid
    }

    pub(crate) fn copy(&self) -> Copy {
        Copy { pod: self.config.pod.clone(), copy: self.disk.copy.clone() }
    }

    /// How far its log goes.
    pub(crate) fn lsn(&self) -> u64 {
        self.disk.log.len() as u64
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.server == Server::Primary
    }

    /// Whether its loop turns.
    pub(crate) fn runs(&self) -> bool {
        self.up && !self.slow
    }

    pub(crate) fn is_synchronous(&self) -> bool {
        self.config.sync.standbys > 0
    }

    pub(crate) fn address(&self) -> String {
        format!("{}:5432", self.config.uid)
    }

    /// As `is_frozen` of the manager's notes, and what `may_receive` says of who takes office.
    pub(crate) fn is_frozen(&self) -> bool {
        let taken = self.is_synchronous() && self.memory.office != Office::Out;
        self.disk.promised > self.disk.leader_term || taken
    }

    /// Whether it was promoted after all that the leader knows.
    pub(crate) fn is_after_leader(&self) -> bool {
        let theirs = self.memory.lease().filter(|l| !l.holder.is_empty()).and_then(|l| l.timeline);
        self.disk.began.zip(theirs).is_some_and(|(ours, theirs)| ours.is_after(theirs))
    }

    /// As `origin` of the manager.
    pub(crate) fn origin(&self) -> Origin {
        let theirs = self.memory.lease().and_then(|l| l.timeline);
        Origin { noted: self.disk.began, held: self.disk.held, follows: self.disk.follows, theirs }
    }

    /// As `local_for_cluster` of the manager.
    pub(crate) fn local(&self) -> Local {
        Local {
            data: self.disk.data,
            copy: self.disk.copy.clone(),
            system_id: (self.disk.data != Data::Empty).then_some(self.disk.system),
            began: self.disk.began,
            record: self.disk.record.clone(),
            held: self.disk.held,
            promised: self.disk.promised,
            address: self.address(),
            server: if self.dying { Server::Changing } else { self.server },
            state: "running",
            ..Local::default()
        }
    }

    /// Whom its server follows.
    pub(crate) fn source(&self) -> String {
        match self.memory.lease() {
            Some(l) if l.holder == self.config.pod && l.pod_uid == self.config.uid => String::new(),
            Some(l) if !l.address.is_empty() => l.address.clone(),
            _ => self.disk.leader.clone(),
        }
    }

    /// As `account` of the manager, with the position of this moment.
    pub(crate) fn account(&self, now: Mono) -> Account {
        let memory = &self.memory;
        let has_data = self.disk.data == Data::Present;
        let fenced = memory.pods.as_ref().and_then(|p| p.get(&self.config.pod)).is_some_and(|p| p.is_fenced());
        let seen = match &memory.known {
            Known::Lease { lease, since } if !lease.holder.is_empty() => Some(now.saturating_sub(*since)),
            _ => None,
        };
        let standby = memory.local.server == Server::Standby;
        Account {
            pod: self.config.pod.clone(),
            instance: self.config.instance.clone(),
            copy: has_data.then(|| self.disk.copy.clone()),
            system_id: has_data.then(|| self.disk.system.to_string()),
            began: self.disk.began,
            lsn: self.lsn(),
            primary: memory.local.server == Server::Primary && memory.in_office().is_some(),
            fit: has_data && standby && memory.terminating.is_none() && !fenced && self.config.priority > 0,
            priority: self.config.priority,
            term: memory.term,
            // What is older is as old as can be, for every rule.
            seen_ms: seen.map(|s| u64::try_from(s.as_millis()).unwrap().min(10_000)),
        }
    }

    /// As `note_record` of the manager.
    pub(crate) fn note_record(&mut self) {
        let Some(lease) = self.memory.lease() else { return };
        if lease.term < self.disk.term {
            return;
        }
        let (term, record) = (lease.term, lease.record.clone());
        if !lease.address.is_empty() {
            if lease.address == self.disk.leader && self.disk.follows == self.disk.leader_term {
                self.disk.follows = term;
            }
            (self.disk.leader, self.disk.leader_term) = (lease.address.clone(), term);
        }
        (self.disk.term, self.disk.record) = (term, record);
    }
}
