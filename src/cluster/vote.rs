//! Members ask each other for votes (`POST /vote`). Both sides prove that they are members: a question freezes, and an answer
//! elects.

use std::{net::SocketAddr, time::Duration};

use hyper::{Request, StatusCode, body::Bytes};
use serde::{Deserialize, Serialize};

use super::{
    peer::{self, Error},
    proof,
};
use crate::{ha::votes::Vote, settings::official::Secret};

/// A vote takes a reload, the end of a process and a look into `pg_wal`.
pub const DEADLINE: Duration = Duration::from_secs(5);

const ASKED: &str = "vote";
const ANSWERED: &str = "voted";

/// The question. Whoever overhears it can use it for nothing else: it names the term and the very start of the manager that
/// it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Question {
    /// The cluster.
    pub cluster: String,
    /// The term that is to be promised.
    pub term: u64,
    /// Who stands for it.
    pub candidate: String,
    /// Whose vote is asked for.
    pub pod: String,
    /// The start of its manager.
    pub instance: String,
    /// A value that was never used before: the answer is to this question.
    pub nonce: String,
}

impl Question {
    /// The question that a request of these bytes asks.
    ///
    /// # Errors
    /// It is nobody's who knows the password, or none.
    pub fn read(password: &Secret, body: &[u8], proof: &str) -> Result<Self, String> {
        if !proof::is_right(password, ASKED, body, proof) {
            return Err("a member of the cluster is to ask this, who knows the password of replication".into());
        }
        serde_json::from_slice(body).map_err(|e| format!("this is no question for a vote: {e}"))
    }
}

/// The answer to the question with this nonce, and its proof.
///
/// # Errors
/// It cannot be written down.
pub fn answer(password: &Secret, nonce: &str, vote: &Vote) -> serde_json::Result<(String, String)> {
    let text = serde_json::to_string(vote)?;
    let proof = proof::of(password, ANSWERED, format!("{nonce}\n{text}").as_bytes());
    Ok((text, proof))
}

/// Asks at `address`.
///
/// # Errors
/// Why there is no vote, for people.
pub async fn ask(password: &Secret, address: &str, question: &Question) -> Result<Vote, String> {
    let asked = tokio::time::timeout(DEADLINE, ask_at(password, address, question));
    asked.await.unwrap_or_else(|_| Err("no answer".into()))
}

async fn ask_at(password: &Secret, address: &str, question: &Question) -> Result<Vote, String> {
    let socket: SocketAddr = address.parse().map_err(|_| Error::NotAnAddress(address.into()).to_string())?;
    let body = serde_json::to_vec(question).map_err(|e| e.to_string())?;
    let proof = proof::of(password, ASKED, &body);
    let request = Request::post("/vote").header(proof::HEADER, proof).header("content-type", "application/json");
    let (status, headers, body) = peer::send(socket, request, Bytes::from(body)).await.map_err(|e| match e {
        Error::Connect { .. } => "it cannot be reached".to_string(),
        other => other.to_string(),
    })?;
    let text = String::from_utf8_lossy(&body);
    if status != StatusCode::OK {
        return Err(text.lines().next().unwrap_or_default().chars().take(200).collect());
    }
    let proof = headers.get(proof::HEADER).and_then(|p| p.to_str().ok()).unwrap_or_default();
    if !proof::is_right(password, ANSWERED, format!("{}\n{text}", question.nonce).as_bytes(), proof) {
        return Err("who answers does not know the password of replication".into());
    }
    let vote: Vote = serde_json::from_slice(&body).map_err(|e| format!("what it answers is no vote: {e}"))?;
    if vote.pod != question.pod || vote.term != question.term {
        return Err(format!("it answers for {} and term {}", vote.pod, vote.term));
    }
    Ok(vote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_its_proof_is_none() {
        let password = Secret::new("hush");
        let question = Question {
            cluster: "db".into(),
            term: 8,
            candidate: "db-1".into(),
            pod: "db-2".into(),
            instance: "i".into(),
            nonce: "n".into(),
        };
        let body = serde_json::to_vec(&question).unwrap();
        let proof = proof::of(&password, ASKED, &body);
        assert_eq!(Question::read(&password, &body, &proof), Ok(question));
        assert!(Question::read(&Secret::new("other"), &body, &proof).is_err());
        assert!(Question::read(&password, &body, "").is_err());
    }
}
