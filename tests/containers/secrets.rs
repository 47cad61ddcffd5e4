//! What must be seen nowhere: passwords, what PostgreSQL stores of them, and what the manager has in its memory.

use crate::harness::*;

/// The manager's file of this name is not for others.
fn is_closed(container: &Container, file: &str) {
    let output = container.exec(&["bash", "-c", &format!("head -c 1 /proc/1/{file}")]);
    assert!(stderr(&output).contains("Permission denied"), "{file}: {output:?}");
}

#[test]
fn nobody_of_the_same_user_sees_the_managers_environment_or_memory() {
    for major in majors() {
        let container = Container::postgres(major, &["-e", "PGPASSWORD=hush-hush"], &[]).ready();
        ["environ", "mem", "maps", "fd/0", "auxv"].iter().for_each(|file| is_closed(&container, file));
        let copy = "create table seen (t text); copy seen from program 'cat /proc/1/environ'";
        let output = container.exec(&["psql", "-U", "postgres", "-XAtqc", copy]);
        assert!(stderr(&output).contains("failed") && !output.status.success(), "{output:?}");
        // What is no program's of the manager is as open as ever.
        let own = container
            .shell("cat /proc/self/environ | tr '\\0' '\\n'; cat /proc/$(head -n1 $PGDATA/postmaster.pid)/environ");
        assert!(own.contains("PGDATA"), "{own}");
        // And its own commands, signals and end are what they were.
        container.shell("podgres restart");
        container.wait_ready();
        assert!(container.shell("podgres status").contains("primary"));
        container.signal("TERM");
        assert_eq!(container.wait(), 0, "{}", container.log());
    }
}

#[test]
fn the_verifier_of_the_role_for_standbys_is_in_no_log_and_no_statistics() {
    for major in majors() {
        let config = Files::new(&[("podgres.toml", 0o644, "")]);
        let mount = config.at("/etc/podgres");
        let arguments = [
            "-c",
            "log_statement=all",
            "-c",
            "log_min_duration_statement=0",
            "-c",
            "log_transaction_sample_rate=1",
            "-c",
            "shared_preload_libraries=pg_stat_statements",
        ];
        let container = Container::postgres(major, &["-v", &mount], &arguments).ready();
        container.sql("create extension pg_stat_statements");
        let verifier = || container.sql("select rolpassword from pg_authid where rolname = 'podgres'");
        let first = wait_for("the role", || Some(verifier()).filter(|v| v.starts_with("SCRAM-SHA-256$")));
        config.put("podgres.toml", 0o644, "replication-password = \"hush-hush-hush\"\n");
        container.wait_for_message("has the password of the settings now");
        let second = verifier();
        assert_ne!(first, second);
        // Statements are logged, by the end of the session that these were in.
        container.sql("create role witness password 'SCRAM-SHA-256$witness'");
        container.wait_for_message("SCRAM-SHA-256$witness");
        let seen = container.log() + &container.sql("select query from pg_stat_statements");
        for secret in [first.as_str(), second.as_str(), "hush-hush"] {
            assert!(!seen.contains(&secret[..secret.len().min(40)]), "{secret} in {seen}");
        }
    }
}

#[test]
fn the_control_socket_is_its_owners_alone_and_no_link_leads_elsewhere() {
    let container = Container::postgres(15, &[], &[]).ready();
    assert_eq!(container.shell("stat -c '%a %u' /run/podgres/control.sock"), "600 999");
    let name = &container.name;
    let other = docker(&["exec", "--user", "12345:12345", name, "podgres", "status"]);
    assert!(stderr(&other).contains("Permission denied"), "{other:?}");
    // Of what has the socket's name when the manager starts, nothing is followed.
    let volume = Volume::new();
    volume.shell(
        "chown 999:999 /volume; echo kept >/volume/victim; chmod 644 /volume/victim; ln -s victim /volume/control.sock",
    );
    let mount = volume.at("/r");
    let linked = Container::postgres(15, &["-v", &mount, "-e", "PODGRES_RUN_DIR=/r"], &[]).ready();
    assert_eq!(linked.shell("stat -c %F /r/control.sock; stat -c %a /r/victim; cat /r/victim"), "socket\n644\nkept");
}

#[test]
fn a_process_that_holds_the_control_socket_keeps_nobody_from_asking() {
    let container = Container::postgres(17, &[], &[]).ready();
    // More than there may be connections, each with the beginning of a request.
    let script = "exec perl -MIO::Socket::UNIX -e '
        for (1 .. 300) { push @all, IO::Socket::UNIX->new(Peer => \"/run/podgres/control.sock\") or die;
            $all[-1]->syswrite(\"GET /status HTTP/1.1\\r\\nx\"); }
        print \"all\\n\"; $| = 1; print \"\"; sleep 600'";
    let held = ["exec", "--detach", &container.name, "bash", "-c", script];
    docker_ok(&held);
    let sockets = "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c socket: ";
    wait_for("the connections", || (container.shell(sockets).parse::<u32>().unwrap_or(0) > 250).then_some(()));
    for _ in 0..5 {
        assert!(container.shell("podgres status").contains("primary"));
    }
    let open = container.exec(&["bash", "-c", "grep -c control.sock /proc/net/unix"]);
    assert!(stdout(&open).parse::<u32>().expect("a number") < 100, "{open:?}");
}

#[test]
fn whoever_asks_over_http_learns_nothing_of_what_clients_store_and_ask() {
    let queries = "broken:\n  query: SELECT CAST('marker-data' AS int) AS x\n  metrics:\n    - x: {usage: GAUGE, description: x}\n";
    let config = Files::new(&[("queries.yaml", 0o644, queries)]);
    let mount = config.at("/etc/podgres");
    let container = Container::postgres(17, &["-v", &mount], &[]).ready();
    container.sql("create table t (t text); insert into t values ('marker-data')");
    for wrong in ["select 'marker-data'::int", "select pg_sleep(600) /* marker-data */"] {
        let begun = docker(&["exec", "--detach", &container.name, "psql", "-U", "postgres", "-c", wrong]);
        assert!(begun.status.success(), "{begun:?}");
    }
    container.wait_for_message("marker-data");
    let asked = "select count(*) from pg_stat_activity where query ~ 'marker-data' and pid <> pg_backend_pid()";
    wait_for("the query", || (container.sql(asked) != "0").then_some(()));
    let paths =
        ["/livez", "/startupz", "/readyz", "/primary", "/replica", "/read-only", "/member", "/status", "/metrics"];
    let shown: String = paths.iter().map(|path| container.http(path).1).collect();
    let failed = shown.lines().find(|line| line.starts_with("podgres_custom_query_errors_total"));
    assert!(failed.is_some_and(|line| !line.ends_with(" 0")), "{failed:?}");
    assert!(!shown.contains("marker-data") && !shown.contains("hush-hush"), "{shown}");
    for path in ["/settings", "/restart", "/promote", "/control.sock"] {
        assert_eq!(container.http(path).0, 404, "{path}");
    }
}
