//! PostgreSQL's configuration, in layers. Nothing in the data directory is edited for it.
//!
//! Into `run-dir`/config podgres writes, at each start and reload, a `postgresql.conf` that includes, in this order:
//!
//! 1. `defaults.conf`: built-in defaults, sized to the container (`sizing.rs`);
//! 2. the base: `PGDATA/postgresql.conf`, or the file that `config_file` on the command line names;
//! 3. `user.conf`: `postgresql.conf` of `config-dir` as it was when it was found good, with its includes in place;
//! 4. `owned.conf`: what podgres must own.
//!
//! `ALTER SYSTEM` (`postgresql.auto.conf`) and then the command line come last, as always with PostgreSQL; what is owned
//! is taken out of the former.
//!
//! New files are tried by `postgres -C` before they are used (`check.rs`); a mistake keeps the old ones. The files with
//! which the server last became ready, or that it has put in force as a whole since, are kept durably (`proven.rs`): a
//! start with others that fail begins again with those.
//!
//! [`Config`] belongs to the manager's loop. What takes time (to read, to ask PostgreSQL, to write) are futures that
//! depend on nothing but their own copy of the inputs, and wait for each other.

mod arguments;
mod check;
pub(crate) mod files;
pub(crate) mod hba;
mod limits;
pub mod parse;
mod proven;
mod reload;
pub mod report;
mod sizing;
pub mod standby;
mod start;
mod synchronous;
mod tokens;
pub mod watch;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::{server::Launch, sql::Local};
use crate::pid1::{Child, Children, Exit};
use arguments::Arguments;
use files::{Content, UserFiles};
pub use hba::Tls;
use limits::Limits;
use parse::Mistake;
pub use reload::{Answer, Running};
pub use report::Report;
pub use start::Started;

/// For the queries about the user's rules.
const RULES_TIMEOUT: Duration = Duration::from_secs(4);

/// Where the layers come from.
#[derive(Debug, Clone)]
pub struct Layers {
    launch: Launch,
    arguments: Arguments,
    config_dir: PathBuf,
    synchronous: bool,
    /// Other files whose change is of interest.
    watched: Vec<PathBuf>,
}

impl Layers {
    /// Those of a server that is started as `launch` says, with the user's files in `config_dir`.
    pub fn new(launch: &Launch, config_dir: &Path) -> Self {
        let arguments = Arguments::of(&launch.arguments);
        let (config_dir, watched) = (config_dir.to_path_buf(), Vec::new());
        Self { launch: launch.clone(), arguments, config_dir, synchronous: false, watched }
    }

    /// With these files a change of which is of interest too.
    pub fn watching(self, watched: Vec<PathBuf>) -> Self {
        Self { watched, ..self }
    }

    /// Whether these are a synchronous cluster's, where what would lose commits is a mistake.
    pub fn synchronous(self, synchronous: bool) -> Self {
        Self { synchronous, ..self }
    }

    /// Where PostgreSQL reads its files.
    fn dir(&self) -> PathBuf {
        self.launch.run_dir.join("config")
    }

    /// Where files are tried.
    fn candidate_dir(&self) -> PathBuf {
        self.launch.run_dir.join("config.new")
    }

    fn defaults(&self, files: &UserFiles) -> Vec<sizing::Default> {
        let limits = Limits::of_this_process(&self.launch.pgdata);
        let argument =
            arguments::settings(&self.arguments.rest).into_iter().rev().find(|(n, _)| n == "max_connections");
        let max_connections = argument.map(|(_, v)| v).or_else(|| Some(files.last("max_connections")?.0.value));
        sizing::sizing(&limits, max_connections.and_then(|v| v.parse().ok()).unwrap_or(100))
    }

    /// Looks, before anything is touched, whether the user's files can work on a data directory that is yet to be made.
    ///
    /// # Errors
    /// What is wrong with them.
    pub async fn check(&self, children: &Children) -> Result<(), Refused> {
        let files = UserFiles::read(self, &self.launch.pgdata).map_err(Refused::one)?;
        start::validate(self, &Inputs::default(), &files, children).await
    }

    /// The arguments for the server that runs while the data directory `data` is made: the same layers, with nothing
    /// that is for others. Whoever reaches its private socket is let in: the user's rules need not be for that.
    ///
    /// # Errors
    /// What is wrong with the user's files.
    pub fn arguments_on(&self, data: &Path) -> Result<Vec<String>, Refused> {
        let files = UserFiles::read(self, data).map_err(Refused::one)?;
        let dir = self.init_dir();
        let (inputs, defaults) = (Inputs::default(), self.defaults(&files));
        let content = inputs.content(&files, &defaults, false);
        let written = content.write_settings(&dir).and_then(|()| files::let_everybody_in(&dir));
        written.map_err(|e| cannot_write(&dir, &e))?;
        Ok(start::arguments(&self.arguments.rest, &dir))
    }

