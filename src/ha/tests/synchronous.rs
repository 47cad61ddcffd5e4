//! Synchronous clusters: who confirms, and what the record says of it.

use super::{
    quorum::{Names, Stage, Target},
    *,
};

impl Member {
    fn sync(mut self, standbys: usize, strict: bool) -> Self {
        self.config.sync = Sync { standbys, strict };
        self
    }

    /// One that has just taken office over this record, and accepts writes.
    fn new_leader(sync: usize, strict: bool, found: Record) -> (Self, Vec<Action>) {
        let mut a = Self::standby("a", &led_by("z")).sync(sync, strict);
        a.give(Input::Lease(Some(Lease { record: Some(found), ..freed(Some(&copy("a"))) })));
        a.granted();
        a.granted();
        let actions = a.local(|l| l.server = Server::Primary);
        (a, actions)
    }

    /// [`Member::new_leader`] of three, of which one standby confirms.
    fn confirmed_by_one() -> Self {
        let (mut a, _) = Self::new_leader(1, false, target(1, &["b", "c"]).record);
        a.give(Input::Proven(100));
        a.streams_up_to(&["b", "c"], Some(100));
        a.granted();
        a.done.clear();
        assert_eq!(a.stage(), Stage::Settled);
        a
    }

    fn stage(&self) -> Stage {
        self.memory.in_office().unwrap().quorum.clone().unwrap().stage
    }

    /// Whether clients are let in.
    fn is_open(&mut self) -> bool {
        self.memory.told = None;
        let actions = self.pods(&["a", "b", "c"]);
        actions.iter().any(|a| matches!(a, Action::PatchPod { role: Some(Some(role)), .. } if role == "primary"))
    }

    fn recorded(&mut self) -> Option<Record> {
        let record = self.done.iter().rev().find_map(|a| match a {
            Action::WriteLease { lease, .. } => lease.record.clone(),
            _ => None,
        });
        self.granted();
        record
    }
}

fn target(n: usize, standbys: &[&str]) -> Target {
    let copies = standbys.iter().map(|p| Copy { pod: p.to_string(), copy: copy(p) }).collect();
    Target::new(&Copy { pod: "a".into(), copy: copy("a") }, &copies, n)
}

fn stops(actions: &[Action]) -> Option<Vec<String>> {
    actions.iter().find_map(|a| if let Action::Stop(before) = a { Some(before.clone()) } else { None })
}

fn confirms(actions: &[Action]) -> Option<Names> {
    actions.iter().find_map(|a| if let Action::Confirm(names) = a { Some(names.clone()) } else { None })
}

#[test]
fn a_new_primary_confirms_nothing_before_that_is_proven_and_then_by_the_record_that_it_found() {
    let found = target(1, &["b", "c"]);
    let (mut a, actions) = Member::new_leader(1, false, found.record.clone());
    assert_eq!(stops(&actions), Some(vec![]), "its file has said nobody since it was started");
    assert!(!a.is_open(), "nobody is let in yet");
    let actions = a.give(Input::Proven(100));
    assert_eq!(confirms(&actions), Some(found.names));
    assert!(a.is_open());
    assert_eq!(a.memory.lease().unwrap().record, Some(found.record));
}

#[test]
fn with_sync_strict_clients_come_when_the_standbys_have_all_that_can_be_read() {
    let (mut a, _) = Member::new_leader(1, true, target(1, &["b"]).record);
    a.give(Input::Proven(100));
    a.streams_up_to(&["b"], Some(99));
    assert!(!a.is_open());
    a.streams_up_to(&["b"], Some(100));
    assert!(a.is_open());
}

#[test]
fn a_standby_that_joins_is_recorded_first() {
    let mut a = Member::confirmed_by_one();
    a.pods(&["a", "b", "c", "d"]);
    let actions = a.streams(&["b", "c", "d"]);
    assert_eq!((confirms(&actions), stops(&actions)), (None, None));
    let joined = target(1, &["b", "c", "d"]);
    assert_eq!(a.recorded(), Some(joined.record));
    assert_eq!(confirms(&a.done), Some(joined.names.clone()));
    a.give(Input::Confirmed(joined.names));
    assert_eq!(a.stage(), Stage::Settled);
}

#[test]
fn a_standby_that_is_gone_for_a_lease_leaves_and_is_recorded_last() {
    let mut a = Member::confirmed_by_one();
    for _ in 0..5 {
        a.after(S(2));
        a.granted();
        a.streams_up_to(&["b"], Some(100));
    }
    let left = target(1, &["b"]);
    let names = |pods: &[&str]| pods.iter().map(|p| format!("{p}_{}", copy(p))).collect::<Vec<_>>();
    assert_eq!(stops(&a.done), Some(names(&["b", "c"])));
    assert_eq!(a.memory.lease().unwrap().record, Some(target(1, &["b", "c"]).record));
    a.done.clear();
    let actions = a.give(Input::Proven(200));
    assert_eq!(confirms(&actions), Some(left.names));
    assert!(!a.writes(), "b may not have it all");
    a.streams_up_to(&["b"], Some(199));
    assert!(!a.writes());
    a.streams_up_to(&["b"], Some(200));
    assert_eq!(a.recorded(), Some(left.record));
    assert_eq!(a.stage(), Stage::Settled);
}

