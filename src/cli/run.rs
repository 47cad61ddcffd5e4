//! `podgres run`: PID 1. The shortest way to read how the parts are put together.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use command_fds::CommandFdExt;
use tokio::{
    sync::{mpsc, watch},
    task::{LocalSet, spawn_local},
};

use super::{EX_CONFIG, EX_FAILED, EX_USAGE, environment, fail};
use crate::{
    cluster::{kubernetes::Kubernetes, notes::Notes},
    http,
    lifecycle::Data,
    logs, manager,
    manager::{Cluster, Event, Events, Manager},
    pid1::{self, Children, Runner, Signal, Signals, fence::Fence, termination},
    postgres::{
        bindir::Bindir,
        datadir::{self, Content},
        initialise::{self, Plan},
        lock::DirLock,
        replication::{clone::random, rewind},
        server::{self, Launch},
        sql::Login,
        stage,
    },
    run_dir::{self, RunDir},
    settings::{Flags, Settings, split_run_arguments},
    shm,
    tls::Keeper,
};

/// Where a data directory goes when `PGDATA` does not say.
pub(super) const DEFAULT_PGDATA: &str = "/var/lib/postgresql/data/pgdata";

/// How long the last lines of the log may take to reach a reader that reads.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
enum Invocation {
    /// A command that has nothing to do with PostgreSQL's server.
    Other(Vec<String>),
    /// `postgres --version` and the like.
    Ask(Vec<String>),
    /// `postgres --single` and the like: no server, but a data directory.
    Once(Vec<String>),
    /// The server.
    Serve(Vec<String>),
}

impl Invocation {
    fn of(mut command: Vec<String>) -> Self {
        match command.first().map(String::as_str) {
            None => return Self::Serve(Vec::new()),
            Some("postgres") => drop(command.remove(0)),
            Some(first) if first.starts_with('-') => {}
            Some(_) => return Self::Other(command),
        }
        let asks = ["--version", "-V", "--help", "-?", "--describe-config"];
        let once = ["--single", "--boot", "--check", "-C"];
        match () {
            () if command.iter().any(|a| asks.contains(&a.as_str())) => Self::Ask(command),
            () if command.iter().any(|a| once.contains(&a.as_str())) => Self::Once(command),
            () => Self::Serve(command),
        }
    }
}

pub(super) fn main(arguments: Vec<String>) -> ExitCode {
    pid1::signals::hold();
    let (flags, command) = match split_run_arguments(arguments) {
        Ok(split) => split,
        Err(error @ crate::settings::Error::Missing(_)) => return fail(EX_USAGE, error),
        Err(error) => return fail(EX_CONFIG, error),
    };
    let invocation = Invocation::of(command);
    if let Invocation::Other(command) = invocation {
        return execute(Command::new(&command[0]).args(&command[1..]));
    }
    pid1::hidden::hide();
    let settings = match Settings::load(&flags, &environment()) {
        Ok(settings) => settings,
        Err(error) => return fail(EX_CONFIG, error),
    };
    let bin = match locate_programs(&settings) {
        Ok(bin) => bin,
        Err(error) => return fail(EX_CONFIG, error),
    };
    let (arguments, once) = match invocation {
        Invocation::Ask(arguments) => return execute(Command::new(bin.join("postgres")).args(arguments)),
        Invocation::Once(arguments) => (arguments, true),
        Invocation::Serve(arguments) | Invocation::Other(arguments) => (arguments, false),
    };
    if nix::unistd::geteuid().is_root() {
        return fail(EX_CONFIG, AS_ROOT);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EX_FAILED, format_args!("cannot start: {error}")),
    };
    let session = Session { flags, settings, bin, arguments, once };
    match LocalSet::new().block_on(&runtime, session.run()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(EX_FAILED)),
        Err(Refusal { code, why }) => fail(code, why),
    }
}

const AS_ROOT: &str = "this runs as root, and PostgreSQL refuses to: a server that is broken into must not own the \
    machine. Run the container as the image is made, without --user root, or with --user 999:999 or any other uid \
    that can write the volume; give existing files to that uid with chown -R";

