//! Where a cluster decides what this member is.

use super::*;
use crate::ha::Aim;

const CLUSTERED: Limits = Limits { clustered: true, ..LIMITS };

fn aim(goal: Goal) -> Input {
    Input::Aim(Aim { goal, kill: false })
}

#[test]
fn in_a_cluster_nothing_begins_by_itself() {
    let run = Run::of(CLUSTERED, Data::Whole);
    assert_eq!(run.memory.phase, Phase::Idle);
    run.then(aim(Goal::Standby)).does(&[Action::Work(Job::Look)]);
    Run::of(CLUSTERED, Data::Whole).then(aim(Goal::Primary { direct: true })).does(&[START]);
    Run::of(CLUSTERED, Data::Whole).then(aim(Goal::Primary { direct: false })).does(&[AS_STANDBY]);
    Run::of(CLUSTERED, Data::Empty).then(aim(Goal::Standby)).does(&[Action::Work(Job::Clone)]);
    Run::of(CLUSTERED, Data::Empty).then(aim(Goal::Primary { direct: true })).does(&[]);
}

#[test]
fn in_a_cluster_initialised_data_are_not_served_before_they_may() {
    let run = Run::of(CLUSTERED, Data::Empty).then(aim(Goal::Initialise)).does(&[Action::Work(Job::Initialise)]);
    let run = run.forget().then(Input::Done(Job::Initialise, Ok(()))).does(&[]);
    assert_eq!(run.memory.phase, Phase::Idle);
    run.then(aim(Goal::Primary { direct: true })).does(&[START]);
}

/// A primary of a cluster that runs.
fn clustered_primary() -> Run {
    let run = Run::of(CLUSTERED, Data::Whole).then(aim(Goal::Primary { direct: false }));
    run.then(Input::Ready(Role::Standby)).then(Input::Ready(Role::Primary)).forget()
}

#[test]
fn in_a_cluster_a_primary_that_crashed_comes_back_on_its_timeline() {
    clustered_primary().ends(Exit::Signal(9)).does(&[Action::CleanUp, START]);
}

#[test]
fn in_a_cluster_what_is_in_the_way_of_a_goal_is_stopped_first() {
    let run = clustered_primary().then(aim(Goal::Standby)).does(&[Action::Stop(Stop::Fast)]).forget();
    run.ends(Exit::Code(0)).does(&[Action::CleanUp, Action::Work(Job::Look)]);
    let kill = Input::Aim(Aim { goal: Goal::Down, kill: true });
    let run = clustered_primary().then(kill.clone()).does(&[Action::Stop(Stop::Kill)]).forget();
    let run = run.ends(Exit::Signal(9)).does(&[Action::CleanUp]);
    assert_eq!(run.memory.phase, Phase::Idle);
    let run = clustered_primary().then(aim(Goal::Down)).forget().then(kill).does(&[Action::Stop(Stop::Kill)]);
    let run = run.then(aim(Goal::Primary { direct: true })).forget();
    run.ends(Exit::Signal(9)).does(&[Action::CleanUp, START]);
}

#[test]
fn in_a_cluster_a_target_that_has_everything_ends_the_shutdown() {
    clustered_primary().then(Input::Quit).does(&[]);
    let run = clustered_primary().then(aim(Goal::Down)).forget();
    run.then(Input::Quit).does(&[Action::Stop(Stop::Immediate)]);
}

#[test]
fn in_a_cluster_a_server_that_does_not_start_is_tried_again_and_counted() {
    let run = Run::of(CLUSTERED, Data::Whole).then(aim(Goal::Primary { direct: true }));
    let run = run.ends(Exit::Code(1)).ends(Exit::Code(1)).ends(Exit::Code(1));
    assert_eq!((run.memory.failed_starts, run.memory.phase.name()), (3, "crashed"));
    let run = run.timer().then(Input::Ready(Role::Primary));
    assert_eq!(run.memory.failed_starts, 0);
}

#[test]
fn in_a_cluster_a_job_that_nobody_wants_any_more_is_cancelled() {
    let run = Run::of(CLUSTERED, Data::Empty).then(aim(Goal::Standby)).forget();
    let run = run.then(aim(Goal::Down)).does(&[Action::Cancel]);
    let run = run.then(Input::Done(Job::Look, Err(Failure::ForNow("cancelled".into()))));
    assert_eq!(run.memory.phase, Phase::Idle);
}

#[test]
fn in_a_cluster_an_order_to_end_ends_it() {
    let run = Run::of(CLUSTERED, Data::Whole).then(signal(Term)).does(&[Action::Exit(0)]);
    assert_eq!(run.memory.phase, Phase::Ended { code: 0 });
}

#[test]
fn in_a_cluster_a_leader_that_was_ready_comes_back_at_once_as_often_as_it_crashes() {
    let mut run = clustered_primary();
    for _ in 0..3 {
        run = run.ends(Exit::Signal(9)).does(&[Action::CleanUp, START]).then(Input::Ready(Role::Primary));
    }
}

#[test]
fn in_a_cluster_nobody_promotes_past_the_lease() {
    let run =
        Run::of(CLUSTERED, Data::Whole).then(aim(Goal::Standby)).then(Input::Looked(Look::Standby(Reason::Begun)));
    let run = run.then(Input::Ready(Role::Standby)).forget();
    run.then(Input::Promote).then(signal(Usr1)).does(&[]);
}

/// Found by a campaign of faults: a leader that was fenced a moment after it had ordered its promotion was promoted when it
/// came back as a standby.
#[test]
fn in_a_cluster_a_promotion_that_was_cut_short_is_forgotten_with_its_office() {
    let run = Run::of(CLUSTERED, Data::Whole).then(aim(Goal::Primary { direct: false }));
    let run = run.then(Input::Ready(Role::Standby)).does(&[AS_STANDBY, Action::Promote]);
    let run = run.then(Input::Aim(Aim { goal: Goal::Down, kill: true })).then(aim(Goal::Standby));
    let run = run.ends(Exit::Signal(9)).then(Input::Looked(Look::Standby(Reason::Begun))).forget();
    let run = run.then(Input::Ready(Role::Standby)).does(&[]);
    run.then(aim(Goal::Primary { direct: false })).does(&[Action::Promote]);
}

#[test]
fn in_a_cluster_who_was_promoted_by_hand_is_killed() {
    let run =
        Run::of(CLUSTERED, Data::Whole).then(aim(Goal::Standby)).then(Input::Looked(Look::Standby(Reason::Begun)));
    let run = run.then(Input::Ready(Role::Standby)).forget();
    let run = run.then(Input::Ready(Role::Primary)).does(&[Action::Stop(Stop::Kill)]);
    run.ends(Exit::Signal(9)).does(&[Action::CleanUp, Action::Work(Job::Look)]);
}
