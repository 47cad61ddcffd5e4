//! What members show of themselves: labels, annotations, probes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, annotation},
    harness::docker_ok,
    member::Member,
};

#[test]
fn probes_tell_a_primary_from_a_standby() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let probes = |m: &Member<'_>| {
        ["/livez", "/startupz", "/readyz", "/primary", "/replica", "/read-only"].map(|path| m.http(path))
    };
    assert_eq!(probes(&members[p]), [200, 200, 200, 200, 503, 200]);
    assert_eq!(probes(&members[1 - p]), [200, 200, 200, 503, 200, 200]);
    assert_eq!(members[1 - p].http("/readyz?lag=16MB"), 200);
}

#[test]
fn a_stale_role_label_is_corrected_by_the_leader() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let s = &members[1 - p];
    s.wait_role("replica");
    let label = |m: &Member<'_>, role: Value| {
        cluster.api.patch(&m.path(), &json!({"metadata": {"labels": {"podgres.io/role": role}}}));
    };
    label(s, json!("primary"));
    cluster.wait("the standby's label to be corrected", || (s.role().as_deref() != Some("primary")).then_some(()));
    label(&members[p], json!(null));
    members[p].wait_role("primary");
    // One that is dead cannot correct its own.
    s.kill();
    label(s, json!("primary"));
    cluster.wait("the dead member's label to be corrected", || (s.role().as_deref() != Some("primary")).then_some(()));
}

#[test]
fn the_status_annotation_says_what_a_member_is_and_is_not_written_at_every_tick() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let identity = members[p].system_identifier();
    for member in &members {
        let role = if member.n == p { "primary" } else { "standby" };
        cluster.wait(&format!("{} to say that it is {role}", member.name), || {
            let status: Value = serde_json::from_str(&member.annotation("status")?).ok()?;
            let is = |key: &str, value: &str| status[key].as_str() == Some(value);
            let http = format!("{}:8008", member.address());
            (is("role", role) && is("state", "running") && is("system-id", &identity) && is("http", &http))
                .then_some(())
        });
    }
    members[p].query("create table t as select generate_series(1, 100000)");
    // Things may still settle.
    let state = || members.iter().map(|m| annotation(&m.object(), "status")).collect::<Vec<_>>();
    let mut last = state();
    cluster.wait("nothing to change for a while", || {
        let now = (0..60).try_for_each(|_| {
            std::thread::sleep(Duration::from_millis(50));
            if state() == last { Ok(()) } else { Err(()) }
        });
        last = state();
        now.ok()
    });
    let version = |m: &Member<'_>| m.object()["metadata"]["resourceVersion"].clone();
    let before: Vec<_> = members.iter().map(version).collect();
    members[p].query("insert into t select generate_series(1, 1000)");
    cluster.never(Duration::from_secs(6), "a pod was written without a reason", || {
        members.iter().map(version).collect::<Vec<_>>() != before
    });
}

#[test]
fn the_status_annotation_has_the_version_and_what_waits_for_a_restart() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(1);
    let status = || serde_json::from_str::<Value>(&members[p].annotation("status")?).ok();
    cluster.wait("the version", || status()?["version"].as_str().filter(|v| v.starts_with("17.")).map(drop));
    let waits = |yes: bool| move |s: Value| (s["pending-restart"].as_bool().unwrap_or(false) == yes).then_some(());
    assert!(status().and_then(waits(false)).is_some(), "nothing waits yet");
    members[p].query("alter system set max_locks_per_transaction = 128");
    docker_ok(&["exec", &members[p].container.name, "podgres", "reload"]);
    cluster.wait("it to say that a setting waits", || status().and_then(waits(true)));
    docker_ok(&["exec", &members[p].container.name, "podgres", "restart"]);
    cluster.wait("it to say that none does any more", || status().and_then(waits(false)));
    assert_eq!(members[p].query("show max_locks_per_transaction"), "128");
}

#[test]
fn only_the_holder_of_the_lease_is_primary_for_load_balancers() {
    let cluster = Cluster::with(17, &["PODGRES_FAILSAFE=off"]);
    let (members, p) = cluster.members(2);
    members[p].cut_api(&crate::network::BOTH);
    // 503 comes no later than another primary.
    let other = &members[1 - p];
    cluster.wait("the other to be primary", || {
        let (first, second) = (other.http("/primary"), members[p].http("/primary"));
        assert!(!(first == 200 && second == 200), "both say 200");
        (first == 200).then_some(())
    });
}
