//! An exhaustive check of the decision about the cluster ([`podgres::ha::step`], as it is shipped): README.md beside this
//! file says what is modelled, how, and what was found.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test program"
)]

mod acts;
mod api;
mod calm;
mod checks;
mod confirm;
mod failsafe;
mod fingerprint;
mod happens;
mod member;
mod postgres;
mod rules;
mod schedules;
mod search;
mod setup;
mod sound;
mod sound_sync;
mod taken_out;
mod taken_out_sync;
mod votes;
mod walks;
mod world;
