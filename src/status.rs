//! What `podgres status` and `/status` show: the schema of the JSON, which is stable.

use serde::{Deserialize, Serialize};

use crate::postgres::sql::Facts;

/// The cluster as one member sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The members, this one first.
    pub members: Vec<Member>,
    /// What is wrong, in words; empty when nothing is.
    pub problems: Vec<String>,
    /// The manager that answers.
    pub manager: Manager,
}

/// One member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// Its name: the host name.
    pub name: String,
    /// `primary`, `standby`, or none while PostgreSQL does not accept connections.
    pub role: Option<String>,
    /// `initialising`, `starting`, `running`, `stopping`, `cleaning up`, `crashed`, `stopped`.
    pub state: String,
    /// Why it is in that state.
    pub reason: String,
    /// Seconds since it came into that state.
    pub state_age_seconds: u64,
    /// Whether a new connection is accepted.
    pub accepting: bool,
    /// The postmaster's process id.
    pub postgres_pid: Option<i32>,
    /// The data directory.
    pub data_directory: String,
    /// What PostgreSQL itself says; none when it does not answer.
    pub postgres: Option<Facts>,
}

/// The manager.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manager {
    /// podgres' own version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// How often PostgreSQL was started again after a crash.
    pub restarts: u32,
    /// Log lines that were dropped since then because the reader of stdout did not keep up.
    pub log_lines_dropped: u64,
}
