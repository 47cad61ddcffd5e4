//! The loop's part in a cluster: what this member is goes into [`ha::step`], what it answers is carried out.

mod act;
pub(super) mod confirm;
mod failsafe;
mod seen;
mod votes;

pub use votes::MemberAsked;

use std::time::Duration;

use tokio::task::{AbortHandle, spawn_local};

use super::{Event, Manager, handover, standby};
use crate::{
    cluster::{
        fresh::Challenges,
        kubernetes::{self, Kubernetes},
        notes::Notes,
    },
    ha::{
        self, Known, Mono,
        history::Origin,
        lease::{Began, Lease},
        quorum::Names,
    },
    lifecycle::{self, Input, Job, Phase, Repair, Role},
    pid1::fence::{Boottime, Fence, boottime},
    postgres::{
        controldata, health,
        replication::{clone::random, source::Noted},
        sql::{self, Facts},
    },
    settings::kubernetes::Kubernetes as Settings,
};

/// A member's tie to its cluster.
pub struct Cluster {
    name: String,
    config: ha::Config,
    memory: ha::Memory,
    kubernetes: Kubernetes,
    fence: Fence,
    fired: u32,
    notes: Notes,
    /// What of them the look at a source wants to know.
    noted: Noted,
    begun: Boottime,
    /// For those who ask something that changes something.
    challenges: Challenges,
    system_id: Option<u64>,
    /// Where the own PostgreSQL is reached: this address, and its port.
    ip: String,
    port: u16,
    /// What runs for as long as this server is a primary.
    leading: Option<Leading>,
    confirming: confirm::Confirming,
    stuck: Option<(lifecycle::Phase, Mono)>,
    /// Why the API could not be watched, when that was last so.
    trouble: String,
    full_since: Option<Mono>,
    /// Whether a standby waits to be put on the record.
    hurry: tokio::sync::watch::Sender<bool>,
    /// Who confirms commits, as PostgreSQL's file says.
    names: Names,
    /// Whether the server was last seen to go by something else.
    overruled: bool,
    /// Whether a standby here may have a source, as far as that was attended to.
    receives: bool,
    /// What the server said of itself when it was last asked.
    facts: Facts,
}

struct Leading {
    tasks: Vec<AbortHandle>,
    health: health::Watch,
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What a cluster's part of the loop is told.
#[derive(Debug)]
pub enum ClusterEvent {
    /// For the decision about the cluster.
    Input(ha::Input),
    /// The watches have something to say.
    Seen(kubernetes::Seen),
    /// The timeline of a server that has become a primary.
    Timeline(u32),
    /// What `synchronous_standby_names` says in the server.
    Names(String),
    /// What the server says of itself.
    Facts(Facts),
}

impl From<ClusterEvent> for Event {
    fn from(event: ClusterEvent) -> Self {
        Self::Cluster(Box::new(event))
    }
}

impl Cluster {
    /// The tie of the data directory that `notes` are about.
    pub fn new(
        settings: &Settings,
        port: u16,
        (kubernetes, fence): (Kubernetes, Fence),
        notes: Notes,
        instance: String,
    ) -> Self {
        let identity = &settings.identity;
        let challenges = Challenges::of(&instance);
        let config = ha::Config {
            pod: identity.pod.clone(),
            uid: identity.uid.clone(),
            instance,
            http: at(&identity.ip, port),
            duration: settings.lease_duration,
            renew: settings.renew_interval,
            margin: settings.fence_margin,
            max_lag: settings.max_lag,
            priority: settings.priority,
            start_timeout: settings.start_timeout,
            sync: settings.sync,
            failsafe: settings.failsafe,
        };
        let memory = ha::Memory::after(notes.term);
        let receives = !notes.is_frozen();
        Self {
            name: identity.cluster.clone(),
            config,
            memory,
            kubernetes,
            fence,
            fired: 0,
            notes,
            noted: Noted::default(),
            begun: boottime(),
            challenges,
            system_id: None,
            ip: identity.ip.clone(),
            port: DEFAULT_PORT,
            leading: None,
            confirming: confirm::Confirming::default(),
            stuck: None,
            trouble: String::new(),
            full_since: None,
            hurry: tokio::sync::watch::Sender::new(false),
            names: Names::Nobody,
            overruled: false,
            receives,
            facts: Facts::default(),
        }
    }

    /// The timeline of which the notes say what began it.
    pub(super) fn noted(&self) -> Noted {
        self.noted.set(self.notes.began.map(|b| b.timeline));
        self.noted.clone()
    }

    /// Where its WAL is from, as far as it knows.
    fn origin(&self) -> Origin {
        let (notes, theirs) = (&self.notes, self.memory.lease().and_then(|l| l.timeline));
        Origin { noted: notes.began, held: notes.held, follows: notes.follows, theirs }
    }

