//! Questions between members that change something (`POST`): both sides prove that they are members, an answer is to one
//! question only, and a question is asked now ([`super::fresh`]): first comes a challenge, and then the answer.

use std::{net::SocketAddr, time::Duration};

use hyper::{HeaderMap, Request, StatusCode, body::Bytes, header::HeaderValue};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    fresh,
    peer::{self, Error, Line},
    proof,
};
use crate::{settings::official::Secret, units};

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

/// A question as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The request's body.
    pub body: Vec<u8>,
    /// The challenge that it is to answer; empty: none.
    pub challenge: String,
    /// Its proof.
    pub proof: String,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// It is to be asked again, with this challenge in its proof.
    Challenged(String),
    /// For people.
    Refused(String),
}

impl From<String> for Unanswered {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

/// What is proven of a question.
fn said(challenge: &str, body: &[u8]) -> Vec<u8> {
    // Members of an earlier version know of no challenge. Whoever does accepts no question without one.
    if challenge.is_empty() { body.to_vec() } else { [challenge.as_bytes(), b"\n", body].concat() }
}

/// The question that this one asks, whose challenge is a fresh one.
///
/// # Errors
/// It is nobody's who knows the password, or none.
pub fn read<Q: DeserializeOwned>(door: &Door, password: &Secret, asked: &Asked) -> Result<Q, String> {
    let Asked { body, challenge, proof } = asked;
    if challenge.is_empty() || !proof::is_right(password, door.asked, &said(challenge, body), proof) {
        return Err("a member of the cluster is to ask this, who knows the password of replication".into());
    }
    serde_json::from_slice(body)
        .map_err(|e| format!("this is no question for {}: {}", door.path, units::beginning(&e.to_string())))
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
    let question = Bytes::from(serde_json::to_vec(question).map_err(|e| e.to_string())?);
    let send = async |challenge: &str| {
        let proof = proof::of(password, door.asked, &said(challenge, &question));
        let request = Request::post(door.path).header(proof::HEADER, proof).header(fresh::HEADER, challenge);
        let request = request.header("content-type", "application/json");
        peer::send(line, socket, request, question.clone()).await.map_err(|e| match e {
            // What TLS has against it says more.
            Error::Connect { source, .. } if source.get_ref().is_none() => "it cannot be reached".to_string(),
            other => other.to_string(),
        })
    };
    let (mut status, mut headers, mut body) = send("").await?;
    if status == StatusCode::PRECONDITION_REQUIRED {
        (status, headers, body) = send(&header(&headers, fresh::HEADER)).await?;
    }
    understood(door, password, nonce, status, &headers, &body)
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|h: &HeaderValue| h.to_str().ok()).unwrap_or_default().to_string()
}

/// What an answer says to the question with this nonce.
///
/// # Errors
/// It refuses, is nobody's who knows the password, or makes no sense.
pub(crate) fn understood<A: DeserializeOwned>(
    door: &Door,
    password: &Secret,
    nonce: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<A, String> {
    let text = String::from_utf8_lossy(body);
    if status != StatusCode::OK {
        return Err(units::beginning(&text));
    }
    let proof = header(headers, proof::HEADER);
    if !proof::is_right(password, door.answered, format!("{nonce}\n{text}").as_bytes(), &proof) {
        return Err("who answers does not know the password of replication".into());
    }
    serde_json::from_slice(body)
        .map_err(|e| format!("what it answers makes no sense: {}", units::beginning(&e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_its_proof_is_none() {
        let door = Door { path: "/x", asked: "x", answered: "y", deadline: Duration::from_secs(1) };
        let password = Secret::new("hush");
        let body = serde_json::to_vec("question").unwrap();
        let proven = |challenge: &str, purpose: &str| Asked {
            proof: proof::of(&password, purpose, &said(challenge, &body)),
            challenge: challenge.into(),
            body: body.clone(),
        };
        let good = proven("7.a.b", "x");
        assert_eq!(read::<String>(&door, &password, &good), Ok("question".into()));
        assert!(read::<String>(&door, &Secret::new("other"), &good).is_err());
        for other in [
            Asked { proof: String::new(), ..good.clone() },
            Asked { challenge: "8.a.b".into(), ..good.clone() },
            Asked { body: b"\"questioN\"".to_vec(), ..good.clone() },
            proven("7.a.b", "y"),
            proven("", "x"),
        ] {
            assert!(read::<String>(&door, &password, &other).is_err(), "{other:?}");
        }
    }

    /// Somebody who answers every question with this; gives back its address.
    async fn answers(status: StatusCode, proof: String, text: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer = async move || (status, [(proof::HEADER, proof), (fresh::HEADER, "1.a.b".into())], text);
        let router = axum::Router::new().route("/x", axum::routing::post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn an_answer_counts_with_a_proof_that_it_is_to_this_question() {
        let door = Door { path: "/x", asked: "x", answered: "y", deadline: Duration::from_secs(10) };
        let password = Secret::new("hush");
        let of = |purpose: &str, said: &str| proof::of(&password, purpose, said.as_bytes());
        let told = async |status, proof: String| {
            let address = answers(status, proof, "7").await;
            ask::<u8>(&Line::default(), &door, &password, &address, "nonce", &"question").await
        };
        assert_eq!(told(StatusCode::OK, of("y", "nonce\n7")).await, Ok(7));
        let another = [of("y", "another\n7"), of("y", "nonce\n8"), of("x", "nonce\n7"), of("y", "7"), String::new()];
        for proof in another {
            let why = told(StatusCode::OK, proof.clone()).await.unwrap_err();
            assert!(why.contains("does not know the password"), "{proof}: {why}");
        }
        // Whoever gives challenges and nothing else is asked twice.
        let why = told(StatusCode::PRECONDITION_REQUIRED, of("y", "nonce\n7")).await;
        assert_eq!(why, Err("7".into()));
    }
}
