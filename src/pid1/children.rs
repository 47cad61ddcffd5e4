//! Every child process, and the only place in which processes are waited for.
//!
//! A second `wait` anywhere steals exit statuses: it once made a supervisor take a successful start for a failure and
//! ended in two writable servers. So nothing else in this crate waits, the linter forbids the calls that would, and
//! whoever wants to know how a child ended awaits [`Child::wait`]. A signal is sent only to a process that is still in
//! the table and thus not reaped, so its pid cannot have been given to another.

use std::{cell::RefCell, collections::HashMap, fmt, io, process::Command, rc::Rc};

use nix::{
    errno::Errno,
    sys::{
        signal::{self, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::Serialize;
use tokio::sync::watch;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {number}"),
            },
        }
    }
}

/// A child that was not reaped yet.
struct Entry {
    ended: watch::Sender<Option<Exit>>,
    /// It lasts as long as the manager does.
    lasting: bool,
}

type Table = Rc<RefCell<HashMap<Pid, Entry>>>;

/// The table of children. Clones share it. It belongs to one thread, which makes "spawn, then enter into the table" and
/// "reap, then take out of the table" indivisible.
#[derive(Clone, Default)]
pub struct Children {
    table: Table,
}

impl Children {
    /// Starts `command`.
    ///
    /// # Errors
    /// What the system said when the program could not be executed.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.enter(command, false)
    }

    /// [`Children::spawn`] for a child that lasts as long as the manager does. Who waits for all children to end does not
    /// wait for this one, and who gives up all jobs does not mean it.
    ///
    /// # Errors
    /// As there.
    pub fn spawn_lasting(&self, command: &mut Command) -> io::Result<Child> {
        self.enter(command, true)
    }

    fn enter(&self, command: &mut Command, lasting: bool) -> io::Result<Child> {
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let (ended, exit) = watch::channel(None);
        self.table.borrow_mut().insert(pid, Entry { ended, lasting });
        Ok(Child { pid, exit, table: self.table.clone() })
    }

    /// Reaps whatever has ended, own children and orphans alike. To be called after each SIGCHLD, which the kernel sends
    /// once for any number of deaths. Returns how many orphans there were.
    pub fn reap(&self) -> usize {
        let mut orphans = 0;
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return orphans,
                Ok(_) | Err(Errno::EINTR) => continue,
                // A signal beyond nix's list, such as a real-time one: reaped all the same, only its number is lost.
                Err(_) => continue,
            };
            match self.table.borrow_mut().remove(&pid) {
                Some(entry) => drop(entry.ended.send(Some(exit))),
                None => orphans += 1,
            }
        }
    }

    /// Whether no child is left, but lasting ones.
    pub fn is_empty(&self) -> bool {
        self.table.borrow().values().all(|child| child.lasting)
    }

    /// Sends `signal` to the process group of every child that leads one, but lasting ones. For jobs that are given up.
    pub fn signal_groups(&self, signal: Signal) {
        for (pid, _) in self.table.borrow().iter().filter(|(_, child)| !child.lasting) {
            if nix::unistd::getpgid(Some(*pid)) == Ok(*pid) {
                let _ = signal::killpg(*pid, signal);
            }
        }
    }
}

/// One child. Dropping it neither kills nor forgets the process.
#[derive(Clone)]
pub struct Child {
    /// Its process id.
    pub pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
    table: Table,
}

impl Child {
    /// Waits until it has ended and says how. Cancel safe; may be asked again.
    pub async fn wait(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Code(0)),
            // The table drops a sender only after it has sent; only the end of the whole manager gets here.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether it has not been reaped yet.
    pub fn is_running(&self) -> bool {
        self.table.borrow().contains_key(&self.pid)
    }

    /// Sends a signal to the process group that it leads, if it still runs.
    pub fn signal_group(&self, signal: Signal) {
        if self.is_running() {
            let _ = signal::killpg(self.pid, signal);
        }
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            let _ = signal::kill(self.pid, signal);
        }
    }
}

/// Kills a child's process group when it is dropped: for programs that fork helpers (pg_basebackup leaves its WAL
/// streamer behind) and are of no use to anybody once their job is given up.
pub struct KillOnDrop(pub Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.signal_group(Signal::SIGKILL);
    }
}
