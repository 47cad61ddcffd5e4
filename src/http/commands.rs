//! Commands from the control socket.

use axum::{extract::State, http::StatusCode};
use tokio::sync::oneshot;

use super::Api;
use crate::{
    lifecycle::{Input, Phase},
    manager::Event,
};

type Answer = (StatusCode, String);

fn refused(why: impl Into<String>) -> Answer {
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

/// Re-reads the settings and reloads PostgreSQL.
pub(super) async fn reload(State(api): State<Api>) -> Answer {
    let (reply, answer) = oneshot::channel();
    if !api.send(Event::Reload(reply)).await {
        return refused("the manager's loop does not turn");
    }
    match answer.await {
        Ok(Ok(())) => (StatusCode::OK, "settings were read again, PostgreSQL reloads its files\n".into()),
        Ok(Err(why)) => refused(format!("PostgreSQL reloads its files, but podgres keeps its old settings: {why}")),
        Err(_) => refused("the manager is ending"),
    }
}
