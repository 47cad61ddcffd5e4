//! The postmaster: how it is started, told to stop, reloaded and promoted.

use std::{
    fs, io,
    os::fd::OwnedFd,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, SystemTime},
};

use command_fds::CommandFdExt;
use nix::sys::signal::Signal;

use super::{
    bindir::Bindir,
    config,
    controldata::State,
    lock::DirLock,
    pidfile::{self, PidFile, Status},
    processes,
};
use crate::{
    lifecycle::{Role, Stop},
    logs,
    pid1::{Child, Runner},
    settings::official::SECRET_VARIABLES,
};

/// What a postmaster is started with.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The programs.
    pub bindir: Bindir,
    /// The data directory.
    pub pgdata: PathBuf,
    /// The user's arguments, without the leading `postgres`.
    pub arguments: Vec<String>,
    /// The manager's own directory for short-lived files.
    pub run_dir: PathBuf,
}

/// Why a postmaster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one runs on the directory.
    #[error(
        "a PostgreSQL that this podgres did not start (pid {0}) runs on the data directory: stop it first, \
         with pg_ctl stop or by ending what started it"
    )]
    Running(nix::unistd::Pid),
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

/// A started postmaster.
pub struct Server {
    /// Its process.
    pub child: Child,
    /// When `postmaster.pid` was last written before this server was started.
    pub stale: Option<SystemTime>,
    pgdata: PathBuf,
    tailer: Option<logs::Tailer>,
}

impl Server {
    /// Starts a postmaster that inherits `lock` and logs through its collector into files that become lines on stdout.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn start(launch: &Launch, lock: Option<&DirLock>, runner: &Runner) -> Result<Self, Error> {
        let failed = |what: &str| {
            let what = what.to_string();
            move |source| Error::Io { what, source }
        };
        let log_dir = launch.run_dir.join("log");
        fs::create_dir_all(&log_dir).map_err(failed(&format!("cannot make {}", log_dir.display())))?;
        let kind = if launch.bindir.major >= 15 { logs::Kind::Json } else { logs::Kind::Csv };
        let tailer = logs::Tailer::start(&log_dir, kind, runner.sink.clone())
            .map_err(failed(&format!("cannot follow the log files in {}", log_dir.display())))?;

        let mut command = command(launch);
        command.args(&launch.arguments);
        for (name, value) in owned_settings(kind, &log_dir, &launch.pgdata) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        if let Some(dir) = other_socket_dir(launch) {
            tracing::warn!(
                "/var/run/postgresql cannot be written: the Unix socket is in {0} instead (psql -h {0})",
                dir.display()
            );
            command.arg("-c").arg(format!("unix_socket_directories={}", dir.display()));
        }
        if let Some(pid) = stale_pid(&launch.pgdata)? {
            command.env("PG_GRANDPARENT_PID", pid.to_string());
        }
        if let Some(lock) = lock {
            remove_pid_file_without_pid(&launch.pgdata);
            remove_stale_socket_locks(&launch.pgdata, Path::new(SOCKET_DIR));
            let copy: OwnedFd = lock.descriptor().map_err(failed("cannot copy the lock's descriptor"))?;
            command.preserved_fds(vec![copy]);
        }
        let stale = pidfile::written(&launch.pgdata);
        let child = runner
            .spawn(&mut command, "postgres")
            .map_err(failed(&format!("cannot execute {}", launch.bindir.program("postgres").display())))?;
        Ok(Self { child, stale, pgdata: launch.pgdata.clone(), tailer: Some(tailer) })
    }

    /// Tells it to stop. Returns at once.
    pub fn stop(&self, how: Stop) {
        match how {
            Stop::Fast => self.child.signal(Signal::SIGINT),
            Stop::Immediate => self.child.signal(Signal::SIGQUIT),
            Stop::Kill => {
                self.child.signal(Signal::SIGKILL);
                processes::signal_all(&processes::of_postgres_on(&self.pgdata), Signal::SIGKILL);
            }
        }
    }

    /// Makes it re-read its configuration files.
    pub fn reload(&self) {
        self.child.signal(Signal::SIGHUP);
    }

    /// Promotes it, as `pg_ctl promote` does: a file and a signal, which needs no connection.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn promote(&self) -> io::Result<()> {
        fs::write(self.pgdata.join("promote"), "")?;
        self.child.signal(Signal::SIGUSR1);
        Ok(())
    }

    /// What it says of itself, once that is about this postmaster and not about an earlier one.
    pub fn pid_file(&self) -> Option<PidFile> {
        PidFile::read(&self.pgdata).filter(|f| f.pid == self.child.pid)
    }

    /// Passes on the log lines that are still in the collector's files. To be called when all its processes are gone.
    pub fn finish_log(&mut self) {
        if let Some(tailer) = self.tailer.take() {
            tailer.finish();
        }
    }
}

