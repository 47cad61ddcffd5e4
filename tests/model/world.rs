//! The state of the model: the Lease at the API, the pods, the members; and what the decision orders, carried out.

use std::sync::Arc;

use podgres::ha::{Action, Input, Memory, Mono, Server, lease::Lease, quorum::Names};

use crate::{failsafe::Asking, member::Member, rules::Rule, setup::Setup};

/// When it begins. Far from every other number, so that a time is recognised as one in `fingerprint`.
pub(crate) const BASE: u64 = 1_000_000_000_000;
pub(crate) const SYSTEM: u64 = 42;

/// How many of each fault may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// A container's processes are killed; its message is found by the kubelet.
    pub(crate) crash: u8,
    /// The same, and nobody tells.
    pub(crate) node: u8,
    /// A manager that does not run for any time. Its server and its fence do.
    pub(crate) slow: u8,
    /// A member that is cut off from the API for any time.
    pub(crate) cut: u8,
    /// The answer to a request is lost; the request may be carried out later.
    pub(crate) lost: u8,
    /// Other members' accounts do not come.
    pub(crate) deaf: u8,
    /// Somebody deletes the Lease.
    pub(crate) delete: u8,
    /// Somebody brings back an old Lease.
    pub(crate) restore: u8,
    /// Somebody annotates the Lease.
    pub(crate) touch: u8,
    /// Somebody pauses the cluster, or ends the pause.
    pub(crate) pause: u8,
    /// Somebody fences a member.
    pub(crate) fenced: u8,
    /// A pod is deleted in order.
    pub(crate) pod: u8,
    /// A pod is deleted by force: its container runs on, a new pod begins.
    pub(crate) force: u8,
    /// Somebody asks for a switchover.
    pub(crate) switchover: u8,
    /// A volume is replaced by an empty one.
    pub(crate) volume: u8,
    /// A volume comes back as it once was, under another copy's id.
    pub(crate) old_volume: u8,
    /// A server dies, and its manager lives.
    pub(crate) server: u8,
    /// Commits.
    pub(crate) commit: u8,
}

impl Budget {
    pub(crate) const NONE: Self = Self {
        crash: 0,
        node: 0,
        slow: 0,
        cut: 0,
        lost: 0,
        deaf: 0,
        delete: 0,
        restore: 0,
        touch: 0,
        pause: 0,
        fenced: 0,
        pod: 0,
        force: 0,
        switchover: 0,
        volume: 0,
        old_volume: 0,
        server: 0,
        commit: 0,
    };
}

/// The API server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Api {
    pub(crate) lease: Option<Lease>,
    pub(crate) version: u64,
    /// Rises with each change, a deletion too.
    pub(crate) change: u64,
    /// What a backup has.
    pub(crate) old: Option<Lease>,
}

/// A pod object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct PodObject {
    pub(crate) name: &'static str,
    /// Which member's container is in it; none: the pod is not there.
    pub(crate) member: Option<usize>,
    pub(crate) deleting: bool,
    pub(crate) fenced: bool,
    pub(crate) ended: Vec<String>,
}

/// A request to the API that is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) sent: u64,
    pub(crate) what: What,
    pub(crate) done: Option<Done>,
    /// Nobody waits for the answer any more.
    pub(crate) orphan: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Read,
    Write { over: Option<String>, lease: Box<Lease> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there are few, and it nearly always is the largest")]
pub(crate) enum Done {
    Read(Option<Lease>),
    Written(Box<Lease>),
    Conflict,
    Missing,
}

/// An office that the API has granted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Granted {
    pub(crate) term: u64,
    pub(crate) instance: String,
    pub(crate) copy: String,
    /// Whether its holder has learnt of it.
    pub(crate) entered: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) setup: Arc<Setup>,
    pub(crate) now: u64,
    pub(crate) api: Api,
    pub(crate) pods: Vec<PodObject>,
    pub(crate) pods_change: u64,
    pub(crate) members: Vec<Arc<Member>>,
    pub(crate) budget: Budget,
    pub(crate) granted: Vec<Granted>,
    pub(crate) copies: u8,
    pub(crate) entries: u8,
    /// What clients of a synchronous cluster were told is committed, and in which term.
    pub(crate) confirmed: Vec<(u8, u64)>,
    pub(crate) violation: Option<String>,
}

impl World {
    pub(crate) fn broken(&self, rule: Rule) -> bool {
        self.setup.without == Some(rule)
    }

    pub(crate) fn member(&mut self, i: usize) -> &mut Member {
        Arc::make_mut(&mut self.members[i])
    }

    pub(crate) fn fails(&mut self, why: String) {
        self.violation.get_or_insert(why);
    }

    pub(crate) fn pods_changed(&mut self) {
        self.pods_change += 1;
    }

    /// What the clock of this member says.
    pub(crate) fn clock(&self, i: usize) -> Mono {
        self.clock_at(i, self.now)
    }

    pub(crate) fn clock_at(&self, i: usize, at: u64) -> Mono {
        let Setup { steps, rates, .. } = *self.setup;
        Mono::from_secs(BASE) + Mono::from_secs(at - BASE) / steps * rates[i] / 1000
    }

