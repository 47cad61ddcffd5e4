//! Ways at random through clusters with more faults than can be explored: they prove nothing, and find what is far away.
//!
//!     MODEL_WALK=1 MODEL_SECONDS=600 cargo test --release --test model -- --nocapture walk

use crate::{search::walk, setup::Setup, world::Budget};

/// `MODEL_WALK` is the seed; without it nothing is walked.
fn walks(setup: Setup) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let Some(seed) = number("MODEL_WALK") else { return };
    let found = walk(setup, seed, number("MODEL_SECONDS").unwrap_or(60));
    assert!(found.violation.is_none(), "{}\n{}", found.violation.unwrap_or_default(), found.trace);
}

const FAULTS: Budget = Budget {
    crash: 3,
    node: 1,
    slow: 2,
    cut: 1,
    lost: 2,
    deaf: 2,
    touch: 1,
    switchover: 1,
    server: 1,
    commit: 4,
    ..Budget::NONE
};

fn far(name: &'static str, members: usize, sync: usize) -> Setup {
    Setup { sync, lazy: true, stale: true, terms: 12, calm_every: 200, ..Setup::new(name, members, FAULTS) }
}

#[test]
fn walk_two() {
    walks(far("walk two", 2, 0));
}

#[test]
fn walk_three() {
    walks(far("walk three", 3, 0));
}

#[test]
fn walk_sync_two() {
    walks(far("walk sync two", 2, 1));
}

#[test]
fn walk_sync_three() {
    walks(far("walk sync three", 3, 1));
}

#[test]
fn walk_sync_three_by_two() {
    walks(Setup { strict: true, ..far("walk sync three by two", 3, 2) });
}

#[test]
fn walk_sync_unfenced() {
    walks(Setup { unfenced: true, calm_every: 0, ..far("walk sync unfenced", 3, 1) });
}
