//! What the manager does about its PostgreSQL: the decision, as a pure function.
//!
//! [`step`] takes what is remembered and what has just happened and gives back what is to be remembered and done. It
//! reads no clock, starts nothing and waits for nothing, so every order of events can be tried in a table. The loop
//! that feeds it is [`crate::manager`].

mod event;
mod goal;
mod jobs;
mod memory;
mod outcomes;
mod reason;

use std::time::Duration;

pub use event::{Action, Data, Failure, Input, Look, Repair};
use goal::{aim, pursue, quit};
use jobs::{begin, diverged, done, looked, promote, reinit, work};
use memory::Next;
pub use memory::{Job, Memory, Phase, Role, Stop};
pub use outcomes::{Outcome, Outcomes};
pub use reason::Reason;

use crate::{
    ha::Goal,
    pid1::{Exit, Signal},
};

/// Time since the manager started, by a clock that never jumps.
pub type Mono = Duration;

/// What the decision depends on besides its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the beginning of a fast shutdown to the immediate one.
    pub shutdown_timeout: Duration,
    /// Whether the settings name a source: whether this member is to be a standby.
    pub standby: bool,
    /// Whether a cluster decides what this member is: nothing is started before [`Input::Aim`].
    pub clustered: bool,
}

/// After SIGQUIT the postmaster itself kills its children when five seconds have passed (`SIGKILL_CHILDREN_AFTER_SECS`,
/// postmaster.c); what is still there two seconds later does not answer at all.
const IMMEDIATE_TIMEOUT: Duration = Duration::from_secs(7);

/// `EX_CONFIG` of `sysexits.h`.
const EX_CONFIG: i32 = 78;

