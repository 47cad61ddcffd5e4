//! Podgres: PID 1 of a PostgreSQL container.
//!
//! # The map
//!
//! | module | what it is |
//! |---|---|
//! | [`settings`] | every setting, parsed and checked before anything starts |
//! | [`cli`] | one file a subcommand; `run` shows how the parts are put together |
//! | [`pid1`] | signals as values, children, the only place that reaps, the fence that kills all |
//! | [`ha`] | the decision about the cluster: who leads, who follows, who takes over; pure |
//! | [`lifecycle`] | the decision about the own server: a pure function from what happened to what to do |
//! | [`manager`] | the one loop: inputs in, [`lifecycle::step`], actions out |
//! | [`postgres`] | one PostgreSQL on one data directory: find, lock, initialise, configure, start, stop, ask; and ([`postgres::replication`]) clone, follow, promote, rewind |
//! | [`cluster`] | who this member is, what it notes of its cluster, how members talk, and ([`cluster::kubernetes`]) the Lease and the pods: watch, read, write, without opinion |
//! | [`http`] | probes, status, the control socket: they ask the loop and have no opinion |
//! | [`tls`] | certificates: read, checked, read again when they change |
//! | [`metrics`] | `/metrics`: the manager's, PostgreSQL's, and those of custom queries |
//! | [`logs`] | lines from processes and files → one JSON object a line on stdout |
//!
//! # The loop
//!
//! Signals, ends of processes, timers, commands and finished jobs become values on one channel. One task owns all
//! state, asks [`lifecycle::step`] about each value with the time it came, and carries out what it answers. The loop
//! never waits inside an action: long work (an initialisation, waiting for leftovers) is a task whose end is a value
//! again. Data flows one way: world → input → step → action → world.
//!
//! In a cluster [`ha::step`] decides first, from the Lease, the pods and how this member is, what the own server is to
//! become; that goal is an input of [`lifecycle::step`] like any other.
//!
//! # What always holds
//!
//! - In a cluster a server is writable only under a Lease that its own manager wrote, and everything in the container is
//!   killed before the Lease runs out ([`ha`], [`pid1::fence`]).
//! - A data directory is used by one manager, and by nobody while any process of an earlier server lives
//!   ([`postgres::lock`], [`postgres::processes`]).
//! - Initialisations and clones are atomic: a crash at any point leaves a state that the next start recognises, and
//!   finishes or removes. A data directory is replaced only by one that is complete and verified ([`postgres::stage`]).
//! - A directory that was half rewound is not started ([`postgres::replication::rewind`]). A standby that may have diverged
//!   is not shown its source before that is certain ([`postgres::replication::follow`]).
//! - A configuration with mistakes is not used while there is one that worked ([`postgres::config`]).
//! - Processes are waited for in one place only ([`pid1::children`]).
//! - PostgreSQL is never left without its shutdown while there is time for one, and never told to stop softer than
//!   before ([`lifecycle`]).
//! - Nobody who fails to read our output can stall PostgreSQL ([`logs`]).

pub mod beat;
pub mod cli;
pub mod cluster;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod ha;
pub mod http;
pub mod lifecycle;
pub mod logs;
pub mod manager;
pub mod metrics;
pub mod pid1;
pub mod postgres;
pub mod progress;
pub mod run_dir;
pub mod secrets;
pub mod settings;
pub mod shm;
pub mod status;
pub mod tls;
pub mod units;
