//! Whether a primary is proven healthy: what a leader must be to renew its Lease.
//!
//! Four things are watched, each on its own, because each goes on while another stands still: a commit over a connection
//! that is kept (a SELECT answers while storage is stalled), a new connection (a kept one answers while the postmaster is
//! frozen), and a small write with fsync in the data directory and in `pg_wal` (which may be on another volume). What is
//! published is when each last succeeded; [`verdict`] says what that means. A check that stalls is waited for: no second
//! one is started behind it.

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_local},
};

use crate::beat::beat;

use super::{
    ping::{Ping, Pinger},
    sql::{self, Local, Session},
};

pub mod files;

/// When a check last succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// When the latest one that succeeded was *sent*; before the first one, when the watch began.
    pub last: Instant,
    /// What went wrong with the latest one, if it failed, in words.
    pub trouble: Option<String>,
}

impl Since {
    fn starting(now: Instant) -> Self {
        Self { last: now, trouble: None }
    }

    fn note(&mut self, sent: Instant, done: Result<(), String>) {
        match done {
            Ok(()) => *self = Self::starting(sent),
            Err(why) => self.trouble = Some(why),
        }
    }
}

/// What is known of a primary's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// A committing write over the kept connection.
    pub write: Since,
    /// A new connection.
    pub connect: Since,
    /// Write and fsync of a file in the data directory.
    pub data: Since,
    /// The same in `pg_wal`.
    pub wal: Since,
    /// A volume is full. No sickness: see [`verdict`].
    pub full: bool,
}

impl Health {
    /// Of a primary that is watched from `now` on: it has all the time that it may take to prove itself.
    pub fn starting(now: Instant) -> Self {
        let since = Since::starting(now);
        Self { write: since.clone(), connect: since.clone(), data: since.clone(), wal: since, full: false }
    }
}

/// What of a primary has not worked for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// [`Health::write`].
    Write,
    /// [`Health::connect`].
    Connect,
    /// [`Health::data`].
    Data,
    /// [`Health::wal`].
    Wal,
}

/// Why a primary is not proven healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sick {
    /// What has not worked.
    pub check: Check,
    /// For how long.
    pub time: Duration,
    /// What the latest try met, if it met anything.
    pub trouble: Option<String>,
}

impl fmt::Display for Sick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.as_secs_f64();
        match self.check {
            Check::Write => write!(
                f,
                "PostgreSQL has committed nothing for {time:.1} s over a connection that is open: its processes may be \
                 frozen, or the storage of pg_wal may be stalled"
            ),
            Check::Connect => write!(
                f,
                "PostgreSQL has accepted no new connection for {time:.1} s: its postmaster may be frozen, or the machine \
                 overloaded"
            ),
            Check::Data => write!(
                f,
                "no write to the data directory has reached its storage for {time:.1} s: the storage may be stalled or \
                 read-only"
            ),
            Check::Wal => write!(
                f,
                "no write to pg_wal has reached its storage for {time:.1} s: the storage may be stalled or read-only"
            ),
        }?;
        self.trouble.as_ref().map_or(Ok(()), |trouble| write!(f, "; the latest try: {trouble}"))
    }
}

impl std::error::Error for Sick {}

/// Whether a primary is proven healthy: each check has succeeded within `limit`. Of several that have not, the one that
/// has not for longest is the reason.
///
/// A full volume is no sickness: PostgreSQL decides what it means for it (it goes on without temporary files, and stops
/// by itself when there is no room for WAL), and a standby whose volume is as full is no better leader.
///
/// # Errors
/// What is wrong.
pub fn verdict(health: &Health, now: Instant, limit: Duration) -> Result<(), Sick> {
    let checks = [
        (Check::Write, &health.write),
        (Check::Connect, &health.connect),
        (Check::Data, &health.data),
        (Check::Wal, &health.wal),
    ];
    let since =
        |(check, since): (Check, &Since)| (check, now.saturating_duration_since(since.last), since.trouble.clone());
    let overdue = checks.map(since).into_iter().filter(|(_, time, _)| *time > limit);
    match overdue.max_by_key(|(_, time, _)| *time) {
        None => Ok(()),
        Some((check, time, trouble)) => Err(Sick { check, time, trouble }),
    }
}

/// A primary to be watched.
#[derive(Debug, Clone)]
pub struct Primary {
    /// Where it is reached.
    pub local: Local,
    /// Its data directory.
    pub pgdata: PathBuf,
}

/// Watches a primary until it is dropped.
pub struct Watch {
    /// The latest that is known.
    pub health: watch::Receiver<Health>,
    checks: [JoinHandle<()>; 2],
    _files: files::Stop,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.checks.iter().for_each(JoinHandle::abort);
    }
}

impl Watch {
    /// Begins: each check once every `every`. A new connection that is not answered within `patience` is given up and
    /// made anew. Must be called inside a [`tokio::task::LocalSet`].
    pub fn start(primary: &Primary, every: Duration, patience: Duration) -> Self {
        let (publish, health) = watch::channel(Health::starting(Instant::now()));
        let files = files::watch(&primary.pgdata, every, publish.clone());
        let write = write(primary.local.clone(), every, publish.clone());
        let connect = connect(primary.local.clone(), every, patience, publish);
        Self { health, checks: [spawn_local(write), spawn_local(connect)], _files: files }
    }
}

