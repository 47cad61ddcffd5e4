//! The one loop: signals, ends of processes, timers, commands and finished jobs come in as values, [`step`] decides, its
//! actions go out. The loop never waits inside an action, so a signal is heard at once whatever is going on.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    lifecycle::{Action, Input, Limits, Memory, Mono, Phase, Reason, Role, step},
    pid1::{Child, Runner},
    postgres::{
        initialise::{self, Plan},
        lock::DirLock,
        pidfile::PidFile,
        processes,
        server::{self, Launch, Server},
    },
    settings::{Error as SettingsError, Settings},
};
use nix::sys::signal::Signal;

/// What reaches the loop from outside the decision.
pub enum Event {
    /// For the decision.
    Input(Input),
    /// The initialisation's end, with the lock on the directory that it made.
    Initialised(Result<Option<DirLock>, initialise::Error>),
    /// Somebody wants to know how things are. That the loop answers is what `/livez` proves.
    Ask(oneshot::Sender<Snapshot>),
    /// Reload, from the control socket.
    Reload(oneshot::Sender<Result<(), String>>),
}

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
}

/// The way into the loop. Clones share it.
pub type Events = mpsc::Sender<Event>;

/// Reads all settings again, from where they came.
pub type LoadSettings = Box<dyn Fn() -> Result<Settings, SettingsError>>;

/// How long processes of a server that was killed get to notice it by themselves, and to obey SIGQUIT after that.
/// Backends notice the postmaster's death when they next wait for something (latch.c), busy ones do not.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);

