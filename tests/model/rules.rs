//! Rules that can be taken out, to see that the check finds what they are there for. The shipped code is left as it is:
//! what it is told, remembers and answers is rewritten on the way, or what carries it out leaves something out.

use std::time::Duration;

use podgres::ha::{
    Action, Goal, Input, Known, Office,
    lease::{Free, Lease, PAUSED},
    quorum::Stage,
    votes::Vote,
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
    /// T8: whoever has consented neither stands nor votes.
    PromiseBinds,
    /// T8: all that it takes consent, not those that are seen.
    AllConsent,
    /// T8: the leader counts from before it asked.
    CountsFromAsking,
    /// T15: the end of a pause counts from the holder's next renewal.
    ResumeFromRenewal,
    /// T3: a vote of who is ahead does not count.
    NotAhead,
    /// T4: what asks more is on the record last.
    MoreRecordLast,
    /// T4: what asks less is on the record first.
    LessRecordFirst,
    /// T4: that nothing is confirmed any more is proven, not assumed.
    ProofOfReload,
    /// T4: the new members have all that was confirmed before they count.
    WaitsForPosition,
    /// T5: a vote freezes.
    VoteFreezes,
    /// T5: the promise is on disk.
    PromiseOnDisk,
    /// T5: the candidate freezes itself.
    CandidateFreezes,
    /// T6: who is frozen receives again when it has seen the Lease at that term, and by no other reason.
    ThawNeedsTerm,
    /// T6: the leader in office takes up what was promised.
    TakesUpPromises,
    /// T14: an address is followed, not a name.
    AddressNotName,
    /// What a vote says of its history is looked up in the WAL.
    HistoryOfWal,
    /// T16: a server begins with a name that nobody bears.
    BeginsWithNobody,
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
        Input::Voted(vote) if rule == Rule::NotAhead && vote.pod != world.members[i].config.pod => {
            Input::Voted(Vote { lsn: 0, ..vote })
        }
        Input::Proven(_) if rule == Rule::WaitsForPosition => Input::Proven(0),
        other => other,
    }
}

/// What member `i` remembers instead.
pub(crate) fn remembered(world: &mut World, i: usize) {
    let rule = world.setup.without;
    if !matches!(rule, Some(Rule::MoreRecordLast | Rule::LessRecordFirst)) {
        return;
    }
    let member = world.member(i);
    let Office::In(office) = &mut member.memory.office else { return };
    let Some(quorum) = &mut office.quorum else { return };
    match quorum.stage.clone() {
        Stage::Stops(target) if rule == Some(Rule::MoreRecordLast) && target.record != quorum.record => {
            quorum.stage = Stage::Records(target);
        }
        Stage::Records(target) if rule == Some(Rule::LessRecordFirst) => {
            quorum.set(target.names.clone());
            member.confirms.file = target.names.clone();
            quorum.stage = Stage::Flushes(target, 0);
        }
        _ => {}
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
