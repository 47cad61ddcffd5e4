//! What an idle cluster costs: its manager's memory, threads and CPU, and the requests that it sends to the API server.

use std::{
    fs,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::PathBuf,
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::{
    api,
    harness::docker_ok,
    manager::Manager,
    rows::{Figures, Row},
    world::{Member, NAME, World},
};

/// How long is looked at.
const WINDOW: Duration = Duration::from_secs(60);

/// After the last change, until what follows it is over.
const CALM: Duration = Duration::from_secs(30);

/// Of a cluster that has settled.
pub fn three(world: &World, members: &[Member<'_>], figures: &mut Figures) {
    sleep(CALM);
    let leader = &members[world.settle(members)];
    let processes = processes(leader);
    let requests = Requests::of(world);
    let before: Vec<_> = processes.iter().map(|(pid, _)| cpu(*pid)).collect();
    sleep(WINDOW);
    let used: Vec<_> = processes.iter().zip(before).map(|((pid, _), before)| cpu(*pid) - before).collect();
    for ((pid, command), used) in processes.iter().zip(&used) {
        println!(
            "{}: {command}: {:.1} MiB resident ({:.1} of it anonymous), {} threads, {:.3} % of a core",
            figures.column,
            field(*pid, "VmRSS:") / 1024.0,
            field(*pid, "RssAnon:") / 1024.0,
            field(*pid, "Threads:"),
            used * 100.0 / WINDOW.as_secs_f64()
        );
    }
    // The table has the manager's own process; its guard, where there is one, was printed.
    if let (Some((pid, _)), Some(used)) = (processes.first(), used.first()) {
        figures.add_seconds(Row::Memory, field(*pid, "VmRSS:") / 1024.0);
        figures.add_seconds(Row::Threads, field(*pid, "Threads:"));
        figures.add_seconds(Row::Cpu, used * 100.0 / WINDOW.as_secs_f64());
    }
    requests.report(Row::Requests, figures);
}

pub fn twenty(manager: Manager, figures: &mut Figures) {
    let world = World::new(manager);
    let mut members = Vec::new();
    // Not all at once: nobody measures how fast this machine clones.
    for n in 0..20 {
        members.push(Member::new(&world, n));
        members[n].start();
        if n % 4 == 0 {
            world.settle(&members);
        }
    }
    world.settle(&members);
    sleep(CALM);
    let requests = Requests::of(&world);
    sleep(WINDOW);
    requests.report(Row::Twenty, figures);
}

/// The manager's processes in a member's container, the one with the manager itself first.
fn processes(member: &Member<'_>) -> Vec<(u32, String)> {
    let table = docker_ok(&["top", &member.container.name, "-eo", "pid,args"]);
    let rows = table.lines().skip(1).filter_map(|line| line.trim().split_once(' '));
    let is_manager = |command: &str| {
        !command.contains("docker-init")
            && (command.contains("/opt/patroni") || command.contains("podgres"))
            && !command.contains("postgres: ")
            && !command.contains("bin/postgres ")
    };
    rows.filter(|(_, command)| is_manager(command))
        .map(|(pid, command)| (pid.parse().unwrap(), command.trim().chars().take(60).collect()))
        .collect()
}

/// Seconds that its threads have run.
fn cpu(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |text: String| text.split(' ').next().unwrap().parse::<f64>().unwrap();
    // A thread may have ended just now.
    tasks.filter_map(|t| fs::read_to_string(t.unwrap().path().join("schedstat")).ok()).map(of).sum::<f64>() / 1e9
}

fn field(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}

/// The requests of a cluster's service account from now on, by the API server's audit log.
struct Requests {
    log: PathBuf,
    from: u64,
    user: String,
}

impl Requests {
    fn of(world: &World) -> Self {
        let log = api::up(false).kubeconfig.with_file_name("log").join("audit.log");
        let from = fs::metadata(&log).map_or(0, |m| m.len());
        Self { log, from, user: format!("system:serviceaccount:{}:{NAME}", world.namespace) }
    }

    /// After [`WINDOW`].
    fn report(self, row: Row, figures: &mut Figures) {
        let Ok(mut file) = fs::File::open(&self.log) else {
            println!("{}: no {}, so no requests are counted", figures.column, self.log.display());
            return;
        };
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut kinds = std::collections::BTreeMap::<String, u32>::new();
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            // A watch counts when it begins: its end is no request.
            let stage = if event["verb"] == "watch" { "ResponseStarted" } else { "ResponseComplete" };
            if event["user"]["username"] == self.user.as_str() && event["stage"] == stage {
                let object = event["objectRef"]["resource"].as_str().unwrap_or_default();
                *kinds.entry(format!("{} {object}", event["verb"].as_str().unwrap_or_default())).or_default() += 1;
            }
        }
        println!("{}: requests: {kinds:?}", figures.column);
        figures.add_seconds(row, f64::from(kinds.values().sum::<u32>()) * 60.0 / WINDOW.as_secs_f64());
    }
}
