//! What the benchmarks share: servers on this machine, with podgres and without it, and figures beside each other.

#![allow(unreachable_pub, dead_code, reason = "each benchmark uses its part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longer than anything that is measured takes.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Bench {
    pub work: PathBuf,
    pub bin: PathBuf,
    pub runs: usize,
}

impl Bench {
    /// None where nothing is to be measured: `cargo test` runs benchmarks too, with this argument missing.
    pub fn begin() -> Option<Self> {
        if !std::env::args().any(|a| a == "--bench") {
            return None;
        }
        let work = std::env::temp_dir().join(format!("podgres-bench-{}", std::process::id()));
        let podgres = std::env::var("PODGRES_BIN").map_or(PathBuf::from(env!("CARGO_BIN_EXE_podgres")), PathBuf::from);
        let bin = std::env::var("POSTGRES_BIN").unwrap_or("/usr/lib/postgresql/15/bin".into()).into();
        let runs = std::env::var("RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(7);
        fs::create_dir_all(&work).unwrap();
        // The binary may lie where the unprivileged user cannot go.
        fs::copy(podgres, work.join("podgres")).unwrap();
        if nix::unistd::geteuid().is_root() {
            assert!(Command::new("chown").args(["-R", "postgres"]).arg(&work).status().unwrap().success());
        }
        Some(Self { work, bin, runs })
    }

    /// A place for a server, which listens on this port. Podgres listens on the one 4000 above.
    pub fn member(&self, name: &str, port: u16) -> Member<'_> {
        let dir = self.work.join(name);
        let member = Member { bench: self, dir, port };
        member.clear();
        member
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.work);
    }
}

#[derive(Clone)]
pub struct Member<'a> {
    bench: &'a Bench,
    pub dir: PathBuf,
    pub port: u16,
}

impl Member<'_> {
    /// A command as the unprivileged user, in an environment that knows where this member is.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut c = Command::new("setpriv");
            c.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program.as_ref());
            c
        } else {
            Command::new(program.as_ref())
        };
        let path = format!("{}:/usr/bin:/bin", self.bench.bin.display());
        command.env_clear().env("PATH", path).env("LANG", "C.UTF-8").env("WORK", &self.dir);
        command.env("PORT", self.port.to_string()).env("PGDATA", self.pgdata());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// One of PostgreSQL's programs.
    pub fn program(&self, name: &str) -> Command {
        self.command(self.bench.bin.join(name))
    }

    pub fn pgdata(&self) -> PathBuf {
        self.dir.join("data/pgdata")
    }

    /// Nothing is left, and the directories are there.
    pub fn clear(&self) {
        assert!(self.command("/bin/rm").arg("-rf").arg(&self.dir).status().unwrap().success());
        assert!(self.command("/bin/mkdir").arg("-p").arg(self.dir.join("data")).status().unwrap().success());
    }

    pub fn podgres(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(self.bench.work.join("podgres"));
        command.env("POSTGRES_PASSWORD", "hush").env("POSTGRES_DB", "app").env("PODGRES_RUN_DIR", self.dir.join("run"));
        command.env("PODGRES_LISTEN", format!("127.0.0.1:{}", self.port + 4000));
        command.arg("run").args(self.server_arguments()).args(arguments);
        command
    }

    pub fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.pgdata()).args(self.server_arguments()).args(arguments);
        command
    }

    fn server_arguments(&self) -> Vec<String> {
        let sockets = format!("unix_socket_directories={}", self.dir.display());
        let port = format!("port={}", self.port);
        ["-c", &port, "-c", "listen_addresses=127.0.0.1", "-c", &sockets].map(String::from).to_vec()
    }

    /// Connects as soon as that is possible: over TCP, where only the real server answers.
    pub fn connect(&self, database: &str) -> postgres::Client {
        let config = format!(
            "host=127.0.0.1 port={} user=postgres password=hush dbname={database} connect_timeout=2",
            self.port
        );
        wait_for("a first query", Duration::from_millis(1), || {
            let mut client = postgres::Client::connect(&config, postgres::NoTls).ok()?;
            client.simple_query("select 1").unwrap();
            Some(client)
        })
    }

    pub fn pgbench(&self, arguments: &[&str]) -> String {
        let mut command = self.program("pgbench");
        command.args(arguments).arg("-h").arg(&self.dir).args(["-p", &self.port.to_string(), "-U", "postgres", "app"]);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A server, with podgres or without. One that nobody stops goes down with the benchmark.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self::of(command.spawn().unwrap())
    }

    pub fn of(child: Child) -> Self {
        Self(child)
    }

    /// setpriv executes the server in its own place, so this is the manager or the postmaster.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|exit| exit.is_none()) {
            self.signal(nix::sys::signal::Signal::SIGINT);
            let _ = self.0.wait();
        }
    }
}

pub fn wait_for<T>(what: &str, pause: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(pause);
    }
}

pub fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Says what a manager that has nothing to do takes, and how often it wakes up in ten seconds.
pub fn footprint(what: &str, manager: &Running) {
    let pid = manager.pid();
    let before = switches(pid);
    std::thread::sleep(Duration::from_secs(10));
    let wakeups = (switches(pid) - before) / 10.0;
    println!(
        "{what}, idle: {:.2} MiB resident ({:.2} MiB of it anonymous), {} threads, {wakeups:.1} wake-ups a second",
        field(pid, "VmRSS:") / 1024.0,
        field(pid, "RssAnon:") / 1024.0,
        field(pid, "Threads:"),
    );
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

pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Medians and their ratio.
pub fn report(what: &str, ours: &str, theirs: &str, figures: [&[f64]; 2], unit: &str) {
    let [a, b] = figures.map(median);
    println!(
        "{what}: {ours} {a:.0} {unit}, {theirs} {b:.0} {unit}, ratio {:.2} (medians of {})",
        a / b,
        figures[0].len()
    );
}