/// Replaces this process. Returns only if that fails, with the shell's exit codes.
fn execute(command: &mut Command) -> ExitCode {
    let error = command.exec();
    eprintln!("Error: cannot execute {:?}: {error}", command.get_program());
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

pub(super) fn locate_programs(settings: &Settings) -> Result<PathBuf, crate::postgres::bindir::Error> {
    let path = std::env::var_os("PATH");
    Bindir::locate(settings.postgres_bindir.as_deref(), settings.official.major, path.as_deref())
}

/// Why `run` did not run, and its exit code.
struct Refusal {
    code: u8,
    why: String,
}

/// Something that is wrong with the settings or with what they name.
fn refuse(error: impl std::fmt::Display) -> Refusal {
    Refusal { code: EX_CONFIG, why: error.to_string() }
}

struct Session {
    flags: Flags,
    settings: Settings,
    bin: PathBuf,
    arguments: Vec<String>,
    once: bool,
}

impl Session {
    async fn run(self) -> Result<i32, Refusal> {
        let system = |e: std::io::Error| Refusal { code: EX_FAILED, why: format!("cannot start: {e}") };
        let signals = Signals::install().map_err(system)?;
        if std::process::id() != 1 {
            // Orphans come to PID 1 by themselves; elsewhere it takes a request.
            let _ = nix::sys::prctl::set_child_subreaper(true);
        }
        stop_on_panic();
        let sink = logs::Sink::stdout(self.log_format()).map_err(system)?;
        let _ = logs::init(sink.clone());
        let runner = Runner { children: Children::default(), sink: sink.clone() };
        let (events, inbox) = mpsc::channel(64);
        spawn_local(hear(signals, runner.children.clone(), events.clone()));

        let run_dir = RunDir::acquire(self.settings.run_dir.as_deref()).map_err(refuse)?;
        let bindir = Bindir::identify(self.bin.clone(), &runner.children).await.map_err(refuse)?;
        let plan = self.plan(bindir, &run_dir.path);
        let keeper = self.settings.tls.as_ref().filter(|_| !self.once).map(|tls| Keeper::begin(tls, &run_dir.path));
        let keeper = keeper.transpose().map_err(refuse)?;
        datadir::check_owner(&plan.launch.pgdata).map_err(refuse)?;
        if !self.once && !plan.launch.pgdata.join("PG_VERSION").exists() {
            // Of a data directory that is there an earlier configuration may be known to work.
            plan.layers().check(&runner.children).await.map_err(|refused| {
                tracing::error!("{refused}");
                sink.flush(FLUSH_TIMEOUT);
                Refusal { code: u8::try_from(refused.exit).unwrap_or(EX_FAILED), why: refused.to_string() }
            })?;
        }
        let (content, lock) = claim(&plan, self.settings.standby_of.is_some() && !self.once).map_err(refuse)?;
        warn_of_surroundings();
        if self.once {
            return once(&plan, content, lock, &runner, inbox).await;
        }
        let outcome = self.serve(plan, (content, lock), runner, keeper, &run_dir.path, (events, inbox)).await?;
        sink.flush(FLUSH_TIMEOUT);
        if outcome.code != 0 {
            eprintln!("Error: {}", outcome.reason);
        }
        Ok(outcome.code)
    }

    fn log_format(&self) -> logs::Format {
        use std::io::IsTerminal;
        let terminal = std::io::stdout().is_terminal();
        self.settings.log_format.unwrap_or(if terminal { logs::Format::Text } else { logs::Format::Json })
    }

    fn plan(&self, bindir: Bindir, run_dir: &Path) -> Plan {
        let named = data_directory_argument(&self.arguments).or_else(|| self.settings.official.pgdata.clone());
        let configured = named.unwrap_or_else(|| DEFAULT_PGDATA.into());
        let pgdata = datadir::locate(&configured, bindir.major);
        if pgdata != configured {
            tracing::info!("PGDATA {} holds no data; using {} as found", configured.display(), pgdata.display());
        }
        let launch = Launch { bindir, pgdata, arguments: self.arguments.clone(), run_dir: run_dir.to_path_buf() };
        let (official, config_dir) = (self.settings.official.clone(), self.settings.config_dir.clone());
        let synchronous = self.settings.is_synchronous();
        Plan { launch, official, scripts_dir: initialise::SCRIPTS_DIR.into(), config_dir, synchronous }
    }

    async fn serve(
        &self,
        plan: Plan,
        (content, lock): (Content, Option<DirLock>),
        runner: Runner,
        keeper: Option<Keeper>,
        run_dir: &Path,
        (events, inbox): (Events, mpsc::Receiver<Event>),
    ) -> Result<manager::Outcome, Refusal> {
        let official = &self.settings.official;
        let login = Login { user: official.user.clone(), password: official.password.clone() };
        let cluster = self.cluster(&plan.launch.pgdata).map_err(refuse)?;
        let kubernetes = cluster.as_ref().map(Cluster::kubernetes);
        let certificates = keeper.as_ref().map(Keeper::certificates);
        let api =
            http::Api::new(events.clone(), login, &self.settings.config_dir, kubernetes, certificates.clone().into());
        http::serve_http(self.settings.listen, api.clone(), certificates).await.map_err(refuse)?;
        http::serve_control(&run_dir.join(run_dir::CONTROL_SOCKET), api).map_err(refuse)?;

        let data = match (&content, rewind::unfinished(&plan.launch.pgdata)) {
            (Content::Empty, _) => Data::Empty,
            (Content::Cluster { .. }, 0) => Data::Whole,
            (Content::Cluster { .. }, tries) => Data::HalfRewound { tries },
        };
        if data == Data::Whole {
            tracing::info!("PostgreSQL Database directory appears to contain a database; Skipping initialization");
        }
        let flags = self.flags.clone();
        let load_settings = Box::new(move || Settings::load(&flags, &environment()));
        let children = runner.children.clone();
        let manager = Manager::new(plan, &self.settings, load_settings, lock, runner, cluster, (events, inbox));
        match spawn_local(manager.with_certificates(keeper).run(data)).await {
            Ok(outcome) => Ok(outcome),
            Err(panicked) => Err(self.stop_after_panic(&children, &panicked).await),
        }
    }
}

impl Session {
    /// What only a member of a cluster needs: eyes and hands at the API, the fence, a name for this very start.
    fn cluster(&self, pgdata: &Path) -> Result<Option<Cluster>, String> {
        let Some(settings) = &self.settings.kubernetes else { return Ok(None) };
        let kubernetes = Kubernetes::connect(&settings.identity).map_err(|e| e.to_string())?;
        let fence = Fence::start().map_err(|e| e.to_string())?;
        let instance = format!("{:016x}", random());
        if let Err(error) = termination::note_instance(Path::new(termination::PATH), &instance) {
            tracing::warn!("{error}");
        }
        let port = self.settings.listen.address.port();
        Ok(Some(Cluster::new(settings, port, (kubernetes, fence), Notes::load(pgdata), instance)))
    }

    /// Without its loop nobody would ever stop PostgreSQL, and an exit of PID 1 is a SIGKILL for it.
    async fn stop_after_panic(&self, children: &Children, panicked: &tokio::task::JoinError) -> Refusal {
        tracing::error!("the manager's loop panicked, PostgreSQL is shut down: {panicked}");
        children.signal_groups(nix::sys::signal::Signal::SIGINT);
        let gone = async {
            while !children.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(self.settings.shutdown_timeout, gone).await;
        Refusal { code: EX_FAILED, why: format!("a defect in podgres: {panicked}; please report it") }
    }
}

/// Any other task that panics takes the loop's orderly way out.
fn stop_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGTERM);
    }));
}

