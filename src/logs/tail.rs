//! Follows the files that PostgreSQL's logging collector writes.
//!
//! Regular files, because a reader that stalls or dies cannot hurt whoever writes them: a pipe in their place blocks
//! every backend when it is full, and tears long messages. Nothing is rotated. Instead a hole is punched where the file
//! has been read, which needs no agreement with the collector, as renaming or truncating would.

pub(crate) mod file;

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::AsFd,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        inotify::{AddWatchFlags, InitFlags, Inotify},
    },
};

use self::file::Source;
use super::{Sink, batch::Batch};

/// Read at a time.
const BUFFER: usize = 64 << 10;

/// After a change is seen and read: what is written meanwhile is then read together, with at most a hundred wake-ups
/// a second, not one for each line.
const REST: Duration = Duration::from_millis(10);

/// Between two looks where inotify is not to be had, or after an error.
const LOOK: Duration = Duration::from_millis(250);

/// For the rest of the log when it ends; the files are in memory, so it takes a fraction of that.
const DRAIN: Duration = Duration::from_secs(2);

/// Which structured log PostgreSQL writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `postgres.json`, from version 15 on.
    Json,
    /// `postgres.csv`.
    Csv,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Kind::Json => "postgres.json",
            Kind::Csv => "postgres.csv",
        }
    }
}

/// Follows PostgreSQL's structured log and its sibling `postgres.log` in one directory, in a thread (`log-tailer`)
/// that sleeps until something is written. Dropped without [`finish`](Tailer::finish), it does the same without
/// waiting for it.
pub struct Tailer {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Tailer {
    /// Removes what an earlier run left in `dir`, which has to exist, and follows what comes. To be called before
    /// PostgreSQL starts with this directory as its `log_directory`, `postgres.log` as its `log_filename` (the structured
    /// log is beside it, with its own suffix in place of `.log`), no rotation, and UTC as its `log_timezone`.
    pub fn start(dir: &Path, kind: Kind, sink: Sink) -> io::Result<Tailer> {
        let watch = watch(dir)
            .inspect_err(|error| tracing::warn!(%error, "no inotify: PostgreSQL's log is looked at every 250 ms"))
            .ok();
        Tailer::start_with(dir, kind, sink, watch)
    }

    fn start_with(dir: &Path, kind: Kind, sink: Sink, watch: Option<Inotify>) -> io::Result<Tailer> {
        let follower = Follower::new(dir, kind, sink, watch)?;
        let stop = Arc::clone(&follower.stop);
        let thread = thread::Builder::new().name("log-tailer".into()).spawn(move || follower.run())?;
        Ok(Tailer { stop, thread: Some(thread) })
    }

    /// Logs all that has been written, a last line without its newline included, and ends the thread; takes 2 s at
    /// most. To be called when the collector has ended, which is shortly after the postmaster.
    pub fn finish(mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }

    fn stop(&self) {
        // Fails only for a counter at its maximum, which would stop the thread as well.
        let _ = self.stop.write(1);
    }
}

impl Drop for Tailer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn watch(dir: &Path) -> nix::Result<Inotify> {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // A truncation is a modification too.
    watch.add_watch(dir, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO)?;
    Ok(watch)
}

/// What the thread owns.
struct Follower {
    sources: [Source; 2],
    buffer: Vec<u8>,
    batch: Batch,
    watch: Option<Inotify>,
    stop: Arc<EventFd>,
}

/// What reading came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// Everything there is has been read.
    Done,
    /// A file could not be read, which has been logged.
    Failed,
    /// There may be more.
    More,
}

impl Follower {
    fn new(dir: &Path, kind: Kind, sink: Sink, watch: Option<Inotify>) -> io::Result<Follower> {
        let (structured, text) = (dir.join(kind.file()), dir.join("postgres.log"));
        for path in [&structured, &text] {
            fs::remove_file(path).or_else(|error| match error.kind() {
                ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(Follower {
            sources: [Source::structured(structured, kind), Source::text(text)],
            buffer: vec![0; BUFFER],
            batch: Batch::new(sink),
            watch,
            stop: Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?),
        })
    }

    fn run(mut self) {
        loop {
            let progress = self.read();
            let stopped = match progress {
                Progress::More => self.stopped_within(Duration::ZERO),
                Progress::Done => self.stopped_within(REST) || self.stopped_before_change(),
                Progress::Failed => self.stopped_within(LOOK),
            };
            if stopped {
                break;
            }
        }
        let deadline = Instant::now() + DRAIN;
        while self.read() == Progress::More && Instant::now() < deadline {}
        for source in &mut self.sources {
            source.finish(&mut self.batch);
        }
        self.batch.flush();
    }

    fn read(&mut self) -> Progress {
        let (buffer, batch) = (&mut self.buffer, &mut self.batch);
        let [first, second] = self.sources.each_mut().map(|source| source.read(buffer, batch));
        self.batch.flush();
        first.max(second)
    }

    fn stopped_within(&self, time: Duration) -> bool {
        wait(&mut [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)], Some(time))
    }

    /// Waits for a change in the directory; true if told to stop.
    fn stopped_before_change(&self) -> bool {
        let Some(watch) = &self.watch else { return self.stopped_within(LOOK) };
        wait(&mut [self.stop.as_fd(), watch.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN)), None);
        // What changed does not matter, both files are looked at. What does not fit into one read is still there.
        let _ = watch.read_events();
        self.stopped_within(Duration::ZERO)
    }
}

/// Waits until one of `fds` is ready or `time` has passed; whether one is.
fn wait(fds: &mut [PollFd], time: Option<Duration>) -> bool {
    let timeout = time.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
    loop {
        match poll(fds, timeout) {
            Err(Errno::EINTR) => {}
            // ENOMEM at worst: as if the time had passed.
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

#[cfg(test)]
mod tests;
