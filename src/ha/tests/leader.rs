//! In office: renewing, the record, being fenced.

use super::*;

#[test]
fn only_a_renewal_that_says_so_spares_a_leader_the_fence() {
    let mut a = Member::leader("a");
    let before = a.memory.lease().unwrap().clone();
    a.give(Input::Lease(Some(Lease { version: "80".into(), paused: Some("true".into()), ..before })));
    assert_eq!(a.take_written().map(|l| l.duration), Some(lease::PAUSED), "at once, not at its next turn");
    let paused = Lease {
        version: "81".into(),
        renewed: "p".into(),
        duration: lease::PAUSED,
        ..a.memory.lease().unwrap().clone()
    };
    let actions = a.give(Input::Written { sent: a.now, result: Ok(paused.clone()) });
    assert!(actions.contains(&Action::Disarm), "{actions:?}");
    a.done.clear();
    a.give(Input::Lease(Some(Lease { version: "82".into(), paused: None, ..paused })));
    assert_eq!(a.take_written().map(|l| l.duration), Some(S(10)));
}

#[test]
fn the_fence_stands_again_before_the_end_of_a_pause_is_written() {
    let mut a = Member::leader("a");
    let led = a.memory.lease().unwrap().clone();
    let paused = Lease { version: "80".into(), paused: Some("true".into()), ..led };
    a.give(Input::Lease(Some(paused.clone())));
    a.take_written();
    let unfenced = Lease { version: "81".into(), renewed: "p".into(), duration: lease::PAUSED, ..paused };
    a.give(Input::Written { sent: a.now, result: Ok(unfenced.clone()) });
    a.done.clear();
    // Whether it has arrived nobody knows, and the others may count from now.
    let (sent, fires) = (a.now, a.now + S(8));
    let actions = a.give(Input::Lease(Some(Lease { version: "82".into(), paused: None, ..unfenced.clone() })));
    assert!(actions.contains(&Action::Arm(fires)) && a.writes(), "{actions:?}");
    a.now += S(3);
    a.give(Input::Written { sent, result: Err(Refusal::Other("no answer in time".into())) });
    a.now += S(1);
    a.done.clear();
    a.give(Input::Read(Ok(Some(Lease { version: "82".into(), paused: None, ..unfenced }))));
    let again = a.done.iter().any(|x| matches!(x, Action::Arm(_)));
    assert!(a.writes() && !again, "the first one counts: {:?}", a.done);
}

#[test]
fn a_leader_renews_and_moves_its_fence() {
    let mut a = Member::leader("a");
    a.after(MS(1900));
    assert!(!a.writes());
    a.after(MS(100));
    let sent = a.now;
    let actions = a.granted();
    assert!(actions.contains(&Action::Arm(sent + S(8))), "{actions:?}");
    assert_eq!(a.memory.lease().unwrap().record, Some(record(&["a", "b", "c"])));
}

#[test]
fn a_conflict_is_read_back_and_only_another_holder_ends_the_office() {
    let mut a = Member::leader("a");
    a.after(S(2));
    let before = a.memory.lease().unwrap().clone();
    a.take_written();
    let actions = a.give(Input::Written { sent: a.now, result: Err(Refusal::Conflict) });
    assert!(actions.contains(&Action::ReadLease));
    let moved = Lease { version: "99".into(), paused: Some("false".into()), ..before.clone() };
    a.give(Input::Read(Ok(Some(moved))));
    assert!(a.writes(), "an annotation moved the version: once more");
    a.take_written();
    a.give(Input::Written { sent: a.now, result: Err(Refusal::Conflict) });
    let other = Lease { version: "100".into(), term: before.term + 1, ..led_by("b") };
    let actions = a.give(Input::Read(Ok(Some(other))));
    assert!(kills(&actions), "{actions:?}");
    assert_eq!(aims(&actions), [Goal::Down, Goal::Standby]);
    assert!(!actions.contains(&Action::Disarm), "not while a postmaster is there");
    assert!(a.local(|l| l.server = Server::Down).contains(&Action::Disarm));
}

#[test]
fn a_lease_that_somebody_deleted_is_written_anew_by_the_leader_in_office() {
    let mut a = Member::leader("a");
    a.give(Input::Lease(None));
    a.after(S(2));
    let Some(Action::WriteLease { over: None, lease }) =
        a.done.last().cloned().into_iter().find(|a| matches!(a, Action::WriteLease { .. }))
    else {
        panic!("{:?}", a.done)
    };
    assert_eq!((lease.term, lease.system_id, lease.record.clone()), (8, Some(42), Some(record(&["a", "b", "c"]))));
    let mut b = Member::standby("b", &led_by("a"));
    b.local(|l| l.record = Some(record(&["a", "b", "c"])));
    b.give(Input::Lease(None));
    b.after(S(9));
    assert!(!b.writes());
    b.after(S(1));
    b.accounts(&[account("b", 5)]);
    let first = b.take_written().unwrap().term;
    assert!((9..=1008).contains(&first), "{first}: term 8 may have been that of somebody whom b has not seen");
    let mut b = Member::standby("b", &led_by("a"));
    b.config.instance = "another start".into();
    b.local(|l| l.record = Some(record(&["a", "b", "c"])));
    b.give(Input::Lease(None));
    b.after(S(10));
    b.accounts(&[account("b", 5)]);
    assert_ne!(b.take_written().unwrap().term, first, "each start leaves out a number of its own");
}

