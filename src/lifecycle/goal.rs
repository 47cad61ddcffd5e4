//! In a cluster: from whatever phase there is towards what the cluster wants of this member.

use super::{
    Action, Data, Job, Limits, Memory, Mono, Next, Phase, Reason, Role, Stop, end, jobs::work, nothing, order, promote,
    start,
};
use crate::ha::{Aim, Goal};

/// Takes up a new goal. What is in its way is stopped; what it asks for follows when that is gone.
pub(super) fn aim(limits: &Limits, mut memory: Memory, now: Mono, aim: Aim) -> (Memory, Vec<Action>) {
    memory.goal = Some(aim.goal);
    if !matches!(aim.goal, Goal::Primary { .. }) {
        memory.promote_when_ready = false;
    }
    let reason = Reason::ClusterDecided(aim.goal);
    match memory.phase {
        Phase::Idle | Phase::Waiting { .. } => pursue(memory, now, reason),
        Phase::Starting | Phase::Running { .. } if !aim.kill && fits(&memory) => match aim.goal {
            Goal::Primary { .. } => promote(memory, now),
            _ => nothing(memory),
        },
        Phase::Starting | Phase::Running { .. } => {
            memory.next = Some(Next::Pursue);
            order(limits, memory, now, if aim.kill { Stop::Kill } else { Stop::Fast }, reason)
        }
        Phase::Stopping { stop, .. } => {
            let memory = then_pursue(memory);
            if aim.kill && stop < Stop::Kill { order(limits, memory, now, Stop::Kill, reason) } else { nothing(memory) }
        }
        Phase::Working { job } if !wanted(job, aim.goal) => {
            (then_pursue(memory).enter(now, Phase::Cancelling, reason), vec![Action::Cancel])
        }
        Phase::Cancelling | Phase::CleaningUp => nothing(then_pursue(memory)),
        Phase::Begun | Phase::Working { .. } | Phase::Ended { .. } => nothing(memory),
    }
}

/// Never after an exit was ordered.
fn then_pursue(memory: Memory) -> Memory {
    match memory.next {
        Some(Next::Exit(_)) => memory,
        _ => Memory { next: Some(Next::Pursue), ..memory },
    }
}

/// Whether the server that runs or starts is one that the goal can be reached with.
fn fits(memory: &Memory) -> bool {
    let primary = memory.phase == (Phase::Running { role: Role::Primary }) || !memory.standby;
    match memory.goal {
        Some(Goal::Primary { .. }) => true,
        Some(Goal::Standby) => !primary && memory.promoting.is_none(),
        _ => false,
    }
}

fn wanted(job: Job, goal: Goal) -> bool {
    match job {
        Job::Initialise => goal == Goal::Initialise,
        Job::Look | Job::Clone | Job::Rewind => goal == Goal::Standby,
    }
}

/// Does what the goal asks for, while no server and no job is there.
pub(super) fn pursue(mut memory: Memory, now: Mono, reason: Reason) -> (Memory, Vec<Action>) {
    memory.next = None;
    let Some(goal) = memory.goal else { return end(memory, now, 0, reason) };
    match (goal, memory.data) {
        (Goal::Initialise, Data::Empty) => work(memory, now, Job::Initialise, reason),
        (Goal::Standby, data) => {
            memory.standby = true;
            let job = match data {
                Data::Whole => Job::Look,
                Data::HalfRewound { tries: 0..=1 } => Job::Rewind,
                Data::Empty | Data::HalfRewound { .. } => Job::Clone,
            };
            work(memory, now, job, reason)
        }
        (Goal::Primary { direct }, Data::Whole) => {
            memory.standby = !direct;
            // Also where a standby's mark was left in a directory that was a primary's: what starts is promoted then.
            memory.promote_when_ready = true;
            start(memory, now, reason)
        }
        (Goal::Down | Goal::Initialise | Goal::Primary { .. }, _) => nothing(memory.enter(now, Phase::Idle, reason)),
    }
}

/// Nothing more is to be waited for: the server has written its last.
pub(super) fn quit(limits: &Limits, memory: Memory, now: Mono) -> (Memory, Vec<Action>) {
    let reason = memory.reason.clone();
    match memory.phase {
        Phase::Stopping { stop: Stop::Fast, .. } => order(limits, memory, now, Stop::Immediate, reason),
        _ => nothing(memory),
    }
}
