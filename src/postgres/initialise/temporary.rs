//! The server that runs while a data directory is made: on a private socket, seen by nobody but the scripts.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{Error, Plan, trying};
use crate::{
    pid1::{Child, Runner},
    postgres::{
        pidfile::{PidFile, Status},
        processes,
        server::{self, Launch},
        sql::{self, Local, Login, Session},
    },
};

/// How long it may take to come up. A new data directory has nothing to recover.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long its fast shutdown may take: the checkpoint writes what the scripts loaded, which can be much.
const STOP_TIMEOUT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(5);

/// The running server.
pub(super) struct Temporary {
    child: Child,
    data: PathBuf,
    socket_dir: PathBuf,
    port: u16,
}

impl Temporary {
    /// Starts it on `data` with the user's own configuration and arguments, as the official image does, and waits until it is ready.
    pub(super) async fn start(plan: &Plan, data: &Path, runner: &Runner) -> Result<Self, Error> {
        let socket_dir = plan.launch.run_dir.join("init");
        // Of an initialisation that was killed: its socket's lock file names a pid that may be somebody else's by now.
        match fs::remove_dir_all(&socket_dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(trying(format!("cannot remove {}", socket_dir.display()))(e));
            }
            _ => {}
        }
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(&socket_dir);
        made.map_err(trying(format!("cannot make {}", socket_dir.display())))?;
        let launch = Launch { pgdata: data.to_path_buf(), ..plan.launch.clone() };
        let mut command = server::command(&launch);
        command.args(plan.layers().arguments_on(data)?);
        for setting in
            ["listen_addresses=", "unix_socket_permissions=0700", "logging_collector=off", "log_destination=stderr"]
        {
            command.args(["-c", setting]);
        }
        // Written to disk in one go when all is done.
        command.args(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "log_timezone=UTC"]);
        command.arg("-c").arg(format!("unix_socket_directories={}", socket_dir.display()));
        let child = runner.spawn(&mut command, "postgres").map_err(trying("cannot execute postgres"))?;
        let mut server = Self { child, data: data.to_path_buf(), socket_dir, port: 0 };
        server.port = server.ready().await?;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<u16, Error> {
        let (data, mut child) = (self.data.clone(), self.child.clone());
        let port = async {
            loop {
                match PidFile::read(&data) {
                    Some(PidFile { status: Some(Status::Ready), port, .. }) => return port,
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        };
        tokio::select! {
            port = port => Ok(port),
            exit = child.wait() => Err(Error::Temporary(format!("{exit} before it was ready; its own lines say why"))),
            () = tokio::time::sleep(START_TIMEOUT) => {
                Err(Error::Temporary(format!("was not ready within {} s", START_TIMEOUT.as_secs())))
            }
        }
    }

    /// How it is reached as the superuser.
    pub(super) fn local(&self, plan: &Plan) -> Local {
        let login = Login { user: plan.official.user.clone(), password: plan.official.password.clone() };
        Local { socket_dir: self.socket_dir.clone(), port: self.port, login }
    }

    /// Connects to it as the superuser.
    pub(super) async fn connect(&self, plan: &Plan) -> Result<Session, sql::Error> {
        let Local { socket_dir, port, login } = self.local(plan);
        Session::open(&socket_dir, port, &login, "postgres").await
    }

    /// Leads a child's psql to it.
    pub(super) fn give_to(&self, command: &mut Command) {
        command.env("PGHOST", &self.socket_dir).env("PGPORT", self.port.to_string()).env("PGDATA", &self.data);
    }

    /// Stops it, or the one that a script put in its place (`pg_ctl restart` is a habit of some).
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        let stopped = async {
            self.child.signal(Signal::SIGINT);
            self.child.wait().await;
            while let Some(file) = PidFile::read(&self.data) {
                if !processes::is_postgres_on(file.pid, &self.data) {
                    return Err(Error::Temporary("ended without a shutdown; its own lines say why".into()));
                }
                processes::signal_all(&[file.pid], Signal::SIGINT);
                tokio::time::sleep(POLL * 20).await;
            }
            Ok(())
        };
        match tokio::time::timeout(STOP_TIMEOUT, stopped).await {
            Ok(result) => result,
            Err(_) => Err(Error::Temporary(format!("did not stop within {} s", STOP_TIMEOUT.as_secs()))),
        }
    }
}