    /// Has that server, which `local` leads to, look at the user's rules.
    ///
    /// # Errors
    /// What is wrong with them.
    pub async fn check_rules_on(&self, data: &Path, local: &Local) -> Result<(), Refused> {
        let files = UserFiles::read(self, data).map_err(Refused::one)?;
        if files.hba.path.starts_with(data) && files.ident.path.starts_with(data) {
            // As initdb made them.
            return Ok(());
        }
        let dir = self.init_dir();
        let inputs = Inputs::default();
        inputs.content(&files, &[], true).write_rules(&dir).map_err(|e| cannot_write(&dir, &e))?;
        let asked = async |client: &Client| hba::mistakes(client, &files.hba, &files.ident).await;
        let mistakes = local.within(RULES_TIMEOUT, asked).await;
        files::let_everybody_in(&dir).map_err(|e| cannot_write(&dir, &e))?;
        match mistakes {
            Ok(mistakes) if mistakes.is_empty() => Ok(()),
            Ok(mistakes) => Err(Refused { mistakes, exit: EX_CONFIG }),
            Err(error) => {
                tracing::warn!("pg_hba.conf could not be checked before its use: {error}");
                Ok(())
            }
        }
    }

    /// Where the server of an initialisation reads its files.
    fn init_dir(&self) -> PathBuf {
        self.launch.run_dir.join("config.init")
    }
}

/// What the rest of podgres wants of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Inputs {
    owned: Vec<(&'static str, String)>,
    replication_user: Option<String>,
    tls: hba::Tls,
}

