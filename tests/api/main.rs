//! The Kubernetes API's eyes and hands, at a real API server (`tests/cluster/up`).

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test program")]

mod admission;
mod harness;
mod lease;
mod network;
mod permissions;
mod pods;
mod policy;
mod proxy;
mod rights;
mod tls;
mod watch;
