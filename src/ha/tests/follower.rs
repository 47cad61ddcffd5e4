//! Out of office: founding, following, standing.

use super::*;

#[test]
fn the_first_member_makes_the_cluster_and_serves_nobody_before_it_is_recorded() {
    let mut a = Member::new("a");
    a.give(Input::Pods([("a".to_string(), Pod { status: None, ..pod("a") })].into()));
    a.give(Input::Lease(None));
    let taken = a.take_written().expect("it takes the Lease");
    assert_eq!((taken.term, taken.holder.as_str(), taken.record), (1, "a", Some(record(&["a"]))));
    let lease = Lease { version: "1".into(), ..a_lease(&a, 1) };
    let sent = a.now;
    a.now += MS(20);
    let actions = a.give(Input::Written { sent, result: Ok(lease) });
    assert!(actions.contains(&Action::Arm(sent + S(8))) && actions.contains(&Action::NoteOffice(1)), "{actions:?}");
    assert_eq!(aims(&actions), [Goal::Initialise]);
    let actions = a.local(|l| {
        l.data = Data::Unrecorded;
        l.system_id = Some(42);
    });
    assert_eq!(aims(&actions), [], "not before the identity is on the Lease");
    let actions = a.granted();
    assert!(actions.contains(&Action::NoteRecorded), "{actions:?}");
    assert_eq!(aims(&actions), [Goal::Primary { direct: true }]);
    assert_eq!(a.memory.lease().unwrap().system_id, Some(42));
}

fn a_lease(member: &Member, term: u64) -> Lease {
    Lease {
        holder: member.config.pod.clone(),
        instance: member.config.instance.clone(),
        pod_uid: member.config.uid.clone(),
        duration: S(10),
        term,
        record: Some(record(&[&member.config.pod])),
        ..Lease::default()
    }
}

#[test]
fn nobody_makes_a_cluster_while_somebody_may_have_data() {
    let empty = |name: &str, instance: &str| Pod {
        status: Some(Status { instance: instance.into(), ..Status::default() }),
        ..pod(name)
    };
    let mut a = Member::new("a");
    a.give(Input::Pods([("a", "i"), ("b", "")].map(|(n, i)| (n.to_string(), empty(n, i))).into()));
    a.give(Input::Lease(None));
    assert!(!a.writes(), "b has not said whether it has data");
    a.pods(&["b"]);
    a.after(S(20));
    assert!(!a.writes(), "b has data");
    a.pod("b", |p| p.deleting = true);
    a.after(S(20));
    assert!(!a.writes(), "and comes back with it");
    a.give(Input::Pods([("a", "i"), ("b", "j")].map(|(n, i)| (n.to_string(), empty(n, i))).into()));
    assert!(a.writes(), "nobody has");
}

/// Found by the simulation.
#[test]
fn in_a_pause_nobody_else_makes_the_cluster() {
    for paused in [false, true] {
        let mut a = Member::new("a");
        a.give(Input::Pods([("a".to_string(), Pod { status: None, ..pod("a") })].into()));
        let begun = Lease { system_id: None, paused: paused.then(|| "true".into()), ..led_by("b") };
        a.give(Input::Lease(Some(begun)));
        a.after(S(30));
        assert_eq!(a.writes(), !paused, "{:?}", a.memory.reason);
    }
}

#[test]
fn what_a_founder_made_is_discarded_where_the_lease_knows_another() {
    let mut a = Member::new("a");
    a.local(|l| {
        l.data = Data::Unrecorded;
        l.system_id = Some(1);
    });
    a.pods(&["a", "b"]);
    let actions = a.give(Input::Lease(Some(led_by("b"))));
    assert!(actions.contains(&Action::Discard), "{actions:?}");
    a.local(|l| l.data = Data::Present);
    let actions = a.give(Input::Lease(Some(led_by("b"))));
    assert!(!actions.contains(&Action::Discard) && a.memory.reason == Reason::Foreign { ours: 1, theirs: 42 });
}

