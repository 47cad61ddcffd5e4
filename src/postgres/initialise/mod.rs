//! A new data directory: initdb, the database, the scripts of `/docker-entrypoint-initdb.d`.
//!
//! All of it happens in a [`stage`], with a temporary server that listens on a private socket only, and is written to
//! disk before the stage gets its name. So nothing answers where clients ask until it is over, and a failure at any
//! point leaves nothing that could be taken for a database.

mod host;

mod temporary;

use std::{
    fs, io,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::{
    config::{Layers, Refused, parse::parse_line},
    lock::DirLock,
    processes,
    server::{self, Launch},
    space, sql,
    stage::{self, Stage, outside::Outside},
};
use crate::{
    pid1::{Child, Exit, Runner},
    settings::official::Official,
};
use temporary::Temporary;

/// Where the official image looks for scripts.
pub const SCRIPTS_DIR: &str = "/docker-entrypoint-initdb.d";

/// Why there is no new data directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a password nor the explicit wish to have none.
    #[error(
        "Database is uninitialized and superuser password is not specified. Set POSTGRES_PASSWORD to a non-empty \
         value (docker run -e POSTGRES_PASSWORD=…), or POSTGRES_PASSWORD_FILE to the path of a file that holds it. \
         POSTGRES_HOST_AUTH_METHOD=trust lets everybody in without a password: not recommended. Nothing was changed"
    )]
    NoPassword,
    /// `POSTGRES_INITDB_WALDIR` holds something.
    #[error(
        "POSTGRES_INITDB_WALDIR {0} is not empty: name an empty directory, such as one below it. Nothing was changed"
    )]
    WaldirNotEmpty(PathBuf),
    /// The uid has no name and cannot be given one.
    #[error(
        "initdb needs a user name and uid {0} has none: install libnss-wrapper, or run with a uid that /etc/passwd knows"
    )]
    NoUserName(nix::unistd::Uid),
    /// A program failed.
    #[error("{program} {exit}{hint}; its own lines, before this one, say why")]
    Program {
        /// Which one.
        program: String,
        /// How it ended.
        exit: Exit,
        /// What else may explain it.
        hint: String,
    },
    /// The temporary server did not come up, or not go down, in time.
    #[error("the temporary server {0}")]
    Temporary(String),
    /// The database could not be made.
    #[error("cannot create the database {database:?}: {source}")]
    Database {
        /// Its name.
        database: String,
        /// What PostgreSQL said.
        #[source]
        source: sql::Error,
    },
    /// The configuration has mistakes.
    #[error(transparent)]
    Configuration(#[from] Refused),
    /// It was told to stop.
    #[error("it was told to stop")]
    Cancelled,
    /// The directory could not be put into place.
    #[error(transparent)]
    Publish(#[from] stage::PublishError),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Says what was tried when the system refuses.
fn trying(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// Everything that a new data directory depends on.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server that will run on it.
    pub launch: Launch,
    /// The official image's variables.
    pub official: Official,
    /// Where the scripts are; [`SCRIPTS_DIR`] but for tests.
    pub scripts_dir: PathBuf,
    /// Where the user's configuration is.
    pub config_dir: PathBuf,
    /// Whether standbys are to confirm commits.
    pub synchronous: bool,
}

impl Plan {
    /// Finds what would make the initialisation fail, before anything is touched.
    ///
    /// # Errors
    /// [`Error::NoPassword`], [`Error::WaldirNotEmpty`], [`Error::NoUserName`].
    pub fn check(&self) -> Result<(), Error> {
        if self.official.password.is_none() && !self.official.trusts_everybody() {
            return Err(Error::NoPassword);
        }
        let mut names = self.official.waldir.iter().filter_map(|d| fs::read_dir(d).ok()).flatten().flatten();
        if let (Some(dir), true) = (&self.official.waldir, names.any(|e| e.file_name() != "lost+found")) {
            return Err(Error::WaldirNotEmpty(dir.clone()));
        }
        host::UserName::check()
    }

    /// Where the server's configuration comes from.
    pub fn layers(&self) -> Layers {
        Layers::new(&self.launch, &self.config_dir).synchronous(self.synchronous)
    }

    fn pgdata(&self) -> &Path {
        &self.launch.pgdata
    }
}

/// Makes a data directory as planned. `PGDATA` exists, is empty and is locked by the caller. Returns the lock on the
/// new directory where it replaced the old one. Ends early, and cleans up, when `cancel` becomes true.
///
/// # Errors
/// See [`Error`]; `PGDATA` is as empty as before.
pub async fn initialise(
    plan: &Plan,
    runner: &Runner,
    mut cancel: watch::Receiver<bool>,
) -> Result<Option<DirLock>, Error> {
    let stage = Stage::begin(plan.pgdata()).map_err(trying(format!(
        "cannot make a directory for the initialisation in or beside {}",
        plan.pgdata().display()
    )))?;
    let built = tokio::select! {
        built = build(plan, &stage, runner) => built,
        _ = cancel.wait_for(|c| *c) => Err(Error::Cancelled),
    };
    match built {
        Ok(()) => Ok(stage.publish()?),
        Err(error) => {
            stop_everything(&stage, runner).await;
            if let Err(e) = stage.discard() {
                tracing::warn!(
                    "the unfinished data directory could not be removed, the next start will try again: {e}"
                );
            }
            Err(error)
        }
    }
}

async fn build(plan: &Plan, stage: &Stage, runner: &Runner) -> Result<(), Error> {
    if let Some(waldir) = &plan.official.waldir {
        stage
            .note(&[Outside::Emptied(waldir.clone())])
            .map_err(trying("cannot write into the data directory's volume"))?;
    }
    initdb(plan, stage, runner).await?;
    configure(plan, &stage.data()).map_err(trying("cannot write the configuration of the new data directory"))?;
    let scripts = scripts(&plan.scripts_dir)?;
    let server = Temporary::start(plan, &stage.data(), runner).await?;
    plan.layers().check_rules_on(&stage.data(), &server.local(plan)).await?;
    create_database(plan, &server).await?;
    run_scripts(plan, &server, &scripts, runner).await?;
    server.stop().await?;
    write_to_disk(&stage.data()).map_err(trying("cannot write the new data directory to disk"))
}

async fn initdb(plan: &Plan, stage: &Stage, runner: &Runner) -> Result<(), Error> {
    let mut command = Command::new(plan.launch.bindir.program("initdb"));
    server::clean_environment(&mut command);
    let user_name = host::UserName::get(&plan.launch.run_dir)?;
    user_name.give_to(&mut command);
    // Its own sync would come too early: the temporary server and the scripts write too. See `write_to_disk`.
    command.args(["--no-sync", "--username", &plan.official.user]).arg("--pgdata").arg(stage.data());
    if let Some(waldir) = &plan.official.waldir {
        command.arg("--waldir").arg(waldir);
    }
    if let Some(password) = &plan.official.password {
        command
            .arg("--pwfile=/dev/stdin")
            .stdin(password_pipe(password.expose()).map_err(trying("cannot make a pipe"))?);
    } else {
        command.stdin(Stdio::null());
    }
    command.args(&plan.official.initdb_args).process_group(0);
    let child = runner.spawn(&mut command, "initdb").map_err(trying("cannot execute initdb"))?;
    succeed("initdb", child, plan.pgdata()).await
}

/// A pipe that holds one line. Pipes hold at least 4096 bytes, more than initdb takes of a password.
fn password_pipe(password: &str) -> io::Result<Stdio> {
    let (read, mut write) = io::pipe()?;
    write.write_all(format!("{}\n", password.lines().next().unwrap_or_default()).as_bytes())?;
    Ok(read.into())
}

async fn succeed(program: &str, mut child: Child, pgdata: &Path) -> Result<(), Error> {
    match child.wait().await {
        Exit::Code(0) => Ok(()),
        exit => Err(Error::Program { program: program.into(), exit, hint: space::hint(pgdata) }),
    }
}

/// What the official image adds to initdb's work: connections from everywhere, with a password. And what podgres sizes by
/// the container is not to be hidden by the values that initdb writes for every machine.
fn configure(plan: &Plan, data: &Path) -> io::Result<()> {
    let path = data.join("postgresql.conf");
    let conf = fs::read_to_string(&path)?;
    let conf = match conf.contains("\n#listen_addresses = 'localhost'") {
        true => conf.replacen("\n#listen_addresses = 'localhost'", "\nlisten_addresses = '*'", 1),
        false => conf,
    };
    fs::write(&path, without_sizes(&conf))?;

    let mut hba = fs::OpenOptions::new().append(true).open(data.join("pg_hba.conf"))?;
    if plan.official.trusts_everybody() {
        writeln!(hba, "# warning: trust lets everybody in who can reach the server, without a password")?;
    }
    writeln!(hba, "\nhost all all all {}", host_auth_method(plan))
}

/// Makes comments of the lines in which initdb wrote its own sizes. Those that it chose because the machine has less, or
/// that `--set` gave it, stay.
fn without_sizes(conf: &str) -> String {
    let mut text = String::new();
    for line in conf.lines() {
        let sized = [("shared_buffers", "128MB"), ("max_wal_size", "1GB")];
        match parse_line(line).filter(|(n, v)| sized.contains(&(n.as_str(), v.as_str()))) {
            Some((name, _)) => {
                text += &format!("#{line} -- podgres: podgres status --settings shows {name}'s default\n")
            }
            None => text.extend([line, "\n"]),
        }
    }
    text
}

/// The method that fits how passwords are stored, which an argument may change and which was md5 before 14.
fn host_auth_method(plan: &Plan) -> &str {
    let md5 = plan.launch.arguments.iter().any(|a| a.contains("password_encryption") && a.ends_with("md5"));
    match &plan.official.host_auth_method {
        Some(method) => method,
        None if md5 || plan.launch.bindir.major < 14 => "md5",
        None => "scram-sha-256",
    }
}

async fn create_database(plan: &Plan, server: &Temporary) -> Result<(), Error> {
    let database = &plan.official.database;
    if database == "postgres" {
        return Ok(());
    }
    let failed = |source: sql::Error| Error::Database { database: database.clone(), source };
    let create = async {
        let session = server.connect(plan).await?;
        let client = &session.client;
        if client.query_opt("select 1 from pg_database where datname = $1", &[database]).await?.is_none() {
            client.batch_execute("set statement_timeout = 0").await?;
            client.batch_execute(&format!("create database \"{}\"", database.replace('"', "\"\""))).await?;
        }
        session.close().await;
        Ok(())
    };
    create.await.map_err(failed)
}

/// The files in the order of their names.
fn scripts(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(trying(format!("cannot read {}", dir.display())))?,
    };
    let mut paths: Vec<PathBuf> =
        entries.flatten().filter(|e| !e.file_name().to_string_lossy().starts_with('.')).map(|e| e.path()).collect();
    paths.sort();
    Ok(paths)
}

async fn run_scripts(plan: &Plan, server: &Temporary, scripts: &[PathBuf], runner: &Runner) -> Result<(), Error> {
    if scripts.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("bash");
    server::clean_environment(&mut command);
    server.give_to(&mut command);
    let official = &plan.official;
    command.env("POSTGRES_USER", &official.user).env("POSTGRES_DB", &official.database);
    if let Some(password) = &official.password {
        command.env("POSTGRES_PASSWORD", password.expose()).env("PGPASSWORD", password.expose());
    }
    command.args(["-c", include_str!("scripts.bash"), "podgres"]).args(scripts);
    command.stdin(Stdio::null()).process_group(0);
    let child = runner.spawn(&mut command, "initdb.d").map_err(trying("cannot execute bash"))?;
    succeed(&format!("a script of {}", plan.scripts_dir.display()), child, plan.pgdata()).await
}

/// Everything that initdb, the temporary server (which runs with `fsync=off`) and the scripts wrote, in one go for each
/// file system involved: the data directory's, a WAL directory's, each tablespace's.
fn write_to_disk(data: &Path) -> io::Result<()> {
    let tablespaces = fs::read_dir(data.join("pg_tblspc"))?.flatten().map(|e| e.path());
    for dir in [data.to_path_buf(), data.join("pg_wal")].into_iter().chain(tablespaces) {
        nix::unistd::syncfs(fs::File::open(dir)?)?;
    }
    Ok(())
}

/// Ends whatever a failed or cancelled initialisation still has running.
async fn stop_everything(stage: &Stage, runner: &Runner) {
    for (signal, patience) in [(Signal::SIGTERM, 1_000), (Signal::SIGKILL, 5_000)] {
        runner.children.signal_groups(signal);
        let server = processes::of_postgres_on(&stage.data());
        // Immediate: what it would write is thrown away.
        processes::signal_all(&server, if signal == Signal::SIGTERM { Signal::SIGQUIT } else { signal });
        let gone = async {
            while !runner.children.is_empty() || !processes::of_postgres_on(&stage.data()).is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_millis(patience), gone).await.is_ok() {
            return;
        }
    }
}
