//! Synchronous clusters: nothing that was confirmed is lost, whoever is killed, frozen or cut off.

use std::time::Duration;

use serde_json::Value;

use crate::{cluster::Cluster, harness::*, load::Load, member::Member};

/// The default of `lease-duration`.
const LEASE: Duration = Duration::from_secs(10);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);

const ONE: [&str; 1] = ["PODGRES_SYNC=1"];
const STRICT: [&str; 2] = ["PODGRES_SYNC=1", "PODGRES_SYNC_STRICT=true"];

fn names(primary: &Member<'_>) -> String {
    primary.sql("show synchronous_standby_names").unwrap_or_default()
}

/// The record's votes, and the pods of its members.
fn record(cluster: &Cluster) -> Option<(u64, Vec<String>)> {
    let record: Value = serde_json::from_str(&cluster.lease_annotation("record")?).ok()?;
    let members = record["members"].as_array()?.iter();
    Some((record["votes"].as_u64()?, members.filter_map(|m| m["pod"].as_str().map(str::to_string)).collect()))
}

/// Waits until the record has so many votes and members, and the primary waits for those standbys.
fn settles(cluster: &Cluster, primary: &Member<'_>, votes: u64, members: usize) {
    cluster.wait(&format!("a record of {votes} votes and {members} members"), || {
        let (v, m) = record(cluster)?;
        let names = names(primary);
        let there = m.iter().all(|pod| *pod == primary.name || names.contains(&format!("\"{pod}_")));
        ((v, m.len()) == (votes, members) && there).then_some(())
    });
}

#[test]
fn standbys_confirm_and_the_record_follows_who_is_there() {
    for major in MAJORS {
        let cluster = Cluster::with(major, &ONE);
        let (mut members, p) = cluster.members(3);
        settles(&cluster, &members[p], 2, 3);
        assert!(names(&members[p]).starts_with("ANY 1 ("), "{}", names(&members[p]));
        let load = Load::start(&cluster, &members[p]);
        let s = (p + 1) % 3;
        members[s].kill();
        settles(&cluster, &members[p], 1, 2);
        members[s].restart_in_place();
        settles(&cluster, &members[p], 2, 3);
        let status = String::from_utf8_lossy(&members[p].podgres(&["status"]).stdout).into_owned();
        assert!(status.contains("quorum") && !status.contains('!'), "{status}");
        load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(Duration::from_secs(2));
    }
}

#[test]
fn the_last_standby_goes_and_comes() {
    let cluster = Cluster::with(17, &ONE);
    let (members, p) = cluster.members(2);
    settles(&cluster, &members[p], 1, 2);
    let load = Load::start(&cluster, &members[p]);
    // It streams on, as far as its connection tells.
    members[1 - p].container.pause();
    settles(&cluster, &members[p], 1, 1);
    assert_eq!(names(&members[p]), "");
    load.wait_for(&cluster, &members[p]);
    let status = String::from_utf8_lossy(&members[p].podgres(&["status"]).stdout).into_owned();
    assert!(status.contains(&format!("only {}, or a person", members[p].name)), "{status}");
    cluster.wait_for_event(&["Warning", "SyncDegraded"]);
    members[1 - p].container.unpause();
    settles(&cluster, &members[p], 1, 2);
    cluster.wait_for_event(&["Normal", "SyncStandbys"]);
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(LEASE + SLACK);
}
