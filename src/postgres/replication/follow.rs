//! A running standby and its source: given one once it is certain that nothing diverged, watched from then on.
//!
//! PostgreSQL by itself retries for ever whatever keeps it from streaming, also what time will never cure. So while it
//! does not stream this task asks the source and tells the manager what to do: attach, wait, or repair. While it streams
//! the task keeps the copies of the primary's slots.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, types::PgLsn};

use super::{
    divergence::{self, Position, Verdict},
    history::History,
    look,
    lsn::{Lsn, Timeline},
    slots::{self, Change},
    source::{self, Source},
};
use crate::{
    lifecycle::{Job, Repair, Role},
    postgres::{
        sql::{self, Local},
        state_dir::StateDir,
    },
};

/// What the task tells the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Nothing diverged: the standby may have its source.
    Attach,
    /// The source has not answered for a while: PostgreSQL, which would try ten times a second and write a line about
    /// each, should leave it alone until it answers.
    Detach,
    /// It streams, at the moment this timeline.
    Streaming(Timeline),
    /// It does not, for this reason, which may pass.
    Waiting(String),
    /// It cannot follow as it is.
    Diverged(Repair),
    /// It is no standby any more.
    Promoted,
    /// What the source is.
    Source(Role),
    /// Replay is paused, by a person or because something is smaller here than on the primary.
    Paused,
    /// Whether the source has logical slots that are to be copied (17 and later).
    LogicalSlots(bool),
}

/// Follows for one standby.
pub struct Follower {
    /// The data directory.
    pub pgdata: PathBuf,
    /// The own server.
    pub local: Local,
    /// Its source.
    pub source: Source,
    /// Its slot there.
    pub slot: String,
    /// The own major version.
    pub major: u32,
    /// Whether it has its source already.
    pub attached: bool,
    /// The copies of slots that this standby made.
    pub copies: BTreeSet<String>,
    /// Since when the source has not answered.
    pub silent: Option<Instant>,
    /// Why the source's slots could not be copied, the last time.
    pub slot_trouble: Option<String>,
}

/// Between two looks: quick at first, since most waits are short.
const QUICK: Duration = Duration::from_millis(100);
const SLOW: Duration = Duration::from_secs(5);
/// Between two looks at a standby that streams; as often its copies of slots move on.
const STREAMING: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(10);
/// A restartpoint may have much to write.
const RESTARTPOINT_TIMEOUT: Duration = Duration::from_secs(600);
/// A source that is restarted is back by then.
const SILENCE: Duration = Duration::from_secs(15);
/// So long may an archive take to deliver the next segment before its WAL counts as lost.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(60);

const COPIES: &str = "slot-copies";

/// How the standby is.
struct Here {
    in_recovery: bool,
    position: Position,
    streams: Option<Timeline>,
    has_archive: bool,
    paused: bool,
}

enum Next {
    Wait(Duration),
    End,
}

impl Follower {
    /// The copies that an earlier run made.
    pub fn known_copies(pgdata: &std::path::Path) -> BTreeSet<String> {
        let text = StateDir::of(pgdata).read(COPIES).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(String::from).collect()
    }

