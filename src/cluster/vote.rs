//! Members ask each other for votes (`POST /vote`): a question freezes, and an answer elects.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    peer::Line,
    proven::{self, Door},
};
use crate::{ha::votes::Vote, settings::official::Secret};

/// Where. A vote takes a reload, the end of a process and a look into `pg_wal`.
pub const DOOR: Door = Door { path: "/vote", asked: "vote", answered: "voted", deadline: Duration::from_secs(5) };

/// The question. Whoever overhears it can use it for nothing: it names the term and the very start of the manager that it is
/// for, which answers to it once.
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

/// Asks at `address`.
///
/// # Errors
/// Why there is no vote, for people.
pub async fn ask(line: &Line, password: &Secret, address: &str, question: &Question) -> Result<Vote, String> {
    let vote: Vote = proven::ask(line, &DOOR, password, address, &question.nonce, question).await?;
    if vote.pod != question.pod || vote.term != question.term {
        return Err(format!("it answers for {} and term {}", vote.pod, vote.term));
    }
    Ok(vote)
}
