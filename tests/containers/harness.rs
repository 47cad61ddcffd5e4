//! Containers, volumes and waits with deadlines for the tests beside this file. Everything that a test starts is removed
//! when its value is dropped, also when the test fails.

use std::{
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Long enough for the slowest machine; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The majors with which a test of something version-dependent runs: each where `PODGRES_TESTS` is `full`, else one of
/// them, by the test's name, so that every file has tests with both.
pub fn majors() -> Vec<u32> {
    let all = [15, 17];
    if is_full() {
        return all.to_vec();
    }
    let thread = std::thread::current();
    let sum: usize = thread.name().unwrap_or_default().bytes().map(usize::from).sum();
    vec![all[sum % all.len()]]
}

/// Whether all is asked for: `PODGRES_TESTS` is `full`.
pub fn is_full() -> bool {
    std::env::var("PODGRES_TESTS").is_ok_and(|v| v == "full")
}

/// The image of a major version, as `tests/run` names it.
pub fn image(major: u32) -> String {
    std::env::var(format!("PODGRES_IMAGE_{major}")).unwrap_or_else(|_| format!("podgres:{major}"))
}

/// The image with HAProxy, as `tests/run` names it.
pub fn haproxy_image() -> String {
    std::env::var("PODGRES_IMAGE_HAPROXY").unwrap_or_else(|_| "podgres-haproxy".into())
}

/// A name for something of docker's that nobody else uses.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("podgres-test-{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Polls until `condition` gives something; panics with `what` when it takes too long.
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_or(|| what.to_string(), condition)
}

/// [`wait_for`] that says in the end what there is to say then.
pub fn wait_or<T>(what: impl Fn() -> String, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {}", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs `docker` with `arguments`, whatever comes of it: after five minutes that is exit code 124.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
pub fn docker(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--verbose", "--kill-after=5", "300", "docker"]).args(arguments);
    command.stdin(Stdio::null()).output().expect("docker can be executed")
}

/// Runs `docker`, which must succeed; gives back its stdout.
pub fn docker_ok(arguments: &[&str]) -> String {
    let output = docker(arguments);
    assert!(output.status.success(), "docker {arguments:?}: {}", stderr(&output));
    stdout(&output)
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim_end().to_string()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim_end().to_string()
}

/// `docker run --rm OPTIONS IMAGE COMMAND` in the foreground: for containers that end by themselves.
pub fn run(major: u32, options: &[&str], command: &[&str]) -> Output {
    let image = image(major);
    docker(&[&["run", "--rm"], options, &[image.as_str()], command].concat())
}

/// The exit code of a program that was not killed by a signal.
pub fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

/// A directory on this machine with files that every uid can read, to be mounted.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new(files: &[(&str, u32, &str)]) -> Self {
        let files_ = Self(tempfile::tempdir().expect("a temporary directory"));
        set_mode(files_.0.path(), 0o755);
        for (name, mode, text) in files {
            files_.put(name, *mode, text);
        }
        files_
    }

    /// Writes, or replaces, a file.
    pub fn put(&self, name: &str, mode: u32, text: &str) {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("a file can be written");
        set_mode(&path, mode);
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).expect("the file is there");
    }

    /// Makes a directory in it.
    pub fn directory(&self, name: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir(&path).expect("a directory can be made");
        set_mode(&path, 0o755);
    }

    /// Where it is on this machine.
    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// `DIRECTORY:PATH`, for `-v`.
    pub fn at(&self, path: &str) -> String {
        format!("{}:{path}", self.0.path().display())
    }
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("the mode can be set");
}

/// A named volume.
pub struct Volume(pub String);

impl Volume {
    pub fn new() -> Self {
        let name = unique("volume");
        docker_ok(&["volume", "create", &name]);
        Self(name)
    }

    /// One of so many megabytes, in memory. What is in it is gone when no container uses it.
    pub fn small(megabytes: u32) -> Self {
        let name = unique("volume");
        let size = format!("o=size={megabytes}m,mode=1777");
        docker_ok(&["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", &size, &name]);
        Self(name)
    }

    /// `NAME:PATH`, for `-v`.
    pub fn at(&self, path: &str) -> String {
        format!("{}:{path}", self.0)
    }

    /// Everything in it: names, modes, owners, links, contents. What two of these have in common was not changed.
    pub fn snapshot(&self) -> String {
        self.shell(&format!("cd /volume; {SNAPSHOT}"))
    }

    /// Runs a shell script as root in a throw-away container with the volume at `/volume`; gives back its stdout.
    pub fn shell(&self, script: &str) -> String {
        let image = image(15);
        let mount = self.at("/volume");
        docker_ok(&["run", "--rm", "--user", "0:0", "-v", &mount, "--entrypoint", "bash", &image, "-euc", script])
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        docker(&["volume", "rm", "--force", &self.0]);
    }
}

/// A network of containers that find each other by their names.
pub struct Network(pub String);

