//! What can happen.

use podgres::ha::Server;

use crate::{confirm::Process, member::Member, setup::Prelude, votes::Answer, world::World};

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
    Consents(usize, bool),
    Server(usize),
    NoteTimeline(usize),
    /// A standby notes what began the timeline that it receives.
    NoteHistory(usize),
    Repair(usize),
    Follow(usize),
    Checkpointed(usize),
    CaughtUp(usize, bool),
    Timer(usize),
    Recreate(usize),
    Start(usize),
    Tick,
    // In a synchronous cluster.
    Connect(usize),
    Disconnect(usize),
    HangUp(usize),
    Ack(usize),
    Reload(usize, Process),
    Backend(usize, usize),
    Prove(usize),
    Confirmed(usize),
    Look(usize),
    Asked(usize, usize),
    Freezes(usize, usize),
    Voted(usize, usize),
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
    OldVolume(usize),
    ServerCrash(usize),
    Unheard(usize, usize),
    LoseVote(usize, usize),
}

impl World {
    /// What only tells somebody what is so anyway, if the setup wants that to happen at once.
    pub(crate) fn prompt_step(&self) -> Option<Act> {
        if !self.setup.prompt || self.violation.is_some() {
            return None;
        }
        let mut acts = Vec::new();
        self.steps(&mut acts);
        acts.into_iter().find(|act| match act {
            Act::Attend(_) | Act::Reply(..) | Act::Watch(_) | Act::Pods(_) | Act::Timer(_) => true,
            Act::Accounts(_) => self.budget.deaf == 0,
            Act::NoteTimeline(_) | Act::NoteHistory(_) | Act::Checkpointed(_) | Act::CaughtUp(..) => true,
            Act::Prove(_) | Act::Confirmed(_) | Act::Look(_) | Act::Connect(_) | Act::Disconnect(_) => true,
            _ => false,
        })
    }

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
            if self.upstream(i).is_some_and(|l| self.would_follow(i, l)) {
                acts.push(Act::Follow(i));
            }
            self.steps_of_votes(i, acts);
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
        self.steps_of_streams(acts);
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
        if m.asking.is_some() {
            acts.push(Act::Consents(i, true));
        }
        if m.timeline_unnoted {
            acts.push(Act::NoteTimeline(i));
        }
        if self.new_history(i).is_some() {
            acts.push(Act::NoteHistory(i));
        }
        if self.may_receive(i) && self.leader_of(i).is_some_and(|l| self.has_diverged(i, l)) {
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
        if m.memory.wake.is_some_and(|w| w <= self.clock(i)) {
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
            Act::Follow(_) | Act::Connect(_) | Act::Disconnect(_) | Act::Ack(_) => !self.setup.lazy,
            Act::Reload(..) | Act::Backend(..) => !self.setup.lazy,
            Act::Start(_) | Act::Recreate(_) | Act::Terminate(_) | Act::HangUp(_) => false,
            _ => true,
        })
    }

    /// Everything that may happen.
    pub(crate) fn acts(&self, acts: &mut Vec<Act>) {
        if self.violation.is_some() {
            return;
        }
        self.steps(acts);
        for (i, m) in self.members.iter().enumerate() {
            if m.slow {
                acts.push(Act::Wake(i));
            }
            if m.cut {
                acts.push(Act::Uncut(i));
            }
            if m.up {
                self.faults_of_member(i, m, acts);
                self.people(i, m, acts);
            }
        }
        self.faults_of_lease(acts);
        if self.is_quiet() {
            acts.push(Act::Tick);
        }
    }

    fn faults_of_member(&self, i: usize, m: &Member, acts: &mut Vec<Act>) {
        let b = &self.budget;
        let mut may = |left: u8, act: Act| acts.extend((left > 0).then_some(act));
        may(b.crash, Act::Crash(i));
        may(b.node, Act::NodeCrash(i));
        if !m.slow {
            may(b.slow, Act::Slow(i));
        }
        if !m.cut {
            may(b.cut, Act::Cut(i));
        }
        if m.server != Server::Down && !m.dying {
            may(b.server, Act::ServerCrash(i));
        }
        if m.is_writable() && !m.dying && self.has_its_disk(i) {
            may(b.commit, Act::Commit(i));
        }
        if m.runs() {
            for k in (0..m.requests.len()).filter(|k| !m.requests[*k].orphan) {
                may(b.lost, Act::Lose(i, k));
            }
            if m.asked.is_some() {
                may(b.deaf, Act::Deaf(i));
            }
            if m.asking.is_some() {
                may(b.deaf, Act::Consents(i, false));
            }
            for (k, question) in m.questions.iter().enumerate().filter(|(_, q)| q.of != i) {
                match question.answer {
                    Answer::None => may(b.deaf, Act::Unheard(i, k)),
                    Answer::Voted(_) => may(b.lost, Act::LoseVote(i, k)),
                    Answer::Freezes { .. } => {}
                }
            }
        }
    }

    fn people(&self, i: usize, m: &Member, acts: &mut Vec<Act>) {
        let b = &self.budget;
        if self.pods[m.pod].member != Some(i) {
            return;
        }
        let mut may = |left: u8, act: Act| acts.extend((left > 0).then_some(act));
        if !self.pods[m.pod].deleting {
            may(b.pod, Act::DeletePod(i));
            if i < self.setup.members {
                may(b.force, Act::ForceDelete(i));
            }
        }
        if !self.pods[m.pod].fenced {
            may(b.fenced, Act::FenceMember(i));
        }
        if !m.is_writable() {
            may(b.switchover, Act::Switchover(i));
            may(b.volume, Act::LoseVolume(i));
            may(b.old_volume, Act::OldVolume(i));
        }
    }

    fn faults_of_lease(&self, acts: &mut Vec<Act>) {
        let b = &self.budget;
        if let Some(lease) = &self.api.lease {
            let mut may = |left: u8, act: Act| acts.extend((left > 0).then_some(act));
            may(b.delete, Act::DeleteLease);
            may(b.touch, Act::Touch);
            may(b.pause, if lease.is_paused() { Act::Resume } else { Act::Pause });
        }
        let old = self.api.old.as_ref();
        if let Some(old) = old.filter(|_| b.restore > 0) {
            let differs = self.api.lease.as_ref().is_some_and(|l| l.term > old.term);
            let seen = |m: &Member| m.disk.term > old.term && (!m.up || m.memory.term > old.term);
            if differs && (self.setup.restores_unseen || self.members.iter().all(|m| seen(m))) {
                acts.push(Act::RestoreLease);
            }
        }
    }

    /// A volume that went to another pod keeps nothing of what the old one writes.
    pub(crate) fn has_its_disk(&self, i: usize) -> bool {
        let m = &self.members[i];
        !m.is_synchronous() || self.pods[m.pod].member == Some(i) || self.setup.prelude == Prelude::TwoOfOneName
    }
}