/// The role in which the postmaster `pid` accepts connections; none while it does not.
///
/// `postmaster.pid` says "ready" of a hot standby too (`PMSIGNAL_BEGIN_HOT_STANDBY`, postmaster.c). The state in
/// `pg_control` changes at the very moment at which a promoted server begins to accept writes (`StartupXLOG`, xlog.c).
///
/// A file that was not written since `stale` is another server's.
pub fn role(pgdata: &Path, pid: nix::unistd::Pid, stale: Option<SystemTime>) -> Option<Role> {
    if stale.is_some() && pidfile::written(pgdata) == stale {
        return None;
    }
    PidFile::read(pgdata).filter(|f| f.pid == pid && f.status == Some(Status::Ready))?;
    match State::read(pgdata)? {
        State::InArchiveRecovery => Some(Role::Standby),
        _ => Some(Role::Primary),
    }
}

/// `postgres -D <pgdata>` with an environment in which no secret is, and nothing that would mislead its children.
pub fn command(launch: &Launch) -> Command {
    let mut command = Command::new(launch.bindir.program("postgres"));
    command.arg("-D").arg(&launch.pgdata).current_dir("/").stdin(Stdio::null());
    // Or a file that names another one would win.
    command.arg("-c").arg(format!("data_directory={}", launch.pgdata.display()));
    // A group of its own: Ctrl-C at a terminal is for the manager, which knows what to make of it.
    command.process_group(0);
    clean_environment(&mut command);
    command.env("PGDATA", &launch.pgdata);
    command
}

/// Takes out of a child's environment what the official image blanks too (`PGHOST` and its like would send every psql
/// elsewhere), the secrets, and the addresses of Services, which change under a running server.
pub fn clean_environment(command: &mut Command) {
    for name in ["PGHOST", "PGHOSTADDR", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KUBERNETES_") {
            command.env_remove(name);
        }
    }
}

/// The settings that podgres must own to keep its promise about logs, and to be sure that PostgreSQL runs on the directory
/// that is locked and not on one that a `data_directory` in some file names: given last on the command line, where nothing
/// overrides them. Whoever sets them in `postgresql.conf` finds them in `pg_settings` with source "command line".
fn owned_settings(kind: logs::Kind, log_dir: &Path, pgdata: &Path) -> Vec<(&'static str, String)> {
    let destination = match kind {
        logs::Kind::Json => "jsonlog",
        logs::Kind::Csv => "csvlog",
    };
    vec![
        ("logging_collector", "on".into()),
        ("log_destination", destination.into()),
        ("log_directory", log_dir.display().to_string()),
        ("log_filename", "postgres.log".into()),
        ("log_file_mode", "0600".into()),
        ("log_rotation_age", "0".into()),
        ("log_rotation_size", "0".into()),
        ("log_truncate_on_rotation", "off".into()),
        ("log_timezone", "UTC".into()),
        ("data_directory", pgdata.display().to_string()),
    ]
}

const SOCKET_DIR: &str = "/var/run/postgresql";

/// Where the Unix socket goes if its usual place cannot be written (a read-only root file system) and nobody chose one.
fn other_socket_dir(launch: &Launch) -> Option<PathBuf> {
    // Where an empty /run was mounted the directory is missing; making it is all it takes.
    let _ = fs::create_dir(SOCKET_DIR);
    let chosen = config::value_of(&launch.arguments, "unix_socket_directories").is_some()
        || launch.arguments.iter().any(|a| a.starts_with("-k"));
    let debian = launch.bindir.path.starts_with("/usr/lib/postgresql");
    let writable = nix::unistd::access(SOCKET_DIR, nix::unistd::AccessFlags::W_OK).is_ok();
    (debian && !chosen && !writable).then(|| launch.run_dir.clone())
}

/// Removes the sockets, with their lock files, of an earlier postmaster on `pgdata`. Their pids mislead PostgreSQL as
/// that in `postmaster.pid` does, and can be others than that one. A lock file names the data directory, and whoever
/// holds the lock on that knows that nobody serves it, unless the directory of sockets is shared with a container whose
/// data directory has the same name: then somebody answers there.
fn remove_stale_socket_locks(pgdata: &Path, socket_dir: &Path) {
    for path in fs::read_dir(socket_dir).into_iter().flatten().flatten().map(|e| e.path()) {
        if path.extension().is_none_or(|e| e != "lock") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let socket = path.with_extension("");
        if text.lines().nth(1).is_some_and(|dir| Path::new(dir) == pgdata) && !answers(&socket) {
            tracing::info!("{} is left over from an earlier run: removed", path.display());
            let _ = fs::remove_file(&socket);
            let _ = fs::remove_file(&path);
        }
    }
}

