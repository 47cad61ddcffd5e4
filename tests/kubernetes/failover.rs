//! The primary dies, freezes or is lost; another takes over, or it goes on itself. Asynchronous clusters may lose what was
//! confirmed in the last moment and had not been sent: the tests say how much.

use std::time::Duration;

use serde_json::json;

use crate::{
    cluster::{Cluster, annotation},
    harness::*,
    load::Load,
    member::{DATA, Member},
    network::BOTH,
};

/// The default of `lease-duration`.
pub const LEASE: Duration = Duration::from_secs(10);

/// What a busy machine may add.
pub const SLACK: Duration = Duration::from_secs(5);

/// What a failover of an asynchronous cluster may lose: less than this was on its way to the standbys.
pub const TAIL: Duration = Duration::from_secs(1);

#[test]
fn a_killed_postmaster_is_started_again_where_it_was() {
    for major in majors() {
        let cluster = Cluster::new(major);
        let (members, p) = cluster.members(2);
        let load = Load::start(&cluster, &members[p]);
        members[p].signal_postmaster("KILL");
        load.wait_for(&cluster, &members[p]);
        assert_eq!(cluster.settle(&members).n, p);
        load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(SLACK);
    }
}

#[test]
fn a_primary_whose_postmaster_is_frozen_is_replaced() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    // Its sessions go on: an open connection accepts writes for as long as nobody ends it.
    members[p].signal_postmaster("STOP");
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    assert_eq!(cluster.settle(&members).n, next, "the former primary follows");
    load.finish(&cluster, &members[next]).lost_at_most(TAIL).gap_at_most(LEASE + SLACK);
}

#[test]
fn a_primary_whose_container_is_gone_is_replaced_when_its_lease_has_run_out() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    members[p].kill();
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    cluster.wait("its role to be corrected", || (members[p].role().as_deref() != Some("primary")).then_some(()));
    members[next].wait_role("primary");
    // Back, it has diverged at most by what was lost.
    members[p].recreate();
    assert_eq!(cluster.settle(&members).n, next);
    load.finish(&cluster, &members[next]).lost_at_most(TAIL).gap_at_most(LEASE + SLACK);
}

#[test]
fn the_proof_of_its_death_spares_the_wait_when_the_pod_is_being_deleted() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(3);
    assert_eq!(Some(members[p].termination_message().trim()), cluster.lease_annotation("instance").as_deref());
    let load = Load::start(&cluster, &members[p]);
    members[p].delete();
    members[p].kill();
    members[p].report_end();
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    members[p].recreate();
    cluster.settle(&members);
    load.finish(&cluster, &members[next]).lost_at_most(TAIL).gap_at_most(LEASE - Duration::from_secs(4));
}

#[test]
fn a_deleted_pod_alone_proves_nothing() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    // Being deleted, and its containers said to be dead by somebody who does not know their last word.
    members[p].delete();
    let unknown =
        json!({"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "The container could not be found"});
    let status = json!({"name": "postgres", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": unknown}});
    cluster.api.patch(&format!("{}/status", members[p].path()), &json!({"status": {"containerStatuses": [status]}}));
    cluster.never(LEASE + SLACK, "somebody else took over from a primary that lives", || {
        cluster.holder() != members[p].name
    });
    load.finish(&cluster, &members[p]).nothing_lost();
}

#[test]
fn a_primary_that_is_restarted_in_place_goes_on_in_office() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    let (term, instance) = (cluster.term(), cluster.lease_annotation("instance"));
    members[p].kill();
    members[p].report_end();
    members[p].restart_in_place();
    cluster.wait("it to be primary again", || members[p].is_writable().then_some(()));
    assert_eq!(cluster.settle(&members).n, p);
    assert!(cluster.term() > term && cluster.lease_annotation("instance") != instance, "another instance's office");
    assert_eq!(members[p].query("select timeline_id from pg_control_checkpoint()"), "1");
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(LEASE);
}

#[test]
fn a_frozen_manager_leaves_no_primary_behind() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    // PID 1 alone; PostgreSQL goes on until the fence fires.
    members[p].signal_manager("STOP");
    let next = cluster.primary_other_than(p, &members).n;
    assert!(members[p].sql("select 1").is_err(), "its PostgreSQL is dead");
    load.wait_for(&cluster, &members[next]);
    members[p].signal_manager("CONT");
    // It may have been its container's end.
    let ended = || !members[p].container.is_running();
    cluster.wait("it to stand by, or to have ended", || (members[p].is_standby() || ended()).then_some(()));
    load.finish(&cluster, &members[next]).lost_at_most(TAIL).gap_at_most(LEASE + SLACK);
}

#[test]
fn a_primary_that_is_frozen_with_all_its_processes_wakes_as_a_standby() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    members[p].container.pause();
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    members[p].container.unpause();
    cluster.wait("it to stop writing", || (!members[p].is_writable()).then_some(()));
    if !members[p].container.is_running() {
        members[p].restart_in_place();
    }
    assert_eq!(cluster.settle(&members).n, next);
    // After a thaw sessions and fence wake in any order. What is confirmed in that moment is lost.
    let moment = Duration::from_millis(500);
    load.finish_apart_from(&cluster, &members[next], moment).gap_at_most(LEASE + SLACK);
}

