//! The watch of a primary's health, on a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test program"
)]

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User, chown},
};
use podgres::postgres::{
    health::{Check, Health, Primary, Sick, Watch, files::PROBE, verdict},
    sql::{Local, Login},
};
use tokio::task::LocalSet;

const EVERY: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(5);

/// The programs of the newest version that is installed.
fn bin(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed")
        .map(|e| e.unwrap().path().join("bin").join(name))
        .filter(|p| p.exists())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL is installed")
}

/// A server that ends with this value.
struct Server {
    dir: tempfile::TempDir,
    postmaster: Child,
}

impl Server {
    /// One whose log would show each statement, and that has the least WAL.
    fn start() -> Self {
        Self::start_with(&["-c", "wal_level=minimal", "-c", "max_wal_senders=0", "-c", "log_statement=all"])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("health").tempdir_in("/tmp").unwrap();
        if let Some(user) = unprivileged() {
            chown(dir.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let data = dir.path().join("data");
        run(as_postgres("initdb").args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(&data));
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(&data).arg("-k").arg(dir.path());
        command.args(["-c", "listen_addresses=", "-c", "default_transaction_read_only=on"]).args(arguments);
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let postmaster = command.stdout(Stdio::null()).stderr(log).process_group(0).spawn().unwrap();
        let server = Self { dir, postmaster };
        let begun = Instant::now();
        while !run_ok(as_postgres("pg_isready").arg("-h").arg(server.dir.path())) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn watch(&self) -> Watch {
        let login = Login { user: "postgres".into(), password: None };
        let local = Local { socket_dir: self.dir.path().into(), port: 5432, login };
        Watch::start(&Primary { local, pgdata: self.data() }, EVERY, Duration::from_secs(2))
    }

    fn postmaster(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.postmaster.id()).unwrap())
    }

    /// The postmaster and its children.
    fn signal_all(&self, signal: Signal) {
        let parent = self.postmaster().to_string();
        let is_child = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(&parent))
        };
        let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
        kill(self.postmaster(), signal).unwrap();
        for pid in pids.filter(is_child) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal_all(Signal::SIGCONT);
        let _ = kill(self.postmaster(), Signal::SIGQUIT);
        let _ = self.postmaster.wait();
    }
}

/// PostgreSQL does not run as root.
fn unprivileged() -> Option<User> {
    Uid::effective().is_root().then(|| User::from_name("postgres").unwrap().expect("a user postgres"))
}

fn as_postgres(program: &str) -> Command {
    let mut command = Command::new(bin(program));
    if let Some(user) = unprivileged() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/");
    }
    command
}

fn run_ok(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success()
}

fn run(command: &mut Command) {
    assert!(run_ok(command), "{command:?}");
}

/// Runs `test` as the manager would, on one thread.
fn on_one_thread<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = async { tokio::time::timeout(Duration::from_secs(120), test).await.expect("done in time") };
    LocalSet::new().block_on(&runtime, all);
}

async fn until(watch: &mut Watch, what: impl FnMut(&Health) -> bool) {
    watch.health.wait_for(what).await.unwrap();
}

/// All four have succeeded since.
async fn proven_after(watch: &mut Watch, at: Instant) {
    until(watch, |h| [&h.write, &h.connect, &h.data, &h.wal].iter().all(|s| s.last > at)).await;
}

