//! The state of the model: the Lease at the API, the pods, the members with what is lost and what is kept in a crash.

use std::sync::Arc;

use podgres::ha::{
    Action, Config, Goal, Input, Local, Memory, Mono, Server, Standby,
    lease::{Began, Lease},
    member::Account,
    record::{Copy, Record},
};

use crate::{rules::Rule, setup::Setup};

/// Seconds. Far from every other number, so that a time is recognised as one in `fingerprint`.
pub(crate) const BASE: u64 = 1_000_000_000_000;
pub(crate) const SYSTEM: u64 = 42;

pub(crate) fn mono(seconds: u64) -> Mono {
    Mono::from_secs(seconds)
}

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
    /// Commits.
    pub(crate) commit: u8,
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
pub(crate) enum Done {
    Read(Option<Lease>),
    Written(Box<Lease>),
    Conflict,
    Missing,
}

/// What survives a crash: the data directory and the notes beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Disk {
    pub(crate) data: podgres::ha::Data,
    pub(crate) copy: String,
    pub(crate) held: u64,
    pub(crate) began: Option<Began>,
    pub(crate) term: u64,
    pub(crate) record: Option<Record>,
    pub(crate) leader: String,
    /// PostgreSQL's timeline.
    pub(crate) timeline: u32,
    /// The history: each commit and each promotion is one entry, different from all others.
    pub(crate) log: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) config: Config,
    /// The pod's number in `World::pods`.
    pub(crate) pod: usize,
    pub(crate) starts: u8,
    pub(crate) up: bool,
    pub(crate) slow: bool,
    pub(crate) cut: bool,
    pub(crate) memory: Memory,
    pub(crate) disk: Disk,
    pub(crate) server: Server,
    pub(crate) goal: Option<Goal>,
    /// When the fence fires.
    pub(crate) fence: Option<u64>,
    /// It has fired: what writes here is dead before the next tick.
    pub(crate) dying: bool,
    /// It has fired, and the manager does not know yet.
    pub(crate) fired: bool,
    pub(crate) requests: Vec<Request>,
    pub(crate) asked: Option<Vec<String>>,
    pub(crate) checkpoint: bool,
    pub(crate) awaits: Option<String>,
    pub(crate) told_to_end: bool,
    /// What the watches told last.
    pub(crate) lease_seen: Option<u64>,
    /// What the Lease's watch is about to tell.
    pub(crate) lease_coming: Option<Option<Lease>>,
    pub(crate) pods_seen: Option<u64>,
    /// Whether the timeline of the primary is yet to be noted.
    pub(crate) timeline_unnoted: bool,
    /// The term of a better member of which this one was told, and since when it may stand.
    pub(crate) better: Option<(u64, u64)>,
}

/// An office that the API has granted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Granted {
    pub(crate) term: u64,
    pub(crate) instance: String,
    pub(crate) copy: String,
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
    pub(crate) violation: Option<String>,
}

impl Member {
    pub(crate) fn uid(&self) -> &str {
        &self.config.uid
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.server == Server::Primary
    }

    /// Whether its loop turns.
    pub(crate) fn runs(&self) -> bool {
        self.up && !self.slow
    }

    pub(crate) fn address(&self) -> String {
        format!("{}:5432", self.config.uid)
    }

    /// As `local_for_cluster` of the manager.
    pub(crate) fn local(&self) -> Local {
        Local {
            data: self.disk.data,
            copy: self.disk.copy.clone(),
            system_id: (self.disk.data != podgres::ha::Data::Empty).then_some(SYSTEM),
            began: self.disk.began,
            record: self.disk.record.clone(),
            held: self.disk.held,
            address: self.address(),
            server: if self.dying { Server::Changing } else { self.server },
            state: "running",
            ..Local::default()
        }
    }

    /// Whom its server follows.
    pub(crate) fn source(&self) -> String {
        match self.memory.lease() {
            Some(l) if l.holder == self.config.pod && l.pod_uid == self.config.uid => String::new(),
            Some(l) if !l.address.is_empty() => l.address.clone(),
            _ => self.disk.leader.clone(),
        }
    }

    /// As `account` of the manager, with the position of this moment.
    pub(crate) fn account(&self, now: u64) -> Account {
        let memory = &self.memory;
        let has_data = self.disk.data == podgres::ha::Data::Present;
        let fenced = memory.pods.as_ref().and_then(|p| p.get(&self.config.pod)).is_some_and(|p| p.is_fenced());
        let seen = match &memory.known {
            podgres::ha::Known::Lease { lease, since } if !lease.holder.is_empty() => {
                Some(mono(now).saturating_sub(*since))
            }
            _ => None,
        };
        let standby = memory.local.server == Server::Standby;
        Account {
            pod: self.config.pod.clone(),
            instance: self.config.instance.clone(),
            copy: has_data.then(|| self.disk.copy.clone()),
            system_id: Some(SYSTEM.to_string()),
            began: self.disk.began,
            lsn: self.disk.log.len() as u64,
            primary: memory.local.server == Server::Primary && memory.in_office().is_some(),
            fit: has_data && standby && memory.terminating.is_none() && !fenced && self.config.priority > 0,
            priority: self.config.priority,
            term: memory.term,
            // What is older is as old as can be, for every rule.
            seen_ms: seen.map(|s| u64::try_from(s.as_millis()).unwrap().min(10_000)),
        }
    }
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

