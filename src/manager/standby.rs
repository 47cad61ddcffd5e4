//! The loop's part in replication: jobs that make a standby, the tasks that a role brings with it, what a standby is told
//! of its source.

use std::{io, path::Path, time::Duration};

use tokio::{
    task::{AbortHandle, spawn_local},
    time::sleep,
};

use super::{Event, Manager, watch};
use crate::{
    ha::record::Copy,
    lifecycle::{Failure, Input, Job, Limits, Look, Phase, Reason, Role},
    postgres::{
        controldata, datadir, initialise,
        lock::DirLock,
        replication::{
            clone,
            conninfo::Conninfo,
            follow::{Follower, Report},
            fork,
            look::Looking,
            lsn::Timeline,
            membership::{self, Membership},
            primary::Primary,
            rewind,
            source::{Address, Source},
        },
        sql::{Local, Login},
    },
    settings::{Replication, Settings, official::Secret},
};

/// What could not be noted is tried again after that.
const AGAIN: Duration = Duration::from_secs(1);

/// The settings that are about other members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peers {
    pub(super) standby_of: Option<Address>,
    role: Replication,
    retention: Duration,
}

impl Peers {
    pub(super) fn of(settings: &Settings) -> Self {
        let mut standby_of = settings.standby_of.clone();
        if let Some(address) = &mut standby_of {
            // By this name the source knows its standbys.
            address.conninfo = address.conninfo.clone().with_default("application_name", &membership::member_name());
        }
        Self { standby_of, role: settings.replication.clone(), retention: settings.slot_retention }
    }

    /// By which members know each other.
    pub(super) fn password(&self) -> Option<Secret> {
        self.role.password.clone()
    }

    /// The role that a primary makes for its standbys; none where they would have no password.
    pub(super) fn streams_as(&self) -> Option<String> {
        self.role.password.is_some().then(|| self.role.user.clone())
    }
}

/// The tie between a standby and its source.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    /// Whether nothing diverged, so that the standby may have its source.
    pub(super) attached: bool,
    /// Whether the source has logical slots to be copied.
    logical_slots: bool,
    /// Why it does not stream.
    pub(super) waiting: Option<String>,
    /// What the source is, while that is known.
    pub(super) source_role: Option<Role>,
    /// The timeline that it streams, as far as it does.
    pub(super) received: Option<Timeline>,
}

/// The first source, the second, …: what was seen of one says nothing about the next.
pub(super) type Nth = u64;

/// The slot of a pod's copy: of another copy it is another one.
pub(super) fn slot_of(pod: &str, copy: &str) -> String {
    membership::slot_name(pod, u64::from_str_radix(copy, 16).unwrap_or_default())
}

/// What runs besides the loop.
#[derive(Default)]
pub(super) struct Tasks {
    job: Option<(Nth, AbortHandle)>,
    role: Option<(Role, AbortHandle)>,
}

impl Tasks {
    pub(super) fn end_role(&mut self) {
        if let Some((_, task)) = self.role.take() {
            task.abort();
        }
    }
}

/// What the decision is to know of the settings.
pub(super) fn limits(settings: &Settings) -> Limits {
    Limits {
        shutdown_timeout: settings.shutdown_timeout,
        standby: settings.standby_of.is_some(),
        clustered: settings.kubernetes.is_some(),
    }
}

/// The role for which there are rules of our own in `pg_hba.conf`: where no password is known there is no such role.
pub(super) fn replication_user(settings: &Settings) -> Option<String> {
    settings.replication.password.is_some().then(|| settings.replication.user.clone())
}

/// Makes a standby of a data directory: PostgreSQL starts in recovery and stays there.
pub(super) fn mark(pgdata: &Path) -> io::Result<()> {
    if !pgdata.join("recovery.signal").exists() && !pgdata.join("standby.signal").exists() {
        return datadir::make_standby(pgdata);
    }
    Ok(())
}

impl Manager {
    /// What keeps recovery from starting although nothing is missing.
    pub(super) fn mend_wal(&self) {
        match fork::remove_torn(&self.plan.launch.pgdata) {
            Ok(removed) => removed.iter().for_each(|name| {
                tracing::warn!(
                    "pg_wal/{name} was received only in part, up to before its timeline forked off, and PostgreSQL would not \
                     start with it: it is removed, and received again"
                );
            }),
            Err(error) => tracing::warn!("whether a segment in pg_wal was received only in part cannot be seen: {error}"),
        }
    }