#[test]
fn a_leader_is_gone_when_it_was_not_seen_to_renew_for_the_whole_duration() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(9));
    b.give(Input::Lease(Some(Lease { version: "12".into(), switchover_to: Some("b".into()), ..led_by("a") })));
    assert!(b.done.iter().any(|a| !matches!(a, Action::WriteLease { .. })));
    b.after(MS(500));
    assert!(b.done.contains(&Action::Ask(vec!["a".into(), "b".into(), "c".into()])), "asked a little before");
    b.accounts(&[account("b", 5), account("c", 5)]);
    assert!(!b.writes(), "not before its time");
    b.after(MS(500));
    let Some(Action::WriteLease { over, lease }) = b.done.iter().find(|a| matches!(a, Action::WriteLease { .. }))
    else {
        panic!("an annotation must not restart the wait: {:?}", b.memory.reason)
    };
    assert_eq!((over.as_deref(), lease.term, lease.holder.as_str()), (Some("12"), 8, "b"));
    assert_eq!(lease.record, Some(record(&["a", "b", "c"])), "taking office leaves the record as it is");
}

#[test]
fn a_renewal_restarts_the_wait() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(9));
    b.give(Input::Lease(Some(Lease { version: "12".into(), renewed: "t2".into(), ..led_by("a") })));
    b.after(S(9));
    assert!(!b.writes() && !b.done.iter().any(|a| matches!(a, Action::Ask(_))));
}

#[test]
fn the_larger_duration_counts() {
    let mut b = Member::standby("b", &Lease { duration: S(30), ..led_by("a") });
    b.after(S(29));
    assert!(!b.writes() && !b.done.iter().any(|a| matches!(a, Action::Ask(_))));
}

#[test]
fn the_one_behind_leaves_it_to_the_one_ahead_for_a_second() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(10));
    b.accounts(&[account("b", 5), account("c", 6)]);
    assert!(!b.writes());
    b.after(S(1));
    b.accounts(&[account("b", 5), account("c", 6)]);
    assert!(b.writes(), "{:?}", b.memory.reason);
}

/// Found by the simulation.
#[test]
fn who_turns_out_to_be_ahead_has_its_second_although_it_was_stood_back_for_before() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(10));
    let first = |lsn| Account { priority: 200, ..account("c", lsn) };
    b.accounts(&[account("b", 5), first(5)]);
    b.now += S(1);
    b.accounts(&[account("b", 5), first(6)]);
    assert!(!b.writes(), "it only came first until now");
    b.after(S(1));
    b.accounts(&[account("b", 5), first(6)]);
    assert!(b.writes(), "{:?}", b.memory.reason);
}

/// Found by the model check (trace T13): b was promoted and died before anybody knew, a was promoted to a timeline of the
/// same number, and b came back before a had said so. The Lease still told of b's own timeline, or of the one before.
#[test]
fn who_takes_office_says_from_where_it_goes_on() {
    let began = |term, timeline| Some(Began { term, timeline });
    let known = Lease { timeline: began(7, 2), ..freed(Some(&copy("b"))) };
    let mut b = Member::standby("b", &known);
    let taken = b.take_written().unwrap();
    assert_eq!(taken.timeline, began(1, 1), "the timeline that its data are on, not that of the last leader");
    assert!(Began { term: 7, timeline: 2 }.is_after(taken.timeline.unwrap()), "whoever was promoted in term 7 waits");
}

/// Found by the model check: a leader slept until its office was over, and what it saw then was first the Lease of the next
/// leader, then the answer to its own last renewal. That leader died, its Lease never changed again, and this one waited for
/// ever for the end of an office that had ended.
#[test]
fn the_late_answer_to_a_write_brings_no_old_lease_back() {
    let mut a = Member::leader("a");
    a.after(a.config.renew);
    let mut renewed = a.take_written().unwrap();
    renewed.version = "20".into();
    let other = Lease { version: "21".into(), term: 9, ..led_by("b") };
    a.give(Input::Lease(Some(other.clone())));
    assert!(a.memory.in_office().is_none());
    a.give(Input::Written { sent: a.now, result: Ok(renewed) });
    assert_eq!(a.memory.lease(), Some(&other));
}

