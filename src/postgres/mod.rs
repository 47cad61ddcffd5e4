//! One PostgreSQL on one data directory: its files, its processes, its start and its stop.
//!
//! Nothing here decides when to start or stop; see [`crate::lifecycle`] for that.

pub mod bindir;
pub mod controldata;
pub mod datadir;
pub mod initialise;
pub mod lock;
pub mod pidfile;
pub mod ping;
pub mod processes;
pub mod server;
pub mod sql;
