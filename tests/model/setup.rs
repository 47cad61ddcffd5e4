//! What is explored: how many members, which faults, which rule is taken out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use podgres::ha::{
    Config, Data,
    lease::{Began, Free, Lease},
    member::{Pod, Status},
    record::{Copy, Record},
};

use crate::{
    acts::Act,
    calm::{settle, without_restarts},
    member::{Disk, Member},
    rules::Rule,
    world::{Api, BASE, Budget, PodObject, SYSTEM, World},
};

/// One exploration.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) members: usize,
    pub(crate) budget: Budget,
    pub(crate) without: Option<Rule>,
    /// States with a higher term are not gone on from.
    pub(crate) terms: u64,
    /// Whether standbys receive when they like, not always at once.
    pub(crate) lazy: bool,
    /// Whether what a watch tells may be overtaken.
    pub(crate) stale: bool,
    /// `lease-duration` of each member in seconds.
    pub(crate) durations: [u64; 4],
    /// From every so many states one goes on without faults, and a primary must appear. 0: from none.
    pub(crate) calm_every: u64,
    /// Somebody annotates the Lease every second meanwhile.
    pub(crate) calm_touched: bool,
    /// Whether an old Lease is brought back also while a member has not seen what came after it.
    pub(crate) restores_unseen: bool,
    /// Whether a new timeline is noted some time after it was begun, as it is shipped.
    pub(crate) notes_late: bool,
    /// Whether nobody has data at first.
    pub(crate) founding: bool,
    /// In how many steps a second passes.
    pub(crate) steps: u32,
    /// How fast the clock of each member goes, in thousandths.
    pub(crate) rates: [u32; 4],
    /// So many steps after the fence has fired the processes are dead.
    pub(crate) kill: u8,
    /// `sync`.
    pub(crate) sync: usize,
    /// `sync-strict`.
    pub(crate) strict: bool,
    /// Whether no fence ever fires: then I2 is to hold all the same.
    pub(crate) unfenced: bool,
    /// Whether what nothing depends on happens at once and in one order: fewer states, and not all.
    pub(crate) prompt: bool,
    /// `failsafe`.
    pub(crate) failsafe: bool,
    /// What has happened before.
    pub(crate) prelude: Prelude,
}

/// What has happened before the exploration begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prelude {
    /// All members run, and nothing happens.
    Calm,
    /// The leader has restarted in place.
    Restarted,
    /// The second member is cut off from the API, and soon does not know of a leader any more.
    CutOff,
    /// All but the leader are down for so long that the record is its own.
    Alone,
    /// A commit is confirmed by the second member only.
    OneHasIt,
    /// And it sleeps, the leader is dead, and its Lease is about to run out.
    BestSleeps,
    /// The leader's manager sleeps, and its Lease is about to run out.
    Asleep,
    /// And the third member is frozen for the second, who does not know yet. A commit waits for one of them.
    Voted,
    /// And that third one sleeps.
    VoterSleeps,
    /// All but the leader are down, and about to leave the record.
    Leaving,
    /// The first leader died with commits that nobody else has. The second took over, and died when the third had confirmed a
    /// commit of its and not noted yet what began the timeline.
    Unnoted,
    /// The first leader was deleted by force and sleeps, its server does not; the pod of its name leads now. The third member
    /// has not received anything meanwhile.
    TwoOfOneName,
}

pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

impl Setup {
    pub(crate) fn new(name: &'static str, members: usize, budget: Budget) -> Self {
        Self {
            name,
            members,
            budget,
            without: None,
            terms: 4,
            lazy: false,
            stale: false,
            durations: [4; 4],
            calm_every: 0,
            calm_touched: false,
            restores_unseen: false,
            notes_late: false,
            founding: false,
            steps: 1,
            rates: [1000; 4],
            kill: 1,
            sync: 0,
            strict: false,
            unfenced: false,
            prompt: false,
            failsafe: false,
            prelude: Prelude::Calm,
        }
    }

    pub(crate) fn without(self, rule: Rule) -> Self {
        Self { without: Some(rule), ..self }
    }

    /// In how many steps so many seconds pass.
    pub(crate) fn ticks(&self, seconds: u64) -> u64 {
        seconds * u64::from(self.steps)
    }

