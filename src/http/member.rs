//! What this member answers when other members ask: what the loop knows, with PostgreSQL's position of this moment.

use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::Api;
use crate::{
    ha::member::Account,
    lifecycle::{Phase, Role},
    manager::Snapshot,
    postgres::{kept::Row, replication::lsn::Lsn},
};

/// For everything, so that whoever waits half a second ([`crate::cluster::peer::DEADLINE`]) has the answer.
const DEADLINE: Duration = Duration::from_millis(300);

/// How long at most somebody may wait for a standby to replay.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How many may wait at once. It is the leader who does, when it hands over.
pub(super) const WAITS: usize = 4;

/// Until then every moment counts to the one who waits; who has waited longer has a standby that is far behind.
const SOON: Duration = Duration::from_millis(200);

/// What a standby has received is not all that it has: what it found in `pg_wal` or an archive it has only replayed.
const POSITION: &str = "
select (case when pg_is_in_recovery() then greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
             else pg_current_wal_lsn() end)::text";

const REPLAYED: &str = "select pg_last_wal_replay_lsn()::text";

/// No account, and why.
type Refusal = (StatusCode, String);

/// The query of `/member`.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Asked {
    /// Answer only when that much is replayed.
    replayed: Option<String>,
    /// How long to wait for that, in milliseconds.
    within: Option<String>,
}

/// The account of this member, as JSON; with `replayed=LSN&within=MILLISECONDS` as soon as it has replayed that far, or 503
/// and how far it is.
pub(super) async fn member(State(api): State<Api>, Query(asked): Query<Asked>) -> Response {
    match answer(&api, &asked).await {
        Ok(account) => Json(account).into_response(),
        Err((status, why)) => (status, why + "\n").into_response(),
    }
}

async fn answer(api: &Api, asked: &Asked) -> Result<Account, Refusal> {
    let wanted = asked.wanted().map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let begun = Instant::now();
    let snapshot = look(api).await?;
    let Some((lsn, within)) = wanted else {
        return fresh(api, &snapshot, DEADLINE.saturating_sub(begun.elapsed())).await.ok_or_else(standalone);
    };
    if snapshot.account.is_none() {
        return Err(standalone());
    }
    if !matches!(snapshot.memory.phase, Phase::Running { role: Role::Standby }) {
        return Err(unavailable(format!("{} and no standby: nothing is replayed", snapshot.memory.phase.name())));
    }
    wait(api, &snapshot, lsn, within).await?;
    fresh(api, &look(api).await?, DEADLINE).await.ok_or_else(standalone)
}

async fn look(api: &Api) -> Result<Snapshot, Refusal> {
    let snapshot = tokio::time::timeout(DEADLINE, api.snapshot()).await.ok().flatten();
    snapshot.ok_or_else(|| unavailable("the manager's loop does not turn".into()))
}

fn unavailable(why: String) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, why)
}

fn standalone() -> Refusal {
    (StatusCode::NOT_FOUND, "this server is a member of no cluster".into())
}

impl Asked {
    /// How far is to be replayed, and how long that may take.
    fn wanted(&self) -> Result<Option<(Lsn, Duration)>, String> {
        let Some(lsn) = &self.replayed else { return Ok(None) };
        let lsn = lsn.parse().map_err(|error| format!("replayed: {error}"))?;
        let within = match &self.within {
            None => Duration::ZERO,
            Some(text) => Duration::from_millis(
                text.parse().map_err(|_| format!("within: {text:?} is not a number of milliseconds"))?,
            ),
        };
        Ok(Some((lsn, within.min(LONGEST_WAIT))))
    }
}

/// The account of the snapshot with PostgreSQL's position of this moment. Without that the member cannot take over.
pub(super) async fn fresh(api: &Api, snapshot: &Snapshot, deadline: Duration) -> Option<Account> {
    let account = snapshot.account.clone()?;
    let position = api.kept_row(snapshot, POSITION, deadline).await.and_then(|row| lsn(&row));
    Some(match position {
        Ok(Lsn(lsn)) => Account { lsn, ..account },
        Err(_) => Account { fit: false, ..account },
    })
}

fn lsn(row: &Row) -> Result<Lsn, String> {
    let text = row.first().and_then(Option::as_deref).ok_or("PostgreSQL does not say how far it is")?;
    text.parse().map_err(|error| format!("PostgreSQL's position: {error}"))
}

/// Until `lsn` is replayed.
async fn wait(api: &Api, snapshot: &Snapshot, wanted: Lsn, within: Duration) -> Result<(), Refusal> {
    let Ok(_turn) = api.waits.try_acquire() else {
        return Err((StatusCode::TOO_MANY_REQUESTS, format!("{WAITS} others wait for this already")));
    };
    let begun = Instant::now();
    loop {
        let row = api.kept_row(snapshot, REPLAYED, DEADLINE).await;
        let reached = row.and_then(|row| lsn(&row)).map_err(unavailable)?;
        let waited = begun.elapsed();
        if reached >= wanted {
            return Ok(());
        }
        if waited >= within {
            return Err(unavailable(reached.to_string()));
        }
        let pause = Duration::from_millis(if waited < SOON { 2 } else { 10 });
        tokio::time::sleep(pause.min(within - waited)).await;
    }
}

#[cfg(test)]
mod tests;
