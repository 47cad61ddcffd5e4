//! What is wrong with a member, what is on its way and what is worth knowing: one line each, and none when all is well.

use std::time::{Duration, SystemTime};

use super::{OnDisk, View};
use crate::{
    lifecycle::{Job, Phase, Role},
    postgres::{
        config::standby,
        ping::Ping,
        replication::stat::{Replication, Slot},
        sql::Facts,
    },
    progress::Progress,
    status::{Finding, Level},
    tls, units,
};

/// In words, the worst first.
#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn say(&mut self, level: Level, text: impl Into<String>) {
        self.0.push(Finding { level, text: text.into() });
    }

    /// Says it unless `known`, which is part of it, was said before.
    pub(super) fn say_once(&mut self, level: Level, text: &str, known: &str) {
        if !self.0.iter().any(|f| f.text.contains(known)) {
            self.say(level, text);
        }
    }
}

impl View<'_> {
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut found = Findings::default();
        self.server(&mut found);
        self.standby_here(&mut found);
        self.configuration(&mut found);
        if let Some(replication) = self.replication() {
            replication.slots.iter().for_each(|s| slot(s, replication, &mut found));
        }
        self.manager(&mut found);
        self.cluster_findings(&mut found);
        on_disk(&self.on_disk, &self.snapshot.memory.phase, &mut found);
        found.0.sort_by_key(|f| f.level);
        found.0
    }

    /// Whether PostgreSQL answers, and what is done before it can.
    fn server(&self, found: &mut Findings) {
        let memory = &self.snapshot.memory;
        let (phase, reason) = (memory.phase.name(), &memory.reason);
        let until = |until: Duration| units::about(until.saturating_sub(self.snapshot.now));
        match memory.phase {
            Phase::Running { .. } if self.ping != Ping::Accepting => {
                found.say(Level::Wrong, "PostgreSQL does not answer a new connection");
            }
            Phase::Running { .. } => {
                if let Some(Err(why)) = &self.said {
                    found.say(Level::Wrong, format!("no details from PostgreSQL: {why}"));
                }
            }
            Phase::Working { job } => found.say(Level::Waiting, self.work(job)),
            Phase::Waiting { until: at, job: Some(_) } => {
                found.say(Level::Wrong, format!("{reason}; trying again in {}", until(at)));
            }
            Phase::Waiting { until: at, job: None } => {
                found.say(Level::Wrong, format!("PostgreSQL is started again in {}: {reason}", until(at)));
            }
            Phase::Begun
            | Phase::Idle
            | Phase::Starting
            | Phase::Stopping { .. }
            | Phase::Cancelling
            | Phase::CleaningUp => {
                found.say(Level::Waiting, format!("PostgreSQL does not accept connections ({phase}): {reason}"));
            }
            Phase::Ended { .. } => found.say(Level::Wrong, format!("PostgreSQL does not run: {reason}")),
        }
    }

    /// `cloning from db1:5432: 38.4 of 482.5 MB, 8 %, about 40 s left (the data directory is empty)`
    fn work(&self, job: Job) -> String {
        let from = match (job, &self.snapshot.source) {
            (Job::Clone, Some(source)) => format!(" from {source}"),
            (Job::Look, Some(source)) => format!(" {source}"),
            (Job::Rewind, Some(source)) => format!(" to {source}"),
            _ => String::new(),
        };
        let how_far = self.snapshot.progress.as_ref().map(how_far).unwrap_or_default();
        format!("{}{from}{how_far} ({})", job.name(), self.snapshot.memory.reason)
    }

    fn standby_here(&self, found: &mut Findings) {
        let (Some(Role::Standby), Some(facts)) = (self.role(), self.facts()) else { return };
        if !facts.streaming {
            match &self.snapshot.waiting {
                Some(why) => found.say(Level::Wrong, format!("the standby does not stream: {why}")),
                None => found.say(Level::Wrong, "the standby does not stream from a primary"),
            }
            if self.snapshot.memory.gave_up() {
                let text = "rewinds and clones have not helped and no more are tried; podgres reinit makes a new clone";
                found.say(Level::Wrong, text);
            }
        }
        let paused = self.replication().is_some_and(|r| r.replay_paused);
        match self.too_small.as_slice() {
            [] if paused => found.say(Level::Waiting, "replay is paused: select pg_wal_replay_resume() lets it go on"),
            [] => {}
            small => small.iter().for_each(|raise| {
                found.say(Level::Wrong, format!("replay waits: {raise}; podgres restart starts it with enough"));
            }),
        }
    }

    fn configuration(&self, found: &mut Findings) {
        let config = &self.snapshot.config;
        config.refused.iter().for_each(|text| found.say(Level::Wrong, text));
        if let Some(tls) = &self.snapshot.tls {
            let soon = tls::complaint(tls.expires, SystemTime::now());
            tls.refused.iter().chain(&soon).for_each(|text| found.say(Level::Wrong, text));
        }
        self.custom_queries.iter().for_each(|text| found.say(Level::Wrong, text));
        config.raises().into_iter().for_each(|text| found.say(Level::Waiting, text));
        let pending = self.facts().map(|f: &Facts| f.pending_restart.as_slice()).unwrap_or_default();
        for setting in pending {
            let primary = self.role() == Some(Role::Primary);
            let order = standby::order(primary, &setting.name, &setting.value, &setting.new_value);
            let order = order.map(|o| format!("; {o}")).unwrap_or_default();
            found.say(Level::Waiting, format!("a changed setting waits for a restart: {setting}{order}"));
        }
    }

    fn manager(&self, found: &mut Findings) {
        let (dropped, memory) = (self.snapshot.log_lines_dropped, &self.snapshot.memory);
        if dropped > 0 {
            found.say(Level::Wrong, format!("{dropped} log lines were dropped: nobody read them in time"));
        }
        if memory.promoting.is_some() {
            found.say(Level::Waiting, "a promotion is ordered: what was received is replayed first");
        }
        if let Some(took) = memory.promotion {
            found.say(Level::Note, format!("promoted: writes were accepted {} ms after the order", took.as_millis()));
        }
    }
}

