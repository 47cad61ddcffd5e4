//! A postmaster that dies, and what it leaves behind.

use crate::harness::*;

fn postmaster(container: &Container) -> String {
    container.shell("head -n1 $PGDATA/postmaster.pid")
}

#[test]
fn a_killed_postmaster_is_restarted_in_place_without_losing_anything() {
    for major in MAJORS {
        let container = Container::postgres(major, &[], &[]).ready();
        container.sql("create table t as select 42 as x");
        let old = postmaster(&container);
        container.shell(&format!("kill -KILL {old}"));
        wait_for("another postmaster", || {
            let status: serde_json::Value = serde_json::from_str(&container.shell("podgres status --json")).unwrap();
            let member = &status["members"][0];
            (member["accepting"] == true && member["postgres_pid"].as_i64() != old.parse().ok()).then_some(())
        });
        assert_eq!(container.sql("select x from t"), "42");
        assert!(container.stdout().contains("was killed by SIGKILL and nobody had told it to stop"));
        assert!(container.shell("podgres status --json").contains("\"restarts\":1"));
        container.signal("TERM");
        assert_eq!(container.wait(), 0);
    }
}

#[test]
fn a_new_postmaster_waits_for_the_last_process_of_the_old_one() {
    let container = Container::postgres(15, &[], &[]).ready();
    docker_ok(&["exec", "-d", &container.name, "psql", "-U", "postgres", "-c", "select pg_sleep(1000)"]);
    let backend = wait_for("a sleeping backend", || {
        Some(container.sql("select pid from pg_stat_activity where wait_event = 'PgSleep'")).filter(|p| !p.is_empty())
    });
    let old = postmaster(&container);
    container.shell(&format!("kill -STOP {backend}; kill -KILL {old}"));
    container.wait_for_message("outlived their postmaster");
    wait_for("the frozen backend's end", || {
        (!container.exec(&["test", "-e", &format!("/proc/{backend}")]).status.success()).then_some(())
    });
    container.wait_ready();
    let log = container.stdout();
    assert!(!log.contains("pre-existing shared memory block"), "the new one was started too early: {log}");
}

#[test]
fn restarts_slow_down_when_they_repeat() {
    let container = Container::postgres(15, &[], &[]).ready();
    for _ in 0..3 {
        let old = postmaster(&container);
        container.shell(&format!("kill -KILL {old}"));
        wait_for("another postmaster", || {
            let new = container.exec(&["bash", "-c", "head -n1 $PGDATA/postmaster.pid"]);
            (stdout(&new) != old && !stdout(&new).is_empty()).then_some(())
        });
        container.wait_ready();
    }
    let crashed: Vec<_> = container.json_lines().into_iter().filter(|l| l["state"] == "crashed").collect();
    assert_eq!(crashed.len(), 2, "the first restart is immediate, the next ones wait: {crashed:?}");
}

#[test]
fn a_killed_backend_is_postgres_own_business() {
    let container = Container::postgres(17, &[], &[]).ready();
    let started = postmaster(&container);
    docker_ok(&["exec", "-d", &container.name, "psql", "-U", "postgres", "-c", "select pg_sleep(1000)"]);
    let pid = wait_for("a backend", || {
        Some(container.sql("select pid from pg_stat_activity where wait_event = 'PgSleep'")).filter(|p| !p.is_empty())
    });
    container.shell(&format!("kill -KILL {pid}"));
    container.wait_for_message("all server processes terminated; reinitializing");
    container.wait_ready();
    assert_eq!(postmaster(&container), started);
}

#[test]
fn a_shutdown_by_somebody_else_ends_the_container_with_0() {
    let container = Container::postgres(15, &[], &[]).ready();
    container.exec(&["bash", "-c", "pg_ctl -D $PGDATA -m fast -W stop"]);
    assert_eq!(container.wait(), 0, "{}", container.log());
}

/// Starts a server that was killed, with `write` changing the pid file it left before PID 1 becomes podgres.
fn starts_with(write: &str) {
    let volume = Volume::new();
    let mount = volume.at("/var/lib/postgresql");
    let first = Container::postgres(15, &["-v", &mount], &[]).ready();
    first.sql("create table t as select 42 as x");
    first.signal("KILL");
    first.wait();
    drop(first);
    let script = format!("f=$PGDATA/postmaster.pid\n{write}\nexec podgres run");
    let options = ["-v", &mount, "-e", "POSTGRES_PASSWORD=x", "--entrypoint", "bash"];
    let container = Container::start(15, &options, &["-c", &script]).ready();
    assert_eq!(container.sql("select x from t"), "42", "{write}");
}

#[test]
fn a_stale_pid_file_never_blocks_a_start() {
    let other = "sleep 1000 & sed -i \"1s/.*/$!/\" $f";
    let zombie = "exec 3< <(:); sleep 0.1 & p=$!; sed -i \"1s/.*/$p/\" $f; kill -KILL $p"; // PID 1 has not reaped it yet
    for write in [
        "",
        other,
        zombie,
        "sed -i '1s/.*/1/' $f",
        "sed -i '1s/.*/4194303/' $f",
        "echo nonsense >$f; rm $f; touch $f; rm $f",
    ] {
        starts_with(write);
    }
}

#[test]
fn the_id_of_one_of_our_own_threads_in_the_pid_file_does_not_block_a_start() {
    // The ids of podgres' threads follow its own: every one of the next few is tried.
    starts_with("n=$(($$ + 2)); sed -i \"1s/.*/$n/\" $f");
    starts_with("(for n in $(seq 2 12); do :; done); sed -i \"1s/.*/$(($$ + 6))/\" $f");
}

#[test]
fn a_stale_socket_lock_does_not_block_a_start() {
    let lock = "sleep 1000 & d=/var/run/postgresql/.s.PGSQL.5432; rm -f $f; printf '%s\\n%s\\n1\\n5432\\n' $! $PGDATA >$d.lock; touch $d";
    starts_with(lock);
}
