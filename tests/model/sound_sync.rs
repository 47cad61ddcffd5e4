//! With all rules in, synchronous clusters lose nothing that was confirmed, and nobody stays frozen.

use crate::{
    setup::{Prelude, Setup},
    sound::{holds, holds_in_full, holds_in_part, is_full},
    world::Budget,
};

const NOTHING: Budget = Budget::NONE;

fn sync(name: &'static str, members: usize, budget: Budget) -> Setup {
    // One election, or two.
    let terms = if is_full() { 4 } else { 3 };
    Setup { sync: 1, lazy: true, calm_every: 40, terms, ..Setup::new(name, members, budget) }
}

/// No fence saves anybody: then more than one may accept writes, and what was confirmed is in each later one all the same.
fn unfenced(name: &'static str, members: usize, budget: Budget) -> Setup {
    Setup { unfenced: true, calm_every: 0, ..sync(name, members, budget) }
}

#[test]
fn sync_two() {
    holds(Setup { lazy: false, calm_every: 1, ..sync("sync two", 2, Budget { commit: 1, ..NOTHING }) });
}

#[test]
fn sync_two_crash() {
    let setup = sync("sync two crash", 2, Budget { crash: 1, commit: 1, ..NOTHING });
    holds_in_part(Setup { lazy: false, calm_every: 7, ..setup });
}

#[test]
fn sync_two_joins() {
    let budget = Budget { crash: 1, commit: 1, ..NOTHING };
    let setup = sync("sync two joins", 2, budget);
    holds_in_part(Setup { prelude: Prelude::Alone, lazy: is_full(), ..setup });
}

#[test]
fn sync_two_leaves() {
    let budget = Budget { crash: 1, commit: 1, ..NOTHING };
    let setup = sync("sync two leaves", 2, budget);
    holds_in_part(Setup { prelude: Prelude::Leaving, lazy: is_full(), ..setup });
}

#[test]
fn sync_two_cut_off() {
    let setup = sync("sync two cut off", 2, Budget { deaf: 1, commit: 1, ..NOTHING });
    holds_in_part(Setup { prelude: Prelude::CutOff, lazy: false, ..setup });
}

#[test]
fn sync_two_cut_deaf() {
    holds_in_full(Setup { lazy: false, ..sync("sync two cut deaf", 2, Budget { cut: 1, deaf: 1, ..NOTHING }) });
}

#[test]
fn sync_two_strict() {
    let setup = sync("sync two strict", 2, Budget { crash: 1, commit: 1, ..NOTHING });
    holds_in_part(Setup { strict: true, lazy: false, ..setup });
}

#[test]
fn sync_two_server() {
    let setup = sync("sync two server", 2, Budget { server: 1, commit: 1, ..NOTHING });
    holds_in_part(Setup { lazy: false, ..setup });
}

#[test]
fn sync_two_old_volume() {
    let setup = sync("sync two old volume", 2, Budget { old_volume: 1, node: 1, ..NOTHING });
    holds_in_part(Setup { prelude: Prelude::OneHasIt, lazy: false, calm_every: 400, ..setup });
}

