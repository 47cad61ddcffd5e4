//! Failsafe: a leader asks the others for their consent, over a network that the API has no part in.

use podgres::ha::{
    Input,
    failsafe::{Bound, Claim, may_consent},
    record::Copy,
};

use crate::{
    rules::Rule,
    search::explore,
    setup::Setup,
    taken_out::finds,
    world::{Budget, World},
};

/// What a leader asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Asking {
    pub(crate) term: u64,
    pub(crate) of: Vec<String>,
    pub(crate) sent: u64,
}

impl World {
    /// Those that run are asked and answer, or nobody hears of it.
    pub(crate) fn consents(&mut self, i: usize, all: bool) {
        let Some(asking) = self.member(i).asking.take() else { return };
        let m = &self.members[i];
        let claim = Claim {
            term: asking.term,
            pod: m.config.pod.clone(),
            uid: m.config.uid.clone(),
            instance: m.config.instance.clone(),
        };
        let duration = m.config.duration;
        let others: Vec<usize> = (0..self.members.len()).filter(|j| *j != i).collect();
        let mut consents = Vec::new();
        for j in others {
            let other = &self.members[j];
            // By address, which only the pod that is at the API has.
            let there = self.pods[other.pod].member == Some(j);
            let asked = all && there && other.runs() && asking.of.contains(&other.config.pod);
            if asked && may_consent(&other.config, &other.memory, self.clock(j), &claim).is_ok() {
                consents.push(Copy { pod: other.config.pod.clone(), copy: other.disk.copy.clone() });
                if !self.broken(Rule::PromiseBinds) {
                    let until = self.clock(j) + duration;
                    self.feed(j, Input::Bound(Bound { term: asking.term, until }));
                }
            }
        }
        if self.broken(Rule::AllConsent) {
            let record = self.members[i].memory.lease().and_then(|l| l.record.clone());
            consents = record.into_iter().flat_map(|r| r.members).collect();
        }
        let sent = if self.broken(Rule::CountsFromAsking) { self.now + 1 } else { asking.sent };
        let sent = self.clock_at(i, sent);
        self.feed(i, Input::Answered { sent, consents, refusals: Vec::new() });
    }
}

fn failsafe(name: &'static str, members: usize, budget: Budget) -> Setup {
    Setup { failsafe: true, ..Setup::new(name, members, budget) }
}

fn holds(setup: Setup) {
    let found = explore(setup);
    assert!(found.violation.is_none(), "{}\n{}", found.violation.unwrap_or_default(), found.trace);
}

#[test]
fn failsafe_two_cut() {
    holds(failsafe("failsafe two cut", 2, Budget { cut: 1, ..Budget::default() }));
}

#[test]
fn failsafe_two_cut_deaf() {
    holds_in_full(failsafe("failsafe two cut deaf", 2, Budget { cut: 1, deaf: 1, ..Budget::default() }));
}

#[test]
fn failsafe_two_cut_crash() {
    holds_in_full(failsafe("failsafe two cut crash", 2, Budget { cut: 1, crash: 1, ..Budget::default() }));
}

#[test]
fn failsafe_two_cut_slow() {
    holds_in_full(failsafe("failsafe two cut slow", 2, Budget { cut: 1, slow: 1, ..Budget::default() }));
}

#[test]
fn failsafe_two_cut_cut() {
    holds_in_full(failsafe("failsafe two cut cut", 2, Budget { cut: 2, ..Budget::default() }));
}

#[test]
fn failsafe_two_cut_lost() {
    holds_in_full(failsafe("failsafe two cut lost", 2, Budget { cut: 1, lost: 1, ..Budget::default() }));
}

#[test]
fn failsafe_two_cut_pod() {
    holds_in_full(failsafe("failsafe two cut pod", 2, Budget { cut: 1, pod: 1, ..Budget::default() }));
}

fn holds_in_full(setup: Setup) {
    if std::env::var("PODGRES_MODEL").is_ok_and(|v| v == "full") {
        holds(setup);
    }
}

#[test]
fn t8_a_promise_that_binds_nobody() {
    let budget = Budget { cut: 1, deaf: 1, ..Budget::default() };
    finds("I1", failsafe("T8", 2, budget).without(Rule::PromiseBinds));
}

#[test]
fn t8_consent_of_somebody_who_was_not_asked() {
    let budget = Budget { cut: 1, deaf: 1, slow: 1, ..Budget::default() };
    finds("I1", failsafe("T8, all", 2, budget).without(Rule::AllConsent));
}

#[test]
fn t8_counted_from_the_answer() {
    // Half a minute, so only part of the full check.
    if std::env::var("PODGRES_MODEL").is_ok_and(|v| v == "full") {
        let budget = Budget { cut: 1, deaf: 1, slow: 1, ..Budget::default() };
        finds("I1", failsafe("T8, from the answer", 2, budget).without(Rule::CountsFromAsking));
    }
}
