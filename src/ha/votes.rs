//! Votes. Each set of members that can confirm a commit meets each set that can elect (`quorum.rs`), so a candidate that is
//! not behind any of enough voters has every commit, as long as none of them confirms anything after its vote. That is why
//! a vote freezes: the voter promises the term on disk, and receives nothing until it has seen the Lease at that term
//! (traces T3, T5, T6).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Action, Config, Data, Known, Mono, Office, Reason, Server, Turn,
    lease::{Began, Lease},
    memory::Memory,
    record::Record,
};

/// Whoever has not voted is asked again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// What a member answers that is frozen for a term.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vote {
    /// The pod.
    pub pod: String,
    /// Its data directory.
    pub copy: String,
    /// The term that it promised: it receives nothing before it has seen the Lease at that term.
    pub term: u64,
    /// What began the timeline on which that WAL ends ([`super::history::Origin::of`]), whether it was noted or not.
    pub began: Option<Began>,
    /// The end of the valid WAL that it has.
    pub lsn: u64,
}

impl Vote {
    /// Whether it has something that `other` has not: of a later history, whatever the positions, or more of the same. What goes
    /// on from an earlier history, past where the later one left it, was confirmed by nobody: its leader was succeeded by votes.
    fn is_ahead_of(&self, other: &Self) -> bool {
        (self.began, self.lsn) > (other.began, other.lsn)
    }
}

/// What a candidate has been answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Candidacy {
    /// For the office of this term.
    pub term: u64,
    /// Who is frozen for it, by pod; the candidate is among them.
    pub votes: BTreeMap<String, Vote>,
    /// Why others are not, by pod.
    pub refusals: BTreeMap<String, String>,
    /// When they were asked last.
    pub asked: Mono,
}

impl Turn<'_> {
    /// Whether enough members of the record are frozen that are not ahead of this one; asks them. `all`: nobody knows which
    /// record was the last, so each member must be.
    pub(super) fn has_votes(&mut self, lease: &Lease, all: bool) -> bool {
        let pod = self.config.pod.clone();
        // Without the Lease members have not all seen the same terms, and nobody votes for one before what it promised.
        let promised = if all { self.promised_by_anybody() } else { 0 };
        let term = (lease.term.max(self.m.term) + 1).max(promised);
        let record = lease.record.clone().unwrap_or_else(|| Record::alone(self.copy()));
        let mut members: BTreeSet<String> = record.members.iter().map(|m| m.pod.clone()).collect();
        if all {
            let has_data = |(name, _): &(&String, _)| self.m.copy_of(name).is_some();
            members.extend(self.m.pods.iter().flatten().filter(has_data).map(|(name, _)| name.clone()));
        }
        let fresh = Candidacy { term, votes: BTreeMap::new(), refusals: BTreeMap::new(), asked: Mono::ZERO };
        let mut candidacy = self.m.candidacy.take().filter(|c| c.term == term).unwrap_or(fresh);
        let counted = candidacy.counted(&pod, &record, all);
        let needed = if all { members.len() } else { record.votes };
        if counted >= needed {
            self.m.candidacy = Some(candidacy);
            return true;
        }
        if candidacy.asked == Mono::ZERO || self.now >= candidacy.asked + AGAIN {
            candidacy.asked = self.now;
            if !candidacy.votes.contains_key(&pod) {
                self.actions.push(Action::Freeze(term));
            }
            let others = members.iter().filter(|m| **m != pod && !candidacy.votes.contains_key(*m)).cloned();
            self.actions.push(Action::AskVotes { term, of: others.collect() });
        }
        self.wake_at(candidacy.asked + AGAIN);
        self.because(Reason::ShortOfVotes { counted, needed, missing: candidacy.missing(&members, &pod) });
        self.m.candidacy = Some(candidacy);
        false
    }

    pub(super) fn voted(&mut self, vote: Vote) {
        let Some(candidacy) = self.m.candidacy.as_mut().filter(|c| c.term == vote.term) else { return };
        candidacy.refusals.remove(&vote.pod);
        candidacy.votes.insert(vote.pod.clone(), vote);
    }

    pub(super) fn refused(&mut self, pod: String, why: String) {
        let Some(candidacy) = self.m.candidacy.as_mut().filter(|c| !c.votes.contains_key(&pod)) else { return };
        candidacy.refusals.insert(pod, why);
    }

    fn promised_by_anybody(&self) -> u64 {
        let statuses = self.m.pods.iter().flat_map(|pods| pods.values()).filter_map(|pod| pod.status.as_ref());
        statuses.map(|s| s.promised).max().unwrap_or(0)
    }

    /// A leader that finds a member promised to a later term makes that term its own: the votes are void then, and the
    /// member streams again.
    pub(super) fn take_up_promises(&mut self) {
        let Some(term) = self.office().map(|o| o.term) else { return };
        let promised = self.promised_by_anybody();
        if promised <= term {
            return;
        }
        // That this copy held it is noted when the Lease says so: else somebody else may come to hold it.
        self.office_mut().into_iter().for_each(|o| o.term = promised);
    }
}

