//! What the manager does about its PostgreSQL: the decision, as a pure function.
//!
//! [`step`] takes what is remembered and what has just happened and gives back what is to be remembered and done. It
//! reads no clock, starts nothing and waits for nothing, so every order of events can be tried in a table. The loop
//! that feeds it is [`crate::manager`].

mod reason;

use std::time::Duration;

use serde::Serialize;

pub use reason::Reason;

use crate::pid1::{Exit, Signal};

/// Time since the manager started, by a clock that never jumps.
pub type Mono = Duration;

/// What the decision depends on besides its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the beginning of a fast shutdown to the immediate one.
    pub shutdown_timeout: Duration,
}

/// After SIGQUIT the postmaster itself kills its children when five seconds have passed (`SIGKILL_CHILDREN_AFTER_SECS`,
/// postmaster.c); what is still there two seconds later does not answer at all.
const IMMEDIATE_TIMEOUT: Duration = Duration::from_secs(7);

/// A server that ran this long before it crashed is restarted at once; one that did not, after a growing delay.
const STEADY: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Whether the server takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Accepts writes.
    Primary,
    /// In recovery.
    Standby,
}

/// How PostgreSQL is told to stop (<https://www.postgresql.org/docs/current/server-shutdown.html>). Smart is never used:
/// one idle session would hold it until the kubelet kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// Sessions are ended, a checkpoint is written.
    Fast,
    /// No checkpoint: crash recovery at the next start.
    Immediate,
    /// SIGKILL to every process of the server, when it does not even answer SIGQUIT.
    Kill,
}

/// Where the manager is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Nothing has been started.
    Begun,
    /// A new data directory is being made.
    Initialising,
    /// The postmaster runs and does not accept connections yet.
    Starting,
    /// It accepts connections.
    Running {
        /// In which role.
        role: Role,
    },
    /// It was told to stop.
    Stopping {
        /// The latest order.
        stop: Stop,
        /// When the next harder one follows; none follows a kill.
        #[serde(skip)]
        escalate: Option<Mono>,
    },
    /// The initialisation was told to stop.
    Cancelling,
    /// The postmaster has ended; other processes of the server may still be there.
    CleaningUp,
    /// It crashed and will be started again.
    Waiting {
        /// When.
        #[serde(skip)]
        until: Mono,
    },
    /// The manager is done.
    Ended {
        /// Its exit code.
        code: i32,
    },
}

impl Phase {
    /// The word for it in `status`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Initialising => "initialising",
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } | Self::Cancelling => "stopping",
            Self::CleaningUp => "cleaning up",
            Self::Waiting { .. } => "crashed",
            Self::Ended { .. } => "stopped",
        }
    }
}

/// What happens when the postmaster is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Next {
    Exit(i32),
    StartAt(Mono),
}

/// Everything that the decision remembers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Memory {
    /// Where the manager is.
    pub phase: Phase,
    /// Since when.
    pub since: Mono,
    /// Why.
    pub reason: Reason,
    /// How often PostgreSQL was started again after a crash.
    pub restarts: u32,
    next: Option<Next>,
    /// Whether PostgreSQL was ever ready: then its death is a crash, not a refusal to start.
    was_ready: bool,
    started: Mono,
    delay: Duration,
    /// Orders that wait until PostgreSQL is ready: before it has its signal handlers they would kill it.
    reload_when_ready: bool,
    promote_when_ready: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            phase: Phase::Begun,
            since: Mono::ZERO,
            reason: Reason::Begun,
            restarts: 0,
            next: None,
            was_ready: false,
            started: Mono::ZERO,
            delay: Duration::ZERO,
            reload_when_ready: false,
            promote_when_ready: false,
        }
    }
}

impl Memory {
    /// When [`Input::Timer`] is due, if at all.
    pub fn deadline(&self) -> Option<Mono> {
        match self.phase {
            Phase::Stopping { escalate, .. } => escalate,
            Phase::Waiting { until } => Some(until),
            _ => None,
        }
    }

