//! Whether PostgreSQL accepts connections, asked the way `pg_isready` does: with a new one.
//!
//! An open connection proves nothing: it answers while the postmaster is frozen. Any answer to a new one but "the
//! database system is starting up" (or shutting down, or in recovery without hot standby) means that connections are
//! accepted, also "too many clients" and "password authentication failed" (`PQping`, fe-connect.c).

use std::{path::Path, time::Duration};

use serde::Serialize;
use tokio_postgres::{NoTls, error::SqlState};

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
    /// Nobody answered in [`TIMEOUT`].
    NoAnswer,
}

/// Opens one new connection to the server whose socket is in `socket_dir`, and closes it.
pub async fn ping(socket_dir: &Path, port: u16) -> Ping {
    let mut config = tokio_postgres::Config::new();
    config.host_path(socket_dir).port(port).user("postgres").dbname("postgres").application_name("podgres ping");
    match tokio::time::timeout(TIMEOUT, config.connect(NoTls)).await {
        Err(_) => Ping::NoAnswer,
        Ok(Ok(_)) => Ping::Accepting,
        Ok(Err(error)) => match error.code() {
            Some(code) if *code == SqlState::CANNOT_CONNECT_NOW => Ping::Rejecting,
            Some(_) => Ping::Accepting,
            // The server asks for a password that was not given: an answer too.
            None if error.to_string().contains("password") || error.to_string().contains("authentication") => {
                Ping::Accepting
            }
            None => Ping::NoAnswer,
        },
    }
}
