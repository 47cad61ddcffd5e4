//! What the handlers know: how to ask the loop, and how to ask PostgreSQL without burdening it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, Semaphore, oneshot};

use super::{
    member,
    status::{OnDisk, View},
};
use crate::{
    cluster::kubernetes::Kubernetes,
    cluster::peer::{self, Line},
    ha::member::{Account, Pod},
    lifecycle::Phase,
    manager::{Event, Events, Snapshot},
    metrics::Metrics,
    postgres::{
        config::{
            report::{self, Setting},
            standby::Raise,
        },
        kept::{Kept, Row},
        ping::{Ping, Pinger},
        replication::stat::Replication,
        sql::{self, Facts, Local, Login},
    },
    status::Status,
};

/// A loop that has not answered by then does not turn.
const LOOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Facts that are younger than this serve the next request too.
const FRESH: Duration = Duration::from_millis(250);

/// For pg_controldata, and for a change of the configuration that is on its way.
const CONTROL_DATA_TIMEOUT: Duration = Duration::from_secs(2);

/// For all settings with their origins, which takes PostgreSQL some milliseconds.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(4);

type Details = (Facts, Replication);
type Answers = BTreeMap<String, Result<Account, String>>;
type Latest<T> = Arc<Mutex<Option<(Instant, Result<T, String>)>>>;

/// The handlers' state. Clones share it.
#[derive(Clone)]
pub struct Api {
    events: Events,
    login: Login,
    // One question to PostgreSQL at a time: requests that come meanwhile wait for its answer and share it.
    ping: Arc<Mutex<Pinger>>,
    facts: Latest<Facts>,
    details: Latest<Details>,
    pub(super) metrics: Metrics,
    kept: Kept,
    answers: Arc<Mutex<Option<(Instant, Answers)>>>,
    line: Line,
    /// Where the commands of a cluster go.
    pub(super) kubernetes: Option<Kubernetes>,
    /// Turns to wait for a standby to replay.
    pub(super) waits: Arc<Semaphore>,
}

impl Api {
    /// For the loop behind `events`, the server that `login` opens and the user's files in `config_dir`; other members are
    /// asked by `line`.
    pub fn new(events: Events, login: Login, config_dir: &Path, kubernetes: Option<Kubernetes>, line: Line) -> Self {
        let metrics = Metrics::new(login.clone(), config_dir);
        Self {
            events,
            login,
            metrics,
            ping: Arc::default(),
            facts: Arc::default(),
            details: Arc::default(),
            kept: Kept::default(),
            answers: Arc::default(),
            line,
            kubernetes,
            waits: Arc::new(Semaphore::new(member::WAITS)),
        }
    }

