//! The primary is handed over, because somebody asks for it or because it is told to stop. No confirmed row is lost.

use std::time::Duration;

use serde_json::json;

use crate::{
    cluster::Cluster,
    harness::*,
    load::{Load, Outcome},
    member::Member,
};

/// What a planned hand-over may take on a busy machine. How long it takes is the benchmark's to measure.
const HANDOVER: Duration = Duration::from_secs(4);

/// Waits for `to` to be primary and the others its standbys; a hand-over loses nothing.
fn handed_over(cluster: &Cluster, load: Load, members: &[Member<'_>], to: usize) -> Outcome {
    cluster.wait(&format!("db-{to} to be primary"), || members[to].is_writable().then_some(()));
    assert_eq!(cluster.settle(members).n, to);
    let outcome = load.finish(cluster, &members[to]);
    outcome.nothing_lost().gap_at_most(HANDOVER);
    for member in members {
        member.wait_role(if member.n == to { "primary" } else { "replica" });
    }
    outcome
}

#[test]
fn a_standby_whose_pod_is_annotated_becomes_the_primary() {
    for major in majors() {
        let cluster = Cluster::new(major);
        let (members, p) = cluster.members(3);
        let to = (p + 1) % 3;
        let load = Load::start(&cluster, &members[p]);
        let term = cluster.term();
        members[to].annotate("promote", json!("please"));
        handed_over(&cluster, load, &members, to);
        cluster.wait("the annotation to be removed", || members[to].annotation("promote").is_none().then_some(()));
        let outcome = members[to].wait_outcome(&None, &[" ms"]);
        assert!(outcome.contains("promote"), "{outcome}");
        cluster.wait_for_event(&["Normal", &members[to].name, " ms"]);
        assert!(cluster.term() > term);
        // The former primary had nothing to undo.
        let log = members[p].container.stdout();
        assert!(!log.contains("rewinding") && !log.contains("cloning"), "{log}");
    }
}

#[test]
fn the_lease_is_annotated_with_the_name_of_the_next_primary() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    let to = (p + 2) % 3;
    let load = Load::start(&cluster, &members[p]);
    cluster.annotate_lease("switchover-to", json!(members[to].name));
    handed_over(&cluster, load, &members, to);
    cluster.wait("the annotation to be removed", || cluster.lease_annotation("switchover-to").is_none().then_some(()));
    cluster.wait_for_event(&["Normal", " ms"]);
}

#[test]
fn any_standby_will_do_where_the_lease_is_annotated_so() {
    let cluster = Cluster::new(15);
    let (members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    cluster.annotate_lease("switchover-to", json!("any"));
    handed_over(&cluster, load, &members, 1 - p);
    cluster.wait("the annotation to be removed", || cluster.lease_annotation("switchover-to").is_none().then_some(()));
}

#[test]
fn the_signal_that_promotes_is_a_request_like_any_other() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    members[1 - p].container.signal("USR1");
    handed_over(&cluster, load, &members, 1 - p);
}

#[test]
fn commands_hand_over_and_say_how_long_writes_were_refused() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let to = 1 - p;
    let load = Load::start(&cluster, &members[p]);
    // Whoever is asked: here the standby, for itself.
    let said = members[p].podgres(&["switchover", "--to", &members[to].name]);
    assert!(said.status.success(), "{}\n{}", stderr(&said), cluster.report());
    assert!(stdout(&said).contains(" ms") && stdout(&said).contains(&members[to].name), "{}", stdout(&said));
    cluster.settle(&members);
    load.wait_for(&cluster, &members[to]);
    let said = members[p].podgres(&["promote"]);
    assert!(said.status.success(), "{}\n{}", stderr(&said), cluster.report());
    assert!(stdout(&said).contains(" ms"), "{}", stdout(&said));
    handed_over(&cluster, load, &members, p);
    let said = members[to].podgres(&["switchover"]);
    assert!(said.status.success(), "{}\n{}", stderr(&said), cluster.report());
    assert_eq!(cluster.settle(&members).n, to);
}

#[test]
fn a_primary_that_is_told_to_stop_hands_over_first() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    members[p].delete();
    members[p].container.signal("TERM");
    let next = cluster.primary_other_than(p, &members).n;
    assert_eq!(members[p].container.wait(), 0, "{}", members[p].container.log());
    load.wait_for(&cluster, &members[next]);
    members[p].recreate();
    assert_eq!(cluster.settle(&members).n, next);
    load.finish(&cluster, &members[next]).nothing_lost().gap_at_most(HANDOVER);
    let log = members[p].container.stdout();
    assert!(!log.contains("rewinding") && !log.contains("cloning"), "{log}");
}

