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

mod common;

use std::{
    fs::{self, File},
    process::Command,
    time::{Duration, Instant},
};

use common::{Bench, Member, Running, footprint, median, milliseconds, report};

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

fn main() {
    let Some(bench) = Bench::begin() else { return };
    let standalone = Standalone { server: bench.member("server", 54329), runs: bench.runs };
    standalone.fresh();
    standalone.restart();
    standalone.footprint();
    standalone.logging();
}

struct Standalone<'a> {
    server: Member<'a>,
    runs: usize,
}

impl Standalone<'_> {
    fn fresh(&self) {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..self.runs {
            self.server.clear();
            figures[0].push(self.until_first_query(&mut self.server.podgres(&[])));
            self.server.clear();
            figures[1].push(self.until_first_query(self.server.command("/bin/bash").args(["-c", BY_SCRIPT])));
        }
        report("new data directory to first query", "podgres", "entrypoint script", [&figures[0], &figures[1]], "ms");
    }

    fn restart(&self) {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..self.runs * 3 {
            figures[0].push(self.until_first_query(&mut self.server.podgres(&[])));
            figures[1].push(self.until_first_query(&mut self.server.bare(&[])));
        }
        let [ours, theirs] = &figures;
        report("initialised data directory to first query", "podgres", "bare postgres", [ours, theirs], "ms");
        println!("    difference {:.1} ms", median(ours) - median(theirs));
    }

    /// Starts it, asks until it answers, stops it; milliseconds.
    fn until_first_query(&self, command: &mut Command) -> f64 {
        let begun = Instant::now();
        let server = Running::start(command);
        self.server.connect("app");
        let took = milliseconds(begun);
        server.stop();
        took
    }

    fn footprint(&self) {
        let manager = Running::start(&mut self.server.podgres(&[]));
        self.server.connect("app");
        std::thread::sleep(Duration::from_secs(2));
        footprint("the manager", &manager);
    }

    fn logging(&self) {
        let server = Running::start(&mut self.server.bare(&[]));
        self.server.connect("app");
        self.server.pgbench(&["-i", "-q", "-s", "5"]);
        server.stop();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            let out = File::create(self.server.dir.join("stdout")).unwrap();
            ours.push(self.throughput(self.server.podgres(&["-c", "log_statement=all"]).stdout(out)));
            let files = format!("log_directory={}", self.server.dir.join("data/log").display());
            let own =
                ["-c", "log_statement=all", "-c", "logging_collector=on", "-c", &files, "-c", "log_filename=own.log"];
            theirs.push(self.throughput(&mut self.server.bare(&own)));
            fs::remove_file(self.server.dir.join("data/log/own.log")).unwrap();
        }
        report("pgbench -S with log_statement=all", "podgres", "its own log file", [&ours, &theirs], "tps");
    }

    fn throughput(&self, server: &mut Command) -> f64 {
        let server = Running::start(server);
        self.server.connect("app");
        let said = self.server.pgbench(&["-S", "-n", "-c", "4", "-j", "2", "-T", "8"]);
        server.stop();
        let tps = said.lines().find_map(|l| l.strip_prefix("tps = ")).expect("pgbench says tps");
        tps.split(' ').next().unwrap().parse().unwrap()
    }
}
