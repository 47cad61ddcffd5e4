//! Jobs and standbys: what is done to a data directory before a server may run on it, and what makes a primary of a
//! standby.

use super::{
    Action, Data, EX_CONFIG, FIRST_DELAY, Failure, Job, LONGEST_DELAY, Limits, Look, Memory, Mono, Next, Phase, Reason,
    Repair, Role, Stop, end, nothing, order, pursue, start,
};
use crate::ha::Goal;

pub(super) fn work(mut memory: Memory, now: Mono, job: Job, reason: Reason) -> (Memory, Vec<Action>) {
    memory.next = None;
    (memory.enter(now, Phase::Working { job }, reason), vec![Action::Work(job)])
}

pub(super) fn begin(limits: &Limits, mut memory: Memory, now: Mono, data: Data) -> (Memory, Vec<Action>) {
    memory.standby = limits.standby;
    memory.data = data;
    if limits.clustered {
        memory.goal = Some(Goal::Down);
        let reason = if data == Data::Empty { Reason::NoData } else { Reason::DataFound };
        return nothing(memory.enter(now, Phase::Idle, reason));
    }
    match (data, limits.standby) {
        (Data::Empty, false) => work(memory, now, Job::Initialise, Reason::NoData),
        (Data::Empty, true) => work(memory, now, Job::Clone, Reason::NoData),
        (Data::Whole, false) => start(memory, now, Reason::DataFound),
        (Data::Whole, true) => work(memory, now, Job::Look, Reason::DataFound),
        (Data::HalfRewound { .. }, false) => end(memory, now, 1, Reason::HalfRewound),
        // Redone once: it failed on one directory and cured another.
        (Data::HalfRewound { tries: 0..=1 }, true) => work(memory, now, Job::Rewind, Reason::HalfRewound),
        (Data::HalfRewound { .. }, true) => work(memory, now, Job::Clone, Reason::HalfRewound),
    }
}

pub(super) fn done(mut memory: Memory, now: Mono, job: Job, result: Result<(), Failure>) -> (Memory, Vec<Action>) {
    if memory.phase == Phase::Cancelling {
        return cancelled(memory, now);
    }
    memory.outcomes.count(job, result.is_ok());
    match (job, result) {
        (Job::Initialise, Err(Failure::Final(why))) => end(memory, now, EX_CONFIG, Reason::ConfigurationRefused(why)),
        (Job::Initialise, Err(why)) => end(memory, now, 1, Reason::InitialisationFailed(why.why())),
        (Job::Initialise, Ok(())) if memory.goal.is_some() => {
            memory.data = Data::Whole;
            pursue(memory, now, Reason::Initialised)
        }
        (Job::Initialise, Ok(())) => start(memory, now, Reason::Initialised),
        (_, Ok(())) => {
            memory.data = Data::Whole;
            memory.repairs += 1;
            start(memory, now, Reason::JobDone(job))
        }
        (_, Err(Failure::Final(why))) => end(memory, now, EX_CONFIG, Reason::Refused(why)),
        (Job::Rewind, Err(Failure::Hopeless(why))) => work(memory, now, Job::Clone, Reason::JobFailed(job, why)),
        (_, Err(Failure::ForNow(why) | Failure::Hopeless(why))) => try_again(memory, now, job, why),
    }
}

pub(super) fn try_again(mut memory: Memory, now: Mono, job: Job, why: String) -> (Memory, Vec<Action>) {
    memory.job_delay = (memory.job_delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
    let until = now + memory.job_delay;
    nothing(memory.enter(now, Phase::Waiting { until, job: Some(job) }, Reason::JobFailed(job, why)))
}

pub(super) fn cancelled(memory: Memory, now: Mono) -> (Memory, Vec<Action>) {
    let reason = memory.reason.clone();
    let code = match memory.next {
        Some(Next::Exit(code)) => code,
        Some(Next::Pursue) => return pursue(memory, now, reason),
        _ => 0,
    };
    end(memory, now, code, reason)
}

pub(super) fn looked(mut memory: Memory, now: Mono, look: Look) -> (Memory, Vec<Action>) {
    match look {
        _ if memory.phase == Phase::Cancelling => cancelled(memory, now),
        Look::Standby(reason) => {
            memory.standby = true;
            start(memory, now, reason)
        }
        Look::AsItIs(reason) => {
            memory.standby = false;
            // If the promotion was cut short, what starts is a standby.
            memory.promote_when_ready = true;
            start(memory, now, reason)
        }
        Look::Diverged(Repair { job, why }) => {
            memory.standby = true;
            work(memory, now, job, Reason::Diverged(why))
        }
        Look::Refused(why) => end(memory, now, EX_CONFIG, Reason::Refused(why)),
    }
}

/// A running standby is stopped for its repair, unless repairs have not helped so far.
pub(super) fn diverged(limits: &Limits, mut memory: Memory, now: Mono, repair: Repair) -> (Memory, Vec<Action>) {
    let standby = matches!(memory.phase, Phase::Running { role: Role::Standby });
    if !standby || !memory.standby || memory.promoting.is_some() || memory.gave_up() {
        return nothing(memory);
    }
    memory.next = Some(Next::Work(repair.job));
    order(limits, memory, now, Stop::Fast, Reason::Diverged(repair.why))
}

pub(super) fn promote(mut memory: Memory, now: Mono) -> (Memory, Vec<Action>) {
    match memory.phase {
        Phase::Running { role: Role::Standby } if memory.promoting.is_none() => {
            memory.promoting = Some(now);
            (memory, vec![Action::Promote])
        }
        Phase::Running { .. } => nothing(memory),
        _ => {
            memory.promote_when_ready = true;
            nothing(memory)
        }
    }
}

/// What is there is given up on purpose. Only for a standby: a primary's data are nowhere else.
pub(super) fn reinit(limits: &Limits, mut memory: Memory, now: Mono) -> (Memory, Vec<Action>) {
    memory.repairs = 0;
    memory.next = Some(Next::Work(Job::Clone));
    match memory.phase {
        Phase::Running { role: Role::Standby } | Phase::Starting if memory.standby => {
            order(limits, memory, now, Stop::Fast, Reason::ReinitCommanded)
        }
        Phase::Waiting { .. } if memory.standby => work(memory, now, Job::Clone, Reason::ReinitCommanded),
        _ => {
            memory.next = None;
            nothing(memory)
        }
    }
}
