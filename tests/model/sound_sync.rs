//! With all rules in, synchronous clusters lose nothing that was confirmed, and nobody stays frozen.

use crate::{
    setup::{Prelude, Setup},
    sound::{holds, holds_in_full},
    world::Budget,
};

fn sync(name: &'static str, members: usize, budget: Budget) -> Setup {
    Setup { sync: 1, calm_every: 40, ..Setup::new(name, members, budget) }
}

#[test]
fn sync_two() {
    holds(Setup { calm_every: 1, ..sync("sync two", 2, Budget { commit: 1, ..Budget::default() }) });
}