/// Reaps when there is something to reap, and hands every other signal to the loop.
async fn hear(mut signals: Signals, children: Children, events: Events) {
    while let Ok(signal) = signals.next().await {
        match signal {
            Signal::Child => drop(children.reap()),
            other => drop(events.send(Event::Input(crate::lifecycle::Input::Signal(other))).await),
        }
    }
}

/// `-D dir` among PostgreSQL's arguments means what `PGDATA` means.
fn data_directory_argument(arguments: &[String]) -> Option<PathBuf> {
    let at = arguments.iter().rposition(|a| a.starts_with("-D"))?;
    match &arguments[at][2..] {
        "" => arguments.get(at + 1).map(PathBuf::from),
        dir => Some(PathBuf::from(dir)),
    }
}

/// Looks at the data directory, whose owner is the right one, locks it and finishes or removes what an interrupted
/// initialisation or clone left there. Refuses whatever cannot work before anything is changed. `cloned`: an empty one is not initialised but cloned.
fn claim(plan: &Plan, cloned: bool) -> Result<(Content, Option<DirLock>), String> {
    let (pgdata, major) = (&plan.launch.pgdata, plan.launch.bindir.major);
    if !pgdata.is_dir() && datadir::inspect(pgdata, major).map_err(|e| e.to_string())? == Content::Empty {
        if !cloned {
            plan.check().map_err(|e| e.to_string())?;
        }
        make_pgdata(pgdata)?;
    }
    let mut lock = acquire(pgdata)?;
    // What counts is what is found from here on: until the lock is held another container may be at work.
    match stage::recover(pgdata).map_err(|e| format!("an interrupted job on {}: {e}", pgdata.display()))? {
        stage::Leftover::None => {}
        stage::Leftover::Removed => tracing::warn!("an interrupted initialisation or clone was removed"),
        stage::Leftover::Finished => {
            tracing::warn!("an interrupted initialisation or clone was finished");
            // Another inode may have the name now.
            lock = acquire_again(pgdata, lock)?;
        }
    }
    let content = datadir::inspect(pgdata, major).map_err(|e| e.to_string())?;
    match content {
        Content::Empty if cloned => {}
        Content::Empty => plan.check().map_err(|e| e.to_string())?,
        Content::Cluster { backup_label } => {
            if backup_label {
                tracing::warn!(
                    "the data directory holds a backup_label: it is a base backup, and PostgreSQL will recover from \
                     the WAL that came with it; do not remove the file, that would corrupt the data"
                );
            }
            if let Ok(Some(mode)) = datadir::repair_mode(pgdata) {
                tracing::warn!("the data directory had mode {mode:04o}, which PostgreSQL refuses: it is 0700 now");
            }
        }
    }
    Ok((content, lock))
}