    /// Gives one input to the shipped decision, and carries out what it answers.
    pub(crate) fn feed(&mut self, i: usize, input: Input) {
        if let Input::Accounts(accounts) = &input {
            self.note_better(i, accounts);
        }
        let input = crate::rules::input(self, i, input);
        let now = self.clock(i);
        let m = self.member(i);
        let before = std::mem::take(&mut m.memory);
        let before_office = before.in_office().is_some();
        let (memory, actions) = podgres::ha::step(&m.config, before, now, input);
        m.memory = memory;
        m.note_record();
        if before_office && m.memory.in_office().is_none() {
            (m.stopping, m.confirming) = (None, None);
        }
        crate::rules::remembered(self, i);
        for action in actions {
            if let Some(action) = crate::rules::action(self, i, action) {
                self.act(i, action);
            }
        }
        self.attend(i);
    }

    /// The manager's `attend_cluster`: what has become of the member is told to the decision.
    pub(crate) fn attend(&mut self, i: usize) {
        if !self.members[i].runs() {
            return;
        }
        let m = self.member(i);
        if std::mem::take(&mut m.fired) {
            self.feed(i, Input::Fired);
        } else if m.memory.local != m.local() {
            let local = m.local();
            self.feed(i, Input::Local(local));
        }
    }

    fn act(&mut self, i: usize, action: Action) {
        let now = self.clock(i);
        match action {
            Action::Aim(aim) => {
                let m = self.member(i);
                m.goal = Some(aim.goal);
                // Nothing is quicker than the fence, which takes its time.
                if aim.kill && !m.dying {
                    m.server = Server::Down;
                }
            }
            Action::Arm(at) => {
                let m = self.member(i);
                m.fence = Some(at);
                if at <= now {
                    self.fire(i);
                }
            }
            Action::Disarm => self.member(i).fence = None,
            Action::NoteOffice(term) => {
                let m = self.member(i);
                m.disk.held = term;
                let instance = m.config.instance.clone();
                self.check_office(term, &instance);
            }
            Action::ReadLease => self.request(i, What::Read),
            Action::WriteLease { over, lease } => {
                self.check_stood_back(i, &lease);
                self.request(i, What::Write { over, lease });
            }
            Action::AskConsent { term, of } => self.member(i).asking = Some(Asking { term, of, sent: self.now }),
            Action::Ask(members) => self.member(i).asked = Some(members),
            Action::Checkpoint => self.member(i).checkpoint = true,
            Action::AwaitTarget(pod) => self.member(i).awaits = Some(pod),
            Action::Quit => self.member(i).server = Server::Down,
            Action::Exit => {
                self.stop(i);
                let instance = self.members[i].config.instance.clone();
                let pod = self.members[i].pod;
                if self.pods[pod].member == Some(i) {
                    self.pods[pod].ended = vec![instance];
                    self.pods_changed();
                }
            }
            Action::ClearSwitchover => self.annotate(|l| l.switchover_to = None),
            Action::NoteRecorded => self.member(i).disk.data = podgres::ha::Data::Present,
            Action::Freeze(_) | Action::AskVotes { .. } | Action::Stop(_) | Action::Confirm(_)
                if !self.members[i].is_synchronous() =>
            {
                self.fails("an asynchronous cluster asks for votes, or for confirmations".into());
            }
            Action::Freeze(term) => self.freeze_self(i, term),
            Action::AskVotes { term, of } => self.ask_votes(i, term, &of),
            Action::Stop(before) => {
                let m = self.member(i);
                (m.confirms.file, m.stopping) = (Names::Nobody, Some(before));
            }
            Action::Confirm(names) => {
                let m = self.member(i);
                (m.confirms.file, m.confirming) = (names.clone(), Some(names));
            }
            Action::Discard => {
                let disk = self.empty_disk();
                let m = self.member(i);
                (m.disk.data, m.disk.system, m.disk.copy, m.disk.began) = (disk.data, disk.system, disk.copy, None);
                (m.disk.held, m.disk.follows, m.disk.timeline, m.disk.log) = (0, 0, 0, Vec::new());
                self.pods_changed();
            }
            Action::PatchPod { .. } | Action::Event { .. } | Action::Restart | Action::Reinit => {}
        }
    }

    fn request(&mut self, i: usize, what: What) {
        let sent = self.now;
        self.member(i).requests.push(Request { sent, what, done: None, orphan: false });
    }

    /// All processes of the container are gone.
    pub(crate) fn stop(&mut self, i: usize) {
        let keeps = self.budget.lost > 0;
        let m = self.member(i);
        let requests = std::mem::take(&mut m.requests);
        *m = m.after_crash();
        let writes = requests.into_iter().filter(|r| keeps && r.done.is_none() && matches!(r.what, What::Write { .. }));
        m.requests = writes.map(|r| Request { orphan: true, ..r }).collect();
        let lost = !m.requests.is_empty();
        if self.broken(Rule::PromiseOnDisk) {
            self.member(i).disk.promised = 0;
        }
        if lost {
            self.budget.lost -= 1;
        }
    }

    pub(crate) fn start(&mut self, i: usize) {
        let m = self.member(i);
        m.up = true;
        m.starts += 1;
        m.config.instance = format!("{}-{}", m.config.uid, m.starts);
        m.memory = Memory::after(m.disk.term);
        self.attend(i);
    }

    /// The deadline has come. The processes are dead a moment later.
    pub(crate) fn fire(&mut self, i: usize) {
        let (unfenced, kill) = (self.setup.unfenced, self.setup.kill);
        let m = self.member(i);
        m.fence = None;
        if unfenced {
            return;
        }
        m.fired = true;
        (m.dying, m.dies_in) = (true, kill);
    }

    pub(crate) fn annotate(&mut self, change: impl Fn(&mut Lease)) {
        let version = self.api.version + 1;
        if let Some(lease) = &mut self.api.lease {
            change(lease);
            lease.version = version.to_string();
            self.api.version = version;
            self.api.change += 1;
        }
    }
}
