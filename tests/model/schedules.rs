//! The simulation: long schedules at random, each with its own cluster and its own faults, all of them repeatable. What is not
//! to be explored whole, because it is too much, is met here by chance: many faults, late answers, restarts, people.
//!
//! A seed is a schedule. One that fails is printed with its last events:
//!
//!     PODGRES_SEED=7 cargo test --test model -- --nocapture schedules_first
//!     PODGRES_SCHEDULES=1000000 cargo test --profile simulation --test model -- --nocapture schedules

use std::{sync::Arc, time::Instant};

use crate::{
    acts::Act,
    calm::no_primary,
    member::Member,
    setup::Setup,
    world::{Budget, World},
};

/// In seconds of the simulated clock: several leases, elections and hand-overs.
const LENGTH: u64 = 60;
/// At most so many events: a schedule of many small ones is as good as one of few.
const EVENTS: usize = 4000;
/// An outage lasts for so many other events, more or less.
const LASTS: usize = 20;
/// A second passes in so many steps, or in one.
const STEPS: u32 = 4;
/// So far off may the rate of a clock be, in thousandths (I1). Whole seconds are too coarse to see what that does.
const DRIFT: u32 = 10;

/// How many there are, of which an unoptimised build, which takes ten times as long, makes a few.
const MOST: u64 = if cfg!(debug_assertions) { 200 } else { 10_000 };

/// Numbers that come again with the seed (SplitMix64, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn up_to(&mut self, most: u8) -> u8 {
        u8::try_from(self.below(usize::from(most) + 1)).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// `off`: so far may the rate of a clock be off, in thousandths.
fn setup(random: &mut Random, off: u32) -> Setup {
    let members = 2 + random.below(2);
    let sync = random.below(members);
    let founding = sync == 0 && random.one_in(8);
    // A lost volume beside other faults is more than a synchronous cluster promises to survive. A request that outlives it is
    // more than the check can tell from one of the new copy's.
    let volume = u8::from(sync == 0 && !founding && random.one_in(8));
    let pause = 2 * u8::from(random.one_in(8));
    let lost = if volume > 0 { 0 } else { random.up_to(3) };
    let (steps, drift) = if random.one_in(2) { (1, 0) } else { (STEPS, off) };
    let budget = Budget {
        crash: random.up_to(3),
        node: random.up_to(1),
        slow: random.up_to(3),
        cut: random.up_to(2),
        lost,
        deaf: random.up_to(2),
        // With it and the leader's volume all that is known of a cluster may be gone, and all that keeps others from an office
        // without a fence.
        delete: u8::from(volume == 0 && !founding && pause == 0 && random.one_in(4)),
        touch: random.up_to(2),
        pause,
        pod: random.up_to(1),
        switchover: random.up_to(2),
        server: random.up_to(1),
        volume,
        commit: random.up_to(6),
        ..Budget::NONE
    };
    Setup {
        sync,
        strict: sync > 0 && random.one_in(2),
        failsafe: random.one_in(2),
        unfenced: false,
        lazy: random.one_in(2),
        stale: random.one_in(2),
        terms: u64::MAX,
        founding,
        steps,
        rates: [0; 4].map(|_| 1000 - drift + u32::from(random.up_to(2)) * drift),
        // Half a second at most.
        kill: if steps == 1 { 1 } else { 1 + random.up_to(1) },
        ..Setup::new("a schedule", members, budget)
    }
}

/// What went wrong in the schedule of this seed, and its events.
fn schedule(seed: u64, off: u32) -> Option<String> {
    let mut random = Random(seed);
    let setup = Arc::new(setup(&mut random, off));
    let mut world = setup.world();
    let (begun, mut happened, mut acts, mut healthy) = (world.now, Vec::new(), Vec::new(), Vec::new());
    while world.now < begun + setup.ticks(LENGTH) && happened.len() < EVENTS && world.violation.is_none() {
        acts.clear();
        healthy.clear();
        world.acts(&mut acts);
        world.steps(&mut healthy);
        // Faults are rare beside what a healthy system does, time passes when there is nothing else to do.
        let fault = healthy.is_empty() || random.one_in(12);
        let from = if fault || acts.len() == healthy.len() { &acts } else { &healthy };
        let Some(act) = (!from.is_empty()).then(|| from[random.below(from.len())]) else { break };
        // What ends an outage is always possible, and would end each of them at once.
        if matches!(act, Act::Wake(_) | Act::Uncut(_)) && !random.one_in(LASTS) {
            continue;
        }
        happened.push(((world.now - begun) as f64 / f64::from(setup.steps), act));
        world.happens(act);
    }
    let restart = random.one_in(2);
    let violation = world.violation.clone().or_else(|| no_primary(&world, restart))?;
    Some(report(seed, &setup, &world, &happened, &violation))
}

fn report(seed: u64, setup: &Setup, world: &World, happened: &[(f64, Act)], violation: &str) -> String {
    let last: Vec<String> =
        happened.iter().rev().take(120).rev().map(|(at, act)| format!("  {at:>5.2} s  {act:?}")).collect();
    let one = |m: &Member| {
        format!("  {}: {:?} {:?} {:?} {:?} {:?}", m.uid(), m.server, m.memory.reason, m.disk, m.confirms, m.wire)
    };
    let members: Vec<String> = world.members.iter().map(|m| one(m)).collect();
    format!(
        "PODGRES_SEED={seed}: {violation}\n{setup:?}\n{}\n{}\n  the Lease: {:?}",
        last.join("\n"),
        members.join("\n"),
        world.api.lease
    )
}

fn schedules(from: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("PODGRES_SEED") {
        let found = schedule(seed, DRIFT);
        assert!(found.is_none(), "{}", found.unwrap_or_default());
        return;
    }
    let (begun, most) = (Instant::now(), number("PODGRES_SCHEDULES").unwrap_or(MOST) / 2);
    for seed in from..from + most {
        if let Some(found) = schedule(seed, DRIFT) {
            panic!("{found}");
        }
    }
    println!("{most} schedules, {:.0} a second", most as f64 / begun.elapsed().as_secs_f64());
}

#[test]
fn schedules_first_half() {
    schedules(1);
}

#[test]
fn schedules_second_half() {
    schedules(1 << 32);
}

/// The simulation can see what clocks do: with rates that the margin does not cover there are two primaries.
#[test]
fn clocks_that_are_off_by_a_quarter() {
    let found = (1..=2000).find_map(|seed| schedule(seed, 250).filter(|found| found.contains(": I1: ")));
    assert!(found.is_some(), "no schedule had two primaries");
}