    /// Follows until it is dropped, or the standby has to be repaired.
    pub async fn follow(mut self, tell: impl AsyncFn(Report)) {
        let mut pause = QUICK;
        let mut stuck: Option<(Lsn, Instant)> = None;
        loop {
            match self.turn(&mut stuck, &tell).await {
                Next::End => return,
                Next::Wait(STREAMING) => {
                    pause = QUICK;
                    let _ = tokio::time::timeout(STREAMING, self.source.news()).await;
                }
                Next::Wait(least) => {
                    pause = (pause * 3 / 2).clamp(least, SLOW);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn turn(&mut self, stuck: &mut Option<(Lsn, Instant)>, tell: &impl AsyncFn(Report)) -> Next {
        let here = match self.local.within(TIMEOUT, here).await {
            Ok(here) => here,
            Err(error) => {
                tell(Report::Waiting(format!("the standby cannot be asked how far it is: {error}"))).await;
                return Next::Wait(SLOW);
            }
        };
        if !here.in_recovery {
            tell(Report::Promoted).await;
            return Next::End;
        }
        if here.paused {
            tell(Report::Paused).await;
        }
        if let Some(timeline) = here.streams {
            *stuck = None;
            self.silent = None;
            tell(Report::Streaming(timeline)).await;
            self.copy_slots(&here, tell).await;
            // On its way to the source's timeline it comes through those before.
            return Next::Wait(if self.source.is_noted(timeline) { STREAMING } else { QUICK });
        }
        match self.ask(here, stuck).await {
            Ok(report @ Report::Attach) => {
                self.attached = true;
                tell(report).await;
                Next::Wait(QUICK)
            }
            Ok(report @ Report::Diverged(_)) => {
                tell(report).await;
                Next::End
            }
            Ok(report) => {
                tell(report).await;
                Next::Wait(QUICK)
            }
            Err(why) => {
                tell(Report::Waiting(why)).await;
                let silent = self.silent.is_some_and(|since| since.elapsed() > SILENCE);
                if silent && std::mem::take(&mut self.attached) {
                    tell(Report::Detach).await;
                }
                Next::Wait(QUICK)
            }
        }
    }

    /// Why does it not stream?
    async fn ask(&mut self, here: Here, stuck: &mut Option<(Lsn, Instant)>) -> Result<Report, String> {
        let text = |e: source::Error| e.to_string();
        let looked = self.source.look().await;
        self.silent = if looked.is_ok() { None } else { self.silent.or_else(|| Some(Instant::now())) };
        let (_, theirs) = looked.map_err(text)?;
        let mut position = here.position;
        let mut verdict = divergence::judge(&position, &theirs);
        if matches!(verdict, Verdict::Rewind { .. } | Verdict::Clone) {
            // Not before it is certain on which timeline it is: what pg_control says of that may be old.
            let certain = self.local.within(RESTARTPOINT_TIMEOUT, certain_position).await;
            position = certain.map_err(|e| format!("the standby cannot be asked how far it is: {e}"))?;
            let (_, theirs) = self.source.look().await.map_err(text)?;
            verdict = divergence::judge(&position, &theirs);
            if matches!(verdict, Verdict::Rewind { .. } | Verdict::Clone) {
                return Ok(Report::Diverged(look::repair(&verdict, &position, &theirs)));
            }
        }
        if let Verdict::Refuse(why) = verdict {
            return Err(why.to_string());
        }
        self.source.ensure_slot(&self.slot).await.map_err(text)?;
        if !self.attached {
            return Ok(Report::Attach);
        }
        self.has_wal(&position, here.has_archive, &theirs, stuck).await
    }

    /// Whether the source still has the WAL that comes next.
    async fn has_wal(
        &self,
        position: &Position,
        has_archive: bool,
        theirs: &divergence::Source,
        stuck: &mut Option<(Lsn, Instant)>,
    ) -> Result<Report, String> {
        let since = match *stuck {
            Some((lsn, since)) if lsn == position.end => since,
            _ => {
                *stuck = Some((position.end, Instant::now()));
                return Ok(Report::Waiting(format!("not streaming yet from {}", self.source.place())));
            }
        };
        if position.end > theirs.flushed {
            let place = self.source.place();
            return Ok(Report::Waiting(format!("the source at {place} is at {}, behind this standby", theirs.flushed)));
        }
        let there = self.source.sql(&wal_is_gone(position, theirs)).await;
        let gone = there.is_ok_and(|rows| rows.iter().flatten().any(|v| v == "t"));
        if gone && (!has_archive || since.elapsed() > ARCHIVE_PATIENCE) {
            let why =
                format!("the source no longer has the WAL from {} on, which this standby needs next", position.end);
            return Ok(Report::Diverged(Repair { job: Job::Clone, why }));
        }
        Ok(Report::Waiting(format!(
            "not streaming from {}, which answers, for {} s; the lines of PostgreSQL's walreceiver say why",
            self.source.place(),
            since.elapsed().as_secs()
        )))
    }

    async fn copy_slots(&mut self, here: &Here, tell: &impl AsyncFn(Report)) {
        match self.try_copy_slots(here, tell).await {
            Ok(()) => self.slot_trouble = None,
            // Every ten seconds the same is no news.
            Err(why) if self.slot_trouble.as_ref() == Some(&why) => {}
            Err(why) => {
                tracing::warn!("the source's replication slots could not be copied: {why}");
                self.slot_trouble = Some(why);
            }
        }
    }

    async fn try_copy_slots(&mut self, here: &Here, tell: &impl AsyncFn(Report)) -> Result<(), String> {
        let failover = if self.major >= 17 { "failover" } else { "false" };
        let query = format!(
            "select slot_name, coalesce(restart_lsn::text, ''), active, slot_type, {failover}, pg_is_in_recovery() \
             from (values (1)) one left join pg_replication_slots on not temporary"
        );
        let rows = self.source.sql(&query).await.map_err(|e| e.to_string())?;
        let is = |row: &[String], at: usize, value: &str| row.get(at).is_some_and(|v| v == value);
        let role = if rows.iter().any(|r| is(r, 5, "t")) { Role::Standby } else { Role::Primary };
        tell(Report::Source(role)).await;
        if self.major >= 17 {
            tell(Report::LogicalSlots(rows.iter().any(|r| is(r, 3, "logical") && is(r, 4, "t")))).await;
        }
        let slot = |row: &Vec<String>| {
            let restart = row.get(1)?.parse().ok()?;
            Some(slots::Slot { name: row.first()?.clone(), restart, active: is(row, 2, "t") })
        };
        let theirs: Vec<slots::Slot> = rows.iter().filter(|r| is(r, 3, "physical")).filter_map(slot).collect();
        let replayed = here.position.end;
        let ours = self.local.within(TIMEOUT, local_slots).await.map_err(|e| e.to_string())?;
        let changes = slots::copy(&theirs, &ours, &self.slot, &self.copies, replayed);
        if changes.is_empty() {
            return Ok(());
        }
        self.note_copies(&changes)?;
        let work = async |client: &Client| apply(client, &changes).await;
        self.local.within(TIMEOUT, work).await.map_err(|e| e.to_string())
    }

    /// Before they are made: a copy that nobody remembers would keep WAL for ever.
    fn note_copies(&mut self, changes: &[Change]) -> Result<(), String> {
        let before = self.copies.clone();
        self.copies.extend(changes.iter().filter_map(|c| match c {
            Change::Create(name) => Some(name.clone()),
            _ => None,
        }));
        if before == self.copies {
            return Ok(());
        }
        let text = self.copies.iter().map(|name| format!("{name}\n")).collect::<String>();
        StateDir::of(&self.pgdata).write(COPIES, text.as_bytes()).map_err(|e| e.to_string())
    }
}

async fn here(client: &Client) -> Result<Here, sql::Error> {
    let row = client.query_one(HERE, &[]).await?;
    let streams = row.try_get::<_, Option<i32>>(3)?.map(|timeline| Timeline(timeline.cast_unsigned()));
    let (has_archive, in_recovery) = (row.try_get(4)?, row.try_get(5)?);
    // Asked only where the answer is no error.
    let paused: Option<bool> = row.try_get(6)?;
    Ok(Here { in_recovery, position: position(&row)?, streams, has_archive, paused: paused == Some(true) })
}

fn position(row: &tokio_postgres::Row) -> Result<Position, sql::Error> {
    let (system, timeline, end): (i64, i32, PgLsn) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(Position {
        system_identifier: system.cast_unsigned(),
        timeline: Timeline(timeline.cast_unsigned()),
        end: Lsn(end.into()),
    })
}

const HERE: &str = "
select s.system_identifier, r.min_recovery_end_timeline,
       greatest(pg_last_wal_replay_lsn(), r.min_recovery_end_lsn),
       (select received_tli from pg_stat_wal_receiver where status = 'streaming'),
       current_setting('restore_command') <> '',
       pg_is_in_recovery(), case when pg_is_in_recovery() then pg_is_wal_replay_paused() end
  from pg_control_system() s, pg_control_recovery() r";

/// The timeline of the last replayed record is in `pg_control` only, and gets there when a restartpoint finds nothing to
/// do (`UpdateMinRecoveryPoint` in `CreateRestartPoint`, xlog.c); the first one may have something to do.
async fn certain_position(client: &Client) -> Result<Position, sql::Error> {
    client.batch_execute("set statement_timeout = 0").await?;
    client.batch_execute("checkpoint").await?;
    client.batch_execute("checkpoint").await?;
    position(&client.query_one(HERE, &[]).await?)
}

async fn local_slots(client: &Client) -> Result<Vec<slots::Slot>, sql::Error> {
    let query = "select slot_name::text, coalesce(restart_lsn, '0/0'), active from pg_replication_slots
        where slot_type = 'physical' and not temporary";
    let slot = |row: &tokio_postgres::Row| {
        let restart: PgLsn = row.try_get(1)?;
        Ok(slots::Slot { name: row.try_get(0)?, restart: Lsn(restart.into()), active: row.try_get(2)? })
    };
    client.query(query, &[]).await?.iter().map(slot).collect()
}

async fn apply(client: &Client, changes: &[Change]) -> Result<(), sql::Error> {
    for change in changes {
        match change {
            Change::Create(name) => {
                client.execute("select pg_create_physical_replication_slot($1, true)", &[name]).await?;
                tracing::info!("the source's replication slot {name} is copied from now on");
            }
            Change::Advance(name, to) => {
                client.execute("select pg_replication_slot_advance($1, $2)", &[name, &PgLsn::from(to.0)]).await?;
            }
            Change::Drop(name) => {
                client.execute("select pg_drop_replication_slot($1)", &[name]).await?;
                tracing::info!("the copy of replication slot {name} was dropped: the source has none any more");
            }
        }
    }
    Ok(())
}

/// SQL for the source: whether the segment in which `ours` ends was there once and is not any more. It may have the name
/// of any timeline from ours to the source's. The functions that name a segment know only a server's own timeline.
fn wal_is_gone(ours: &Position, source: &divergence::Source) -> String {
    let History { timeline, ancestors } = &source.history;
    let between = ancestors.iter().map(|(t, _)| *t).filter(|t| *t > ours.timeline);
    let timelines = [ours.timeline].into_iter().chain(between).chain([*timeline]);
    let size = "(select setting::int8 from pg_settings where name = 'wal_segment_size')";
    let number = format!("({} / {size})", ours.end.0);
    let per_id = format!("(4294967296 / {size})");
    let hex = |n: String| format!("lpad(upper(to_hex({n})), 8, '0')");
    let name = format!("{} || {}", hex(format!("{number} / {per_id}")), hex(format!("{number} % {per_id}")));
    let exists = |t: Timeline| format!("(pg_stat_file('pg_wal/{}' || {name}, true)).size is not null", t.file_prefix());
    let exists: Vec<String> = timelines.map(exists).collect();
    // The segment that is being written is there, or will be.
    format!("select {number} < {} / {size} and not ({})", source.flushed.0, exists.join(" or "))
}
