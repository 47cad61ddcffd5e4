//! The queries. Each has its deadlines, on the server and here, and runs with `synchronous_commit = local`, so that
//! none of podgres' own work ever waits for a standby.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::replication::stat::{self, Replication};
use crate::{secrets, settings::official::Secret};

/// From the first byte of the connection to the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How podgres connects to its own server.
#[derive(Debug, Clone)]
pub struct Login {
    /// A superuser.
    pub user: String,
    /// For servers whose `pg_hba.conf` asks for it.
    pub password: Option<Secret>,
}

/// What only a query can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// The timeline that a primary writes or a standby receives; of a standby that does not stream, the timeline of its
    /// latest restart point.
    pub timeline: Option<i32>,
    /// The primary's write position, or how far a standby has replayed, as PostgreSQL writes it (`0/16B3748`).
    pub lsn: Option<String>,
    /// Whether a standby receives WAL from its primary right now.
    pub streaming: bool,
    /// How many bytes a standby's replay is behind what its primary last reported; none where it does not stream.
    pub lag_bytes: Option<i64>,
    /// The settings whose changed value waits for a restart.
    pub pending_restart: Vec<PendingRestart>,
    /// PostgreSQL's version, in full.
    pub version: String,
    /// The cluster's identity.
    pub system_identifier: String,
}

/// A changed setting that waits for a restart.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PendingRestart {
    /// The setting.
    pub name: String,
    /// Its value now.
    pub value: String,
    /// Its value after the restart.
    pub new_value: String,
}

impl std::fmt::Display for PendingRestart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} → {}", self.name, self.value, self.new_value)
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It took longer than it may.
    #[error("PostgreSQL did not answer in time")]
    Timeout,
    /// PostgreSQL refused.
    #[error("PostgreSQL refused: {0}")]
    Refused(String),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Refused(error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_string()))
    }
}

/// Where the own server is reached, and as whom.
#[derive(Debug, Clone)]
pub struct Local {
    /// The directory of its Unix socket.
    pub socket_dir: PathBuf,
    /// The number in the socket's name.
    pub port: u16,
    /// As whom.
    pub login: Login,
}

impl Local {
    /// A session in the database `postgres` that is kept. Callers have a deadline for all they do with it.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub async fn open(&self) -> Result<Session, Error> {
        Session::open(&self.socket_dir, self.port, &self.login, "postgres").await
    }

    /// Runs `work` in a session of its own in the database `postgres`, within `deadline` in all. For more than the two
    /// seconds that each statement has, `work` sets its own `statement_timeout`.
    ///
    /// # Errors
    /// When PostgreSQL refuses, or the deadline passes.
    pub async fn within<T>(
        &self,
        deadline: Duration,
        work: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let all = async {
            let session = Session::open(&self.socket_dir, self.port, &self.login, "postgres").await?;
            let done = work(&session.client).await;
            session.close().await;
            done
        };
        tokio::time::timeout(deadline, all).await.map_err(|_| Error::Timeout)?
    }
}

/// An open connection.
pub struct Session {
    /// For queries.
    pub client: Client,
    connection: Connection,
}

impl Session {
    /// Connects to `dbname` through the socket in `socket_dir`.
    ///
    /// # Errors
    /// When PostgreSQL refuses. There is no deadline in here; callers have one for all they do.
    pub async fn open(socket_dir: &Path, port: u16, login: &Login, dbname: &str) -> Result<Self, Error> {
        Self::open_as("podgres", socket_dir, port, login, dbname).await
    }

    /// [`Session::open`] under another `application_name`.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub async fn open_as(
        application: &str,
        socket_dir: &Path,
        port: u16,
        login: &Login,
        dbname: &str,
    ) -> Result<Self, Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(socket_dir).port(port).user(&login.user).dbname(dbname).application_name(application).options(
            "-c statement_timeout=2s -c lock_timeout=1s -c synchronous_commit=local -c search_path=pg_catalog",
        );
        if let Some(password) = &login.password {
            config.password(password.expose());
        }
        let (client, connection) = config.connect(NoTls).await?;
        Ok(Self { client, connection: Connection(tokio::spawn(connection)) })
    }

    /// Says goodbye and waits until it is sent: a server that is stopped right after this finds no session to end.
    pub async fn close(mut self) {
        drop(self.client);
        let _ = (&mut self.connection.0).await;
    }
}