    fn enter(mut self, now: Mono, phase: Phase, reason: Reason) -> Self {
        if self.phase != phase {
            self.since = now;
        }
        self.phase = phase;
        self.reason = reason;
        self
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The manager begins, with a data directory that is there or is to be made.
    Begin {
        /// Whether it is there.
        initialised: bool,
    },
    /// The initialisation ended.
    InitialisationDone(Result<(), String>),
    /// PostgreSQL could not be executed.
    NotStarted(String),
    /// PostgreSQL accepts connections, or changed its role.
    Ready(Role),
    /// The postmaster ended.
    Exited(Exit),
    /// No process of the server is left.
    CleanedUp,
    /// A signal to the manager.
    Signal(Signal),
    /// Somebody commands a restart.
    Restart,
    /// [`Memory::deadline`] has passed.
    Timer,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a data directory.
    Initialise,
    /// Give up making one.
    CancelInitialisation,
    /// Start PostgreSQL.
    Start,
    /// Tell it to stop.
    Stop(Stop),
    /// See to it that no process of the server is left, then say [`Input::CleanedUp`].
    CleanUp,
    /// Re-read the settings and tell PostgreSQL to do the same.
    Reload,
    /// Promote PostgreSQL.
    Promote,
    /// Write the manager's state to the log.
    LogState,
    /// End the manager with this code.
    Exit(i32),
}

/// The decision.
pub fn step(limits: &Limits, memory: Memory, now: Mono, input: Input) -> (Memory, Vec<Action>) {
    match input {
        Input::Begin { initialised: true } => start(memory, now, Reason::DataFound),
        Input::Begin { initialised: false } => {
            (memory.enter(now, Phase::Initialising, Reason::NoData), vec![Action::Initialise])
        }
        Input::InitialisationDone(result) => initialisation_done(memory, now, result),
        Input::NotStarted(why) => not_started(memory, now, why),
        Input::Ready(role) => ready(memory, now, role),
        Input::Exited(exit) => exited(memory, now, exit),
        Input::CleanedUp => cleaned_up(memory, now),
        Input::Signal(signal) => signalled(limits, memory, now, signal),
        Input::Restart => restart(limits, memory, now),
        Input::Timer => timer(memory, now),
    }
}

fn nothing(memory: Memory) -> (Memory, Vec<Action>) {
    (memory, Vec::new())
}

fn end(memory: Memory, now: Mono, code: i32, reason: Reason) -> (Memory, Vec<Action>) {
    (memory.enter(now, Phase::Ended { code }, reason), vec![Action::Exit(code)])
}

fn start(mut memory: Memory, now: Mono, reason: Reason) -> (Memory, Vec<Action>) {
    memory.started = now;
    memory.next = None;
    (memory.enter(now, Phase::Starting, reason), vec![Action::Start])
}

fn initialisation_done(memory: Memory, now: Mono, result: Result<(), String>) -> (Memory, Vec<Action>) {
    match (&memory.phase, result) {
        (Phase::Cancelling, _) => {
            let code = match memory.next {
                Some(Next::Exit(code)) => code,
                _ => 0,
            };
            let reason = memory.reason.clone();
            end(memory, now, code, reason)
        }
        (_, Ok(())) => start(memory, now, Reason::Initialised),
        (_, Err(why)) => end(memory, now, 1, Reason::InitialisationFailed(why)),
    }
}

/// A program that cannot be executed once cannot be executed: unlike a crash there is nothing to wait for, except
/// where it has run before (the disk or the process table may be full for a while).
fn not_started(memory: Memory, now: Mono, why: String) -> (Memory, Vec<Action>) {
    if !memory.was_ready {
        return end(memory, now, 1, Reason::NotStarted(why));
    }
    let (memory, next) = schedule_restart(memory, now);
    wait_or_exit(memory, now, next, Reason::NotStarted(why))
}

fn ready(mut memory: Memory, now: Mono, role: Role) -> (Memory, Vec<Action>) {
    if !matches!(memory.phase, Phase::Starting | Phase::Running { .. }) {
        return nothing(memory);
    }
    let mut actions = Vec::new();
    if std::mem::take(&mut memory.reload_when_ready) {
        actions.push(Action::Reload);
    }
    if std::mem::take(&mut memory.promote_when_ready) && role == Role::Standby {
        actions.push(Action::Promote);
    }
    memory.was_ready = true;
    (memory.enter(now, Phase::Running { role }, Reason::Ready), actions)
}

fn exited(mut memory: Memory, now: Mono, exit: Exit) -> (Memory, Vec<Action>) {
    let stopping = match memory.phase {
        Phase::Stopping { stop, .. } => Some(stop),
        _ => None,
    };
    let (next, reason) = match (memory.next, stopping, exit) {
        // An orderly stop that did not end in order: what PostgreSQL says is worth more than our intention.
        (Some(Next::Exit(0)), Some(_), Exit::Code(code)) => (Next::Exit(code), Reason::Stopped(exit)),
        // Killed by our own SIGINT: it came before the postmaster had a handler for it, so nothing had begun.
        (Some(Next::Exit(0)), Some(Stop::Fast), Exit::Signal(2)) => (Next::Exit(0), Reason::Stopped(exit)),
        (Some(Next::Exit(0)), Some(_), Exit::Signal(n)) => (Next::Exit(128 + n), Reason::Stopped(exit)),
        (Some(next), Some(_), _) => (next, Reason::Stopped(exit)),
        (_, _, Exit::Code(0)) => (Next::Exit(0), Reason::ShutDownByOthers),
        (_, _, Exit::Code(code)) if !memory.was_ready => (Next::Exit(code), Reason::NeverReady(exit)),
        _ => {
            let (m, next) = schedule_restart(memory, now);
            memory = m;
            (next, Reason::Crashed(exit))
        }
    };
    memory.next = Some(next);
    (memory.enter(now, Phase::CleaningUp, reason), vec![Action::CleanUp])
}

/// At once after a steady run, else after a delay that doubles from crash to crash.
fn schedule_restart(mut memory: Memory, now: Mono) -> (Memory, Next) {
    let steady = now.saturating_sub(memory.started) >= STEADY;
    let first = memory.restarts == 0;
    memory.delay = match memory.delay {
        _ if steady || first => Duration::ZERO,
        Duration::ZERO => FIRST_DELAY,
        delay => (delay * 2).min(LONGEST_DELAY),
    };
    memory.restarts += 1;
    let at = now + memory.delay;
    (memory, Next::StartAt(at))
}

fn cleaned_up(memory: Memory, now: Mono) -> (Memory, Vec<Action>) {
    if memory.phase != Phase::CleaningUp {
        return nothing(memory);
    }
    let reason = memory.reason.clone();
    let next = memory.next.unwrap_or(Next::StartAt(now));
    wait_or_exit(memory, now, next, reason)
}

fn wait_or_exit(memory: Memory, now: Mono, next: Next, reason: Reason) -> (Memory, Vec<Action>) {
    match next {
        Next::Exit(code) => end(memory, now, code, reason),
        Next::StartAt(at) if at <= now => start(memory, now, reason),
        Next::StartAt(until) => nothing(memory.enter(now, Phase::Waiting { until }, reason)),
    }
}

fn signalled(limits: &Limits, mut memory: Memory, now: Mono, signal: Signal) -> (Memory, Vec<Action>) {
    match signal {
        Signal::Term | Signal::Int => {
            // The second one escalates: fast becomes immediate, and the exit code tells who was in such a hurry.
            let again = matches!(memory.phase, Phase::Stopping { .. }) && matches!(memory.next, Some(Next::Exit(_)));
            match again {
                true => stop(limits, memory, now, Stop::Immediate, 128 + signal.number(), Reason::Told(signal)),
                false => stop(limits, memory, now, Stop::Fast, 0, Reason::Told(signal)),
            }
        }
        Signal::Quit => stop(limits, memory, now, Stop::Immediate, 128 + signal.number(), Reason::Told(signal)),
        Signal::Usr2 => (memory, vec![Action::LogState]),
        Signal::Child => nothing(memory),
        Signal::Hup => match memory.phase {
            Phase::Running { .. } => (memory, vec![Action::Reload]),
            _ => {
                memory.reload_when_ready = true;
                nothing(memory)
            }
        },
        Signal::Usr1 => match memory.phase {
            Phase::Running { role: Role::Standby } => (memory, vec![Action::Promote]),
            Phase::Running { role: Role::Primary } => nothing(memory),
            _ => {
                memory.promote_when_ready = true;
                nothing(memory)
            }
        },
    }
}

fn stop(
    limits: &Limits,
    mut memory: Memory,
    now: Mono,
    stop: Stop,
    code: i32,
    reason: Reason,
) -> (Memory, Vec<Action>) {
    match memory.phase {
        Phase::Ended { .. } => nothing(memory),
        Phase::Begun | Phase::Waiting { .. } => end(memory, now, code, reason),
        Phase::CleaningUp => {
            memory.next = Some(Next::Exit(code));
            nothing(memory)
        }
        Phase::Initialising => {
            memory.next = Some(Next::Exit(code));
            (memory.enter(now, Phase::Cancelling, reason), vec![Action::CancelInitialisation])
        }
        Phase::Cancelling => {
            memory.next = Some(Next::Exit(code));
            nothing(memory)
        }
        // Never softer than what was ordered before.
        Phase::Stopping { stop: before, .. } if before >= stop => {
            memory.next = Some(Next::Exit(code));
            nothing(memory)
        }
        Phase::Starting | Phase::Running { .. } | Phase::Stopping { .. } => {
            memory.next = Some(Next::Exit(code));
            order(limits, memory, now, stop, reason)
        }
    }
}

fn order(limits: &Limits, memory: Memory, now: Mono, stop: Stop, reason: Reason) -> (Memory, Vec<Action>) {
    let escalate = match stop {
        Stop::Fast => Some(now + limits.shutdown_timeout),
        Stop::Immediate => Some(now + IMMEDIATE_TIMEOUT),
        Stop::Kill => None,
    };
    (memory.enter(now, Phase::Stopping { stop, escalate }, reason), vec![Action::Stop(stop)])
}

fn restart(limits: &Limits, mut memory: Memory, now: Mono) -> (Memory, Vec<Action>) {
    match memory.phase {
        Phase::Starting | Phase::Running { .. } => {
            memory.next = Some(Next::StartAt(now));
            order(limits, memory, now, Stop::Fast, Reason::RestartCommanded)
        }
        Phase::Waiting { .. } => start(memory, now, Reason::RestartCommanded),
        _ => nothing(memory),
    }
}

fn timer(memory: Memory, now: Mono) -> (Memory, Vec<Action>) {
    match memory.phase {
        _ if memory.deadline().is_none_or(|d| d > now) => nothing(memory),
        Phase::Stopping { stop: Stop::Fast, .. } => {
            let phase = Phase::Stopping { stop: Stop::Immediate, escalate: Some(now + IMMEDIATE_TIMEOUT) };
            let reason = Reason::TookTooLong(Stop::Immediate);
            (memory.enter(now, phase, reason), vec![Action::Stop(Stop::Immediate)])
        }
        Phase::Stopping { .. } => {
            let phase = Phase::Stopping { stop: Stop::Kill, escalate: None };
            (memory.enter(now, phase, Reason::TookTooLong(Stop::Kill)), vec![Action::Stop(Stop::Kill)])
        }
        Phase::Waiting { .. } => {
            let reason = memory.reason.clone();
            start(memory, now, reason)
        }
        _ => nothing(memory),
    }
}

#[cfg(test)]
mod tests;
