//! From nothing to a cluster, in any order.

use std::time::Duration;

use crate::{
    api::CORE,
    cluster::{Cluster, NOBODY},
    harness::*,
    member::Member,
};

const INITIALISED: &str = "PostgreSQL init process complete";
const CLONED: &str = "cloning is complete";

/// How often the member's log, since its container was started, says so.
fn said(member: &Member<'_>, text: &str) -> usize {
    member.container.stdout().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn the_first_member_initialises_alone() {
    for major in majors() {
        let cluster = Cluster::new(major);
        let (members, _) = cluster.members(1);
        let a = &members[0];
        assert_eq!(said(a, INITIALISED), 1);
        a.query("create table t (t text); insert into t values ('written')");
        assert_eq!(cluster.lease_annotation("system-id").as_deref(), Some(a.system_identifier().as_str()));
        assert_eq!(cluster.lease_annotation("pod-uid").as_deref(), Some(a.uid()));
        assert!(cluster.lease_annotation("address").is_some_and(|l| l.starts_with(&a.address().to_string())));
        assert!(cluster.lease_annotation("instance").is_some_and(|i| !i.is_empty()));
        assert!(cluster.term() >= 1);
        let record = cluster.lease_annotation("record").expect("a record");
        assert!(record.contains("\"votes\":1") && record.contains("db-0"), "{record}");
        a.wait_role("primary");
    }
}

#[test]
fn of_three_that_start_at_once_one_initialises_and_the_others_are_cloned() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(3);
    let count = |text: &str| members.iter().map(|m| said(m, text)).sum::<usize>();
    assert_eq!((count(INITIALISED), count(CLONED)), (1, 2), "{}", cluster.report());
    let identity = members[p].system_identifier();
    assert!(members.iter().all(|m| m.system_identifier() == identity));
    assert_eq!(cluster.lease_annotation("system-id"), Some(identity));
    for member in &members {
        member.wait_role(if member.n == p { "primary" } else { "replica" });
    }
    cluster.wait("all three on the record", || {
        let record = cluster.lease_annotation("record")?;
        members.iter().all(|m| record.contains(&m.name)).then_some(())
    });
}

#[test]
fn the_last_of_them_may_be_the_first_to_start() {
    let cluster = Cluster::new(15);
    let c = cluster.member(2);
    cluster.primary(std::slice::from_ref(&c));
    c.query("create table t (t text); insert into t values ('before')");
    let members = [cluster.member(0), cluster.member(1), c];
    assert_eq!(cluster.settle(&members).n, 2, "who leads goes on");
    for member in &members[..2] {
        assert_eq!((said(member, INITIALISED), said(member, CLONED)), (0, 1));
        assert_eq!(member.query("select t from t"), "before");
    }
}

#[test]
fn without_the_api_nobody_initialises_and_a_standby_answers_reads() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    members[p].query("create table t (t text); insert into t values ('common')");
    let s = 1 - p;
    cluster.streams(&members[p], &members[s]);
    let host = std::mem::replace(&mut members[s].server.0, NOBODY.into());
    members[s].restart_in_place();
    cluster.wait("reads", || (members[s].sql("select t from t").as_deref() == Ok("common")).then_some(()));
    assert!(!members[s].is_writable());
    assert_eq!((members[s].http("/livez"), members[s].http("/primary")), (200, 503));
    let empty = cluster.member_without_api(2);
    cluster.wait("the reason", || empty.container.stdout().contains(NOBODY).then_some(()));
    cluster.never(Duration::from_secs(3), "it made a cluster of its own", || said(&empty, INITIALISED) > 0);
    // The API is back for it.
    members[s].server.0 = host;
    members[s].restart_in_place();
    cluster.settle(&members);
}

#[test]
fn a_foreign_data_directory_is_refused_and_untouched() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(1);
    let volume = Volume::new();
    // As a server on its own has made it.
    let options = ["-e", "PODGRES_MODE=standalone", "-v", &volume.at("/var/lib/postgresql")];
    let foreign = Container::postgres(17, &options, &[]).ready();
    foreign.sql("create table mine (t text); insert into mine values ('mine')");
    foreign.signal("TERM");
    foreign.wait();
    drop(foreign);
    // What the manager keeps beside the data, its lock above all, is not data.
    let data = |v: &Volume| {
        v.shell("cd /volume/data/pgdata; find . -type f ! -name 'podgres*' ! -path './log*' -print0 | sort -z | xargs -0r sha256sum")
    };
    let before = data(&volume);
    let stranger = Member::on(&cluster, 1, volume);
    cluster.wait("the refusal", || {
        let log = stranger.container.stdout();
        let identity = members[p].system_identifier();
        log.lines().any(|l| l.contains("\"error\"") && l.contains(&identity)).then_some(())
    });
    cluster.wait_for_event(&["Warning", "db-1"]);
    cluster.never(Duration::from_secs(3), "it accepts writes or stands", || {
        stranger.is_writable() || cluster.holder() != "db-0"
    });
    assert_ne!(stranger.http("/readyz"), 200);
    stranger.kill();
    assert_eq!(data(&stranger.volume), before);
    assert_eq!(members[p].http("/primary"), 200);
}

#[test]
fn nothing_is_left_of_a_member_that_is_scaled_down() {
    let cluster = Cluster::new(17);
    let (mut members, p) = cluster.members(2);
    let gone = members.remove(1 - p);
    gone.delete();
    gone.container.signal("TERM");
    assert_eq!(gone.container.wait(), 0, "{}", gone.container.log());
    let name = gone.name.clone();
    drop(gone);
    cluster.wait("the record to drop it", || {
        let record = cluster.lease_annotation("record")?;
        (!record.contains(&name)).then_some(())
    });
    members[0].query("create table t (t text)");
    let pods = cluster.api.get(&format!("{CORE}/namespaces/{}/pods", cluster.namespace)).unwrap();
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(1));
}
