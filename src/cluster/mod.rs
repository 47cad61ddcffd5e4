//! Where the cluster's state comes from and goes to.

pub mod consent;
pub mod fresh;
pub mod identity;
pub mod kubernetes;
pub mod notes;
pub mod peer;
pub mod proof;
pub mod proven;
pub mod vote;
