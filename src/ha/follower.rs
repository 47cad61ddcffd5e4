//! Out of office: whom to follow, and whether to stand.

use std::time::Duration;

use super::{
    Action, Data, Goal, Known, Mono, Office, Reason, Server, Turn, Writing,
    election::{self, StandBack},
    failsafe::Failsafe,
    lease::Lease,
    member::Pod,
    memory::In,
    record::{Copy, Record},
};

/// The target of a hand-over has the Lease to itself for this long: after that anyone may stand.
const FREED_FOR_ONE: Duration = Duration::from_secs(5);
/// The others are asked so long before the Lease runs out: they have half a second to answer.
const ASK_BEFORE: Duration = Duration::from_millis(600);
/// Accounts that are older were given before the leader was gone.
const ACCOUNTS_LAST: Duration = Duration::from_millis(1500);
/// What a person said holds for so long.
const FORCED: Duration = Duration::from_secs(60);
/// If the best one has not acted by then, the next may.
const AFTER_THE_BEST: Duration = Duration::from_secs(1);
/// An API that has been silent for so long after the start may stay so: reads are better than nothing.
const START_WITHOUT_API: Duration = Duration::from_secs(3);

/// What ended the last office.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its leader was this very pod: its former container is dead, and the lock on the data is ours.
    SamePod,
    /// It was given up for this copy.
    FreedForMe,
    /// It was given up for whoever is best.
    Freed,
    /// The leader is proven dead.
    Died,
    /// It ran out.
    RanOut,
}

impl Ended {
    fn why(self, holder: &str) -> String {
        match self {
            Self::SamePod => "this pod led, and its former container is dead".into(),
            Self::FreedForMe => "the lead was handed over to this member".into(),
            Self::Freed => "the lead was given up".into(),
            Self::Died => format!("the processes of {holder} are proven dead"),
            Self::RanOut => format!("{holder} has not renewed the Lease in time"),
        }
    }
}