fn make_pgdata(pgdata: &Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    let uid = nix::unistd::geteuid();
    fs::DirBuilder::new().mode(0o700).recursive(true).create(pgdata).map_err(|e| {
        format!(
            "cannot make the data directory {} as uid {uid}: {e}. Give the volume to that uid (chown {uid} on its root), \
             or run the container with --user and the uid that owns it",
            pgdata.display()
        )
    })
}

/// The lock on what has the name `pgdata` now. One that is held already cannot be taken twice.
fn acquire_again(pgdata: &Path, held: Option<DirLock>) -> Result<Option<DirLock>, String> {
    match held {
        Some(lock) if lock.is_on(pgdata) => Ok(Some(lock)),
        _ => acquire(pgdata),
    }
}

fn acquire(pgdata: &Path) -> Result<Option<DirLock>, String> {
    let lock = DirLock::acquire(pgdata).map_err(|e| e.to_string())?;
    if lock.is_none() {
        tracing::warn!(
            "the file system of {} has no locks: nothing keeps a second container off this data directory",
            pgdata.display()
        );
    }
    Ok(lock)
}

fn warn_of_surroundings() {
    if let Some(warning) = shm::warning() {
        tracing::warn!("{warning}");
    }
}

/// `postgres --single` and the like: an initialised directory, then PostgreSQL in this process's place, with the lock.
async fn once(
    plan: &Plan,
    content: Content,
    mut lock: Option<DirLock>,
    runner: &Runner,
    mut inbox: mpsc::Receiver<Event>,
) -> Result<i32, Refusal> {
    let failed = |why: String| Refusal { code: EX_FAILED, why };
    if content == Content::Empty {
        let cancel = watch::Sender::new(false);
        // The arguments ask for something other than a server.
        let mut bare = plan.clone();
        bare.launch.arguments.clear();
        let initialise = initialise::initialise(&bare, runner, cancel.subscribe());
        let made = tokio::select! {
            made = initialise => made,
            _ = inbox.recv() => return Err(failed("a signal was received during initialisation".into())),
        };
        lock = made.map_err(|e| failed(e.to_string()))?.or(lock);
    }
    runner.sink.flush(FLUSH_TIMEOUT);
    let mut command = Command::new(plan.launch.bindir.program("postgres"));
    server::clean_environment(&mut command);
    command.args(&plan.launch.arguments).env("PGDATA", &plan.launch.pgdata);
    if let Some(copy) = lock.as_ref().and_then(|l| l.descriptor().ok()) {
        command.preserved_fds(vec![copy]);
    }
    execute(&mut command);
    Ok(126)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &[&str]) -> Invocation {
        Invocation::of(command.iter().map(|a| a.to_string()).collect())
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|a| a.to_string()).collect()
    }

    #[test]
    fn the_rules_of_the_official_image() {
        assert_eq!(of(&[]), Invocation::Serve(vec![]));
        assert_eq!(of(&["postgres"]), Invocation::Serve(vec![]));
        assert_eq!(of(&["postgres", "-c", "a=b"]), Invocation::Serve(list(&["-c", "a=b"])));
        assert_eq!(of(&["-c", "a=b"]), Invocation::Serve(list(&["-c", "a=b"])));
        assert_eq!(of(&["bash", "-c", "true"]), Invocation::Other(list(&["bash", "-c", "true"])));
        for ask in ["--version", "-V", "--help", "-?", "--describe-config"] {
            assert_eq!(of(&["postgres", ask]), Invocation::Ask(list(&[ask])));
            assert_eq!(of(&[ask]), Invocation::Ask(list(&[ask])));
        }
        assert_eq!(of(&["postgres", "--single", "db"]), Invocation::Once(list(&["--single", "db"])));
    }

    #[test]
    fn the_data_directory_of_the_arguments() {
        assert_eq!(data_directory_argument(&list(&["-c", "a=b"])), None);
        assert_eq!(data_directory_argument(&list(&["-D", "/x"])), Some("/x".into()));
        assert_eq!(data_directory_argument(&list(&["-D/x"])), Some("/x".into()));
    }
}
