//! What members say of themselves, and what Kubernetes says of their pods.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::lease::{Began, Lease};

/// A pod of the cluster, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `status.conditions`: Ready.
    pub ready: bool,
    /// Label `podgres.io/role`.
    pub role: Option<String>,
    /// Annotation `podgres.io/status`, if it can be read.
    pub status: Option<Status>,
    /// Annotation `podgres.io/fenced`, as it stands there.
    pub fenced: Option<String>,
    /// Annotation `podgres.io/promote`.
    pub promote: Option<String>,
    /// Annotation `podgres.io/restart`.
    pub restart: Option<String>,
    /// Annotation `podgres.io/reinit`.
    pub reinit: Option<String>,
    /// Annotation `podgres.io/last-command`.
    pub last_command: Option<String>,
    /// The termination messages of its containers, of state and lastState: instances whose processes are all dead.
    pub ended: Vec<String>,
}

impl Pod {
    /// Whether PostgreSQL is to stay down there.
    pub fn is_fenced(&self) -> bool {
        self.fenced.as_deref() == Some("true")
    }
}

/// The cluster as this member sees it at the API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterView {
    /// The cluster's name.
    pub name: String,
    /// This member's own pod.
    pub pod: String,
    /// The Lease, if there is one.
    pub lease: Option<Lease>,
    /// All of its pods, by name.
    pub pods: BTreeMap<String, Pod>,
    /// What else is wrong with it, one line each.
    pub findings: Vec<String>,
    /// Who confirms commits, as the leader of a synchronous cluster knows it.
    pub confirming: Option<Confirming>,
    /// For how long the Kubernetes API has not answered this member; none: it does.
    pub api_silent: Option<Duration>,
    /// Whether this member leads without the API, because the others promise to wait.
    pub failsafe: bool,
}

/// How many standbys confirm each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirming {
    /// `sync`.
    pub wanted: usize,
    /// How many do; none: every commit waits.
    pub standbys: Option<usize>,
}

/// Annotation `podgres.io/status` of a member's own pod: compact JSON, written when it changes in substance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Status {
    /// The start of the manager that wrote it.
    pub instance: String,
    /// `primary`, `standby`, or empty while it is neither.
    pub role: String,
    /// A word: `running`, `cloning`, `fenced`, … ([`crate::lifecycle::Phase::name`]).
    pub state: String,
    /// The id of its data directory; none: it has no data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
    /// The identity of its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// Its timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// The highest term that it knows of.
    pub term: u64,
    /// The term that it has promised last.
    #[serde(skip_serializing_if = "is_zero")]
    pub promised: u64,
    /// Its `priority` in an election among equals; 0: never.
    pub priority: u32,
    /// Where its HTTP is served, `10.0.0.7:8008`.
    pub http: String,
    /// PostgreSQL's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether changed settings wait for a restart.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pending_restart: bool,
    /// Why it is as it is, when something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a member answers when another one asks (`GET /member`). Binds nobody.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Account {
    /// The pod's name.
    pub pod: String,
    /// The start of its manager.
    pub instance: String,
    /// Its data directory's id; none: it has no data.
    pub copy: Option<String>,
    /// The identity of its data.
    pub system_id: Option<String>,
    /// What began the timeline that it is on.
    pub began: Option<Began>,
    /// How far it has received and replayed, or written; a number of bytes in the WAL, 0 where that is not known.
    pub lsn: u64,
    /// Whether its PostgreSQL is a primary that runs.
    pub primary: bool,
    /// Whether it could take over: it has data, runs as a standby, is not fenced, and its priority is not 0.
    pub fit: bool,
    /// `priority`.
    pub priority: u32,
    /// The leader's term that it last saw on the Lease.
    pub term: u64,
    /// How long ago it saw the holder of that term renew, in milliseconds; none: not at all, or the Lease is free.
    pub seen_ms: Option<u64>,
}
