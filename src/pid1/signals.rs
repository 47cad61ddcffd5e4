//! Signals to the manager, as values. What they mean is decided elsewhere.

use std::{io, os::unix::net::UnixStream as StdStream};

use nix::sys::signal::SigSet;
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
};
use tokio::{io::Interest, net::UnixStream};

/// A signal that the manager heard. The contract's page 3 says what each does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Orderly stop.
    Term,
    /// Fast shutdown, no hand-over.
    Int,
    /// Immediate shutdown.
    Quit,
    /// Re-read settings, reload PostgreSQL.
    Hup,
    /// Promote.
    Usr1,
    /// Write the manager's state to the log.
    Usr2,
    /// A child, or an orphan that was handed to this process, changed state.
    Child,
}

impl Signal {
    fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            SIGTERM => Self::Term,
            SIGINT => Self::Int,
            SIGQUIT => Self::Quit,
            SIGHUP => Self::Hup,
            SIGUSR1 => Self::Usr1,
            SIGUSR2 => Self::Usr2,
            SIGCHLD => Self::Child,
            _ => return None,
        })
    }

    /// The number that the system gives it on Linux, for exit codes of 128 + n.
    pub fn number(self) -> i32 {
        match self {
            Self::Term => SIGTERM,
            Self::Int => SIGINT,
            Self::Quit => SIGQUIT,
            Self::Hup => SIGHUP,
            Self::Usr1 => SIGUSR1,
            Self::Usr2 => SIGUSR2,
            Self::Child => SIGCHLD,
        }
    }

    /// The name without its "SIG".
    pub fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Hup => "HUP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Child => "CHLD",
        }
    }
}

const HEARD: [i32; 7] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD];

/// Keeps signals until [`Signals::install`] hears them. The kernel throws away what is sent to a PID 1 that has no handler
/// for it, except what is blocked. Children and executed commands do not inherit this: the standard library empties
/// their mask.
pub fn hold() {
    let _ = HEARD.iter().filter_map(|n| nix::sys::signal::Signal::try_from(*n).ok()).collect::<SigSet>().thread_block();
}

fn release() {
    let _ = SigSet::all().thread_unblock();
}

/// The stream of signals. Signals that arrive between [`Signals::install`] and the first [`Signals::next`] are kept.
///
/// Signals of one kind that arrive faster than they are read count once, as with the kernel's own pending set.
pub struct Signals {
    delivery: SignalDelivery<StdStream, SignalOnly>,
    wakeup: UnixStream,
    heard: Vec<Signal>,
}

impl Signals {
    /// Handles the signals from now on. Must be called inside the tokio runtime.
    ///
    /// # Errors
    /// Only when the process is out of file descriptors.
    pub fn install() -> io::Result<Self> {
        let (read, write) = StdStream::pair()?;
        read.set_nonblocking(true)?;
        let wakeup = UnixStream::from_std(read.try_clone()?)?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, HEARD)?;
        release();
        Ok(Self { delivery, wakeup, heard: Vec::new() })
    }

    /// The next signal. Cancel safe.
    ///
    /// # Errors
    /// None in practice: the pipe is this process's own at both ends.
    pub async fn next(&mut self) -> io::Result<Signal> {
        loop {
            if let Some(signal) = self.heard.pop() {
                return Ok(signal);
            }
            self.wakeup.readable().await?;
            // `pending` empties the pipe behind tokio's back, so tokio is told that it is empty.
            self.heard.extend(self.delivery.pending().filter_map(Signal::from_number));
            let _ = self.wakeup.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }
}