#[test]
fn a_renewal_that_a_fenced_leader_still_waits_for_is_no_taking_of_office() {
    let mut a = Member::leader("a");
    a.after(S(2));
    a.take_written();
    a.after(S(6));
    a.give(Input::Fired);
    a.local(|l| {
        l.server = Server::Down;
        l.held = 8;
    });
    assert!(!a.writes() && a.memory.office == Office::Out, "{:?}", a.memory.office);
    a.give(Input::Written { sent: a.now, result: Err(Refusal::Other("no answer".into())) });
    a.after(S(1));
    let lease = a.memory.lease().cloned();
    a.give(Input::Read(Ok(lease)));
    assert!(a.writes(), "{:?}", a.memory.office);
}

#[test]
fn a_leader_that_was_fenced_begins_again_as_if_it_had_just_started() {
    let mut a = Member::leader("a");
    a.now += S(8);
    let actions = a.give(Input::Fired);
    assert_eq!((&a.memory.office, aims(&actions).as_slice()), (&Office::Out, [Goal::Down, Goal::Standby].as_slice()));
    assert!(!actions.contains(&Action::Disarm));
    assert!(a.local(|l| l.server = Server::Down).contains(&Action::Disarm));
    assert!(a.writes(), "the Lease is still this pod's: with its server proven dead it takes it again");
}

#[test]
fn a_server_that_waited_for_its_next_start_when_the_fence_fired_does_not_come_up_as_a_primary() {
    let mut a = Member::leader("a");
    a.local(|l| l.server = Server::Down);
    a.now += S(8);
    let actions = a.give(Input::Fired);
    assert!(a.writes() && a.memory.office == Office::Taking, "its own Lease, and no server: {:?}", a.memory.reason);
    assert_eq!(aims(&actions), [Goal::Down], "the order to be a primary is taken back");
}

#[test]
fn a_renewal_on_the_way_when_the_fence_fires_holds_up_the_next_office_and_does_not_bar_it() {
    let mut a = Member::leader("a");
    a.after(S(2));
    let sent = a.now;
    assert!(a.take_written().is_some());
    a.now += S(6);
    a.give(Input::Fired);
    a.local(|l| l.server = Server::Down);
    assert!(!a.writes() && a.memory.office == Office::Out, "its answer would be taken for that of another write");
    a.give(Input::Written { sent, result: Err(Refusal::Other("no answer in time".into())) });
    a.after(MS(300));
    assert!(a.writes() && a.memory.office == Office::Taking, "{:?}", a.memory.reason);
}

#[test]
fn the_record_forgets_who_has_not_streamed_for_a_duration() {
    let mut a = Member::leader("a");
    for _ in 0..5 {
        a.after(S(2));
        a.streams(&["b"]);
        a.granted();
    }
    a.after(S(2));
    a.granted();
    assert_eq!(a.memory.lease().unwrap().record, Some(record(&["a", "b"])));
    a.streams(&["b", "c"]);
    a.granted();
    assert_eq!(a.memory.lease().unwrap().record, Some(record(&["a", "b", "c"])), "at once when it is back");
    a.pod("c", |p| p.deleting = true);
    a.granted();
    assert_eq!(a.memory.lease().unwrap().record, Some(record(&["a", "b"])), "at once when its pod goes");
}

#[test]
fn a_sick_server_is_killed_and_reaped_before_the_lease_is_freed() {
    let mut a = Member::leader("a");
    let actions = a.local(|l| l.sick = Some("its postmaster is frozen".into()));
    assert!(kills(&actions) && a.take_written().is_none());
    a.after(S(3));
    assert!(!a.writes(), "it does not renew any more");
    a.local(|l| l.server = Server::Down);
    assert_eq!(a.take_written().unwrap().free, Some(Free { term: 8, to: None }));
    let free = Lease {
        version: "90".into(),
        renewed: "y".into(),
        free: Some(Free { term: 8, to: None }),
        term: 8,
        ..freed(None)
    };
    a.give(Input::Written { sent: a.now, result: Ok(free) });
    a.local(|l| l.server = Server::Standby);
    a.after(S(29));
    assert!(!a.writes(), "it stands back for the others");
}

#[test]
fn a_stale_label_of_another_is_corrected() {
    let mut a = Member::leader("a");
    let actions = a.pod("b", |p| p.role = Some("primary".into()));
    let corrected =
        Action::PatchPod { pod: "b".into(), uid: "uid-b".into(), role: Some(None), annotations: BTreeMap::new() };
    assert!(actions.contains(&corrected), "{actions:?}");
}
