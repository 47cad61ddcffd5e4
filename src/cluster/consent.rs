//! A leader that does not reach the API asks the others to wait (`POST /failsafe`).

use serde::{Deserialize, Serialize};

use super::{
    peer::{self, Line},
    proven::{self, Door},
};
use crate::{ha::record::Copy, settings::official::Secret};

/// Where.
pub const DOOR: Door = Door { path: "/failsafe", asked: "failsafe", answered: "consented", deadline: peer::DEADLINE };

/// The question. It names the very start of the manager that it is for, which answers to it once: asked again for a leader
/// that is dead it would hold back the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Question {
    /// The cluster.
    pub cluster: String,
    /// The leader's term.
    pub term: u64,
    /// Its pod.
    pub leader: String,
    /// Its pod's UID.
    pub uid: String,
    /// The start of its manager.
    pub of: String,
    /// Its `lease-duration`, in milliseconds: so long the one that consents waits.
    pub duration_ms: u64,
    /// Whose consent is asked for.
    pub pod: String,
    /// The start of its manager.
    pub instance: String,
    /// A value that was never used before: the answer is to this question.
    pub nonce: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Consent {
    pod: String,
    copy: String,
    term: u64,
}

/// The answer to `question` of this copy, and its proof.
///
/// # Errors
/// It cannot be written down.
pub fn answer(password: &Secret, question: &Question, copy: String) -> serde_json::Result<(String, String)> {
    let consent = Consent { pod: question.pod.clone(), copy, term: question.term };
    proven::answer(&DOOR, password, &question.nonce, &consent)
}

/// Asks at `address`; who consents.
///
/// # Errors
/// Why it does not, for people.
pub async fn ask(line: &Line, password: &Secret, address: &str, question: &Question) -> Result<Copy, String> {
    let consent: Consent = proven::ask(line, &DOOR, password, address, &question.nonce, question).await?;
    if consent.pod != question.pod || consent.term != question.term {
        return Err(format!("it answers for {} and term {}", consent.pod, consent.term));
    }
    Ok(Copy { pod: consent.pod, copy: consent.copy })
}