#[test]
fn a_pod_that_is_deleted_by_force_while_it_lives_is_fenced() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    // As with a node that the API has lost: its token is void soon, the container runs on.
    members[p].forget();
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    cluster.wait("it to be no primary any more", || (!members[p].is_writable()).then_some(()));
    load.finish(&cluster, &members[next]).lost_at_most(TAIL);
}

#[test]
fn a_pod_of_the_same_name_is_a_stranger() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    // The old container runs on, somewhere; the StatefulSet makes a new pod with an empty volume.
    let new = {
        members[p].forget();
        cluster.member(p)
    };
    let old = std::mem::replace(&mut members[p], new);
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    assert_eq!(cluster.settle(&members).n, next);
    cluster.wait("the old one to be no primary any more", || (!old.is_writable()).then_some(()));
    load.finish(&cluster, &members[next]).lost_at_most(TAIL);
}

#[test]
fn a_primary_goes_on_when_its_standbys_die() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    let standbys: Vec<usize> = (0..3).filter(|n| *n != p).collect();
    for n in &standbys {
        members[*n].kill();
    }
    cluster.wait("the record to have none but the leader", || {
        let record = annotation(&cluster.lease(), "record")?;
        standbys.iter().all(|n| !record.contains(&format!("db-{n}"))).then_some(())
    });
    for n in standbys {
        members[n].restart_in_place();
    }
    assert_eq!(cluster.settle(&members).n, p);
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(Duration::from_secs(2));
}

#[test]
fn two_failovers_in_a_row_end_with_three_members() {
    let cluster = Cluster::new(15);
    let (mut members, mut p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    for _ in 0..2 {
        members[p].kill();
        let next = cluster.primary_other_than(p, &members).n;
        load.wait_for(&cluster, &members[next]);
        members[p].restart_in_place();
        assert_eq!(cluster.settle(&members).n, next);
        p = next;
    }
    load.finish(&cluster, &members[p]).lost_at_most(TAIL);
}

#[test]
fn of_two_standbys_the_one_that_has_more_takes_over() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    // By its name alone the first would be preferred.
    let (behind, best) = if p == 0 { (1, 2) } else { (0, 3 - p) };
    let load = Load::start(&cluster, &members[p]);
    members[behind].cut_member(&members[p], &BOTH);
    let lost_from = load.writes().len();
    cluster.wait("writes that only one standby has", || (load.writes().len() > lost_from + 50).then_some(()));
    members[p].kill();
    let next = cluster.primary_other_than(p, &members).n;
    assert_eq!(next, best);
    load.wait_for(&cluster, &members[next]);
    members[behind].heal();
    cluster.streams(&members[next], &members[behind]);
    load.finish(&cluster, &members[next]).lost_at_most(TAIL).gap_at_most(LEASE + SLACK);
}

