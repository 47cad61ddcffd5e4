//! The rows of a manager, Patroni or podgres alike.

use std::{
    net::Ipv4Addr,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    bare::{first_write, wait_for_standby},
    common::wait_for,
    harness::docker_ok,
    idle,
    load::Load,
    manager::Manager,
    rows::{Figures, PAUSE, Row},
    world::{Member, World},
};

pub fn measure(manager: Manager, figures: &mut Figures) {
    for _ in 0..figures.runs_of(&[Row::First, Row::Next]) {
        starts(manager, figures);
    }
    if figures.wanted(&[Row::Switchover, Row::Term, Row::Crash, Row::Restart, Row::Gone, Row::Memory])
        || is_synchronous(manager) && figures.wanted(&[Row::Commit])
    {
        three(manager, figures);
    }
    if figures.wanted(&[Row::Twenty]) {
        idle::twenty(manager, figures);
    }
}

fn is_synchronous(manager: Manager) -> bool {
    matches!(manager, Manager::Podgres { sync: 1.. })
}

/// So many make one figure, which is their median.
const COMMITS: usize = 2000;

/// How long commits take over one connection.
pub fn commits(figures: &mut Figures, connect: impl Fn() -> postgres::Client) {
    for _ in 0..figures.runs_of(&[Row::Commit]) {
        let mut client = connect();
        client.batch_execute("create table if not exists commits (n int)").unwrap();
        let insert = client.prepare("insert into commits values (1)").unwrap();
        let mut times: Vec<f64> = (0..COMMITS)
            .map(|_| {
                let begun = Instant::now();
                client.execute(&insert, &[]).unwrap();
                begun.elapsed().as_secs_f64() * 1000.0
            })
            .collect();
        times.sort_by(f64::total_cmp);
        figures.add_seconds(Row::Commit, times[COMMITS / 2]);
    }
}

fn starts(manager: Manager, figures: &mut Figures) {
    let world = World::new(manager);
    let first = Member::new(&world, 0);
    let begun = Instant::now();
    first.start();
    first_write(first.address);
    figures.add(Row::First, begun.elapsed());

    let next = Member::new(&world, 1);
    let mut client = first.connect().unwrap();
    // A first member has things to do after its first write; whoever comes next is minutes later, as a rule.
    sleep(Duration::from_secs(3));
    let begun = Instant::now();
    next.start();
    wait_for_standby(&mut client, next.address);
    figures.add(Row::Next, begun.elapsed());
}

/// What happens to a primary.
type Event = for<'a, 'w> fn(&World, &'a mut [Member<'w>], usize, usize);

fn three(manager: Manager, figures: &mut Figures) {
    let world = World::new(manager);
    let mut members: Vec<_> = (0..3).map(|n| Member::new(&world, n)).collect();
    members.iter().for_each(Member::start);
    world.settle(&members);
    if figures.wanted(&[Row::Memory]) {
        idle::three(&world, &members, figures);
    }
    if is_synchronous(manager) {
        commits(figures, || members[world.settle(&members)].connect().unwrap());
    }
    let events: [(Row, Event); 5] = [
        (Row::Switchover, switchover),
        (Row::Term, term),
        (Row::Crash, |_, members, primary, _| members[primary].kill_postmaster()),
        (Row::Restart, |_, members, primary, _| members[primary].kill_and_restart()),
        (Row::Gone, |_, members, primary, _| members[primary].container.signal("KILL")),
    ];
    let servers: Vec<(Ipv4Addr, u16)> = members.iter().map(|m| (m.address, 5432)).collect();
    for (row, event) in events {
        for run in 0..figures.runs_of(&[row]) {
            let primary = world.settle(&members);
            let load = Load::start(servers[primary], &servers);
            // Events come at any time between two of the manager's looks: each run has its share of that.
            let share = f64::from(u32::try_from(run).unwrap()) / f64::from(u32::try_from(figures.runs).unwrap());
            sleep(Duration::from_secs(1) + manager.turn().mul_f64(share));
            let begun = Instant::now();
            event(&world, &mut members, primary, (primary + 1) % servers.len());
            // Until the dead one's last words are over: then writes are the new primary's.
            sleep(Duration::from_millis(100));
            load.wait_for_write();
            if members[primary].container.inspect("{{.State.Running}}") != "true" {
                members[primary].restart();
            }
            world.settle(&members);
            figures.add_seconds(row, load.gap(begun));
        }
    }
}

fn switchover(world: &World, members: &mut [Member<'_>], from: usize, to: usize) {
    let (from, to) = (&members[from], &members[to]);
    // Patroni refuses for some seconds after the last one.
    wait_for("a switchover to be accepted", Duration::from_millis(200), || {
        world.manager.hand_over(world, from, to).then_some(())
    });
    wait_for("the switchover to be done", PAUSE * 10, || to.streaming().map(|_| ()));
}

fn term(_: &World, members: &mut [Member<'_>], primary: usize, _: usize) {
    // As a kubelet does it: KILL after the grace period. Patroni has been seen to need that.
    docker_ok(&["stop", "--time", "30", &members[primary].container.name]);
}
