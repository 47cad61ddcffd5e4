//! What a server says of its replication: who streams from it, from whom it streams, which slots it has
//! (<https://www.postgresql.org/docs/current/monitoring-stats.html>).

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::postgres::sql::Error;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replication {
    /// Who receives WAL or a base backup, by name.
    pub receivers: Vec<Receiver>,
    /// From whom it streams; none where it does not.
    pub sender: Option<Sender>,
    /// Its slots, by name; temporary ones, which end with their session, left out.
    pub slots: Vec<Slot>,
    /// Whether replay is paused: by somebody, or (from 14 on) because a setting is smaller than on the primary.
    pub replay_paused: bool,
    /// How old the last replayed transaction is, in seconds; 0 when all that was received is replayed. None where it
    /// does not stream.
    pub replay_lag_seconds: Option<f64>,
    /// `max_wal_size`, in bytes: how much WAL is normal.
    pub max_wal_size: i64,
}

/// A walsender's other end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receiver {
    /// Its `application_name`.
    pub name: String,
    /// From where it connects; none: the Unix socket.
    pub address: Option<String>,
    /// `backup`, `catchup`, `streaming`, `stopping`.
    pub state: String,
    /// How far it has replayed; none for programs that only receive.
    pub replayed: Option<String>,
    /// How many bytes that is behind.
    pub lag_bytes: Option<i64>,
    /// How long it took to replay what it last replayed, in seconds.
    pub lag_seconds: Option<f64>,
    /// `async`, `sync`, `quorum`, `potential`.
    pub sync: Option<String>,
    /// Seconds since it connected.
    pub age_seconds: i64,
}

/// What the walreceiver knows of its source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sender {
    /// Its host and port.
    pub place: String,
    /// The timeline that is received.
    pub timeline: Option<i32>,
    /// Its position, as it last said.
    pub lsn: Option<String>,
}

/// A replication slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// `physical` or `logical`.
    pub kind: String,
    /// Whether somebody streams over it.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` (it may soon lose WAL that it needs) or `lost`; none: it keeps no WAL yet.
    pub wal_status: Option<String>,
    /// How many bytes of WAL it keeps, back from the present position; none: no WAL.
    pub retained_bytes: Option<i64>,
}

/// Asks.
///
/// # Errors
/// When PostgreSQL refuses.
pub async fn replication(client: &Client) -> Result<Replication, Error> {
    let receiver = |row: &tokio_postgres::Row| {
        Ok::<_, Error>(Receiver {
            name: row.try_get(0)?,
            address: row.try_get(1)?,
            state: row.try_get(2)?,
            replayed: row.try_get(3)?,
            lag_bytes: row.try_get(4)?,
            lag_seconds: row.try_get(5)?,
            sync: row.try_get(6)?,
            age_seconds: row.try_get(7)?,
        })
    };
    let receivers = client.query(RECEIVERS, &[]).await?.iter().map(receiver).collect::<Result<_, _>>()?;
    let slot = |row: &tokio_postgres::Row| {
        Ok::<_, Error>(Slot {
            name: row.try_get(0)?,
            kind: row.try_get(1)?,
            active: row.try_get(2)?,
            wal_status: row.try_get(3)?,
            retained_bytes: row.try_get(4)?,
        })
    };
    let slots = client.query(SLOTS, &[]).await?.iter().map(slot).collect::<Result<_, _>>()?;
    let row = client.query_one(REPLAY, &[]).await?;
    let place: Option<String> = row.try_get(0)?;
    let (timeline, lsn) = (row.try_get(1)?, row.try_get(2)?);
    Ok(Replication {
        receivers,
        slots,
        sender: place.map(|place| Sender { place, timeline, lsn }),
        replay_paused: row.try_get(3)?,
        replay_lag_seconds: row.try_get(4)?,
        max_wal_size: row.try_get(5)?,
    })
}

// `greatest` skips nulls: what is not known would be 0.

/// A walsender that has only just begun (`startup`) may as well be a question. One that serves a logical slot sends to a
/// subscriber, not to a member.
const RECEIVERS: &str = "
select coalesce(nullif(r.application_name, ''), host(r.client_addr), 'unknown'), host(r.client_addr), r.state,
       r.replay_lsn::text, case when r.replay_lsn is not null then greatest(0, here.lsn - r.replay_lsn) end::int8,
       extract(epoch from r.replay_lag)::float8, r.sync_state,
       greatest(0, extract(epoch from now() - r.backend_start))::int8
  from pg_stat_replication r left join pg_replication_slots s on s.active_pid = r.pid,
       (select case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end) here(lsn)
 where r.state <> 'startup' and s.slot_type is distinct from 'logical'
 order by 1, r.pid";

const SLOTS: &str = "
select slot_name::text, slot_type, active, wal_status,
       case when restart_lsn is not null then greatest(0, here.lsn - restart_lsn) end::int8
  from pg_replication_slots,
       (select case when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                    else pg_current_wal_lsn() end) here(lsn)
 where not temporary order by 1";

const REPLAY: &str = "
select w.sender_host || ':' || w.sender_port, w.received_tli, w.latest_end_lsn::text,
       case when pg_is_in_recovery() then pg_is_wal_replay_paused() else false end,
       case when w.pid is null then null
            when pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn() then 0
            when pg_last_xact_replay_timestamp() is not null
            then greatest(0, extract(epoch from now() - pg_last_xact_replay_timestamp())) end::float8,
       pg_size_bytes(current_setting('max_wal_size'))
  from (values (1)) one left join pg_stat_wal_receiver w on w.status = 'streaming'";
