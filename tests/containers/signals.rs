//! Signals to PID 1, at every moment of its life.

use crate::harness::*;

/// How the last life of the server ended, as the next one finds it.
fn ended_in_order(container: &Container) -> bool {
    let seen = container.stdout().matches("database system was interrupted").count();
    container.start_again();
    container.wait_ready();
    container.stdout().matches("database system was interrupted").count() == seen
}

/// A script directory with one script, in a volume.
fn scripts(script: &str) -> Volume {
    let volume = Volume::new();
    volume.shell(&format!("cat >/volume/1.sh <<'END'\n{script}\nEND"));
    volume
}

#[test]
fn term_during_initialisation_ends_it_with_0_and_leaves_nothing() {
    let scripts = scripts("echo sleeping; sleep 1000");
    let mount = scripts.at("/docker-entrypoint-initdb.d");
    for moment in
        ["", "state\":\"initialising", "running bootstrap", "performing post-bootstrap", "Success.", "sleeping"]
    {
        let data = Volume::new();
        let at = data.at("/var/lib/postgresql");
        let container = Container::postgres(15, &["-v", &mount, "-v", &at], &[]);
        container.wait_for_message(moment);
        container.signal("TERM");
        assert_eq!(container.wait(), 0, "{moment}: {}", container.log());
        assert_eq!(data.shell("find /volume -mindepth 1 -name '*podgres-new*' -o -name PG_VERSION"), "", "{moment}");
    }
}

#[test]
fn term_right_after_the_start_and_while_starting_is_an_orderly_stop() {
    for major in majors() {
        let container = Container::postgres(major, &[], &[]).ready();
        container.signal("TERM");
        assert_eq!(container.wait(), 0);
        // Ever later after the start: before the signal handlers, the postmaster's start, its readiness, and after.
        for (life, delay) in [0, 10, 20, 30, 40, 60, 90, 150].into_iter().enumerate() {
            container.start_again();
            wait_for("podgres' first line", || {
                (container.stdout().matches("Skipping initialization").count() == life + 1).then_some(())
            });
            std::thread::sleep(std::time::Duration::from_millis(delay));
            container.signal("TERM");
            assert_eq!(container.wait(), 0, "{delay} ms: {}", container.log());
        }
        assert!(ended_in_order(&container), "{}", container.log());
    }
}

#[test]
fn term_and_int_under_load_are_fast_shutdowns() {
    for (signal, major) in [("TERM", 15), ("INT", 17)] {
        let container = Container::postgres(major, &[], &[]).ready();
        container.shell("pgbench -U postgres -iq -s 2 postgres 2>/dev/null");
        docker_ok(&["exec", "-d", &container.name, "pgbench", "-U", "postgres", "-c", "8", "-T", "100", "postgres"]);
        wait_for("pgbench to write", || {
            (container.sql("select count(*) > 100 from pgbench_history") == "t").then_some(())
        });
        container.signal(signal);
        assert_eq!(container.wait(), 0, "{}", container.log());
        assert!(container.stdout().contains("received fast shutdown request"));
        assert!(ended_in_order(&container), "{}", container.log());
    }
}

#[test]
fn quit_is_immediate_and_recovered_from() {
    for major in majors() {
        let container = Container::postgres(major, &[], &[]).ready();
        container.sql("create table t as select 42 as x");
        container.signal("QUIT");
        assert_eq!(container.wait(), 131);
        assert!(!ended_in_order(&container), "there was crash recovery");
        assert_eq!(container.sql("select x from t"), "42");
    }
}

/// A backend that is stopped does not answer the postmaster: a fast shutdown would wait for ever.
fn with_a_frozen_backend(options: &[&str]) -> Container {
    let container = Container::postgres(15, options, &[]).ready();
    docker_ok(&["exec", "-d", &container.name, "psql", "-U", "postgres", "-c", "select pg_sleep(1000)"]);
    let pid = wait_for("a sleeping backend", || {
        Some(container.sql("select pid from pg_stat_activity where wait_event = 'PgSleep'")).filter(|p| !p.is_empty())
    });
    container.shell(&format!("kill -STOP {pid}"));
    container
}

#[test]
fn a_second_signal_escalates() {
    for (second, code) in [("TERM", 143), ("INT", 130)] {
        let container = with_a_frozen_backend(&[]);
        container.signal("TERM");
        container.wait_for_message("received fast shutdown request");
        let codes = ["/livez", "/startupz", "/readyz", "/primary"].map(|path| container.http(path).0);
        assert_eq!(codes, [200, 503, 503, 503], "{}", container.log());
        container.signal(second);
        assert_eq!(container.wait(), code, "{}", container.log());
    }
}

