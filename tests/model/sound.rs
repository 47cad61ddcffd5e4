//! With all rules in, nothing is found.

use crate::{search::explore, setup::Setup, world::Budget};

pub(crate) fn holds(setup: Setup) {
    let found = explore(setup);
    assert!(found.violation.is_none(), "{}\n{}", found.violation.unwrap_or_default(), found.trace);
}

pub(crate) fn is_full() -> bool {
    std::env::var("PODGRES_MODEL").is_ok_and(|v| v == "full")
}

/// Those that take more than a moment are only part of the full check.
pub(crate) fn holds_in_full(setup: Setup) {
    if is_full() {
        holds(setup);
    }
}

/// Of these a part is explored always.
pub(crate) fn holds_in_part(setup: Setup) {
    holds(Setup { prompt: !is_full(), ..setup });
}

#[test]
fn two() {
    holds(Setup { calm_every: 1, ..Setup::new("two", 2, Budget::default()) });
}

#[test]
fn two_crash() {
    holds(Setup { calm_every: 7, ..Setup::new("two crash", 2, Budget { crash: 1, ..Budget::default() }) });
}

#[test]
fn two_slow() {
    holds_in_part(Setup { calm_every: 40, ..Setup::new("two slow", 2, Budget { slow: 1, ..Budget::default() }) });
}

#[test]
fn two_cut() {
    holds_in_part(Setup { calm_every: 40, ..Setup::new("two cut", 2, Budget { cut: 1, ..Budget::default() }) });
}

#[test]
fn two_touch_node() {
    holds_in_part(Setup {
        calm_every: 40,
        ..Setup::new("two touch node", 2, Budget { touch: 1, node: 1, ..Budget::default() })
    });
}

#[test]
fn two_switchover() {
    holds_in_part(Setup {
        calm_every: 7,
        ..Setup::new("two switchover", 2, Budget { switchover: 1, ..Budget::default() })
    });
}

#[test]
fn two_pod() {
    holds_in_part(Setup { calm_every: 7, ..Setup::new("two pod", 2, Budget { pod: 1, ..Budget::default() }) });
}

#[test]
fn two_delete() {
    holds(Setup { calm_every: 7, ..Setup::new("two delete", 2, Budget { delete: 1, deaf: 1, ..Budget::default() }) });
}

#[test]
fn two_pause() {
    holds(Setup { calm_every: 7, ..Setup::new("two pause", 2, Budget { pause: 2, ..Budget::default() }) });
}

#[test]
fn founding() {
    holds_in_part(Setup { founding: true, calm_every: 1, ..Setup::new("founding", 2, Budget::default()) });
}

#[test]
fn founding_crash() {
    holds_in_full(Setup {
        founding: true,
        calm_every: 7,
        ..Setup::new("founding crash", 2, Budget { crash: 1, ..Budget::default() })
    });
}

#[test]
fn founding_slow() {
    holds_in_full(Setup {
        founding: true,
        calm_every: 40,
        ..Setup::new("founding slow", 2, Budget { slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_lost_crash() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two lost crash", 2, Budget { lost: 1, crash: 1, ..Budget::default() })
    });
}

#[test]
fn two_lost_slow() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two lost slow", 2, Budget { lost: 1, slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_crash_crash() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two crash crash", 2, Budget { crash: 2, ..Budget::default() })
    });
}

#[test]
fn two_crash_slow_deaf() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two crash slow deaf", 2, Budget { crash: 1, slow: 1, deaf: 1, ..Budget::default() })
    });
}

#[test]
fn two_node_pod_deaf() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two node pod deaf", 2, Budget { node: 1, pod: 1, deaf: 1, ..Budget::default() })
    });
}

#[test]
fn two_crash_pod_deaf() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two crash pod deaf", 2, Budget { crash: 1, pod: 1, deaf: 1, ..Budget::default() })
    });
}

#[test]
fn two_pod_slow() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two pod slow", 2, Budget { pod: 1, slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_delete_slow() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two delete slow", 2, Budget { delete: 1, slow: 1, deaf: 1, ..Budget::default() })
    });
}

#[test]
fn two_delete_crash() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two delete crash", 2, Budget { delete: 1, crash: 1, deaf: 1, ..Budget::default() })
    });
}

#[test]
fn two_delete_cut() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two delete cut", 2, Budget { delete: 1, cut: 1, deaf: 1, ..Budget::default() })
    });
}

