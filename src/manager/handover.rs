//! What a leader asks of its own server and of its standbys: how far they are, a last checkpoint, that one has it all.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Statement, types::PgLsn};

use super::Manager;
use crate::{
    beat::beat,
    cluster::peer::{self, Replayed},
    ha::{self, Standby},
    pid1::Child,
    postgres::{
        controldata::{ControlData, State},
        sql::{self, Error, Local, Session},
    },
};

/// A standby that has just begun to stream is on the record a moment later.
const HURRY: Duration = Duration::from_millis(200);
/// For a statement that has no reason to take long.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A hand-over goes on without its checkpoint after that: the one of the shutdown has more to do then.
const CHECKPOINT: Duration = Duration::from_secs(10);
/// So long may the target take to replay what the shutdown wrote last.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Others begin to clone when they know the timeline.
const AGAIN: Duration = Duration::from_millis(50);
/// Nobody writes while this is waited for.
const POLL: Duration = Duration::from_millis(2);

/// Tells who streams, and who is waited for by now (`synchronous_standby_names`), every `interval` and more often while somebody new is waited for, over a session that is kept.
pub(super) async fn watch_standbys(
    local: Local,
    interval: Duration,
    mut hurry: watch::Receiver<bool>,
    tell: impl AsyncFn(Vec<Standby>, String),
) {
    let mut ticks = beat(interval);
    loop {
        let opened = timeout(TIMEOUT, async {
            let session = local.open().await?;
            let query = session.client.prepare(STANDBYS).await?;
            Ok::<_, Error>((session, query))
        });
        if let Ok(Ok((session, query))) = opened.await {
            while let Ok(Ok((standbys, names))) = timeout(TIMEOUT, standbys(&session, &query)).await {
                tell(standbys, names).await;
                if *hurry.borrow_and_update() {
                    sleep(HURRY).await;
                } else {
                    tokio::select! {
                        _ = ticks.tick() => {}
                        _ = hurry.changed() => {}
                    }
                }
            }
        }
        sleep(interval).await;
    }
}

/// The setting is in each row, and where there is no standby in one that has nothing else.
const STANDBYS: &str = "select application_name, state = 'streaming',
    greatest(0, pg_current_wal_flush_lsn() - flush_lsn)::int8, flush_lsn, reply_time::text, setting
    from (select current_setting('synchronous_standby_names')) names(setting) left join pg_stat_replication on true";

async fn standbys(session: &Session, query: &Statement) -> Result<(Vec<Standby>, String), Error> {
    let standby = |row: &tokio_postgres::Row| {
        let lag: Option<i64> = row.try_get(2)?;
        let flushed: Option<PgLsn> = row.try_get(3)?;
        Ok(Standby {
            name: row.try_get(0)?,
            streaming: row.try_get(1)?,
            lag: lag.and_then(|l| u64::try_from(l).ok()),
            flushed: flushed.map(u64::from),
            replied: row.try_get(4)?,
        })
    };
    let rows = session.client.query(query, &[]).await?;
    let names = rows.first().map_or(Ok(String::new()), |row| row.try_get(5))?;
    let there = rows.iter().filter(|row| !matches!(row.try_get::<_, Option<String>>(0), Ok(None)));
    Ok((there.map(standby).collect::<Result<_, Error>>()?, names))
}

/// The timeline that a primary writes, once `user`, if there is to be one, can stream from it. Asked until it answers.
pub(super) async fn timeline(local: &Local, user: Option<&str>) -> u32 {
    let query = "select $1::text is null or exists (select from pg_roles where rolname = $1)";
    loop {
        let asked = local.within(TIMEOUT, async |client| {
            let role = client.query_one(query, &[&user]).await?.try_get::<_, bool>(0)?;
            Ok(if role { sql::facts_of(client).await?.timeline } else { None })
        });
        if let Ok(Some(timeline)) = asked.await {
            return timeline.cast_unsigned();
        }
        sleep(AGAIN).await;
    }
}

impl Manager {
    /// Shortens the shutdown that follows, and makes sure of the member that is to take over while nothing is lost yet:
    /// what PostgreSQL has last said of it may be seconds old.
    pub(super) fn checkpoint(&self) {
        let local = self.local();
        let leaving = self.cluster_memory().and_then(|m| m.in_office()?.leaving.clone());
        let target = leaving.and_then(|l| l.to).map(|pod| (self.pod_http(&pod).unwrap_or_default(), pod));
        let most = CHECKPOINT.min(self.limits.shutdown_timeout / 2);
        let line = self.line();
        self.spawn_input(async move {
            let checkpoint = async {
                let Some(local) = local else { return };
                let done = local.within(most, async |client| {
                    client.batch_execute("set statement_timeout = 0").await?;
                    Ok(client.batch_execute("checkpoint").await?)
                });
                if let Err(error) = done.await {
                    tracing::warn!("no checkpoint before the hand-over: {error}");
                }
            };
            let is_there = async {
                let Some((address, pod)) = target else { return Ok(()) };
                let asked = [(pod, address)];
                // Twice: one packet may be lost.
                if !peer::ask(&line, &asked, peer::DEADLINE).await.is_empty() {
                    return Ok(());
                }
                peer::ask_each(&line, &asked, peer::DEADLINE).await.into_iter().try_for_each(|(_, a)| a.map(drop))
            };
            let ((), is_there) = tokio::join!(checkpoint, is_there);
            Some(is_there.map_or_else(|e| ha::Input::TargetSilent(e.to_string()), |()| ha::Input::Checkpointed))
        });
    }

    /// As soon as the shutdown's checkpoint is written, `pod` is waited for to have replayed it: the postmaster itself may
    /// go on for long, for another standby or an archiver.
    pub(super) fn await_target(&self, pod: &str) {
        let launch = &self.plan.launch;
        let (pgdata, bindir, runner) = (launch.pgdata.clone(), launch.bindir.clone(), self.runner.clone());
        let (pod, address, most) = (pod.to_string(), self.pod_http(pod), self.limits.shutdown_timeout);
        let (postmaster, line) = (self.server.as_ref().map(|s| s.child.clone()), self.line());
        self.spawn_input(async move {
            let caught_up = async {
                let address = address.ok_or("it has not said where it is")?;
                let begun = Instant::now();
                loop {
                    // Before the state is read, which is written before it ends.
                    let running = postmaster.as_ref().is_some_and(Child::is_running);
                    if State::read(&pgdata) == Some(State::ShutDown) {
                        break;
                    }
                    if !running {
                        return Err("PostgreSQL ended before it had shut down in order".into());
                    }
                    if begun.elapsed() > most {
                        return Err(format!("the shutdown took longer than {} s", most.as_secs()));
                    }
                    sleep(POLL).await;
                }
                let control = ControlData::read(&pgdata, &bindir, &runner).await.map_err(|e| e.to_string())?;
                let wanted = Replayed {
                    system_id: control.system_identifier.to_string(),
                    timeline: control.checkpoint_timeline,
                    lsn: crate::postgres::replication::lsn::Lsn(control.checkpoint.0 + 1),
                };
                peer::wait_replayed(&line, &pod, &address, &wanted, CATCH_UP).await.map_err(|e| e.to_string())
            };
            Some(ha::Input::CaughtUp(caught_up.await))
        });
    }
}
