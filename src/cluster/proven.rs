//! Questions between members that change something (`POST`): both sides prove that they are members, and an answer is to one
//! question only.

use std::{net::SocketAddr, time::Duration};

use hyper::{Request, StatusCode, body::Bytes};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    peer::{self, Error, Line},
    proof,
};
use crate::settings::official::Secret;

/// Where a kind of question is asked.
pub struct Door {
    /// The path.
    pub path: &'static str,
    /// What a proof of a question is for.
    pub asked: &'static str,
    /// What a proof of an answer is for.
    pub answered: &'static str,
    /// How long an answer may take.
    pub deadline: Duration,
}

/// The question that a request of these bytes asks.
///
/// # Errors
/// It is nobody's who knows the password, or none.
pub fn read<Q: DeserializeOwned>(door: &Door, password: &Secret, body: &[u8], proof: &str) -> Result<Q, String> {
    if !proof::is_right(password, door.asked, body, proof) {
        return Err("a member of the cluster is to ask this, who knows the password of replication".into());
    }
    serde_json::from_slice(body).map_err(|e| format!("this is no question for {}: {e}", door.path))
}

/// The answer to the question with this nonce, and its proof.
///
/// # Errors
/// It cannot be written down.
pub fn answer(
    door: &Door,
    password: &Secret,
    nonce: &str,
    answer: &impl Serialize,
) -> serde_json::Result<(String, String)> {
    let text = serde_json::to_string(answer)?;
    let proof = proof::of(password, door.answered, format!("{nonce}\n{text}").as_bytes());
    Ok((text, proof))
}

/// Asks at `address`. `nonce`: a value that was never used before, which the question has.
///
/// # Errors
/// Why there is no answer, for people.
pub async fn ask<A: DeserializeOwned>(
    line: &Line,
    door: &Door,
    password: &Secret,
    address: &str,
    nonce: &str,
    question: &impl Serialize,
) -> Result<A, String> {
    let asked = tokio::time::timeout(door.deadline, ask_at(line, door, password, address, nonce, question));
    asked.await.unwrap_or_else(|_| Err("no answer".into()))
}

async fn ask_at<A: DeserializeOwned>(
    line: &Line,
    door: &Door,
    password: &Secret,
    address: &str,
    nonce: &str,
    question: &impl Serialize,
) -> Result<A, String> {
    let socket: SocketAddr = address.parse().map_err(|_| Error::NotAnAddress(address.into()).to_string())?;
    let body = serde_json::to_vec(question).map_err(|e| e.to_string())?;
    let proof = proof::of(password, door.asked, &body);
    let request = Request::post(door.path).header(proof::HEADER, proof).header("content-type", "application/json");
    let (status, headers, body) = peer::send(line, socket, request, Bytes::from(body)).await.map_err(|e| match e {
        Error::Connect { .. } => "it cannot be reached".to_string(),
        other => other.to_string(),
    })?;
    let text = String::from_utf8_lossy(&body);
    if status != StatusCode::OK {
        return Err(text.lines().next().unwrap_or_default().chars().take(200).collect());
    }
    let proof = headers.get(proof::HEADER).and_then(|p| p.to_str().ok()).unwrap_or_default();
    if !proof::is_right(password, door.answered, format!("{nonce}\n{text}").as_bytes(), proof) {
        return Err("who answers does not know the password of replication".into());
    }
    serde_json::from_slice(&body).map_err(|e| format!("what it answers makes no sense: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_its_proof_is_none() {
        let door = Door { path: "/x", asked: "x", answered: "y", deadline: Duration::from_secs(1) };
        let password = Secret::new("hush");
        let body = serde_json::to_vec("question").unwrap();
        let proof = proof::of(&password, "x", &body);
        assert_eq!(read::<String>(&door, &password, &body, &proof), Ok("question".into()));
        assert!(read::<String>(&door, &Secret::new("other"), &body, &proof).is_err());
        assert!(read::<String>(&door, &password, &body, "").is_err());
        assert!(read::<String>(&door, &password, &body, &proof::of(&password, "y", &body)).is_err());
    }
}
