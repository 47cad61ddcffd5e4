//! What only a PID 1 does: hear every signal that is meant for the container, and reap every process that dies in it.

pub mod children;
pub mod runner;
pub mod signals;

pub use children::{Child, Children, Exit, KillOnDrop};
pub use runner::{Captured, Runner};
pub use signals::{Signal, Signals};
