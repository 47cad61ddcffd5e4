//! The fence: kills every other process of the container when the leader's Lease is about to run out.
//!
//! It owns one timer on `CLOCK_BOOTTIME` (which goes on while the machine is suspended) and two who watch it: a thread of
//! the manager, and a process of its own, the guard, because a frozen manager's threads do not run. Both only `poll` the
//! timer and never read it: an expired timer stays expired for everybody until it is set anew or cleared. Each sends
//! SIGQUIT, on which PostgreSQL shuts down at once, and SIGKILL after [`GRACE`]. Neither allocates memory, opens a file,
//! takes a lock or writes a line after it has begun to wait: whatever stalls the container must not stall them.
//!
//! `kill(-1)` reaches everybody in the PID namespace but PID 1 and the caller (kill(2)), and forks do not slip through:
//! the kernel restarts a `fork` whose caller has a signal pending. Who decides when the fence stands where is not here.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        mman::{MlockAllFlags, mlockall},
        signal::{SigSet, Signal, kill},
        time::TimeSpec,
        timer::{Expiration, TimerSetTimeFlags},
        timerfd::{ClockId, TimerFd, TimerFlags},
    },
    unistd::{Pid, getpid, getppid},
};
use tokio::sync::watch;

use super::Children;

/// The word on the command line that makes this program a guard.
pub const GUARD: &str = "guard";

/// Between SIGQUIT and SIGKILL. PostgreSQL's processes exit in milliseconds; the rest of the fence's margin is for the
/// kernel, which has to tear down their memory.
pub const GRACE: Duration = Duration::from_millis(500);

/// By how much the guard lets the thread go first. The thread's SIGKILL then ends the guard too, and what happened is told
/// once.
const GUARD_DELAY: Duration = Duration::from_millis(100);

/// Between two starts of a guard that does not last.
const GUARD_RETRY: Duration = Duration::from_secs(1);

const PID_1: Pid = Pid::from_raw(1);
const EVERYBODY: Pid = Pid::from_raw(-1);

/// A point on `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boottime(pub Duration);

impl std::ops::Add<Duration> for Boottime {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

impl Boottime {
    /// How long after `earlier` this is; zero if it is before it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Now. Should the clock ever fail, it is the beginning of time: whatever is counted from there has run out.
pub fn boottime() -> Boottime {
    Boottime(nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from))
}

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `kill(-1)` would hit strangers.
    #[error(
        "this process has pid {0}, so it is not PID 1 of a PID namespace of its own: killing everything here, as a leader \
         must when its Lease runs out, would hit processes that are not its own. Likely causes: hostPID: true or \
         shareProcessNamespace: true in the pod, --pid=host or --init of Docker, or a shell or another init that runs \
         podgres instead of executing it in its place"
    )]
    NotPid1(Pid),
    /// The system refused.
    #[error("cannot {0}: {1}")]
    System(&'static str, io::Error),
    /// The guard is no command for people.
    #[error("`{GUARD}` is started by podgres as PID 1, and by nobody else")]
    NotAGuard,
}

/// What the owner and the thread share.
#[derive(Debug)]
struct Shared {
    timer: TimerFd,
    /// How often the timer was set or cleared; wraps.
    moves: AtomicU32,
    /// How often the thread has begun to kill.
    fired: AtomicU32,
    /// How often the thread has sent its SIGKILL.
    finished: AtomicU32,
}

/// The fence. Clones are the same one. It stands until the process ends.
#[derive(Debug, Clone)]
pub struct Fence {
    shared: Arc<Shared>,
    thread: Thread,
    armed: watch::Sender<bool>,
}

