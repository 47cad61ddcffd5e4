//! `/metrics`: the manager's metrics, PostgreSQL's, and those of custom queries.
//!
//! # At most one connection
//!
//! A collection is a task with one connection, which it opens and closes: that it is a new one shows that connections
//! are accepted, and one that is kept would forbid users to drop or rename its database. Scrapes that come meanwhile
//! share it. A scrape waits `WAIT` at most; when PostgreSQL hangs, the collection goes on hanging with its connection,
//! and further scrapes answer at once, without another. Old values are never shown again.

pub(crate) mod custom;
pub(crate) mod family;
mod manager;
mod postgres;
pub(crate) mod rows;
mod troubles;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::watch, task::AbortHandle};

pub use family::CONTENT_TYPE;
use family::{Family, Group, Kind};

use crate::{
    lifecycle::Phase,
    manager::Snapshot,
    postgres::sql::{Error, Local, Login, Session},
};

/// How long a scrape waits for PostgreSQL. A hundred times what it takes, and well below the ten seconds after which
/// Prometheus gives a scrape up (`scrape_timeout`), so that the manager's own metrics arrive.
const WAIT: Duration = Duration::from_secs(2);

/// An answer that is younger serves the next scrape too, so that a flood of scrapes is no flood of connections.
const FRESH: Duration = Duration::from_secs(1);

/// A connection on which nothing has come for so long is given up for a new one: it may be its backend that hangs, and
/// not PostgreSQL.
const GIVE_UP: Duration = Duration::from_secs(300);

/// The collector. Clones share it.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    login: Login,
    running: Mutex<Option<Running>>,
    custom: Mutex<custom::Custom>,
    troubles: Mutex<troubles::Troubles>,
}

/// A collection that goes on, or ended just now.
struct Running {
    postmaster: i32,
    begun: Instant,
    seen: watch::Receiver<Collected>,
    task: AbortHandle,
}

/// What a collection has found so far.
#[derive(Clone, Default)]
struct Collected {
    /// A connection was accepted.
    accepted: bool,
    /// PostgreSQL has answered.
    up: bool,
    /// There is nothing more to come.
    done: bool,
    groups: Vec<Group>,
}

impl Metrics {
    /// Of the server that `login` opens, with the custom queries of `config_dir`.
    pub fn new(login: Login, config_dir: &Path) -> Self {
        let custom = Mutex::new(custom::Custom::new(config_dir));
        Self(Arc::new(Inner { login, running: Mutex::default(), custom, troubles: Mutex::default() }))
    }

    /// What is wrong with the custom queries.
    pub fn problem(&self) -> Option<String> {
        let mut custom = lock(&self.0.custom);
        custom.refresh();
        custom.problem()
    }

    /// The answer to a scrape.
    pub async fn scrape(&self, snapshot: &Snapshot) -> String {
        lock(&self.0.custom).refresh();
        let collected = self.collected(snapshot).await;
        let gauge = |name: &'static str, help: &'static str| Family::new(name, Kind::Gauge, help);
        let mut own = manager::families(snapshot);
        own.push(
            gauge("podgres_accepting_connections", "Whether PostgreSQL accepted a new connection for this scrape.")
                .with(vec![], collected.accepted),
        );
        own.push(gauge("pg_up", "Whether PostgreSQL answered this scrape.").with(vec![], collected.up));
        own.extend(lock(&self.0.custom).families());
        let mut groups = vec![Arc::new(own)];
        groups.extend(collected.groups);
        family::encode(groups)
    }

    async fn collected(&self, snapshot: &Snapshot) -> Collected {
        let postmaster = snapshot.postgres.as_ref().filter(|_| matches!(snapshot.memory.phase, Phase::Running { .. }));
        let Some((pid, local)) = postmaster.and_then(|p| {
            let socket_dir = p.socket_dir.clone()?;
            Some((p.pid.as_raw(), Local { socket_dir, port: p.port, login: self.0.login.clone() }))
        }) else {
            return Collected::default();
        };
        let (begun, mut seen) = self.join_or_begin(pid, local);
        if begun.elapsed() >= WAIT && !seen.borrow().done {
            return Collected::default();
        }
        // What has come until then is fresh, also when it is not all.
        let _ = tokio::time::timeout_at((begun + WAIT).into(), seen.wait_for(|c| c.done)).await;
        seen.borrow().clone()
    }

