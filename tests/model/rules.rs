//! Rules that can be taken out, to see that the check finds what they are there for. The shipped code is left as it is:
//! what it is told and what it answers is rewritten on the way.

use std::time::Duration;

use podgres::ha::{
    Action, Goal, Input, Known,
    lease::{Free, Lease, PAUSED},
};

use crate::world::World;

/// A rule of 02-ha.md, by what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// T1: who is named holds nothing before its own write.
    OwnWrite,
    /// T2: the same name with another instance is a stranger.
    InstanceIsIdentity,
    /// T3: whoever is ahead goes first.
    BestFirst,
    /// T7: an absent Lease is not free.
    AbsentIsNotFree,
    /// T7: nobody stands by a term that is lower than one seen before.
    TermsRise,
    /// T9: a deleted pod is no proof of death.
    DeletedIsNotDead,
    /// T9: the message of another instance proves nothing.
    MessageOfInstance,
    /// T10: a name without its data is not a member.
    CopyIsMember,
    /// T11: the larger of the durations counts.
    LargerDuration,
    /// T11: the taking write carries the version of a read that showed the tuple.
    VersionOfRead,
    /// T11: only a change of the tuple restarts the wait.
    TupleCounts,
    /// T12: the margin covers the kill.
    Margin,
    /// T12: the fence fires whoever is frozen.
    FenceNeedsNobody,
    /// There is a fence.
    Fence,
    /// The leader counts from before it sent.
    CountsFromSending,
    /// T13: a timeline is its number and its term.
    LineageIsTerm,
    /// T15: the end of a pause counts from the holder's next renewal.
    ResumeFromRenewal,
}

/// What is told to member `i` instead.
pub(crate) fn input(world: &mut World, i: usize, input: Input) -> Input {
    let Some(rule) = world.setup.without else { return input };
    match input {
        Input::Lease(lease) => Input::Lease(seen(world, i, rule, lease)),
        Input::Read(Ok(lease)) => Input::Read(Ok(seen(world, i, rule, lease))),
        Input::Accounts(mut accounts) if rule == Rule::BestFirst => {
            let own = world.members[i].config.pod.clone();
            accounts.iter_mut().filter(|a| a.pod != own).for_each(|a| a.lsn = 0);
            Input::Accounts(accounts)
        }
        Input::Pods(mut pods) => {
            let lease = world.members[i].memory.lease().cloned().unwrap_or_default();
            for pod in pods.values_mut().filter(|p| p.name == lease.holder) {
                let dead = match rule {
                    Rule::DeletedIsNotDead => pod.deleting,
                    Rule::MessageOfInstance => !pod.ended.is_empty(),
                    _ => false,
                };
                if dead {
                    pod.ended.push(lease.instance.clone());
                }
            }
            Input::Pods(pods)
        }
        other => other,
    }
}

fn seen(world: &mut World, i: usize, rule: Rule, lease: Option<Lease>) -> Option<Lease> {
    let now = world.now;
    let member = world.member(i);
    let Some(mut lease) = lease else {
        // Free for anybody, at a version of its own.
        let term = member.memory.term;
        let freed = || Lease {
            version: "0".into(),
            duration: member.config.duration,
            term,
            record: member.disk.record.clone(),
            system_id: Some(crate::world::SYSTEM),
            free: Some(Free { term, to: None }),
            ..Lease::default()
        };
        let out = member.memory.in_office().is_none();
        if rule == Rule::AbsentIsNotFree && out {
            // A watch that is older than what is known would be left out.
            member.memory.known = Known::Absent { since: Duration::from_secs(now) };
            return Some(freed());
        }
        return None;
    };
    match rule {
        Rule::OwnWrite => {
            let for_me = lease.free.as_ref().is_some_and(|f| f.to.as_ref() == Some(&member.disk.copy));
            if for_me {
                member.goal = Some(Goal::Primary { direct: false });
            }
        }
        Rule::InstanceIsIdentity if lease.holder == member.config.pod => {
            lease.pod_uid = member.config.uid.clone();
            if member.memory.in_office().is_some() {
                lease.instance = member.config.instance.clone();
            }
        }
        Rule::TermsRise if lease.term < member.memory.term && member.memory.in_office().is_none() => {
            member.memory.term = lease.term;
        }
        Rule::CopyIsMember => {
            let (pod, copy) = (member.config.pod.clone(), member.disk.copy.clone());
            if let Some(record) = &mut lease.record {
                let named = record.members.iter().find(|m| m.pod == pod).cloned();
                if let Some(mut named) = named {
                    record.members.remove(&named);
                    named.copy = copy;
                    record.members.insert(named);
                }
            }
        }
        Rule::LargerDuration if lease.holder != member.config.pod => lease.duration = member.config.duration,
        Rule::TupleCounts => lease.renewed.clone_from(&lease.version),
        Rule::ResumeFromRenewal if lease.duration >= PAUSED && lease.holder != member.config.pod => {
            lease.duration = member.config.duration;
        }
        _ => {}
    }
    Some(lease)
}

/// What is done instead of what member `i` wants.
pub(crate) fn action(world: &mut World, i: usize, action: Action) -> Option<Action> {
    let Some(rule) = world.setup.without else { return Some(action) };
    match action {
        Action::WriteLease { over, lease } => {
            let takes = !lease.instance.is_empty()
                && !world.granted.iter().any(|g| g.term == lease.term && g.instance == lease.instance);
            let over = match rule {
                Rule::AbsentIsNotFree => over.filter(|v| v != "0"),
                Rule::VersionOfRead if takes && over.is_some() => world.api.lease.as_ref().map(|l| l.version.clone()),
                Rule::OwnWrite if takes => {
                    let member = &world.members[i];
                    let for_me = |l: &Lease| l.free.as_ref().is_some_and(|f| f.to.as_ref() == Some(&member.disk.copy));
                    if member.memory.lease().is_some_and(for_me) {
                        return None;
                    }
                    over
                }
                _ => over,
            };
            Some(Action::WriteLease { over, lease })
        }
        other => Some(other),
    }
}
