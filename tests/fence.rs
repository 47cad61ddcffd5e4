//! The fence, in PID namespaces of its own: this program is the test, and with an argument PID 1 of one, or its guard.

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
    io::{BufRead, BufReader, Write},
    process::{self, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use podgres::pid1::{
    Child, Children, Exit, Fence, Signals,
    fence::{GUARD, boottime},
    termination::note_instance,
};
use tokio::{
    task::{LocalSet, spawn_local},
    time::sleep,
};

/// Everybody is dead this long after the deadline: the fence's margin counts on it.
const DEAD: Duration = Duration::from_millis(1500);

type Test = (&'static str, fn());

const TESTS: [Test; 7] = [
    ("kills_everybody_at_the_deadline_and_only_once", || run_inside("deadline")),
    ("a_deadline_that_was_moved_or_cleared_kills_nobody", || run_inside("moved")),
    ("a_new_guard_is_there_when_one_was_killed", || run_inside("guard_killed")),
    ("the_instance_is_all_that_is_left_behind", || run_inside("termination")),
    ("the_guard_is_no_job_of_the_manager", || run_inside("no_job")),
    ("the_guard_kills_when_the_manager_is_frozen", frozen_manager),
    ("refused_in_words_where_it_would_kill_strangers", refused),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(GUARD) => return podgres::cli::main(arguments),
        Some("pid1") => return pid_1(&arguments[1]),
        _ => {}
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f)))
    {
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u8::from(!passed);
    }
    ExitCode::from(failed)
}

/// A PID namespace whose PID 1 is this program. It ends with this value.
struct Namespace {
    unshare: process::Child,
    said: BufReader<ChildStdout>,
    say: ChildStdin,
}