/// How long a server may take to take a connection from its queue, if that is full.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Whether somebody listens on a Unix socket. In a thread, since connecting waits where the queue of a frozen server is
/// full; who keeps us waiting is there.
fn answers(socket: &Path) -> bool {
    let (tell, told) = mpsc::channel();
    let socket = socket.to_path_buf();
    std::thread::spawn(move || tell.send(UnixStream::connect(socket).is_ok()));
    told.recv_timeout(ANSWER_TIMEOUT).unwrap_or(true)
}

/// Removes a `postmaster.pid` in which there is no pid, which PostgreSQL refuses to look past ("lock file is empty",
/// "bogus data in lock file"; `CreateLockFile`, miscinit.c): a full disk or a crash of the machine leaves such files. A
/// server that is just writing its first line is no other explanation while we hold the lock and none is running.
fn remove_pid_file_without_pid(pgdata: &Path) {
    let path = pgdata.join("postmaster.pid");
    if PidFile::read(pgdata).is_some() || !path.is_file() || !processes::of_postgres_on(pgdata).is_empty() {
        return;
    }
    match fs::remove_file(&path) {
        Ok(()) => tracing::warn!("postmaster.pid had no process id in it: removed, no PostgreSQL runs here"),
        Err(e) => tracing::warn!("{} has no process id in it and cannot be removed: {e}", path.display()),
    }
}

/// A pid in `postmaster.pid` that PostgreSQL would take for a living postmaster although it is not one: it answers
/// `kill(pid, 0)`, but it is a thread, a zombie or another program. PostgreSQL skips the pid that `PG_GRANDPARENT_PID`
/// names (`CreateLockFile`, miscinit.c) and does all its other checks, the one for shared memory still in use included;
/// removing the file would skip those too.
///
/// # Errors
/// [`Error::Running`] when it is a postmaster.
fn stale_pid(pgdata: &Path) -> Result<Option<nix::unistd::Pid>, Error> {
    let Some(file) = PidFile::read(pgdata) else { return Ok(None) };
    if processes::is_postgres_on(file.pid, pgdata) {
        return Err(Error::Running(file.pid));
    }
    tracing::info!(
        pid = file.pid.as_raw(),
        "postmaster.pid is left over from an earlier run: no PostgreSQL with that pid uses this data directory"
    );
    Ok(Some(file.pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_sockets_of_this_data_directory_that_nobody_answers_on_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [ours, live, other] = [1, 2, 3].map(|n| dir.path().join(format!(".s.PGSQL.{n}")));
        for (socket, pgdata) in [(&ours, "/data"), (&live, "/data"), (&other, "/elsewhere")] {
            fs::write(format!("{}.lock", socket.display()), format!("1\n{pgdata}\n1\n5432\n")).unwrap();
        }
        drop(UnixListener::bind(&ours).unwrap()); // leaves the file
        let _listener = UnixListener::bind(&live).unwrap();
        remove_stale_socket_locks(Path::new("/data"), dir.path());
        let left = |socket: &Path| Path::new(&format!("{}.lock", socket.display())).exists();
        assert_eq!([&ours, &live, &other].map(|s| left(s)), [false, true, true]);
        assert!(!ours.exists() && live.exists());
    }

    #[test]
    fn a_pid_file_is_removed_only_if_no_pid_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postmaster.pid");
        for (text, stays) in
            [("", false), ("nonsense\n", false), ("0\n", false), ("99999999999\n", false), ("42\n", true)]
        {
            fs::write(&path, text).unwrap();
            remove_pid_file_without_pid(dir.path());
            assert_eq!(path.exists(), stays, "{text:?}");
        }
    }

    #[test]
    fn a_pid_file_that_says_ready_from_before_the_start_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("global")).unwrap();
        let mut control = [0; 20];
        control[16..].copy_from_slice(&6_u32.to_ne_bytes());
        fs::write(dir.path().join("global/pg_control"), control).unwrap();
        let file = dir.path().join("postmaster.pid");
        let text = "19\n/data\n1700000000\n5432\n/run\n*\n1 1\nready   \n";
        fs::write(&file, text).unwrap();
        let role = |stale| super::role(dir.path(), nix::unistd::Pid::from_raw(19), stale);
        assert_eq!(role(None), Some(Role::Primary));
        let stale = pidfile::written(dir.path());
        assert_eq!(role(stale), None, "the pid is the same, the server another");
        let later = stale.unwrap() + std::time::Duration::from_millis(1);
        fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        assert_eq!(role(stale), Some(Role::Primary));
    }
}