#[test]
fn an_office_that_is_over_before_its_grant_is_known_is_not_entered() {
    let mut b = Member::standby("b", &freed(Some(&copy("b"))));
    let mut taken = b.take_written().unwrap();
    taken.version = "12".into();
    b.give(Input::Lease(Some(Lease { version: "13".into(), term: 9, ..led_by("c") })));
    b.give(Input::Written { sent: b.now, result: Ok(taken) });
    assert!(b.memory.in_office().is_none());
    assert_eq!(b.memory.lease().unwrap().holder, "c");
}

#[test]
fn a_read_that_the_watch_has_overtaken_is_made_again() {
    let mut b = Member::standby("b", &led_by("a"));
    let read = |b: &mut Member| {
        b.after(S(10));
        b.accounts(&[account("b", 5), Account { seen_ms: Some(10), ..account("c", 5) }]).contains(&Action::ReadLease)
    };
    assert!(read(&mut b));
    let next = Lease { version: "12".into(), renewed: "t2".into(), term: 8, ..led_by("a") };
    b.give(Input::Lease(Some(next.clone())));
    // The watch does not tell again what it has told: believed, this would be an old Lease for ever.
    assert!(b.give(Input::Read(Ok(Some(led_by("a"))))).contains(&Action::ReadLease));
    assert_eq!(b.memory.lease(), Some(&next));
    b.give(Input::Read(Ok(Some(led_by("a")))));
    assert_eq!(b.memory.lease(), Some(&led_by("a")), "nothing was seen since: an old one was brought back");
}

#[test]
fn the_second_is_given_in_each_election() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(10));
    b.accounts(&[account("b", 5), account("c", 6)]);
    let next = Lease { version: "12".into(), renewed: "t2".into(), term: 8, ..led_by("c") };
    b.give(Input::Lease(Some(next)));
    b.after(S(10));
    let of = |pod, lsn| Account { term: 8, ..account(pod, lsn) };
    b.accounts(&[of("b", 5), of("a", 6)]);
    assert!(!b.writes(), "that it stood back for c in the last one does not count: {:?}", b.memory.reason);
    b.after(S(1));
    assert!(b.writes(), "{:?}", b.memory.reason);
}

#[test]
fn the_lease_is_read_once_for_each_account_of_a_leader_that_is_alive() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(10));
    b.done.clear();
    let c = Account { seen_ms: Some(10), ..account("c", 5) };
    assert!(b.accounts(&[account("b", 5), c.clone()]).contains(&Action::ReadLease));
    let same = b.memory.lease().cloned();
    assert_eq!(b.give(Input::Read(Ok(same.clone()))), [], "or it is read as fast as the API answers");
    b.after(S(2));
    b.done.clear();
    assert!(b.accounts(&[account("b", 5), c]).contains(&Action::ReadLease));
}

#[test]
fn a_freed_lease_is_for_the_one_it_was_freed_for() {
    let mut b = Member::standby("b", &led_by("a"));
    let actions = b.give(Input::Lease(Some(freed(Some(&copy("b"))))));
    assert!(matches!(actions.as_slice(), [Action::WriteLease { .. }, ..]), "at once: {actions:?}");
    let mut c = Member::standby("c", &led_by("a"));
    c.give(Input::Lease(Some(freed(Some(&copy("b"))))));
    c.after(MS(4900));
    assert!(!c.writes() && !c.done.iter().any(|a| matches!(a, Action::Ask(_))));
    c.after(MS(100));
    c.accounts(&[account("c", 5)]);
    assert!(c.writes(), "after five seconds anyone may");
}

#[test]
fn an_empty_holder_alone_is_not_free() {
    let mut b = Member::standby("b", &led_by("a"));
    b.give(Input::Lease(Some(Lease { free: None, ..freed(None) })));
    b.give(Input::Lease(Some(Lease { free: Some(Free { term: 6, to: None }), version: "13".into(), ..freed(None) })));
    b.after(S(5));
    assert!(!b.writes());
}