impl Namespace {
    fn start(scenario: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        if !Uid::effective().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg(std::env::current_exe().unwrap()).args(["pid1", scenario]);
        let mut unshare = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare of util-linux");
        let (said, say) = (BufReader::new(unshare.stdout.take().unwrap()), unshare.stdin.take().unwrap());
        Self { unshare, said, say }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    /// Its PID 1, as it is called out here.
    fn pid_1(&self) -> i32 {
        children_of(i32::try_from(self.unshare.id()).unwrap())[0]
    }

    fn ended_well(mut self) {
        drop(self.say);
        assert!(self.unshare.wait().unwrap().success(), "see above");
    }
}

fn run_inside(scenario: &str) {
    Namespace::start(scenario).ended_well();
}

/// The state and the parent of a process.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn pids() -> Vec<i32> {
    fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Those that live.
fn children_of(parent: i32) -> Vec<i32> {
    pids().into_iter().filter(|pid| stat(*pid).is_some_and(|(state, ppid)| ppid == parent && state != 'Z')).collect()
}

fn frozen_manager() {
    let mut namespace = Namespace::start("frozen");
    assert_eq!(namespace.line(), "armed");
    let manager = namespace.pid_1();
    let stopped = Instant::now();
    kill(Pid::from_raw(manager), Signal::SIGSTOP).unwrap();
    assert!(children_of(manager).len() >= 3, "the victims and the guard");
    // The guard itself ends when it is done.
    while !children_of(manager).is_empty() {
        assert!(stopped.elapsed() < Duration::from_secs(2) + DEAD, "still there: {:?}", children_of(manager));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(stopped.elapsed() > Duration::from_secs(1), "before the deadline: {:?}", stopped.elapsed());
    assert_eq!(stat(manager).unwrap().0, 'T', "it is still frozen");
    kill(Pid::from_raw(manager), Signal::SIGCONT).unwrap();
    assert_eq!(namespace.line(), "all dead");
    namespace.ended_well();
}

fn refused() {
    let error = Fence::start().unwrap_err().to_string();
    for word in ["hostPID", "shareProcessNamespace", &process::id().to_string()] {
        assert!(error.contains(word), "{error}");
    }
    // It would kill this very test.
    let mut by_hand = Command::new("/proc/self/exe");
    let mut by_hand = by_hand.arg(GUARD).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    by_hand.stdin.take().unwrap().write_all(b"readable").unwrap();
    assert_eq!(by_hand.wait().unwrap().code(), Some(2));
}

// From here on: PID 1.

/// Runs a scenario with a reaper, as in the manager.
fn pid_1(scenario: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut signals = Signals::install().unwrap();
        let children = Children::default();
        let reaped = children.clone();
        spawn_local(async move {
            loop {
                signals.next().await.unwrap();
                reaped.reap();
            }
        });
        let fence = Fence::start().unwrap();
        spawn_local(fence.clone().keep_guard(children.clone()));
        let place = Place { children, fence };
        let all = async {
            match scenario {
                "deadline" => place.deadline().await,
                "moved" => place.moved().await,
                "guard_killed" => place.guard_killed().await,
                "termination" => termination(),
                "no_job" => place.no_job().await,
                _ => place.frozen().await,
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("done in time");
    });
    ExitCode::SUCCESS
}

struct Place {
    children: Children,
    fence: Fence,
}

/// Two children and, of each, somebody who is not.
struct Victims {
    polite: Child,
    deaf: Child,
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
}

impl Place {
    async fn victims(&self) -> Victims {
        let polite = self.children.spawn(&mut shell("setsid sleep 1000 & exec sleep 1000")).unwrap();
        let deaf = self.children.spawn(&mut shell("trap '' QUIT TERM INT; sleep 1000; sleep 1000")).unwrap();
        until(|| pids().iter().filter(|pid| command_line(**pid).starts_with("sleep")).count() == 3).await;
        Victims { polite, deaf }
    }

    fn guards(&self) -> Vec<i32> {
        pids().into_iter().filter(|pid| command_line(*pid) == "podgres guard").collect()
    }

    async fn deadline(self) {
        let mut victims = self.victims().await;
        let deadline = boottime() + Duration::from_secs(2);
        self.fence.arm(deadline).unwrap();
        until(|| !self.guards().is_empty()).await;
        println!("{}", memory(self.guards()[0]));
        assert_eq!(victims.polite.wait().await, Exit::Signal(3), "PostgreSQL gets its immediate shutdown");
        let first = boottime();
        assert!(first >= deadline, "too early by {:?}", deadline.since(first));
        assert!(self.fence.is_killing());
        assert_eq!(victims.deaf.wait().await, Exit::Signal(9));
        until(|| children_of(1).is_empty() && pids() == [1]).await;
        let last = boottime();
        println!("first {:?}, last {:?} after the deadline", first.since(deadline), last.since(deadline));
        // A few milliseconds, where two cores have nothing else to do.
        assert!(first.since(deadline) < Duration::from_millis(300), "{:?}", first.since(deadline));
        assert!(last.since(deadline) < DEAD, "{:?}", last.since(deadline));
        until(|| !self.fence.is_killing()).await;

        // The deadline is still the old one, and it was served.
        let mut victims = self.victims().await;
        sleep(Duration::from_secs(1)).await;
        assert!(victims.polite.is_running() && victims.deaf.is_running() && self.fence.fired() == 1);
        assert!(self.guards().is_empty(), "a guard would serve it again");
        self.fence.disarm().unwrap();
        self.fence.arm(boottime()).unwrap();
        assert_eq!(victims.deaf.wait().await, Exit::Signal(9), "a new deadline, which has passed, is a new one");
        assert_eq!(victims.polite.wait().await, Exit::Signal(3));
        assert!(self.fence.fired() >= 2);
    }

    async fn moved(self) {
        let victims = self.victims().await;
        let steps = 12;
        for _ in 0..steps {
            self.fence.arm(boottime() + Duration::from_millis(500)).unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        self.fence.disarm().unwrap();
        sleep(Duration::from_secs(1)).await;
        assert!(victims.polite.is_running() && victims.deaf.is_running() && self.fence.fired() == 0);
        assert_eq!(self.guards().len(), 1);
    }

    async fn guard_killed(self) {
        let mut victims = self.victims().await;
        self.fence.arm(boottime() + Duration::from_secs(60)).unwrap();
        until(|| !self.guards().is_empty()).await;
        let old = self.guards()[0];
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        until(|| self.guards().iter().any(|pid| *pid != old)).await;
        // It hears nobody.
        let new = Pid::from_raw(self.guards()[0]);
        until(|| fs::read_to_string(format!("/proc/{new}/status")).unwrap().contains("SigBlk:\tffff")).await;
        for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT, Signal::SIGHUP] {
            kill(new, signal).unwrap();
        }
        sleep(Duration::from_millis(200)).await;
        assert_eq!(self.guards(), [new.as_raw()]);
        // The thread needs no guard.
        kill(new, Signal::SIGSTOP).unwrap();
        self.fence.arm(boottime() + Duration::from_millis(200)).unwrap();
        assert_eq!((victims.polite.wait().await, victims.deaf.wait().await), (Exit::Signal(3), Exit::Signal(9)));
    }

    async fn no_job(self) {
        self.fence.arm(boottime() + Duration::from_secs(60)).unwrap();
        until(|| !self.guards().is_empty()).await;
        assert!(self.children.is_empty(), "who waits for all jobs waits for the guard");
        self.children.signal_groups(Signal::SIGKILL);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(self.guards().len(), 1);
    }

    async fn frozen(self) {
        let mut victims = self.victims().await;
        self.fence.arm(boottime() + Duration::from_secs(60)).unwrap();
        until(|| !self.guards().is_empty()).await;
        self.fence.arm(boottime() + Duration::from_secs(2)).unwrap();
        println!("armed");
        assert_eq!((victims.polite.wait().await, victims.deaf.wait().await), (Exit::Signal(3), Exit::Signal(9)));
        until(|| self.fence.fired() == 1 && !self.fence.is_killing()).await;
        println!("all dead");
    }
}

fn termination() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("termination-log");
    let error = note_instance(&file, "c0ffee").unwrap_err().to_string();
    assert!(error.contains("termination-log") && error.contains("waits for the Lease"), "{error}");
    fs::write(&file, "what an earlier instance wrote").unwrap();
    note_instance(&file, "c0ffee").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "c0ffee");
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(5)).await;
    }
}

fn command_line(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().trim_end_matches('\0').replace('\0', " ")
}

fn memory(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines: Vec<&str> =
        status.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("VmLck") || l.starts_with("Rss")).collect();
    lines.join(", ").replace(['\t', ' '], "")
}
