//! Whether PostgreSQL accepts connections, asked the way `pg_isready` does: with a new one.
//!
//! An open connection proves nothing: it answers while the postmaster is frozen. Any answer to a new one but "the
//! database system is starting up" (or shutting down, or in recovery without hot standby) means that connections are
//! accepted, also "too many clients" and "password authentication failed" (`PQping`, fe-connect.c).

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_postgres::{NoTls, error::SqlState};

use super::sql::Login;

/// How long an answer may take. The kubelet gives a probe a second by default.
pub const TIMEOUT: Duration = Duration::from_millis(900);

/// What a new connection met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ping {
    /// Connections are accepted.
    Accepting,
    /// PostgreSQL runs, and rejects connections for now.
    Rejecting,
    /// Nobody answered in time ([`TIMEOUT`], unless said otherwise).
    NoAnswer,
}

/// An answer that is younger than this serves the next question too, so that a flood of probes is no flood of
/// connections.
const FRESH: Duration = Duration::from_millis(250);

/// Asks again and again.
#[derive(Debug, Default)]
pub struct Pinger {
    /// The login is not welcome, and each try would write a FATAL line into PostgreSQL's log.
    unwelcome: bool,
    latest: Option<(Instant, Ping)>,
}

impl Pinger {
    /// Opens one new connection to the server whose socket is in `socket_dir`, and closes it, unless that was done just
    /// now.
    pub async fn ping(&mut self, socket_dir: &Path, port: u16, login: &Login) -> Ping {
        if let Some((_, ping)) = self.latest.filter(|(at, _)| at.elapsed() < FRESH) {
            return ping;
        }
        let ping = self.ask(socket_dir, port, login, TIMEOUT).await;
        self.latest = Some((Instant::now(), ping));
        ping
    }

    /// [`Pinger::ping`] without regard to any earlier answer. It waits for one for `patience`.
    pub async fn ask(&mut self, socket_dir: &Path, port: u16, login: &Login, patience: Duration) -> Ping {
        let asked = async {
            if self.unwelcome { greet(socket_dir, port).await } else { self.log_in(socket_dir, port, login).await }
        };
        tokio::time::timeout(patience, asked).await.unwrap_or(Ping::NoAnswer)
    }

    async fn log_in(&mut self, socket_dir: &Path, port: u16, login: &Login) -> Ping {
        let mut config = tokio_postgres::Config::new();
        config.host_path(socket_dir).port(port).user(&login.user).dbname("postgres").application_name("podgres ping");
        if let Some(password) = &login.password {
            config.password(password.expose());
        }
        let Err(error) = config.connect(NoTls).await else { return Ping::Accepting };
        match error.code() {
            Some(code) if *code == SqlState::CANNOT_CONNECT_NOW => Ping::Rejecting,
            Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => Ping::Accepting,
            Some(_) => {
                self.unwelcome = true;
                Ping::Accepting
            }
            // No answer of the server, but of the client: it was asked for a password and has none, or the socket is
            // dead. A greeting tells which.
            None => greet(socket_dir, port).await,
        }
    }
}

/// Asks only whether the server would speak TLS (`SSLRequest`). A backend is forked and answers with one byte; that the
/// client then hangs up is no news to it (`ProcessStartupPacket`). Unlike a login this does not tell a server that is
/// just recovering from the crash of a backend.
async fn greet(socket_dir: &Path, port: u16) -> Ping {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    let asked = async {
        let mut stream = UnixStream::connect(socket_dir.join(format!(".s.PGSQL.{port}"))).await?;
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_u8().await
    };
    if asked.await.is_ok() { Ping::Accepting } else { Ping::NoAnswer }
}