    /// What podgres owns in PostgreSQL's files. A standby without a source waits for one, and accepts reads.
    pub(super) fn owned(&self, standby: bool) -> Vec<(&'static str, String)> {
        let mut owned = self.owned_of_sync(standby);
        owned.extend(self.owned_of_tls());
        if !standby {
            return owned;
        }
        owned.push(("recovery_target_timeline", "latest".to_string()));
        let source = self.source().filter(|_| self.link.attached);
        owned.push(("primary_conninfo", source.as_ref().map(|s| s.conninfo().to_string()).unwrap_or_default()));
        owned.push(("primary_slot_name", source.and_then(|_| self.membership()).map(|m| m.slot()).unwrap_or_default()));
        if self.link.logical_slots {
            // The one needs the other (<https://www.postgresql.org/docs/17/logicaldecoding-explanation.html>).
            owned.push(("sync_replication_slots", "on".into()));
            owned.push(("hot_standby_feedback", "on".into()));
        }
        owned
    }

    fn source(&self) -> Option<Source> {
        let launch = &self.plan.launch;
        let address = self.peers.standby_of.as_ref().filter(|_| self.may_receive())?;
        match Source::new(address, &launch.run_dir, &launch.bindir, &self.runner) {
            Ok(source) => Some(match (self.secured(source), &self.cluster) {
                (source, Some(cluster)) => source.noting(cluster.noted()),
                (source, None) => source,
            }),
            Err(error) => {
                tracing::error!(
                    "the password of the source cannot be written into {}: {error}",
                    launch.run_dir.display()
                );
                None
            }
        }
    }

    fn membership(&self) -> Option<Membership> {
        let address = self.peers.standby_of.as_ref()?;
        let membership = Membership::of(&self.plan.launch.pgdata, address.conninfo.place());
        Some(match self.slot() {
            Some(slot) => membership.with_slot(slot),
            None => membership,
        })
    }

    /// In a cluster: the leader at `address` is the source from now on, and knows this member by its copy.
    pub(super) fn set_source(&mut self, address: &str, copy: &Copy) {
        let conninfo = Conninfo::of_address(address, &self.peers.role.user);
        let conninfo = conninfo.with_default("application_name", &copy.application_name());
        let source = Some(Address { conninfo, password: self.peers.role.password.clone(), elected: true });
        if source != self.peers.standby_of {
            self.peers.standby_of = source;
            self.nth += 1;
            self.other_source();
        }
    }

    /// Nobody follows here for now.
    pub(super) fn lose_source(&mut self) {
        self.link = Link::default();
        self.tasks.end_role();
    }

    pub(super) fn other_source(&mut self) {
        if self.memory.standby {
            // The new one has to be looked at first.
            self.link = Link::default();
            self.config.set_owned(self.owned(true));
            if matches!(self.memory.phase, Phase::Running { .. }) {
                self.reload_files(Ok(()), false, None);
            }
        }
        self.tasks.end_role();
        self.take_up_role();
    }

    pub(super) fn take_settings(&mut self, settings: &Settings) {
        self.limits = limits(settings);
        self.config.set_replication_user(replication_user(settings));
        let mut peers = Peers::of(settings);
        if self.cluster.is_some() {
            peers.standby_of = self.peers.standby_of.clone();
        }
        if peers == self.peers {
            return;
        }
        let other_source = peers.standby_of != self.peers.standby_of;
        self.peers = peers;
        self.nth += Nth::from(other_source);
        if other_source && self.memory.standby {
            // The new one has to be looked at first.
            self.link = Link::default();
            self.config.set_owned(self.owned(true));
        }
        self.tasks.end_role();
        self.take_up_role();
    }

    pub(super) fn work(&mut self, job: Job) {
        self.link.waiting = None;
        self.begin_copy(job);
        let events = self.events.clone();
        if job == Job::Initialise {
            return self.initialise();
        }
        if let Some(repair) = self.other_lineage().filter(|_| job == Job::Look) {
            return self.decide(Input::Looked(Look::Diverged(repair)));
        }
        let (Some(source), Some(membership)) = (self.source(), self.membership()) else {
            if job == Job::Look && self.cluster.is_some() {
                let reason = Reason::SourceSilent("nobody leads the cluster yet".into());
                return self.decide(Input::Looked(Look::Standby(reason)));
            }
            let why = Failure::ForNow("the settings name no source (standby-of) any more".into());
            return self.decide(Input::Done(job, Err(why)));
        };
        let launch = &self.plan.launch;
        let (pgdata, bindir, runner) = (launch.pgdata.clone(), launch.bindir.clone(), self.runner.clone());
        let reporter = self.reporter.clone();
        let task = match job {
            Job::Clone => {
                let system_identifier = controldata::system_identifier(&pgdata);
                let (waldir, slot) = (self.plan.official.waldir.clone(), membership.slot());
                let plan = clone::Plan { pgdata, waldir, slot, source, system_identifier, bindir, runner, reporter };
                spawn_local(async move {
                    let result = clone::clone(&plan).await;
                    let _ = events.send(Event::JobDone(job, result.map_err(clone_failure))).await;
                })
            }
            Job::Rewind => {
                let config_file = self.archive.clone();
                let slot = membership.slot();
                let plan = rewind::Plan { pgdata, source, slot, bindir, runner, reporter, config_file };
                spawn_local(async move {
                    let result = rewind::rewind(&plan).await;
                    let _ = events.send(Event::JobDone(job, result.map(|()| None).map_err(rewind_failure))).await;
                })
            }
            Job::Look | Job::Initialise => {
                let nth = self.nth;
                let looking = Looking { pgdata, source, membership, bindir, runner };
                spawn_local(async move {
                    let seen = looking.look().await;
                    let _ = events.send(Event::Looked(nth, seen)).await;
                })
            }
        };
        self.tasks.job = Some((self.nth, task.abort_handle()));
    }