impl Turn<'_> {
    pub(super) fn follow(&mut self) {
        if self.m.terminating.is_some() {
            return self.end();
        }
        if self.own().is_some_and(Pod::is_fenced) {
            return self.aim(Goal::Down, Reason::Fenced);
        }
        if self.m.office == Office::Taking {
            return;
        }
        match self.m.known.clone() {
            Known::Lease { lease, since } if self.m.pods.is_some() => self.with_lease(&lease, since),
            Known::Absent { since } if self.m.pods.is_some() => self.without_lease(since),
            _ => self.without_api(),
        }
    }

    fn end(&mut self) {
        self.aim(Goal::Down, Reason::Terminating);
        if self.m.local.server == Server::Down && !self.m.local.busy && !std::mem::replace(&mut self.m.exiting, true) {
            self.actions.push(Action::Exit);
        }
    }

    fn without_api(&mut self) {
        let Some(since) = self.m.silent_since else { return };
        if self.m.local.data != Data::Present {
            return self.because(Reason::NoApi { data: false });
        }
        if self.now >= since + START_WITHOUT_API {
            self.aim(Goal::Standby, Reason::NoApi { data: true });
        } else {
            self.wake_at(since + START_WITHOUT_API);
        }
    }

    fn without_lease(&mut self, since: Mono) {
        if self.m.local.data != Data::Present {
            return self.found(None, since);
        }
        let known = self.m.local.record.clone();
        self.aim(Goal::Standby, Reason::NoLeader("there is no Lease".into()));
        let at = since + self.config.duration;
        if self.now < at {
            return self.wake_at(at);
        }
        // Without any record this is a data directory from elsewhere, on which nobody's commits depend.
        let record = known.unwrap_or_else(|| Record::alone(self.copy()));
        let lease =
            Lease { term: self.m.term, record: Some(record), system_id: self.m.local.system_id, ..Lease::default() };
        self.stand(None, &lease, Ended::RanOut, since);
    }

    /// Makes the cluster, if nobody has data.
    fn found(&mut self, over: Option<&Lease>, since: Mono) {
        let pods = self.m.pods.iter().flatten().map(|(_, pod)| pod);
        let others: Vec<&Pod> = pods.filter(|p| p.name != self.config.pod).collect();
        // Whoever is being deleted comes back on its volume, but says nothing any more.
        let reported = |p: &&Pod| p.deleting || p.status.as_ref().is_some_and(|s| !s.instance.is_empty());
        if others.iter().any(|p| p.status.as_ref().is_some_and(|s| s.system_id.is_some())) {
            return self.aim(Goal::Down, Reason::WaitsForPrimary);
        }
        let at = since + self.config.duration;
        if self.now < at && !others.iter().all(reported) {
            self.wake_at(at);
            return self.aim(Goal::Down, Reason::WaitsForAccounts);
        }
        self.because(Reason::Founds);
        let empty = Lease { term: self.m.term, record: Some(Record::alone(self.copy())), ..Lease::default() };
        let lease = over.map_or(empty.clone(), |over| Lease { record: empty.record.clone(), ..over.clone() });
        self.take_office(over.map(|l| l.version.clone()), &lease, true);
    }

    fn with_lease(&mut self, lease: &Lease, since: Mono) {
        if self.is_foreign(lease) {
            return;
        }
        self.told_of_hand_over(lease);
        let ended = self.ended(lease, since);
        let Some(system_id) = lease.system_id else {
            return match (self.m.local.data, ended) {
                (Data::Present, Some(ended)) => {
                    self.stand(Some(lease.version.clone()), lease, ended, since);
                }
                (Data::Present, None) => self.aim(Goal::Standby, Reason::WaitsForFounder),
                // A pause is for those who have begun to make the cluster, too.
                (_, Some(ended)) if !lease.is_paused() || ended == Ended::SamePod => self.found(Some(lease), since),
                _ => self.aim(Goal::Down, Reason::WaitsForFounder),
            };
        };
        if self.m.local.data == Data::Unrecorded && self.m.local.system_id == Some(system_id) {
            self.actions.push(Action::NoteRecorded);
        }
        match ended {
            Some(ended) if self.m.local.data == Data::Present => {
                // Before anything is started: a start as a standby would cost a timeline.
                if !self.stand(Some(lease.version.clone()), lease, ended, since) && self.m.office == Office::Out {
                    let why = self.m.reason.clone();
                    self.aim(Goal::Standby, why);
                }
            }
            _ => self.follow_leader(lease),
        }
    }

    fn follow_leader(&mut self, lease: &Lease) {
        let led = !lease.holder.is_empty();
        match self.m.local.data {
            Data::Present if led && lease.is_unfenced() && !lease.is_paused() => {
                self.aim(Goal::Standby, Reason::Resumed(lease.holder.clone()));
            }
            Data::Present if led => self.aim(Goal::Standby, Reason::Follows(lease.holder.clone())),
            Data::Present => self.aim(Goal::Standby, Reason::NoLeader("the Lease is free".into())),
            // Not before there is something to clone.
            _ if led && lease.timeline.is_some() => self.aim(Goal::Standby, Reason::Follows(lease.holder.clone())),
            _ => self.aim(Goal::Down, Reason::WaitsForPrimary),
        }
    }

    fn is_foreign(&mut self, lease: &Lease) -> bool {
        let (Some(ours), Some(theirs)) = (self.m.local.system_id, lease.system_id) else { return false };
        match self.m.local.data {
            _ if ours == theirs => return false,
            Data::Empty => return false,
            Data::Unrecorded => self.actions.push(Action::Discard),
            Data::Present => {}
        }
        let reason = Reason::Foreign { ours, theirs };
        if self.m.local.data == Data::Present && self.m.reason != reason {
            self.warn("ForeignData", reason.to_string());
        }
        self.aim(Goal::Down, reason);
        true
    }

    fn ended(&mut self, lease: &Lease, since: Mono) -> Option<Ended> {
        if lease.pod_uid == self.config.uid && lease.holder == self.config.pod {
            return Some(Ended::SamePod);
        }
        if let Some(free) = lease.free.as_ref().filter(|f| lease.holder.is_empty() && f.term == lease.term) {
            return match &free.to {
                None => Some(Ended::Freed),
                Some(copy) if *copy == self.m.local.copy => Some(Ended::FreedForMe),
                Some(_) => self.after(since + FREED_FOR_ONE).then_some(Ended::Freed),
            };
        }
        if self.m.is_proven_dead(lease) {
            return Some(Ended::Died);
        }
        let ends = since + self.config.duration.max(lease.duration);
        if self.now + ASK_BEFORE >= ends && self.may_stand(lease).is_ok() {
            self.ask(lease);
        }
        self.wake_at(ends.saturating_sub(ASK_BEFORE));
        self.after(ends).then_some(Ended::RanOut)
    }

    fn after(&mut self, at: Mono) -> bool {
        if self.now < at {
            self.wake_at(at);
        }
        self.now >= at
    }

    /// Whether this member may stand for the office that `lease` tells of, or why not.
    fn may_stand(&self, lease: &Lease) -> Result<(), String> {
        let record = lease.record.as_ref().or(self.m.local.record.as_ref());
        if self.is_forced() && self.m.local.data == Data::Present {
            return Ok(());
        }
        match () {
            () if lease.term < self.m.term => Err(format!(
                "the Lease is at term {}, and term {} was seen: an old one was restored. Only the leader of that term may \
                 write it anew",
                lease.term, self.m.term
            )),
            () if self.m.local.data != Data::Present => Err("this member has no data".into()),
            () if self.config.priority == 0 => Err("this member has priority 0 and never stands".into()),
            () if self.now < self.m.stand_back_until => {
                Err("this member could not lead just now and stands back".into())
            }
            () if record.is_some_and(|r| !r.names(&self.config.pod, &self.m.local.copy)) => {
                Err("this member's copy is not on the record: it was behind when there was a leader".into())
            }
            () if record.is_none() && self.m.term > 0 => Err("this member has never seen the record".into()),
            () => Ok(()),
        }
    }

    /// Stands, if it may; whether it does.
    fn stand(&mut self, over: Option<String>, lease: &Lease, ended: Ended, since: Mono) -> bool {
        if let Some(bound) = self.m.bound_at(self.now, over.is_some().then_some(lease)) {
            let why = format!(
                "the leader of term {} leads without the API, by this member's consent among others",
                bound.term
            );
            self.because(Reason::NoLeader(why));
            self.wake_at(bound.until);
            return false;
        }
        if self.is_forced() {
            return self.take_by_force(over, lease);
        }
        // A leader that comes back is no change.
        let paused = lease.is_paused() && ended != Ended::SamePod;
        let paused = paused.then(|| "podgres.io/paused forbids that one is elected".to_string());
        if let Err(why) = paused.map_or_else(|| self.may_stand(lease), Err) {
            self.because(Reason::NoLeader(why));
            self.wake_at(self.m.stand_back_until);
            return false;
        }
        let held = self.m.local.held == lease.term && lease.term > 0;
        let alone = lease.record.as_ref().is_some_and(|r| r.members.len() == 1);
        let needs_votes = self.needs_votes(lease, over.is_some(), held, ended);
        let ready = match self.m.local.server {
            Server::Standby => true,
            // Only a standby can be frozen, and only who is frozen has a vote.
            Server::Down => !self.m.local.busy && !needs_votes && (ended == Ended::SamePod || alone),
            Server::Changing | Server::Primary => false,
        };
        if !ready {
            self.because(Reason::NoLeader("PostgreSQL is not ready here".into()));
            return false;
        }
        let unasked = matches!(ended, Ended::SamePod | Ended::FreedForMe) || alone;
        if !unasked && !self.is_best(lease, ended, since) {
            return true;
        }
        if needs_votes && !self.has_votes(lease, over.is_none()) {
            return true;
        }
        self.because(Reason::Takes(ended.why(&lease.holder)));
        let direct = held && self.m.local.server == Server::Down;
        self.take_office(over, lease, direct);
        true
    }

    /// A person said so, a moment ago.
    fn is_forced(&self) -> bool {
        self.m.forced.is_some_and(|since| self.now < since + FORCED)
    }

    /// Neither votes nor how far anybody is count, but the Lease does. Whoever else has data becomes a member when it has what
    /// this one has, and no more.
    fn take_by_force(&mut self, over: Option<String>, lease: &Lease) -> bool {
        let up = self.m.local.server == Server::Standby;
        self.because(Reason::Takes("a person said so, whatever is lost (podgres promote --force)".into()));
        if up {
            let lease = Lease { record: Some(Record::alone(self.copy())), ..lease.clone() };
            self.take_office(over, &lease, false);
        }
        up
    }

    /// In a synchronous cluster whoever cannot know otherwise that it has every commit asks for votes: the holder of the latest
    /// term has, and whom that one handed over to. Without the Lease nobody knows which term was the latest.
    fn needs_votes(&self, lease: &Lease, there: bool, held: bool, ended: Ended) -> bool {
        let record = lease.record.as_ref();
        let synchronous = self.config.sync.standbys > 0 || record.is_some_and(|r| r.votes > 1);
        let alone = record.is_some_and(|r| r.members.len() == 1);
        synchronous && !(there && (held || alone || ended == Ended::FreedForMe))
    }

    /// Whether the others leave the office to this member.
    fn is_best(&mut self, lease: &Lease, ended: Ended, since: Mono) -> bool {
        let fresh = |at: &Mono| self.now.saturating_sub(*at) < ACCOUNTS_LAST;
        let Some((at, accounts)) = self.m.accounts.clone().filter(|(at, _)| fresh(at)) else {
            self.because(Reason::NoLeader("asking the others how far they are".into()));
            self.ask(lease);
            return false;
        };
        let Some(me) = accounts.iter().find(|a| a.pod == self.config.pod && a.fit).cloned() else {
            self.because(Reason::NoLeader("PostgreSQL does not answer here".into()));
            self.wake_at(at + ACCOUNTS_LAST);
            return false;
        };
        let record = lease.record.clone().unwrap_or_else(|| Record::alone(self.copy()));
        // Only of an office that ran out can somebody else have seen more than this member.
        let unseen = self.now.saturating_sub(since).min(self.config.duration);
        let fresh_ms = (ended == Ended::RanOut).then(|| u64::try_from(unseen.as_millis()).unwrap_or(u64::MAX) / 2);
        match election::may_take(&me, &accounts, &record, lease.term, fresh_ms) {
            Ok(()) => true,
            Err(StandBack::LeaderAlive(by)) => {
                self.because(Reason::NoLeader(format!("{by} has seen a leader in office")));
                // Once: what is read is judged by the same accounts again.
                if self.m.read_for.replace(at) != Some(at) {
                    self.read();
                }
                self.wake_at(at + ACCOUNTS_LAST);
                false
            }
            Err(StandBack::Better { pod, has_more }) => {
                // That it comes first by its name was no time for one that turns out to have more.
                let before = self.m.stood_back.filter(|(_, had_more)| *had_more || !has_more);
                let (stood, _) = *self.m.stood_back.insert(before.unwrap_or((self.now, has_more)));
                self.because(Reason::NoLeader(format!("{pod} is ahead and goes first")));
                self.wake_at(stood + AFTER_THE_BEST);
                self.now >= stood + AFTER_THE_BEST
            }
        }
    }

    fn ask(&mut self, lease: &Lease) {
        let fresh = self.m.accounts.as_ref().is_some_and(|(at, _)| self.now.saturating_sub(*at) < ACCOUNTS_LAST / 2);
        if self.m.asking || fresh {
            return;
        }
        self.m.asking = true;
        let members = lease.record.iter().flat_map(|r| &r.members).map(|m| m.pod.clone());
        self.actions.push(Action::Ask(members.collect()));
    }

    fn take_office(&mut self, over: Option<String>, lease: &Lease, direct: bool) {
        let term = self.next_term(lease);
        // What the new leader goes on from: a standby that has more waits until the new timeline is known (trace T13).
        let timeline = self.m.local.began.or(lease.timeline);
        let taken = Lease { term, free: None, timeline, ..self.signed(lease) };
        // The last renewal of an office that was fenced may still be on its way.
        if self.write(Writing::Take { direct }, over, taken) {
            self.m.office = Office::Taking;
        }
    }

    /// Where the Lease is gone there may have been terms that nobody here has seen: of a leader that is gone as well, or of one
    /// who made a new Lease that is gone, too. Each start of a manager leaves out a number of its own, so that two who do not
    /// know of each other do not choose the same term. With votes that cannot be: every member is asked, and has seen its own.
    fn next_term(&self, lease: &Lease) -> u64 {
        let last = lease.term.max(self.m.term);
        match &self.m.candidacy {
            Some(candidacy) => candidacy.term.max(last + 1),
            None if matches!(self.m.known, Known::Absent { .. }) && last > 0 => {
                last + 1 + number_of(&self.config.instance)
            }
            None => last + 1,
        }
    }

    /// The Lease with this member as its holder.
    pub(super) fn signed(&self, lease: &Lease) -> Lease {
        Lease {
            holder: self.config.pod.clone(),
            duration: self.config.duration,
            instance: self.config.instance.clone(),
            pod_uid: self.config.uid.clone(),
            address: self.m.local.address.clone(),
            ..lease.clone()
        }
    }

    pub(super) fn enter_office(&mut self, sent: Mono, direct: bool) {
        let Some(lease) = self.m.lease().cloned() else { return };
        self.m.office = Office::Out;
        self.m.accounts = None;
        self.m.candidacy = None;
        if let Some(at) = self.m.forced.take() {
            let waited = self.now.saturating_sub(at).as_millis();
            let note = format!("took over in term {} by force, {waited} ms after a person said so", lease.term);
            self.warn("Forced", note);
        }
        let fires = sent + self.config.duration - self.config.margin;
        if self.now >= fires {
            // Taken and over again before the answer came. It is this pod's, so it may be taken at once.
            return;
        }
        let members = lease.record.iter().flat_map(|r| &r.members);
        let streamed = members.map(|m| (m.application_name(), self.now)).collect();
        self.m.office = Office::In(In {
            term: lease.term,
            since: self.now,
            sent,
            fires,
            written: Vec::new(),
            failsafe: Failsafe::default(),
            direct,
            standbys: Vec::new(),
            looked: Mono::ZERO,
            streamed,
            was_writable: false,
            leaving: None,
            quorum: self.begin_quorum(&lease),
        });
        self.arm(fires);
        self.actions.push(Action::NoteOffice(lease.term));
        // Who made this member the primary for it answers it, too.
        if let Some((uid, value)) = self.own().and_then(|p| Some((p.uid.clone(), p.promote.clone()?))) {
            self.m.handled.insert((uid, "promote", value));
        }
    }

    /// The own pod.
    pub(super) fn own(&self) -> Option<&Pod> {
        self.m.pods.as_ref()?.get(&self.config.pod)
    }

    pub(super) fn copy(&self) -> Copy {
        Copy { pod: self.config.pod.clone(), copy: self.m.local.copy.clone() }
    }
}

/// From 1 to 1000 (FNV-1a, <http://www.isthe.com/chongo/tech/comp/fnv/>).
fn number_of(instance: &str) -> u64 {
    let hash = instance
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    1 + hash % 1000
}
