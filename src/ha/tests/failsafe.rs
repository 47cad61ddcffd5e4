//! An outage of the API: who stays, by whose consent, and what that keeps the others from.

use super::*;
use crate::ha::{
    failsafe::{Bound, Claim, may_consent},
    quorum::Quorum,
};

/// In office, with a record of three, of whom `votes` elect; the API answers no more.
fn cut_off(votes: usize) -> Member {
    let mut a = Member::leader("a");
    a.config.failsafe = true;
    let record = Record { votes, ..record(&["a", "b", "c"]) };
    if votes > 1 {
        a.config.sync.standbys = 3 - votes;
        let Office::In(office) = &mut a.memory.office else { panic!("it leads") };
        office.quorum = Some(Quorum::new(record.clone()));
    }
    let led = Lease { record: Some(record), ..a.memory.lease().unwrap().clone() };
    a.give(Input::Lease(Some(Lease { version: "60".into(), ..led })));
    if a.writes() {
        a.granted();
    }
    a.done.clear();
    a
}

fn fails(a: &mut Member, refusal: Refusal) -> Vec<Action> {
    let sent = a.now;
    a.give(Input::Written { sent, result: Err(refusal) });
    a.give(Input::Read(Err("no answer".into())))
}

/// Renewals fail until the others are asked; when.
fn asks(a: &mut Member) -> Option<Duration> {
    let begun = a.now;
    for _ in 0..80 {
        if a.done.iter().any(|x| matches!(x, Action::AskConsent { .. })) {
            return Some(a.now - begun);
        }
        if a.writes() {
            a.done.retain(|x| !matches!(x, Action::WriteLease { .. }));
            fails(a, Refusal::Other("no answer".into()));
        }
        a.after(MS(100));
    }
    None
}

fn answered(a: &mut Member, sent: Mono, consents: &[&str]) -> Vec<Action> {
    let copies = consents.iter().map(|pod| Copy { pod: (*pod).into(), copy: copy(pod) }).collect();
    a.give(Input::Answered { sent, consents: copies, refusals: vec![("c".into(), "no".into())] })
}

#[test]
fn a_leader_stays_by_the_consent_of_all_the_others_from_before_it_asked() {
    let mut a = cut_off(1);
    let when = asks(&mut a).expect("it asks");
    assert!(when >= S(3) && when <= S(5), "once two renewals are missing, and in time: {when:?}");
    let of = a.done.iter().find_map(|x| match x {
        Action::AskConsent { term, of } => Some((*term, of.clone())),
        _ => None,
    });
    assert_eq!(of, Some((8, vec!["b".into(), "c".into()])));
    let sent = a.now;
    a.now += MS(400);
    assert!(!answered(&mut a, sent, &["b"]).iter().any(|x| matches!(x, Action::Arm(_))), "one of two");
    a.done.clear();
    let again = asks(&mut a).expect("it asks again");
    assert!(again <= S(2), "{again:?}");
    let sent = a.now;
    a.now += MS(400);
    let actions = answered(&mut a, sent, &["b", "c"]);
    assert!(actions.contains(&Action::Arm(sent + S(8))), "{actions:?}");
    assert_eq!(a.memory.reason, Reason::Stays(8));
    // The API is back.
    fails(&mut a, Refusal::Other("no answer".into()));
    a.done.clear();
    a.after(S(1));
    a.granted();
    assert!(a.done.iter().any(|x| matches!(x, Action::Event { reason: "FailsafeOver", .. })), "{:?}", a.done);
    assert_eq!(a.memory.reason, Reason::Leads(8));
}

#[test]
fn as_many_consent_as_leave_too_few_for_an_election() {
    let mut a = cut_off(2);
    asks(&mut a).expect("it asks");
    let sent = a.now;
    assert!(answered(&mut a, sent, &["c"]).contains(&Action::Arm(sent + S(8))), "an election takes two of b and c");
    // Another copy of that name is nobody of the record.
    let mut a = cut_off(2);
    asks(&mut a).expect("it asks");
    let other = Copy { pod: "c".into(), copy: "other".into() };
    let actions = a.give(Input::Answered { sent: a.now, consents: vec![other], refusals: vec![] });
    assert!(!actions.iter().any(|x| matches!(x, Action::Arm(_))), "{actions:?}");
}