    /// A cluster whose first member leads and whose others stream, some seconds ago begun; or one that nobody has begun.
    pub(crate) fn world(self: &Arc<Self>) -> World {
        let copy = |n: usize| format!("copy{n}");
        let listed = (0..self.members).map(|n| Copy { pod: NAMES[n].into(), copy: copy(n) }).collect();
        let votes = self.members - self.sync.min(self.members - 1);
        let record = Record { votes, members: listed };
        let began = Began { term: 1, timeline: 1 };
        let lease = Lease {
            version: "1".into(),
            duration: Duration::from_secs(4),
            renewed: "1".into(),
            term: 1,
            record: Some(record.clone()),
            system_id: Some(SYSTEM),
            timeline: Some(began),
            free: Some(Free { term: 1, to: Some(copy(0)) }),
            ..Lease::default()
        };
        let disk = |n: usize| Disk {
            data: Data::Present,
            system: SYSTEM,
            copy: copy(n),
            held: 0,
            began: Some(began),
            follows: 1,
            term: 1,
            record: Some(record.clone()),
            timeline: 1,
            log: vec![1],
            ..Disk::default()
        };
        let empty = |n: usize| Disk { copy: copy(n), ..Disk::default() };
        // With a pod that may be deleted by force there is one member more: the one that comes after it.
        let all = self.members + usize::from(self.budget.force > 0 || self.prelude == Prelude::TwoOfOneName);
        let members = (0..all).map(|n| {
            let pod = n % self.members;
            let disk = if self.founding { empty(pod) } else { disk(pod) };
            self.one(pod, if n < self.members { 0 } else { 1 }, self.durations[n], disk)
        });
        let pods = (0..self.members).map(|n| PodObject { name: NAMES[n], member: Some(n), ..PodObject::default() });
        let mut world = World {
            // The beginning is by all rules.
            setup: Arc::new(Self { without: None, ..(**self).clone() }),
            now: BASE,
            api: Api { lease: (!self.founding).then_some(lease), version: 1, change: 1, old: None },
            pods: pods.collect(),
            pods_change: 1,
            members: members.map(Arc::new).collect(),
            budget: Budget::default(),
            granted: Vec::new(),
            copies: 10,
            entries: 1,
            confirmed: Vec::new(),
            violation: None,
        };
        if !self.founding {
            (0..self.members).for_each(|i| world.start(i));
            world = settle(world, if self.sync > 0 { 5 } else { 3 }, &|_| true);
            assert!(world.members[0].is_writable() && world.violation.is_none(), "no beginning: {:?}", world.violation);
            world.api.old.clone_from(&world.api.lease);
            world = self.prelude.play(world);
            assert!(world.violation.is_none(), "no beginning: {:?}", world.violation);
        }
        world.setup = self.clone();
        world.budget = self.budget;
        world
    }

    fn one(&self, pod: usize, generation: usize, duration: u64, disk: Disk) -> Member {
        let margin = u64::from(self.without != Some(Rule::Margin));
        let config = Config {
            pod: NAMES[pod].into(),
            uid: format!("{}{generation}", NAMES[pod]),
            instance: String::new(),
            http: String::new(),
            duration: Duration::from_secs(duration),
            renew: Duration::from_secs(1),
            margin: Duration::from_secs(margin),
            max_lag: 1,
            priority: 100,
            start_timeout: Duration::from_secs(300),
            failsafe: self.failsafe,
            sync: podgres::ha::Sync { standbys: self.sync, strict: self.strict },
        };
        Member::new(config, pod, disk)
    }
}

