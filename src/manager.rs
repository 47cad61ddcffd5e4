//! The one loop: signals, ends of processes, timers, commands and finished jobs come in as values, [`step`] decides, its
//! actions go out. The loop never waits inside an action, so a signal is heard at once whatever is going on.

mod certificates;
mod cluster;
mod handover;
mod standby;
mod watch;

use std::{path::PathBuf, time::Instant};

use tokio::{
    sync::{mpsc, oneshot, watch as cell},
    task::spawn_local,
};

use crate::{
    ha::member::{Account, ClusterView},
    lifecycle::{Action, Data, Failure, Input, Job, Limits, Memory, Mono, Phase, Reason, Role, step},
    pid1::{Exit, Runner},
    postgres::{
        config::{self, Config},
        initialise::Plan,
        lock::DirLock,
        pidfile::PidFile,
        replication::{follow, look},
        server::{Launch, Server},
        sql::Login,
    },
    progress::{Progress, Reporter},
    secrets,
    settings::{Error as SettingsError, Settings},
    tls,
};
pub use cluster::{Cluster, ClusterEvent, MemberAsked};
use standby::{Link, Nth, Peers, Tasks};

/// What reaches the loop from outside the decision.
pub enum Event {
    /// For the decision.
    Input(Input),
    /// A job's end, with the lock on the directory that it made.
    JobDone(Job, Result<Option<DirLock>, Failure>),
    /// What this source and the data directory look like beside each other.
    Looked(Nth, look::Seen),
    /// What a running standby's follower of this source has to say.
    Follow(Nth, follow::Report),
    /// Somebody wants to know how things are. That the loop answers is what `/livez` proves.
    Ask(oneshot::Sender<Snapshot>),
    /// Somebody wants to know which settings are smaller than on the primary.
    AskTooSmall(oneshot::Sender<Vec<config::standby::Raise>>),
    /// Reload, from the control socket.
    Reload(ReloadReply),
    /// What is to be known before a start.
    Prepared(Result<config::Started, config::Refused>),
    /// A reload is over, whatever came of it.
    Reloaded,
    /// A file of the user's may have changed.
    FilesChanged,
    /// Something about the cluster.
    Cluster(Box<ClusterEvent>),
    /// Another member asks for a vote.
    Vote(MemberAsked),
    /// A leader that does not reach the API asks this member to wait.
    Failsafe(MemberAsked),
}

/// Where the outcome of a reload goes, in words.
pub type ReloadReply = oneshot::Sender<Result<String, String>>;

/// How things are.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The decision's memory.
    pub memory: Memory,
    /// Time since the manager started.
    pub now: Mono,
    /// The postmaster, and where it listens.
    pub postgres: Option<PidFile>,
    /// The data directory.
    pub pgdata: PathBuf,
    /// Log lines dropped so far.
    pub log_lines_dropped: u64,
    /// Where PostgreSQL's settings come from, and what is wrong with them.
    pub config: std::sync::Arc<config::Report>,
    /// The job that runs.
    pub progress: Option<Progress>,
    /// The source that the settings name, host and port.
    pub source: Option<String>,
    /// What the source is, while this standby streams from it.
    pub source_role: Option<Role>,
    /// Why this standby does not stream, or could not be looked at.
    pub waiting: Option<String>,
    /// What it says of itself to other members; none: it is a member of no cluster.
    pub account: Option<Account>,
    /// The cluster of which it is a member.
    pub cluster: Option<ClusterView>,
    /// The certificate, where there is TLS.
    pub tls: Option<tls::Seen>,
}

/// The way into the loop. Clones share it.
pub type Events = mpsc::Sender<Event>;

/// Reads all settings again, from where they came.
pub type LoadSettings = Box<dyn Fn() -> Result<Settings, SettingsError>>;

/// Everything that the loop owns.
pub struct Manager {
    plan: Plan,
    runner: Runner,
    limits: Limits,
    load_settings: LoadSettings,
    lock: Option<DirLock>,
    events: Events,
    inbox: mpsc::Receiver<Event>,
    begun: Instant,
    memory: Memory,
    server: Option<Server>,
    cancel: cell::Sender<bool>,
    config: Config,
    /// Whether the user's files may have changed while PostgreSQL could not be told.
    files_changed: bool,
    /// The part of the settings that is about other members.
    peers: Peers,
    reporter: Reporter,
    /// The task of a role (a primary's care, a standby's follower), or of a job.
    tasks: Tasks,
    link: Link,
    /// Which source it is that the settings or the cluster name.
    nth: Nth,
    /// The cluster, if there is one that decides.
    cluster: Option<Cluster>,
    /// The certificates, where there is TLS.
    certificates: Option<tls::Keeper>,
    /// PostgreSQL's configuration file, if that has a `restore_command` and pg_rewind can read it (15 and later).
    archive: Option<PathBuf>,
}

