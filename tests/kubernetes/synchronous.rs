//! Synchronous clusters: nothing that was confirmed is lost, whoever is killed, frozen or cut off.

use std::time::Duration;

use serde_json::Value;

use crate::{
    client,
    cluster::{Cluster, NOBODY},
    harness::*,
    load::Load,
    member::Member,
    network::BOTH,
};

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
    for major in majors() {
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

#[test]
fn nobody_is_recorded_before_every_process_of_the_server_waits_for_them() {
    let cluster = Cluster::with(17, &ONE);
    let (members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    members[1 - p].container.pause();
    settles(&cluster, &members[p], 1, 1);
    // It alone tells backends that there is somebody to wait for, when it gets to read its file: trace T4.
    let checkpointer = members[p].query("select pid from pg_stat_activity where backend_type = 'checkpointer'");
    members[p].container.shell(&format!("kill -STOP {checkpointer}"));
    members[1 - p].container.unpause();
    cluster.wait("the standby to be wanted", || names(&members[p]).contains("_nobody").then_some(()));
    cluster.never(Duration::from_secs(6), "a record of two, and commits that one has", || {
        record(&cluster).is_none_or(|(_, recorded)| recorded.len() > 1)
    });
    members[p].container.shell(&format!("kill -CONT {checkpointer}"));
    settles(&cluster, &members[p], 1, 2);
    load.finish(&cluster, &members[p]).nothing_lost();
}

#[test]
fn nothing_is_lost_with_a_primary_whose_container_is_killed() {
    for major in majors() {
        let cluster = Cluster::with(major, &ONE);
        let (mut members, p) = cluster.members(3);
        settles(&cluster, &members[p], 2, 3);
        let load = Load::start(&cluster, &members[p]);
        members[p].kill();
        let next = cluster.primary_other_than(p, &members).n;
        load.wait_for(&cluster, &members[next]);
        members[p].recreate();
        assert_eq!(cluster.settle(&members).n, next);
        settles(&cluster, &members[next], 2, 3);
        load.finish(&cluster, &members[next]).nothing_lost().gap_at_most(LEASE + SLACK);
    }
}

#[test]
fn nothing_is_lost_with_a_primary_that_is_frozen_with_all_its_processes_and_wakes() {
    let cluster = Cluster::with(17, &ONE);
    let (mut members, p) = cluster.members(3);
    settles(&cluster, &members[p], 2, 3);
    let load = Load::start(&cluster, &members[p]);
    members[p].container.pause();
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    // Nobody who voted confirms anything of what it still has to say.
    members[p].container.unpause();
    cluster.wait("it to stand by, or to have ended", || {
        (members[p].is_standby() || !members[p].container.is_running()).then_some(())
    });
    if !members[p].container.is_running() {
        members[p].restart_in_place();
    }
    assert_eq!(cluster.settle(&members).n, next);
    load.finish(&cluster, &members[next]).nothing_lost().gap_at_most(LEASE + SLACK);
}

#[test]
fn short_of_votes_it_waits_for_whoever_may_have_the_last_commit() {
    let cluster = Cluster::with(17, &ONE);
    let (members, p) = cluster.members(3);
    settles(&cluster, &members[p], 2, 3);
    let (b, c) = ((p + 1) % 3, (p + 2) % 3);
    let load = Load::start(&cluster, &members[p]);
    // What is confirmed from here on only c has, and c is gone too.
    members[b].container.pause();
    load.wait_for(&cluster, &members[p]);
    members[c].container.pause();
    members[p].kill();
    members[b].container.unpause();
    let words = ["votes for this one, waiting for", &members[c].name];
    cluster.wait("it to say for whom it waits", || {
        let status = members[b].podgres(&["status"]);
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        words.iter().all(|w| status.contains(w)).then_some(())
    });
    cluster.never(Duration::from_secs(3), "a primary without the last commits", || members[b].is_writable());
    members[c].container.unpause();
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    load.finish(&cluster, &members[next]).nothing_lost();
}

#[test]
fn a_voter_whose_replay_is_paused_votes_with_what_it_has_received() {
    let cluster = Cluster::with(17, &ONE);
    let (members, p) = cluster.members(3);
    settles(&cluster, &members[p], 2, 3);
    let load = Load::start(&cluster, &members[p]);
    // The walreceiver goes on, and what it confirms nobody has replayed: trace T5.
    for standby in [(p + 1) % 3, (p + 2) % 3] {
        members[standby].query("select pg_wal_replay_pause()");
    }
    std::thread::sleep(Duration::from_secs(1));
    members[p].kill();
    let next = cluster.primary_other_than(p, &members).n;
    // Whoever takes over replays what it has; the other one's pause is for whoever made it to end.
    members[3 - p - next].query("select pg_wal_replay_resume()");
    load.wait_for(&cluster, &members[next]);
    load.finish(&cluster, &members[next]).nothing_lost().gap_at_most(LEASE + SLACK);
}

#[test]
fn a_promise_outlives_the_voter_and_ends_with_the_leaders_word() {
    let cluster = Cluster::with(17, &ONE);
    let (mut members, p) = cluster.members(3);
    settles(&cluster, &members[p], 2, 3);
    let term = cluster.term();
    let (b, c) = ((p + 1) % 3, (p + 2) % 3);
    let load = Load::start(&cluster, &members[p]);
    // By their own watch the leader has not renewed, and it does not answer; but it has.
    for member in [b, c] {
        members[member].cut_api(&BOTH);
        members[member].cut_member(&members[p], &BOTH);
    }
    let promised = |m: &Member<'_>| m.container.stdout().contains(&format!("term {} is promised", term + 1));
    cluster.wait("both to promise the next term", || (promised(&members[b]) && promised(&members[c])).then_some(()));
    let server = std::mem::replace(&mut members[c].server, (NOBODY.into(), cluster.server.1.clone()));
    members[c].restart_in_place();
    cluster.wait("it to run", || members[c].is_standby().then_some(()));
    cluster.never(Duration::from_secs(5), "a voter that receives before it has seen the Lease", || {
        members[c].sql("select count(*) from pg_stat_wal_receiver").is_ok_and(|n| n != "0")
            || members[c].sql("show primary_conninfo").is_ok_and(|s| !s.is_empty())
    });
    members[c].server = server;
    members[c].restart_in_place();
    members[b].heal();
    assert_eq!(cluster.settle(&members).n, p);
    assert_eq!(cluster.term(), term + 1, "the votes are void: the leader has their term");
    settles(&cluster, &members[p], 2, 3);
    load.finish(&cluster, &members[p]).nothing_lost();
}

#[test]
fn a_strict_primary_rather_waits_than_confirms_alone() {
    let cluster = Cluster::with(17, &STRICT);
    let (mut members, p) = cluster.members(2);
    settles(&cluster, &members[p], 1, 2);
    members[p].wait_role("primary");
    let load = Load::start(&cluster, &members[p]);
    members[1 - p].kill();
    // What was on its way.
    std::thread::sleep(Duration::from_secs(1));
    let before = load.writes().len();
    cluster.never(LEASE + SLACK, "a commit that no standby has", || load.writes().len() > before);
    assert!(members[p].is_writable() && names(&members[p]).starts_with("ANY 1"), "{}", names(&members[p]));
    let status = String::from_utf8_lossy(&members[p].podgres(&["status"]).stdout).into_owned();
    assert!(status.contains("commits wait: sync-strict"), "{status}");
    members[1 - p].restart_in_place();
    load.wait_for(&cluster, &members[p]);
    load.finish(&cluster, &members[p]).nothing_lost();
}

#[test]
fn a_synchronous_switchover_loses_nothing_and_waits_for_nobody() {
    let cluster = Cluster::with(17, &ONE);
    let (members, p) = cluster.members(2);
    settles(&cluster, &members[p], 1, 2);
    let load = Load::start(&cluster, &members[p]);
    members[1 - p].annotate("promote", serde_json::json!("now"));
    load.wait_for(&cluster, &members[1 - p]);
    settles(&cluster, &members[1 - p], 1, 2);
    load.finish(&cluster, &members[1 - p]).nothing_lost().gap_at_most(Duration::from_secs(5));
}

#[test]
fn a_person_may_go_on_with_what_is_left_and_is_told_what_it_costs() {
    let cluster = Cluster::with(17, &ONE);
    let (members, p) = cluster.members(3);
    settles(&cluster, &members[p], 2, 3);
    let (b, c) = ((p + 1) % 3, (p + 2) % 3);
    let refused = members[b].podgres(&["promote", "--force"]);
    assert!(!refused.status.success(), "{} is in office", members[p].name);
    members[c].kill();
    members[p].kill();
    let short = || String::from_utf8_lossy(&members[b].podgres(&["status"]).stdout).contains("1 of 2 votes");
    cluster.wait("an election without end", || short().then_some(()));
    let forced = members[b].podgres(&["promote", "--force"]);
    let said = String::from_utf8_lossy(&[forced.stdout, forced.stderr].concat()).into_owned();
    assert!(forced.status.success(), "{said}");
    assert!(said.contains(&format!("{} does not answer: what only it has is lost", members[p].name)), "{said}");
    assert!(members[b].is_writable());
    assert_eq!(record(&cluster), Some((1, vec![members[b].name.clone()])));
    cluster.wait_for_event(&["Warning", "Forced", &members[b].name]);
}

#[test]
fn what_alter_system_sets_past_podgres_does_not_stay() {
    let cluster = Cluster::with(17, &ONE);
    let (members, p) = cluster.members(2);
    settles(&cluster, &members[p], 1, 2);
    members[p].query("alter system set synchronous_standby_names = ''");
    members[p].query("select pg_reload_conf()");
    cluster.wait("it to be as it was", || names(&members[p]).starts_with("ANY 1").then_some(()));
    cluster.wait("it to be said", || {
        members[p].container.stdout().contains("removed from postgresql.auto.conf").then_some(())
    });
}

#[test]
fn a_configuration_that_would_lose_commits_is_refused_before_anything_is_touched() {
    let mut cluster = Cluster::with(17, &ONE);
    let files = Files::new(&[("postgresql.conf", 0o644, "work_mem = 1MB\nsynchronous_commit = off\n")]);
    cluster.options.extend(["-v".into(), files.at("/etc/podgres")]);
    let member = cluster.member(0);
    assert_eq!(member.container.wait(), 78);
    let said = member.container.stdout();
    assert!(said.contains("postgresql.conf:2") && said.contains("synchronous_commit cannot be off"), "{said}");
    assert_eq!(cluster.holder(), "");
}

#[test]
fn whoever_knows_no_password_gets_no_vote() {
    let cluster = Cluster::with(17, &ONE);
    let (members, p) = cluster.members(2);
    let standby = &members[1 - p];
    // With a challenge of the standby's own, too: see forgery.rs.
    for (proof, refused, why) in [
        ("", 403, "a member of the cluster is to ask this"),
        ("podgres-proof: 00\r\n", 428, "with this challenge in the proof"),
    ] {
        let body = format!("{{\"term\":{}}}", cluster.term() + 1);
        let head = format!("POST /vote HTTP/1.0\r\nhost: member\r\n{proof}content-length: {}\r\n\r\n", body.len());
        let (code, said) = client::request(standby.address(), SLACK, &format!("{head}{body}"));
        assert!(code == refused && said.contains(why), "{code}: {said}");
    }
    assert_eq!(standby.http("/vote"), 405, "it is nothing to look at");
    assert!(!standby.container.stdout().contains("is promised"));
}

#[test]
fn a_cluster_that_loses_its_power_comes_back_with_everything() {
    let cluster = Cluster::with(17, &ONE);
    let (mut members, p) = cluster.members(3);
    settles(&cluster, &members[p], 2, 3);
    let load = Load::start(&cluster, &members[p]);
    std::thread::scope(|scope| members.iter().for_each(|m| drop(scope.spawn(|| m.kill()))));
    // New pods: nobody takes back an office because it is its own.
    std::thread::scope(|scope| members.iter_mut().for_each(|m| drop(scope.spawn(|| m.recreate()))));
    let primary = cluster.settle(&members).n;
    settles(&cluster, &members[primary], 2, 3);
    load.finish(&cluster, &members[primary]).nothing_lost();
}
