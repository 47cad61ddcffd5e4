//! Members that come back, with their data or without it, and a Lease that is gone.

use std::time::Duration;

use crate::{cluster::Cluster, harness::*, load::Load};

const LEASE: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn a_standby_that_has_lost_its_volume_is_cloned() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    members[1 - p].kill();
    members[1 - p].recreate_empty();
    assert_eq!(cluster.settle(&members).n, p);
    let log = members[1 - p].container.stdout();
    assert!(log.contains("cloning is complete") && !log.contains("init process complete"), "{log}");
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(Duration::from_secs(2));
}

/// Found by a campaign of faults: each new copy has a slot of its own, and those before it were kept for a day.
#[test]
fn a_standby_is_cloned_although_its_former_copies_have_all_slots() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    let slots = format!("from pg_replication_slots where slot_name ~ '^podgres_db_{}_'", 1 - p);
    let fill = format!(
        "select count(pg_create_physical_replication_slot('podgres_db_{}_' || lpad(to_hex(n), 8, '0'), true))
           from generate_series(1, current_setting('max_replication_slots')::int - 1) n",
        1 - p
    );
    assert_eq!(members[p].query(&fill), "9");
    members[1 - p].kill();
    members[1 - p].recreate_empty();
    assert_eq!(cluster.settle(&members).n, p);
    cluster
        .wait("one slot to be left", || (members[p].query(&format!("select count(*) {slots}")) == "1").then_some(()));
}

#[test]
fn a_primary_that_has_lost_its_volume_becomes_a_standby() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    members[p].kill();
    members[p].recreate_empty();
    assert_eq!(cluster.settle(&members).n, 1 - p);
    assert!(!members[p].container.stdout().contains("init process complete"));
    load.finish(&cluster, &members[1 - p]).lost_at_most(Duration::from_secs(1)).gap_at_most(LEASE + SLACK);
}

#[test]
fn a_whole_cluster_whose_power_fails_comes_back_with_its_data() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    let names: Vec<_> = members.iter().map(|m| m.container.name.clone()).collect();
    docker_ok(&[&["kill"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
    for member in &mut members {
        member.set_ready(false);
        member.restart_in_place();
    }
    assert_eq!(cluster.settle(&members).n, p, "who has everything goes on");
    assert!(members.iter().all(|m| !m.container.stdout().contains("init process complete")));
    load.finish(&cluster, &members[p]).nothing_lost();
}

#[test]
fn a_cluster_that_is_scaled_to_nothing_and_back_has_its_data() {
    let cluster = Cluster::new(15);
    let (mut members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    // A StatefulSet takes the last first; the one that remains takes over, or goes on.
    for n in [1, 0] {
        members[n].delete();
        members[n].container.signal("TERM");
        assert_eq!(members[n].container.wait(), 0, "{}", members[n].container.log());
    }
    for member in &mut members {
        member.recreate();
    }
    let primary = cluster.settle(&members);
    assert!(members.iter().all(|m| !m.container.stdout().contains("init process complete")));
    load.finish(&cluster, primary).nothing_lost();
}

#[test]
fn a_deleted_lease_is_written_anew_by_the_leader_in_office() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    let (term, identity) = (cluster.term(), cluster.lease_annotation("system-id"));
    assert!(cluster.api.delete(&cluster.lease_path(), 0));
    cluster.wait("the Lease to be there", || (!cluster.lease().is_null()).then_some(()));
    cluster.never(LEASE + SLACK, "another took over", || cluster.holder() != members[p].name);
    assert!(cluster.term() >= term);
    assert_eq!(cluster.lease_annotation("system-id"), identity);
    assert!(cluster.lease_annotation("record").is_some_and(|r| members.iter().all(|m| r.contains(&m.name))));
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(Duration::from_secs(2));
}

#[test]
fn a_deleted_lease_and_nobody_up_is_no_reason_to_begin_anew() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    let (term, identity) = (cluster.term(), members[p].system_identifier());
    for member in &members {
        member.kill();
    }
    assert!(cluster.api.delete(&cluster.lease_path(), 0));
    for member in &mut members {
        member.recreate();
    }
    let primary = cluster.settle(&members);
    assert!(members.iter().all(|m| !m.container.stdout().contains("init process complete")));
    assert_eq!(primary.system_identifier(), identity);
    assert!(cluster.term() > term);
    load.finish(&cluster, primary).lost_at_most(Duration::from_secs(1));
}

#[test]
fn an_empty_member_beside_data_makes_no_cluster_of_its_own_without_a_lease() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    members[p].query("create table t (t text); insert into t values ('kept')");
    cluster.streams(&members[p], &members[1 - p]);
    for member in &members {
        member.kill();
    }
    assert!(cluster.api.delete(&cluster.lease_path(), 0));
    // The empty one comes first.
    members[p].recreate_empty();
    cluster.never(LEASE + SLACK, "it made a new cluster", || {
        members[p].container.stdout().contains("init process complete")
    });
    members[1 - p].restart_in_place();
    assert_eq!(cluster.settle(&members).n, 1 - p);
    assert_eq!(members[p].query("select t from t"), "kept");
}
