//! What only a PID 1 does: hear every signal that is meant for the container, reap every process that dies in it, and
//! kill every process in it when it must.

pub mod children;
pub mod fence;
pub mod hidden;
pub mod runner;
pub mod signals;
pub mod termination;

pub use children::{Child, Children, Exit, KillOnDrop};
pub use fence::Fence;
pub use runner::{Captured, Runner};
pub use signals::{Signal, Signals};
