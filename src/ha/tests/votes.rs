//! Elections of synchronous clusters.

use super::*;
use crate::ha::votes::{Vote, may_promise};

/// Two of three must agree.
fn elected_by_two(lease: Lease) -> Lease {
    Lease { record: Some(Record { votes: 2, ..record(&["a", "b", "c"]) }), ..lease }
}

fn vote(pod: &str, term: u64, lsn: u64) -> Vote {
    Vote { pod: pod.into(), copy: copy(pod), term, began: Some(Began { term: 1, timeline: 1 }), lsn }
}

/// b, whose leader a has run out, and what the others say of themselves.
fn candidate(accounts: &[Account]) -> Member {
    let mut b = Member::standby("b", &elected_by_two(led_by("a")));
    b.config.sync = Sync { standbys: 1, strict: false };
    b.after(S(10));
    b.accounts(accounts);
    b
}

fn asks(actions: &[Action]) -> Option<(u64, Vec<String>)> {
    actions.iter().rev().find_map(|a| match a {
        Action::AskVotes { term, of } => Some((*term, of.clone())),
        _ => None,
    })
}

#[test]
fn a_candidate_freezes_itself_and_waits_for_votes() {
    let mut b = candidate(&[account("b", 100), account("c", 50)]);
    assert!(b.done.contains(&Action::Freeze(8)), "{:?}", b.done);
    assert_eq!(asks(&b.done), Some((8, vec!["a".into(), "c".into()])));
    assert!(!b.writes());
    b.give(Input::Voted(vote("c", 8, 50)));
    assert!(!b.writes(), "its own vote counts when it is frozen");
    b.give(Input::Voted(vote("b", 8, 100)));
    let lease = b.take_written().unwrap();
    assert_eq!((lease.holder.as_str(), lease.term), ("b", 8));
    assert_eq!(lease.record.map(|r| r.votes), Some(2), "taking office leaves the record as it is");
}

/// Found by the model check: the container died between the grant of its office and the note of it. Restarted, it waited for
/// its own vote, which only a standby has, and no server was ever started; nor could the others have that vote.
#[test]
fn a_pod_whose_office_was_granted_and_not_noted_is_a_standby_before_it_votes() {
    let mut b = Member::new("b");
    b.config.sync = Sync { standbys: 1, strict: false };
    b.local(|l| {
        l.data = Data::Present;
        l.system_id = Some(42);
        l.began = Some(Began { term: 1, timeline: 1 });
        l.held = 6;
    });
    b.pods(&["a", "b", "c"]);
    let lease = Lease { instance: "its former start".into(), ..elected_by_two(led_by("b")) };
    let actions = b.give(Input::Lease(Some(lease)));
    assert_eq!(aims(&actions), [Goal::Standby], "{actions:?}");
    assert!(!b.done.iter().any(|a| matches!(a, Action::Freeze(_) | Action::AskVotes { .. })));
    let actions = b.local(|l| l.server = Server::Standby);
    assert!(actions.contains(&Action::Freeze(8)), "{actions:?}");
}

#[test]
fn a_vote_of_somebody_who_has_more_is_none() {
    let mut b = candidate(&[account("b", 100)]);
    b.give(Input::Voted(vote("b", 8, 100)));
    b.give(Input::Voted(vote("c", 8, 101)));
    assert!(!b.writes());
    assert!(b.memory.reason.to_string().contains("c (has more)"), "{}", b.memory.reason);
    let later = Vote { began: Some(Began { term: 5, timeline: 2 }), ..vote("c", 8, 1) };
    b.give(Input::Voted(later));
    assert!(!b.writes(), "a later history");
    b.give(Input::Voted(vote("a", 8, 100)));
    assert!(b.writes());
}

/// The candidate is on timeline 1, which term 7 began.
#[test]
fn a_vote_of_who_is_on_a_later_history_is_none_whatever_the_position() {
    let began = |term, timeline| Some(Began { term, timeline });
    for (history, lsn, counts) in [
        (began(7, 1), 100, true),
        (began(7, 1), 101, false),
        (began(7, 2), 50, false),
        (began(8, 1), 50, false),
        (began(6, 1), 900, true),
        (None, 900, true),
    ] {
        let mut b = candidate(&[account("b", 100)]);
        b.give(Input::Voted(Vote { began: began(7, 1), ..vote("b", 8, 100) }));
        b.give(Input::Voted(Vote { began: history, ..vote("c", 8, lsn) }));
        assert_eq!(b.writes(), counts, "{history:?} at {lsn}: {}", b.memory.reason);
    }
}

#[test]
fn a_vote_is_of_a_copy_and_for_a_term() {
    let mut b = candidate(&[account("b", 100)]);
    b.give(Input::Voted(vote("b", 8, 100)));
    b.give(Input::Voted(vote("c", 7, 50)));
    assert!(!b.writes(), "of an earlier election: trace T6");
    b.give(Input::Voted(Vote { copy: "new".into(), ..vote("c", 8, 50) }));
    assert!(!b.writes(), "a name without its data: trace T10");
}

