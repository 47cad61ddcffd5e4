//! podgres in real containers with real PostgreSQL: the lines and the contract's, one test each.
//!
//! `tests/run` builds the images and runs this; `cargo test --test containers` alone takes the images that are there.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program"
)]

mod atomic;
mod bad_input;
mod clone;
mod commands;
mod configuration;
mod crashes;
mod examples;
mod haproxy;
mod harness;
mod image;
mod locks;
mod log_lines;
#[path = "../../src/tls/made.rs"]
mod made;
mod metrics;
mod orphans;
mod probes;
mod replication;
mod scripts;
mod secrets;
mod signals;
mod status;
mod tls;
mod variables;
mod volumes;

mod smoke {
    use crate::harness::*;

    #[test]
    fn it_starts_answers_and_stops() {
        for major in majors() {
            let container = Container::postgres(major, &[], &[]).ready();
            assert_eq!(container.sql("select 1"), "1");
            assert_eq!(container.http("/readyz").0, 200);
            assert!(container.json_lines().len() > 5);
            container.signal("TERM");
            assert_eq!(container.wait(), 0, "{}", container.log());
        }
    }
}
