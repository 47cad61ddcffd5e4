//! `/metrics`: what is in it, when and how fast it comes, and custom queries.

use std::time::{Duration, Instant};

use crate::{harness::*, replication::*};

/// GET /metrics with the answer's head; the body has been checked to be in order.
fn scrape(container: &Container) -> String {
    let script = "exec 3<>/dev/tcp/127.0.0.1/8008; printf 'GET /metrics HTTP/1.0\\r\\nhost: x\\r\\n\\r\\n' >&3; timeout 10 cat <&3";
    let text = stdout(&container.exec(&["bash", "-c", script]));
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let wanted = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.starts_with("HTTP/1.0 200") && head.contains(wanted), "{head}");
    check_format(body);
    body.to_string()
}

/// Every family has HELP and TYPE, once, and its samples follow at once; no sample comes twice; the end is there.
fn check_format(body: &str) {
    let (mut families, mut samples, mut family) = (Vec::new(), Vec::new(), String::new());
    let mut lines = body.trim_end().lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_string();
            assert!(!families.contains(&family), "{family} twice");
            families.push(family.clone());
            let kind = lines.next().and_then(|l| l.strip_prefix(&format!("# TYPE {family} "))).expect("a type");
            assert!(["gauge", "counter", "unknown", "histogram"].contains(&kind), "{line} {kind}");
        } else if line == "# EOF" {
            assert!(lines.next().is_none(), "something after # EOF");
            return;
        } else {
            let (key, value) = line.rsplit_once(' ').expect("a value");
            assert!(key.starts_with(&family) && value.parse::<f64>().is_ok(), "{line} in {family}");
            assert!(!samples.contains(&key), "{key} twice");
            samples.push(key);
        }
    }
    panic!("no # EOF: {body}");
}

fn value(body: &str, key: &str) -> Option<f64> {
    body.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until a scrape has the line.
fn wait_for_line(container: &Container, line: &str) {
    wait_or(
        || format!("{line:?} in {}\n{}", scrape(container), container.log()),
        || scrape(container).lines().any(|l| l == line).then_some(()),
    );
}

fn our_connections(container: &Container) -> String {
    container.sql("select count(*) from pg_stat_activity where application_name = 'podgres metrics'")
}

#[test]
fn a_primary_and_its_standby() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let a = cluster.primary(&va);
        a.sql("create table t (t text); insert into t values ('common')");
        let b = cluster.standby(&vb, &a).ready();
        wait_caught_up(&a, &b);

        let primary = scrape(&a);
        for key in [
            "pg_up",
            "podgres_state{state=\"running\"}",
            "podgres_role{role=\"primary\"}",
            "podgres_accepting_connections",
            "podgres_jobs_total{job=\"initialise\",outcome=\"done\"}",
            "pg_timeline",
        ] {
            assert_eq!(value(&primary, key), Some(1.0), "{key}: {primary}");
        }
        let checkpoints = match major {
            15 => "pg_stat_bgwriter_checkpoints_timed_total",
            _ => "pg_stat_checkpointer_num_timed_total",
        };
        for key in [
            "pg_database_size_bytes{datname=\"postgres\"}",
            "pg_stat_activity_count{datname=\"postgres\",state=\"active\"}",
            "pg_locks_count{datname=\"postgres\",mode=\"accesssharelock\"}",
            "pg_stat_archiver_archived_count",
            "pg_settings_max_connections",
            "pg_wal_current_lsn_bytes",
            "pg_wal_size_bytes",
            "pg_stat_wal_bytes_total",
            "podgres_restarts_total",
            "podgres_log_lines_dropped_total",
            checkpoints,
        ] {
            assert!(value(&primary, key).is_some(), "{key}: {primary}");
        }
        assert!(primary.contains("\npg_stat_database_xact_commit{datid="), "{primary}");
        assert!(primary.contains("\npg_stat_replication_pg_wal_lsn_diff{application_name="), "{primary}");
        assert!(primary.contains("\npg_replication_slots_active{slot_name=\"podgres_"), "{primary}");
        assert!(!primary.contains("pg_replication_lag"), "a primary has no lag of its own");

        wait_for_line(&b, "pg_wal_receiver_streaming 1");
        // Known as soon as the primary has said how far it is.
        wait_for("the standby's lag", || value(&scrape(&b), "pg_replication_lag_seconds"));
        let standby = scrape(&b);
        for (key, expected) in [
            ("podgres_role{role=\"standby\"}", 1.0),
            ("podgres_jobs_total{job=\"clone\",outcome=\"done\"}", 1.0),
            ("pg_replication_is_replica", 1.0),
            ("pg_wal_receiver_streaming", 1.0),
            ("pg_timeline", 1.0),
        ] {
            assert_eq!(value(&standby, key), Some(expected), "{key}: {standby}");
        }
        for key in ["pg_replication_lag_bytes", "pg_replication_lag_seconds", "pg_wal_replay_lsn_bytes"] {
            assert!(value(&standby, key).is_some(), "{key}: {standby}");
        }
        for log in [a.log(), b.log()] {
            assert!(!log.contains("no metrics such as"), "{log}");
        }
        // A standby without its primary does not know how far behind it is, and does not say 0.
        a.signal("KILL");
        wait_for_line(&b, "pg_wal_receiver_streaming 0");
        assert_eq!(value(&scrape(&b), "pg_replication_lag_bytes"), None);
    }
}