#[test]
fn a_shutdown_that_takes_too_long_becomes_immediate_and_then_a_kill() {
    let container = with_a_frozen_backend(&["-e", "PODGRES_SHUTDOWN_TIMEOUT=1s"]);
    container.signal("TERM");
    container.wait();
    assert!(container.stdout().contains("longer than shutdown-timeout"), "{}", container.log());
    // A frozen postmaster does not even hear SIGQUIT.
    let container = Container::postgres(15, &["-e", "PODGRES_SHUTDOWN_TIMEOUT=1s"], &[]).ready();
    container.shell("kill -STOP $(head -n1 $PGDATA/postmaster.pid)");
    container.signal("TERM");
    assert_eq!(container.wait(), 137, "{}", container.log());
}

#[test]
fn hup_reloads_also_when_it_comes_before_the_server_is_up() {
    let container = Container::postgres(15, &[], &[]);
    for _ in 0..20 {
        container.signal("HUP");
    }
    container.wait_ready();
    container.sql("alter system set work_mem = '5MB'");
    container.signal("HUP");
    wait_for("the reload", || (container.sql("show work_mem") == "5MB").then_some(()));
    container.shell("podgres reload");
    assert_eq!(container.inspect("{{.RestartCount}}"), "0");
}

#[test]
fn usr1_promotes_a_standby() {
    for major in majors() {
        let container = Container::postgres(major, &[], &[]).ready();
        container.signal("USR1"); // a primary already
        container.shell("touch $PGDATA/standby.signal");
        container.signal("TERM");
        assert_eq!(container.wait(), 0);
        container.start_again();
        wait_for("the standby", || container.shell("podgres status || true").contains("standby").then_some(()));
        assert_eq!(container.sql("select pg_is_in_recovery()"), "t");
        container.signal("USR1");
        wait_for("the promotion", || (container.sql("select pg_is_in_recovery()") == "f").then_some(()));
        wait_for("status to say so", || container.shell("podgres status").contains("primary").then_some(()));
    }
}

#[test]
fn usr2_writes_the_state_as_one_line_and_a_storm_of_signals_harms_nobody() {
    let container = Container::postgres(15, &[], &[]).ready();
    container.signal("USR2");
    container.wait_for_message("the manager's state");
    let pid = container.sql("select pg_postmaster_start_time()");
    container.shell("for i in $(seq 1000); do kill -USR2 1; kill -HUP 1; kill -CHLD 1; kill -WINCH 1; done");
    container.json_lines();
    assert_eq!(container.sql("select pg_postmaster_start_time()"), pid);
    assert_eq!(container.http("/livez").0, 200);
}

#[test]
fn docker_stop_is_an_orderly_shutdown() {
    let container = Container::postgres(17, &[], &[]).ready();
    docker_ok(&["stop", &container.name]);
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0");
    assert!(ended_in_order(&container));
}

/// A server that recovers is interrupted, and so is a command that it waits for.
#[test]
fn term_during_recovery_is_an_orderly_stop() {
    for major in majors() {
        let volume = Volume::new();
        let mount = volume.at("/var/lib/postgresql");
        let arguments = ["-c", "restore_command=echo restoring >&2; exec sleep 1000"];
        let container = Container::postgres(major, &["-v", &mount], &arguments).ready();
        container.sql("create table t as select 42 as x");
        container.shell("touch $PGDATA/recovery.signal");
        container.signal("KILL");
        container.wait();
        container.start_again();
        container.wait_for_message("restoring");
        container.signal("TERM");
        assert_eq!(container.wait(), 0, "{}", container.log());
        assert!(!container.stdout().contains("longer than shutdown-timeout"), "{}", container.log());
        volume.shell("rm /volume/data/pgdata/recovery.signal");
        container.start_again();
        container.wait_ready();
        assert_eq!(container.sql("select x from t"), "42");
    }
}

/// SIGHUP kills a postmaster that has no handler for it yet.
#[test]
fn a_reload_at_any_moment_of_a_start_kills_nobody() {
    let container = Container::postgres(15, &[], &[]).ready();
    // The first two lines are those of the temporary server and of the first life.
    for life in 3..=7 {
        container.shell("podgres restart; for i in {1..60}; do podgres reload; done >/dev/null 2>&1 || true");
        wait_for("the next life", || {
            (container.stdout().matches("ready to accept connections").count() >= life).then_some(())
        });
        container.wait_ready();
    }
    assert!(!container.stdout().contains("SIGHUP and nobody"), "{}", container.log());
    assert!(container.shell("podgres status --json").contains("\"restarts\":0"));
}
