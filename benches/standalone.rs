//! podgres against the same PostgreSQL without it, in one run on one disk: `cargo bench --bench standalone`.
//!
//! Prints medians and ratios; judges nothing, since machines are noisy. Run as root it drops to the user `postgres`.
//! `RUNS` (default 7) is how often each figure is measured, `PODGRES_BIN` which binary.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark"
)]
#![allow(clippy::disallowed_methods, reason = "not PID 1")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PORT: &str = "54329";

/// What the official image's entrypoint does for a new data directory, step by step: initdb, a temporary server, the
/// database, a stop, and then the server.
const BY_SCRIPT: &str = r#"
set -euo pipefail
initdb --username=postgres --pwfile=<(echo hush) -D "$PGDATA"
echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
PGUSER=postgres pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -c unix_socket_directories=$WORK -p $PORT" -w start
psql -v ON_ERROR_STOP=1 --no-psqlrc -h "$WORK" -p $PORT -U postgres -d postgres -c 'create database app'
pg_ctl -D "$PGDATA" -m fast -w stop
exec postgres -D "$PGDATA" -c port=$PORT -c listen_addresses=127.0.0.1 -c unix_socket_directories="$WORK"
"#;

struct Bench {
    work: PathBuf,
    bin: PathBuf,
    podgres: PathBuf,
    runs: usize,
}

