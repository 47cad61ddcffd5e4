//! An outage of the API: the leader stays while enough members promise to wait (02-ha, section 7).
//!
//! Why there is no second primary meanwhile. Whoever takes office must be named by the record that the Lease has when it does,
//! and the record cannot change without a write of the leader that arrives: those whose answer never came are taken into
//! account, too (`In::written`). An election of an asynchronous cluster takes one member of the record: all others consent.
//! One of a synchronous cluster takes `votes` members of the record, frozen, and not the leader, which is writable: of the
//! others so many consent that fewer than `votes` are left. A member that consents neither stands nor votes for a whole
//! `lease-duration` after its answer, drops the votes that it has, and had promised no later term before. After a restart it
//! waits as long as well: it has not seen the leader for one `lease-duration`. The leader counts from before it asked, less
//! `fence-margin`, so that it is dead when the first promise ends, with clocks as different as the fence allows for.
//!
//! What no promise hinders is what proves that the leader is dead: that it gave up the Lease, or its container's last message.

use super::{
    Action, Config, Known, Memory, Mono, Office, Reason, Turn,
    lease::Lease,
    member::Pod,
    memory::In,
    record::{Copy, Record},
};

/// What a member has promised to the leader of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bound {
    /// The leader's term.
    pub term: u64,
    /// Until then it neither stands nor votes.
    pub until: Mono,
}

/// Who asks to be let in office.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its term.
    pub term: u64,
    /// Its pod.
    pub pod: String,
    /// Its pod's UID.
    pub uid: String,
    /// The start of its manager.
    pub instance: String,
}

/// How a leader stays.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Failsafe {
    /// Since when it leads by the others' consent.
    pub since: Option<Mono>,
    /// When they were asked last.
    pub asked: Mono,
    /// Their answers are waited for.
    pub asking: bool,
    /// Who did not consent, and why.
    pub refusals: Vec<(String, String)>,
}

/// A pod that is not ready for so many durations is not the API's trouble.
const UNREADY: u32 = 3;

impl Turn<'_> {
    /// In office: asks the others once two renewals are missing.
    pub(super) fn stay(&mut self) {
        let Some(office) = self.office().cloned() else { return };
        if !self.config.failsafe || !self.m.armed || self.m.denied || office.leaving.is_some() {
            return;
        }
        if office.failsafe.since.is_some() {
            self.because(Reason::Stays(office.term));
        }
        let at = (office.sent + self.config.renew * 2).max(office.failsafe.asked + self.config.renew);
        if office.failsafe.asking || self.now < at {
            return self.wake_at(at);
        }
        let records = self.records(&office);
        let others = records.iter().flat_map(|r| &r.members).map(|c| c.pod.clone()).filter(|p| *p != self.config.pod);
        let others: std::collections::BTreeSet<String> = others.collect();
        let now = self.now;
        self.office_mut().into_iter().for_each(|o| (o.failsafe.asked, o.failsafe.asking) = (now, true));
        self.wake_at(now + self.config.renew);
        if others.is_empty() {
            return self.answered(now, &[], Vec::new());
        }
        self.actions.push(Action::AskConsent { term: office.term, of: others.into_iter().collect() });
    }

    /// Each that the Lease may have by now.
    fn records(&self, office: &In) -> Vec<Record> {
        let known = self.m.lease().and_then(|l| l.record.clone());
        office.written.iter().cloned().chain(known).collect()
    }

    /// `sent`: before the first of them was asked.
    pub(super) fn answered(&mut self, sent: Mono, consents: &[Copy], refusals: Vec<(String, String)>) {
        let (now, fires) = (self.now, sent + self.config.duration - self.config.margin);
        let Some(office) = self.office().cloned() else { return };
        let own = self.copy();
        let records = self.records(&office);
        let enough = !records.is_empty() && records.iter().all(|r| are_enough(r, consents, &own));
        let Some(failsafe) = self.office_mut().map(|o| &mut o.failsafe) else { return };
        failsafe.asking = false;
        failsafe.refusals = refusals;
        if !enough || now >= fires || !self.m.armed {
            return;
        }
        let first =
            self.office_mut().is_some_and(|o| o.failsafe.since.replace(o.failsafe.since.unwrap_or(now)).is_none());
        if office.fires < fires {
            self.office_mut().into_iter().for_each(|o| o.fires = fires);
            self.arm(fires);
        }
        self.because(Reason::Stays(office.term));
        if first {
            let names: Vec<_> = consents.iter().map(|c| c.pod.as_str()).collect();
            let by =
                if names.is_empty() { "nobody else may lead".into() } else { format!("{} consent", names.join(", ")) };
            let why = self.m.trouble.clone().unwrap_or_else(|| "no answer".into());
            self.warn("Failsafe", format!("stays in office of term {} without the API: {by}. {why}", office.term));
        }
    }

    /// The API has taken a renewal.
    pub(super) fn end_failsafe(&mut self) {
        let now = self.now;
        let Some(office) = self.office_mut() else { return };
        office.written.clear();
        if let Some(since) = std::mem::take(&mut office.failsafe).since {
            let (term, seconds) = (office.term, now.saturating_sub(since).as_secs());
            let note = format!("the API is back: led in term {term} for {seconds} s by the consent of the others");
            self.tell(super::About::Pod(self.config.pod.clone()), "FailsafeOver", note);
        }
    }

    /// Who would not let this leader stay, in words.
    pub(super) fn refusals(&self) -> String {
        let refusals = self.office().map(|o| o.failsafe.refusals.as_slice()).unwrap_or_default();
        refusals.iter().map(|(pod, why)| format!("; {pod} does not consent: {why}")).collect()
    }

    /// This member has consented.
    pub(super) fn bind(&mut self, bound: Bound) {
        self.m.candidacy = None;
        let until = self.m.bound.filter(|b| b.term == bound.term).map_or(bound.until, |b| b.until.max(bound.until));
        self.m.bound = Some(Bound { until, ..bound });
    }

    /// Notes since when the leader's pod is not ready.
    pub(super) fn look_at_leader(&mut self) {
        let found = self.m.lease().and_then(|l| self.m.pods.as_ref()?.get(&l.holder));
        let unready = found.filter(|p| !p.ready).map(|p| p.uid.clone());
        let before = self.m.unready.take();
        self.m.unready = unready.map(|uid| match before {
            Some((same, since)) if same == uid => (uid, since),
            _ => (uid, self.now),
        });
    }
}