impl Fence {
    /// Starts the thread. The timer is not armed. Only as PID 1 of a PID namespace.
    ///
    /// # Errors
    /// [`Error::NotPid1`]; what the system said when there is no timer or no thread to be had.
    pub fn start() -> Result<Self, Error> {
        if getpid() != PID_1 {
            return Err(Error::NotPid1(getpid()));
        }
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)
            .map_err(|e| Error::System("make a timer", e.into()))?;
        let (moves, fired, finished) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        let shared = Arc::new(Shared { timer, moves, fired, finished });
        let watched = shared.clone();
        let thread = thread::Builder::new()
            .name("fence".into())
            .stack_size(STACK)
            .spawn(move || stand(&watched))
            .map_err(|e| Error::System("start a thread", e))?;
        stay_in_memory();
        Ok(Self { shared, thread: thread.thread().clone(), armed: watch::Sender::new(false) })
    }

    /// Arms the fence, or moves it: it fires `at`, which may have passed.
    ///
    /// # Errors
    /// What the system said; the fence stands where it stood.
    pub fn arm(&self, at: Boottime) -> io::Result<()> {
        // A zero would clear the timer.
        let at = TimeSpec::from_duration(at.0.max(Duration::from_nanos(1)));
        self.shared.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        self.moved(true);
        Ok(())
    }

    /// Clears the fence: there is nothing to be killed. A kill that has begun is finished all the same.
    ///
    /// # Errors
    /// What the system said; the fence stands where it stood.
    pub fn disarm(&self) -> io::Result<()> {
        self.shared.timer.unset()?;
        self.moved(false);
        Ok(())
    }

    /// After the timer, never before it: the thread must not take a new deadline for one that it has served.
    fn moved(&self, armed: bool) {
        self.shared.moves.fetch_add(1, SeqCst);
        self.thread.unpark();
        self.armed.send_replace(armed);
    }

    /// How often it has fired. Wraps.
    pub fn fired(&self) -> u32 {
        self.shared.fired.load(SeqCst)
    }

    /// Whether it is killing right now: between its SIGQUIT and its SIGKILL, which would hit whatever is started now.
    pub fn is_killing(&self) -> bool {
        self.shared.fired.load(SeqCst) != self.shared.finished.load(SeqCst)
    }

    /// Keeps a guard alive from the first arming on. Never ends. The guard is not started while the timer is expired: it
    /// would have nothing to do but to kill what is dead.
    pub async fn keep_guard(self, children: Children) {
        let (mut armed, mut told) = (self.armed.subscribe(), false);
        loop {
            // Cannot fail: the sender is in `self`.
            let _ = armed.wait_for(|armed| *armed).await;
            if is_expired(self.shared.timer.as_fd()) {
                let _ = armed.changed().await;
                continue;
            }
            let started = Instant::now();
            match self.start_guard(&children) {
                Ok(mut guard) => {
                    told = false;
                    let exit = guard.wait().await;
                    tracing::info!("the fence's guard {exit}");
                }
                Err(error) if std::mem::replace(&mut told, true) => drop(error),
                Err(error) => tracing::error!(
                    "cannot start the guard, which would fence this member if the manager were frozen: {error}; trying on"
                ),
            }
            tokio::time::sleep(GUARD_RETRY.saturating_sub(started.elapsed())).await;
        }
    }

    fn start_guard(&self, children: &Children) -> io::Result<super::Child> {
        // As its stdin, because that descriptor has an owner in any program.
        let timer = self.shared.timer.as_fd().try_clone_to_owned()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("podgres").arg(GUARD).env_clear().current_dir("/").process_group(0);
        command.stdin(timer).stdout(Stdio::null()).stderr(Stdio::null());
        children.spawn_lasting(&mut command)
    }
}

/// Of the thread, in bytes. It holds a few words.
const STACK: usize = 32 << 10;

/// The thread. After a kill it waits until the timer was moved: one deadline is served once.
fn stand(shared: &Shared) {
    let _ = SigSet::all().thread_block();
    loop {
        wait_expired(shared.timer.as_fd());
        // The owner counts after it has set the timer. Nothing is missed without this pause; a deadline that had passed
        // when it was set would be served twice.
        thread::sleep(Duration::from_millis(1));
        let moves = shared.moves.load(SeqCst);
        if !is_expired(shared.timer.as_fd()) {
            continue;
        }
        shared.fired.fetch_add(1, SeqCst);
        kill_everybody();
        shared.finished.fetch_add(1, SeqCst);
        while shared.moves.load(SeqCst) == moves {
            thread::park();
        }
    }
}

/// The guard's whole life: waits for the timer on its stdin, kills once, ends.
///
/// # Errors
/// [`Error::NotAGuard`] to whoever calls it by hand: it would kill all that it may.
pub fn guard() -> Result<(), Error> {
    let _ = SigSet::all().thread_block();
    let stdin = io::stdin();
    let timer = std::fs::read_link("/proc/self/fd/0").is_ok_and(|name| name.as_os_str() == "anon_inode:[timerfd]");
    if !timer || getppid() != PID_1 {
        return Err(Error::NotAGuard);
    }
    stay_in_memory();
    loop {
        wait_expired(stdin.as_fd());
        thread::sleep(GUARD_DELAY);
        if is_expired(stdin.as_fd()) {
            kill_everybody();
            return Ok(());
        }
    }
}

/// What was sent a SIGQUIT is not spared the SIGKILL, should the deadline be moved meanwhile: the server is gone anyway.
fn kill_everybody() {
    // Nobody there to be killed, or nobody whom this user may kill, is no failure that anything could be done about.
    let _ = kill(EVERYBODY, Signal::SIGQUIT);
    thread::sleep(GRACE);
    let _ = kill(EVERYBODY, Signal::SIGKILL);
}

fn wait_expired(timer: BorrowedFd<'_>) {
    while !ready(timer, PollTimeout::NONE) {}
}

fn is_expired(timer: BorrowedFd<'_>) -> bool {
    ready(timer, PollTimeout::ZERO)
}

fn ready(timer: BorrowedFd<'_>, timeout: PollTimeout) -> bool {
    let mut timer = [PollFd::new(timer, PollFlags::POLLIN)];
    match poll(&mut timer, timeout) {
        Ok(_) => timer[0].revents().is_some_and(|r| r.contains(PollFlags::POLLIN)),
        Err(_) => {
            // The kernel is out of memory, or a debugger is attached: again, but not as fast as possible.
            thread::sleep(Duration::from_millis(10));
            false
        }
    }
}

/// Whoever must kill because storage is stalled must not wait for that storage to bring back its code. Only what is
/// touched anyway is kept, and where the limit is too low (`RLIMIT_MEMLOCK`) nothing.
fn stay_in_memory() {
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    let _ = mlockall(MlockAllFlags::MCL_CURRENT | on_fault);
}
