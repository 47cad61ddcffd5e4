//! A standby, its promotion and its return with podgres and by hand, in one run on one disk:
//! `cargo bench --bench replication`.
//!
//! Prints medians and ratios; judges nothing, since machines are noisy. Run as root it drops to the user `postgres`.
//! `RUNS` (default 7) is how often each figure is measured, those of a gigabyte at most three times; `PODGRES_BIN` says
//! which binary.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark"
)]
#![allow(clippy::disallowed_methods, reason = "not PID 1")]

mod common;

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{ChildStdout, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{Bench, Member, Running, footprint, median, milliseconds, report, wait_for};
use nix::sys::signal::Signal;
use postgres::Client;

/// Between two questions, of which the first that gets its answer ends the measurement.
const PAUSE: Duration = Duration::from_micros(500);

fn main() {
    let Some(bench) = Bench::begin() else { return };
    small_clones_and_promotions(&bench);
    returns(&bench);
    clones_of_a_gigabyte(&bench);
}

/// Milliseconds, of each run.
#[derive(Default)]
struct Figures {
    streaming: Vec<f64>,
    verification: Vec<f64>,
    promotion: Vec<f64>,
}

fn small_clones_and_promotions(bench: &Bench) {
    let primary = bench.member("primary", 54330);
    let manager = Running::start(&mut primary.podgres(&[]));
    primary.connect("app").batch_execute("create table load (t text); create table written (t text)").unwrap();
    let standby = bench.member("standby", 54331);
    let (mut ours, mut bare, mut quick) = (Figures::default(), Figures::default(), Figures::default());
    under_load(&primary, || {
        for _ in 0..bench.runs {
            let server = clone_with_podgres(&primary, &standby, &mut ours);
            promote_with_podgres(&standby, &server, &mut ours);
            server.stop();
            for (settings, figures) in
                [(&[][..], &mut bare), (&["-c", "wal_retrieve_retry_interval=100ms"], &mut quick)]
            {
                let server = clone_by_hand(&primary, &standby, settings, figures);
                promote_by_hand(&standby, figures);
                server.stop();
            }
        }
    });
    report_clones("a small database", &ours, &bare);
    let promotion = "promotion to first accepted write, under load";
    report(promotion, "SIGUSR1 to podgres", "pg_ctl promote", [&ours.promotion, &bare.promotion], "ms");
    let same = "the same with wal_retrieve_retry_interval=100ms on both";
    report(same, "SIGUSR1 to podgres", "pg_ctl promote", [&ours.promotion, &quick.promotion], "ms");

    let server = clone_with_podgres(&primary, &standby, &mut ours);
    // Until what follows a start is over; a standby looks at its source every ten seconds.
    std::thread::sleep(Duration::from_secs(15));
    footprint("the manager of a standby", &server);
    footprint("the manager of its primary", &manager);
}

fn clones_of_a_gigabyte(bench: &Bench) {
    let primary = bench.member("primary", 54330);
    let _manager = Running::start(&mut primary.podgres(&["-c", "max_wal_size=4GB"]));
    primary.connect("app");
    primary.pgbench(&["-i", "-q", "-s", "65"]);
    let standby = bench.member("standby", 54331);
    let (mut ours, mut bare) = (Figures::default(), Figures::default());
    for _ in 0..bench.runs.min(3) {
        clone_with_podgres(&primary, &standby, &mut ours).stop();
        clone_by_hand(&primary, &standby, &[], &mut bare).stop();
    }
    report_clones("a gigabyte", &ours, &bare);
}

fn report_clones(of: &str, ours: &Figures, bare: &Figures) {
    let what = format!("{of}: end of pg_basebackup to streaming");
    report(&what, "podgres", "by hand", [&ours.streaming, &bare.streaming], "ms");
    println!(
        "    in it podgres verifies the copy: {:.0} ms; the rest: {:.0} ms",
        median(&ours.verification),
        median(&ours.streaming.iter().zip(&ours.verification).map(|(all, part)| all - part).collect::<Vec<_>>())
    );
}

/// Does it while somebody writes to the primary, gently.
fn under_load(primary: &Member<'_>, work: impl FnOnce()) {
    let mut client = primary.connect("app");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                client.batch_execute("insert into load values (repeat('x', 500))").unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        // Also when it panics: the scope waits for the other thread.
        let _done = Done(&done);
        work();
    });
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn standby_with_podgres(standby: &Member<'_>, primary: &Member<'_>) -> Command {
    let mut command = standby.podgres(&[]);
    command.env("PODGRES_STANDBY_OF", format!("host=127.0.0.1 port={}", primary.port));
    command
}

fn clone_with_podgres(primary: &Member<'_>, standby: &Member<'_>, figures: &mut Figures) -> Running {
    standby.clear();
    let mut asked = primary.connect("app");
    let mut command = standby_with_podgres(standby, primary);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = read_lines(child.stdout.take().unwrap());
    let server = Running::of(child);
    let copied = line(&lines, "cloning: verifying");
    let before = walsenders(&mut asked);
    let verified = line(&lines, "cloning: moving the copy into place");
    wait_for_streaming(&mut asked, &before);
    figures.streaming.push(milliseconds(copied));
    figures.verification.push((verified - copied).as_secs_f64() * 1e3);
    server
}