impl Candidacy {
    /// So many are frozen, are members, and are not ahead of this member, itself included.
    fn counted(&self, pod: &str, record: &Record, all: bool) -> usize {
        let Some(own) = self.votes.get(pod) else { return 0 };
        let member = |v: &&Vote| all || record.names(&v.pod, &v.copy);
        self.votes.values().filter(member).filter(|v| !v.is_ahead_of(own)).count()
    }

    /// Who is waited for, and why.
    fn missing(&self, members: &BTreeSet<String>, pod: &str) -> String {
        let own = self.votes.get(pod);
        let one = |member: &String| match (self.votes.get(member), self.refusals.get(member)) {
            (Some(vote), _) if own.is_some_and(|own| vote.is_ahead_of(own)) => Some(format!("{member} (has more)")),
            (Some(_), _) => None,
            (None, Some(why)) => Some(format!("{member} ({why})")),
            (None, None) => Some(member.clone()),
        };
        members.iter().filter_map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Whether this member may promise `term` now: whether by its own watch too the last office is over.
///
/// # Errors
/// Why not.
pub fn may_promise(config: &Config, memory: &Memory, now: Mono, term: u64) -> Result<(), String> {
    let local = &memory.local;
    let refuse = |why: &str| Err(why.to_string());
    match &memory.known {
        _ if memory.office != Office::Out => refuse("it leads, or is about to"),
        _ if term <= memory.term || term < local.promised => {
            Err(format!("it has seen term {}, and promised {}", memory.term, local.promised))
        }
        _ if memory.terminating.is_some() => refuse("it is told to stop"),
        _ if memory.bound_at(now, memory.lease()).is_some() => {
            refuse("it has consented that the leader stays without the API")
        }
        _ if local.data != Data::Present => refuse("it has no data"),
        // A primary that was stopped is one of these once it has recovered.
        _ if local.server != Server::Standby => refuse("not yet: its PostgreSQL does not run as a standby"),
        Known::Nothing => refuse("it has not seen the Lease yet"),
        Known::Absent { since } if now < *since + config.duration => refuse("the Lease has not been gone for long"),
        Known::Absent { .. } => Ok(()),
        Known::Lease { lease, .. } if term != lease.term + 1 => Err(format!("the Lease is at term {}", lease.term)),
        Known::Lease { lease, .. } if lease.is_paused() => refuse("podgres.io/paused forbids that one is elected"),
        Known::Lease { lease, since } => match () {
            () if lease.holder.is_empty() && lease.free.as_ref().is_some_and(|f| f.term == lease.term) => Ok(()),
            () if memory.is_proven_dead(lease) => Ok(()),
            () if now >= *since + config.duration.max(lease.duration) => Ok(()),
            () => Err(format!("by its own watch {} is in office", lease.holder)),
        },
    }
}
