//! The manager's own doors: whoever can reach the HTTP port of a leader neither stops it nor keeps it from its work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    api::Api,
    client,
    cluster::Cluster,
    flood::{self, Slow},
    harness::*,
    load::Load,
    member::Member,
};

const NONSENSE: usize = 10_000;
const SLOW: usize = 400;

/// The probes' timeout in `podgres manifest`.
const PROBE: Duration = Duration::from_secs(5);
/// The default `lease-duration` less `fence-margin`: a leader that has not renewed for so long is killed.
const FENCED: Duration = Duration::from_secs(8);
/// What the first flood may leave in memory: the allocator keeps some of what 64 answers that nobody reads took at one time.
const FIRST_KB: u64 = 4096;
/// And another one, for which there is room already.
const AGAIN_KB: u64 = 1536;

/// Something that a thread does again and again until it is told to stop.
struct Again<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<T>>,
}

impl<T: Send + 'static> Again<T> {
    fn start(every: Duration, mut once: impl FnMut() -> Option<T> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let over = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !over.load(Ordering::Relaxed) {
                found.extend(once());
                std::thread::sleep(every);
            }
            found
        });
        Self { stop, thread }
    }

    fn finish(self) -> Vec<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

/// `/livez` and `/readyz` by turns, as a kubelet asks: code, and how long it took.
fn probes(member: &Member<'_>) -> Again<(u16, Duration)> {
    let (address, mut n) = (member.address(), 0);
    Again::start(Duration::from_millis(50), move || {
        n += 1;
        let begun = Instant::now();
        let path = ["/livez", "/readyz"][n % 2];
        let (code, _) =
            client::request(address, PROBE, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
        Some((code, begun.elapsed()))
    })
}

/// The median and the longest.
fn times(probes: &[(u16, Duration)]) -> (Duration, Duration) {
    let mut times: Vec<_> = probes.iter().map(|(_, time)| *time).collect();
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

/// Every `renewTime` that the Lease has.
fn renewals(cluster: &Cluster) -> Again<SystemTime> {
    let (api, path, mut last) = (Api::admin(), cluster.lease_path(), None);
    Again::start(Duration::from_millis(100), move || {
        let lease = api.get(&path).unwrap_or_default();
        let renewed = humantime::parse_rfc3339(lease["spec"]["renewTime"].as_str()?).expect("a time");
        (last.replace(renewed) != Some(renewed)).then_some(renewed)
    })
}

fn longest_gap(renewals: &[SystemTime]) -> Duration {
    renewals.windows(2).map(|w| w[1].duration_since(w[0]).unwrap_or_default()).max().expect("several renewals")
}

/// What the manager has in memory that is no file's, in kB.
fn anonymous(container: &Container) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.inspect("{{.State.Pid}}")));
    let status = status.expect("its status can be read");
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("kB")
}

#[test]
fn ten_thousand_requests_that_are_none_and_slow_clients_cost_no_renewal_no_probe_and_no_memory() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let (leader, address) = (&members[p], members[p].address());
    let who = || leader.container.inspect("{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}");
    let (term, started) = (cluster.term(), who());
    let load = Load::start(&cluster, leader);
    let asked = probes(leader);
    std::thread::sleep(Duration::from_secs(3));
    let idle = asked.finish();

    let before = anonymous(&leader.container);

    let (renewed, asked, begun) = (renewals(&cluster), probes(leader), Instant::now());
    let slow = Slow::start(address, SLOW);
    flood::send_nonsense(address, NONSENSE);
    // Slow ones are there for a while, also where the others are through at once.
    std::thread::sleep(Duration::from_secs(10).saturating_sub(begun.elapsed()));
    let (during, made) = (anonymous(&leader.container), slow.made.load(Ordering::Relaxed));
    drop(slow);
    let (took, asked, gap) = (begun.elapsed(), asked.finish(), longest_gap(&renewed.finish()));

    eprintln!("{NONSENSE} requests that are none, {SLOW} slow clients in {made} connections, {took:?}");
    eprintln!("probes, median and longest: {:?} before, {:?} meanwhile ({})", times(&idle), times(&asked), asked.len());
    eprintln!("longest time between two renewals: {gap:?}; anonymous memory {before} kB before, {during} kB meanwhile");
    let failed: Vec<_> = asked.iter().filter(|(code, time)| *code != 200 || *time > PROBE).collect();
    assert!(failed.is_empty(), "{} of {} probes failed: {failed:?}", failed.len(), asked.len());
    assert!(gap < FENCED, "{gap:?} between two renewals\n{}", cluster.report());
    assert_eq!((cluster.term(), cluster.holder(), who()), (term, leader.name.clone(), started));
    let back = |to: u64| {
        wait_or(
            || format!("the memory to come back to {to} kB: {} kB now", anonymous(&leader.container)),
            || Some(anonymous(&leader.container)).filter(|now| *now <= to),
        )
    };
    let first = back(before + FIRST_KB);
    let slow = Slow::start(address, SLOW);
    flood::send_nonsense(address, NONSENSE / 2);
    drop(slow);
    eprintln!("anonymous memory afterwards: {first} kB, after another flood {} kB", back(first + AGAIN_KB));
    assert!(!leader.container.log().contains("panicked"));
    load.finish(&cluster, leader).nothing_lost().gap_at_most(PROBE);
}
