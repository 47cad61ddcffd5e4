//! A campaign of random faults on real members under the load of several clients, whose history decides: README.md beside
//! this file says which faults and what must hold.
//!
//! `PODGRES_TEST_SECONDS` is how long each campaign goes on (default: 30), `PODGRES_TEST_SEED` has the same faults again.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test program"
)]

#[path = "../kubernetes/api.rs"]
mod api;
mod campaign;
#[path = "../kubernetes/client.rs"]
mod client;
mod clients;
#[path = "../kubernetes/cluster.rs"]
mod cluster;
mod fault;
#[path = "../containers/harness.rs"]
mod harness;
mod history;
#[path = "../kubernetes/load.rs"]
mod load;
#[path = "../kubernetes/member.rs"]
mod member;
#[path = "../kubernetes/network.rs"]
mod network;
#[path = "../kubernetes/proxy.rs"]
mod proxy;

use campaign::Campaign;

#[test]
fn a_synchronous_cluster_loses_nothing() {
    Campaign { sync: true, major: 17 }.run();
}

#[test]
fn an_asynchronous_cluster_loses_at_most_what_it_may() {
    Campaign { sync: false, major: 15 }.run();
}
