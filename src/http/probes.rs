//! Probes: 200 or 503, and a line that says why.

use axum::{
    Json,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::Api;
use crate::{
    lifecycle::{Phase, Role},
    manager::Snapshot,
    metrics,
    postgres::ping::Ping,
    units,
};

type Answer = (StatusCode, String);

fn yes(text: &str) -> Answer {
    (StatusCode::OK, format!("{text}\n"))
}

fn no(text: impl std::fmt::Display) -> Answer {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n"))
}

const STUCK: &str = "the manager's loop does not turn";

/// The manager's loop turns. Never a test of PostgreSQL: a busy server is no reason to kill the container.
pub(super) async fn livez(State(api): State<Api>) -> Answer {
    match api.snapshot().await {
        Some(_) => yes("alive"),
        None => no(STUCK),
    }
}

/// PostgreSQL is up, or on its way.
pub(super) async fn startupz(State(api): State<Api>) -> Answer {
    let Some(snapshot) = api.snapshot().await else { return no(STUCK) };
    match snapshot.memory.phase {
        // Told so by the cluster: to kill the container would not bring PostgreSQL up.
        Phase::Idle => yes(snapshot.memory.phase.name()),
        Phase::Begun
        | Phase::Working { .. }
        | Phase::Waiting { job: Some(_), .. }
        | Phase::Starting
        | Phase::Running { .. } => yes(snapshot.memory.phase.name()),
        _ => no(describe(&snapshot)),
    }
}

/// The query of `/readyz` and `/replica`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Asked {
    /// How far a standby may be behind.
    lag: Option<String>,
}

/// Accepts connections and, as a standby, streams and lags less than asked.
pub(super) async fn readyz(State(api): State<Api>, Query(asked): Query<Asked>) -> Answer {
    ready(&api, &asked, |_| true).await
}

/// A primary that accepts connections.
pub(super) async fn primary(State(api): State<Api>) -> Answer {
    ready(&api, &Asked { lag: None }, |role| role == Role::Primary).await
}

/// A standby that accepts connections, streams and lags less than asked.
pub(super) async fn replica(State(api): State<Api>, Query(asked): Query<Asked>) -> Answer {
    ready(&api, &asked, |role| role == Role::Standby).await
}

/// Accepts connections, in whatever role.
pub(super) async fn read_only(State(api): State<Api>, Query(asked): Query<Asked>) -> Answer {
    ready(&api, &asked, |_| true).await
}

async fn ready(api: &Api, asked: &Asked, fits: impl Fn(Role) -> bool) -> Answer {
    let limit = match asked.lag.as_deref().map(|text| (text, units::parse_size(text))) {
        Some((text, None)) => {
            return (StatusCode::BAD_REQUEST, format!("lag: {text:?} is not a size such as 16MB\n"));
        }
        Some((_, limit)) => limit,
        None => None,
    };
    let Some(snapshot) = api.snapshot().await else { return no(STUCK) };
    let Phase::Running { role } = snapshot.memory.phase else { return no(describe(&snapshot)) };
    if !fits(role) {
        return no(format_args!("this member is a {role:?}").to_string().to_lowercase());
    }
    // The Lease may be lost a moment before the server is gone.
    if role == Role::Primary && snapshot.account.as_ref().is_some_and(|a| !a.primary) {
        return no("this member does not hold the cluster's Lease");
    }
    match api.accepting(&snapshot).await {
        Ping::Accepting => {}
        Ping::Rejecting => return no("PostgreSQL rejects connections"),
        Ping::NoAnswer => return no("PostgreSQL does not answer a new connection"),
    }
    match role {
        Role::Primary => yes("primary"),
        Role::Standby => standby(api, &snapshot, limit).await,
    }
}

async fn standby(api: &Api, snapshot: &Snapshot, limit: Option<u64>) -> Answer {
    match api.facts(snapshot).await {
        Err(why) => no(format_args!("no details from PostgreSQL: {why}")),
        Ok(facts) if !facts.streaming => no("the standby does not stream"),
        Ok(facts) => match (limit, facts.lag_bytes) {
            (Some(limit), Some(lag)) if u64::try_from(lag).unwrap_or(0) > limit => {
                no(format_args!("the standby is {lag} bytes behind"))
            }
            (Some(_), None) => no("the standby's lag is not known"),
            _ => yes("standby"),
        },
    }
}

fn describe(snapshot: &Snapshot) -> String {
    format!("{}: {}", snapshot.memory.phase.name(), snapshot.memory.reason)
}

/// For Prometheus, in the OpenMetrics format; see [`crate::metrics`].
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    match api.snapshot().await {
        Some(snapshot) => {
            ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], api.metrics.scrape(&snapshot).await).into_response()
        }
        None => no(STUCK).into_response(),
    }
}

/// Everything, as JSON; see [`crate::status`].
pub(super) async fn status(State(api): State<Api>) -> Response {
    match api.snapshot().await {
        Some(snapshot) => Json(api.status(&snapshot).await).into_response(),
        None => no(STUCK).into_response(),
    }
}