impl Network {
    pub fn new() -> Self {
        let name = unique("network");
        docker_ok(&["network", "create", &name]);
        Self(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        docker(&["network", "rm", &self.0]);
    }
}

/// Shell: everything below the current directory.
pub const SNAPSHOT: &str =
    "find . -printf '%p %y %m %U:%G %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0r sha256sum";

/// A running, or ended, container.
pub struct Container {
    pub name: String,
}

impl Container {
    /// `docker run --detach OPTIONS IMAGE COMMAND`. Every option that is needed is the test's, the password too.
    pub fn start(major: u32, options: &[&str], command: &[&str]) -> Self {
        Self::of_image(&image(major), options, command)
    }

    /// [`Container::start`] of an image that may have nothing of podgres in it.
    pub fn of_image(image: &str, options: &[&str], command: &[&str]) -> Self {
        let name = unique("container");
        let container = Self { name: name.clone() };
        docker_ok(&[&["run", "--detach", "--name", &name], options, &[image], command].concat());
        container
    }

    /// The usual: a password, and nothing else that is not given.
    pub fn postgres(major: u32, options: &[&str], command: &[&str]) -> Self {
        Self::start(major, &[&["-e", "POSTGRES_PASSWORD=hush-hush"], options].concat(), command)
    }

    /// A container in which nothing runs yet: for tests that call podgres there more often than they start containers.
    pub fn idle(major: u32, options: &[&str]) -> Self {
        Self::start(major, &[options, &["--entrypoint", "sleep"]].concat(), &["infinity"])
    }

    /// Waits until `podgres status --ready` says so. Panics with the log when the container ends first.
    pub fn ready(self) -> Self {
        self.wait_ready();
        self
    }

    pub fn wait_ready(&self) {
        wait_or(
            || format!("{} to be ready; its log:\n{}", self.name, self.log()),
            || {
                if self.exec(&["podgres", "status", "--ready"]).status.success() {
                    return Some(());
                }
                assert!(self.is_running(), "{} ended:\n{}", self.name, self.log());
                None
            },
        );
    }

    /// Runs a command in it, whatever comes of it.
    pub fn exec(&self, command: &[&str]) -> Output {
        docker(&[&["exec", self.name.as_str()], command].concat())
    }

    /// Runs a shell script in it, which must succeed; gives back its stdout.
    pub fn shell(&self, script: &str) -> String {
        let output = self.exec(&["bash", "-euc", script]);
        assert!(output.status.success(), "{script}: {}\n{}", stderr(&output), self.log());
        stdout(&output)
    }

    /// Runs SQL through the Unix socket as the superuser `postgres`; gives back bare values.
    pub fn sql(&self, sql: &str) -> String {
        let output = self.exec(&["psql", "-U", "postgres", "-XAtqc", sql]);
        assert!(output.status.success(), "{sql}: {}", stderr(&output));
        stdout(&output)
    }

    pub fn signal(&self, name: &str) {
        docker_ok(&["kill", "--signal", name, &self.name]);
    }

    /// Freezes it. The kernel may not manage to at once, while something in it waits for a disk.
    pub fn pause(&self) {
        wait_for(&format!("{} to freeze", self.name), || docker(&["pause", &self.name]).status.success().then_some(()));
    }

    pub fn unpause(&self) {
        docker_ok(&["unpause", &self.name]);
    }

    pub fn is_running(&self) -> bool {
        self.inspect("{{.State.Running}}") == "true"
    }

    pub fn inspect(&self, format: &str) -> String {
        docker_ok(&["inspect", "--format", format, &self.name])
    }

    /// Waits for its end and gives back its exit code.
    pub fn wait(&self) -> i32 {
        wait_for(&format!("{} to end", self.name), || (!self.is_running()).then_some(()));
        self.inspect("{{.State.ExitCode}}").parse().expect("an exit code")
    }

    /// Starts the ended container again.
    pub fn start_again(&self) {
        docker_ok(&["start", &self.name]);
    }

    /// Its stdout so far.
    pub fn stdout(&self) -> String {
        stdout(&docker(&["logs", &self.name]))
    }

    /// Its stderr so far.
    pub fn stderr(&self) -> String {
        stderr(&docker(&["logs", &self.name]))
    }

    /// Both, for messages.
    pub fn log(&self) -> String {
        let output = docker(&["logs", &self.name]);
        format!("{}\n{}", stdout(&output), stderr(&output))
    }

    /// Its stdout as JSON, every line of which must be an object with `ts`, `level`, `logger` and `msg`.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout().lines().map(json_line).collect()
    }

    /// Waits until some line's `msg` contains `text`.
    pub fn wait_for_message(&self, text: &str) {
        wait_for(&format!("a log line with {text:?} from {}", self.name), || {
            self.stdout().lines().any(|l| l.contains(text)).then_some(())
        });
    }

    /// GET on the HTTP port; the status code and the body.
    pub fn http(&self, path: &str) -> (u16, String) {
        // bash can open TCP connections, the image needs no curl for us.
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/8008; printf 'GET {path} HTTP/1.0\\r\\nhost: x\\r\\n\\r\\n' >&3; timeout 10 cat <&3"
        );
        let output = self.exec(&["bash", "-c", &script]);
        let text = stdout(&output);
        let code = text.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
        (code, text.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// Parses a line of the log, which must be a JSON object with the keys that every line has.
pub fn json_line(line: &str) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    for key in ["ts", "level", "logger", "msg"] {
        assert!(value[key].is_string(), "{key} is missing: {line}");
    }
    value
}
