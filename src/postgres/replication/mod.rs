//! A server and its source: find it, copy it, follow it, leave it, come back to it.

pub mod clone;
pub mod conninfo;
pub mod divergence;
pub mod follow;
pub mod fork;
pub mod freeze;
pub mod history;
pub mod look;
pub mod lsn;
pub mod membership;
pub mod primary;
pub mod rewind;
pub mod slots;
pub mod source;
pub mod stat;