/// What the verdict is when it is no good one.
async fn sick(watch: &Watch, limit: Duration) -> Sick {
    loop {
        let health = watch.health.borrow().clone();
        if let Err(sick) = verdict(&health, Instant::now(), limit) {
            return sick;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_frozen_postmaster_is_seen_though_open_sessions_answer() {
    on_one_thread(async {
        let server = Server::start();
        let mut watch = server.watch();
        proven_after(&mut watch, Instant::now()).await;

        kill(server.postmaster(), Signal::SIGSTOP).unwrap();
        let sick = sick(&watch, Duration::from_secs(2)).await;
        assert_eq!(sick.check, Check::Connect, "{sick}");
        let seen = Instant::now();
        until(&mut watch, |h| h.write.last > seen && h.data.last > seen && h.wal.last > seen).await;
        until(&mut watch, |h| h.connect.trouble.as_ref().is_some_and(|t| t.contains("no answer after 2.0 s"))).await;

        kill(server.postmaster(), Signal::SIGCONT).unwrap();
        proven_after(&mut watch, Instant::now()).await;
        assert_eq!(watch.health.borrow().connect.trouble, None);
    });
}

#[test]
fn a_frozen_server_is_seen_and_no_checks_pile_up() {
    on_one_thread(async {
        let server = Server::start();
        let mut watch = server.watch();
        proven_after(&mut watch, Instant::now()).await;

        server.signal_all(Signal::SIGSTOP);
        let frozen = Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let health = watch.health.borrow().clone();
        assert!(health.write.last < frozen + EVERY && health.connect.last < frozen + EVERY);
        assert!(health.data.last > frozen + EVERY && health.wal.last > frozen + EVERY, "storage is well");
        verdict(&health, Instant::now(), Duration::from_secs(2)).unwrap_err();

        server.signal_all(Signal::SIGCONT);
        proven_after(&mut watch, Instant::now()).await;
        let ours =
            query(&server, "select count(*)::int4 from pg_stat_activity where application_name = 'podgres health'");
        assert_eq!(ours, 1, "one session");
    });
}

#[test]
fn a_session_that_somebody_ends_is_opened_anew() {
    on_one_thread(async {
        let server = Server::start();
        let mut watch = server.watch();
        proven_after(&mut watch, Instant::now()).await;
        let end = "select count(pg_terminate_backend(pid))::int4 from pg_stat_activity \
                   where application_name = 'podgres health'";
        assert_eq!(query(&server, end), 1);
        proven_after(&mut watch, Instant::now()).await;
        let log = server.log();
        assert!(!log.contains("pg_logical_emit_message"), "it fills no log: {log}");
    });
}

#[test]
fn a_load_is_no_sickness() {
    on_one_thread(async {
        let server = Server::start();
        let mut watch = server.watch();
        proven_after(&mut watch, Instant::now()).await;
        let pgbench = |arguments: &[&str]| {
            let mut command = as_postgres("pgbench");
            command.env("PGOPTIONS", "-c default_transaction_read_only=off");
            command.arg("-h").arg(server.dir.path()).args(["-U", "postgres"]).args(arguments).arg("postgres");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        run(&mut pgbench(&["-i", "-s", "5"]));
        let mut load = pgbench(&["-c", "16", "-T", "10"]).spawn().unwrap();
        let mut worst = Duration::ZERO;
        while load.try_wait().unwrap().is_none() {
            let (health, now) = (watch.health.borrow().clone(), Instant::now());
            verdict(&health, now, LIMIT).unwrap();
            let all = [&health.write, &health.connect, &health.data, &health.wal];
            worst = all.iter().map(|s| now.duration_since(s.last)).fold(worst, Duration::max);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("the oldest proof under load was {worst:?} old");
        assert!(load.wait().unwrap().success());
    });
}

#[test]
fn a_backup_has_no_trace_of_it() {
    on_one_thread(async {
        let server = Server::start_with(&[]);
        let mut watch = server.watch();
        proven_after(&mut watch, Instant::now()).await;
        let backup = server.dir.path().join("backup");
        let mut base_backup = as_postgres("pg_basebackup");
        run(base_backup.args(["-c", "fast", "-U", "postgres", "-h"]).arg(server.dir.path()).arg("-D").arg(&backup));
        run(as_postgres("pg_verifybackup").arg(&backup));
        assert!(!backup.join(PROBE).exists() && !backup.join("pg_wal").join(PROBE).exists());
        assert!(server.data().join(PROBE).exists());
    });
}

#[test]
fn a_stop_leaves_nothing_behind() {
    on_one_thread(async {
        let server = Server::start();
        let mut watch = server.watch();
        proven_after(&mut watch, Instant::now()).await;
        let files = [server.data().join(PROBE), server.data().join("pg_wal").join(PROBE)];
        assert!(files.iter().all(|f| f.exists()));
        drop(watch);
        let gone = |files: &[PathBuf]| !files.iter().any(|f: &PathBuf| Path::exists(f));
        while !gone(&files) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while query(&server, "select count(*)::int4 from pg_stat_activity where application_name like 'podgres%'") != 0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

fn query(server: &Server, sql: &str) -> i32 {
    let mut psql = as_postgres("psql");
    psql.arg("-h").arg(server.dir.path()).args(["-U", "postgres", "-d", "postgres", "-AtXc", sql]);
    let output = psql.stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().expect("a number")
}