async fn connect(local: Local, every: Duration, patience: Duration, publish: watch::Sender<Health>) {
    let (mut pinger, mut ticks) = (Pinger::default(), beat(every));
    loop {
        let sent = Instant::now();
        let done = match pinger.ask(&local.socket_dir, local.port, &local.login, patience).await {
            Ping::Accepting => Ok(()),
            Ping::Rejecting => Err("it rejects connections for now".into()),
            Ping::NoAnswer => Err(format!("no answer after {:.1} s", sent.elapsed().as_secs_f64())),
        };
        publish.send_modify(|health| health.connect.note(sent, done));
        ticks.tick().await;
    }
}

async fn write(local: Local, every: Duration, publish: watch::Sender<Health>) {
    let (mut session, mut ticks) = (None, beat(every));
    loop {
        let sent = Instant::now();
        let kept = session.is_some();
        let mut done = commit(&mut session, &local).await;
        if kept && done.is_err() && session.is_none() {
            // Somebody ended the session. A new one tells at once whether that was all.
            done = commit(&mut session, &local).await;
        }
        publish.send_modify(|health| health.write.note(sent, done.map_err(|e| e.to_string())));
        ticks.tick().await;
    }
}

/// Commits something over the session, which is opened if it is not, and dropped if it is of no use any more.
///
/// There is no deadline in here: a session that is given up leaves a backend behind that is as stalled as this one, and
/// the next would be one more. Whoever judges the health has the deadline.
async fn commit(session: &mut Option<Session>, local: &Local) -> Result<(), sql::Error> {
    let open = match session.take() {
        Some(open) => open,
        None => {
            let open =
                Session::open_as("podgres health", &local.socket_dir, local.port, &local.login, "postgres").await?;
            open.client.batch_execute(QUIET).await?;
            open
        }
    };
    let done = open.client.batch_execute(COMMIT).await;
    if !open.client.is_closed() {
        *session = Some(open);
    }
    Ok(done?)
}

/// A session that nothing ends for being idle (where PostgreSQL knows that setting), and that fills no log.
const QUIET: &str = "select set_config(name, case name when 'log_statement' then 'none' when 'log_duration' then 'off' \
    when 'default_transaction_read_only' then 'off' when 'idle_session_timeout' then '0' else '-1' end, false) \
    from pg_settings where name in ('log_statement', 'log_duration', 'log_min_duration_statement', \
    'log_min_duration_sample', 'default_transaction_read_only', 'idle_session_timeout')";

/// Transactional, so that the commit flushes WAL; at every `wal_level`, into no table and no dead row. Not for a standby:
/// every session of podgres has `synchronous_commit = local`.
const COMMIT: &str = "select pg_logical_emit_message(true, 'podgres', '')";

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn ago(seconds: f64) -> impl Fn(&mut Since, Instant) {
        move |since, now| since.last = now.checked_sub(Duration::from_secs_f64(seconds)).unwrap()
    }

    fn now() -> Instant {
        Instant::now() + Duration::from_secs(1000)
    }

    #[test]
    fn all_four_must_have_succeeded_lately() {
        let now = now();
        let healthy = Health::starting(now);
        assert_eq!(verdict(&healthy, now, LIMIT), Ok(()));
        assert_eq!(verdict(&healthy, now + LIMIT, LIMIT), Ok(()), "the limit itself is in time");
        assert!(verdict(&healthy, now + LIMIT + Duration::from_millis(1), LIMIT).is_err());
        type Part = fn(&mut Health) -> &mut Since;
        let parts: [(Part, Check, &str); 4] = [
            (|h| &mut h.write, Check::Write, "has committed nothing for 6.2 s"),
            (
                |h| &mut h.connect,
                Check::Connect,
                "has accepted no new connection for 6.2 s: its postmaster may be frozen",
            ),
            (|h| &mut h.data, Check::Data, "no write to the data directory has reached its storage for 6.2 s"),
            (|h| &mut h.wal, Check::Wal, "no write to pg_wal has reached its storage for 6.2 s"),
        ];
        for (part, check, words) in parts {
            let mut health = healthy.clone();
            ago(4.9)(part(&mut health), now);
            assert_eq!(verdict(&health, now, LIMIT), Ok(()));
            ago(6.2)(part(&mut health), now);
            let sick = verdict(&health, now, LIMIT).unwrap_err();
            assert_eq!(sick.check, check);
            assert!(sick.to_string().contains(words), "{sick}");
        }
    }

    #[test]
    fn the_longest_is_the_reason_and_the_latest_trouble_is_told() {
        let now = now();
        let mut health = Health::starting(now);
        ago(7.0)(&mut health.data, now);
        ago(8.0)(&mut health.wal, now);
        health.wal.note(now, Err("Input/output error (os error 5)".into()));
        let sick = verdict(&health, now, LIMIT).unwrap_err();
        assert_eq!(sick.check, Check::Wal);
        assert!(sick.to_string().ends_with("; the latest try: Input/output error (os error 5)"), "{sick}");
        health.wal.note(now, Ok(()));
        assert_eq!(verdict(&health, now, LIMIT).unwrap_err().check, Check::Data, "a success forgets the trouble");
    }

    #[test]
    fn a_failure_or_a_full_volume_alone_is_no_sickness() {
        let now = now();
        let mut health = Health::starting(now);
        health.connect.note(now, Err("no answer after 0.9 s".into()));
        health.full = true;
        assert_eq!(verdict(&health, now + Duration::from_secs(4), LIMIT), Ok(()));
    }
}