/// Whether so many of `record`'s members consent that no election is possible.
fn are_enough(record: &Record, consents: &[Copy], own: &Copy) -> bool {
    let needed = record.members.len().saturating_sub(record.votes);
    let consenting = record.members.iter().filter(|m| *m != own && consents.contains(m)).count();
    record.members.contains(own) && consenting >= needed
}

impl Memory {
    /// The promise that keeps this member from standing or voting for the office that `lease` tells of; none: the Lease is
    /// gone.
    pub(super) fn bound_at(&self, now: Mono, lease: Option<&Lease>) -> Option<Bound> {
        let bound = self.bound.filter(|b| now < b.until)?;
        let is_over = |l: &Lease| {
            let freed = l.holder.is_empty() && l.free.as_ref().is_some_and(|f| f.term == l.term);
            l.term >= bound.term && (freed || self.is_proven_dead(l))
        };
        (!lease.is_some_and(is_over)).then_some(bound)
    }
}

/// Whether this member may promise `claim`'s leader to wait.
///
/// # Errors
/// Why not.
pub fn may_consent(config: &Config, memory: &Memory, now: Mono, claim: &Claim) -> Result<(), String> {
    let lease = memory.lease();
    let same_term = lease.filter(|l| l.term == claim.term);
    let reachable = memory.silent_since.is_none() && matches!(memory.known, Known::Lease { .. } | Known::Absent { .. });
    let pods = memory.pods.as_ref().filter(|_| reachable);
    let pod: Option<Option<&Pod>> = pods.map(|pods| pods.get(&claim.pod).filter(|p| p.uid == claim.uid));
    let unready = memory.unready.as_ref().filter(|(uid, _)| *uid == claim.uid).map(|(_, since)| *since);
    match () {
        () if memory.office != Office::Out => Err("it leads, or is about to".into()),
        () if claim.term < memory.term => Err(format!("it has seen term {}", memory.term)),
        () if memory.local.promised > claim.term => Err(format!("it has promised term {}", memory.local.promised)),
        () if same_term.is_some_and(|l| l.instance != claim.instance) => {
            Err(format!("term {} is not its: the Lease has another holder, or none", claim.term))
        }
        () if pod == Some(None) => Err("the API answers here, and its pod is gone".into()),
        () if pod.flatten().is_some_and(|p| p.deleting) => {
            Err("the API answers here, and its pod is being deleted".into())
        }
        () if reachable && unready.is_some_and(|since| now >= since + config.duration * UNREADY) => {
            Err("the API answers here, and its pod has not been ready for long".into())
        }
        () => Ok(()),
    }
}
