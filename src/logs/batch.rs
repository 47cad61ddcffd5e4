//! Lines on their way to the sink, some at a time.

use super::{Format, Sink};

/// Pushed together: one lock and one wake-up of the writer for some fifty lines, and well below a chunk of the sink.
const BATCH: usize = 16 << 10;

/// Where lines are added one by one.
pub(crate) trait Lines {
    /// Adds the one line that `write` appends.
    fn add(&mut self, write: impl FnOnce(Format, &mut Vec<u8>));
}

/// Collects lines and pushes them together. What is left has to be [`flush`](Batch::flush)ed.
pub(super) struct Batch {
    sink: Sink,
    lines: Vec<u8>,
    count: u64,
}

impl Batch {
    pub(super) fn new(sink: Sink) -> Batch {
        Batch { sink, lines: Vec::new(), count: 0 }
    }

    pub(super) fn flush(&mut self) {
        if self.count > 0 {
            self.sink.push_many(&self.lines, self.count);
            self.lines.clear();
            self.lines.shrink_to(2 * BATCH);
            self.count = 0;
        }
    }
}

impl Lines for Batch {
    fn add(&mut self, write: impl FnOnce(Format, &mut Vec<u8>)) {
        write(self.sink.format(), &mut self.lines);
        self.count += 1;
        if self.lines.len() >= BATCH {
            self.flush();
        }
    }
}
