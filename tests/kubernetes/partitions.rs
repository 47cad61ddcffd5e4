//! The network is cut, in one direction or both.

use std::time::Duration;

use crate::{
    cluster::Cluster,
    load::Load,
    network::{BOTH, Direction},
};

/// The default of `lease-duration`, and what a busy machine may add.
const LEASE: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(5);

/// What is lost of an asynchronous primary's confirmed rows: it is fenced before another one is elected, and its standbys
/// stream until then.
const TAIL: Duration = Duration::from_secs(1);

/// Without failsafe: with it the others let such a leader stay.
fn a_leader_without_the_api_is_replaced(directions: &[Direction]) {
    let cluster = Cluster::with(17, &["PODGRES_FAILSAFE=off"]);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    members[p].cut_api(directions);
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    // It follows whom its peers follow, or waits: read-only in either case.
    assert!(!members[p].is_writable());
    assert_ne!(members[p].http("/primary"), 200);
    members[p].heal();
    assert_eq!(cluster.settle(&members).n, next, "the former leader follows");
    members[p].wait_role("replica");
    load.finish(&cluster, &members[next]).lost_at_most(TAIL).gap_at_most(LEASE + SLACK);
}

#[test]
fn a_leader_that_is_cut_off_from_the_api_is_fenced_and_comes_back_as_a_standby() {
    a_leader_without_the_api_is_replaced(&BOTH);
}

#[test]
fn a_leader_that_hears_nothing_of_the_api_is_fenced_although_its_own_requests_arrive() {
    a_leader_without_the_api_is_replaced(&[Direction::In]);
}

#[test]
fn a_leader_whose_requests_do_not_arrive_at_the_api_is_fenced_although_it_hears_of_it() {
    a_leader_without_the_api_is_replaced(&[Direction::Out]);
}

#[test]
fn a_leader_that_is_cut_off_from_everybody_is_fenced_and_loses_what_it_could_not_send() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    members[p].cut_api(&BOTH);
    for other in members.iter().filter(|m| m.n != p) {
        members[p].cut_member(other, &BOTH);
    }
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    assert!(!members[p].is_writable());
    members[p].heal();
    assert_eq!(cluster.settle(&members).n, next, "rewound, the former leader follows");
    // Writes went on until the fence: what was confirmed in one lease is on it alone.
    load.finish(&cluster, &members[next]).lost_at_most(LEASE).gap_at_most(LEASE + SLACK);
}

#[test]
fn a_leader_that_only_its_standbys_do_not_reach_stays() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    let term = cluster.term();
    for other in members.iter().filter(|m| m.n != p) {
        members[p].cut_member(other, &BOTH);
    }
    cluster.never(LEASE + SLACK, "another took over", || cluster.holder() != members[p].name || cluster.term() != term);
    members[p].heal();
    assert_eq!(cluster.settle(&members).n, p);
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(Duration::from_secs(2));
}

#[test]
fn a_standby_that_is_cut_off_from_the_api_goes_on_streaming() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let s = 1 - p;
    let load = Load::start(&cluster, &members[p]);
    members[s].cut_api(&BOTH);
    cluster.never(LEASE + SLACK, "it does not stand by", || !members[s].is_standby());
    cluster.streams(&members[p], &members[s]);
    members[s].heal();
    assert_eq!(cluster.settle(&members).n, p);
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(Duration::from_secs(2));
}
