use std::collections::BTreeSet;

use super::*;

const PODS: [&str; 4] = ["a", "b", "c", "d"];

fn copy(pod: &str) -> Copy {
    Copy { pod: pod.into(), copy: format!("copy-{pod}") }
}

fn some(pods: &[&str]) -> BTreeSet<Copy> {
    pods.iter().map(|p| copy(p)).collect()
}

fn target(n: usize, standbys: &[&str]) -> Target {
    Target::new(&copy("a"), &some(standbys), n)
}

fn at(target: &Target) -> Quorum {
    let Target { record, names } = target.clone();
    Quorum { names, stage: Stage::Settled, ..Quorum::new(record) }
}

/// Every way to choose some of these.
fn subsets<T: Clone + Ord>(of: &BTreeSet<T>) -> Vec<BTreeSet<T>> {
    let of: Vec<T> = of.iter().cloned().collect();
    let chosen = |mask: usize| (0..of.len()).filter(|i| mask & (1 << i) != 0).map(|i| of[i].clone()).collect();
    (0..1 << of.len()).map(chosen).collect()
}

/// Every target of the leader a.
fn targets() -> Vec<Target> {
    let standbys = subsets(&some(&PODS[1..]));
    let of = |s: &BTreeSet<Copy>| {
        let (s, least) = (s.clone(), usize::from(!s.is_empty()));
        (least..=s.len()).map(move |n| Target::new(&copy("a"), &s, n)).collect::<Vec<_>>()
    };
    standbys.iter().flat_map(of).collect()
}

#[test]
fn the_setting_names_copies() {
    assert_eq!(target(0, &[]).names.setting(), "");
    assert_eq!(target(1, &["c", "b"]).names.setting(), "ANY 1 (\"b_copy-b\", \"c_copy-c\")");
    assert_eq!(Names::Nobody.setting(), "ANY 1 (\"_nobody\")");
    assert_eq!(target(1, &["b", "c"]).record.votes, 2);
    assert_eq!(target(0, &[]).record, Record::alone(copy("a")));
}

#[test]
fn a_standby_joins_with_the_record_first_and_leaves_with_the_record_last() {
    let (two, three) = (target(1, &["b"]), target(1, &["b", "c"]));
    let a = copy("a");
    assert_eq!(at(&two).plan(&a, &three), Some(Step::Less(three.clone())));
    assert_eq!(at(&three).plan(&a, &two), Some(Step::More(two.clone())));
    assert_eq!(at(&two).plan(&a, &two), None);
}

#[test]
fn fewer_confirm_with_the_record_first_and_more_with_the_record_last() {
    let (none, one, two) = (target(0, &[]), target(1, &["b", "c"]), target(2, &["b", "c"]));
    let a = copy("a");
    assert_eq!(at(&two).plan(&a, &one), Some(Step::Less(one.clone())));
    assert_eq!(at(&one).plan(&a, &two), Some(Step::More(two.clone())));
    assert_eq!(at(&one).plan(&a, &none), Some(Step::Less(none.clone())), "the leader has everything");
    assert_eq!(at(&none).plan(&a, &one), Some(Step::More(one.clone())));
}

#[test]
fn one_is_replaced_by_another_in_two_steps() {
    let (before, after) = (target(1, &["b", "c"]), target(1, &["b", "d"]));
    let both = target(1, &["b", "c", "d"]);
    let a = copy("a");
    assert_eq!(at(&before).plan(&a, &after), Some(Step::Less(both.clone())));
    assert_eq!(at(&both).plan(&a, &after), Some(Step::More(after)));
}

#[test]
fn what_may_still_be_in_use_counts() {
    let a = copy("a");
    let (none, one) = (target(0, &[]), target(1, &["b"]));
    let mut quorum = at(&one);
    quorum.stale.insert(none.names);
    let three = target(1, &["b", "c"]);
    assert_eq!(quorum.plan(&a, &three), None, "not by this record, whose own setting is not all that is in use");
}

/// One run of all changes, with everything that the order allows to happen meanwhile.
#[derive(Clone)]
struct World {
    quorum: Quorum,
    /// The members that have each commit that a client was told of, at the least.
    confirmed: BTreeSet<BTreeSet<Copy>>,
}

impl World {
    /// What any process may confirm now is confirmed, by as few as it can be.
    fn commit(&mut self) {
        let in_use: Vec<Names> = self.quorum.stale.iter().chain([&self.quorum.names]).cloned().collect();
        for names in in_use {
            let Names::Any { n, standbys } = names else { continue };
            for mut by in subsets(&standbys).into_iter().filter(|s| s.len() == n) {
                by.insert(copy("a"));
                self.confirmed.insert(by);
            }
        }
    }

