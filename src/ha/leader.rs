//! In office: renew while PostgreSQL is healthy, keep the record, leave in order.

use std::{collections::BTreeSet, time::Duration};

use super::{
    About, Action, Aim, Data, Goal, Known, Mono, Office, Reason, Server, Turn, Writing,
    input::Standby,
    lease::{self, Free, Lease},
    member::Pod,
    memory::{HandedOver, In, Leaving, Request, Why},
    quorum::Stage,
    record::{Copy, Record},
};

/// A server that never became ready so often in a row will not the next time either.
const MOST_FAILED_STARTS: u32 = 3;
/// Whoever could not lead leaves it to the others for so many durations.
const STAND_BACK: u32 = 3;
/// So long may a shutdown take that may never get its last checkpoint written, because the volume is full: PostgreSQL tries
/// it again and again.
const FULL_SHUTDOWN: Duration = Duration::from_secs(5);

impl Turn<'_> {
    pub(super) fn lead(&mut self) {
        if self.has_lost_office() {
            return;
        }
        self.take_up_promises();
        if self.office().is_none_or(|o| o.leaving.is_none()) {
            self.reasons_to_leave();
        }
        if self.office().is_some_and(|o| o.leaving.is_some()) {
            self.leave();
        } else {
            self.govern();
            self.attend_quorum();
        }
        self.renew();
        self.stay();
    }

    pub(super) fn office(&self) -> Option<&In> {
        self.m.in_office()
    }

    pub(super) fn office_mut(&mut self) -> Option<&mut In> {
        match &mut self.m.office {
            Office::In(office) => Some(office),
            _ => None,
        }
    }

    /// Only another holder, instance or term means that office is lost; a Lease that is gone is written anew.
    fn has_lost_office(&mut self) -> bool {
        let Some(term) = self.office().map(|o| o.term) else { return true };
        if self.is_freed(term) {
            // The watch was quicker than the answer to the write.
            self.m.writing = None;
            self.freed();
            self.follow();
            return true;
        }
        let lost = match &self.m.known {
            Known::Lease { lease, .. } => lease.term >= term && !self.is_mine(lease, term),
            _ => false,
        };
        if lost {
            self.warn("LeaderLost", format!("term {term} was ended by another member: PostgreSQL is killed"));
            self.drop_office();
            self.follow();
        }
        lost
    }

    fn is_freed(&self, term: u64) -> bool {
        let freed = |l: &Lease| l.holder.is_empty() && l.free.as_ref().is_some_and(|f| f.term == term);
        self.m.writing == Some(Writing::Free) && self.m.lease().is_some_and(freed)
    }

    fn is_mine(&self, lease: &Lease, term: u64) -> bool {
        lease.holder == self.config.pod && lease.instance == self.config.instance && lease.term == term
    }

    /// Out at once: whatever writes here must not live a moment longer.
    fn drop_office(&mut self) {
        self.m.office = Office::Out;
        self.m.goal = Some(Goal::Down);
        self.actions.push(Action::Aim(Aim { goal: Goal::Down, kill: true }));
    }

    pub(super) fn fired(&mut self) {
        if let Some(term) = self.office().map(|o| o.term) {
            let why = self.m.trouble.clone().map(|t| format!(": {t}")).unwrap_or_default();
            let limit = (self.config.duration - self.config.margin).as_secs();
            let why = why + &self.refusals();
            self.warn(
                "Fenced",
                format!("the Lease of term {term} was not renewed for {limit} s and all was killed{why}"),
            );
            // Dead is what was there. What was ordered is not: a server that waits for its next start would come up as the
            // primary.
            return self.drop_office();
        }
        // Whatever comes next is ordered anew.
        self.m.goal = None;
    }

    fn reasons_to_leave(&mut self) {
        if let Some(since) = self.m.terminating {
            let hands_over = self.m.hands_over && self.is_writable();
            if hands_over && (!self.has_looked_since(since) || self.is_about_to_record(since)) {
                return;
            }
            let paused = self.m.lease().is_some_and(Lease::is_paused);
            let to = self.best_target().filter(|_| hands_over && !paused);
            return self.begin_to_leave(to, Why::Terminating);
        }
        if self.own().is_some_and(Pod::is_fenced) {
            return self.begin_to_leave(None, Why::Fenced);
        }
        if let Some(why) = self.inability() {
            return self.begin_to_leave(None, Why::Unable(why));
        }
        let full = self.m.local.full_since.filter(|s| self.now >= *s + self.config.duration);
        if let Some(to) = full.and_then(|_| self.best_target()) {
            return self.begin_to_leave(Some(to), Why::Full);
        }
        if let Some((to, request)) = self.request() {
            self.begin_to_leave(Some(to), Why::Switchover(request));
        }
    }

    /// Whether who streams was looked at after `since`: what was seen before may be gone by then. Not waited for for ever.
    pub(super) fn has_looked_since(&mut self, since: Mono) -> bool {
        let looked = self.office().is_some_and(|o| o.looked > since) || self.now >= since + LOOK;
        self.wake_at(since + LOOK);
        looked
    }

    /// A standby that is about to be on the record is worth a moment's wait to a leader that is to end.
    fn is_about_to_record(&mut self, since: Mono) -> bool {
        let changes = self.office().and_then(|o| o.quorum.as_ref()).is_some_and(|q| q.stage != Stage::Settled);
        self.wake_at(since + LOOK * 3);
        changes && self.best_target().is_none() && self.now < since + LOOK * 3
    }

    pub(super) fn is_writable(&self) -> bool {
        self.m.local.server == Server::Primary
    }

    fn inability(&mut self) -> Option<String> {
        let (since, was_writable) = self.office().map(|o| (o.since, o.was_writable))?;
        if let Some(sick) = self.m.local.sick.clone().filter(|_| self.is_writable()) {
            return Some(sick);
        }
        let others = self.m.may_others_lead();
        if self.m.local.failed_starts >= MOST_FAILED_STARTS && others {
            return Some(format!("PostgreSQL could not be started {} times", self.m.local.failed_starts));
        }
        let stuck = self.m.local.stuck_since.map(|s| s.max(since)).filter(|_| !self.is_writable() && others)?;
        // A winner that is not writable soon lets others try; a leader that recovers gets the time that people gave it.
        let patience = if was_writable { self.config.start_timeout } else { self.config.start_timeout.min(WINNER) };
        self.wake_at(stuck + patience);
        (self.now >= stuck + patience)
            .then(|| format!("PostgreSQL has made no progress on its way up for {} s", patience.as_secs()))
    }

    pub(super) fn begin_to_leave(&mut self, to: Option<String>, why: Why) {
        let handing_over = to.is_some();
        if matches!(why, Why::Switchover(Request::SwitchoverTo(_))) {
            // Else the next leader would take it for a request of its own.
            self.actions.push(Action::ClearSwitchover);
        }
        let Some(office) = self.office_mut() else { return };
        office.leaving = Some(Leaving { to, why, stopped: None, caught_up: None, killed: false });
        if handing_over {
            self.actions.push(Action::Checkpoint);
        } else {
            self.checkpointed();
        }
    }

    /// The shutdown begins: from here on nobody writes.
    pub(super) fn checkpointed(&mut self) {
        let now = self.now;
        let Some(leaving) = self.office_mut().and_then(|o| o.leaving.as_mut()) else { return };
        if leaving.stopped.replace(now).is_some() {
            return;
        }
        let (to, kill) = (leaving.to.clone(), matches!(leaving.why, Why::Unable(_)));
        self.m.goal = Some(Goal::Down);
        self.actions.push(Action::Aim(Aim { goal: Goal::Down, kill }));
        if let Some(to) = to {
            self.actions.push(Action::AwaitTarget(to));
        }
    }

    pub(super) fn caught_up(&mut self, result: Result<(), String>) {
        let up = self.m.local.server != Server::Down;
        let Some(leaving) = self.office_mut().and_then(|o| o.leaving.as_mut()) else { return };
        leaving.caught_up = Some(result.is_ok());
        match (result, leaving.to.clone()) {
            (Ok(()), _) if up => self.actions.push(Action::Quit),
            (Err(why), Some(to)) => {
                self.warn(
                    "HandOverFailed",
                    format!("{to} did not get all that was written, the lead is for anyone: {why}"),
                );
            }
            _ => {}
        }
    }

    fn leave(&mut self) {
        let Some(leaving) = self.office().and_then(|o| o.leaving.clone()) else { return };
        self.because(Reason::Leaves(leaving.why.to_string()));
        let waits = leaving.stopped.is_none() || (leaving.to.is_some() && leaving.caught_up.is_none());
        self.kill_if_full(&leaving);
        if waits || self.m.local.server != Server::Down || self.m.local.busy {
            return;
        }
        let (Some(term), Some(lease)) = (self.office().map(|o| o.term), self.m.lease().cloned()) else { return };
        let named = leaving.to.as_ref().filter(|_| leaving.caught_up == Some(true));
        let to = named.and_then(|pod| Some(self.m.copy_of(pod)?.copy));
        let freed = Lease {
            holder: String::new(),
            instance: String::new(),
            pod_uid: String::new(),
            address: String::new(),
            free: Some(Free { term, to }),
            term,
            ..lease.clone()
        };
        self.write(Writing::Free, Some(lease.version), freed);
    }

    fn kill_if_full(&mut self, leaving: &Leaving) {
        let Some(by) = leaving.stopped.map(|at| at + FULL_SHUTDOWN) else { return };
        if leaving.why != Why::Full || leaving.killed || self.m.local.server == Server::Down {
            return;
        }
        if self.now < by {
            return self.wake_at(by);
        }
        self.office_mut().and_then(|o| o.leaving.as_mut()).into_iter().for_each(|l| l.killed = true);
        self.actions.push(Action::Aim(Aim { goal: Goal::Down, kill: true }));
    }

    pub(super) fn freed(&mut self) {
        let Office::In(office) = std::mem::take(&mut self.m.office) else { return };
        self.m.goal = None;
        let Some(leaving) = office.leaving else { return };
        let to = leaving.to.filter(|_| leaving.caught_up == Some(true));
        match leaving.why {
            Why::Switchover(request) => {
                let stopped = leaving.stopped.unwrap_or(self.now);
                self.m.handed_over = Some(HandedOver { request, term: office.term, stopped });
            }
            why @ (Why::Unable(_) | Why::Full) => {
                if self.m.may_others_lead() {
                    self.m.stand_back_until = self.now + self.config.duration * STAND_BACK;
                }
                self.warn("LeaderUnable", format!("gave up the lead of term {}: {why}", office.term));
            }
            Why::Terminating | Why::Fenced => {
                let to = to.map_or("whoever is best".into(), |to| to);
                let note = format!("handed the lead of term {} to {to}: {}", office.term, leaving.why);
                self.tell(About::Pod(self.config.pod.clone()), "HandedOver", note);
            }
        }
    }

    fn govern(&mut self) {
        let Some(office) = self.office().cloned() else { return };
        let reason = Reason::Leads(office.term);
        let recorded = self.m.lease().and_then(|l| l.system_id);
        match (self.m.local.data, recorded) {
            (Data::Empty, _) => self.aim(Goal::Initialise, reason),
            // Nobody is served before the identity is on the Lease.
            (_, None) => self.because(reason),
            (data, Some(_)) => {
                if data == Data::Unrecorded {
                    self.actions.push(Action::NoteRecorded);
                }
                self.aim(Goal::Primary { direct: office.direct }, reason);
            }
        }
        if self.is_writable() && !office.was_writable {
            self.office_mut().into_iter().for_each(|o| o.was_writable = true);
            let note = format!("accepts writes as the leader of term {}", office.term);
            self.tell(About::Pod(self.config.pod.clone()), "Promoted", note);
        }
    }

    fn renew(&mut self) {
        let Some(office) = self.office().cloned() else { return };
        let due = office.sent + self.config.renew;
        let unable = matches!(&office.leaving, Some(Leaving { why: Why::Unable(_), .. }));
        let freeing = matches!(self.m.writing, Some(Writing::Free));
        if unable || freeing {
            return;
        }
        let (over, before) = match &self.m.known {
            Known::Lease { lease, .. } if !self.m.reading => (Some(lease.version.clone()), lease.clone()),
            Known::Absent { .. } => (None, Lease::default()),
            _ => return,
        };
        let lease = self.content(&office, &before);
        let changed =
            Lease { renewed: before.renewed.clone(), version: before.version.clone(), ..lease.clone() } != before;
        if self.now >= due || changed {
            let fenced = !lease.is_unfenced();
            if self.write(Writing::Renew, over, lease) && fenced && !self.m.armed {
                // The end of a pause counts for the others from when they see this, whether the answer comes here or not.
                self.arm(self.now + self.config.duration - self.config.margin);
            }
        } else {
            self.wake_at(due);
        }
    }

    fn content(&self, office: &In, before: &Lease) -> Lease {
        let has_data = self.m.local.data != Data::Empty;
        let began = self.m.local.began.filter(|_| self.is_writable());
        // A shutdown may take longer than a lease: nobody streams, and nobody falls behind.
        let stops = office.leaving.as_ref().is_some_and(|l| l.stopped.is_some());
        let record = match &office.quorum {
            Some(quorum) => quorum.wanted_record().clone(),
            None => before.record.clone().filter(|_| stops).unwrap_or_else(|| self.record(office, before)),
        };
        let duration = if before.is_paused() { lease::PAUSED } else { self.config.duration };
        Lease {
            duration,
            term: office.term,
            record: Some(record),
            system_id: self.m.local.system_id.filter(|_| has_data).or(before.system_id),
            timeline: began.or(before.timeline),
            free: None,
            transitions: u32::try_from(office.term.saturating_sub(1)).unwrap_or(u32::MAX),
            ..self.signed(before)
        }
    }

    pub(super) fn renewed(&mut self, sent: Mono) {
        let unfenced = self.m.lease().is_some_and(Lease::is_unfenced);
        let recorded = self.m.lease().map_or(0, |l| l.term);
        if self.m.local.held < recorded && self.office().is_some_and(|o| o.term == recorded) {
            self.actions.push(Action::NoteOffice(recorded));
        }
        let fires = sent + self.config.duration - self.config.margin;
        let Some(office) = self.office_mut() else { return };
        (office.sent, office.fires) = (sent, fires);
        self.end_failsafe();
        // Whoever paused the cluster wants a primary that outlives the API's absence.
        if unfenced {
            self.m.armed = false;
            self.actions.push(Action::Disarm);
        } else {
            self.arm(fires);
        }
    }

    pub(super) fn streaming(&mut self, standbys: Vec<Standby>) {
        let (now, most) = (self.now, self.config.max_lag);
        let Some(office) = self.office_mut() else { return };
        let close = |s: &Standby| match &office.quorum {
            None => s.lag.is_some_and(|lag| lag <= most),
            Some(quorum) => quorum.counts(s, office.standbys.iter().find(|b| b.name == s.name), most),
        };
        let close: Vec<String> = standbys.iter().filter(|s| s.streaming && close(s)).map(|s| s.name.clone()).collect();
        office.streamed.extend(close.into_iter().map(|name| (name, now)));
        office.standbys = standbys;
        office.looked = now;
    }

    /// The leader, and every standby that it saw close behind within a lease's duration.
    fn record(&self, office: &In, before: &Lease) -> Record {
        let mut members = self.listed(office, before.record.as_ref());
        members.insert(self.copy());
        Record { votes: 1, members }
    }

    /// The standbys that may be members of the record. `before`: the present one.
    pub(super) fn listed(&self, office: &In, before: Option<&Record>) -> BTreeSet<Copy> {
        let known = before.iter().flat_map(|r| r.members.iter().cloned());
        let seen = self.m.pods.iter().flatten().filter_map(|(name, _)| self.m.copy_of(name));
        let candidates: BTreeSet<Copy> = known.chain(seen).filter(|c| c.pod != self.config.pod).collect();
        candidates.into_iter().filter(|c| self.may_be_listed(office, c)).collect()
    }

    fn may_be_listed(&self, office: &In, copy: &Copy) -> bool {
        let since = office.streamed.get(&copy.application_name());
        let streams = since.is_some_and(|s| self.now.saturating_sub(*s) < self.config.duration);
        let pod = self.m.pods.as_ref().and_then(|p| p.get(&copy.pod));
        let fit = |pod: &Pod| {
            let status = pod.status.as_ref();
            !pod.deleting && !pod.is_fenced() && status.is_none_or(|s| s.priority > 0 || s.instance.is_empty())
        };
        // Each copy more in the record of a synchronous cluster is one whose vote an election takes.
        let replaced = office.quorum.is_some() && self.m.copy_of(&copy.pod).is_some_and(|now| now != *copy);
        streams && !replaced && pod.is_none_or(fit)
    }

    /// Whether `pod` could take over with every byte, or why not.
    pub(super) fn check_target(&self, pod: &str) -> Result<(), Unfit> {
        let never = |why: String| Err(Unfit { why, may_pass: false });
        let Some(found) = self.m.pods.as_ref().and_then(|p| p.get(pod)) else {
            return never(format!("the cluster has no member {pod}"));
        };
        match self.m.lease() {
            _ if pod == self.config.pod => never(format!("{pod} is the primary already")),
            Some(lease) if lease.is_paused() => never("the cluster is paused (podgres.io/paused)".into()),
            _ if found.is_fenced() => never(format!("{pod} is fenced (podgres.io/fenced)")),
            _ if found.deleting => never(format!("{pod} is being deleted")),
            _ => self.check_streaming(pod).map_err(|why| Unfit { why, may_pass: true }),
        }
    }

    fn check_streaming(&self, pod: &str) -> Result<(), String> {
        match self.row(pod) {
            _ if !self.is_writable() => Err("the primary does not accept writes at the moment".into()),
            None => Err(format!("{pod} does not stream from the primary")),
            Some(row) if !row.streaming => Err(format!("{pod} is still catching up with the primary")),
            Some(_) if !self.is_admitted(pod) => Err(format!("{pod} is not on the record yet")),
            Some(row) if row.lag.is_none_or(|lag| lag > self.config.max_lag) => Err(format!(
                "{pod} is {} behind, more than max-lag-on-failover",
                row.lag.map_or("an unknown number of bytes".into(), |lag| format!("{lag} bytes"))
            )),
            Some(_) => Ok(()),
        }
    }

    /// In a synchronous cluster the target's own word counts for nothing: the record decides who may take over.
    fn is_admitted(&self, pod: &str) -> bool {
        let record = self.office().and_then(|o| o.quorum.as_ref()).map(|q| &q.record);
        record.is_none_or(|r| self.m.copy_of(pod).is_some_and(|c| r.members.contains(&c)))
    }

    fn row(&self, pod: &str) -> Option<&Standby> {
        self.office()?.row(&self.m.copy_of(pod)?)
    }

    /// The fit standby with the least lag.
    pub(super) fn best_target(&self) -> Option<String> {
        let priority = |p: &Pod| p.status.as_ref().map_or(100, |s| s.priority);
        let lag = |name: &str| self.row(name)?.lag;
        let pods = self.m.pods.iter().flatten();
        let fit = pods.filter(|(name, pod)| priority(pod) > 0 && self.check_target(name).is_ok());
        fit.min_by_key(|(name, pod)| (lag(name), u32::MAX - priority(pod), (*name).clone()))
            .map(|(name, _)| name.clone())
    }
}

/// A look at who streams takes milliseconds.
const LOOK: Duration = Duration::from_secs(1);

/// Why a member cannot take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    /// In words.
    pub(super) why: String,
    /// Whether it may be otherwise in a moment.
    pub(super) may_pass: bool,
}

/// A winner that has not begun to accept writes by then frees the Lease.
const WINNER: Duration = Duration::from_secs(30);