    /// The hands at the API.
    pub fn kubernetes(&self) -> Kubernetes {
        self.kubernetes.clone()
    }

    /// Its pod: the name and the UID.
    pub(super) fn pod(&self) -> (String, String) {
        (self.config.pod.clone(), self.config.uid.clone())
    }

    fn now(&self) -> Mono {
        boottime().since(self.begun)
    }

    /// When the loop is to come back here, from now on.
    pub(super) fn due(&self) -> Option<Duration> {
        if self.fence.is_killing() {
            return Some(WHILE_KILLING);
        }
        self.memory.wake.map(|wake| wake.saturating_sub(self.now()))
    }
}

/// `10.0.0.7:5432`, `[fd00::7]:5432`.
fn at(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

impl Manager {
    /// Begins to watch the cluster.
    pub(super) fn join_cluster(&mut self) {
        let pgdata = self.plan.launch.pgdata.clone();
        let Some(cluster) = &mut self.cluster else { return };
        cluster.system_id = controldata::system_identifier(&pgdata);
        if cluster.notes.copy.is_empty() || cluster.system_id.is_none() {
            cluster.notes = cluster.notes.of_new_copy(random());
            self.save_notes();
        }
        let Some(cluster) = &self.cluster else { return };
        spawn_local(cluster.fence.clone().keep_guard(self.runner.children.clone()));
        let (kubernetes, events) = (cluster.kubernetes.clone(), self.events.clone());
        spawn_local(async move {
            kubernetes.watch(async |seen| drop(events.send(ClusterEvent::Seen(seen).into()).await)).await;
        });
    }

    pub(super) fn cluster_event(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::Input(input) => self.cluster_step(input),
            ClusterEvent::Seen(seen) => match seen {
                kubernetes::Seen::Lease(lease) => self.cluster_step(ha::Input::Lease(lease)),
                kubernetes::Seen::Pods(pods) => self.cluster_step(ha::Input::Pods(pods)),
                kubernetes::Seen::Nonsense(nonsense) => {
                    tracing::error!("{nonsense}");
                    self.overwrite_nonsense(&nonsense);
                }
                kubernetes::Seen::Fine => self.cluster_step(ha::Input::Reachable(true)),
                kubernetes::Seen::Trouble(why) => {
                    let Some(cluster) = &mut self.cluster else { return };
                    if cluster.memory.silent_since.is_none() {
                        tracing::warn!("the Kubernetes API at {} cannot be used: {why}", cluster.kubernetes.server());
                    }
                    cluster.trouble = why;
                    self.cluster_step(ha::Input::Reachable(false));
                }
            },
            ClusterEvent::Timeline(timeline) => self.began(timeline),
            ClusterEvent::Names(names) => self.check_names(&names),
            ClusterEvent::Facts(facts) => self.took_facts(facts),
        }
    }

    /// The leader in office writes its Lease anew, over whatever somebody has made of it.
    fn overwrite_nonsense(&mut self, nonsense: &kubernetes::Nonsense) {
        let Some(Cluster { config, memory, .. }) = &self.cluster else { return };
        let mine = nonsense.holder == config.pod && nonsense.instance == config.instance;
        let Some(known) = memory.lease().filter(|_| mine && memory.in_office().is_some()) else { return };
        let lease = Lease { version: nonsense.version.clone(), ..known.clone() };
        self.cluster_step(ha::Input::Lease(Some(lease)));
    }

    /// Lets the decision about the cluster see what has become of this member, until that changes nothing more.
    pub(super) fn attend_cluster(&mut self) {
        // A start that fails at once is a change in itself; each of these has its own back-off further on.
        for _ in 0..8 {
            self.take_source();
            self.attend_promise();
            self.note_history();
            if self.memory.phase == (Phase::Running { role: Role::Standby })
                && let Some(repair) = self.other_lineage()
            {
                self.decide(Input::Diverged(repair));
            }
            let Some(local) = self.local_for_cluster() else { return };
            let fired =
                self.cluster.as_mut().is_some_and(|c| std::mem::replace(&mut c.fired, c.fence.fired()) != c.fired);
            if fired {
                self.cluster_step(ha::Input::Fired);
            } else if self.cluster.as_ref().is_some_and(|c| c.memory.local != local) {
                self.cluster_step(ha::Input::Local(local));
            } else {
                return;
            }
        }
    }

    pub(super) fn cluster_step(&mut self, input: ha::Input) {
        let Some(cluster) = &mut self.cluster else { return };
        let before = std::mem::take(&mut cluster.memory);
        let (reason, office) = (before.reason.clone(), before.in_office().is_some());
        let (memory, actions) = ha::step(&cluster.config, before, cluster.now(), input);
        cluster.memory = memory;
        if cluster.memory.reason != reason {
            log_reason(cluster.memory.term, &cluster.memory.reason);
        }
        if office && cluster.memory.in_office().is_none() {
            cluster.leading = None;
            cluster.confirming = confirm::Confirming::default();
        }
        self.note_record();
        for action in actions {
            self.cluster_act(action);
        }
    }

    fn note_record(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(lease) = cluster.memory.lease() else { return };
        let (record, term, notes) = (lease.record.clone(), lease.term, &cluster.notes);
        let (leader, leader_term) = match lease.address.is_empty() {
            true => (notes.leader.clone(), notes.leader_term),
            false => (lease.address.clone(), term),
        };
        // A leader that is elected again goes on from what it has, and its followers with it.
        let stays = leader == notes.leader && notes.follows == notes.leader_term;
        let follows = if stays { leader_term } else { notes.follows };
        let notes = Notes { term, record, leader, leader_term, follows, ..notes.clone() };
        if term >= cluster.notes.term && notes != cluster.notes {
            cluster.notes = notes;
            self.save_notes();
        }
    }

    fn save_notes(&self) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        cluster.noted();
        let saved = cluster.notes.save(&self.plan.launch.pgdata);
        if let Err(error) = &saved {
            tracing::error!(
                "what this member knows of its cluster cannot be noted, and a restart will not know: {error}"
            );
        }
        saved.is_ok()
    }

