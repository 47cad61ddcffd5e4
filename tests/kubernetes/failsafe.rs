//! The API is gone: the leader stays while its peers promise to wait, and only then.

use std::time::Duration;

use serde_json::json;

use crate::{
    client,
    cluster::Cluster,
    load::Load,
    member::Member,
    network::{BOTH, Direction},
};

/// Shorter than the default, as all of this takes several of them.
const LEASE: Duration = Duration::from_secs(6);
const TIMES: [&str; 3] = ["PODGRES_LEASE_DURATION=6s", "PODGRES_RENEW_INTERVAL=1s", "PODGRES_FENCE_MARGIN=2s"];
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);
/// Between two commits of a primary that has not stopped, on a busy machine.
const HICCUP: Duration = Duration::from_secs(2);
/// What a failover of an asynchronous cluster may lose.
const TAIL: Duration = Duration::from_secs(1);

fn cluster(major: u32, settings: &[&str]) -> Cluster {
    Cluster::with(major, &[&TIMES, settings].concat())
}

/// Of an outage that outlasts several leases; `PODGRES_TEST_SECONDS` for more.
fn outage() -> Duration {
    let seconds = std::env::var("PODGRES_TEST_SECONDS").ok().and_then(|s| s.parse().ok());
    seconds.map_or(LEASE * 3, Duration::from_secs)
}

fn an_outage_refuses_no_write(settings: &[&str]) {
    let cluster = cluster(17, settings);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    let term = cluster.term();
    members.iter().for_each(|m| m.cut_api(&BOTH));
    cluster.never(outage(), "another one accepts writes", || members.iter().any(|m| m.n != p && m.is_writable()));
    assert!(members[p].is_writable(), "{}", cluster.report());
    members[p].container.wait_for_message("without the API");
    let status = String::from_utf8_lossy(&members[p].podgres(&["status"]).stdout).into_owned();
    assert!(status.contains("leads without the API"), "{status}");
    let (_, metrics) = client::http(members[p].address(), "/metrics");
    assert!(metrics.contains("podgres_failsafe 1\n"), "{metrics}");
    members.iter().for_each(Member::heal);
    members[p].container.wait_for_message("the API is back");
    assert_eq!((cluster.settle(&members).n, cluster.term()), (p, term));
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(HICCUP);
}

#[test]
fn an_outage_of_the_api_refuses_no_write() {
    an_outage_refuses_no_write(&[]);
}

#[test]
fn an_outage_of_the_api_refuses_no_write_of_a_synchronous_cluster() {
    an_outage_refuses_no_write(&["PODGRES_SYNC=1"]);
}

#[test]
fn a_leader_that_alone_does_not_reach_the_api_stays_until_its_pod_is_deleted() {
    let cluster = cluster(15, &[]);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    members[p].cut_api(&BOTH);
    cluster.never(LEASE + SLACK, "it does not stay", || !members[p].is_writable());
    // From here on it is not the API's trouble any more.
    members[p].delete();
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    let said = members[p].container.stdout();
    assert!(said.contains("does not consent") && said.contains("is being deleted"), "{said}");
    load.finish(&cluster, &members[next]).lost_at_most(TAIL).gap_at_most(LEASE * 2 + SLACK);
}

#[test]
fn a_leader_is_fenced_when_one_of_all_it_needs_does_not_answer() {
    let cluster = cluster(17, &[]);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    let silent = (p + 1) % 3;
    members.iter().for_each(|m| m.cut_api(&BOTH));
    members[silent].container.pause();
    cluster.wait("the leader to be fenced", || (!members[p].is_writable()).then_some(()));
    cluster.never(LEASE, "somebody accepts writes", || members.iter().any(Member::is_writable));
    members[silent].container.unpause();
    members.iter().for_each(Member::heal);
    let primary = cluster.settle(&members);
    load.finish(&cluster, primary).lost_at_most(TAIL);
}

#[test]
fn a_synchronous_leader_stays_although_one_of_two_is_dead() {
    let cluster = cluster(17, &["PODGRES_SYNC=1"]);
    let (mut members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    let dead = (p + 1) % 3;
    members.iter().for_each(|m| m.cut_api(&BOTH));
    members[dead].kill();
    cluster.never(LEASE * 2, "another one accepts writes", || members.iter().any(|m| m.n != p && m.is_writable()));
    assert!(members[p].is_writable(), "{}", cluster.report());
    members.iter().filter(|m| m.n != dead).for_each(Member::heal);
    members[dead].restart_in_place();
    assert_eq!(cluster.settle(&members).n, p);
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(HICCUP);
}

#[test]
fn a_leader_that_reaches_nobody_is_fenced() {
    let cluster = cluster(17, &[]);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    members[p].cut_api(&BOTH);
    for other in members.iter().filter(|m| m.n != p) {
        members[p].cut_member(other, &[Direction::Out]);
    }
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    members[p].heal();
    assert_eq!(cluster.settle(&members).n, next);
    load.finish(&cluster, &members[next]).lost_at_most(LEASE).gap_at_most(LEASE + SLACK);
}

#[test]
fn nobody_but_a_member_is_promised_anything() {
    let cluster = cluster(17, &[]);
    let (members, p) = cluster.members(2);
    let ask = |proof: &str| {
        let body = json!({
            "cluster": "db", "term": 99, "leader": members[p].name, "uid": members[p].uid(), "of": "x",
            "duration-ms": 3_000_000, "pod": members[1 - p].name, "instance": "x", "nonce": "x"
        });
        let (text, length) = (body.to_string(), body.to_string().len());
        let request = format!(
            "POST /failsafe HTTP/1.0\r\nhost: x\r\ncontent-type: application/json\r\n{proof}content-length: {length}\r\n\r\n{text}"
        );
        client::request(members[1 - p].address(), Duration::from_secs(5), &request).0
    };
    assert_eq!((ask(""), ask("podgres-proof: 00\r\n")), (403, 428));
    assert_eq!(members[1 - p].http("/failsafe"), 405);
}