/// How the manager ended.
pub struct Outcome {
    /// The exit code.
    pub code: i32,
    /// Why.
    pub reason: Reason,
}

impl Manager {
    /// A manager for the data directory of `plan`, which `lock` holds.
    pub fn new(
        plan: Plan,
        settings: &Settings,
        load_settings: LoadSettings,
        lock: Option<DirLock>,
        runner: Runner,
        cluster: Option<Cluster>,
        (events, inbox): (Events, mpsc::Receiver<Event>),
    ) -> Self {
        let mut config = Config::new(plan.layers(), runner.children.clone());
        config.set_replication_user(standby::replication_user(settings));
        Self {
            peers: Peers::of(settings),
            reporter: Reporter::default(),
            tasks: Tasks::default(),
            link: Link::default(),
            nth: Nth::default(),
            archive: None,
            certificates: None,
            files_changed: false,
            config,
            plan,
            runner,
            limits: standby::limits(settings),
            cluster,
            load_settings,
            lock,
            events,
            inbox,
            begun: Instant::now(),
            memory: Memory::default(),
            server: None,
            cancel: cell::Sender::new(false),
        }
    }

    /// Runs until PostgreSQL is to run no more.
    pub async fn run(mut self, data: Data) -> Outcome {
        self.watch_files();
        self.watch_certificates();
        spawn_local(watch::watch_room(self.plan.launch.pgdata.clone()));
        self.decide(Input::Begin(data));
        self.join_cluster();
        loop {
            self.attend_cluster();
            if let Phase::Ended { code } = self.memory.phase {
                return Outcome { code, reason: self.memory.reason };
            }
            let due = self.memory.deadline().map(|d| tokio::time::Instant::from_std(self.begun + d));
            let cluster_due = self.cluster.as_ref().and_then(Cluster::due).map(|d| tokio::time::Instant::now() + d);
            tokio::select! {
                Some(event) = self.inbox.recv() => self.handle(event),
                () = sleep_until(due) => self.decide(Input::Timer),
                () = sleep_until(cluster_due) => self.cluster_step(crate::ha::Input::Timer),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Input(Input::Signal(signal)) if self.is_for_cluster(signal) => {
                self.terminate(signal == crate::pid1::Signal::Term);
            }
            Event::Input(Input::Signal(crate::pid1::Signal::Usr1)) if self.cluster.is_some() => self.ask_for_office(),
            Event::Cluster(event) => self.cluster_event(*event),
            Event::Vote(asked) => self.vote_asked(asked),
            Event::Failsafe(asked) => self.failsafe_asked(asked),
            Event::Input(input) => {
                if matches!((&input, &self.memory.phase), (Input::Ready(_), Phase::Starting)) {
                    self.config.ready();
                }
                if matches!(input, Input::Exited(_)) {
                    self.tasks.end_role();
                }
                self.decide(input);
                self.take_up_role();
                if matches!(self.memory.phase, Phase::Running { .. }) && std::mem::take(&mut self.files_changed) {
                    self.files_changed();
                }
            }
            Event::Prepared(prepared) => self.start(prepared),
            Event::Reloaded => self.ask_facts(),
            Event::FilesChanged => self.files_changed(),
            Event::JobDone(job, result) => self.job_done(job, result),
            Event::Looked(source, seen) => {
                self.link.attached = seen.attach && self.may_follow(source);
                self.decide(Input::Looked(seen.look));
            }
            Event::Follow(source, report) if source == self.nth => self.followed(report),
            Event::Follow(..) => {}
            Event::Ask(reply) => drop(reply.send(self.snapshot())),
            Event::AskTooSmall(reply) => {
                let asked = self.config.too_small();
                spawn_local(async move { reply.send(asked.await) });
            }
            Event::Reload(reply) => {
                // As with SIGHUP: before it is ready it is to be left alone, and told later.
                if !matches!(self.memory.phase, Phase::Running { .. }) {
                    self.decide(Input::Signal(crate::pid1::Signal::Hup));
                }
                self.reload(Some(reply));
            }
        }
    }

    /// A first order to end is the cluster's affair; whoever repeats it wants no more politeness.
    fn is_for_cluster(&self, signal: crate::pid1::Signal) -> bool {
        let ends = matches!(signal, crate::pid1::Signal::Term | crate::pid1::Signal::Int);
        self.cluster.is_some() && ends && !self.is_terminating()
    }

    fn decide(&mut self, input: Input) {
        let before = self.memory.clone();
        let (memory, actions) = step(&self.limits, before.clone(), self.begun.elapsed(), input);
        self.memory = memory;
        if (&before.phase, &before.reason) != (&self.memory.phase, &self.memory.reason) {
            self.log_change();
            if self.memory.reason == Reason::PromotedByOthers {
                self.note_straying();
            }
        }
        for action in actions {
            self.act(action);
        }
    }

    fn log_change(&self) {
        let (state, reason) = (self.memory.phase.name(), &self.memory.reason);
        match (&self.memory.phase, reason) {
            (Phase::Ended { code: 0 }, _) => tracing::info!(state, "{reason}"),
            (Phase::Ended { code }, _) => tracing::error!(state, exit_code = code, "{reason}"),
            (_, Reason::TryingAgain(_)) => {}
            (Phase::Stopping { .. }, Reason::TooSmall(_))
            | (_, Reason::JobFailed(..) | Reason::Diverged(_) | Reason::HalfRewound) => {
                tracing::warn!(state, "{reason}");
            }
            (_, Reason::Crashed(_) | Reason::TookTooLong(_)) => {
                tracing::warn!(state, restarts = self.memory.restarts, "{reason}");
            }
            _ => tracing::info!(state, "{reason}"),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Work(job) => self.work(job),
            Action::Cancel => self.cancel_job(),
            Action::Start { standby } => self.prepare(standby),
            Action::RejectConfiguration => self.config.reject(),
            Action::Stop(how) => self.server.iter().for_each(|s| s.stop(how)),
            Action::CleanUp => self.clean_up(),
            Action::Reload => self.reload(None),
            Action::Promote => self.promote(),
            Action::LogState => {
                tracing::info!(
                    memory = ?self.memory,
                    limits = ?self.limits,
                    bindir = ?self.plan.launch.bindir,
                    pgdata = %self.plan.launch.pgdata.display(),
                    arguments = ?without_passwords(&self.plan.launch.arguments),
                    run_dir = %self.plan.launch.run_dir.display(),
                    postgres = ?self.server.as_ref().and_then(Server::pid_file),
                    uptime_seconds = self.begun.elapsed().as_secs(),
                    log_lines_dropped = self.runner.sink.dropped(),
                    "the manager's state"
                );
            }
            // The loop sees the phase and ends.
            Action::Exit(_) => {}
        }
    }

    /// Reads, checks and writes PostgreSQL's files, which takes asking its programs.
    fn prepare(&mut self, standby: bool) {
        if standby && let Err(error) = standby::mark(&self.plan.launch.pgdata) {
            return self
                .decide(Input::NotStarted(format!("cannot write standby.signal into the data directory: {error}")));
        }
        if standby {
            self.mend_wal();
        }
        self.confirm_nothing();
        self.config.set_owned(self.owned(standby));
        let (prepared, events) = (self.config.prepare(), self.events.clone());
        spawn_local(async move { events.send(Event::Prepared(prepared.await)).await });
    }

    fn start(&mut self, prepared: Result<config::Started, config::Refused>) {
        let started = match prepared {
            Ok(started) => started,
            Err(refused) => {
                return self.decide(Input::Refused { why: refused.to_string(), exit: refused.exit });
            }
        };
        if self.memory.phase != Phase::Starting {
            // Told to stop in the meantime: there is nothing to stop, it is over at once.
            return self.decide(Input::Exited(Exit::Code(0)));
        }
        let launch = Launch { arguments: started.arguments, ..self.plan.launch.clone() };
        let value = |name| config::value_of(&launch.arguments, name).filter(|v| !v.is_empty());
        let readable = launch.bindir.major >= 15 && value("restore_command").is_some();
        self.archive = value("config_file").filter(|_| readable).map(PathBuf::from);
        match Server::start(&launch, self.lock.as_ref(), &self.runner) {
            Ok(server) => {
                self.watch(&server);
                self.server = Some(server);
                if started.unproven {
                    self.decide(Input::Unproven);
                }
            }
            Err(error) => self.decide(Input::NotStarted(error.to_string())),
        }
    }

    /// Turns the postmaster's readiness and its end into inputs.
    fn watch(&self, server: &Server) {
        let (events, mut child) = (self.events.clone(), server.child.clone());
        spawn_local(async move {
            let exit = child.wait().await;
            let _ = events.send(Event::Input(Input::Exited(exit))).await;
        });
        let (events, child, pgdata) = (self.events.clone(), server.child.clone(), self.plan.launch.pgdata.clone());
        let stale = server.stale;
        spawn_local(async move { watch::watch_role(&pgdata, &child, stale, &events).await });
    }

    /// Sees to it that no process of the server is left, then passes on the last lines of its log.
    fn clean_up(&mut self) {
        let Some(mut server) = self.server.take() else { return self.decide(Input::CleanedUp) };
        let (events, launch) = (self.events.clone(), self.plan.launch.clone());
        spawn_local(async move {
            watch::end_leftovers(&launch).await;
            server.finish_log();
            let _ = events.send(Event::Input(Input::CleanedUp)).await;
        });
    }

    /// Re-reads the settings and, if PostgreSQL is up, its files: while it starts SIGHUP may find no handler yet and kill
    /// it. What is wrong is refused, and the old stays.
    fn reload(&mut self, reply: Option<ReloadReply>) {
        self.read_certificates_again();
        let settings = self.reload_settings();
        if settings.is_ok() {
            tracing::info!("settings were read again");
        }
        self.reload_files(settings, false, reply);
    }

    fn files_changed(&mut self) {
        self.read_certificates_again();
        match self.memory.phase {
            Phase::Running { .. } => {
                let settings = self.reload_settings();
                self.reload_files(settings, true, None);
            }
            // Looked at when it is ready, and then only if something has changed since it was started.
            _ => self.files_changed = true,
        }
    }

    fn reload_settings(&mut self) -> Result<(), String> {
        match (self.load_settings)() {
            Ok(settings) => self.take_settings(&settings),
            Err(error) => {
                tracing::error!("settings were read again and are refused, the old ones stay: {error}");
                return Err(format!("podgres keeps its old settings: {error}"));
            }
        }
        Ok(())
    }

    fn reload_files(&self, settings: Result<(), String>, only_changes: bool, reply: Option<ReloadReply>) {
        let (Some(server), Phase::Running { .. }) = (&self.server, &self.memory.phase) else {
            let later =
                settings.map(|()| "settings were read again; PostgreSQL reads its files once it is ready".into());
            reply.map(|r| r.send(later));
            return;
        };
        let official = &self.plan.official;
        let running = config::Running {
            child: server.child.clone(),
            socket: server.pid_file().and_then(|f| Some((f.socket_dir?, f.port))),
            login: Login { user: official.user.clone(), password: official.password.clone() },
        };
        let (reloaded, events) = (self.config.reload(running, only_changes), self.events.clone());
        spawn_local(async move {
            let answer = reloaded.await.unwrap_or_else(|| Ok("nothing has changed".into()));
            let _ = events.send(Event::Reloaded).await;
            let both = match (settings, answer) {
                (Ok(()), answer) => answer,
                (Err(settings), Ok(text) | Err(text)) => Err(format!("{text}; {settings}")),
            };
            reply.map(|r| r.send(both))
        });
    }

    /// Changed files are events. Symbolic links may lead out of the configured directories, so this is a task that goes
    /// on for as long as the manager runs.
    fn watch_files(&self) {
        let certificates = self.certificates.as_ref().map(tls::Keeper::paths).unwrap_or_default();
        let (layers, events) = (self.config.layers().clone().watching(certificates), self.events.clone());
        spawn_local(config::watch::watch(layers, async move || {
            let _ = events.send(Event::FilesChanged).await;
        }));
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            memory: self.memory.clone(),
            now: self.begun.elapsed(),
            postgres: self.server.as_ref().and_then(Server::pid_file),
            pgdata: self.plan.launch.pgdata.clone(),
            log_lines_dropped: self.runner.sink.dropped(),
            config: self.config.report(),
            progress: self.reporter.current(),
            source: self.peers.standby_of.as_ref().map(|a| a.conninfo.place()),
            source_role: self.link.source_role,
            waiting: self.link.waiting.clone(),
            account: self.account(),
            cluster: self.cluster_view(),
            tls: self.certificates.as_ref().map(tls::Keeper::seen),
        }
    }
}

/// PostgreSQL's arguments without the values in which a password is: a connection string is one (`primary_conninfo`),
/// and so may be any command (`archive_command`).
fn without_passwords(arguments: &[String]) -> Vec<String> {
    let harmless = |a: &str| !secrets::text_has_secret(a) && !a.to_ascii_lowercase().contains("conninfo");
    let hide = |a: &String| match a.split_once('=') {
        _ if harmless(a) => a.clone(),
        Some((name, _)) => format!("{name}=…"),
        None => "…".into(),
    };
    arguments.iter().map(hide).collect()
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_arguments_are_not_shown() {
        let arguments = [
            "-c",
            "work_mem=4MB",
            "primary_conninfo=host=a password=hush",
            "--primary-conninfo=host=a PASSWORD=hush",
            "archive_command=push postgres://me:hush@there/%p",
        ];
        let shown = without_passwords(&arguments.map(String::from));
        assert_eq!(shown, ["-c", "work_mem=4MB", "primary_conninfo=…", "--primary-conninfo=…", "archive_command=…"]);
    }
}
