//! The example of an HAProxy before a pair, with the file as it is in examples/haproxy.

use std::time::Instant;

use crate::{
    harness::*,
    replication::{Cluster, wait_caught_up},
};

/// Runs SQL through HAProxy; nothing when it fails.
fn through(client: &Container, port: &str, sql: &str) -> Option<String> {
    let output = client.exec(&["timeout", "10", "psql", "-h", "proxy", "-p", port, "-U", "postgres", "-XAtqc", sql]);
    output.status.success().then(|| stdout(&output))
}

#[test]
fn haproxy_sends_writes_to_the_primary_and_reads_to_the_standby() {
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let (first, second) = (["--network-alias", "podgres-pair-1"], ["--network-alias", "podgres-pair-2"]);
    let config = Files::new(&[("podgres.toml", 0o644, "")]);
    let mount = config.at("/etc/podgres");
    let a = cluster.member(&va, &[&first[..], &["-v", &mount]].concat(), &[]).ready();
    let b = cluster.member(&vb, &[&second[..], &["-e", "PODGRES_STANDBY_OF=host=podgres-pair-1"]].concat(), &[]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/haproxy/haproxy.cfg:/etc/haproxy/haproxy.cfg:ro");
    let options = ["--network", &cluster.network.0, "--network-alias", "proxy", "-v", file];
    let proxy = Container::of_image(&haproxy_image(), &options, &[]);
    let client = Container::idle(17, &["--network", &cluster.network.0, "-e", "PGPASSWORD=hush-hush"]);
    let wait_through = |port: &str, sql: &str, expected: &str| {
        wait_or(
            || format!("{sql} through port {port} to give {expected}; HAProxy's log:\n{}", proxy.log()),
            || through(&client, port, sql).filter(|answer| answer == expected),
        )
    };
    let in_recovery = "select pg_is_in_recovery()";

    wait_through("5000", in_recovery, "f");
    a.sql("create table t (t text)");
    b.wait_ready();
    wait_through("5001", in_recovery, "t");
    assert_eq!(through(&client, "5000", "insert into t values ('a') returning t").as_deref(), Some("a"));
    wait_caught_up(&a, &b);
    assert_eq!(through(&client, "5001", "select t from t").as_deref(), Some("a"));

    // A session on the standby ends when that is none any more. Writes find it, and reads do, as there is no other.
    let began = Instant::now();
    std::thread::scope(|scope| {
        let sleep =
            ["timeout", "60", "psql", "-h", "proxy", "-p", "5001", "-U", "postgres", "-c", "select pg_sleep(100)"];
        let client = &client;
        let session = scope.spawn(move || client.exec(&sleep));
        let sleeping = "select count(*) from pg_stat_activity where query ~ 'pg_sleep' and pid <> pg_backend_pid()";
        wait_for("the session", || (b.sql(sleeping) == "1").then_some(()));
        a.signal("TERM");
        assert_eq!(a.wait(), 0);
        assert!(b.exec(&["podgres", "promote"]).status.success());
        let ended = session.join().expect("the thread ends");
        assert_eq!(ended.status.code(), Some(2), "psql lost its connection: {}", stderr(&ended));
    });
    assert!(began.elapsed() < PATIENCE);
    wait_through("5000", in_recovery, "f");
    assert_eq!(through(&client, "5000", "insert into t values ('b') returning t").as_deref(), Some("b"));
    wait_through("5001", "select string_agg(t, ' ' order by t) from t", "a b");

    // The former primary comes back, and gets the reads.
    config.put("podgres.toml", 0o644, "standby-of = \"host=podgres-pair-2\"\n");
    a.start_again();
    a.wait_ready();
    wait_through("5001", in_recovery, "t");
    assert_eq!(through(&client, "5000", in_recovery).as_deref(), Some("f"));

    // And back again.
    b.signal("TERM");
    assert_eq!(b.wait(), 0);
    assert!(a.exec(&["podgres", "promote"]).status.success());
    wait_through("5000", "insert into t values ('c') returning t", "c");
    assert_eq!(a.sql("select string_agg(t, ' ' order by t) from t"), "a b c");
}
