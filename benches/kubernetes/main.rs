//! A cluster at a real API server with podgres, with Patroni and by hand: `cargo bench --bench kubernetes`.
//!
//! Prints every figure and a table of medians; judges nothing, since machines are noisy. It needs what `tests/run` needs:
//! the Docker engine, the image podgres:15 (or the one that `PODGRES_IMAGE_15` names), and PyPI the first time, for
//! Patroni. All of them run the same PostgreSQL on the same engine at the API server of `tests/cluster/up`; figures are
//! times from the moment before docker was told to start a container, or between two accepted writes of clients that
//! write to each member every 10 ms over connections of their own. `PODGRES_BENCH_RUNS` (default 5) is how often each is
//! measured. Words after `--` name columns (`bare`, `patroni`, `patroni-fast`, `podgres`, `podgres-sync`) and rows
//! (`switchover`, `term`, `crash`, `restart`, `gone`, `first`, `next`, `commit`, `idle`, `twenty`); none: all but `twenty`.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark"
)]

#[path = "../../tests/kubernetes/api.rs"]
mod api;
mod bare;
#[path = "../../tests/kubernetes/client.rs"]
mod client;
#[path = "../common/mod.rs"]
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
mod common;
#[path = "../../tests/containers/harness.rs"]
mod harness;
mod idle;
mod load;
mod managed;
mod manager;
#[path = "../../tests/kubernetes/network.rs"]
mod network;
mod rows;
mod world;

use manager::{Manager, Times};
use rows::Figures;

/// Without a name: nothing but PostgreSQL's own programs.
const COLUMNS: [(&str, &str, Option<Manager>); 5] = [
    ("bare", "by hand", None),
    ("patroni", "Patroni 30/10/10", Some(Manager::Patroni(Times { ttl: 30, loop_wait: 10, retry_timeout: 10 }))),
    ("patroni-fast", "Patroni 20/1/3", Some(Manager::Patroni(Times { ttl: 20, loop_wait: 1, retry_timeout: 3 }))),
    ("podgres", "podgres", Some(Manager::Podgres { sync: 0 })),
    ("podgres-sync", "podgres, sync 1", Some(Manager::Podgres { sync: 1 })),
];

fn main() {
    // `cargo test` runs benchmarks too, with this argument missing.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_column = |word: &String| COLUMNS.iter().any(|(name, ..)| name == word);
    let unknown = words.iter().find(|w| !is_column(w) && !rows::is_row(w));
    assert!(unknown.is_none(), "neither a column nor a row: {unknown:?}");
    let mut rows: Vec<_> = words.iter().filter(|w| !is_column(w)).cloned().collect();
    if rows.is_empty() {
        rows = ["switchover", "term", "crash", "restart", "gone", "first", "next", "commit", "idle"]
            .map(String::from)
            .to_vec();
    }
    let all = !words.iter().any(is_column);
    let runs = std::env::var("PODGRES_BENCH_RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(5);
    let mut table = Vec::new();
    for (_, title, manager) in COLUMNS.iter().filter(|(name, ..)| all || words.iter().any(|w| w == name)) {
        let mut figures = Figures::new(title, runs, &rows);
        match manager {
            None => bare::measure(&mut figures),
            Some(manager) => managed::measure(*manager, &mut figures),
        }
        table.push(figures);
    }
    rows::print(&table);
}