fn main() {
    // `cargo test` runs benchmarks too, with this argument missing.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let work = std::env::temp_dir().join(format!("podgres-bench-{}", std::process::id()));
    let bench = Bench {
        bin: std::env::var("POSTGRES_BIN").unwrap_or("/usr/lib/postgresql/15/bin".into()).into(),
        podgres: std::env::var("PODGRES_BIN").map_or(PathBuf::from(env!("CARGO_BIN_EXE_podgres")), PathBuf::from),
        runs: std::env::var("RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(7),
        work: work.clone(),
    };
    fs::create_dir_all(&work).unwrap();
    // The binary may lie where the unprivileged user cannot go.
    fs::copy(&bench.podgres, work.join("podgres")).unwrap();
    if nix::unistd::geteuid().is_root() {
        assert!(Command::new("chown").args(["-R", "postgres"]).arg(&work).status().unwrap().success());
    }
    bench.fresh();
    bench.restart();
    bench.footprint();
    bench.logging();
    let _ = fs::remove_dir_all(&work);
}

impl Bench {
    fn command(&self, program: &Path) -> Command {
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut c = Command::new("setpriv");
            c.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
            c
        } else {
            Command::new(program)
        };
        let path = format!("{}:/usr/bin:/bin", self.bin.display());
        command.env_clear().env("PATH", path).env("LANG", "C.UTF-8").env("WORK", &self.work).env("PORT", PORT);
        command.env("PGDATA", self.pgdata()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn pgdata(&self) -> PathBuf {
        self.work.join("data/pgdata")
    }

    fn clear(&self) {
        let mut remove = self.command(Path::new("/bin/rm"));
        remove.arg("-rf").arg(self.work.join("data"));
        assert!(remove.status().unwrap().success());
        assert!(self.command(Path::new("/bin/mkdir")).arg(self.work.join("data")).status().unwrap().success());
    }

    fn podgres(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.work.join("podgres"));
        command
            .env("POSTGRES_PASSWORD", "hush")
            .env("POSTGRES_DB", "app")
            .env("PODGRES_RUN_DIR", self.work.join("run"));
        command.env("PODGRES_LISTEN", "127.0.0.1:58008").arg("run").args(self.server_arguments()).args(arguments);
        command
    }

    fn server_arguments(&self) -> Vec<String> {
        let sockets = format!("unix_socket_directories={}", self.work.display());
        let port = format!("port={PORT}");
        ["-c", &port, "-c", "listen_addresses=127.0.0.1", "-c", &sockets].map(String::from).to_vec()
    }

    fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.bin.join("postgres"));
        command.arg("-D").arg(self.pgdata()).args(self.server_arguments()).args(arguments);
        command
    }

    fn fresh(&self) {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..self.runs {
            self.clear();
            figures[0].push(self.until_first_query(&mut self.podgres(&[])));
            self.clear();
            let mut script = self.command(Path::new("/bin/bash"));
            figures[1].push(self.until_first_query(script.args(["-c", BY_SCRIPT])));
        }
        report("new data directory to first query", "podgres", "entrypoint script", &figures, "ms");
    }

    fn restart(&self) {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..self.runs * 3 {
            figures[0].push(self.until_first_query(&mut self.podgres(&[])));
            figures[1].push(self.until_first_query(&mut self.bare(&[])));
        }
        report("initialised data directory to first query", "podgres", "bare postgres", &figures, "ms");
        let [ours, theirs] = figures.map(median);
        println!("    difference {:.1} ms", ours - theirs);
    }

    /// Starts it, asks until it answers, stops it; milliseconds.
    fn until_first_query(&self, command: &mut Command) -> f64 {
        let begun = Instant::now();
        let child = command.spawn().unwrap();
        first_query(begun);
        let took = begun.elapsed().as_secs_f64() * 1e3;
        stop(child);
        took
    }

    fn footprint(&self) {
        let child = self.podgres(&[]).spawn().unwrap();
        first_query(Instant::now());
        std::thread::sleep(Duration::from_secs(2));
        // setpriv executes podgres in its own place, so this is the manager.
        let pid = child.id();
        let before = switches(pid);
        std::thread::sleep(Duration::from_secs(10));
        let wakeups = (switches(pid) - before) / 10.0;
        println!(
            "the manager, idle: {:.2} MiB resident ({:.2} MiB of it anonymous), {} threads, {wakeups:.1} wake-ups a second",
            field(pid, "VmRSS:") / 1024.0,
            field(pid, "RssAnon:") / 1024.0,
            field(pid, "Threads:"),
        );
        stop(child);
    }

    fn logging(&self) {
        let child = self.bare(&[]).spawn().unwrap();
        first_query(Instant::now());
        self.pgbench(&["-i", "-q", "-s", "5"]);
        stop(child);
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..self.runs {
            let out = File::create(self.work.join("stdout")).unwrap();
            figures[0].push(self.throughput(self.podgres(&["-c", "log_statement=all"]).stdout(out)));
            let files = format!("log_directory={}", self.work.join("data/log").display());
            let own =
                ["-c", "log_statement=all", "-c", "logging_collector=on", "-c", &files, "-c", "log_filename=own.log"];
            figures[1].push(self.throughput(&mut self.bare(&own)));
            fs::remove_file(self.work.join("data/log/own.log")).unwrap();
        }
        report("pgbench -S with log_statement=all", "podgres", "its own log file", &figures, "tps");
    }

    fn throughput(&self, server: &mut Command) -> f64 {
        let child = server.spawn().unwrap();
        first_query(Instant::now());
        let said = self.pgbench(&["-S", "-n", "-c", "4", "-j", "2", "-T", "8"]);
        stop(child);
        let tps = said.lines().find_map(|l| l.strip_prefix("tps = ")).expect("pgbench says tps");
        tps.split(' ').next().unwrap().parse().unwrap()
    }

    fn pgbench(&self, arguments: &[&str]) -> String {
        let mut command = self.command(&self.bin.join("pgbench"));
        command.args(arguments).arg("-h").arg(&self.work).args(["-p", PORT, "-U", "postgres", "app"]);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Over TCP, where only the real server answers.
fn first_query(begun: Instant) {
    let config = format!("host=127.0.0.1 port={PORT} user=postgres password=hush dbname=app connect_timeout=2");
    while begun.elapsed() < Duration::from_secs(60) {
        if let Ok(mut client) = postgres::Client::connect(&config, postgres::NoTls) {
            client.simple_query("select 1").unwrap();
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("waited 60 s for the first query");
}

fn stop(mut child: Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    child.wait().unwrap();
}

fn field(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}

/// How often its threads have gone to sleep.
fn switches(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |status: String| -> f64 {
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap().to_string();
        line.trim().parse().unwrap()
    };
    tasks.map(|t| of(fs::read_to_string(t.unwrap().path().join("status")).unwrap())).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(what: &str, ours: &str, theirs: &str, figures: &[Vec<f64>; 2], unit: &str) {
    let [a, b] = figures.clone().map(median);
    println!(
        "{what}: {ours} {a:.0} {unit}, {theirs} {b:.0} {unit}, ratio {:.2} (medians of {})",
        a / b,
        figures[0].len()
    );
}