    /// Whom a standby follows: the address that the holder's instance wrote on the Lease.
    fn take_source(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let leader = match &cluster.memory.known {
            _ if cluster.memory.in_office().is_some() => return,
            Known::Lease { lease, .. } if lease.holder == cluster.config.pod => return,
            Known::Lease { lease, .. } if !lease.address.is_empty() => lease.address.clone(),
            Known::Lease { .. } | Known::Absent { .. } | Known::Nothing => cluster.notes.leader.clone(),
        };
        if leader == self.own_address() || leader.is_empty() {
            return;
        }
        let copy = ha::record::Copy { pod: cluster.config.pod.clone(), copy: cluster.notes.copy.clone() };
        self.set_source(&leader, &copy);
    }

    pub(super) fn own_address(&self) -> String {
        self.cluster.as_ref().map(|c| at(&c.ip, c.port)).unwrap_or_default()
    }

    /// Asked of the file once for each server, not at each turn of the loop.
    pub(super) fn note_port(&mut self) {
        let file = self.server.as_ref().and_then(|s| s.pid_file());
        if let (Some(cluster), Some(file)) = (&mut self.cluster, file) {
            cluster.port = file.port;
        }
    }

    /// What the status annotation says of a server changes when it starts and when it reads its files.
    pub(super) fn ask_facts(&self) {
        let (Some(_), Some(local)) = (&self.cluster, self.local()) else { return };
        let events = self.events.clone();
        spawn_local(async move {
            // One that stops has no answer, and the next one is asked again.
            if let Ok(facts) = sql::facts(&local.socket_dir, local.port, &local.login).await {
                drop(events.send(ClusterEvent::Facts(facts).into()).await);
            }
        });
    }

    fn took_facts(&mut self, mut facts: Facts) {
        let report = self.config.report();
        facts.pending_restart.retain(|p| !report.is_raised(p));
        if let Some(cluster) = &mut self.cluster {
            cluster.facts = facts;
        }
    }

    /// The data directory is about to become another copy.
    pub(super) fn begin_copy(&mut self, job: Job) {
        let Some(cluster) = &mut self.cluster else { return };
        match job {
            Job::Look => return,
            // It is on the Lease already, by the id that was drawn for it.
            Job::Initialise => cluster.notes.unrecorded = true,
            Job::Clone | Job::Rewind => cluster.notes = cluster.notes.of_new_copy(random()),
        }
        self.save_notes();
        // The slot and the name are the copy's.
        self.take_source();
    }

    /// A job has made the data directory what it is.
    pub(super) fn end_copy(&mut self) {
        let id = controldata::system_identifier(&self.plan.launch.pgdata);
        if let Some(cluster) = &mut self.cluster {
            cluster.system_id = id;
        }
    }

    /// A server of this member has become a primary: from here on it is watched closely, and so are its standbys.
    pub(super) fn lead_cluster(&mut self) {
        let Some(local) = self.local() else { return };
        let pgdata = self.plan.launch.pgdata.clone();
        let Some(cluster) = &mut self.cluster else { return };
        let interval = cluster.config.renew;
        let primary = health::Primary { local: local.clone(), pgdata };
        let health = health::Watch::start(&primary, interval, cluster.config.duration - cluster.config.margin);
        let events = self.events.clone();
        let standbys = spawn_local(handover::watch_standbys(
            local.clone(),
            interval,
            cluster.hurry.subscribe(),
            async move |standbys, names| {
                let input = ha::Input::Standbys(standbys);
                drop(events.send(ClusterEvent::Input(input).into()).await);
                drop(events.send(ClusterEvent::Names(names).into()).await);
            },
        ));
        let events = self.events.clone();
        let user = self.peers.streams_as();
        let timeline = spawn_local(async move {
            let timeline = handover::timeline(&local, user.as_deref()).await;
            drop(events.send(ClusterEvent::Timeline(timeline).into()).await);
        });
        let tasks = vec![standbys.abort_handle(), timeline.abort_handle()];
        cluster.leading = Some(Leading { tasks, health });
    }

