//! Status as a pure function of what was found out: who the members are (of a cluster: in [`cluster`]), and (in
//! [`findings`]) what is wrong.

mod cluster;
mod findings;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    ha::member::Account,
    lifecycle::{Job, Phase, Role},
    manager::Snapshot,
    postgres::{
        config::standby::Raise,
        ping::Ping,
        replication::{
            membership::member_name,
            rewind,
            stat::{Receiver, Replication},
        },
        sql::Facts,
        stage,
    },
    status::{self, Level, Manager, Member, Status},
};

/// All that was found out.
pub(super) struct View<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) ping: Ping,
    /// What PostgreSQL says of itself, or why it does not; none: it is not the time to ask.
    pub(super) said: Option<Result<(Facts, Replication), String>>,
    /// What keeps a standby from replaying.
    pub(super) too_small: Vec<Raise>,
    /// What is wrong with the custom queries for metrics.
    pub(super) custom_queries: Option<String>,
    pub(super) on_disk: OnDisk,
    /// What the members of the cluster answered, this one too, or why they did not.
    pub(super) answers: BTreeMap<String, Result<Account, String>>,
}

/// What lies beside the data directory.
#[derive(Debug, Default)]
pub(super) struct OnDisk {
    /// The directory that was replaced last.
    pub(super) kept: Option<PathBuf>,
    /// The WAL that diverged before the last rewind.
    pub(super) kept_wal: Option<PathBuf>,
    /// Whether a rewind was begun and not finished.
    pub(super) half_rewound: bool,
}

impl OnDisk {
    pub(super) fn of(pgdata: &Path) -> Self {
        Self {
            kept: stage::kept(pgdata),
            kept_wal: rewind::kept_wal(pgdata),
            half_rewound: rewind::unfinished(pgdata) > 0,
        }
    }
}