/// A server that ran this long before it crashed is restarted at once; one that did not, after a growing delay.
const STEADY: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The decision.
pub fn step(limits: &Limits, memory: Memory, now: Mono, input: Input) -> (Memory, Vec<Action>) {
    match input {
        Input::Begin(data) => begin(limits, memory, now, data),
        Input::Done(job, result) => done(memory, now, job, result),
        Input::Looked(look) => looked(memory, now, look),
        Input::Diverged(repair) => diverged(limits, memory, now, repair),
        Input::Streaming => {
            let memory = Memory { repairs: 0, job_delay: Duration::ZERO, ..memory };
            nothing(memory)
        }
        // In a cluster only who has just taken office may do so.
        Input::Promote if limits.clustered => nothing(memory),
        Input::Promote => promote(memory, now),
        Input::Reinit => reinit(limits, memory, now),
        Input::NotStarted(why) => not_started(memory, now, why),
        Input::Refused { why, exit } => refused(memory, now, why, exit),
        Input::TooSmall(why) => too_small(limits, memory, now, why),
        Input::Unproven => (Memory { unproven: memory.phase == Phase::Starting, ..memory }, Vec::new()),
        Input::Ready(role) => ready(limits, memory, now, role),
        Input::Exited(exit) => exited(memory, now, exit),
        Input::CleanedUp => cleaned_up(memory, now),
        Input::Signal(signal) => signalled(limits, memory, now, signal),
        Input::Restart => restart(limits, memory, now),
        Input::Aim(aimed) => aim(limits, memory, now, aimed),
        Input::Quit => quit(limits, memory, now),
        Input::Discarded => nothing(Memory { data: Data::Empty, ..memory }),
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
    memory.unproven = false;
    let standby = memory.standby;
    (memory.enter(now, Phase::Starting, reason), vec![Action::Start { standby }])
}

/// A program that cannot be executed once cannot be executed: unlike a crash there is nothing to wait for, except
/// where it has run before (the disk or the process table may be full for a while).
fn not_started(memory: Memory, now: Mono, why: String) -> (Memory, Vec<Action>) {
    if !memory.was_ready && memory.goal.is_none() {
        return end(memory, now, 1, Reason::NotStarted(why));
    }
    let (memory, next) = schedule_restart(memory, now);
    wait_or_exit(memory, now, next, Reason::NotStarted(why))
}

/// What is wrong with the configuration stays wrong until somebody corrects it. Exits with the code that goes with it,
/// unless a stop came first.
fn refused(memory: Memory, now: Mono, why: String, exit: i32) -> (Memory, Vec<Action>) {
    match (&memory.phase, memory.next) {
        (Phase::Stopping { .. }, Some(Next::Exit(code))) => {
            let reason = memory.reason.clone();
            end(memory, now, code, reason)
        }
        _ => end(memory, now, exit, Reason::ConfigurationRefused(why)),
    }
}

fn ready(limits: &Limits, mut memory: Memory, now: Mono, role: Role) -> (Memory, Vec<Action>) {
    if role == Role::Primary && memory.goal.is_some_and(|goal| !matches!(goal, Goal::Primary { .. })) {
        return promoted_by_others(limits, memory, now);
    }
    if !matches!(memory.phase, Phase::Starting | Phase::Running { .. }) || memory.phase == (Phase::Running { role }) {
        return nothing(memory);
    }
    let mut actions = Vec::new();
    if std::mem::take(&mut memory.reload_when_ready) {
        actions.push(Action::Reload);
    }
    // What was ordered once may not be what is wanted now.
    let wanted = memory.goal.is_none_or(|goal| matches!(goal, Goal::Primary { .. }));
    if std::mem::take(&mut memory.promote_when_ready) && role == Role::Standby && wanted {
        memory.promoting = Some(now);
        actions.push(Action::Promote);
    }
    memory.was_ready = true;
    memory.failed_starts = 0;
    memory.unproven = false;
    let reason = match (role, memory.promoting) {
        (Role::Primary, Some(since)) => {
            let took = now.saturating_sub(since);
            memory.promotion = Some(took);
            Reason::Promoted(took)
        }
        _ => Reason::Ready,
    };
    if role == Role::Primary {
        memory.promoting = None;
        memory.standby = false;
        // From here on the data are a primary's: the next start is one on the same timeline.
        memory.goal = memory.goal.map(|_| Goal::Primary { direct: true });
    }
    (memory.enter(now, Phase::Running { role }, reason), actions)
}

/// Somebody promoted it past the cluster, with `pg_promote()` say. There may be another primary: this one must not live a
/// moment longer.
fn promoted_by_others(limits: &Limits, mut memory: Memory, now: Mono) -> (Memory, Vec<Action>) {
    if !matches!(memory.phase, Phase::Starting | Phase::Running { .. }) {
        return nothing(memory);
    }
    memory.next = Some(Next::Pursue);
    order(limits, memory, now, Stop::Kill, Reason::PromotedByOthers)
}

fn exited(mut memory: Memory, now: Mono, exit: Exit) -> (Memory, Vec<Action>) {
    // A promotion that was cut short is still ordered.
    memory.promote_when_ready |= memory.promoting.take().is_some();
    memory.failed_starts += u32::from(memory.phase == Phase::Starting);
    if memory.unproven && memory.phase == Phase::Starting {
        memory.next = Some(Next::StartAt(now));
        let memory = memory.enter(now, Phase::CleaningUp, Reason::ConfigurationFailed(exit));
        return (memory, vec![Action::RejectConfiguration, Action::CleanUp]);
    }
    let stopping = match memory.phase {
        Phase::Stopping { stop, .. } => Some(stop),
        _ => None,
    };
    let clustered = memory.goal.is_some();
    let (next, reason) = match (memory.next, stopping, exit) {
        // An orderly stop that did not end in order: what PostgreSQL says is worth more than our intention.
        (Some(Next::Exit(0)), Some(_), Exit::Code(code)) => (Next::Exit(code), Reason::Stopped(exit)),
        // Killed by our own SIGINT: it came before the postmaster had a handler for it, so nothing had begun.
        (Some(Next::Exit(0)), Some(Stop::Fast), Exit::Signal(2)) => (Next::Exit(0), Reason::Stopped(exit)),
        (Some(Next::Exit(0)), Some(_), Exit::Signal(n)) => (Next::Exit(128 + n), Reason::Stopped(exit)),
        (Some(next @ (Next::Work(_) | Next::Pursue)), Some(_), _) => (next, memory.reason.clone()),
        (Some(next), Some(_), _) => (next, Reason::Stopped(exit)),
        (_, _, Exit::Code(0)) if !clustered => (Next::Exit(0), Reason::ShutDownByOthers),
        (_, _, Exit::Code(code)) if !memory.was_ready && !clustered => (Next::Exit(code), Reason::NeverReady(exit)),
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
    // A cluster's leader that was ready comes back at once, as often as that happens: nobody writes meanwhile.
    let leads = matches!(memory.goal, Some(Goal::Primary { .. })) && memory.failed_starts == 0;
    let steady = leads || now.saturating_sub(memory.started) >= STEADY;
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
        Next::Pursue => pursue(memory, now, reason),
        Next::StartAt(at) if at <= now && memory.goal.is_some() => pursue(memory, now, reason),
        Next::StartAt(at) if at <= now => start(memory, now, reason),
        Next::StartAt(until) => nothing(memory.enter(now, Phase::Waiting { until, job: None }, reason)),
        Next::Work(job) => work(memory, now, job, reason),
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
        Signal::Usr1 if limits.clustered => nothing(memory),
        Signal::Usr1 => promote(memory, now),
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
        Phase::Begun | Phase::Idle | Phase::Waiting { .. } => end(memory, now, code, reason),
        Phase::CleaningUp => {
            memory.next = Some(Next::Exit(code));
            nothing(memory)
        }
        Phase::Working { .. } => {
            memory.next = Some(Next::Exit(code));
            (memory.enter(now, Phase::Cancelling, reason), vec![Action::Cancel])
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
            // A source that the settings name by now: what was a primary is to become a standby.
            let joins = limits.standby && !memory.standby;
            memory.next = Some(match joins {
                _ if memory.goal.is_some() => Next::Pursue,
                true => Next::Work(Job::Look),
                false => Next::StartAt(now),
            });
            memory.repairs = 0;
            order(limits, memory, now, Stop::Fast, Reason::RestartCommanded)
        }
        Phase::Waiting { job: None, .. } if memory.goal.is_some() => pursue(memory, now, Reason::RestartCommanded),
        Phase::Waiting { job: None, .. } => start(memory, now, Reason::RestartCommanded),
        Phase::Waiting { job: Some(job), .. } => work(memory, now, job, Reason::RestartCommanded),
        _ => nothing(memory),
    }
}

/// The start to come gives the standby what its primary has, so this happens once for each time that gets more.
fn too_small(limits: &Limits, mut memory: Memory, now: Mono, why: String) -> (Memory, Vec<Action>) {
    if memory.phase != (Phase::Running { role: Role::Standby }) || memory.promoting.is_some() {
        return nothing(memory);
    }
    memory.next = Some(Next::StartAt(now));
    order(limits, memory, now, Stop::Fast, Reason::TooSmall(why))
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
        Phase::Waiting { job, .. } => {
            let reason = memory.reason.clone();
            match job {
                None if memory.goal.is_some() => pursue(memory, now, reason),
                None => start(memory, now, reason),
                Some(job) => work(memory, now, job, Reason::TryingAgain(job)),
            }
        }
        _ => nothing(memory),
    }
}

#[cfg(test)]
mod tests;