#[test]
fn two_restore_slow() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two restore slow", 2, Budget { restore: 1, slow: 1, deaf: 1, ..Budget::default() })
    });
}

#[test]
fn two_restore_crash() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two restore crash", 2, Budget { restore: 1, crash: 1, node: 1, ..Budget::default() })
    });
}

#[test]
fn two_pause_cut() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two pause cut", 2, Budget { pause: 2, cut: 1, ..Budget::default() })
    });
}

#[test]
fn two_pause_slow() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two pause slow", 2, Budget { pause: 2, slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_pause_crash() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two pause crash", 2, Budget { pause: 2, crash: 1, ..Budget::default() })
    });
}

#[test]
fn two_pause_switchover() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two pause switchover", 2, Budget { pause: 1, switchover: 1, ..Budget::default() })
    });
}

#[test]
fn two_switchover_slow() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two switchover slow", 2, Budget { switchover: 1, slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_switchover_crash() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two switchover crash", 2, Budget { switchover: 1, crash: 1, ..Budget::default() })
    });
}

#[test]
fn two_switchover_lost() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two switchover lost", 2, Budget { switchover: 1, lost: 1, ..Budget::default() })
    });
}

#[test]
fn two_fenced_crash() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two fenced crash", 2, Budget { fenced: 1, crash: 1, ..Budget::default() })
    });
}

#[test]
fn two_fenced_slow() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two fenced slow", 2, Budget { fenced: 1, slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_force() {
    holds_in_full(Setup { calm_every: 40, ..Setup::new("two force", 2, Budget { force: 1, ..Budget::default() }) });
}

#[test]
fn two_force_slow() {
    holds_in_full(Setup {
        calm_every: 400,
        ..Setup::new("two force slow", 2, Budget { force: 1, slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_volume_crash() {
    holds_in_full(Setup {
        calm_every: 40,
        ..Setup::new("two volume crash", 2, Budget { volume: 1, crash: 1, ..Budget::default() })
    });
}

#[test]
fn two_stale_slow() {
    holds_in_full(Setup {
        stale: true,
        calm_every: 400,
        ..Setup::new("two stale slow", 2, Budget { slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_stale_switchover() {
    holds_in_full(Setup {
        stale: true,
        calm_every: 400,
        ..Setup::new("two stale switchover", 2, Budget { switchover: 1, crash: 1, ..Budget::default() })
    });
}

#[test]
fn two_lazy_commit() {
    holds_in_full(Setup {
        lazy: true,
        calm_every: 400,
        ..Setup::new("two lazy commit", 2, Budget { crash: 1, commit: 1, slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_durations() {
    holds_in_full(Setup {
        durations: [8, 4, 8, 4],
        calm_every: 400,
        ..Setup::new("two durations", 2, Budget { slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_cut_slow() {
    holds_in_full(Setup {
        calm_every: 4000,
        ..Setup::new("two cut slow", 2, Budget { cut: 1, slow: 1, ..Budget::default() })
    });
}

#[test]
fn two_cut_cut() {
    holds_in_full(Setup { calm_every: 4000, ..Setup::new("two cut cut", 2, Budget { cut: 2, ..Budget::default() }) });
}

#[test]
fn two_slow_slow() {
    holds_in_full(Setup {
        calm_every: 4000,
        ..Setup::new("two slow slow", 2, Budget { slow: 2, ..Budget::default() })
    });
}

#[test]
fn three_crash() {
    holds_in_full(Setup { calm_every: 400, ..Setup::new("three crash", 3, Budget { crash: 1, ..Budget::default() }) });
}

#[test]
fn three_slow() {
    holds_in_full(Setup { calm_every: 4000, ..Setup::new("three slow", 3, Budget { slow: 1, ..Budget::default() }) });
}

#[test]
fn three_crash_crash() {
    holds_in_full(Setup {
        calm_every: 4000,
        ..Setup::new("three crash crash", 3, Budget { crash: 2, ..Budget::default() })
    });
}

#[test]
fn three_lazy() {
    holds_in_full(Setup {
        lazy: true,
        calm_every: 4000,
        ..Setup::new("three lazy", 3, Budget { crash: 1, commit: 1, ..Budget::default() })
    });
}

#[test]
fn three_switchover() {
    holds_in_full(Setup {
        calm_every: 4000,
        ..Setup::new("three switchover", 3, Budget { switchover: 1, crash: 1, ..Budget::default() })
    });
}
