//! Which standbys confirm a commit, and in which order that and the record change.
//!
//! A commit is confirmed when the leader and `n` of the listed standbys have it on disk; an election needs `votes` members of
//! the record. Each set that can confirm must meet each set that can elect, for the record and for every setting that any
//! walsender may still go by: a reload reaches each of them when it pleases. [`Quorum::plan`] finds the next step that keeps
//! that true (trace T4):
//!
//! - *asks less* (a standby joins, fewer confirm): the record first, then the setting;
//! - *asks more* (a standby leaves, more confirm): a name that nobody bears, proof that nothing is confirmed any more, the new
//!   list, the new members' disks, the record.

use std::collections::BTreeSet;

use super::{
    input::Standby,
    record::{Copy, Record},
};

/// What `synchronous_standby_names` is to say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Names {
    /// A name that nobody bears: every commit waits.
    Nobody,
    /// So many of these.
    Any {
        /// How many; 0: nobody is waited for, and nobody is named.
        n: usize,
        /// Of whom.
        standbys: BTreeSet<Copy>,
    },
}

/// `application_name` of a copy has an underscore behind a pod's name, so nobody is called this.
pub const NOBODY: &str = "_nobody";

impl Names {
    /// Those that go with a record of this leader's.
    pub fn of(record: &Record, leader: &Copy) -> Self {
        let standbys: BTreeSet<Copy> = record.members.iter().filter(|m| *m != leader).cloned().collect();
        match record.members.len().saturating_sub(record.votes) {
            0 => Self::Any { n: 0, standbys: BTreeSet::new() },
            n => Self::Any { n, standbys },
        }
    }

    /// The setting's value.
    pub fn setting(&self) -> String {
        match self {
            Self::Nobody => format!("ANY 1 (\"{NOBODY}\")"),
            Self::Any { n: 0, .. } => String::new(),
            Self::Any { n, .. } => {
                let names: Vec<String> = self.names().iter().map(|name| format!("\"{name}\"")).collect();
                format!("ANY {n} ({})", names.join(", "))
            }
        }
    }

    /// The `application_name`s in it.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Nobody => Vec::new(),
            Self::Any { standbys, .. } => standbys.iter().map(Copy::application_name).collect(),
        }
    }

    /// How many confirm; none: nothing is confirmed.
    pub fn confirm(&self) -> Option<usize> {
        match self {
            Self::Nobody => None,
            Self::Any { n, .. } => Some(*n),
        }
    }
}

/// Whether what is confirmed by `names` is on so many of the record's members that every election meets one of them.
pub fn holds(record: &Record, leader: &Copy, names: &Names) -> bool {
    let Names::Any { n, standbys } = names else { return true };
    let strangers = standbys.iter().filter(|s| !record.members.contains(s)).count();
    let at_least = usize::from(record.members.contains(leader)) + n.saturating_sub(strangers);
    at_least >= holders(record)
}

/// On how many of its members a commit must be, so that no election misses it.
pub fn holders(record: &Record) -> usize {
    (record.members.len() + 1).saturating_sub(record.votes)
}

/// What is to become.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The record.
    pub record: Record,
    /// The setting.
    pub names: Names,
}

impl Target {
    /// `n` of these standbys confirm what the leader commits.
    pub fn new(leader: &Copy, standbys: &BTreeSet<Copy>, n: usize) -> Self {
        let mut members = standbys.clone();
        members.insert(leader.clone());
        let record = Record { votes: members.len() - n.min(members.len() - 1), members };
        let names = Names::of(&record, leader);
        Self { record, names }
    }
}

/// A step towards it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// The record, then the setting.
    Less(Target),
    /// Nobody's name, the setting, the members' disks, the record.
    More(Target),
}

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The server does not accept writes yet; it begins with nobody's name.
    Waits,
    /// Nothing changes.
    Settled,
    /// The record is written; the setting comes after it.
    Records(Target),
    /// The setting was ordered.
    Eases,
    /// Nobody's name was ordered; that it is in force is to be proven.
    Stops(Target),
    /// The new setting was ordered; its members are to have all WAL up to here on disk.
    Flushes(Target, u64),
    /// As the last step the record is written.
    RecordsLast(Target),
    /// The server ended while this record was being written. The next one begins with nobody's name, over whatever the Lease
    /// says then.
    Restarts(Record),
}