/// Kills the primary when the standbys have the same: who has more goes first, whatever its priority. PostgreSQL writes WAL
/// of its own accord, of which one of them may have received what the other has not.
fn kill_with_equals(cluster: &Cluster, members: &mut [Member<'_>], equals: &[usize]) -> usize {
    let former = cluster.primary(members).n;
    for _ in 0..5 {
        let began = |n: usize| members[n].account()?.get("began").filter(|b| !b.is_null()).cloned();
        for equal in equals {
            cluster.streams(&members[former], &members[*equal]);
            // It has noted of which history that is: a standby knows a moment after it streams.
            cluster.wait("its account", || (began(*equal)? == began(former)?).then_some(()));
        }
        members[former].kill();
        let received = |n: &usize| members[*n].query("select pg_last_wal_receive_lsn()");
        if equals.windows(2).all(|two| received(&two[0]) == received(&two[1])) {
            return former;
        }
        members[former].restart_in_place();
        cluster.wait("the primary", || members[former].is_writable().then_some(()));
    }
    panic!("the standbys never had the same\n{}", cluster.report());
}

#[test]
fn of_equal_standbys_the_one_with_the_highest_priority_takes_over_and_one_with_none_never() {
    let cluster = Cluster::new(15);
    let first = cluster.member(0);
    cluster.primary(std::slice::from_ref(&first));
    // By its name alone each would be preferred to the next.
    let priorities = ["PODGRES_PRIORITY=0", "PODGRES_PRIORITY=50", "PODGRES_PRIORITY=200"];
    let standbys = priorities.iter().zip(1..).map(|(priority, n)| Member::with(&cluster, n, priority));
    let mut members: Vec<_> = std::iter::once(first).chain(standbys).collect();
    for standby in &members[1..] {
        cluster.streams(&members[0], standby);
    }
    let record = |n: usize| cluster.lease_annotation("record").is_some_and(|r| r.contains(&format!("db-{n}")));
    cluster.wait("the record to have those that may take over", || (record(2) && record(3)).then_some(()));
    assert!(!record(1));
    for next in [3, 2] {
        let former = kill_with_equals(&cluster, &mut members, &[2, next]);
        assert_eq!(cluster.primary_other_than(former, &members).n, next);
        cluster.streams(&members[next], &members[1]);
        if next == 3 {
            cluster.streams(&members[3], &members[2]);
            cluster.wait("the record to name it", || record(2).then_some(()));
        }
    }
    members[2].kill();
    cluster.never(LEASE + SLACK, "it took over", || members[1].is_writable());
    members[2].restart_in_place();
    cluster.wait("the primary", || members[2].is_writable().then_some(()));
}

#[test]
fn a_standby_that_is_too_far_behind_does_not_take_over() {
    let cluster = Cluster::with(17, &["PODGRES_MAX_LAG_ON_FAILOVER=1MB"]);
    let (mut members, p) = cluster.members(2);
    let s = 1 - p;
    let load = Load::start(&cluster, &members[p]);
    members[s].cut_member(&members[p], &BOTH);
    members[p].query("create table big as select repeat('x', 1000) from generate_series(1, 20000)");
    cluster.wait("the record to drop it", || {
        (!cluster.lease_annotation("record")?.contains(&members[s].name)).then_some(())
    });
    members[p].kill();
    cluster.never(LEASE + SLACK, "it took over", || cluster.holder() == members[s].name || members[s].is_writable());
    members[p].restart_in_place();
    cluster.wait("the primary", || members[p].is_writable().then_some(()));
    members[s].heal();
    assert_eq!(cluster.settle(&members).n, p);
    load.finish(&cluster, &members[p]).nothing_lost();
}

#[test]
fn a_leader_that_cannot_start_its_postgres_gives_up_its_office() {
    let cluster = Cluster::with(17, &["PODGRES_START_TIMEOUT=10s"]);
    let (members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    // Its data cannot be read any more.
    members[p]
        .container
        .shell(&format!("chmod 000 {DATA}/global {DATA}/base; kill -KILL $(head -n 1 {DATA}/postmaster.pid)"));
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    members[p].container.shell(&format!("chmod 700 {DATA}/global {DATA}/base"));
    assert_eq!(cluster.settle(&members).n, next);
    load.finish(&cluster, &members[next]).lost_at_most(TAIL);
}

#[test]
fn a_standby_that_is_promoted_past_the_cluster_does_not_stay_a_primary() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let standby = &members[1 - p];
    // Its own answer may be cut off by what follows.
    let _ = standby.sql("select pg_promote(false)");
    cluster.wait("the manager to say so", || {
        standby.container.stdout().contains("promoted by somebody else than the cluster").then_some(())
    });
    // What it has that the cluster has not diverged: it comes back as what the cluster wants.
    assert_eq!(cluster.settle(&members).n, p);
    members[1 - p].annotate("promote", json!("please"));
    let next = cluster.primary_other_than(p, &members).n;
    assert_eq!(cluster.settle(&members).n, next);
}
