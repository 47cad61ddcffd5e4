//! From a state on without any more faults: I5, that a primary appears in time.

use podgres::ha::{Data, Input, Office, quorum::Stage};

use crate::{acts::Act, member::Member, world::World};

/// In seconds: whoever could not lead stands back for three durations, the target of a hand-over has five seconds, a
/// Lease that is gone is waited for.
const SOON: u64 = 30;

/// Goes on for so many seconds, with those acts that may happen.
pub(crate) fn settle(mut world: World, seconds: u64, may: &dyn Fn(&Act) -> bool) -> World {
    for _ in 0..world.setup.ticks(seconds) {
        world = second(world, may);
        world.happens(Act::Tick);
    }
    second(world, may)
}

/// What is down stays down.
pub(crate) fn without_restarts(act: &Act) -> bool {
    !matches!(act, Act::Start(_) | Act::Recreate(_))
}

/// All that takes no time, in one order.
fn second(mut world: World, may: &dyn Fn(&Act) -> bool) -> World {
    let mut acts = Vec::new();
    let mut done = Vec::new();
    for _ in 0..400 {
        acts.clear();
        world.steps(&mut acts);
        let Some(act) = acts.iter().find(|act| may(act)).copied() else { return world };
        world.happens(act);
        done.push(act);
        if world.violation.is_some() {
            return world;
        }
    }
    world.fails(format!("I5: the members are busy without end: {:?}", &done[390..]));
    world
}

/// Why no primary appears from here, if none does. `restart`: whether what is down comes back.
pub(crate) fn no_primary(from: &World, restart: bool) -> Option<String> {
    let mut world = from.clone();
    for i in 0..world.members.len() {
        let m = world.member(i);
        let (slow, cut) = (std::mem::take(&mut m.slow), std::mem::take(&mut m.cut));
        if slow {
            world.attend(i);
        }
        if cut && world.members[i].up {
            world.feed(i, Input::Reachable(true));
        }
    }
    for _ in 0..world.setup.ticks(SOON) {
        world = second(world, &|act| restart || without_restarts(act));
        if world.violation.is_some() {
            return world.violation;
        }
        if is_whole(&world, restart) {
            return None;
        }
        if world.setup.calm_touched {
            world.annotate(|_| {});
        }
        world.happens(Act::Tick);
    }
    let reasons = || {
        let of = |m: &std::sync::Arc<Member>| format!("{}: {} [{:?}]", m.uid(), m.memory.reason, m.memory.office);
        world.members.iter().filter(|m| m.up).map(of).collect::<Vec<_>>().join("; ")
    };
    is_expected(&world).then(|| {
        format!(
            "I5: no primary, or not all others are its standbys, within {SOON} s (restarts: {restart}). {}",
            reasons()
        )
    })
}

/// Whether there is a primary, and all others are its standbys.
fn is_whole(world: &World, restart: bool) -> bool {
    let Some(leader) = world.members.iter().position(|m| m.up && m.is_writable() && leads(m)) else { return false };
    let is_there = |i: usize, m: &Member| {
        let pod = &world.pods[m.pod];
        pod.member == Some(i) && !pod.deleting && !pod.fenced && (m.up || restart)
    };
    let others = || world.members.iter().enumerate().filter(|(i, m)| *i != leader && is_there(*i, m));
    others().all(|(i, m)| world.streams(i, leader) && m.memory.office == Office::Out)
        && commits_end(&world.members[leader], others().count())
}

/// Whether the leader of a synchronous cluster has so many confirm as there are standbys for it, and its commits end.
fn commits_end(leader: &Member, standbys: usize) -> bool {
    let Some(quorum) = leader.memory.in_office().and_then(|o| o.quorum.as_ref()) else { return true };
    let (wanted, strict) = (leader.config.sync.standbys, leader.config.sync.strict);
    let confirm = quorum.names.confirm();
    let enough = match standbys >= wanted {
        true => confirm == Some(wanted),
        false => strict || confirm == Some(standbys),
    };
    let waits = standbys < wanted && strict;
    enough && (waits || (quorum.stage == Stage::Settled && leader.confirms.commits.is_empty()))
}

fn leads(m: &Member) -> bool {
    m.memory.in_office().is_some_and(|o| o.leaving.is_none())
}

/// Whether anybody may lead: who is up, has the cluster's data, and is admitted.
fn is_expected(world: &World) -> bool {
    let lease = world.api.lease.as_ref();
    let held_up = lease.is_some_and(|l| {
        let newest = world.members.iter().map(|m| m.disk.term).max().unwrap_or(0);
        // A pause; a pause that its leader did not see the end of, and that leader gone, or its data; an old Lease brought back.
        let gone = !world.members.iter().any(|m| m.up && m.uid() == l.pod_uid && m.disk.held == l.term);
        l.is_paused() || (l.is_unfenced() && gone) || l.term < newest
    });
    let may_lead = |m: &Member| {
        let pod = &world.pods[m.pod];
        let record = lease.and_then(|l| l.record.as_ref()).or(m.disk.record.as_ref());
        let admitted = record.is_some_and(|r| r.names(&m.config.pod, &m.disk.copy));
        let there = world.members.iter().position(|x| x.uid() == m.uid()) == pod.member;
        m.up && m.disk.data == Data::Present && admitted && there && !pod.fenced && !pod.deleting && !m.told_to_end
    };
    // Without a Lease nobody knows which record was the last, and everybody is to vote.
    let all = world.members.iter().filter(|m| m.is_synchronous() && m.disk.data == Data::Present).count().max(1);
    let votes = lease.map_or(all, |l| l.record.as_ref().map_or(1, |r| r.votes));
    let held = |m: &Member| lease.is_some_and(|l| l.term == m.disk.held);
    let able = || world.members.iter().filter(|m| may_lead(m));
    !held_up && (able().count() >= votes || able().any(|m| held(m)))
}