#[test]
fn a_server_that_ends_while_the_record_is_written_begins_with_nobodys_name() {
    for last in [false, true] {
        let mut a = Member::confirmed_by_one();
        if last {
            // c has left, and the setting says so already.
            for _ in 0..5 {
                a.after(S(2));
                a.granted();
                a.streams_up_to(&["b"], Some(100));
            }
            a.give(Input::Proven(200));
            a.streams_up_to(&["b"], Some(200));
        } else {
            a.pods(&["a", "b", "c", "d"]);
            a.streams(&["b", "c", "d"]);
        }
        a.local(|l| l.server = Server::Changing);
        let actions = a.local(|l| l.server = Server::Primary);
        assert_eq!((stops(&actions), confirms(&actions)), (None, None), "not before it is known what the Lease says");
        a.granted();
        let actions = a.local(|l| l.state = "running");
        assert_eq!(stops(&actions), Some(vec![]), "last: {last}");
        let actions = a.give(Input::Proven(300));
        let names = if last { target(1, &["b"]).names } else { target(1, &["b", "c", "d"]).names };
        assert_eq!(confirms(&actions), Some(names));
    }
}

#[test]
fn one_that_says_nothing_is_gone_although_its_connection_lasts() {
    let mut a = Member::confirmed_by_one();
    let rows = a.memory.in_office().unwrap().standbys.clone();
    for _ in 0..5 {
        a.after(S(2));
        a.granted();
        a.give(Input::Standbys(rows.clone()));
    }
    let alone = target(0, &[]);
    assert_eq!(a.memory.lease().unwrap().record, Some(alone.record), "that asks less: no proof is needed");
    assert_eq!((confirms(&a.done), stops(&a.done)), (Some(alone.names), None));
}

#[test]
fn a_strict_leader_rather_waits_than_goes_on_alone() {
    let (mut a, _) = Member::new_leader(1, true, target(1, &["b"]).record);
    a.give(Input::Proven(100));
    a.streams_up_to(&["b"], Some(100));
    a.done.clear();
    for _ in 0..10 {
        a.after(S(2));
        a.granted();
        a.give(Input::Standbys(Vec::new()));
    }
    assert_eq!(a.memory.lease().unwrap().record, Some(target(1, &["b"]).record));
    assert_eq!(confirms(&a.done), None);
    let told = |a: &Member, words: &str| {
        a.done.iter().any(|action| matches!(action, Action::Event { note, .. } if note.contains(words)))
    };
    assert!(told(&a, "commits wait"));
    a.streams_up_to(&["b"], Some(200));
    assert!(told(&a, "each commit is confirmed by 1 of b"));
}

#[test]
fn a_strict_founder_confirms_nothing_before_the_first_standby() {
    let alone = target(0, &[]).record;
    let (mut a, _) = Member::new_leader(1, true, alone.clone());
    let actions = a.give(Input::Proven(100));
    assert_eq!(confirms(&actions), None);
    a.streams_up_to(&["b"], Some(100));
    assert!(!a.is_open());
    assert!(stops(&a.done).is_some());
    a.give(Input::Proven(100));
    a.streams_up_to(&["b"], Some(100));
    assert_eq!(a.recorded(), Some(target(1, &["b"]).record));
    a.give(Input::Timer);
    assert!(a.is_open());
}

#[test]
fn whoever_restarts_in_place_begins_with_nobody_again() {
    let mut a = Member::confirmed_by_one();
    a.local(|l| l.server = Server::Changing);
    assert_eq!(a.stage(), Stage::Waits);
    let actions = a.local(|l| l.server = Server::Primary);
    assert_eq!(stops(&actions), Some(vec![]));
}

#[test]
fn a_member_that_is_not_recorded_is_no_target() {
    let mut a = Member::confirmed_by_one();
    assert!(a.take_written().is_none());
    a.pods(&["a", "b", "c", "d"]);
    a.streams(&["b", "c", "d"]);
    a.pod("d", |p| p.promote = Some("x".into()));
    a.looks();
    assert!(!a.done.contains(&Action::Checkpoint));
}

#[test]
fn a_copy_that_its_pod_has_replaced_leaves_as_soon_as_the_new_one_is_there() {
    let mut a = Member::confirmed_by_one();
    a.pod("c", |p| p.status.as_mut().unwrap().copy = Some("new".into()));
    let names = |pods: &[&str]| pods.iter().map(|p| format!("{p}_{}", copy(p))).collect::<Vec<_>>();
    assert_eq!(stops(&a.done), Some(names(&["b", "c"])), "it asks more of those that remain");
}
