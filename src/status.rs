//! What `podgres status --json` and `/status` show: the schema of the JSON, which is stable. Fields may be added; none is
//! renamed, and what is not known is null rather than missing.

use serde::{Deserialize, Serialize};

use crate::postgres::{
    replication::stat::Slot,
    sql::{Facts, PendingRestart},
};

/// The cluster as one member sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The members: this one first, then its source, then the standbys that stream from it or are cloned from it.
    pub members: Vec<Member>,
    /// What is wrong or is waited for, in words; empty when all is well.
    pub problems: Vec<String>,
    /// The same with levels, and what is worth knowing besides.
    pub findings: Vec<Finding>,
    /// The cluster of which this one is a member.
    pub cluster: Option<Cluster>,
    /// The manager that answers.
    pub manager: Manager,
}

/// One member. Of the others this one knows only some of the fields.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Member {
    /// Its name: the host name; of a standby what it calls itself (`application_name`); of the source its host and port.
    pub name: String,
    /// `primary`, `standby`, or none while PostgreSQL does not accept connections, or where it is not known.
    pub role: Option<String>,
    /// Of this member: `initialising`, `joining`, `cloning`, `rewinding`, `starting`, `running`, `stopping`,
    /// `cleaning up`, `crashed`, `stopped`. Of a standby: `streaming`, `catchup`, `stopping`, or `cloning` while
    /// pg_basebackup copies. Of the source: `running` while it sends WAL, else `unknown`.
    pub state: String,
    /// Why this member is in that state.
    pub reason: Option<String>,
    /// Seconds since it came into that state; of a standby, since it connected.
    pub state_age_seconds: Option<u64>,
    /// Whether a new connection is accepted, of this member.
    pub accepting: Option<bool>,
    /// The postmaster's process id, of this member.
    pub postgres_pid: Option<i32>,
    /// The data directory, of this member.
    pub data_directory: Option<String>,
    /// The network address from which a standby connects.
    pub address: Option<String>,
    /// The timeline that it writes or replays.
    pub timeline: Option<i32>,
    /// The write position of a primary, how far a standby has replayed, or what the source last said of its own
    /// position, as PostgreSQL writes it (`0/16B3748`).
    pub lsn: Option<String>,
    /// How many bytes of WAL a standby that streams has not replayed yet.
    pub lag_bytes: Option<i64>,
    /// How many seconds a standby that streams is behind; 0 when it has replayed all there is.
    pub lag_seconds: Option<f64>,
    /// `async`, `sync`, `quorum` or `potential`: whether commits wait for this standby.
    pub sync: Option<String>,
    /// The long work that is being done on this member's data directory, or will be tried again.
    pub job: Option<Job>,
    /// The host and port of the source that this member's settings name.
    pub source: Option<String>,
    /// Why this standby does not stream.
    pub waiting: Option<String>,
    /// Milliseconds from the order to the first moment at which writes were accepted, of the last promotion since the
    /// manager started.
    pub promotion_milliseconds: Option<u64>,
    /// The directory that a clone replaced on this member, if it is still there.
    pub kept_data_directory: Option<String>,
    /// The replication slots of this member. Temporary ones are left out.
    pub slots: Vec<Slot>,
    /// What PostgreSQL itself says; none when it does not answer, and of other members.
    pub postgres: Option<Facts>,
}

/// A cluster in Kubernetes: what its Lease and its pods say, and what its members answer right now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The member that says this.
    pub this: String,
    /// Who is in office; none: nobody.
    pub leader: Option<String>,
    /// The term of the latest leader.
    pub term: Option<u64>,
    /// Whether it is paused.
    pub paused: bool,
    /// The leader, then the others by name: everybody who has a pod or may take over.
    pub members: Vec<ClusterMember>,
}

/// One member of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterMember {
    /// The pod's name.
    pub name: String,
    /// `primary`, `standby`, or none while it is neither, or where it is not known.
    pub role: Option<String>,
    /// As a [`Member`]'s, as it last said; `no pod`, or `unknown` while it has said nothing.
    pub state: String,
    /// Seconds since this member came into that state; of a standby, on its leader, since it connected.
    pub state_age_seconds: Option<u64>,
    /// The timeline that it is on.
    pub timeline: Option<u32>,
    /// The write position of a primary, or how far a standby has received or replayed, whichever is more.
    pub lsn: Option<String>,
    /// How many bytes of WAL a standby has neither received nor replayed of what the leader has written. Both were asked at
    /// about the same time.
    pub lag_bytes: Option<u64>,
    /// Whether a standby that runs streams. Known of this member, and to the leader.
    pub streaming: Option<bool>,
    /// `async`, `sync`, `quorum` or `potential`: whether commits wait for it. Known to the leader.
    pub sync: Option<String>,
    /// Whether it may take over: its data directory is on the record that the Lease keeps.
    pub listed: Option<bool>,
    /// Whether somebody fenced it.
    pub fenced: bool,
    /// Whether changed settings wait for a restart.
    pub pending_restart: bool,
    /// Whether it answered right now. One that did not may well run.
    pub reachable: bool,
    /// What it says is wrong with it.
    pub problem: Option<String>,
}

/// Long work on a data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// `initialise`, `look` (at the source), `clone`, `rewind`.
    pub name: String,
    /// What it does right now, in words.
    pub step: String,
    /// Bytes copied so far.
    pub bytes_done: Option<u64>,
    /// How many bytes it will be, as far as one can tell.
    pub bytes_total: Option<u64>,
    /// How much is done, 0 to 100.
    pub percent: Option<f64>,
    /// How many seconds are left, if it goes on as it went so far; or, of a job that failed, until it is tried again.
    pub seconds_left: Option<u64>,
}

/// How much attention something needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is wrong. Also among the problems.
    Wrong,
    /// It is on its way, or waits for somebody. Also among the problems.
    Waiting,
    /// It is worth knowing.
    Note,
}

/// Something to know, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `wrong`, `waiting`, `note`. They come in this order.
    pub level: Level,
    /// The words: one line.
    pub text: String,
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

/// What `podgres status --settings --json` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// The settings, by name.
    pub settings: Vec<crate::postgres::config::report::Setting>,
}

impl Member {
    /// The settings of this member whose changed value waits for a restart.
    pub fn pending_restart(&self) -> &[PendingRestart] {
        self.postgres.as_ref().map(|f| f.pending_restart.as_slice()).unwrap_or_default()
    }
}
