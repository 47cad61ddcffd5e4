//! A postmaster that dies, and what it leaves behind.

use crate::harness::*;

fn postmaster(container: &Container) -> String {
    container.shell("head -n1 $PGDATA/postmaster.pid")
}

#[test]
fn a_killed_postmaster_is_restarted_in_place_without_losing_anything() {
    for major in majors() {
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

/// A volume with the data directory of a server that was killed, its pid file and all.
struct Killed {
    major: u32,
    volume: Volume,
}

impl Killed {
    fn new(major: u32) -> Self {
        let volume = Volume::new();
        let first = Container::postgres(major, &["-v", &volume.at("/var/lib/postgresql")], &[]).ready();
        first.sql("create table t as select 42 as x");
        first.signal("KILL");
        first.wait();
        Self { major, volume }
    }

    /// Starts it after a shell script has run as PID 1, in which `$f` is the pid file and `pid N` writes N into it. When
    /// the server is up `holds` must be true, which shows that the case was what it should be. Then it is killed again.
    /// Gives back what `tell` prints.
    fn starts_after(&self, before: &str, holds: &str, tell: &str) -> String {
        let mount = self.volume.at("/var/lib/postgresql");
        let script = format!(
            "set -eu; f=$PGDATA/postmaster.pid; pid() {{ echo $1 >/tmp/pid; sed -i \"1s/.*/$1/\" $f; }}\n{before}\n
             exec podgres run"
        );
        let options = ["-v", &mount, "-e", "POSTGRES_PASSWORD=x", "--entrypoint", "bash"];
        let container = Container::start(self.major, &options, &["-c", &script]).ready();
        assert_eq!(container.sql("select x from t"), "42", "{before}");
        container.shell(holds);
        let told = container.shell(tell);
        container.signal("KILL");
        container.wait();
        told
    }
}

/// A lock file of the socket, as the pid `$1` would have left it.
const SOCKET_LOCK: &str = "socket_lock() { d=/var/run/postgresql/.s.PGSQL.5432; touch $d
    printf '%s\\n%s\\n1\\n5432\\n/var/run/postgresql\\n' $1 $PGDATA >$d.lock; };";

const ZOMBIE: &str = "bash -c 'sleep 0.2 & echo $! >/tmp/pid; exec sleep 1000' &
    until grep -q 'State:.Z' /proc/$(cat /tmp/pid || echo none)/status; do sleep 0.01; done 2>/dev/null
    pid $(cat /tmp/pid)";

#[test]
fn whatever_a_stale_pid_file_says_it_never_blocks_a_start() {
    let killed = Killed::new(17);
    let alive = "kill -0 $(cat /tmp/pid)";
    let cases = [
        // The pid as it was left is often that of a thread or a process of the new container.
        ("", "true"),
        ("sleep 1000 & pid $!", alive),
        (ZOMBIE, "grep -q 'State:.Z' /proc/$(cat /tmp/pid)/status"),
        ("pid 1", alive),
        ("pid 4194303", "! kill -0 $(cat /tmp/pid) 2>/dev/null"),
        (": >$f", "true"),
        ("echo nonsense >$f", "true"),
        ("rm $f", "true"),
        (&format!("{SOCKET_LOCK} sleep 1000 & rm $f; echo $! >/tmp/pid; socket_lock $!"), alive),
        (&format!("{SOCKET_LOCK} sleep 1000 & sleep 1000 & pid $!; socket_lock $(($! - 1))"), alive),
    ];
    for (before, holds) in cases {
        killed.starts_after(before, holds, "true");
    }
}

/// `kill(2)` finds a thread by its id, and the low ids of the manager's own threads are those that an earlier postmaster
/// had.
#[test]
fn the_id_of_a_thread_of_the_manager_in_the_pid_file_does_not_block_a_start() {
    let killed = Killed::new(15);
    let threads = "ls /proc/1/task | grep -vx 1";
    let mut guess = "4194303".to_string();
    // The ids are the same in nearly every life of the container; how many the runtime uses up before varies.
    for _ in 0..10 {
        let told = killed.starts_after(&format!("pid {guess}"), "true", threads);
        if told.lines().any(|tid| tid == guess) {
            return;
        }
        guess = told.lines().next().expect("the manager has threads").to_string();
    }
    panic!("a thread never had the id in the pid file");
}

#[test]
fn a_manager_that_waits_before_the_next_start_is_alive_not_ready_and_can_be_stopped() {
    let container = Container::postgres(15, &[], &[]).ready();
    let crashes = || container.stdout().matches("was killed by SIGKILL and nobody").count();
    for _ in 0..3 {
        container.wait_ready();
        let (pid, before) = (postmaster(&container), crashes());
        container.shell(&format!("kill -KILL {pid}"));
        wait_for("the crash to be seen", || (crashes() > before).then_some(()));
    }
    // The third restart is due after two seconds.
    wait_for("the wait", || container.stdout().lines().last().unwrap().contains("\"state\":\"crashed\"").then_some(()));
    let codes = ["/livez", "/startupz", "/readyz", "/read-only"].map(|path| container.http(path).0);
    assert_eq!(codes, [200, 503, 503, 503], "{}", container.log());
    container.signal("TERM");
    assert_eq!(container.wait(), 0);
    // The temporary server's line, and those of three lives.
    assert_eq!(container.stdout().matches("ready to accept connections").count(), 4, "it was not started again");
}
