//! Commands from the control socket, and what is for its owner only.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::sync::oneshot;

use super::Api;
use crate::{
    lifecycle::{Input, Phase, Role},
    manager::{Event, Snapshot},
    status::Settings,
};

pub(super) type Answer = (StatusCode, String);

pub(super) fn refused(why: impl Into<String>) -> Answer {
    (StatusCode::CONFLICT, why.into() + "\n")
}

/// Restarts PostgreSQL: a fast shutdown and a start. Answers at once; `status` shows how it goes.
pub(super) async fn restart(State(api): State<Api>) -> Answer {
    match api.snapshot().await.map(|s| s.memory.phase) {
        Some(Phase::Starting | Phase::Running { .. } | Phase::Waiting { .. }) => {}
        Some(phase) => return refused(format!("cannot restart while this member is {}", phase.name())),
        None => return refused("the manager's loop does not turn"),
    }
    match api.send(Event::Input(Input::Restart)).await {
        true => (StatusCode::OK, "PostgreSQL is being restarted\n".into()),
        false => refused("the manager's loop does not turn"),
    }
}

/// The query of `/promote`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Force {
    /// `cost`: say what may be lost, and do nothing; otherwise do it.
    force: Option<String>,
}

/// How long a promotion may take: what was received is replayed first. It goes on when nobody waits any more.
const PROMOTION_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Promotes this member and waits until it accepts writes. A primary is one already.
pub(super) async fn promote(State(api): State<Api>, Query(Force { force }): Query<Force>) -> Answer {
    match force.as_deref() {
        Some("cost") => return super::cluster::cost(&api).await,
        Some(_) => return super::cluster::force(&api).await,
        None => {}
    }
    if api.kubernetes.is_some() {
        return super::cluster::promote(&api).await;
    }
    match api.snapshot().await.map(|s| s.memory.phase) {
        Some(Phase::Running { role: Role::Primary }) => return (StatusCode::OK, "this member is the primary\n".into()),
        Some(Phase::Running { role: Role::Standby }) => {}
        Some(phase) => return refused(format!("cannot promote while this member is {}", phase.name())),
        None => return refused("the manager's loop does not turn"),
    }
    if !api.send(Event::Input(Input::Promote)).await {
        return refused("the manager's loop does not turn");
    }
    let promoted = async {
        loop {
            if let Some(Snapshot { memory, .. }) = api.snapshot().await
                && memory.phase == (Phase::Running { role: Role::Primary })
            {
                return memory.promotion;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(PROMOTION_TIMEOUT, promoted).await {
        Ok(took) => {
            let took = took.map(|t| format!(", {} ms after the order", t.as_millis())).unwrap_or_default();
            (StatusCode::OK, format!("promoted: this member accepts writes{took}\n"))
        }
        Err(_) => {
            refused("the promotion is ordered and has not happened within a minute; podgres status shows how it goes")
        }
    }
}

/// Throws away what a standby has and clones it anew. Answers at once; `status` shows how it goes.
pub(super) async fn reinit(State(api): State<Api>) -> Answer {
    let Some(Snapshot { memory, source, .. }) = api.snapshot().await else {
        return refused("the manager's loop does not turn");
    };
    if source.is_none() {
        return refused("there is no source to clone from: the settings have no standby-of");
    }
    if memory.phase == (Phase::Running { role: Role::Primary }) {
        return refused("this member is a primary: its data are nowhere else, and are not thrown away");
    }
    if !memory.standby || matches!(memory.phase, Phase::Working { .. }) {
        return refused(format!("cannot clone anew while this member is {}", memory.phase.name()));
    }
    match api.send(Event::Input(Input::Reinit)).await {
        true => {
            (StatusCode::OK, "this member is being cloned anew; what it has is replaced when that is complete\n".into())
        }
        false => refused("the manager's loop does not turn"),
    }
}

/// Re-reads the settings and reloads PostgreSQL.
pub(super) async fn reload(State(api): State<Api>) -> Answer {
    let (reply, answer) = oneshot::channel();
    if !api.send(Event::Reload(reply)).await {
        return refused("the manager's loop does not turn");
    }
    match answer.await {
        Ok(Ok(text)) => (StatusCode::OK, text + "\n"),
        Ok(Err(why)) => refused(why),
        Err(_) => refused("the manager is ending"),
    }
}

/// PostgreSQL's settings with their origins. Not over HTTP: they tell much about a machine.
pub(super) async fn settings(State(api): State<Api>) -> Response {
    let Some(snapshot) = api.snapshot().await else {
        return refused("the manager's loop does not turn").into_response();
    };
    match api.settings(&snapshot).await {
        Ok(settings) => Json(Settings { settings }).into_response(),
        Err(why) => refused(why).into_response(),
    }
}