    /// Whoever can be elected by this record has every commit among its voters.
    fn check(&self, record: &Record) {
        for voters in subsets(&record.members).into_iter().filter(|v| v.len() == record.votes) {
            for commit in &self.confirmed {
                assert!(!voters.is_disjoint(commit), "{voters:?} miss what {commit:?} have: {:?}", self.quorum);
            }
        }
    }

    fn both(&mut self, record: &Record) {
        self.commit();
        self.check(&self.quorum.record.clone());
        self.check(record);
    }

    fn step(&mut self, step: Step) -> Vec<World> {
        match step {
            Step::Less(target) => {
                // Nobody knows yet whether the record was written, then everybody does.
                self.both(&target.record);
                self.quorum.record = target.record.clone();
                self.quorum.set(target.names);
                self.both(&target.record);
                vec![self.clone()]
            }
            Step::More(target) => {
                self.quorum.set(Names::Nobody);
                self.commit();
                self.check(&self.quorum.record.clone());
                self.quorum.proven();
                let past = self.confirmed.clone();
                self.quorum.set(target.names.clone());
                self.commit();
                self.check(&self.quorum.record.clone());
                let enough = subsets(&target.record.members).into_iter();
                let enough = enough.filter(|f| f.len() == holders(&target.record) && f.contains(&copy("a")));
                let flushed = |by: BTreeSet<Copy>| {
                    let mut confirmed: BTreeSet<_> = past.iter().map(|commit| commit | &by).collect();
                    confirmed.extend(self.confirmed.difference(&past).cloned());
                    let mut world = World { quorum: self.quorum.clone(), confirmed };
                    world.both(&target.record);
                    world.quorum.record = target.record.clone();
                    world.both(&target.record);
                    world
                };
                enough.map(flushed).collect()
            }
        }
    }
}

#[test]
fn no_election_misses_a_commit_in_any_change_from_anything_to_anything() {
    let mut steps = 0;
    for (from, first) in targets().iter().flat_map(|f| targets().into_iter().map(move |t| (f.clone(), t))) {
        let begun = vec![World { quorum: at(&from), confirmed: BTreeSet::new() }];
        let there = changed(begun, &first, &mut steps);
        // What the first change left in use is in use in the second.
        for then in targets() {
            changed(there.clone(), &then, &mut steps);
        }
    }
    assert!(steps > 3000, "{steps}");
}

/// All worlds, each on its way to `to` until it is there.
fn changed(mut worlds: Vec<World>, to: &Target, steps: &mut usize) -> Vec<World> {
    let mut there = Vec::new();
    for round in 0.. {
        assert!(round < 5, "a way without end to {to:?}");
        let mut next = Vec::new();
        for mut world in worlds {
            world.commit();
            world.check(&world.quorum.record.clone());
            if let Some(step) = world.quorum.plan(&copy("a"), to) {
                *steps += 1;
                next.extend(world.step(step));
            } else {
                assert_eq!((&world.quorum.record, &world.quorum.names), (&to.record, &to.names));
                there.push(world);
            }
        }
        if next.is_empty() {
            break;
        }
        worlds = next;
    }
    there
}

#[test]
fn the_other_order_loses_a_commit() {
    // A standby leaves, and the record is written first: trace T4.
    let (three, two) = (target(1, &["b", "c"]), target(1, &["b"]));
    let loses = std::panic::catch_unwind(|| {
        let mut world = World { quorum: at(&three), confirmed: BTreeSet::new() };
        world.step(Step::Less(two));
    });
    assert!(loses.is_err());
    // One joins, and the setting comes first.
    let (two, three) = (target(1, &["b"]), target(1, &["b", "c"]));
    let loses = std::panic::catch_unwind(|| {
        let mut world = World { quorum: at(&two), confirmed: BTreeSet::new() };
        world.step(Step::More(three));
    });
    assert!(loses.is_err());
}

#[test]
fn a_new_office_goes_on_with_the_record_that_it_found() {
    let a = copy("a");
    for found in targets() {
        let quorum = Quorum::new(found.record.clone());
        let target = Target { record: found.record.clone(), names: Names::of(&found.record, &a) };
        assert!(holds(&quorum.record, &a, &target.names), "{found:?}");
    }
}