impl Prelude {
    fn play(self, mut world: World) -> World {
        match self {
            Self::Calm => world,
            Self::Restarted => {
                world.budget.crash = 1;
                world.happens(Act::Crash(0));
                settle(world, 1, &|_| true)
            }
            Self::CutOff => {
                world.budget.cut = 1;
                world.happens(Act::Cut(1));
                settle(world, 3, &|_| true)
            }
            Self::Alone | Self::Leaving => {
                (1..world.members.len()).for_each(|i| world.stop(i));
                world.tidy();
                settle(world, if self == Self::Alone { 8 } else { 3 }, &without_restarts)
            }
            Self::OneHasIt => {
                world.budget.commit = 1;
                for act in [Act::Commit(0), Act::Backend(0, 0), Act::Follow(1), Act::Ack(1)] {
                    world.happens(act);
                }
                assert_eq!(world.confirmed.len(), 1, "the second member confirms it");
                world
            }
            Self::BestSleeps => {
                world = Self::OneHasIt.play(world);
                world.budget = Budget { node: 1, slow: 1, ..Budget::default() };
                world.happens(Act::Slow(1));
                world.happens(Act::NodeCrash(0));
                settle(world, 3, &without_restarts)
            }
            Self::Asleep => {
                world.budget.slow = 1;
                world.happens(Act::Slow(0));
                settle(world, 3, &|_| true)
            }
            Self::Voted => {
                world = Self::Asleep.play(world);
                let none =
                    |act: &Act| !matches!(act, Act::Timer(2) | Act::Accounts(2) | Act::Voted(..) | Act::Serve(..));
                world = settle(world, 1, &none);
                world.happens(Act::Voted(1, 0));
                world = settle(world, 0, &none);
                world.budget.commit = 1;
                world.happens(Act::Commit(0));
                world.happens(Act::Backend(0, 0));
                assert!(world.members[2].is_frozen() && !world.members[1].questions.is_empty(), "the third has voted");
                world
            }
            Self::VoterSleeps => {
                world = Self::Voted.play(world);
                world.budget.slow = 1;
                world.happens(Act::Slow(2));
                world
            }
            Self::Unnoted => {
                world.budget = Budget { node: 2, commit: 4, ..Budget::default() };
                (0..3).for_each(|_| world.happens(Act::Commit(0)));
                world.happens(Act::NodeCrash(0));
                let unnoted = |act: &Act| !matches!(act, Act::NoteHistory(2)) && without_restarts(act);
                // As soon as it can: a moment later the first one is off the record.
                let confirms = |w: &World| w.members[2].wire.as_ref().is_some_and(|w| w.names.confirm() == Some(1));
                let late = world.now + 10;
                while !confirms(&world) && world.now < late {
                    world = settle(world, 1, &unnoted);
                }
                for act in [Act::Commit(1), Act::Backend(1, 0), Act::Follow(2), Act::Ack(2)] {
                    world.happens(act);
                }
                assert_eq!(world.confirmed.len(), 1, "the third member confirms it");
                world.happens(Act::NodeCrash(1));
                let (first, third) = (&world.members[0].disk, &world.members[2].disk);
                assert!(first.log.len() >= third.log.len() && first.began == third.began, "and it seems to be behind");
                world
            }
            Self::TwoOfOneName => {
                world.budget = Budget { slow: 1, force: 1, switchover: 1, ..Budget::default() };
                let apart = |act: &Act| !matches!(act, Act::Connect(2) | Act::Follow(2));
                world.happens(Act::Slow(0));
                world.happens(Act::ForceDelete(0));
                world.happens(Act::Disconnect(2));
                world = settle(world, 12, &apart);
                world.happens(Act::Switchover(3));
                world = settle(world, 5, &apart);
                assert!(world.members[0].is_writable() && world.members[3].is_writable(), "two of one name");
                world
            }
        }
    }
}

impl World {
    /// The pods, as a watch tells them.
    pub(crate) fn pods_as_seen(&self) -> BTreeMap<String, Pod> {
        let pods = self.pods.iter().filter_map(|p| Some((p, &self.members[p.member?])));
        pods.map(|(p, m)| {
            let has_data = m.disk.data == Data::Present;
            let status = Status {
                instance: format!("{}-{}", m.config.uid, m.starts),
                copy: has_data.then(|| m.disk.copy.clone()),
                system_id: has_data.then(|| m.disk.system.to_string()),
                priority: m.config.priority,
                promised: if self.broken(Rule::TakesUpPromises) { 0 } else { m.disk.promised },
                ..Status::default()
            };
            let pod = Pod {
                name: p.name.into(),
                uid: m.config.uid.clone(),
                deleting: p.deleting,
                ready: m.up,
                status: (m.starts > 0).then_some(status),
                fenced: p.fenced.then(|| "true".into()),
                ended: p.ended.clone(),
                ..Pod::default()
            };
            (p.name.to_string(), pod)
        })
        .collect()
    }
}
