//! Who confirms commits: what the decision orders is put into PostgreSQL's file, and seen to be in force.
//!
//! A reload is asynchronous in each walsender, and in the checkpointer, which alone tells backends whether to wait at all. So
//! before anything depends on it that nothing is confirmed any more is proven: every walsender that counted says so itself,
//! and a commit of our own is seen waiting.

use std::time::Duration;

use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Client, types::PgLsn};

use super::{ClusterEvent, Manager};
use crate::{
    ha::{self, quorum::Names},
    pid1::Child,
    postgres::sql::{Error, Local, Session},
};

/// The setting.
pub(in crate::manager) const NAMES: &str = "synchronous_standby_names";

/// For one try of the proof. It takes milliseconds, unless the checkpointer is in the middle of its fsyncs.
const PROOF: Duration = Duration::from_secs(5);
/// A walsender that has not read its file by then is ended: its standby comes back at once with a new one.
const STUBBORN: Duration = Duration::from_secs(1);
/// Commits wait for this.
const POLL: Duration = Duration::from_millis(2);
/// After a change by which commits may be released that wait: walsenders read their files within milliseconds.
const NUDGES: [Duration; 4] =
    [Duration::from_millis(5), Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(500)];

/// Each standby answers it, and each answer has its walsender look for commits to release.
const NUDGE: &str = "select pg_logical_emit_message(true, 'podgres', '')";

/// What is being put in force. It ends with the server's time as a primary.
#[derive(Default)]
pub(super) struct Confirming(Vec<AbortHandle>);

impl Drop for Confirming {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Manager {
    /// What podgres owns of a synchronous cluster's servers.
    pub(in crate::manager) fn owned_of_sync(&self, standby: bool) -> Vec<(&'static str, String)> {
        let Some(cluster) = self.cluster.as_ref().filter(|c| c.config.sync.standbys > 0) else { return Vec::new() };
        let mut owned = vec![
            // A standby that loses what it confirmed confirms nothing.
            ("fsync", "on".to_string()),
            ("full_page_writes", "on".into()),
            (NAMES, cluster.names.setting()),
        ];
        if standby {
            // By these the leader knows that it lives.
            owned.push(("wal_receiver_status_interval", "1s".into()));
        }
        owned
    }

    /// Whatever server is started next begins with a name that nobody bears.
    pub(in crate::manager) fn confirm_nothing(&mut self) {
        self.cluster.iter_mut().for_each(|c| c.names = Names::Nobody);
    }

    pub(super) fn stop_confirming(&mut self, before: Vec<String>) {
        let Some(set) = self.set_names(Names::Nobody) else { return };
        let events = self.events.clone();
        self.while_leading(async move |local| {
            set.await;
            let begun = Instant::now();
            let lsn = loop {
                match timeout(PROOF, prove(&local, &before)).await {
                    Ok(Ok(lsn)) => break lsn,
                    Ok(Err(error)) => tracing::warn!("that no commit is confirmed is not proven yet: {error}"),
                    Err(_) => {
                        tracing::warn!("that no commit is confirmed is not proven for {} s", begun.elapsed().as_secs())
                    }
                }
                sleep(POLL * 50).await;
            };
            drop(events.send(ClusterEvent::Input(ha::Input::Proven(lsn)).into()).await);
        });
    }

    pub(super) fn confirm(&mut self, names: Names) {
        let Some(set) = self.set_names(names.clone()) else { return };
        let events = self.events.clone();
        self.while_leading(async move |local| {
            set.await;
            for (at, pause) in NUDGES.into_iter().enumerate() {
                sleep(pause).await;
                let nudged = local.within(PROOF, async |client| Ok(client.batch_execute(NUDGE).await?)).await;
                if let Err(error) = nudged {
                    tracing::debug!("waiting commits could not be nudged: {error}");
                }
                if at == 1 {
                    let input = ha::Input::Confirmed(names.clone());
                    drop(events.send(ClusterEvent::Input(input).into()).await);
                }
            }
        });
    }

    /// Somebody may have set it past podgres, with `ALTER SYSTEM`. What is seen once may be on its way.
    pub(super) fn check_names(&mut self, seen: &str) {
        let Some(cluster) = self.cluster.as_mut().filter(|c| c.config.sync.standbys > 0) else { return };
        let strays = cluster.names.setting() != seen;
        if std::mem::replace(&mut cluster.overruled, strays) && strays {
            tracing::error!(
                "{NAMES} was set to {seen:?} by somebody else, and commits may have been confirmed by nobody"
            );
            let names = cluster.names.clone();
            if let Some(set) = self.set_names(names) {
                tokio::task::spawn_local(set);
            }
        }
    }

