//! What can happen, and what it does.

use std::sync::Arc;

use podgres::ha::{
    Data, Goal, Input, Refusal, Server,
    lease::{Began, Lease},
};

use crate::{
    rules::Rule,
    world::{Done, Granted, Request, What, World, mono},
};

/// Something that happens. Numbers are those of members, and of their requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    // What a healthy system does.
    Terminate(usize),
    Attend(usize),
    Serve(usize, usize),
    Reply(usize, usize),
    Watch(usize),
    WatchSends(usize),
    WatchArrives(usize),
    Pods(usize),
    Accounts(usize),
    Server(usize),
    NoteTimeline(usize),
    Repair(usize),
    Follow(usize),
    Checkpointed(usize),
    CaughtUp(usize, bool),
    Timer(usize),
    Recreate(usize),
    Start(usize),
    Tick,
    // Work.
    Commit(usize),
    // The end of a fault.
    Wake(usize),
    Uncut(usize),
    // Faults, and people.
    Crash(usize),
    NodeCrash(usize),
    Slow(usize),
    Cut(usize),
    Lose(usize, usize),
    Deaf(usize),
    DeleteLease,
    RestoreLease,
    Touch,
    Pause,
    Resume,
    FenceMember(usize),
    DeletePod(usize),
    ForceDelete(usize),
    Switchover(usize),
    LoseVolume(usize),
}

impl World {
    /// What a healthy system does of itself, without the passing of time.
    pub(crate) fn steps(&self, acts: &mut Vec<Act>) {
        for (i, m) in self.members.iter().enumerate() {
            for (k, request) in m.requests.iter().enumerate() {
                if request.done.is_none() && (!m.cut || request.orphan) {
                    acts.push(Act::Serve(i, k));
                } else if request.done.is_some() && m.runs() && !m.cut {
                    acts.push(Act::Reply(i, k));
                }
            }
            if m.up && self.server_step(i) {
                acts.push(Act::Server(i));
            }
            if let Some(leader) = self.leader_of(i).filter(|l| self.would_follow(i, *l)) {
                let _ = leader;
                acts.push(Act::Follow(i));
            }
            if m.runs() {
                self.steps_of_loop(i, acts);
            }
            let deleting = self.pods[m.pod].member == Some(i) && self.pods[m.pod].deleting;
            match (m.up, deleting) {
                (false, true) => acts.push(Act::Recreate(i)),
                (false, false) if self.pods[m.pod].member == Some(i) => acts.push(Act::Start(i)),
                (true, true) if m.runs() && !m.told_to_end => acts.push(Act::Terminate(i)),
                _ => {}
            }
        }
    }

    fn steps_of_loop(&self, i: usize, acts: &mut Vec<Act>) {
        let m = &self.members[i];
        if m.fired || m.memory.local != m.local() {
            acts.push(Act::Attend(i));
        }
        if !m.cut {
            match (&m.lease_coming, m.lease_seen != Some(self.api.change)) {
                (Some(_), _) => acts.push(Act::WatchArrives(i)),
                (None, true) if self.setup.stale => acts.push(Act::WatchSends(i)),
                (None, true) => acts.push(Act::Watch(i)),
                (None, false) => {}
            }
            if m.pods_seen != Some(self.pods_change) {
                acts.push(Act::Pods(i));
            }
        }
        if m.asked.is_some() {
            acts.push(Act::Accounts(i));
        }
        if m.timeline_unnoted {
            acts.push(Act::NoteTimeline(i));
        }
        if self.leader_of(i).is_some_and(|l| self.has_diverged(i, l)) {
            acts.push(Act::Repair(i));
        }
        if m.checkpoint {
            acts.push(Act::Checkpointed(i));
        }
        if let Some(to) = &m.awaits
            && m.server == Server::Down
        {
            let target = self.members.iter().find(|t| t.config.pod == *to && t.up && t.server == Server::Standby);
            let caught_up = target.is_some_and(|t| t.disk.log == m.disk.log);
            acts.push(Act::CaughtUp(i, caught_up));
        }
        if m.memory.wake.is_some_and(|w| w <= mono(self.now)) {
            acts.push(Act::Timer(i));
        }
    }