#[test]
fn the_record_of_a_renewal_that_may_have_arrived_counts_too() {
    let mut a = cut_off(1);
    // d joins, and whether the Lease says so nobody knows.
    a.pods(&["a", "b", "c", "d"]);
    a.streams(&["a", "b", "c", "d"]);
    asks(&mut a).expect("it asks");
    let sent = a.now;
    let armed = |actions: &[Action]| actions.iter().any(|x| matches!(x, Action::Arm(_)));
    assert!(!armed(&answered(&mut a, sent, &["b", "c"])), "d may be on the record, and has promised nothing");
    a.done.clear();
    asks(&mut a).expect("it asks again");
    let sent = a.now;
    assert!(armed(&answered(&mut a, sent, &["b", "c", "d"])));
}

#[test]
fn a_leader_that_is_not_let_or_leaves_or_may_not_does_not_ask() {
    let mut denied = cut_off(1);
    for _ in 0..70 {
        if denied.writes() {
            denied.done.retain(|x| !matches!(x, Action::WriteLease { .. }));
            fails(&mut denied, Refusal::Denied("401".into()));
        }
        denied.after(MS(100));
    }
    assert!(!denied.done.iter().any(|x| matches!(x, Action::AskConsent { .. })), "401 and 403 are no outage");
    let mut off = cut_off(1);
    off.config.failsafe = false;
    assert_eq!(asks(&mut off), None);
    let mut leaves = cut_off(1);
    leaves.give(Input::Terminate { hand_over: false });
    assert_eq!(asks(&mut leaves), None);
}

#[test]
fn whoever_has_consented_neither_stands_nor_votes_nor_is_forced() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(9));
    b.give(Input::Bound(Bound { term: 7, until: b.now + S(10) }));
    let end = b.now + S(10);
    b.after(S(2));
    b.accounts(&[account("b", 5), account("c", 5)]);
    assert!(!b.writes() && matches!(b.memory.reason, Reason::NoLeader(_)), "{:?}", b.memory.reason);
    assert!(super::super::votes::may_promise(&b.config, &b.memory, b.now, 8).is_err());
    b.give(Input::Force);
    assert!(!b.writes(), "a promise is not overridden");
    b.now = end;
    b.give(Input::Timer);
    b.accounts(&[account("b", 5), account("c", 5)]);
    assert!(b.writes(), "{:?}", b.memory.reason);
}

#[test]
fn what_proves_that_the_leader_is_dead_ends_a_promise() {
    let mut b = Member::standby("b", &led_by("a"));
    b.give(Input::Bound(Bound { term: 7, until: b.now + S(10) }));
    b.give(Input::Lease(Some(freed(Some(&copy("b"))))));
    assert!(b.writes(), "{:?}", b.memory.reason);
}

#[test]
fn who_refuses_a_leader() {
    let b = Member::standby("b", &led_by("a"));
    let lease = b.memory.lease().unwrap().clone();
    let claim =
        || Claim { term: lease.term, pod: "a".into(), uid: lease.pod_uid.clone(), instance: lease.instance.clone() };
    let asked = |b: &Member, claim: &Claim| may_consent(&b.config, &b.memory, b.now, claim);
    let mut b = b;
    b.pod("a", |p| (p.uid, p.ready) = (lease.pod_uid.clone(), true));
    assert_eq!(asked(&b, &claim()), Ok(()));
    assert_eq!(asked(&b, &Claim { term: lease.term + 1, ..claim() }), Ok(()), "it has not seen that Lease yet");
    for wrong in [
        Claim { term: lease.term - 1, ..claim() },
        Claim { instance: "other".into(), ..claim() },
        Claim { uid: "other".into(), ..claim() },
    ] {
        assert!(asked(&b, &wrong).is_err(), "{wrong:?}");
    }
    b.local(|l| l.promised = lease.term + 1);
    assert!(asked(&b, &claim()).is_err(), "it has promised a later term");
    b.local(|l| l.promised = 0);
    b.pod("a", |p| p.deleting = true);
    assert!(asked(&b, &claim()).is_err(), "its pod is being deleted");
    b.pod("a", |p| (p.deleting, p.ready) = (false, false));
    assert_eq!(asked(&b, &claim()), Ok(()));
    b.now += S(30);
    assert!(asked(&b, &claim()).is_err(), "its pod has not been ready for long");
    // Without the API nothing is known of pods.
    b.give(Input::Reachable(false));
    assert_eq!(asked(&b, &claim()), Ok(()));
    b.give(Input::Lease(Some(freed(None))));
    assert!(asked(&b, &claim()).is_err(), "it has given up");
    assert!(asked(&Member::leader("b"), &Claim { term: 99, ..claim() }).is_err(), "it leads itself");
}