/// `: 38.4 of 482.5 MB, 8 %, about 40 s left`
fn how_far(progress: &Progress) -> String {
    match progress.bytes_total {
        Some(total) => {
            let percent = progress.percent().map(|p| format!(", {p:.0} %")).unwrap_or_default();
            let left = progress.left().map(|l| format!(", about {} left", units::about(l))).unwrap_or_default();
            format!(": {}{percent}{left}", units::size_of(progress.bytes_done, total))
        }
        None => String::new(),
    }
}

/// A slot that nobody uses is a danger once it is why there is more WAL than there would be without it.
fn slot(slot: &Slot, replication: &Replication, found: &mut Findings) {
    let name = &slot.name;
    let kept = slot.retained_bytes.unwrap_or(0);
    let size = units::size(kept.try_into().unwrap_or(0));
    match slot.wal_status.as_deref() {
        Some("lost") => found.say(
            Level::Wrong,
            format!("replication slot {name} has lost the WAL that it was to keep: whoever uses it needs a new copy"),
        ),
        Some("unreserved") => found.say(
            Level::Wrong,
            format!("replication slot {name} is {size} behind, and loses its WAL with one of the next checkpoints"),
        ),
        _ if !slot.active && kept > replication.max_wal_size => {
            let text = format!("replication slot {name} keeps {size} of WAL and nobody uses it");
            found.say(Level::Wrong, format!("{text}: let its user come back, or drop it"));
        }
        _ => {}
    }
}

fn on_disk(on_disk: &OnDisk, phase: &Phase, found: &mut Findings) {
    if on_disk.half_rewound && *phase != (Phase::Working { job: Job::Rewind }) {
        let text = "a rewind of the data directory was begun and not finished: nothing is started on it before";
        found.say(Level::Wrong, format!("{text} that, or a new clone, is complete"));
    }
    if let Some(path) = &on_disk.kept {
        let text = format!("the data directory that the last clone replaced is kept in {}", path.display());
        found.say(Level::Note, format!("{text}: remove it when nothing in it is missed"));
    }
    if let Some(path) = &on_disk.kept_wal {
        let text = format!("the WAL that diverged before the last rewind is kept in {}", path.display());
        found.say(Level::Note, format!("{text}: remove it when nothing in it is missed"));
    }
}