    fn initialise(&self) {
        let (plan, runner) = (self.plan.clone(), self.runner.clone());
        let (events, cancel) = (self.events.clone(), self.cancel.subscribe());
        spawn_local(async move {
            let result = initialise::initialise(&plan, &runner, cancel).await;
            let result = result.map_err(|e| match e {
                initialise::Error::Configuration(refused) => Failure::Final(refused.to_string()),
                other => Failure::ForNow(other.to_string()),
            });
            let _ = events.send(Event::JobDone(Job::Initialise, result)).await;
        });
    }

    /// An initialisation cleans up after itself and then says so. Other jobs are dropped, which kills their programs; what
    /// they leave is cleared away by the next start.
    pub(super) fn cancel_job(&mut self) {
        let _ = self.cancel.send(true);
        if let Some((_, task)) = self.tasks.job.take().filter(|(_, t)| !t.is_finished()) {
            task.abort();
            self.decide(Input::Done(Job::Look, Err(Failure::ForNow("it was told to stop".into()))));
        }
    }

    pub(super) fn job_done(&mut self, job: Job, result: Result<Option<DirLock>, Failure>) {
        let source = self.tasks.job.take().map_or(self.nth, |(nth, _)| nth);
        let result = result.map(|lock| {
            self.lock = lock.or(self.lock.take());
            self.end_copy();
            match job {
                Job::Initialise => tracing::info!("PostgreSQL init process complete; ready for start up."),
                // What was rewound may need a source before it can be asked anything.
                Job::Rewind => self.joined(self.nth),
                _ => self.joined(source),
            }
        });
        self.decide(Input::Done(job, result));
    }

    /// Whether the standby may have its source from its start on, of which that is known.
    pub(super) fn may_follow(&mut self, source: Nth) -> bool {
        source == self.nth && self.note_leader()
    }

    /// The data directory is one that follows its source.
    fn joined(&mut self, source: Nth) {
        self.link = Link { attached: self.may_follow(source), ..Link::default() };
        if let Err(error) = rewind::forget(&self.plan.launch.pgdata) {
            tracing::warn!("the note of an earlier, unfinished rewind cannot be removed: {error}");
        }
        self.membership().iter().for_each(Membership::forget_promotion);
    }

    /// Begins what the role of a server that has become ready asks for, and ends what the former role asked for.
    pub(super) fn take_up_role(&mut self) {
        let Phase::Running { role } = self.memory.phase else { return };
        if self.tasks.role.as_ref().is_some_and(|(r, _)| *r == role) {
            return;
        }
        self.tasks.end_role();
        self.note_port();
        self.ask_facts();
        let Some(local) = self.local() else { return };
        let task = match role {
            Role::Primary => {
                self.link = Link::default();
                self.config.disown_standby();
                self.forget_old_promotion();
                self.lead_cluster();
                let promoted = matches!(self.memory.reason, Reason::Promoted(_));
                let (role, retention) = (self.peers.role.clone(), self.peers.retention);
                spawn_local(Primary { local, role, retention, promoted }.care())
            }
            Role::Standby if self.memory.standby => {
                let (Some(source), Some(membership)) = (self.source(), self.membership()) else { return };
                let (pgdata, major) = (self.plan.launch.pgdata.clone(), self.plan.launch.bindir.major);
                let (slot, copies) = (membership.slot(), Follower::known_copies(&pgdata));
                let attached = self.link.attached;
                let follower =
                    Follower { pgdata, local, source, slot, major, attached, copies, silent: None, slot_trouble: None };
                let (events, nth) = (self.events.clone(), self.nth);
                spawn_local(follower.follow(async move |report| {
                    let _ = events.send(Event::Follow(nth, report)).await;
                }))
            }
            Role::Standby => return,
        };
        self.tasks.role = Some((role, task.abort_handle()));
    }

