//! Kubernetes mode with a real API server and real PostgreSQL: the contract's lines and the protocol's, one test each.
//!
//! A member here is a Pod object, a service account's token bound to it and a container; the harness does what a kubelet
//! would. `node` has the few tests with a real one. `tests/run` builds the images and runs this, as root: cuts are rules in
//! the containers' network namespaces.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program"
)]

#[path = "../containers/harness.rs"]
mod harness;

#[path = "../api/policy.rs"]
mod policy;

mod api;
mod client;
mod cluster;
mod flood;
mod load;
#[path = "../../src/tls/made.rs"]
mod made;
mod member;
mod network;
mod proxy;

mod admission;
mod api_server;
mod bootstrap;
mod busy;
mod commands;
mod credentials;
mod doors;
mod failover;
mod failsafe;
mod fencing;
mod forgery;
mod node;
mod partitions;
mod permissions;
mod returning;
mod secrets;
mod status;
mod storage;
mod switchover;
mod synchronous;
mod the_harness;
mod tls;
