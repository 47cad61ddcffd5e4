//! With a rule of synchronous clusters taken out, the commit that is lost for it is found, or who stays frozen for it.

use crate::{
    rules::Rule,
    setup::{Prelude, Setup},
    sound::holds_in_full,
    taken_out::finds,
    world::Budget,
};

fn sync(name: &'static str, members: usize, rule: Rule, budget: Budget) -> Setup {
    Setup { sync: 1, lazy: true, prompt: true, ..Setup::new(name, members, budget).without(rule) }
}

/// The leader's manager sleeps, and no fence saves anybody.
fn asleep(name: &'static str, rule: Rule, budget: Budget) -> Setup {
    Setup { unfenced: true, prelude: Prelude::Asleep, ..sync(name, 3, rule, budget) }
}

/// And the second member is about to know that it has the third's vote.
fn voted(name: &'static str, rule: Rule, budget: Budget) -> Setup {
    Setup { prelude: Prelude::Voted, ..asleep(name, rule, budget) }
}

/// The first standby after none.
fn joins(name: &'static str, rule: Rule) -> Setup {
    let budget = Budget { commit: 1, crash: 1, ..Budget::default() };
    Setup { prelude: Prelude::Alone, ..sync(name, 2, rule, budget) }
}

#[test]
fn t3_the_next_best_while_the_best_sleeps() {
    let setup = sync("T3, votes", 3, Rule::NotAhead, Budget::default());
    finds("I2", Setup { prelude: Prelude::BestSleeps, ..setup });
}

#[test]
fn t4_asks_more_with_the_record_first() {
    finds("I2", joins("T4, joins", Rule::MoreRecordLast));
}

#[test]
fn t4_asks_less_with_the_setting_first() {
    let budget = Budget { commit: 1, crash: 1, ..Budget::default() };
    let setup = sync("T4, leaves", 2, Rule::LessRecordFirst, budget);
    finds("I2", Setup { prelude: Prelude::Leaving, ..setup });
}

#[test]
fn t4_without_proof_of_the_reload() {
    finds("I2", joins("T4, proof", Rule::ProofOfReload));
}

#[test]
fn t4_without_a_wait_for_the_position() {
    finds("I2", joins("T4, position", Rule::WaitsForPosition));
}

#[test]
fn t5_a_vote_that_does_not_freeze() {
    finds("I2", voted("T5, freezes", Rule::VoteFreezes, Budget::default()));
}

#[test]
fn t5_a_promise_that_is_not_on_disk() {
    finds("I2", voted("T5, promise", Rule::PromiseOnDisk, Budget { crash: 1, ..Budget::default() }));
}

/// Nothing is lost for it here: what a candidate receives after its own vote it has itself, and no other member's vote is
/// for less. What the rule is there for is below the model: a server is promoted where it has replayed to.
#[test]
fn t5_a_candidate_that_does_not_freeze_itself() {
    holds_in_full(asleep("T5, candidate", Rule::CandidateFreezes, Budget { commit: 1, crash: 1, ..Budget::default() }));
}

#[test]
fn a_vote_for_what_is_noted() {
    let setup = sync("noted", 3, Rule::HistoryOfWal, Budget::default());
    finds("I2", Setup { prelude: Prelude::Unnoted, lazy: false, terms: 5, ..setup });
}

#[test]
fn t6_votes_of_members_that_receive_again() {
    let setup = voted("T6, thaws", Rule::ThawNeedsTerm, Budget::default());
    finds("I2", Setup { prelude: Prelude::VoterSleeps, ..setup });
}

#[test]
fn t6_frozen_for_ever() {
    let setup = sync("T6, for ever", 2, Rule::TakesUpPromises, Budget { cut: 1, deaf: 1, ..Budget::default() });
    finds("I5", Setup { calm_every: 1, lazy: false, ..setup });
}

#[test]
fn t10_an_old_volume_under_a_known_name() {
    let budget = Budget { old_volume: 1, node: 1, ..Budget::default() };
    let setup = sync("T10, votes", 2, Rule::CopyIsMember, budget);
    finds("I2", Setup { prelude: Prelude::OneHasIt, ..setup });
}

#[test]
fn t14_a_name_that_two_have() {
    let budget = Budget { commit: 1, ..Budget::default() };
    let setup = sync("T14", 3, Rule::AddressNotName, budget);
    finds("I2", Setup { prelude: Prelude::TwoOfOneName, unfenced: true, ..setup });
}

#[test]
fn t16_a_new_primary_with_a_standbys_setting() {
    let budget = Budget { commit: 1, crash: 2, ..Budget::default() };
    let setup = sync("T16", 2, Rule::BeginsWithNobody, budget);
    finds("I2", Setup { lazy: false, ..setup });
}