    /// A primary whose settings name no source is one by its settings. What it was promoted over once must not make a
    /// primary of it again when they name that source in order to let it follow.
    fn forget_old_promotion(&self) {
        if self.peers.standby_of.is_none() {
            Membership::of(&self.plan.launch.pgdata, String::new()).forget_promotion();
        }
    }

    pub(super) fn local(&self) -> Option<Local> {
        let file = self.server.as_ref()?.pid_file()?;
        let official = &self.plan.official;
        let login = Login { user: official.user.clone(), password: official.password.clone() };
        Some(Local { socket_dir: file.socket_dir?, port: file.port, login })
    }

    pub(super) fn followed(&mut self, report: Report) {
        let place = self.peers.standby_of.as_ref().map(|a| a.conninfo.place()).unwrap_or_default();
        match report {
            Report::Attach if !self.note_leader() => {
                let (events, nth) = (self.events.clone(), self.nth);
                spawn_local(async move {
                    sleep(AGAIN).await;
                    drop(events.send(Event::Follow(nth, Report::Attach)).await);
                });
            }
            Report::Attach => {
                tracing::info!("nothing diverged: following {place}");
                self.link.attached = true;
                self.config.set_owned(self.owned(true));
                self.reload_files(Ok(()), false, None);
            }
            Report::Detach => {
                tracing::warn!("{place} does not answer: PostgreSQL is not told to try it until it does");
                self.link.attached = false;
                self.config.set_owned(self.owned(true));
                self.reload_files(Ok(()), false, None);
            }
            Report::Streaming(timeline) => {
                if self.link.received.replace(timeline).is_none() {
                    tracing::info!("streaming from {place}");
                }
                self.link.waiting = None;
                self.decide(Input::Streaming);
            }
            Report::Waiting(why) => {
                if self.link.received.is_some() || self.link.waiting.as_ref() != Some(&why) {
                    tracing::warn!("not streaming: {why}");
                }
                self.link.received = None;
                self.link.source_role = None;
                self.link.waiting = Some(why);
            }
            Report::Diverged(repair) => {
                self.link.received = None;
                self.link.waiting = Some(repair.why.clone());
                self.decide(Input::Diverged(repair));
                if self.memory.gave_up() {
                    tracing::error!("repairs have not helped and no more are tried; podgres reinit makes a new clone");
                }
            }
            // What follows is the decision's.
            Report::Promoted => self.decide(Input::Ready(Role::Primary)),
            Report::Source(role) => self.link.source_role = Some(role),
            Report::LogicalSlots(there) if there != self.link.logical_slots => {
                self.link.logical_slots = there;
                self.config.set_owned(self.owned(true));
                self.reload_files(Ok(()), false, None);
            }
            Report::LogicalSlots(_) => {}
            Report::Paused => {
                let (too_small, events) = (self.config.too_small(), self.events.clone());
                spawn_local(async move {
                    let small = too_small.await;
                    if !small.is_empty() {
                        let why = small.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                        let _ = events.send(Event::Input(Input::TooSmall(why))).await;
                    }
                });
            }
        }
    }

    /// The note is on disk before the promotion: a restart must know that this is a primary.
    pub(super) fn promote(&self) {
        let Some(server) = &self.server else { return };
        let membership = self.membership().filter(|_| self.cluster.is_none());
        if let Some(Err(error)) = membership.map(|m| m.note_promotion()) {
            tracing::error!("that this member is promoted cannot be noted, and a restart will not know: {error}");
        }
        match server.promote() {
            Ok(()) => tracing::info!("PostgreSQL is told to promote itself"),
            Err(e) => tracing::error!("cannot promote: writing the file \"promote\" into the data directory: {e}"),
        }
        let (events, child, pgdata) = (self.events.clone(), server.child.clone(), self.plan.launch.pgdata.clone());
        spawn_local(async move { watch::watch_promotion(&pgdata, &child, &events).await });
    }
}

fn clone_failure(error: clone::Error) -> Failure {
    if error.is_final() { Failure::Final(error.to_string()) } else { Failure::ForNow(error.to_string()) }
}

fn rewind_failure(error: rewind::Error) -> Failure {
    match error {
        rewind::Error::Impossible(_) | rewind::Error::Failed(_) => Failure::Hopeless(error.to_string()),
        _ => Failure::ForNow(error.to_string()),
    }
}
