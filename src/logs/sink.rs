//! The one way to stdout: a bounded buffer and the thread that empties it.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::{
    Format, Level,
    record::{Record, Value},
};

/// How much may wait for the reader of stdout. It rides out a pause of about 0.2 s at 50,000 lines a second, and still
/// fits in the manager's share of the smallest containers (64 MiB).
const BOUND: usize = 4 << 20;

/// What is handed to one write(2): what a pipe holds (pipe(7)), more at a time gains nothing. Small blocks also go
/// back to the system after a burst; blocks of megabytes raise glibc's trim threshold (mallopt(3)) and stay.
const CHUNK: usize = 64 << 10;

/// Before another try where stdout refuses for now: it is non-blocking (the mode is shared with every process that
/// inherited it), or a file on a disk that is full.
const RETRY: Duration = Duration::from_millis(20);

/// Where lines go. Clones share one buffer, one thread (`log-writer`) and one stdout.
///
/// - [`push`](Sink::push) never waits for the reader. While 4 MiB wait, lines are dropped and counted; when half of
///   that is written, one line says how many, in the place where they are missing. A line longer than the bound
///   passes if there is any room.
/// - Lines come out whole and in the order of their pushes.
/// - A closed stdout harms nobody: from then on everything is dropped.
/// - The thread sleeps while there is nothing to write, and memory returns to a chunk after a burst.
#[derive(Clone)]
pub struct Sink {
    shared: Arc<Shared>,
    format: Format,
}

struct Shared {
    state: Mutex<State>,
    /// There is something in the queue.
    filled: Condvar,
    /// Everything is written.
    drained: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
    /// Bytes in the queue and in the hands of the thread.
    waiting: usize,
    /// An empty chunk for the next line, so that a quiet log does not allocate.
    spare: Vec<u8>,
    dropped: u64,
    /// Lines dropped since the last line about dropped lines.
    unreported: u64,
    closed: bool,
}

impl Sink {
    /// A sink that writes lines in `format` to `writer`, which may block.
    pub fn start(writer: impl Write + Send + 'static, format: Format) -> io::Result<Sink> {
        // All the room that the queue itself will need, lest it grow in a burst and stay above it on the heap.
        let state = State { queue: VecDeque::with_capacity(2 * BOUND / CHUNK), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new() });
        let sink = Sink { shared: Arc::clone(&shared), format };
        thread::Builder::new().name("log-writer".into()).spawn(move || shared.write_to(writer, format))?;
        Ok(sink)
    }

    /// A sink that writes to this process's stdout, past the buffer of [`std::io::stdout`].
    pub fn stdout(format: Format) -> io::Result<Sink> {
        Sink::start(File::from(io::stdout().as_fd().try_clone_to_owned()?), format)
    }

    /// The format of the lines in this sink.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Queues one whole line, its newline included, or drops and counts it. Does not wait for the reader.
    pub fn push(&self, line: &[u8]) {
        self.push_many(line, 1);
    }

    /// Queues or drops `count` whole lines together.
    pub(super) fn push_many(&self, lines: &[u8], count: u64) {
        let mut state = self.shared.lock();
        // Once one line is gone the rest goes too until that is said, so that order shows where the gap is.
        if state.closed || state.unreported > 0 || state.waiting >= BOUND {
            state.dropped += count;
            state.unreported += count;
        } else {
            state.append(lines);
            self.shared.filled.notify_one();
        }
    }

    /// Any line of text of any process as one line, see [`raw`](super::raw()).
    pub fn raw(&self, logger: &str, line: &[u8]) {
        let mut out = Vec::new();
        super::raw(logger, line, self.format, &mut out);
        self.push(&out);
    }

    /// How many lines were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Waits until everything pushed so far is written (or stdout is closed). False if `timeout` passed first.
    pub fn flush(&self, timeout: Duration) -> bool {
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .drained
            .wait_timeout_while(state, timeout, |state| state.waiting > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting == 0
    }
}

impl State {
    fn append(&mut self, lines: &[u8]) {
        self.waiting += lines.len();
        match self.queue.back_mut() {
            Some(last) if last.len() + lines.len() <= CHUNK => last.extend_from_slice(lines),
            _ => {
                let mut chunk = std::mem::take(&mut self.spare);
                chunk.reserve_exact(lines.len().max(CHUNK));
                chunk.extend_from_slice(lines);
                self.queue.push_back(chunk);
            }
        }
    }

    /// Takes a written chunk back, and says what was dropped once half of the bound is free: not at the first free
    /// byte, or lines and reports would alternate.
    fn written(&mut self, mut chunk: Vec<u8>, format: Format) {
        self.waiting -= chunk.len();
        // The first of a burst, not the last: what lies highest on the heap has to go for the rest to be given back.
        if self.spare.capacity() == 0 && chunk.capacity() <= CHUNK {
            chunk.clear();
            self.spare = chunk;
        }
        if self.unreported > 0 && self.waiting <= BOUND / 2 {
            let count = std::mem::take(&mut self.unreported).to_string();
            let report = Record {
                ts: None,
                level: Level::Warn,
                logger: "podgres",
                msg: Value::Text(&format!(
                    "{count} log lines were dropped because the reader of stdout did not keep up"
                )),
                fields: &[("dropped", Value::Json(&count))],
            };
            let mut line = Vec::new();
            report.write(format, &mut line);
            self.append(&line);
        }
    }

    fn close(&mut self) {
        *self = State { closed: true, dropped: self.dropped, ..State::default() };
    }
}

impl Shared {
    /// A panic while the lock was held leaves at worst a wrong count, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's whole life; ends when stdout is closed.
    fn write_to(&self, mut writer: impl Write, format: Format) {
        let mut state = self.lock();
        loop {
            let Some(chunk) = state.queue.pop_front() else {
                self.drained.notify_all();
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let open = write_whole(&mut writer, &chunk);
            state = self.lock();
            if !open {
                state.close();
                self.drained.notify_all();
                return;
            }
            state.written(chunk, format);
        }
    }
}

/// Writes all of `bytes`, however many tries it takes. False if nobody can read them any more.
fn write_whole(writer: &mut impl Write, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(count) if count > 0 => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return false,
            Ok(_) | Err(_) => thread::sleep(RETRY),
        }
    }
    true
}

#[cfg(test)]
pub(super) use tests::Captured;

#[cfg(test)]
mod tests;
