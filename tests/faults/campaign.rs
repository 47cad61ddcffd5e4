//! One campaign: rounds of faults, each of which ends with three members, and the verdict on the history.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    clients::Clients,
    cluster::Cluster,
    fault::{Clocks, Fault, Random, heal},
    harness::Volume,
    history::Allowed,
    member::Member,
    proxy::Proxy,
};

const MEMBERS: usize = 3;

/// Of a campaign that takes longer one round in ten goes on for minutes.
const LONG: Duration = Duration::from_secs(300);
/// A member that was frozen for long is fenced, waits for its own lease's duration, and is rewound or cloned.
const PATIENCE: Duration = Duration::from_secs(180);

/// A standby that does not stream any more is off the record after a lease's duration, seconds are counted, and the
/// leader's last look is some old.
const LOST: Duration = Duration::from_secs(15);

/// Between the thaw of a container and the moment in which its guard has killed all in it, on a busy machine.
const THAWED: Duration = Duration::from_secs(2);

pub struct Campaign {
    pub sync: bool,
    pub major: u32,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

impl Campaign {
    fn length() -> Duration {
        Duration::from_secs(number("PODGRES_TEST_SECONDS").unwrap_or(30))
    }

    pub fn run(&self) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").subsec_nanos();
        let seed = number("PODGRES_TEST_SEED").unwrap_or_else(|| u64::from(time)) | 1;
        let length = Self::length();
        println!("the same faults again: PODGRES_TEST_SEED={seed}");
        let mut random = Random(seed);
        let settings: &[&str] = if self.sync { &["PODGRES_SYNC=1"] } else { &[] };
        let mut cluster = Cluster::with(self.major, settings);
        let mut proxy = Proxy::before(&mut cluster);
        let clocks = Clocks::new();
        let mut members: Vec<_> =
            (0..MEMBERS).map(|n| Member::with_options(&cluster, n, Volume::new(), clocks.options(n))).collect();
        let primary = cluster.settle(&members);
        primary.query("create table load (id bigint primary key)");
        let clients = Clients::start(cluster.addresses.clone(), primary.system_identifier());
        let (begun, mut counts, mut rounds) = (Instant::now(), BTreeMap::<String, usize>::new(), 0);
        let mut thaws = Vec::new();
        while begun.elapsed() < length {
            rounds += 1;
            for fault in self.round(&mut random, &cluster, &mut members, &mut proxy, &clocks) {
                *counts.entry(fault.name()).or_default() += 1;
            }
            thaws.extend(whole(&cluster, &mut members, &mut proxy, &clocks));
            let before = clients.writes();
            cluster.wait("writes", || (clients.writes() > before).then_some(()));
        }
        let primary = cluster.settle(&members);
        let history = clients.end();
        let ids = primary.query("select id from load");
        let there: HashSet<i64> = ids.lines().map(|id| id.parse().expect("a number")).collect();
        let lost = history.writes.iter().filter(|w| !there.contains(&w.id)).count();
        println!(
            "{rounds} rounds in {:?}: {counts:?}; {} writes confirmed, {lost} of them lost, {} reads; {} primaries; longest time \
             without a write {:?}",
            begun.elapsed(),
            history.writes.len(),
            history.reads,
            history.writes.iter().map(|w| w.server).collect::<HashSet<_>>().len(),
            history.gap()
        );
        let allowed = Allowed { lost: if self.sync { Duration::ZERO } else { LOST }, thawed: THAWED, thaws };
        let found = history.violations(&there, &allowed);
        assert!(found.is_empty(), "seed {seed}: {found:#?}\n{}", cluster.report());
    }

    /// One to three faults, some time apart, and the time until they end.
    fn round(
        &self,
        random: &mut Random,
        cluster: &Cluster,
        members: &mut [Member<'_>],
        proxy: &mut Proxy,
        clocks: &Clocks,
    ) -> Vec<Fault> {
        let mut faults = Vec::new();
        for _ in 0..=random.below(3) {
            let primary = members.iter().position(Member::is_writable);
            // The primary is the one that matters most.
            let victim = primary.filter(|_| random.below(2) == 0).unwrap_or_else(|| random.below(MEMBERS));
            let fault = Fault::any(random, victim, MEMBERS, primary.is_none_or(|p| p == victim));
            // Beside a lost volume there must be another copy, which is not promised of two faults at once.
            if fault == Fault::LoseVolume && !faults.is_empty() {
                continue;
            }
            println!("  {fault:?} at {}, the primary is {primary:?}", members[victim].name);
            fault.happen(cluster, members, victim, proxy, clocks);
            faults.push(fault);
            if fault == Fault::LoseVolume {
                break;
            }
            std::thread::sleep(Duration::from_millis(100 * random.below(40) as u64));
        }
        let lasts = match Self::length() > LONG && random.below(10) == 0 {
            true => 60 + random.below(120),
            false => random.below(20),
        };
        std::thread::sleep(Duration::from_secs(lasts as u64));
        faults
    }
}

/// Ends the faults and waits for three members.
fn whole(
    cluster: &Cluster,
    members: &mut [Member<'_>],
    proxy: &mut Proxy,
    clocks: &Clocks,
) -> Vec<(Ipv4Addr, Instant)> {
    let thaws = heal(members, proxy, clocks);
    cluster.within(PATIENCE, "three members again", || {
        // A fence that fires late may end a container that was running just now.
        for member in members.iter_mut().filter(|m| !m.container.is_running()) {
            member.restart_in_place();
        }
        let primary = members.iter().find(|m| m.is_writable())?;
        let streams = "select count(*) from pg_stat_replication where state = 'streaming'";
        (primary.sql(streams).as_deref() == Ok("2")).then_some(())
    });
    cluster.settle(members);
    thaws
}