    /// Whether all that takes no time has happened, but for what a fault holds up.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut acts = Vec::new();
        self.steps(&mut acts);
        !acts.iter().any(|act| match *act {
            Act::Serve(i, k) => !self.members[i].slow && !self.members[i].requests[k].orphan,
            Act::Server(i) => !self.members[i].slow,
            Act::Follow(_) => !self.setup.lazy,
            Act::Start(_) | Act::Recreate(_) | Act::Terminate(_) => false,
            _ => true,
        })
    }

    /// Everything that may happen.
    pub(crate) fn acts(&self, acts: &mut Vec<Act>) {
        if self.violation.is_some() {
            return;
        }
        self.steps(acts);
        let b = &self.budget;
        for (i, m) in self.members.iter().enumerate() {
            if m.slow {
                acts.push(Act::Wake(i));
            }
            if m.cut {
                acts.push(Act::Uncut(i));
            }
            if !m.up {
                continue;
            }
            let mut may = |left: u8, act: Act| {
                if left > 0 {
                    acts.push(act);
                }
            };
            let there = self.pods[m.pod].member == Some(i);
            may(b.crash, Act::Crash(i));
            may(b.node, Act::NodeCrash(i));
            if !m.slow {
                may(b.slow, Act::Slow(i));
            }
            if !m.cut {
                may(b.cut, Act::Cut(i));
            }
            if m.runs() {
                for k in (0..m.requests.len()).filter(|k| !m.requests[*k].orphan) {
                    may(b.lost, Act::Lose(i, k));
                }
                if m.asked.is_some() {
                    may(b.deaf, Act::Deaf(i));
                }
            }
            if m.is_writable() && !m.dying {
                may(b.commit, Act::Commit(i));
            }
            if there && !self.pods[m.pod].deleting {
                may(b.pod, Act::DeletePod(i));
                if i < self.setup.members {
                    may(b.force, Act::ForceDelete(i));
                }
            }
            if there && !self.pods[m.pod].fenced {
                may(b.fenced, Act::FenceMember(i));
            }
            if there && !m.is_writable() {
                may(b.switchover, Act::Switchover(i));
                may(b.volume, Act::LoseVolume(i));
            }
        }
        if let Some(lease) = &self.api.lease {
            let mut may = |left: u8, act: Act| {
                if left > 0 {
                    acts.push(act);
                }
            };
            may(b.delete, Act::DeleteLease);
            may(b.touch, Act::Touch);
            may(b.pause, if lease.is_paused() { Act::Resume } else { Act::Pause });
        }
        let old = self.api.old.as_ref();
        if let Some(old) = old.filter(|_| b.restore > 0) {
            let differs = self.api.lease.as_ref().is_some_and(|l| l.term > old.term);
            let seen = |m: &Arc<crate::world::Member>| m.disk.term > old.term && (!m.up || m.memory.term > old.term);
            if differs && (self.setup.restores_unseen || self.members.iter().all(seen)) {
                acts.push(Act::RestoreLease);
            }
        }
        if self.is_quiet() {
            acts.push(Act::Tick);
        }
    }

    pub(crate) fn happens(&mut self, act: Act) {
        match act {
            Act::Tick => self.tick(),
            Act::Timer(i) => self.feed(i, Input::Timer),
            Act::Attend(i) => self.attend(i),
            Act::Serve(i, k) => self.serve(i, k),
            Act::Reply(i, k) => self.reply(i, k),
            Act::Watch(i) => {
                self.member(i).lease_seen = Some(self.api.change);
                self.feed(i, Input::Lease(self.api.lease.clone()));
            }
            Act::WatchSends(i) => {
                let lease = self.api.lease.clone();
                let change = self.api.change;
                let m = self.member(i);
                (m.lease_seen, m.lease_coming) = (Some(change), Some(lease));
            }
            Act::WatchArrives(i) => {
                if let Some(lease) = self.member(i).lease_coming.take() {
                    self.feed(i, Input::Lease(lease));
                }
            }
            Act::Pods(i) => {
                self.member(i).pods_seen = Some(self.pods_change);
                let pods = self.pods_as_seen();
                self.feed(i, Input::Pods(pods));
            }
            Act::Accounts(i) => self.accounts(i, true),
            Act::Server(i) => self.server(i),
            Act::NoteTimeline(i) => self.note_timeline(i),
            Act::Follow(i) => self.follow(i),
            Act::Repair(i) => self.repair_now(i),
            Act::Checkpointed(i) => {
                self.member(i).checkpoint = false;
                self.feed(i, Input::Checkpointed);
            }
            Act::CaughtUp(i, caught_up) => {
                self.member(i).awaits = None;
                let result = if caught_up { Ok(()) } else { Err(String::new()) };
                self.feed(i, Input::CaughtUp(result));
            }
            Act::Recreate(i) => {
                let pod = self.members[i].pod;
                (self.pods[pod].deleting, self.pods[pod].ended) = (false, Vec::new());
                let m = self.member(i);
                m.config.uid.push('+');
                m.starts = 0;
                self.pods_changed();
            }
            Act::Start(i) => {
                self.start(i);
                self.pods_changed();
            }
            Act::Terminate(i) => {
                self.member(i).told_to_end = true;
                self.feed(i, Input::Terminate { hand_over: true });
            }
            _ => self.fault(act),
        }
        self.check();
    }

    fn fault(&mut self, act: Act) {
        match act {
            Act::Commit(i) => {
                self.budget.commit -= 1;
                self.entry(i);
            }
            Act::Wake(i) => {
                self.member(i).slow = false;
                self.attend(i);
            }
            Act::Uncut(i) => {
                self.member(i).cut = false;
                if self.members[i].runs() {
                    self.feed(i, Input::Reachable(true));
                }
            }
            Act::Crash(i) => {
                self.budget.crash -= 1;
                let instance = self.members[i].config.instance.clone();
                self.stop(i);
                let pod = self.members[i].pod;
                if self.pods[pod].member == Some(i) {
                    self.pods[pod].ended = vec![instance];
                    self.pods_changed();
                }
            }
            Act::NodeCrash(i) => {
                self.budget.node -= 1;
                self.stop(i);
            }
            Act::Slow(i) => {
                self.budget.slow -= 1;
                self.member(i).slow = true;
            }
            Act::Cut(i) => {
                self.budget.cut -= 1;
                self.member(i).cut = true;
                if self.members[i].runs() {
                    self.feed(i, Input::Reachable(false));
                }
            }
            Act::Lose(i, k) => {
                self.budget.lost -= 1;
                let request = self.members[i].requests[k].clone();
                if request.done.is_some() || request.what == What::Read {
                    self.member(i).requests.remove(k);
                } else {
                    self.member(i).requests[k].orphan = true;
                }
                self.answer(i, &request, None);
            }
            Act::Deaf(i) => {
                self.budget.deaf -= 1;
                self.accounts(i, false);
            }
            Act::DeleteLease => {
                self.budget.delete -= 1;
                self.api.lease = None;
                self.api.change += 1;
            }
            Act::RestoreLease => {
                self.budget.restore -= 1;
                let version = self.api.version + 1;
                self.api.lease = self.api.old.take().map(|old| Lease { version: version.to_string(), ..old });
                (self.api.version, self.api.change) = (version, self.api.change + 1);
            }
            Act::Touch => {
                self.budget.touch -= 1;
                self.annotate(|_| {});
            }
            Act::Pause | Act::Resume => {
                self.budget.pause -= 1;
                self.annotate(|l| l.paused = (act == Act::Pause).then(|| "true".into()));
            }
            Act::FenceMember(i) => {
                self.budget.fenced -= 1;
                let pod = self.members[i].pod;
                self.pods[pod].fenced = true;
                self.pods_changed();
            }
            Act::DeletePod(i) => {
                self.budget.pod -= 1;
                let pod = self.members[i].pod;
                self.pods[pod].deleting = true;
                self.pods_changed();
            }
            Act::ForceDelete(i) => {
                self.budget.force -= 1;
                let (pod, next) = (self.members[i].pod, self.setup.members);
                // Its volume goes to the new pod as it is; the old one writes on into a cache that nobody reads.
                let disk = self.members[i].disk.clone();
                self.member(next).disk = disk;
                self.member(next).config.pod = self.members[i].config.pod.clone();
                self.member(next).config.uid = format!("{}1", self.members[i].config.pod);
                self.member(next).pod = pod;
                self.pods[pod].member = Some(next);
                (self.pods[pod].deleting, self.pods[pod].ended) = (false, Vec::new());
                self.pods_changed();
            }
            Act::Switchover(i) => {
                self.budget.switchover -= 1;
                let pod = self.members[i].config.pod.clone();
                self.annotate(|l| l.switchover_to = Some(pod.clone()));
            }
            Act::LoseVolume(i) => {
                self.budget.volume -= 1;
                self.stop(i);
                self.copies += 1;
                let copy = format!("copy{}", self.copies);
                self.member(i).disk = crate::world::Disk { copy, ..Default::default() };
                self.pods_changed();
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        for i in 0..self.members.len() {
            if self.members[i].dying {
                self.die(i);
            }
        }
        for i in 0..self.members.len() {
            let m = &self.members[i];
            let frozen = self.broken(Rule::Fence) || (m.slow && self.broken(Rule::FenceNeedsNobody));
            if m.fence.is_some_and(|at| at <= self.now) && !frozen {
                self.fire(i);
                self.attend(i);
            }
        }
        for i in 0..self.members.len() {
            self.time_out(i);
        }
        for i in 0..self.members.len() {
            let m = &self.members[i];
            if m.runs() && m.is_writable() && m.memory.in_office().is_some() {
                let standbys = self.standbys(i);
                self.feed(i, Input::Standbys(standbys));
            }
        }
    }

    /// Who is cut off waits for an answer until the next tick.
    fn time_out(&mut self, i: usize) {
        while self.members[i].cut && self.members[i].runs() {
            let late = self.members[i].requests.iter().position(|r| !r.orphan && r.sent < self.now);
            let Some(k) = late else { return };
            let request = self.member(i).requests.remove(k);
            self.answer(i, &request, None);
        }
    }

    fn die(&mut self, i: usize) {
        let m = self.member(i);
        (m.dying, m.server) = (false, Server::Down);
        self.attend(i);
    }

    /// The API server carries out a request.
    fn serve(&mut self, i: usize, k: usize) {
        let request = self.members[i].requests[k].clone();
        let done = match request.what {
            What::Read => Done::Read(self.api.lease.clone()),
            What::Write { over, lease } => self.write(i, over.as_deref(), *lease),
        };
        let m = self.member(i);
        if request.orphan {
            m.requests.remove(k);
        } else {
            m.requests[k].done = Some(done);
        }
    }

    fn write(&mut self, i: usize, over: Option<&str>, lease: Lease) -> Done {
        let before = self.api.lease.clone();
        match (&before, over) {
            (None, Some(_)) => return Done::Missing,
            (Some(_), None) => return Done::Conflict,
            (Some(l), Some(over)) if l.version != over => return Done::Conflict,
            _ => {}
        }
        self.check_write(i, before.as_ref(), &lease);
        let version = self.api.version + 1;
        let (paused, switchover_to) = match &before {
            Some(l) => (l.paused.clone(), l.switchover_to.clone()),
            None => (lease.paused.clone(), lease.switchover_to.clone()),
        };
        let written =
            Lease { version: version.to_string(), renewed: version.to_string(), paused, switchover_to, ..lease };
        (self.api.version, self.api.change) = (version, self.api.change + 1);
        self.api.lease = Some(written.clone());
        Done::Written(Box::new(written))
    }

    fn check_write(&mut self, i: usize, before: Option<&Lease>, lease: &Lease) {
        let known = |g: &Granted| g.term == lease.term && g.instance == lease.instance;
        if lease.instance.is_empty() || self.granted.iter().any(known) {
            return;
        }
        if let Some(other) = self.granted.iter().find(|g| g.term == lease.term) {
            let why = format!("I3: term {} is granted to {} and to {}", lease.term, other.instance, lease.instance);
            self.fails(why);
        }
        let m = &self.members[i];
        let copy = m.disk.copy.clone();
        let record = before.and_then(|l| l.record.as_ref()).or(m.disk.record.as_ref());
        let founds = before.is_none_or(|l| l.system_id.is_none());
        let (pod, same) = (m.config.pod.clone(), before.is_some_and(|l| l.pod_uid == m.config.uid));
        if !founds && !record.is_some_and(|r| r.names(&pod, &copy)) {
            self.fails(format!("I3: {pod} takes office with {copy}, which the record does not admit"));
        }
        if before.is_some_and(Lease::is_paused) && !same {
            self.fails(format!("I6: {pod} takes over in a paused cluster"));
        }
        self.granted.push(Granted { term: lease.term, instance: lease.instance.clone(), copy });
    }

    fn reply(&mut self, i: usize, k: usize) {
        let request = self.member(i).requests.remove(k);
        let done = request.done.clone();
        self.answer(i, &request, done);
    }

    /// None: nobody knows.
    fn answer(&mut self, i: usize, request: &Request, done: Option<Done>) {
        let sent = mono(if self.broken(Rule::CountsFromSending) { self.now } else { request.sent });
        let written = |result| Input::Written { sent, result };
        self.feed(
            i,
            match (&request.what, done) {
                (What::Read, Some(Done::Read(lease))) => Input::Read(Ok(lease)),
                (What::Read, _) => Input::Read(Err("lost".into())),
                (_, Some(Done::Written(lease))) => written(Ok(*lease)),
                (_, Some(Done::Conflict)) => written(Err(Refusal::Conflict)),
                (_, Some(Done::Missing)) => written(Err(Refusal::Missing)),
                (_, _) => written(Err(Refusal::Other("lost".into()))),
            },
        );
    }

    fn accounts(&mut self, i: usize, all: bool) {
        let asked = self.member(i).asked.take().unwrap_or_default();
        let answers = self.members.iter().enumerate().filter(|(j, m)| {
            // By address, which only the pod that is at the API has.
            let there = self.pods[m.pod].member == Some(*j);
            m.runs() && (*j == i || (all && there && asked.contains(&m.config.pod)))
        });
        let accounts = answers.map(|(_, m)| m.account(self.now)).collect();
        self.feed(i, Input::Accounts(accounts));
    }

    /// Whether the server is not yet what it is to be, and can become it.
    fn server_step(&self, i: usize) -> bool {
        let m = &self.members[i];
        // What was ordered goes on while the manager does not run; nothing new is started.
        let may_start = !m.slow;
        let present = m.disk.data == Data::Present;
        match (m.goal, m.server) {
            _ if m.dying => false,
            (Some(Goal::Down), s) => s != Server::Down,
            (Some(Goal::Standby), Server::Primary) => true,
            (Some(Goal::Standby), Server::Down) if present => may_start,
            (Some(Goal::Standby), Server::Down) => may_start && self.leader_of(i).is_some(),
            (Some(Goal::Primary { .. }), Server::Down) => may_start && present,
            (Some(Goal::Primary { .. }), Server::Standby) => true,
            (Some(Goal::Initialise), Server::Down) => may_start && m.disk.data == Data::Empty,
            _ => false,
        }
    }

    fn server(&mut self, i: usize) {
        let m = self.member(i);
        match (m.goal, m.server) {
            (Some(Goal::Primary { direct: true }), Server::Down) => self.becomes_primary(i, true),
            (Some(Goal::Primary { .. }), Server::Standby) => self.becomes_primary(i, false),
            (Some(Goal::Primary { .. }), _) => m.server = Server::Standby,
            (Some(Goal::Initialise), _) => {
                (m.disk.data, m.disk.timeline) = (Data::Unrecorded, 1);
                self.entry(i);
            }
            (Some(Goal::Standby), Server::Down) if m.disk.data == Data::Present => m.server = Server::Standby,
            (Some(Goal::Standby), Server::Down) => {
                if let Some(leader) = self.leader_of(i) {
                    self.clone_from(i, leader);
                    self.member(i).server = Server::Standby;
                }
            }
            _ => m.server = Server::Down,
        }
        self.attend(i);
    }

    fn becomes_primary(&mut self, i: usize, direct: bool) {
        self.check_primary(i, direct);
        let m = self.member(i);
        m.server = Server::Primary;
        m.timeline_unnoted = true;
        if !direct {
            m.disk.timeline += 1;
            self.entry(i);
        }
        if !self.setup.notes_late {
            self.write_timeline(i);
        }
    }

    fn check_primary(&mut self, i: usize, direct: bool) {
        let m = &self.members[i];
        let (instance, held, copy) = (m.config.instance.clone(), m.disk.held, m.disk.copy.clone());
        let granted = self.granted.iter().any(|g| g.term == held && g.instance == instance);
        let in_office = m.memory.in_office().is_some() && granted;
        // Whoever began a cluster and has no data has begun none.
        let founds = self.setup.founding && m.disk.log.len() == 1;
        let before = self.granted.iter().filter(|g| g.term < held).max_by_key(|g| g.term);
        let other = before.is_some_and(|g| g.copy != copy);
        // Without that rule it is I1 that is to break.
        if !in_office && !self.broken(Rule::OwnWrite) {
            self.fails(format!("I3: {instance} becomes a primary without an office"));
        }
        if direct && other && !founds {
            self.fails(format!("I3: {instance} goes on on its timeline, and another one led since"));
        }
    }

    fn entry(&mut self, i: usize) {
        self.entries += 1;
        let entry = self.entries;
        self.member(i).disk.log.push(entry);
    }

    fn note_timeline(&mut self, i: usize) {
        self.write_timeline(i);
        self.attend(i);
    }

    fn write_timeline(&mut self, i: usize) {
        let m = self.member(i);
        m.timeline_unnoted = false;
        if m.disk.began.is_none_or(|b| b.timeline != m.disk.timeline) {
            m.disk.began = Some(Began { term: m.disk.held, timeline: m.disk.timeline });
        }
    }

    /// The running primary that `i` is to follow.
    pub(crate) fn leader_of(&self, i: usize) -> Option<usize> {
        (0..self.members.len()).find(|l| {
            let leader = &self.members[*l];
            *l != i && leader.up && leader.is_writable() && self.is_source(i, *l)
        })
    }

    fn new_timeline(&self, i: usize) -> Option<Began> {
        let m = &self.members[i];
        let theirs = m.memory.lease().and_then(|l| l.timeline)?;
        let other = m.disk.began.is_some_and(|b| b.contradicts(theirs));
        (m.disk.began != Some(theirs) && !other).then_some(theirs)
    }

    fn would_follow(&self, i: usize, leader: usize) -> bool {
        let (m, l) = (&self.members[i], &self.members[leader]);
        let news = m.disk.log != l.disk.log || m.disk.timeline != l.disk.timeline;
        self.streams(i, leader)
            && !self.has_diverged(i, leader)
            && (news || (m.runs() && self.new_timeline(i).is_some()))
    }

    /// PostgreSQL continues what is there, whatever that is.
    fn follow(&mut self, i: usize) {
        let Some(leader) = self.leader_of(i) else { return };
        let (log, timeline) = (self.members[leader].disk.log.clone(), self.members[leader].disk.timeline);
        if !log.starts_with(&self.members[i].disk.log) {
            let (a, b) = (&self.members[i].config.uid, &self.members[leader].config.uid);
            let why = format!("I4: {a} streams from {b} over a history that is another one: its data are corrupt");
            return self.fails(why);
        }
        let began = self.new_timeline(i).filter(|_| self.members[i].runs());
        let m = self.member(i);
        (m.disk.log, m.disk.timeline) = (log, timeline);
        m.disk.began = began.or(m.disk.began);
        self.attend(i);
    }

    /// Whether the manager of the standby `i` finds that it has diverged: as the follower's look, and `other_lineage`.
    fn has_diverged(&self, i: usize, leader: usize) -> bool {
        let (m, l) = (&self.members[i], &self.members[leader]);
        if m.server != Server::Standby || m.memory.in_office().is_some() || m.goal != Some(Goal::Standby) {
            return false;
        }
        let theirs = m.memory.lease().and_then(|l| l.timeline);
        let other = m.disk.began.zip(theirs).is_some_and(|(a, b)| a.contradicts(b));
        if other && !self.broken(Rule::LineageIsTerm) {
            return true;
        }
        match m.disk.timeline.cmp(&l.disk.timeline) {
            std::cmp::Ordering::Less => !l.disk.log.starts_with(&m.disk.log),
            std::cmp::Ordering::Equal => m.disk.log.len() > l.disk.log.len(),
            std::cmp::Ordering::Greater => true,
        }
    }

    fn repair_now(&mut self, i: usize) {
        if let Some(leader) = self.leader_of(i) {
            self.clone_from(i, leader);
            self.attend(i);
        }
    }

    /// A clone or a rewind: another copy, with all that the leader has.
    fn clone_from(&mut self, i: usize, leader: usize) {
        self.copies += 1;
        let copy = format!("copy{}", self.copies);
        let from = self.members[leader].disk.clone();
        let m = self.member(i);
        let began = m.memory.lease().and_then(|l| l.timeline);
        m.disk.copy = copy;
        (m.disk.data, m.disk.held, m.disk.began) = (Data::Present, 0, began);
        (m.disk.log, m.disk.timeline) = (from.log, from.timeline);
        self.pods_changed();
    }
}