/// What carries a session's messages. Ends with the session: by itself it would wait for the answers that are still
/// due, and a server that is frozen gives none.
struct Connection(JoinHandle<Result<(), tokio_postgres::Error>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks for the facts, over a connection of its own that is closed again: one that is kept would forbid users to drop
/// or rename the database.
///
/// # Errors
/// When PostgreSQL refuses, or takes longer than two seconds.
pub async fn facts(socket_dir: &Path, port: u16, login: &Login) -> Result<Facts, Error> {
    let local = Local { socket_dir: socket_dir.into(), port, login: login.clone() };
    local.within(TIMEOUT, facts_of).await
}

/// The facts, and what there is to say of replication.
///
/// # Errors
/// As [`facts`].
pub async fn details(socket_dir: &Path, port: u16, login: &Login) -> Result<(Facts, Replication), Error> {
    let local = Local { socket_dir: socket_dir.into(), port, login: login.clone() };
    local.within(TIMEOUT, async |client| Ok((facts_of(client).await?, stat::replication(client).await?))).await
}

/// The facts, over a session that somebody has.
///
/// # Errors
/// When PostgreSQL refuses.
pub async fn facts_of(client: &Client) -> Result<Facts, Error> {
    let row = client.query_one(FACTS, &[]).await?;
    let pending = row.try_get::<_, bool>(4)?;
    Ok(Facts {
        timeline: row.try_get(0)?,
        lsn: row.try_get(1)?,
        streaming: row.try_get(2)?,
        lag_bytes: row.try_get(3)?,
        pending_restart: if pending { pending_restart(client).await? } else { Vec::new() },
        version: row.try_get(5)?,
        system_identifier: row.try_get(6)?,
    })
}

/// A primary says where it is with the WAL that it sends, and to a standby that has all of it nothing for half a minute.
/// The checkpoint of a new primary comes later than its new timeline, in whose files' names that is already.
const FACTS: &str = "
select case when pg_is_in_recovery()
            then greatest((select timeline_id from pg_control_checkpoint()),
                          (select received_tli from pg_stat_wal_receiver where status = 'streaming'))
            else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4 end,
       (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end)::text,
       exists (select from pg_stat_wal_receiver where status = 'streaming'),
       (select case when known.lsn is not null then greatest(0, known.lsn - pg_last_wal_replay_lsn()) end::int8
          from pg_stat_wal_receiver, coalesce(latest_end_lsn, pg_last_wal_receive_lsn()) known(lsn)
         where status = 'streaming'),
       exists (select from pg_settings where pending_restart and source <> 'command line'),
       current_setting('server_version'),
       (select system_identifier::text from pg_control_system())";

/// Asks which changed settings wait for a restart.
///
/// # Errors
/// When PostgreSQL refuses.
pub async fn pending_restart(client: &Client) -> Result<Vec<PendingRestart>, Error> {
    let rows = client.query(PENDING_RESTART, &[]).await?;
    let pending = |row: &tokio_postgres::Row| {
        let (name, value, new_value): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let shown = |v: &str| secrets::shown(&name, v);
        Ok(PendingRestart { value: shown(&value), new_value: shown(&new_value), name })
    };
    rows.iter().map(pending).collect()
}

/// What is in no file any more gets its built-in value, in the setting's own unit. PostgreSQL also marks what the command
/// line sets and a file sets otherwise (`set_config_with_handle`, guc.c), though the command line wins at every start.
const PENDING_RESTART: &str = "
select name, current_setting(name),
       coalesce((select f.setting from pg_file_settings f where lower(f.name) = lower(s.name)
                  order by seqno desc limit 1), boot_val || coalesce(' x ' || unit, ''), '')
  from pg_settings s where pending_restart and source <> 'command line' order by name";
