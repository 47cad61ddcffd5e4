//! What becomes of the world when something happens.

use podgres::ha::{
    Input, Server,
    lease::{Began, Lease},
};

use crate::{
    acts::Act,
    member::Disk,
    rules::Rule,
    setup::Prelude,
    world::{What, World},
};

impl World {
    /// What nothing depends on happens at once, if the setup wants that.
    pub(crate) fn goes_on(&mut self) {
        while let Some(act) = self.prompt_step() {
            self.happens(act);
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
            Act::Consents(i, all) => {
                self.budget.deaf -= u8::from(!all);
                self.consents(i, all);
            }
            Act::Accounts(i) => self.accounts(i, true),
            Act::Server(i) => self.server(i),
            Act::NoteTimeline(i) => self.note_timeline(i),
            Act::NoteHistory(i) => self.note_history(i),
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
            _ => self.of_synchronous(act),
        }
        self.tidy();
        self.check();
    }

    fn of_synchronous(&mut self, act: Act) {
        match act {
            Act::Connect(j) => self.connect(j),
            Act::Disconnect(j) | Act::HangUp(j) => self.member(j).wire = None,
            Act::Ack(j) => self.ack(j),
            Act::Reload(i, process) => self.reload(i, process),
            Act::Backend(i, k) => self.backend(i, k),
            Act::Prove(i) => self.prove(i),
            Act::Confirmed(i) => self.confirmed(i),
            Act::Look(i) => self.look(i),
            Act::Asked(i, k) => self.asked(i, k),
            Act::Freezes(i, k) => self.freezes(i, k),
            Act::Voted(i, k) => self.voted(i, k),
            _ => self.fault(act),
        }
    }

    fn look(&mut self, i: usize) {
        let standbys = self.standbys(i);
        self.feed(i, Input::Standbys(standbys));
    }

    fn fault(&mut self, act: Act) {
        match act {
            Act::Commit(i) => self.commit(i),
            Act::ServerCrash(i) => {
                self.budget.server -= 1;
                self.member(i).server = Server::Down;
                self.tidy();
                self.attend(i);
            }
            Act::Unheard(i, k) => {
                self.budget.deaf -= 1;
                self.refuse(i, k);
            }
            Act::LoseVote(i, k) => {
                self.budget.lost -= 1;
                self.refuse(i, k);
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
                if let Some(wire) = &mut self.member(i).wire {
                    wire.dead = true;
                }
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
            _ => self.of_people(act),
        }
    }

    fn of_people(&mut self, act: Act) {
        match act {
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
                self.member(next).disk = match self.setup.prelude {
                    Prelude::TwoOfOneName => self.empty_disk(),
                    _ => self.members[i].disk.clone(),
                };
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
                self.lose_volume(i);
            }
            Act::OldVolume(i) => {
                self.budget.old_volume -= 1;
                let Disk { data, system, copy, log, .. } = self.members[i].disk.clone();
                self.lose_volume(i);
                let disk = &mut self.member(i).disk;
                (disk.data, disk.system, disk.log) = (data, system, log[..1].to_vec());
                (disk.began, disk.timeline) = (Some(Began { term: 1, timeline: 1 }), 1);
                if self.broken(Rule::CopyIsMember) {
                    self.member(i).disk.copy = copy;
                }
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
            _ => {}
        }
    }

    fn lose_volume(&mut self, i: usize) {
        self.stop(i);
        let disk = self.empty_disk();
        let m = self.member(i);
        (m.disk, m.wire) = (disk, None);
        self.pods_changed();
    }

    pub(crate) fn empty_disk(&mut self) -> Disk {
        self.copies += 1;
        Disk { copy: format!("copy{}", self.copies), ..Disk::default() }
    }

    fn tick(&mut self) {
        self.now += 1;
        self.signs_of_life();
        for i in 0..self.members.len() {
            if self.members[i].dying {
                self.member(i).dies_in -= 1;
                if self.members[i].dies_in == 0 {
                    self.die(i);
                }
            }
        }
        for i in 0..self.members.len() {
            let (m, now) = (&self.members[i], self.clock(i));
            let frozen = self.broken(Rule::Fence) || (m.slow && self.broken(Rule::FenceNeedsNobody));
            if m.fence.is_some_and(|at| at <= now) && !frozen {
                self.fire(i);
                self.attend(i);
            }
        }
        for i in 0..self.members.len() {
            self.time_out(i);
            self.time_out_questions(i);
            if self.broken(Rule::ThawNeedsTerm) {
                self.member(i).disk.promised = 0;
            }
        }
        for i in 0..self.members.len() {
            let m = &self.members[i];
            if m.runs() && m.is_writable() && m.memory.in_office().is_some() {
                self.look(i);
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
}
