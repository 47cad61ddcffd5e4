//! That a question is asked now, and once. Its proof says who asks, not when: whoever recorded one, or held it back on its
//! way, could freeze a standby with it, or hold back an election, long after the member that asked is dead. So whoever is
//! asked first gives a challenge, and answers only to a proof that has it in it.
//!
//! Nothing is kept of a challenge before it comes back with a good proof, so nobody can use up anything by asking for more
//! of them: it says itself when it was given, and has its own proof.

use std::{collections::VecDeque, time::Duration};

use super::proof;
use crate::{ha::Mono, postgres::replication::clone::random, settings::official::Secret};

/// The header that has it.
pub const HEADER: &str = "podgres-challenge";

/// As long as anybody waits for an answer ([`super::vote::DOOR`]).
const LASTS: Duration = Duration::from_secs(5);

/// What a proof of a challenge is for.
const PURPOSE: &str = "challenge";

/// Those that one start of one manager gives.
#[derive(Debug)]
pub struct Challenges {
    instance: String,
    /// Which of them were answered, and when: no longer than they last.
    used: VecDeque<(Mono, String)>,
}

impl Challenges {
    /// Of the manager's start `instance`, on whose clock every `now` is.
    pub fn of(instance: &str) -> Self {
        Self { instance: instance.into(), used: VecDeque::new() }
    }

    /// A new one.
    pub fn give(&self, password: &Secret, now: Mono) -> String {
        let text = format!("{}.{:016x}", now.as_millis(), random());
        let proof = self.proof(password, &text);
        format!("{text}.{proof}")
    }

    /// Whether this manager gave it just now, and nobody has used it.
    pub fn is_fresh(&self, password: &Secret, now: Mono, challenge: &str) -> bool {
        let Some((text, proof)) = challenge.rsplit_once('.') else { return false };
        let given = text.split_once('.').and_then(|(millis, _)| millis.parse().ok()).map(Duration::from_millis);
        let age = given.and_then(|given| now.checked_sub(given));
        age.is_some_and(|age| age <= LASTS)
            && !self.used.iter().any(|(_, used)| used == challenge)
            && proof::is_right(password, PURPOSE, self.signed(text).as_bytes(), proof)
    }

    /// It came with a good proof.
    pub fn used(&mut self, now: Mono, challenge: &str) {
        self.used.retain(|(at, _)| now.saturating_sub(*at) <= LASTS);
        self.used.push_back((now, challenge.into()));
    }

    fn proof(&self, password: &Secret, text: &str) -> String {
        proof::of(password, PURPOSE, self.signed(text).as_bytes())
    }

    fn signed(&self, text: &str) -> String {
        format!("{}.{text}", self.instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_challenge_serves_one_question_soon_to_the_one_who_gave_it() {
        let (password, mut own) = (Secret::new("hush"), Challenges::of("a"));
        let challenge = own.give(&password, at(7_000));
        assert!(own.is_fresh(&password, at(7_000), &challenge) && own.is_fresh(&password, at(12_000), &challenge));
        assert!(!own.is_fresh(&password, at(12_001), &challenge), "held back");
        assert!(!own.is_fresh(&password, at(6_999), &challenge), "of a time to come");
        assert!(!Challenges::of("b").is_fresh(&password, at(7_000), &challenge), "another start's");
        assert!(!own.is_fresh(&Secret::new("other"), at(7_000), &challenge));
        own.used(at(7_100), &challenge);
        assert!(!own.is_fresh(&password, at(7_200), &challenge), "used");
        assert!(own.is_fresh(&password, at(7_200), &own.give(&password, at(7_200))));
    }

    #[test]
    fn nobody_else_can_make_one_or_move_it_in_time() {
        let (password, own) = (Secret::new("hush"), Challenges::of("a"));
        let challenge = own.give(&password, at(7_000));
        let later = challenge.replacen("7000.", "9000.", 1);
        for made in ["", ".", "7000", "7000.x", "7000.x.y", "é.é.é", &later, &challenge[..challenge.len() - 2]] {
            assert!(!own.is_fresh(&password, at(9_000), made), "{made}");
        }
    }

    #[test]
    fn no_more_is_kept_of_what_was_used_than_what_could_be_used_again() {
        let (password, mut own) = (Secret::new("hush"), Challenges::of("a"));
        for second in 0..100 {
            own.used(at(second * 1_000), &own.give(&password, at(second * 1_000)));
        }
        assert!(own.used.len() <= 6, "{}", own.used.len());
    }
}