    /// Writes the file and has the postmaster read it.
    fn set_names(&mut self, names: Names) -> Option<impl Future<Output = ()> + use<>> {
        let child: Child = self.server.as_ref()?.child.clone();
        let setting = names.setting();
        tracing::info!("{NAMES} is {setting:?} from now on");
        self.cluster.as_mut()?.names = names;
        self.config.own(NAMES, setting);
        let put = self.config.put_in_force(child);
        Some(async move {
            if let Err(error) = put.await {
                tracing::error!("{NAMES} cannot be written into PostgreSQL's file: {error}");
            }
        })
    }

    /// A task that ends with the present server's time as a primary.
    fn while_leading(&mut self, work: impl AsyncFnOnce(Local) + 'static) {
        let Some((local, cluster)) = self.local().zip(self.cluster.as_mut()) else { return };
        let task = tokio::task::spawn_local(async move { work(local).await });
        cluster.confirming.0.retain(|t| !t.is_finished());
        cluster.confirming.0.push(task.abort_handle());
    }
}

/// Waits until nothing is confirmed any more. All that was is in the WAL before the position that is given back, and on the
/// own disk.
async fn prove(local: &Local, before: &[String]) -> Result<u64, Error> {
    while local.within(PROOF, async |client| setting(client).await).await? != Names::Nobody.setting() {
        sleep(POLL).await;
    }
    let session = local.open().await?;
    let begun = Instant::now();
    while !stubborn(&session.client, before, begun.elapsed() > STUBBORN).await? {
        sleep(POLL).await;
    }
    let probe = Probe::begin(local).await?;
    while !probe.waits(&session.client).await? {
        sleep(POLL).await;
    }
    let lsn: PgLsn = session.client.query_one("select pg_current_wal_insert_lsn()", &[]).await?.try_get(0)?;
    session.client.batch_execute(NUDGE).await?;
    session.client.execute("select pg_cancel_backend($1)", &[&probe.pid]).await?;
    session.close().await;
    Ok(lsn.into())
}

async fn setting(client: &Client) -> Result<String, Error> {
    Ok(client.query_one("select current_setting('synchronous_standby_names')", &[]).await?.try_get(0)?)
}

/// Whether none of the walsenders that counted `before` goes by an old list. `sync_priority` is what each has set itself
/// (`sync_state` is computed by whoever reads it), and is 0 also of one that has not said yet how far its standby has
/// flushed. What a base backup has does not count and will not before it has read its file. `end` those that do not.
async fn stubborn(client: &Client, before: &[String], end: bool) -> Result<bool, Error> {
    let query = if end { STUBBORN_END } else { STUBBORN_COUNT };
    Ok(client.query_one(query, &[&before]).await?.try_get::<_, i64>(0)? == 0)
}

const STUBBORN_COUNT: &str = "select count(*) from pg_stat_replication where application_name = any($1)
    and state <> 'backup' and (sync_priority <> 0 or flush_lsn is null)";
const STUBBORN_END: &str = "select count(pg_terminate_backend(pid)) from pg_stat_replication
    where application_name = any($1) and state <> 'backup' and (sync_priority <> 0 or flush_lsn is null)";

/// A commit that is to wait for standbys.
struct Probe {
    pid: i32,
    // Ends with its connection.
    commit: tokio::task::JoinHandle<()>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.commit.abort();
    }
}

impl Probe {
    async fn begin(local: &Local) -> Result<Self, Error> {
        let session: Session = local.open().await?;
        // What is said of its end is for nobody.
        session.client.batch_execute("set log_min_messages = panic; set synchronous_commit = on").await?;
        let pid = session.client.query_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
        let commit = tokio::task::spawn_local(async move {
            let session = session;
            let _ = session.client.batch_execute(NUDGE).await;
        });
        Ok(Self { pid, commit })
    }

    async fn waits(&self, client: &Client) -> Result<bool, Error> {
        if self.commit.is_finished() {
            return Err(Error::Refused("a commit did not wait".into()));
        }
        let query = "select exists (select from pg_stat_activity where pid = $1 and wait_event = 'SyncRep')";
        Ok(client.query_one(query, &[&self.pid]).await?.try_get(0)?)
    }
}
