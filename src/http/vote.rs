//! The one door for other members behind which something changes: `POST /vote`. The loop sees who asks, and decides.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use tokio::sync::oneshot;

use super::Api;
use crate::{
    cluster::{proof, vote},
    manager::{Event, VoteAsked},
};

/// Longer ones are no questions.
const LONGEST: usize = 4096;
/// Whoever asks has given up by then.
const DEADLINE: Duration = vote::DEADLINE;

pub(super) async fn vote(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    let proof = headers.get(proof::HEADER).and_then(|p| p.to_str().ok()).unwrap_or_default().to_string();
    let refused = |status: StatusCode, why: String| (status, why + "\n").into_response();
    if proof.is_empty() || body.len() > LONGEST {
        return refused(StatusCode::FORBIDDEN, "a member of the cluster is to ask this".into());
    }
    let (reply, answer) = oneshot::channel();
    let asked = VoteAsked { body: body.to_vec(), proof, reply };
    let answered = async {
        api.send(Event::Vote(asked)).await;
        answer.await
    };
    match tokio::time::timeout(DEADLINE, answered).await {
        Ok(Ok(Ok((text, proof)))) => ([(proof::HEADER, proof)], text).into_response(),
        Ok(Ok(Err(why))) => refused(StatusCode::CONFLICT, why),
        Ok(Err(_)) => refused(StatusCode::NOT_FOUND, "this server is a member of no synchronous cluster".into()),
        Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "not yet: it is not frozen".into()),
    }
}