fn clone_by_hand(primary: &Member<'_>, standby: &Member<'_>, settings: &[&str], figures: &mut Figures) -> Running {
    standby.clear();
    let mut asked = primary.connect("app");
    let mut copy = standby.program("pg_basebackup");
    copy.args(["-R", "--checkpoint=fast", "-D"]).arg(standby.pgdata()).arg("-d").arg(conninfo(primary));
    assert!(copy.status().unwrap().success());
    let begun = Instant::now();
    let before = walsenders(&mut asked);
    let server = Running::start(&mut standby.bare(settings));
    wait_for_streaming(&mut asked, &before);
    figures.streaming.push(milliseconds(begun));
    server
}

/// Through the socket, where PostgreSQL's own rules trust.
fn conninfo(primary: &Member<'_>) -> String {
    format!("host={} port={} user=postgres application_name=bare", primary.dir.display(), primary.port)
}

fn promote_with_podgres(standby: &Member<'_>, server: &Running, figures: &mut Figures) {
    let mut client = write_attempts(standby);
    let begun = Instant::now();
    server.signal(Signal::SIGUSR1);
    wait_for_write(&mut client);
    figures.promotion.push(milliseconds(begun));
}

fn promote_by_hand(standby: &Member<'_>, figures: &mut Figures) {
    let mut client = write_attempts(standby);
    let begun = Instant::now();
    let mut pg_ctl = standby.program("pg_ctl").args(["promote", "--no-wait"]).spawn().unwrap();
    wait_for_write(&mut client);
    figures.promotion.push(milliseconds(begun));
    assert!(pg_ctl.wait().unwrap().success());
}

/// A session whose attempts are not logged, which would load one side with its lines and not the other.
fn write_attempts(standby: &Member<'_>) -> Client {
    let mut client = standby.connect("app");
    client.batch_execute("set log_min_messages = fatal").unwrap();
    assert!(client.batch_execute(WRITE).is_err(), "it is a standby");
    client
}

const WRITE: &str = "insert into written values ('x')";

fn wait_for_write(client: &mut Client) {
    wait_for("a write to be accepted", PAUSE, || client.batch_execute(WRITE).ok());
}

/// Two pairs, one with podgres and one without, whose members change places in turn.
fn returns(bench: &Bench) {
    let [mut a, mut b] = [bench.member("a", 54332), bench.member("b", 54333)];
    let [mut c, mut d] = [bench.member("c", 54334), bench.member("d", 54335)];
    let mut figures = Figures::default();
    let mut first = Running::start(&mut a.podgres(&[]));
    a.connect("app").batch_execute("create table written (t text)").unwrap();
    let mut second = clone_with_podgres(&a, &b, &mut figures);
    let initdb = c.program("initdb").args(["--auth=trust", "--username=postgres"]).status();
    assert!(initdb.unwrap().success());
    let mut third = Running::start(&mut c.bare(&[]));
    c.connect("postgres").batch_execute("create database app").unwrap();
    c.connect("app").batch_execute("create table written (t text)").unwrap();
    let mut fourth = clone_by_hand(&c, &d, &[], &mut figures);

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..bench.runs {
        first.stop();
        promote_with_podgres(&b, &second, &mut figures);
        let (begun, mut asked) = (Instant::now(), b.connect("app"));
        let returned = Running::start(&mut standby_with_podgres(&a, &b));
        wait_for_streaming(&mut asked, &[]);
        ours.push(milliseconds(begun));
        (first, second) = (second, returned);
        std::mem::swap(&mut a, &mut b);

        third.stop();
        promote_by_hand(&d, &mut figures);
        let (begun, mut asked) = (Instant::now(), d.connect("app"));
        File::create(c.pgdata().join("standby.signal")).unwrap();
        let returned = Running::start(&mut c.bare(&["-c", &format!("primary_conninfo={}", conninfo(&d))]));
        wait_for_streaming(&mut asked, &[]);
        bare.push(milliseconds(begun));
        (third, fourth) = (fourth, returned);
        std::mem::swap(&mut c, &mut d);
    }
    drop((second, fourth));
    report("start of a former primary to streaming", "podgres", "by hand", [&ours, &bare], "ms");
}

/// The backends that send WAL, pg_basebackup's among them.
fn walsenders(client: &mut Client) -> Vec<i32> {
    client.query("select pid from pg_stat_replication", &[]).unwrap().iter().map(|r| r.get(0)).collect()
}

fn wait_for_streaming(client: &mut Client, before: &[i32]) {
    let sql = "select from pg_stat_replication where state = 'streaming' and pid <> all ($1)";
    wait_for("a standby to stream", PAUSE, || client.query_opt(sql, &[&before]).unwrap());
}

/// Every line with the time at which it came. The pipe is emptied to its end.
fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<(Instant, String)> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = tell.send((Instant::now(), line));
        }
    });
    told
}

/// When the line with `text` came.
fn line(lines: &mpsc::Receiver<(Instant, String)>, text: &str) -> Instant {
    let mut all = String::new();
    while let Ok((at, line)) = lines.recv_timeout(Duration::from_secs(120)) {
        if line.contains(text) {
            return at;
        }
        all += &line;
        all.push('\n');
    }
    panic!("no line with {text:?}:\n{all}");
}
