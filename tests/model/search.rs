//! The exploration, by `stateright`: breadth first, each state once.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model, Property, UniformChooser};

use crate::{acts::Act, setup::Setup, world::World};

impl Model for Setup {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![Arc::new(self.clone()).world()]
    }

    fn actions(&self, state: &World, acts: &mut Vec<Act>) {
        acts.clear();
        state.acts(acts);
    }

    fn next_state(&self, last: &World, act: Act) -> Option<World> {
        let mut next = last.clone();
        next.happens(act);
        next.goes_on();
        Some(next)
    }

    fn within_boundary(&self, state: &World) -> bool {
        // Terms are left out where the Lease was deleted.
        state.granted.len() as u64 + u64::from(!self.founding) <= self.terms
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(HOLDS, |setup, world| violation(setup, world).is_none())]
    }
}

const HOLDS: &str = "what must hold";

fn violation(setup: &Setup, world: &World) -> Option<String> {
    if world.violation.is_some() || setup.calm_every == 0 {
        return world.violation.clone();
    }
    let number = {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        hasher.finish()
    };
    if !number.is_multiple_of(setup.calm_every) {
        return None;
    }
    [true, false].into_iter().find_map(|restart| crate::calm::no_primary(world, restart))
}

/// What was found.
pub(crate) struct Found {
    pub(crate) violation: Option<String>,
    pub(crate) trace: String,
}

/// Explores all of it, or to the first violation.
pub(crate) fn explore(setup: Setup) -> Found {
    let builder = builder(&setup);
    look(setup, builder.spawn_bfs())
}

/// Goes ways at random, which are longer than any that can all be gone.
pub(crate) fn walk(setup: Setup, seed: u64, seconds: u64) -> Found {
    let builder = builder(&setup).timeout(Duration::from_secs(seconds));
    look(setup, builder.spawn_simulation(seed, UniformChooser))
}

fn most() -> usize {
    std::env::var("MODEL_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX)
}

fn builder(setup: &Setup) -> CheckerBuilder<Setup> {
    let builder = setup.clone().checker().threads(1);
    builder.finish_when(HasDiscoveries::AnyFailures).target_state_count(most())
}

fn look(setup: Setup, checker: impl Checker<Setup>) -> Found {
    let (begun, name) = (Instant::now(), setup.name);
    let without = setup.without.map(|r| format!(" without {r:?}")).unwrap_or_default();
    let checker = checker.join();
    let (states, transitions, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    let took = begun.elapsed();
    let all = if checker.is_done() && transitions < most() { "" } else { ", NOT ALL" };
    println!(
        "{name}{without}: {states} states, {transitions} transitions, depth {depth}, {:.1} s{all}",
        took.as_secs_f64()
    );
    let Some(path) = checker.discovery(HOLDS) else {
        return Found { violation: None, trace: String::new() };
    };
    let mut trace = String::new();
    let steps = path.into_vec();
    let last = steps.last().map(|(world, _)| world.clone());
    let start = steps.first().map_or(0, |(w, _)| w.now);
    for (world, act) in &steps {
        if let Some(act) = act {
            let _ = writeln!(trace, "  {:>3} s  {act:?}", world.now - start);
        }
    }
    let violation = last.and_then(|world| {
        for m in &world.members {
            let _ = writeln!(
                trace,
                "       {}: {:?}, {:?}, {:?}, {:?}, known {:?}",
                m.uid(),
                m.server,
                m.goal,
                m.memory.reason,
                m.disk,
                m.memory.lease()
            );
            if m.is_synchronous() {
                let quorum = m.memory.in_office().and_then(|o| o.quorum.as_ref());
                let _ = writeln!(trace, "           {:?}, {:?}, {quorum:?}", m.wire, m.confirms);
            }
        }
        let _ = writeln!(trace, "       the Lease: {:?}", world.api.lease);
        violation(&setup, &world)
    });
    Found { violation, trace }
}
