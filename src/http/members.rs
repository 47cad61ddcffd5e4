//! The doors for other members behind which something changes: `POST /vote` and `POST /failsafe`. The loop sees who asks, and
//! decides.

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use tokio::sync::oneshot;

use super::Api;
use crate::{
    cluster::{
        consent, fresh, proof,
        proven::{Asked, Door, Unanswered},
        vote,
    },
    manager::{Event, MemberAsked},
};

/// Longer ones are no questions.
const LONGEST: usize = 4096;

pub(super) async fn vote(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&api, &vote::DOOR, Event::Vote, &headers, &body).await
}

pub(super) async fn failsafe(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&api, &consent::DOOR, Event::Failsafe, &headers, &body).await
}

async fn ask(api: &Api, door: &Door, event: fn(MemberAsked) -> Event, headers: &HeaderMap, body: &Bytes) -> Response {
    let header = |name| headers.get(name).and_then(|h| h.to_str().ok()).unwrap_or_default().to_string();
    let (proof, challenge) = (header(proof::HEADER), header(fresh::HEADER));
    let refused = |status: StatusCode, why: String| (status, why + "\n").into_response();
    if proof.is_empty() || body.len() > LONGEST {
        return refused(StatusCode::FORBIDDEN, "a member of the cluster is to ask this".into());
    }
    let (reply, answer) = oneshot::channel();
    let asked = MemberAsked { asked: Asked { body: body.to_vec(), challenge, proof }, reply };
    let answered = async {
        api.send(event(asked)).await;
        answer.await
    };
    // Whoever asks has given up by then.
    match tokio::time::timeout(door.deadline, answered).await {
        Ok(Ok(Ok((text, proof)))) => ([(proof::HEADER, proof)], text).into_response(),
        Ok(Ok(Err(Unanswered::Challenged(challenge)))) => {
            let text = "ask again, with this challenge in the proof\n";
            (StatusCode::PRECONDITION_REQUIRED, [(fresh::HEADER, challenge)], text).into_response()
        }
        Ok(Ok(Err(Unanswered::Refused(why)))) => refused(StatusCode::CONFLICT, why),
        Ok(Err(_)) => refused(StatusCode::NOT_FOUND, "this server is a member of no cluster that asks for this".into()),
        Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "not yet: it takes longer than who asks waits".into()),
    }
}