    fn began(&mut self, timeline: u32) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.notes.began.is_none_or(|b| b.timeline != timeline) {
            cluster.notes.began = Some(Began { term: cluster.notes.held, timeline });
            self.save_notes();
        }
    }

    /// What it wrote by itself may be on a timeline that will have the number of a later leader's, and makes another copy of
    /// it than the one that the record admits.
    pub(super) fn note_straying(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        if !cluster.notes.strayed {
            cluster.notes = Notes { strayed: true, ..cluster.notes.of_new_copy(random()) };
            self.save_notes();
        }
    }

    /// Two promotions that knew nothing of each other may have chosen the same number for their timelines (trace T13), which
    /// neither PostgreSQL nor pg_rewind can tell apart. The terms that began them tell.
    pub(super) fn other_lineage(&self) -> Option<Repair> {
        let cluster = self.cluster.as_ref().filter(|c| c.memory.in_office().is_none())?;
        if cluster.notes.strayed {
            let why = "diverged: somebody promoted this member past the cluster".into();
            return Some(Repair { job: Job::Clone, why });
        }
        let (ours, theirs) = (cluster.notes.began?, cluster.memory.lease()?.timeline?);
        ours.contradicts(theirs).then(|| Repair {
            job: Job::Clone,
            why: format!(
                "diverged: timeline {} was begun in term {} here, and in term {} by the leader: two promotions chose the \
                 same number",
                ours.timeline, ours.term, theirs.term
            ),
        })
    }

    /// Nothing here has diverged from the leader: what is here is part of its history, and so is all that comes from now on.
    /// False: this cannot be noted, and nothing may be received.
    pub(super) fn note_leader(&mut self) -> bool {
        let Some(cluster) = &mut self.cluster else { return true };
        cluster.notes.follows = cluster.notes.leader_term;
        self.save_notes()
    }

    /// A standby that receives its leader's timeline is on it.
    fn note_history(&mut self) {
        let received = self.link.received;
        let Some(cluster) = &mut self.cluster else { return };
        cluster.noted.expect(cluster.origin().theirs.map(|b| b.timeline));
        if let Some(began) = received.and_then(|timeline| cluster.origin().receives(timeline.0)) {
            cluster.notes.began = Some(began);
            self.save_notes();
        }
    }

    /// SIGUSR1 is the annotation `podgres.io/promote` on the own pod.
    pub(super) fn ask_for_office(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let (kubernetes, pod, uid) =
            (cluster.kubernetes.clone(), cluster.config.pod.clone(), cluster.config.uid.clone());
        self.spawn_input(async move {
            let asked = [("podgres.io/promote", Some("SIGUSR1".to_string()))].into();
            if let Err(error) = kubernetes.patch_pod(&pod, &uid, &Default::default(), &asked).await {
                tracing::error!("SIGUSR1 asks for a promotion, which cannot be passed on: {error}");
            }
            None
        });
    }

    /// In Kubernetes an orderly stop of the leader is a hand-over.
    pub(super) fn terminate(&mut self, hand_over: bool) {
        self.cluster_step(ha::Input::Terminate { hand_over });
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.cluster.as_ref().is_some_and(|c| c.memory.terminating.is_some())
    }

    pub(super) fn cluster_memory(&self) -> Option<&ha::Memory> {
        self.cluster.as_ref().map(|c| &c.memory)
    }

    pub(super) fn pod_http(&self, pod: &str) -> Option<String> {
        Some(self.cluster_memory()?.pods.as_ref()?.get(pod)?.status.as_ref()?.http.clone())
    }

    /// What the slot of this copy is called on its leader.
    pub(super) fn slot(&self) -> Option<String> {
        let cluster = self.cluster.as_ref()?;
        Some(standby::slot_of(&cluster.config.pod, &cluster.notes.copy))
    }
}

fn log_reason(term: u64, reason: &ha::Reason) {
    match reason {
        ha::Reason::Foreign { .. } => tracing::error!(term, "{reason}"),
        ha::Reason::NoLeader(_) | ha::Reason::NoApi { .. } => tracing::warn!(term, "{reason}"),
        _ => tracing::info!(term, "{reason}"),
    }
}

/// Between two looks at whether the fence has done its work.
const WHILE_KILLING: Duration = Duration::from_millis(50);
const DEFAULT_PORT: u16 = 5432;
