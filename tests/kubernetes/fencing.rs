//! Fenced means that PostgreSQL stays down; paused that nothing automatic happens.

use std::time::Duration;

use serde_json::json;

use crate::{cluster::Cluster, harness::*, load::Load, member::Member};

const LEASE: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(5);

fn is_down(member: &Member<'_>) -> bool {
    member.sql("select 1").is_err()
}

#[test]
fn a_fenced_standby_stays_down_until_it_is_not_fenced_any_more() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    let s = 1 - p;
    members[s].annotate("fenced", json!("true"));
    cluster.wait("its PostgreSQL to be down", || is_down(&members[s]).then_some(()));
    assert_eq!((members[s].http("/livez"), members[s].http("/readyz")), (200, 503));
    members[s].set_ready(false);
    cluster.wait("the record to drop it", || {
        (!cluster.lease_annotation("record")?.contains(&members[s].name)).then_some(())
    });
    // A restart does not lift it.
    members[s].kill();
    members[s].restart_in_place();
    cluster.wait("its manager", || (members[s].http("/livez") == 200).then_some(()));
    cluster.never(Duration::from_secs(3), "it runs", || !is_down(&members[s]));
    let status = stdout(&members[s].podgres(&["status"]));
    assert!(status.contains("fenced"), "{status}");
    members[s].annotate("fenced", json!(null));
    assert_eq!(cluster.settle(&members).n, p);
}

#[test]
fn a_fenced_leader_gives_its_office_to_another() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    members[p].annotate("fenced", json!("true"));
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    cluster.wait("its PostgreSQL to be down", || is_down(&members[p]).then_some(()));
    cluster.never(Duration::from_secs(3), "it runs", || !is_down(&members[p]));
    members[p].annotate("fenced", json!("false"));
    assert_eq!(cluster.settle(&members).n, next);
    load.finish(&cluster, &members[next]).nothing_lost().gap_at_most(SLACK);
}

#[test]
fn a_value_of_fenced_that_makes_no_sense_changes_nothing() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(1);
    members[p].annotate("fenced", json!("perhaps"));
    cluster.wait_for_event(&["Warning", "fenced", "true", &members[p].name]);
    assert!(members[p].is_writable());
    assert_eq!(members[p].annotation("fenced").as_deref(), Some("perhaps"));
}

#[test]
fn fence_and_pause_are_commands_too() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let s = 1 - p;
    let ok = |n: usize, arguments: &[&str]| {
        let said = members[n].podgres(arguments);
        assert!(said.status.success(), "{arguments:?}: {}{}\n{}", stdout(&said), stderr(&said), cluster.report());
    };
    ok(s, &["fence", "on"]);
    assert_eq!(members[s].annotation("fenced").as_deref(), Some("true"));
    cluster.wait("its PostgreSQL to be down", || is_down(&members[s]).then_some(()));
    ok(s, &["fence", "off"]);
    assert_eq!(cluster.settle(&members).n, p);
    ok(s, &["pause"]);
    assert_eq!(cluster.lease_annotation("paused").as_deref(), Some("true"));
    let refused = members[s].podgres(&["promote"]);
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("paused"), "{}", stderr(&refused));
    ok(p, &["resume"]);
    assert!(cluster.lease_annotation("paused").is_none_or(|p| p != "true"));
}

#[test]
fn while_the_cluster_is_paused_nobody_takes_over() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    cluster.annotate_lease("paused", json!("true"));
    // Seen by all: the leader's next renewal, and everybody's watch.
    let renewed = cluster.lease()["spec"]["renewTime"].clone();
    cluster.wait("two renewals", || (cluster.lease()["spec"]["renewTime"] != renewed).then_some(()));
    members[p].kill();
    cluster.never(LEASE + SLACK, "somebody took over", || {
        cluster.holder() != members[p].name || members.iter().any(Member::is_writable)
    });
    cluster.annotate_lease("paused", json!(null));
    // It may be alive, cut off from the API, and not know that the pause is over (04-traces, T15).
    cluster.never(LEASE + SLACK, "somebody took over", || cluster.holder() != members[p].name);
    members[p].restart_in_place();
    assert_eq!(cluster.settle(&members).n, p);
    load.finish(&cluster, &members[p]).nothing_lost();
}

#[test]
fn a_paused_leader_is_not_fenced_by_an_api_that_it_does_not_reach() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    cluster.annotate_lease("paused", json!("true"));
    for _ in 0..2 {
        let renewed = cluster.lease()["spec"]["renewTime"].clone();
        cluster.wait("a renewal", || (cluster.lease()["spec"]["renewTime"] != renewed).then_some(()));
    }
    members[p].cut_api(&crate::network::BOTH);
    cluster.never(LEASE + SLACK, "it stopped or another took over", || {
        !members[p].is_writable() || cluster.holder() != members[p].name
    });
    members[p].heal();
    // The others count from its next renewal.
    let renewed = cluster.lease()["spec"]["renewTime"].clone();
    cluster.wait("a renewal", || (cluster.lease()["spec"]["renewTime"] != renewed).then_some(()));
    cluster.annotate_lease("paused", json!(null));
    cluster.never(SLACK, "another took over", || cluster.holder() != members[p].name);
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(Duration::from_secs(2));
}