#[test]
fn only_the_message_of_a_terminated_container_of_a_pod_that_goes_is_proof_of_death() {
    let dies = |deleting: bool, ended: &str, uid: &str| {
        let mut b = Member::standby("b", &led_by("a"));
        b.pod("a", |p| {
            p.deleting = deleting;
            p.ended = vec![ended.into()];
            p.uid = uid.into();
        });
        b.accounts(&[account("b", 5)]);
        b.writes()
    };
    assert!(dies(true, "instance-a", "uid-a"));
    assert!(!dies(false, "instance-a", "uid-a"), "it restarts in place and loses nothing");
    assert!(!dies(true, "instance-of-before", "uid-a"));
    assert!(!dies(true, "instance-a", "uid-of-another"));
}

#[test]
fn the_same_pod_takes_its_office_again_at_once_and_on_the_same_timeline() {
    let mut a = Member::new("a");
    a.local(|l| {
        l.data = Data::Present;
        l.system_id = Some(42);
        l.held = 7;
    });
    a.pods(&["a", "b"]);
    let before = Lease { instance: "an earlier start".into(), ..led_by("a") };
    a.give(Input::Lease(Some(before.clone())));
    assert_eq!(aims(&a.done), [], "nothing was started before");
    let actions = a.granted();
    assert_eq!(aims(&actions), [Goal::Primary { direct: true }]);
    let mut stranger = Member::new("a");
    stranger.local(|l| l.data = Data::Present);
    stranger.pods(&["a", "b"]);
    stranger.give(Input::Lease(Some(Lease { pod_uid: "of another pod with this name".into(), ..before })));
    assert!(!stranger.writes(), "the same name is a stranger");
}

#[test]
fn a_copy_that_the_record_does_not_name_never_stands() {
    let mut b = Member::standby("b", &Lease { record: Some(record(&["a", "c"])), ..led_by("a") });
    b.after(S(60));
    assert!(!b.writes());
}

#[test]
fn nobody_stands_by_a_lease_that_was_restored() {
    let mut b = Member::standby("b", &led_by("a"));
    b.give(Input::Read(Ok(Some(Lease { version: "9".into(), term: 5, renewed: "t0".into(), ..led_by("c") }))));
    b.after(S(60));
    b.accounts(&[account("b", 5)]);
    assert!(!b.writes(), "{:?}", b.memory.reason);
}

#[test]
fn a_pause_stops_elections_and_its_end_counts_from_the_next_renewal() {
    let paused = Lease { paused: Some("true".into()), duration: lease::PAUSED, ..led_by("a") };
    let mut b = Member::standby("b", &paused);
    b.after(S(60));
    assert!(!b.writes());
    // The leader may not know of the resume (T15), and whoever starts now has not seen the pause.
    let resumed = Lease { version: "12".into(), paused: None, ..paused.clone() };
    let mut c = Member::standby("c", &resumed);
    for member in [&mut b, &mut c] {
        member.give(Input::Lease(Some(resumed.clone())));
        member.after(S(3600));
        assert!(!member.writes());
    }
    b.give(Input::Lease(Some(Lease { version: "13".into(), renewed: "t2".into(), ..led_by("a") })));
    b.after(S(10));
    b.accounts(&[account("b", 5)]);
    assert!(b.writes());
}

#[test]
fn without_the_api_a_member_with_data_serves_reads() {
    let mut b = Member::new("b");
    b.local(|l| l.data = Data::Present);
    b.give(Input::Reachable(false));
    assert_eq!(aims(&b.done), []);
    assert_eq!(aims(&b.after(S(3))), [Goal::Standby]);
}

#[test]
fn nobody_is_woken_for_what_has_passed() {
    let mut b = Member::standby("b", &Lease { record: Some(record(&["a", "c"])), ..led_by("a") });
    for _ in 0..100 {
        b.after(MS(200));
        assert!(b.memory.wake.is_none_or(|w| w > b.now), "{:?} at {:?}", b.memory.wake, b.now);
    }
}