/// The order of change of a leader in office.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Quorum {
    /// What is on the Lease; while it is being written, what was there before.
    pub record: Record,
    /// What the server's file says.
    pub names: Names,
    /// What some process of the server may still go by.
    pub stale: BTreeSet<Names>,
    /// How far a change has come.
    pub stage: Stage,
    /// Whether clients may be let in since this server accepts writes.
    pub open: bool,
    /// How many confirm, as people were last told.
    pub told: Option<usize>,
}

impl Quorum {
    /// Of a leader that has just taken office: its server has begun, or will, with a name that nobody bears.
    pub fn new(record: Record) -> Self {
        Self { record, names: Names::Nobody, stale: BTreeSet::new(), stage: Stage::Waits, open: false, told: None }
    }

    /// Whether a standby that streams was there since the last look, when it was as `before`: a frozen one streams for as
    /// long as its connection lasts, and says nothing. Only who is close behind (`most` bytes) joins.
    pub fn counts(&self, standby: &Standby, before: Option<&Standby>, most: u64) -> bool {
        let alive = before.is_none_or(|before| before.replied != standby.replied);
        let member = self.record.members.iter().any(|m| m.application_name() == standby.name);
        alive && (member || standby.lag.is_some_and(|lag| lag <= most))
    }

    /// What the Lease is to say.
    pub fn wanted_record(&self) -> &Record {
        match &self.stage {
            Stage::Records(target) | Stage::RecordsLast(target) => &target.record,
            Stage::Restarts(record) => record,
            _ => &self.record,
        }
    }

    /// The next step towards `target`; none: it is reached, or nothing can be done about it yet.
    pub fn plan(&self, leader: &Copy, target: &Target) -> Option<Step> {
        if (&self.record, &self.names) == (&target.record, &target.names) {
            return None;
        }
        self.step(leader, target).or_else(|| {
            let (now, then) = (&self.record.members, &target.record.members);
            let n = now.len().saturating_sub(self.record.votes);
            let standbys = |members: &BTreeSet<Copy>| members.iter().filter(|m| *m != leader).cloned().collect();
            let joined: BTreeSet<Copy> = now | then;
            if joined != *now {
                return self.step(leader, &Target::new(leader, &standbys(&joined), n));
            }
            let fewer = target.names.confirm().filter(|fewer| *fewer < n)?;
            self.step(leader, &Target::new(leader, &standbys(now), fewer))
        })
    }

    fn step(&self, leader: &Copy, target: &Target) -> Option<Step> {
        let Target { record, names } = target;
        if !holds(record, leader, names) {
            return None;
        }
        if self.eases(leader, record) {
            return Some(Step::Less(target.clone()));
        }
        holds(&self.record, leader, names).then(|| Step::More(target.clone()))
    }

    /// Whether all that was ever confirmed, and may still be confirmed, is safe under this record too.
    fn eases(&self, leader: &Copy, record: &Record) -> bool {
        let leaves = self.record.members.iter().filter(|m| !record.members.contains(m)).count();
        // The leader has everything itself.
        let others = holders(&self.record).saturating_sub(1).saturating_sub(leaves);
        let past = record.members.contains(leader) && 1 + others >= holders(record);
        past && self.stale.iter().chain([&self.names]).all(|names| holds(record, leader, names))
    }

    /// Another setting was ordered.
    pub fn set(&mut self, names: Names) {
        let before = std::mem::replace(&mut self.names, names);
        if before != self.names {
            self.stale.insert(before);
        }
        self.stale.remove(&self.names);
    }

    /// Nothing is confirmed any more by any process of the server: what was set before is forgotten.
    pub fn proven(&mut self) {
        self.stale.clear();
    }
}

#[cfg(test)]
mod tests;