impl Inputs {
    fn content<'a>(&'a self, files: &'a UserFiles, defaults: &'a [sizing::Default], copy_base: bool) -> Content<'a> {
        let replication_user = self.replication_user.as_deref();
        Content { files, copy_base, defaults, owned: &self.owned, replication_user, tls: self.tls }
    }

    /// The names of all settings that must not be in `postgresql.auto.conf`. Those that make a standby go together: half
    /// of them from an earlier life would lead it to another primary.
    fn owned_names(&self) -> Vec<&'static str> {
        const STANDBY: [&str; 3] = ["primary_conninfo", "primary_slot_name", "recovery_target_timeline"];
        let mut names: Vec<&str> = self.owned.iter().map(|(name, _)| *name).collect();
        if names.iter().any(|n| STANDBY.contains(n)) {
            names.extend(STANDBY);
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Why a configuration is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is refused: {}", list(.mistakes))]
pub struct Refused {
    /// What is wrong.
    pub mistakes: Vec<Mistake>,
    /// The exit code for it where there is no other configuration to start with: `EX_CONFIG` when all of it is in
    /// files, where somebody has to correct it, else the one with which PostgreSQL itself ends because of it.
    pub exit: i32,
}

/// `EX_CONFIG` of `sysexits.h`.
const EX_CONFIG: i32 = 78;

impl Refused {
    fn one(mistake: Mistake) -> Self {
        Self { mistakes: vec![mistake], exit: EX_CONFIG }
    }

    /// What `postgres -C`, which ended like this, has to say.
    fn by_postgres(mistakes: Vec<Mistake>, exit: Exit) -> Self {
        let in_files = mistakes.iter().all(|m| m.place.is_some());
        let exit = match exit {
            _ if in_files => EX_CONFIG,
            Exit::Code(code) => code,
            Exit::Signal(number) => 128 + number,
        };
        Self { mistakes, exit }
    }
}

fn list(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn cannot_write(dir: &Path, error: &std::io::Error) -> Refused {
    let text = format!("cannot write PostgreSQL's files into {}: {error}", dir.display());
    Refused::one(Mistake { place: None, text })
}

/// What PostgreSQL has, and had.
#[derive(Default)]
struct Live {
    /// What the files in use were made from.
    installed: Option<Installed>,
    /// The last that worked. None: not looked up yet.
    proven: Option<Option<UserFiles>>,
    /// With which it ended before it was ready.
    rejected: Option<u64>,
    /// The settings of [`standby::SENSITIVE`] with which a standby was started.
    sensitive: Vec<(&'static str, i64)>,
}

struct Installed {
    files: UserFiles,
    inputs: Inputs,
    defaults: Vec<sizing::Default>,
}

/// The configuration of one server.
pub struct Config {
    layers: Rc<Layers>,
    inputs: Inputs,
    children: Children,
    // Held through each job: they follow one another in the order in which they were begun.
    live: Rc<Mutex<Live>>,
    // Set by each job before the next one begins, which has to know it.
    report: Rc<RefCell<Arc<Report>>>,
}

impl Config {
    /// The configuration that `layers` make.
    pub fn new(layers: Layers, children: Children) -> Self {
        let (live, report) = (Rc::default(), Rc::default());
        Self { layers: Rc::new(layers), inputs: Inputs::default(), children, live, report }
    }

    /// Sets what podgres owns in files. It takes effect with the next start or reload.
    pub fn set_owned(&mut self, owned: Vec<(&'static str, String)>) {
        self.inputs.owned = owned;
    }

    /// Takes back what podgres owns on a standby, which has become a primary. What only a start can change stays until then:
    /// it means nothing to a primary, and taken back it would be reported as waiting for a restart.
    pub fn disown_standby(&mut self) {
        const OF_STANDBYS: [&str; 5] = [
            "primary_conninfo",
            "primary_slot_name",
            "sync_replication_slots",
            "hot_standby_feedback",
            "wal_receiver_status_interval",
        ];
        self.inputs.owned.retain(|(name, _)| !OF_STANDBYS.contains(name));
    }

    /// Sets one setting that podgres owns. It takes effect with the next start or reload.
    pub fn own(&mut self, name: &'static str, value: String) {
        self.inputs.owned.retain(|(n, _)| *n != name);
        self.inputs.owned.push((name, value));
    }

    /// Puts what podgres owns in force in a server that runs, and nothing else: the user's files are not looked at, which
    /// would take time that commits may be waiting for.
    pub fn put_in_force(&self, child: Child) -> impl Future<Output = std::io::Result<()>> + use<> {
        let job = self.job();
        async move {
            let mut live = job.live.lock().await;
            start::disown(&job);
            files::write_owned(&job.layers.dir(), &job.inputs.owned)?;
            if let Some(installed) = &mut live.installed {
                installed.inputs = job.inputs.clone();
            }
            child.signal(nix::sys::signal::Signal::SIGHUP);
            Ok(())
        }
    }

    /// Sets the role that podgres' own rules in `pg_hba.conf` let in. It takes effect with the next start or reload.
    pub fn set_replication_user(&mut self, user: Option<String>) {
        self.inputs.replication_user = user;
    }

    /// Sets what TLS demands of `pg_hba.conf`, and which certificate it is. It takes effect with the next start or reload.
    pub fn set_tls(&mut self, tls: Tls) {
        self.inputs.tls = tls;
    }

    /// The layers.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Prepares a start: reads, checks and writes all files and says with which arguments. A configuration that has
    /// mistakes, or was rejected, gives way to the one that last worked.
    pub fn prepare(&self) -> impl Future<Output = Result<Started, Refused>> + use<> {
        let (job, report) = (self.job(), self.report.clone());
        async move {
            let live = job.live.clone();
            let mut live = live.lock().await;
            let (started, now) = start::prepare(&job, &mut live).await?;
            report.replace(Arc::new(now));
            Ok(started)
        }
    }

    /// Reads all files anew and, if they are good, hands them to the `running` server. With `only_changes` an unchanged
    /// configuration disturbs nobody. In words: what is in use then, or why that is not the new configuration; none:
    /// nothing was new.
    pub fn reload(&self, running: Running, only_changes: bool) -> impl Future<Output = Answer> + use<> {
        let (job, report) = (self.job(), self.report.clone());
        async move {
            let live = job.live.clone();
            let mut live = live.lock().await;
            let before = report.borrow().clone();
            let (answer, now) = reload::reload(&job, &mut live, &running, only_changes, &before).await;
            if let Some(now) = now {
                report.replace(Arc::new(now));
            }
            answer
        }
    }

    /// The server became ready: its files are kept as the last that worked.
    pub fn ready(&self) {
        let job = self.job();
        tokio::task::spawn_local(async move { proven::keep(&job.layers, &mut *job.live.lock().await) });
    }

    /// The server ended before it was ready: its files are not tried again until they change.
    pub fn reject(&self) {
        let live = self.live.clone();
        tokio::task::spawn_local(async move {
            let mut live = live.lock().await;
            live.rejected = live.installed.as_ref().map(|i| i.files.fingerprint());
        });
    }

    /// Which settings a running standby has smaller than `pg_control` now demands: its primary was restarted with more,
    /// and replay waits (from 14 on) until this server is restarted too. Empty on a primary.
    pub fn too_small(&self) -> impl Future<Output = Vec<standby::Raise>> + use<> {
        let job = self.job();
        async move {
            let launch = &job.layers.launch;
            let here = job.live.lock().await.sensitive.clone();
            if here.is_empty() || !standby::is_standby(&launch.pgdata) {
                return Vec::new();
            }
            standby::too_small(&here, &standby::demands(&launch.bindir, &launch.pgdata, &job.children).await)
        }
    }

    /// How things are.
    pub fn report(&self) -> Arc<Report> {
        self.report.borrow().clone()
    }

    fn job(&self) -> Job {
        Job {
            layers: self.layers.clone(),
            inputs: self.inputs.clone(),
            children: self.children.clone(),
            live: self.live.clone(),
        }
    }
}

/// What one job works with.
struct Job {
    layers: Rc<Layers>,
    inputs: Inputs,
    children: Children,
    live: Rc<Mutex<Live>>,
}

/// The value of `name` in the files of a server that is started with `arguments`, or on its command line. None: nobody
/// set it.
pub fn value_of(arguments: &[String], name: &str) -> Option<String> {
    let settings = arguments::settings(arguments);
    let of = |name: &str| settings.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    of(name).or_else(|| {
        let flat = parse::Flat::read(Path::new(&of("config_file")?)).ok()??;
        flat.entries().rev().find(|e| e.name == name).map(|e| e.value)
    })
}