#[test]
fn short_of_votes_it_says_for_whom_it_waits_and_asks_again() {
    let mut b = candidate(&[account("b", 100)]);
    b.give(Input::Voted(vote("b", 8, 100)));
    b.give(Input::Refused { pod: "c".into(), why: "by its own watch a is in office".into() });
    let words = "1 of 2 votes for this one, waiting for a, c (by its own watch a is in office)";
    assert!(b.memory.reason.to_string().contains(words), "{}", b.memory.reason);
    b.done.clear();
    b.now += S(1);
    b.accounts(&[account("b", 100)]);
    assert_eq!(asks(&b.done), Some((8, vec!["a".into(), "c".into()])));
    assert!(!b.done.contains(&Action::Freeze(8)), "it is");
}

#[test]
fn the_holder_of_the_latest_term_and_the_target_of_a_hand_over_need_no_votes() {
    let mut b = Member::standby("b", &elected_by_two(led_by("a")));
    b.config.sync = Sync { standbys: 1, strict: false };
    b.local(|l| l.held = 7);
    b.after(S(10));
    b.accounts(&[account("b", 100)]);
    assert!(b.writes());
    let mut b = Member::standby("b", &elected_by_two(led_by("a")));
    b.config.sync = Sync { standbys: 1, strict: false };
    b.give(Input::Lease(Some(elected_by_two(freed(Some(&copy("b")))))));
    assert!(b.writes());
    let mut b = Member::standby("b", &elected_by_two(led_by("a")));
    b.config.sync = Sync { standbys: 1, strict: false };
    b.give(Input::Lease(Some(elected_by_two(freed(None)))));
    b.accounts(&[account("b", 100)]);
    assert!(!b.writes(), "free for anyone is not for whoever asks first");
}

#[test]
fn without_the_lease_every_member_votes() {
    let mut b = Member::standby("b", &elected_by_two(led_by("a")));
    b.config.sync = Sync { standbys: 1, strict: false };
    b.local(|l| {
        l.record = elected_by_two(led_by("a")).record;
        l.held = 7;
    });
    b.give(Input::Lease(None));
    b.after(S(10));
    b.accounts(&[account("b", 100)]);
    b.give(Input::Voted(vote("b", 8, 100)));
    b.give(Input::Voted(vote("c", 8, 100)));
    assert!(!b.writes(), "trace T7");
    b.give(Input::Voted(vote("a", 8, 100)));
    assert!(b.writes());
}

#[test]
fn a_leader_in_office_takes_up_the_term_that_somebody_promised() {
    let mut a = Member::leader("a");
    let before = a.memory.lease().unwrap().clone();
    a.pod("c", |p| p.status.as_mut().unwrap().promised = 9);
    assert!(!a.done.contains(&Action::NoteOffice(9)), "not before the Lease says so");
    let lease = a.take_written().unwrap();
    assert_eq!((lease.term, lease.instance.clone()), (9, before.instance.clone()));
    let written = Lease { version: "77".into(), renewed: "later".into(), ..lease };
    let actions = a.give(Input::Written { sent: a.now, result: Ok(written) });
    assert!(actions.contains(&Action::NoteOffice(9)), "{actions:?}");
    assert!(a.memory.in_office().is_some());
}

#[test]
fn a_candidate_that_was_quicker_ends_the_office_although_the_term_was_taken_up() {
    let mut a = Member::leader("a");
    a.pod("c", |p| p.status.as_mut().unwrap().promised = 9);
    a.take_written();
    a.give(Input::Written { sent: a.now, result: Err(Refusal::Conflict) });
    let actions = a.give(Input::Read(Ok(Some(Lease { version: "99".into(), term: 9, ..led_by("c") }))));
    assert!(kills(&actions));
    assert!(!a.done.contains(&Action::NoteOffice(9)));
}

#[test]
fn nobody_promises_while_somebody_is_in_office_by_its_own_watch() {
    let mut b = Member::standby("b", &led_by("a"));
    let asked = |b: &Member, term| may_promise(&b.config, &b.memory, b.now, term);
    assert!(asked(&b, 8).unwrap_err().contains("a is in office"));
    b.after(S(10));
    assert_eq!(asked(&b, 8), Ok(()));
    assert!(asked(&b, 7).is_err() && asked(&b, 9).is_err(), "for the next term only");
    b.local(|l| l.promised = 8);
    assert_eq!(asked(&b, 8), Ok(()), "the same term again: it is frozen, and at most one takes the Lease");
    b.local(|l| l.server = Server::Changing);
    assert!(asked(&b, 8).unwrap_err().contains("not yet"));
    b.local(|l| l.server = Server::Standby);
    b.give(Input::Lease(Some(Lease { version: "20".into(), renewed: "t2".into(), ..led_by("a") })));
    assert!(asked(&b, 8).is_err(), "it has renewed");
    b.give(Input::Lease(Some(Lease { version: "21".into(), ..freed(None) })));
    assert_eq!(asked(&b, 8), Ok(()));
}

#[test]
fn force_overrides_votes_and_the_record_but_not_the_lease() {
    let mut d = Member::standby("d", &elected_by_two(led_by("a")));
    d.config.sync = Sync { standbys: 1, strict: false };
    d.give(Input::Force);
    assert!(!d.writes(), "a is in office");
    d.after(S(10));
    let lease = d.take_written().unwrap();
    let alone = Record::alone(Copy { pod: "d".into(), copy: copy("d") });
    assert_eq!((lease.term, lease.record), (8, Some(alone)));
}

#[test]
fn what_a_person_said_is_forgotten() {
    let mut d = Member::standby("d", &elected_by_two(led_by("a")));
    d.give(Input::Force);
    d.now += S(60);
    d.give(Input::Timer);
    assert!(!d.writes());
}