    /// Gives one input to the shipped decision, and carries out what it answers.
    pub(crate) fn feed(&mut self, i: usize, input: Input) {
        if let Input::Accounts(accounts) = &input {
            self.note_better(i, accounts);
        }
        let input = crate::rules::input(self, i, input);
        let now = mono(self.now);
        let m = self.member(i);
        let before = std::mem::take(&mut m.memory);
        let (memory, actions) = podgres::ha::step(&m.config, before, now, input);
        m.memory = memory;
        note_record(m);
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
        let now = self.now;
        match action {
            Action::Aim(aim) => {
                let m = self.member(i);
                m.goal = Some(aim.goal);
                if aim.kill {
                    m.server = Server::Down;
                }
            }
            Action::Arm(at) => {
                let m = self.member(i);
                m.fence = Some(at.as_secs());
                if at.as_secs() <= now {
                    self.fire(i);
                }
            }
            Action::Disarm => self.member(i).fence = None,
            Action::NoteOffice(term) => {
                let m = self.member(i);
                m.disk.held = term;
                let instance = m.config.instance.clone();
                if !self.granted.iter().any(|g| g.term == term && g.instance == instance) {
                    self.fails(format!("I3: {instance} enters an office of term {term} that it was not granted"));
                }
            }
            Action::ReadLease => self.request(i, What::Read),
            Action::WriteLease { over, lease } => {
                self.check_stood_back(i, &lease);
                self.request(i, What::Write { over, lease });
            }
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
            Action::Freeze(_) | Action::AskVotes { .. } | Action::Stop(_) | Action::Confirm(_) => {
                self.fails("an asynchronous cluster asks for votes, or for confirmations".into());
            }
            Action::Discard | Action::PatchPod { .. } | Action::Event { .. } | Action::Restart | Action::Reinit => {}
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
        m.up = false;
        m.slow = false;
        m.cut = false;
        m.server = Server::Down;
        m.goal = None;
        m.memory = Memory::default();
        m.fence = None;
        (m.dying, m.fired, m.checkpoint, m.told_to_end, m.timeline_unnoted) = (false, false, false, false, false);
        (m.asked, m.awaits, m.lease_seen, m.lease_coming, m.pods_seen) = (None, None, None, None, None);
        m.better = None;
        m.requests.retain(|r| keeps && r.done.is_none() && matches!(r.what, What::Write { .. }));
        m.requests.iter_mut().for_each(|r| r.orphan = true);
        if !m.requests.is_empty() {
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
        let m = self.member(i);
        m.fence = None;
        m.fired = true;
        m.dying = true;
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

    /// Who streams from `i`, as `pg_stat_replication` shows it.
    pub(crate) fn standbys(&self, i: usize) -> Vec<Standby> {
        let leader = &self.members[i];
        let rows = (0..self.members.len()).filter(|j| *j != i && self.streams(*j, i));
        rows.map(|j| {
            let m = &self.members[j];
            let copy = Copy { pod: m.config.pod.clone(), copy: m.disk.copy.clone() };
            let lag = leader.disk.log.len().saturating_sub(m.disk.log.len()) as u64;
            Standby { name: copy.application_name(), lag: Some(lag), streaming: true, flushed: None, replied: None }
        })
        .collect()
    }

    /// Whether `j` is connected to `i` and PostgreSQL finds nothing wrong with that.
    pub(crate) fn streams(&self, j: usize, i: usize) -> bool {
        let (from, to) = (&self.members[i], &self.members[j]);
        if !from.up || !from.is_writable() || !to.up || to.server != Server::Standby || !self.is_source(j, i) {
            return false;
        }
        match to.disk.timeline.cmp(&from.disk.timeline) {
            std::cmp::Ordering::Less => from.disk.log.starts_with(&to.disk.log),
            std::cmp::Ordering::Equal => to.disk.log.len() <= from.disk.log.len(),
            std::cmp::Ordering::Greater => false,
        }
    }

    pub(crate) fn is_source(&self, j: usize, i: usize) -> bool {
        self.members[j].source() == self.members[i].address()
    }
}

/// As `note_record` of the manager.
fn note_record(m: &mut Member) {
    let Some(lease) = m.memory.lease() else { return };
    let leader = if lease.address.is_empty() { m.disk.leader.clone() } else { lease.address.clone() };
    if lease.term >= m.disk.term {
        (m.disk.term, m.disk.record, m.disk.leader) = (lease.term, lease.record.clone(), leader);
    }
}
