//! How jobs ended, counted.

use super::Job;

/// How often jobs were done, and failed. One that was cancelled is neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Outcomes {
    /// [`Job::Initialise`].
    pub initialise: Outcome,
    /// [`Job::Clone`].
    pub clone: Outcome,
    /// [`Job::Rewind`].
    pub rewind: Outcome,
}

/// How often a job was done, and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Done.
    pub done: u32,
    /// Failed.
    pub failed: u32,
}

impl Outcomes {
    pub(super) fn count(&mut self, job: Job, done: bool) {
        let outcome = match job {
            Job::Initialise => &mut self.initialise,
            Job::Clone => &mut self.clone,
            Job::Rewind => &mut self.rewind,
            Job::Look => return,
        };
        *(if done { &mut outcome.done } else { &mut outcome.failed }) += 1;
    }
}
