//! One PostgreSQL on one data directory: its files, its processes, its start and its stop.
//!
//! Nothing here decides when to start or stop; see [`crate::lifecycle`] for that.

pub mod bindir;
pub mod config;
pub mod controldata;
pub mod datadir;
pub mod health;
pub mod initialise;
pub mod kept;
pub mod lock;
pub mod pidfile;
pub mod ping;
pub mod processes;
pub mod replication;
pub mod server;
pub mod space;
pub mod sql;
pub mod stage;
pub mod state_dir;