impl View<'_> {
    pub(super) fn status(&self) -> Status {
        let findings = self.findings();
        let memory = &self.snapshot.memory;
        let wrong = findings.iter().filter(|f| f.level != Level::Note);
        Status {
            members: std::iter::once(self.this()).chain(self.source()).chain(self.standbys()).collect(),
            problems: wrong.map(|f| f.text.clone()).collect(),
            findings,
            cluster: self.cluster(),
            manager: Manager {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
                uptime_seconds: self.snapshot.now.as_secs(),
                restarts: memory.restarts,
                log_lines_dropped: self.snapshot.log_lines_dropped,
            },
        }
    }

    fn role(&self) -> Option<Role> {
        match self.snapshot.memory.phase {
            Phase::Running { role } => Some(role),
            _ => None,
        }
    }

    fn facts(&self) -> Option<&Facts> {
        Some(&self.said.as_ref()?.as_ref().ok()?.0)
    }

    fn replication(&self) -> Option<&Replication> {
        Some(&self.said.as_ref()?.as_ref().ok()?.1)
    }

    fn this(&self) -> Member {
        let (memory, facts) = (&self.snapshot.memory, self.facts());
        Member {
            name: member_name(),
            role: self.role().map(role_name),
            state: memory.phase.name().into(),
            reason: Some(memory.reason.to_string()),
            state_age_seconds: Some(self.snapshot.now.saturating_sub(memory.since).as_secs()),
            accepting: Some(self.ping == Ping::Accepting),
            postgres_pid: self.snapshot.postgres.as_ref().map(|p| p.pid.as_raw()),
            data_directory: Some(self.snapshot.pgdata.display().to_string()),
            timeline: facts.and_then(|f| f.timeline),
            lsn: facts.and_then(|f| f.lsn.clone()),
            lag_bytes: facts.and_then(|f| f.lag_bytes),
            lag_seconds: self.replication().and_then(|r| r.replay_lag_seconds),
            job: self.job(),
            source: self.snapshot.source.clone(),
            waiting: self.snapshot.waiting.clone(),
            promotion_milliseconds: memory.promotion.and_then(|took| took.as_millis().try_into().ok()),
            kept_data_directory: self.on_disk.kept.as_ref().map(|path| path.display().to_string()),
            slots: self.replication().map(|r| r.slots.clone()).unwrap_or_default(),
            postgres: facts.cloned(),
            ..Member::default()
        }
    }

    fn job(&self) -> Option<status::Job> {
        let (job, again) = match self.snapshot.memory.phase {
            Phase::Working { job } => (job, None),
            Phase::Waiting { job: Some(job), until } => (job, Some(until.saturating_sub(self.snapshot.now).as_secs())),
            _ => return None,
        };
        let progress = self.snapshot.progress.as_ref().filter(|_| again.is_none());
        let name = match job {
            Job::Initialise => "initialise",
            Job::Look => "look",
            Job::Clone => "clone",
            Job::Rewind => "rewind",
        };
        let step = match (again, progress) {
            (Some(_), _) => format!("{} is tried again", job.name()),
            (None, Some(progress)) => progress.step.clone(),
            (None, None) => job.name().into(),
        };
        Some(status::Job {
            name: name.into(),
            step,
            bytes_done: progress.map(|p| p.bytes_done),
            bytes_total: progress.and_then(|p| p.bytes_total),
            percent: progress.and_then(|p| p.percent()),
            seconds_left: again.or_else(|| progress?.left().map(|l| l.as_secs())),
        })
    }

    /// The server that this one follows, as it knows it.
    fn source(&self) -> Option<Member> {
        let sender = self.replication().and_then(|r| r.sender.as_ref());
        let of_settings = self.snapshot.source.clone().filter(|_| self.role() != Some(Role::Primary));
        Some(Member {
            name: of_settings.or_else(|| Some(sender?.place.clone()))?,
            role: self.snapshot.source_role.filter(|_| sender.is_some()).map(role_name),
            state: if sender.is_some() { "running" } else { "unknown" }.into(),
            timeline: sender.and_then(|s| s.timeline),
            lsn: sender.and_then(|s| s.lsn.clone()),
            ..Member::default()
        })
    }

    /// Whoever streams from this member. A clone in the making has two connections, of which the one that streams is not
    /// of interest.
    fn standbys(&self) -> Vec<Member> {
        let receivers = self.replication().map(|r| r.receivers.as_slice()).unwrap_or_default();
        let copies = |r: &Receiver| {
            let same = |o: &&Receiver| (&o.name, &o.address) == (&r.name, &r.address);
            receivers.iter().filter(same).any(|o| o.state == "backup")
        };
        let shown = receivers.iter().filter(|r| r.state == "backup" || !copies(r));
        shown.map(|r| self.standby(r)).collect()
    }

    fn standby(&self, receiver: &Receiver) -> Member {
        let streams = receiver.state == "streaming";
        // Programs such as pg_receivewal do not replay.
        let replays = receiver.replayed.is_some();
        Member {
            name: receiver.name.clone(),
            role: replays.then(|| role_name(Role::Standby)),
            state: if receiver.state == "backup" { "cloning".into() } else { receiver.state.clone() },
            state_age_seconds: receiver.age_seconds.try_into().ok(),
            address: receiver.address.clone(),
            // What is sent without delay is of the timeline that is being written (`WalSndCaughtUp`, walsender.c).
            timeline: self.facts().and_then(|f| f.timeline).filter(|_| streams && replays),
            lsn: receiver.replayed.clone(),
            lag_bytes: receiver.lag_bytes,
            lag_seconds: receiver.lag_seconds.or_else(|| (receiver.lag_bytes == Some(0)).then_some(0.0)),
            sync: receiver.sync.clone().filter(|_| replays),
            ..Member::default()
        }
    }
}

fn role_name(role: Role) -> String {
    match role {
        Role::Primary => "primary".into(),
        Role::Standby => "standby".into(),
    }
}

#[cfg(test)]
pub(super) mod tests;
