//! In office of a synchronous cluster: who confirms commits, and what the record says of it, change step by step
//! ([`super::quorum`] has the order).

use super::{
    About, Action, Turn,
    lease::Lease,
    memory::In,
    quorum::{Names, Quorum, Stage, Step, Target, holders},
    record::Record,
};

impl Turn<'_> {
    /// That of a new office. The record is as the last leader left it.
    pub(super) fn begin_quorum(&self, lease: &Lease) -> Option<Quorum> {
        let record = lease.record.clone().unwrap_or_else(|| Record::alone(self.copy()));
        (self.config.sync.standbys > 0).then(|| Quorum::new(record))
    }

    fn quorum_mut(&mut self) -> Option<&mut Quorum> {
        self.office_mut()?.quorum.as_mut()
    }

    pub(super) fn attend_quorum(&mut self) {
        let Some((office, mut quorum)) = self.office().and_then(|o| Some((o.clone(), o.quorum.clone()?))) else {
            return;
        };
        let stage = quorum.stage.clone();
        let recorded = self.m.lease().and_then(|l| l.record.as_ref());
        match stage {
            // What the Lease says must be known before anything else is.
            Stage::Records(target) | Stage::RecordsLast(target) if recorded != Some(&target.record) => {
                if !self.is_writable() {
                    let stage = Stage::Restarts(target.record);
                    quorum = Quorum { told: quorum.told, stage, ..Quorum::new(quorum.record) };
                }
            }
            Stage::Restarts(record) if recorded != Some(&record) => {}
            Stage::Restarts(record) => quorum = Quorum { told: quorum.told, ..Quorum::new(record) },
            Stage::Records(target) if !self.is_writable() => quorum = Quorum::new(target.record),
            Stage::Records(target) => {
                quorum.record = target.record.clone();
                self.confirm(&mut quorum, target.names, Stage::Eases);
            }
            Stage::RecordsLast(target) => {
                quorum.record = target.record;
                quorum.stage = Stage::Settled;
            }
            // The next server begins with nobody's name.
            _ if !self.is_writable() => quorum = Quorum { told: quorum.told, ..Quorum::new(quorum.record) },
            Stage::Waits => self.stop(&mut quorum, self.first_target(&office)),
            Stage::Settled => self.next(&office, &mut quorum),
            Stage::Flushes(target, lsn) if have_flushed(&office, &target.record, lsn) => {
                let same = quorum.record == target.record;
                quorum.stage = if same { Stage::Settled } else { Stage::RecordsLast(target) };
            }
            // Whoever is waited for may be gone by now.
            Stage::Flushes(target, _) if self.wanted(&office, &quorum) != target => self.next(&office, &mut quorum),
            Stage::Flushes(..) | Stage::Stops(_) | Stage::Eases => {}
        }
        self.open(&mut quorum);
        self.tell_of(&office, &mut quorum);
        self.office_mut().into_iter().for_each(|o| o.quorum = Some(quorum.clone()));
    }

    /// What goes with the record that was found.
    fn first_target(&self, office: &In) -> Target {
        let record = office.quorum.as_ref().map_or_else(|| Record::alone(self.copy()), |q| q.record.clone());
        let names = Names::of(&record, &self.copy());
        let few = names.confirm().is_some_and(|n| n < self.config.sync.standbys);
        let names = if self.config.sync.strict && few { Names::Nobody } else { names };
        Target { record, names }
    }

    /// Who is to confirm, as far as who streams allows it.
    fn wanted(&self, office: &In, quorum: &Quorum) -> Target {
        let (n, leader) = (self.config.sync.standbys, self.copy());
        let listed = self.listed(office, Some(&quorum.record));
        if !self.config.sync.strict || listed.len() >= n {
            return Target::new(&leader, &listed, n);
        }
        // Rather nothing is committed than by fewer.
        let known = quorum.record.members.iter().filter(|m| **m != leader).cloned();
        let all: std::collections::BTreeSet<_> = known.chain(listed).collect();
        if all.len() >= n {
            return Target::new(&leader, &all, n);
        }
        Target { record: quorum.record.clone(), names: Names::Nobody }
    }

    fn next(&mut self, office: &In, quorum: &mut Quorum) {
        match quorum.plan(&self.copy(), &self.wanted(office, quorum)) {
            Some(Step::Less(target)) if target.record == quorum.record => {
                self.confirm(quorum, target.names, Stage::Eases);
            }
            Some(Step::Less(target)) => quorum.stage = Stage::Records(target),
            Some(Step::More(target)) => self.stop(quorum, target),
            None => {}
        }
    }

    /// From here on nothing more is to be confirmed.
    fn stop(&mut self, quorum: &mut Quorum, target: Target) {
        let before = quorum.stale.iter().chain([&quorum.names]).flat_map(Names::names).collect();
        quorum.set(Names::Nobody);
        quorum.stage = Stage::Stops(target);
        self.actions.push(Action::Stop(before));
    }

    fn confirm(&mut self, quorum: &mut Quorum, names: Names, stage: Stage) {
        if quorum.names == names {
            quorum.stage = if stage == Stage::Eases { Stage::Settled } else { stage };
            return;
        }
        quorum.set(names.clone());
        quorum.stage = stage;
        self.actions.push(Action::Confirm(names));
    }

    pub(super) fn proven(&mut self, lsn: u64) {
        let Some(mut quorum) = self.quorum_mut().map(|q| q.clone()) else { return };
        let Stage::Stops(target) = quorum.stage.clone() else { return };
        quorum.proven();
        self.confirm(&mut quorum, target.names.clone(), Stage::Flushes(target, lsn));
        self.office_mut().into_iter().for_each(|o| o.quorum = Some(quorum.clone()));
    }

    pub(super) fn confirmed(&mut self, names: &Names) {
        let Some(quorum) = self.quorum_mut().filter(|q| q.stage == Stage::Eases && q.names == *names) else { return };
        quorum.stage = Stage::Settled;
    }

    /// Clients are let in when what is confirmed to them is safe, with `sync-strict` also what they read.
    fn open(&self, quorum: &mut Quorum) {
        quorum.open |= match &quorum.stage {
            Stage::Waits | Stage::Stops(_) | Stage::Restarts(_) => false,
            Stage::Flushes(..) => !self.config.sync.strict,
            _ => !self.config.sync.strict || quorum.names != Names::Nobody,
        };
    }

    fn tell_of(&mut self, office: &In, quorum: &mut Quorum) {
        let wanted = self.config.sync.standbys;
        let waits = self.config.sync.strict && self.listed(office, Some(&quorum.record)).len() < wanted;
        let n = quorum.names.confirm().filter(|_| !waits).unwrap_or(0);
        let settled = quorum.stage == Stage::Settled || (waits && matches!(quorum.stage, Stage::Flushes(..)));
        if !settled || quorum.told == Some(n) {
            return;
        }
        let before = quorum.told.replace(n);
        let names = if waits { &Names::Nobody } else { &quorum.names };
        let note = in_words(&quorum.record, names, wanted, &self.config.pod);
        // A cluster begins with one member, and that is no trouble.
        if n < wanted && (before.is_some() || office.term > 1) {
            self.warn("SyncDegraded", note);
        } else {
            self.tell(About::Pod(self.config.pod.clone()), "SyncStandbys", note);
        }
    }
}

/// Whether so many of the record's members have all WAL up to `lsn` on disk that every election meets one of them. The
/// leader has.
fn have_flushed(office: &In, record: &Record, lsn: u64) -> bool {
    let rows = record.members.iter().filter_map(|m| office.row(m));
    1 + rows.filter(|row| row.flushed.is_some_and(|flushed| flushed >= lsn)).count() >= holders(record)
}

/// Who confirms, and what that means when the leader is lost.
pub fn in_words(record: &Record, names: &Names, wanted: usize, leader: &str) -> String {
    match names.confirm() {
        None => format!("commits wait: sync-strict, and fewer than {wanted} standbys are there to confirm them"),
        Some(0) => format!(
            "no standby confirms commits (sync is {wanted}): only {leader}, or a person with podgres promote --force, can go \
             on from here"
        ),
        Some(n) => {
            let standbys: Vec<&str> = record.members.iter().map(|m| m.pod.as_str()).filter(|p| *p != leader).collect();
            let less = if n < wanted { format!(" (sync is {wanted})") } else { String::new() };
            format!("each commit is confirmed by {n} of {}{less}", standbys.join(", "))
        }
    }
}