    /// How things are; none when the loop does not turn.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            self.events.send(Event::Ask(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(LOOP_TIMEOUT, ask).await.ok()?
    }

    /// Hands an event to the loop.
    pub(super) async fn send(&self, event: Event) -> bool {
        self.events.send_timeout(event, LOOP_TIMEOUT).await.is_ok()
    }

    /// Whether a new connection is accepted.
    pub(super) async fn accepting(&self, snapshot: &Snapshot) -> Ping {
        let Some((dir, port)) = address(snapshot) else { return Ping::NoAnswer };
        self.ping.lock().await.ping(dir, port, &self.login).await
    }

    /// What PostgreSQL says of itself, or why it does not.
    pub(super) async fn facts(&self, snapshot: &Snapshot) -> Result<Facts, String> {
        let Some((dir, port)) = address(snapshot) else { return Err("it does not run".into()) };
        let mut last = self.facts.lock().await;
        match &*last {
            Some((at, facts)) if at.elapsed() < FRESH => facts.clone(),
            _ => {
                let facts = sql::facts(dir, port, &self.login).await.map_err(|e| e.to_string());
                *last = Some((Instant::now(), facts.clone()));
                facts
            }
        }
    }

    /// All that `status` shows.
    pub(super) async fn status(&self, snapshot: &Snapshot) -> Status {
        let (here, answers) = tokio::join!(self.here(snapshot), self.answers(snapshot));
        View { answers, ..here }.status()
    }

    /// What was found out of this member.
    async fn here<'a>(&self, snapshot: &'a Snapshot) -> View<'a> {
        let ping = self.accepting(snapshot).await;
        let running = matches!(snapshot.memory.phase, Phase::Running { .. });
        let said = match running && ping == Ping::Accepting {
            true => Some(self.details(snapshot).await),
            false => None,
        };
        let paused = said.as_ref().is_some_and(|s| s.as_ref().is_ok_and(|(_, r)| r.replay_paused));
        let too_small = if paused { self.too_small().await } else { Vec::new() };
        let custom_queries = self.metrics.problem();
        let (on_disk, answers) = (OnDisk::of(&snapshot.pgdata), Answers::new());
        View { snapshot, ping, said, too_small, custom_queries, on_disk, answers }
    }

    /// What all members of the cluster say of themselves right now, or why they do not. Nobody is there who has not said
    /// where to ask.
    pub(super) async fn answers(&self, snapshot: &Snapshot) -> Answers {
        let Some(view) = &snapshot.cluster else { return Answers::new() };
        let mut last = self.answers.lock().await;
        if let Some((_, answers)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return answers.clone();
        }
        let others = view.pods.values().filter(|pod| pod.name != view.pod);
        let http = |pod: &Pod| Some(pod.status.as_ref()?.http.clone()).filter(|address| !address.is_empty());
        let others: Vec<_> = others.filter_map(|pod| Some((pod.name.clone(), http(pod)?))).collect();
        let asked = peer::ask_each(&self.line, &others, peer::DEADLINE);
        let (own, others) = tokio::join!(member::fresh(self, snapshot, peer::DEADLINE), asked);
        let others = others.into_iter().map(|(pod, answer)| (pod, answer.map_err(|e| e.to_string())));
        let answers: Answers = others.chain(own.map(|account| (view.pod.clone(), Ok(account)))).collect();
        *last = Some((Instant::now(), answers.clone()));
        answers
    }

    /// The facts, with what there is to say of replication.
    async fn details(&self, snapshot: &Snapshot) -> Result<Details, String> {
        let Some((dir, port)) = address(snapshot) else { return Err("it does not run".into()) };
        let mut last = self.details.lock().await;
        match &*last {
            Some((at, details)) if at.elapsed() < FRESH => details.clone(),
            _ => {
                let mut details = sql::details(dir, port, &self.login).await.map_err(|e| e.to_string());
                if let Ok((facts, _)) = &mut details {
                    facts.pending_restart.retain(|p| !snapshot.config.is_raised(p));
                }
                *last = Some((Instant::now(), details.clone()));
                details
            }
        }
    }

    /// The first row of the answer to `query`, from the session that is kept. A server that starts or stops is not asked.
    pub(super) async fn kept_row(&self, snapshot: &Snapshot, query: &str, deadline: Duration) -> Result<Row, String> {
        let running = snapshot.postgres.as_ref().filter(|_| matches!(snapshot.memory.phase, Phase::Running { .. }));
        let (Some(file), Some((dir, port))) = (running, address(snapshot)) else {
            return Err("PostgreSQL does not run".into());
        };
        let local = Local { socket_dir: dir.into(), port, login: self.login.clone() };
        self.kept.row(&local, file.pid.as_raw(), query, deadline).await.map_err(|e| e.to_string())
    }

    /// Which settings are smaller than on the primary; none where that cannot be found out.
    async fn too_small(&self) -> Vec<Raise> {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            self.events.send(Event::AskTooSmall(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(CONTROL_DATA_TIMEOUT, ask).await.ok().flatten().unwrap_or_default()
    }

    /// All of PostgreSQL's settings, and where they come from.
    pub(super) async fn settings(&self, snapshot: &Snapshot) -> Result<Vec<Setting>, String> {
        let Some((dir, port)) = address(snapshot) else {
            return Err("PostgreSQL does not run, and only it knows its settings".into());
        };
        let local = Local { socket_dir: dir.into(), port, login: self.login.clone() };
        let asked = local.within(SETTINGS_TIMEOUT, async |client| report::settings(client, &snapshot.config).await);
        asked.await.map_err(|e| format!("the settings are not known: {e}"))
    }
}

fn address(snapshot: &Snapshot) -> Option<(&Path, u16)> {
    let file = snapshot.postgres.as_ref()?;
    Some((file.socket_dir.as_deref()?, file.port))
}