/// How often `postmaster.pid` is read: while a start should take moments, while it takes long, and on a standby, where
/// only the end of recovery is of interest.
const POLL_QUICK: Duration = Duration::from_millis(5);
const POLL_SLOW: Duration = Duration::from_millis(100);
const POLL_STANDBY: Duration = Duration::from_millis(500);

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
    cancel: watch::Sender<bool>,
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
        (events, inbox): (Events, mpsc::Receiver<Event>),
    ) -> Self {
        Self {
            plan,
            runner,
            limits: limits(settings),
            load_settings,
            lock,
            events,
            inbox,
            begun: Instant::now(),
            memory: Memory::default(),
            server: None,
            cancel: watch::Sender::new(false),
        }
    }

    /// Runs until PostgreSQL is to run no more.
    pub async fn run(mut self, initialised: bool) -> Outcome {
        self.decide(Input::Begin { initialised });
        loop {
            if let Phase::Ended { code } = self.memory.phase {
                return Outcome { code, reason: self.memory.reason };
            }
            let due = self.memory.deadline().map(|d| tokio::time::Instant::from_std(self.begun + d));
            tokio::select! {
                Some(event) = self.inbox.recv() => self.handle(event),
                () = sleep_until(due) => self.decide(Input::Timer),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Input(input) => self.decide(input),
            Event::Initialised(Ok(lock)) => {
                self.lock = lock.or(self.lock.take());
                tracing::info!("PostgreSQL init process complete; ready for start up.");
                self.decide(Input::InitialisationDone(Ok(())));
            }
            Event::Initialised(Err(error)) => self.decide(Input::InitialisationDone(Err(error.to_string()))),
            Event::Ask(reply) => drop(reply.send(self.snapshot())),
            Event::Reload(reply) => {
                // As with SIGHUP: before it is ready it is to be left alone, and told later.
                if !matches!(self.memory.phase, Phase::Running { .. }) {
                    self.decide(Input::Signal(crate::pid1::Signal::Hup));
                }
                drop(reply.send(self.reload()));
            }
        }
    }

    fn decide(&mut self, input: Input) {
        let before = self.memory.clone();
        let (memory, actions) = step(&self.limits, before.clone(), self.begun.elapsed(), input);
        self.memory = memory;
        if (&before.phase, &before.reason) != (&self.memory.phase, &self.memory.reason) {
            self.log_change();
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
            (_, Reason::Crashed(_) | Reason::TookTooLong(_)) => {
                tracing::warn!(state, restarts = self.memory.restarts, "{reason}");
            }
            _ => tracing::info!(state, "{reason}"),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Initialise => self.initialise(),
            Action::CancelInitialisation => drop(self.cancel.send(true)),
            Action::Start => self.start(),
            Action::Stop(how) => self.server.iter().for_each(|s| s.stop(how)),
            Action::CleanUp => self.clean_up(),
            Action::Reload => drop(self.reload()),
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

    fn initialise(&self) {
        let (plan, runner) = (self.plan.clone(), self.runner.clone());
        let (events, cancel) = (self.events.clone(), self.cancel.subscribe());
        tokio::task::spawn_local(async move {
            let result = initialise::initialise(&plan, &runner, cancel).await;
            let _ = events.send(Event::Initialised(result)).await;
        });
    }

    fn start(&mut self) {
        match Server::start(&self.plan.launch, self.lock.as_ref(), &self.runner) {
            Ok(server) => {
                self.watch(&server);
                self.server = Some(server);
            }
            Err(error) => self.decide(Input::NotStarted(error.to_string())),
        }
    }

    /// Turns the postmaster's readiness and its end into inputs.
    fn watch(&self, server: &Server) {
        let (events, mut child) = (self.events.clone(), server.child.clone());
        tokio::task::spawn_local(async move {
            let exit = child.wait().await;
            let _ = events.send(Event::Input(Input::Exited(exit))).await;
        });
        let (events, child, pgdata) = (self.events.clone(), server.child.clone(), self.plan.launch.pgdata.clone());
        tokio::task::spawn_local(async move { watch_role(&pgdata, &child, &events).await });
    }

    /// Sees to it that no process of the server is left, then passes on the last lines of its log.
    fn clean_up(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let (events, launch) = (self.events.clone(), self.plan.launch.clone());
        tokio::task::spawn_local(async move {
            end_leftovers(&launch).await;
            server.finish_log();
            let _ = events.send(Event::Input(Input::CleanedUp)).await;
        });
    }

    /// Re-reads the settings, keeps the old ones if they make no sense now, and reloads PostgreSQL if it is up: while it
    /// starts SIGHUP may find no handler yet and kill it.
    fn reload(&mut self) -> Result<(), String> {
        if let (Some(server), Phase::Running { .. }) = (&self.server, &self.memory.phase) {
            server.reload();
        }
        match (self.load_settings)() {
            Ok(settings) => {
                self.limits = limits(&settings);
                tracing::info!("settings were read again");
                Ok(())
            }
            Err(error) => {
                tracing::error!("settings were read again and are refused, the old ones stay: {error}");
                Err(error.to_string())
            }
        }
    }

    fn promote(&self) {
        let Some(server) = &self.server else { return };
        match server.promote() {
            Ok(()) => tracing::info!("PostgreSQL is told to promote itself"),
            Err(e) => tracing::error!("cannot promote: writing the file \"promote\" into the data directory: {e}"),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            memory: self.memory.clone(),
            now: self.begun.elapsed(),
            postgres: self.server.as_ref().and_then(Server::pid_file),
            pgdata: self.plan.launch.pgdata.clone(),
            log_lines_dropped: self.runner.sink.dropped(),
        }
    }
}

/// PostgreSQL's arguments without the values in which a password is: a connection string is one (`primary_conninfo`),
/// and so may be any command (`archive_command`).
fn without_passwords(arguments: &[String]) -> Vec<String> {
    let harmless = |a: &str| {
        let lower = a.to_ascii_lowercase();
        let credentials = lower.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
        !credentials && !["password", "passwd", "secret", "token", "conninfo"].iter().any(|w| lower.contains(w))
    };
    let hide = |a: &String| match a.split_once('=') {
        _ if harmless(a) => a.clone(),
        Some((name, _)) => format!("{name}=…"),
        None => "…".into(),
    };
    arguments.iter().map(hide).collect()
}

fn limits(settings: &Settings) -> Limits {
    Limits { shutdown_timeout: settings.shutdown_timeout }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Sends the role whenever it changes; returns when it cannot change any more.
async fn watch_role(pgdata: &std::path::Path, child: &Child, events: &Events) {
    let begun = Instant::now();
    let mut told = None;
    while child.is_running() {
        let role = server::role(pgdata, child.pid);
        if let Some(role) = role.filter(|r| Some(*r) != told) {
            told = Some(role);
            let _ = events.send(Event::Input(Input::Ready(role))).await;
        }
        let pause = match told {
            Some(Role::Primary) => return,
            Some(Role::Standby) => POLL_STANDBY,
            None if begun.elapsed() < LEFTOVER_PATIENCE => POLL_QUICK,
            None => POLL_SLOW,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Waits for processes that a dead postmaster left behind, then stops them: with leftovers of the old server in its
/// shared memory a new one must not start, and it would refuse to. Returns when none is left, however long that takes:
/// on stalled storage processes do not even die of SIGKILL, and may still write when it recovers.
async fn end_leftovers(launch: &Launch) {
    let mut signals = [Signal::SIGQUIT, Signal::SIGKILL].into_iter();
    let mut pause = POLL_QUICK;
    loop {
        let gone = async {
            while !processes::of_postgres_on(&launch.pgdata).is_empty() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(POLL_SLOW);
            }
        };
        if tokio::time::timeout(LEFTOVER_PATIENCE, gone).await.is_ok() {
            return;
        }
        let left = processes::of_postgres_on(&launch.pgdata);
        let signal = signals.next().unwrap_or(Signal::SIGKILL);
        tracing::warn!(pids = ?left, "processes of PostgreSQL outlived their postmaster: sending {signal}");
        processes::signal_all(&left, signal);
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