const GOOD: &str = "
orders:
  query: select state, count(*) as count, sum(n) as n from orders group by state
  primary: true
  target_databases: ['app*']
  metrics:
    - state: {usage: LABEL}
    - count: {usage: GAUGE, description: 'Orders'}
    - n: {usage: COUNTER}
writes:
  query: create table x ()
  metrics: [{x: {usage: GAUGE}}]
commits:
  query: commit; create table y (); select 1 as x
  metrics: [{x: {usage: GAUGE}}]
other_version:
  query: select 1 as x
  runonserver: '<10.0.0'
  metrics: [{x: {usage: GAUGE}}]
role:
  query: select current_user as who, 1 as is
  metrics: [{who: {usage: LABEL}}, {is: {usage: GAUGE}}]
";

#[test]
fn custom_queries_and_a_mistake_in_their_file() {
    let files = Files::new(&[("queries.yaml", 0o644, GOOD)]);
    let container = Container::postgres(17, &["-v", &files.at("/etc/podgres")], &[]).ready();
    container.sql("create database app");
    container.shell(
        "psql -XqU postgres app -c \"create table orders as select 'new' state, 2.5 n union all select 'new', 1\" \
         -c 'grant select on orders to pg_monitor'",
    );
    wait_for_line(&container, "orders_count{state=\"new\"} 2");
    let body = scrape(&container);
    assert_eq!(value(&body, "orders_n{state=\"new\"}"), Some(3.5), "{body}");
    assert_eq!(value(&body, "role_is{who=\"pg_monitor\"}"), Some(1.0), "{body}");
    assert!(value(&body, "podgres_custom_query_errors_total{query=\"writes\"}") >= Some(1.0), "{body}");
    assert!(value(&body, "podgres_custom_query_errors_total{query=\"commits\"}") >= Some(1.0), "{body}");
    assert!(value(&body, "pg_up") == Some(1.0) && !body.contains("other_version_x"), "{body}");
    assert_eq!(container.sql("select to_regclass('x') is null and to_regclass('y') is null"), "t");
    let said = |text: &str| container.stdout().lines().filter(|l| l.contains(text)).count();
    assert_eq!(said("the custom query writes for metrics failed"), 1, "{}", container.log());

    files.put("queries.yaml", 0o644, &GOOD.replace("COUNTER", "COUNT"));
    wait_for_line(&container, "podgres_custom_queries_refused 1");
    wait_for_line(&container, "orders_count{state=\"new\"} 2");
    let status = stdout(&container.exec(&["podgres", "status"]));
    assert!(status.contains("/etc/podgres/queries.yaml:9: "), "{status}");
    assert_eq!(said("custom queries for metrics are refused"), 1, "{}", container.log());

    files.put("queries.yaml", 0o644, GOOD);
    wait_for_line(&container, "podgres_custom_queries_refused 0");
    container.sql("drop database app");
}

#[test]
fn a_postgres_that_hangs_costs_one_connection_and_no_patience() {
    let container = Container::postgres(17, &[], &["-c", "log_connections=on"]).ready();
    assert_eq!(value(&scrape(&container), "pg_up"), Some(1.0));
    let signal = |name: &str| {
        container.shell(&format!("kill -{name} $(head -1 /var/lib/postgresql/data/pgdata/postmaster.pid)"));
    };
    // What hangs is accepted, and then in the log, when PostgreSQL goes on.
    let connections = || container.stdout().matches("application_name=podgres metrics").count();
    signal("STOP");
    wait_for_line(&container, "pg_up 0");
    let before = connections();
    for _ in 0..5 {
        let begun = Instant::now();
        let body = scrape(&container);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(value(&body, "pg_up"), Some(0.0), "{body}");
        assert_eq!(value(&body, "podgres_accepting_connections"), Some(0.0), "{body}");
        assert_eq!(value(&body, "podgres_state{state=\"running\"}"), Some(1.0), "{body}");
        assert!(!body.contains("\npg_database_size_bytes"), "what is shown is old: {body}");
    }
    signal("CONT");
    wait_for("the connection that hung", || (connections() > before).then_some(()));
    // Accepted after all that waited.
    wait_for("the connection for metrics to be closed", || (our_connections(&container) == "0").then_some(()));
    assert_eq!(connections(), before + 1);
    wait_for_line(&container, "pg_up 1");
}

#[test]
fn without_postgres_there_are_the_managers() {
    let script = Files::new(&[("1.sh", 0o644, "until [ -e /tmp/go ]; do sleep 0.05; done")]);
    let container = Container::postgres(17, &["-v", &script.at("/docker-entrypoint-initdb.d")], &[]);
    container.wait_for_message("1.sh");
    let body = scrape(&container);
    for (key, expected) in [("pg_up", 0.0), ("podgres_state{state=\"initialising\"}", 1.0)] {
        assert_eq!(value(&body, key), Some(expected), "{key}: {body}");
    }
    assert!(!body.contains("pg_settings"), "{body}");
    container.shell("touch /tmp/go");
    container.wait_ready();
    wait_for_line(&container, "pg_up 1");
}