#[test]
fn sync_two_slow_unfenced() {
    let setup = unfenced("sync two slow unfenced", 2, Budget { slow: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { lazy: false, prompt: true, ..setup });
}

#[test]
fn sync_two_asleep() {
    let setup = unfenced("sync two asleep", 2, Budget { commit: 1, crash: u8::from(is_full()), ..NOTHING });
    holds_in_part(Setup { prelude: Prelude::Asleep, lazy: is_full(), ..setup });
}

#[test]
fn sync_two_lazy_crash() {
    holds_in_full(sync("sync two lazy crash", 2, Budget { crash: 1, commit: 1, ..NOTHING }));
}

#[test]
fn sync_two_crash_crash() {
    let setup = sync("sync two crash crash", 2, Budget { crash: 2, commit: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, ..setup });
}

#[test]
fn sync_two_joins_twice() {
    let budget = Budget { crash: 2, commit: 2, ..NOTHING };
    holds_in_full(Setup { prelude: Prelude::Alone, prompt: true, ..sync("sync two joins twice", 2, budget) });
}

#[test]
fn sync_two_strict_joins() {
    let budget = Budget { crash: 1, commit: 1, ..NOTHING };
    let setup = sync("sync two strict joins", 2, budget);
    holds_in_full(Setup { strict: true, prelude: Prelude::Alone, prompt: true, ..setup });
}

#[test]
fn sync_two_node_slow() {
    let setup = sync("sync two node slow", 2, Budget { node: 1, slow: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, ..setup });
}

#[test]
fn sync_two_lost_slow_unfenced() {
    let setup = unfenced("sync two lost slow unfenced", 2, Budget { lost: 1, slow: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, ..setup });
}

#[test]
fn sync_two_switchover_crash() {
    let setup = sync("sync two switchover crash", 2, Budget { switchover: 1, crash: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, ..setup });
}

#[test]
fn sync_two_delete_crash() {
    let setup = sync("sync two delete crash", 2, Budget { delete: 1, crash: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, ..setup });
}

#[test]
fn sync_two_volume_crash() {
    let setup = sync("sync two volume crash", 2, Budget { volume: 1, crash: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, ..setup });
}

#[test]
fn sync_two_fenced_crash() {
    let setup = sync("sync two fenced crash", 2, Budget { fenced: 1, crash: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, ..setup });
}

#[test]
fn sync_two_pod() {
    let setup = sync("sync two pod", 2, Budget { pod: 1, commit: 1, deaf: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, ..setup });
}

#[test]
fn sync_two_founding() {
    let setup = sync("sync two founding", 2, Budget { crash: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { founding: true, prompt: true, lazy: false, ..setup });
}

#[test]
fn sync_three_crash() {
    let setup = sync("sync three crash", 3, Budget { crash: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, lazy: false, calm_every: 400, ..setup });
}

#[test]
fn sync_three_one_has_it() {
    let setup = sync("sync three, one has it", 3, Budget { crash: 1, slow: 1, ..NOTHING });
    holds_in_full(Setup { prelude: Prelude::OneHasIt, prompt: true, lazy: false, calm_every: 400, ..setup });
}

#[test]
fn sync_three_asleep() {
    let setup = unfenced("sync three asleep", 3, Budget { commit: 1, crash: 1, ..NOTHING });
    holds_in_full(Setup { prelude: Prelude::Asleep, prompt: true, ..setup });
}

#[test]
fn sync_three_voted() {
    let setup = unfenced("sync three voted", 3, Budget { crash: 1, slow: 1, ..NOTHING });
    holds_in_full(Setup { prelude: Prelude::Voted, prompt: true, ..setup });
}

#[test]
fn sync_three_leaves() {
    let setup = sync("sync three leaves", 3, Budget { fenced: 1, crash: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { prompt: true, calm_every: 400, ..setup });
}

#[test]
fn sync_three_by_two() {
    let setup = sync("sync three by two", 3, Budget { crash: 2, commit: 1, ..NOTHING });
    holds_in_full(Setup { sync: 2, prompt: true, lazy: false, calm_every: 400, ..setup });
}

#[test]
fn sync_three_by_two_joins() {
    let setup = sync("sync three by two joins", 3, Budget { crash: 1, commit: 1, ..NOTHING });
    holds_in_full(Setup { sync: 2, prelude: Prelude::Alone, prompt: true, lazy: false, calm_every: 400, ..setup });
}

#[test]
fn sync_two_of_one_name() {
    let setup = unfenced("sync two of one name", 3, Budget { commit: 1, ..NOTHING });
    holds_in_full(Setup { prelude: Prelude::TwoOfOneName, prompt: true, ..setup });
}

#[test]
fn sync_three_unnoted() {
    let setup = sync("sync three unnoted", 3, NOTHING);
    holds_in_full(Setup { prelude: Prelude::Unnoted, lazy: false, prompt: true, calm_every: 400, ..setup });
}