#[test]
fn a_rolling_restart_hands_over_as_often_as_it_must_and_loses_nothing() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(3);
    let load = Load::start(&cluster, &members[p]);
    // As a StatefulSet does: from the last, each once the one before is ready.
    for n in [2, 1, 0] {
        members[n].delete();
        members[n].container.signal("TERM");
        assert_eq!(members[n].container.wait(), 0, "{}", members[n].container.log());
        members[n].recreate();
        cluster.settle(&members);
    }
    let primary = cluster.settle(&members);
    load.finish(&cluster, primary).nothing_lost().gap_at_most(HANDOVER);
}

#[test]
fn a_primary_without_a_standby_stops_when_it_is_told_to_and_comes_back() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(1);
    members[p].query("create table t (t text); insert into t values ('kept')");
    members[p].container.signal("TERM");
    assert_eq!(members[p].container.wait(), 0, "{}", members[p].container.log());
    members[p].recreate();
    // The Lease was freed: nobody waits for it to run out.
    cluster.within(Duration::from_secs(15), "it to accept writes", || members[p].is_writable().then_some(()));
    assert_eq!(members[p].query("select t from t"), "kept");
}

/// Annotates something, and waits for a Warning with all these words in it. Nothing changes.
fn refused(cluster: &Cluster, members: &[Member<'_>], p: usize, words: &[&str], ask: impl FnOnce()) -> String {
    let before = cluster.events();
    let term = cluster.term();
    ask();
    let event = cluster.wait(&format!("a new Warning with {words:?}"), || {
        let new = |e: &String| !before.contains(e) && e.starts_with("Warning") && words.iter().all(|w| e.contains(w));
        cluster.events().into_iter().find(new)
    });
    assert!(members[p].is_writable() && cluster.term() == term, "{event}\n{}", cluster.report());
    event
}

#[test]
fn wrong_requests_are_refused_in_words_and_change_nothing() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    let (s, t) = ((p + 1) % 3, (p + 2) % 3);
    let refuse = |words: &[&str], ask: &dyn Fn()| refused(&cluster, &members, p, words, ask);
    let to = |value: &str| cluster.annotate_lease("switchover-to", json!(value));

    refuse(&["db-7"], &|| to("db-7"));
    assert_eq!(cluster.lease_annotation("switchover-to").as_deref(), Some("db-7"), "nonsense is kept");
    cluster.annotate_lease("switchover-to", json!(null));
    refuse(&[&members[p].name, "primary"], &|| to(&members[p].name));
    cluster.annotate_lease("switchover-to", json!(null));

    // Of podgres' own commands the caller hears it.
    let said = members[p].podgres(&["switchover", "--to", "db-7"]);
    assert_eq!(said.status.code(), Some(1), "{}", stdout(&said));
    assert!(stderr(&said).contains("db-7"), "{}", stderr(&said));
    let said = members[p].podgres(&["promote"]);
    assert!(stdout(&said).contains("primary") || stderr(&said).contains("primary"), "{}", stderr(&said));

    members[s].annotate("fenced", json!("true"));
    cluster.wait("the fenced member to be down", || members[s].sql("select 1").is_err().then_some(()));
    refuse(&["fenced"], &|| to(&members[s].name));
    cluster.annotate_lease("switchover-to", json!(null));
    members[s].annotate("fenced", json!(null));

    // One that does not stream: its container is gone.
    members[t].kill();
    cluster.wait("it to be gone", || {
        let streams =
            format!("select count(*) from pg_stat_replication where client_addr = '{}'", members[t].address());
        (members[p].query(&streams) == "0").then_some(())
    });
    refuse(&[&members[t].name, "does not"], &|| to(&members[t].name));
    cluster.annotate_lease("switchover-to", json!(null));

    cluster.annotate_lease("paused", json!("true"));
    refuse(&["paused"], &|| to(&members[s].name));
    cluster.annotate_lease("switchover-to", json!(null));
    refuse(&["paused", "true"], &|| cluster.annotate_lease("paused", json!("maybe")));
    assert_eq!(cluster.lease_annotation("paused").as_deref(), Some("maybe"), "nonsense is kept");
}

#[test]
fn nobody_stops_writing_for_a_standby_that_is_frozen() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    // The connection of its walreceiver stands: PostgreSQL will count it as streaming for a while.
    members[1 - p].container.pause();
    refused(&cluster, &members, p, &["promote", "does not answer"], || members[1 - p].annotate("promote", json!("x")));
    members[1 - p].container.unpause();
    assert_eq!(cluster.settle(&members).n, p);
    load.finish(&cluster, &members[p]).nothing_lost().gap_at_most(Duration::from_secs(2));
}