    fn join_or_begin(&self, postmaster: i32, local: Local) -> (Instant, watch::Receiver<Collected>) {
        let mut running = lock(&self.0.running);
        if let Some(running) = running.as_ref().filter(|r| !r.task.is_finished()) {
            if running.postmaster == postmaster {
                return (running.begun, running.seen.clone());
            }
            // Of a server that is gone.
            running.task.abort();
        }
        let (begun, (shown, seen)) = (Instant::now(), watch::channel(Collected::default()));
        let inner = self.0.clone();
        let task = tokio::spawn(async move {
            if tokio::time::timeout(GIVE_UP, inner.collect(&local, begun + WAIT, &shown)).await.is_err() {
                return;
            }
            shown.send_modify(|c| c.done = true);
            tokio::time::sleep(FRESH).await;
            inner.forget(begun);
        });
        *running = Some(Running { postmaster, begun, seen: seen.clone(), task: task.abort_handle() });
        (begun, seen)
    }
}

impl Inner {
    async fn collect(&self, local: &Local, deadline: Instant, shown: &watch::Sender<Collected>) {
        let session = match open(local, "postgres").await {
            Ok(session) => session,
            Err(why) => return self.trouble("connection", &format!("no connection for metrics: {why}")),
        };
        lock(&self.troubles).over("connection");
        shown.send_modify(|c| c.accepted = true);
        let server = match identify(&session).await {
            Ok(server) => server,
            Err(why) => return self.trouble("server", &format!("no metrics from PostgreSQL: {why}")),
        };
        shown.send_modify(|c| c.up = true);
        let mut taken: BTreeSet<String> = ["pg_up".to_string()].into();
        self.standard(&session, server.version_num / 10_000, &mut taken, shown).await;
        let show = |group| shown.send_modify(|c| c.groups.push(group));
        custom::run(self, local, session, server, deadline, &mut taken, &show).await;
    }

    /// All of PostgreSQL's own, sent at once: one round trip, and an error spoils one query only.
    async fn standard(
        &self,
        session: &Session,
        major: u32,
        taken: &mut BTreeSet<String>,
        shown: &watch::Sender<Collected>,
    ) {
        let queries = postgres::QUERIES.iter().filter(|q| q.majors.contains(&major));
        let mut answers: FuturesUnordered<_> =
            queries.map(async |q| (q, rows::query(&session.client, q.sql).await)).collect();
        while let Some((query, answer)) = answers.next().await {
            let name = query.name();
            // Also when this one failed: what it is called is not for a custom query to take now and then.
            query.families(&rows::Rows::default()).iter().for_each(|f| _ = f.claim(taken));
            match answer {
                Ok(rows) => {
                    lock(&self.troubles).over(name);
                    shown.send_modify(|c| c.groups.push(Arc::new(query.families(&rows))));
                }
                Err(why) => self.trouble(name, &format!("no metrics such as {name}: {why}")),
            }
        }
    }

    fn trouble(&self, with: &str, text: &str) {
        lock(&self.troubles).report(with, text);
    }

    /// Frees what the collection that began at `begun` holds.
    fn forget(&self, begun: Instant) {
        let mut running = lock(&self.running);
        if running.as_ref().is_some_and(|r| r.begun == begun) {
            *running = None;
        }
    }
}

async fn open(local: &Local, database: &str) -> Result<Session, Error> {
    Session::open_as("podgres metrics", &local.socket_dir, local.port, &local.login, database).await
}

/// Whatever locks a catalog, others wait behind it already, and metrics must not be another.
async fn identify(session: &Session) -> Result<custom::Server, Error> {
    let sql = "set lock_timeout = '100ms'; set statement_timeout = '1s'; \
        select current_setting('server_version_num'), pg_is_in_recovery()";
    let rows = rows::query(&session.client, sql).await?;
    let value = |column: usize| rows.rows.first().and_then(|r| r.get(column)?.as_deref());
    let version_num = value(0).and_then(|v| v.parse().ok());
    let version_num = version_num.ok_or_else(|| Error::Refused("it does not say its version".into()))?;
    Ok(custom::Server { version_num, is_primary: value(1) == Some("f") })
}

/// A panic while a lock was held leaves at worst something unsaid, so a poisoned lock is used as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
