//! With a rule taken out, what it is there for is found: the traces of 04-traces.md, as far as they concern these rules.

use crate::{
    rules::Rule,
    search::explore,
    setup::{Prelude, Setup},
    world::Budget,
};

/// `what`: how the violation that is found begins.
pub(crate) fn finds(what: &str, setup: Setup) {
    let (name, rule) = (setup.name, setup.without);
    let found = explore(setup);
    let violation = found.violation.unwrap_or_default();
    println!("{name} without {rule:?}: {violation}\n{}", found.trace);
    assert!(violation.starts_with(what), "{rule:?}: {what} was to be found");
}

fn two(name: &'static str, rule: Rule, budget: Budget) -> Setup {
    Setup { prompt: true, ..Setup::new(name, 2, budget).without(rule) }
}

#[test]
fn t1_take_back_and_slow_target() {
    finds("I1", two("T1", Rule::OwnWrite, Budget { switchover: 1, ..Budget::default() }));
}

#[test]
fn t2_two_managers_of_one_name() {
    let setup = two("T2", Rule::InstanceIsIdentity, Budget { force: 1, ..Budget::default() });
    finds("I1", Setup { prompt: false, ..setup });
}

#[test]
fn t3_the_next_may() {
    let budget = Budget { crash: 1, commit: 1, ..Budget::default() };
    let setup = Setup::new("T3", 3, budget).without(Rule::BestFirst);
    finds("loss", Setup { lazy: true, prompt: true, ..setup });
}

#[test]
fn t7_a_deleted_lease() {
    let setup = two("T7", Rule::AbsentIsNotFree, Budget { delete: 1, deaf: 1, ..Budget::default() });
    finds("I1", Setup { prompt: false, ..setup });
}

#[test]
fn t7_a_restored_lease() {
    finds("I3", two("T7, restored", Rule::TermsRise, Budget { restore: 1, slow: 1, ..Budget::default() }));
}

#[test]
fn t9_a_deleted_pod_that_lives() {
    let setup = two("T9", Rule::DeletedIsNotDead, Budget { pod: 1, deaf: 1, ..Budget::default() });
    finds("I1", Setup { prompt: false, ..setup });
}

#[test]
fn t9_the_message_of_the_container_before() {
    let setup = two("T9, message", Rule::MessageOfInstance, Budget { pod: 1, deaf: 1, ..Budget::default() });
    finds("I1", Setup { prelude: Prelude::Restarted, prompt: false, ..setup });
}

#[test]
fn t10_a_name_without_its_data() {
    finds("I3", two("T10", Rule::CopyIsMember, Budget { volume: 1, crash: 1, ..Budget::default() }));
}

#[test]
fn t11_a_shortened_duration() {
    let setup = two("T11, duration", Rule::LargerDuration, Budget { slow: 1, ..Budget::default() });
    finds("I1", Setup { durations: [8, 4, 8, 4], ..setup });
}

#[test]
fn t11_a_fresh_version() {
    finds("I3", two("T11, version", Rule::VersionOfRead, Budget { slow: 1, deaf: 1, ..Budget::default() }));
}

#[test]
fn t11_an_annotation_each_second() {
    let setup = two("T11, touched", Rule::TupleCounts, Budget { node: 1, ..Budget::default() });
    finds("I5", Setup { calm_every: 1, calm_touched: true, ..setup });
}

#[test]
fn t12_no_margin() {
    finds("I1", two("T12", Rule::Margin, Budget { cut: 1, ..Budget::default() }));
}

#[test]
fn t12_a_fence_that_is_frozen_with_the_manager() {
    finds("I1", two("T12, frozen", Rule::FenceNeedsNobody, Budget { slow: 1, ..Budget::default() }));
}

#[test]
fn no_fence() {
    finds("I1", two("no fence", Rule::Fence, Budget { slow: 1, ..Budget::default() }));
}

#[test]
fn counted_from_the_answer() {
    let budget = Budget { slow: 1, cut: 1, ..Budget::default() };
    finds("I1", two("from the answer", Rule::CountsFromSending, budget));
}

#[test]
fn t13_one_number_two_histories() {
    let budget = Budget { crash: 2, ..Budget::default() };
    let setup = Setup::new("T13", 3, budget).without(Rule::LineageIsTerm);
    finds("I4", Setup { lazy: true, prompt: true, ..setup });
}

#[test]
fn t15_a_resume_that_the_leader_does_not_see() {
    finds("I1", two("T15", Rule::ResumeFromRenewal, Budget { pause: 2, slow: 1, ..Budget::default() }));
}
