//! What the handlers know: how to ask the loop, and how to ask PostgreSQL without burdening it.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, oneshot};

use crate::{
    lifecycle::{Phase, Role},
    manager::{Event, Events, Snapshot},
    metrics::Metrics,
    postgres::{
        config::standby,
        ping::{Ping, Pinger},
        sql::{self, Facts, Login},
    },
    status::{Manager, Member, Status},
};

/// A loop that has not answered by then does not turn.
const LOOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Facts that are younger than this serve the next request too.
const FRESH: Duration = Duration::from_millis(250);

type LatestFacts = (Instant, Result<Facts, String>);

/// The handlers' state. Clones share it.
#[derive(Clone)]
pub struct Api {
    events: Events,
    login: Login,
    // One question to PostgreSQL at a time: requests that come meanwhile wait for its answer and share it.
    ping: Arc<Mutex<Pinger>>,
    facts: Arc<Mutex<Option<LatestFacts>>>,
    pub(super) metrics: Metrics,
}

impl Api {
    /// For the loop behind `events`, the server that `login` opens and the user's files in `config_dir`.
    pub fn new(events: Events, login: Login, config_dir: &Path) -> Self {
        let metrics = Metrics::new(login.clone(), config_dir);
        Self { events, login, metrics, ping: Arc::default(), facts: Arc::default() }
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
        let memory = &snapshot.memory;
        let role = match memory.phase {
            Phase::Running { role } => Some(role),
            _ => None,
        };
        let mut problems = snapshot.config.problems();
        problems.extend(self.metrics.problem());
        let mut facts = None;
        let ping = self.accepting(snapshot).await;
        match role {
            None => problems.push(format!(
                "PostgreSQL does not accept connections ({}): {}",
                memory.phase.name(),
                memory.reason
            )),
            Some(_) if ping != Ping::Accepting => problems.push("PostgreSQL does not answer a new connection".into()),
            Some(role) => match self.facts(snapshot).await {
                Ok(f) => {
                    problems.extend(problems_of(role, &f));
                    facts = Some(f);
                }
                Err(why) => problems.push(format!("no details from PostgreSQL: {why}")),
            },
        }
        Status {
            members: vec![Member {
                name: host_name(),
                role: role.map(|r| role_name(r).into()),
                state: memory.phase.name().into(),
                reason: memory.reason.to_string(),
                state_age_seconds: snapshot.now.saturating_sub(memory.since).as_secs(),
                accepting: ping == Ping::Accepting,
                postgres_pid: snapshot.postgres.as_ref().map(|p| p.pid.as_raw()),
                data_directory: snapshot.pgdata.display().to_string(),
                postgres: facts,
            }],
            problems,
            manager: Manager {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
                uptime_seconds: snapshot.now.as_secs(),
                restarts: memory.restarts,
                log_lines_dropped: snapshot.log_lines_dropped,
            },
        }
    }
}

fn problems_of(role: Role, facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    if role == Role::Standby && !facts.streaming {
        problems.push("the standby does not stream from a primary".into());
    }
    for pending in &facts.pending_restart {
        let order = standby::order(role == Role::Primary, &pending.name, &pending.value, &pending.new_value);
        let order = order.map(|o| format!("; {o}")).unwrap_or_default();
        problems.push(format!("a changed setting waits for a restart: {pending}{order}"));
    }
    problems
}

fn address(snapshot: &Snapshot) -> Option<(&Path, u16)> {
    let file = snapshot.postgres.as_ref()?;
    Some((file.socket_dir.as_deref()?, file.port))
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Standby => "standby",
    }
}

fn host_name() -> String {
    nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|_| "localhost".into())
}
