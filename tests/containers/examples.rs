//! The scripts in examples/docker, as people run them.

use std::{
    collections::HashSet,
    process::{Command, Output, Stdio},
};

use crate::harness::*;

const MAJOR: u32 = 17;

/// What a script makes, under names of this test's own. Removed in the end, whatever came of it.
struct Example {
    script: &'static str,
    name: String,
    state: tempfile::TempDir,
    members: Vec<Container>,
}

impl Example {
    fn new(script: &'static str, members: &[&str]) -> Self {
        let name = unique(script);
        let members = members.iter().map(|m| Container { name: format!("{name}{m}") }).collect();
        Self { script, name, state: tempfile::tempdir().expect("a temporary directory"), members }
    }

    /// Runs the script with these arguments, whatever comes of it.
    #[allow(clippy::disallowed_methods, reason = "not PID 1")]
    fn run(&self, arguments: &[&str]) -> Output {
        let script = format!("{}/examples/docker/{}", env!("CARGO_MANIFEST_DIR"), self.script);
        let mut command = Command::new("timeout");
        command.args(["--verbose", "--kill-after=5", "300", &script]).args(arguments).stdin(Stdio::null());
        command.env("NAME", &self.name).env("PORT", "0").env("PODGRES_IMAGE", image(MAJOR));
        command.env("XDG_STATE_HOME", self.state.path()).output().expect("the script can be executed")
    }

    /// Runs the script, which must succeed; gives back its stdout.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let logs = || self.members.iter().map(Container::log).collect::<Vec<_>>().join("\n\n");
        assert!(output.status.success(), "{arguments:?}: {}{}\n{}", stdout(&output), stderr(&output), logs());
        stdout(&output)
    }

    /// Runs the script, which must refuse; gives back its stderr.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stderr(&output)
    }

    /// Containers, volumes and networks with this name in theirs.
    fn left(&self) -> String {
        let filter = format!("name={}", self.name);
        let list = |of: &[&str]| docker_ok(&[of, &["--quiet", "--filter", &filter]].concat());
        [list(&["ps", "--all"]), list(&["volume", "ls"]), list(&["network", "ls"])].concat()
    }

    /// Password-authenticated sessions that write as fast as they can to whichever is the primary, and print what was
    /// confirmed.
    fn writer(&self) -> Container {
        let password = std::fs::read_to_string(self.state.path().join(format!("podgres/{}/password", self.name)));
        let password = format!("PGPASSWORD={}", password.expect("the script has made a password").trim());
        let hosts = self.members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(",");
        let insert = "insert into t values (gen_random_uuid()) returning t;";
        let source = format!("host={hosts} user=postgres target_session_attrs=read-write connect_timeout=2");
        let script = format!(
            "while :; do yes '{insert}' | stdbuf -oL psql -XAtq -v ON_ERROR_STOP=1 '{source}'; sleep 0.05; done"
        );
        let options = ["--network", &self.name, "-e", &password, "--entrypoint", "bash"];
        Container::start(MAJOR, &options, &["-c", &script])
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.members.clear();
        for member in ["", "-1", "-2"] {
            docker(&["volume", "rm", "--force", &format!("{}{member}", self.name)]);
        }
        docker(&["network", "rm", &self.name]);
    }
}

#[test]
fn one_container_is_started_once_and_started_again() {
    let example = Example::new("run", &[""]);
    assert!(example.ok(&[]).contains("PostgreSQL is ready on 127.0.0.1:"));
    assert_eq!(example.members[0].sql("select 1"), "1");
    assert!(example.ok(&[]).contains("runs already"));
    docker_ok(&["stop", &example.name]);
    assert!(example.ok(&[]).contains("starting"));
}

#[test]
fn a_pair_is_handed_over_there_and_back_under_load_and_loses_nothing() {
    let example = Example::new("pair", &["-1", "-2"]);
    let [one, two] = example.members.as_slice() else { panic!("two members") };
    let roles = |primary: &Container, standby: &Container| {
        format!("{} is the primary, {} its standby.", primary.name, standby.name)
    };
    assert!(example.ok(&[]).starts_with(&roles(one, two)));
    let again = example.ok(&[]);
    assert!(again.contains("runs already") && again.contains(&roles(one, two)), "{again}");

    one.sql("create table t (t uuid primary key)");
    let writers = [example.writer(), example.writer()];
    let count = |member: &Container| member.sql("select count(*) from t").parse::<u64>().unwrap();
    let written_to = |member: &Container| {
        let before = count(member);
        wait_for("rows of the writers", || (count(member) > before + 100).then_some(()));
    };
    written_to(one);
    for (primary, standby) in [(two, one), (one, two), (two, one)] {
        let said = example.ok(&["switch"]);
        assert!(said.contains(&roles(primary, standby)), "{said}");
        written_to(primary);
        // Nobody was rewound or cloned anew for it; the second one was cloned once, in the beginning.
        assert!(!standby.stdout().contains("rewinding") && !one.stdout().contains("cloning"), "{}", standby.log());
    }
    for writer in &writers {
        writer.signal("KILL");
        writer.wait();
    }
    let kept = two.sql("select t from t");
    let kept: HashSet<&str> = kept.lines().collect();
    for writer in &writers {
        let confirmed = writer.stdout();
        // The last line may be cut.
        let confirmed: Vec<&str> = confirmed.lines().filter(|line| line.len() == 36).collect();
        let lost = confirmed.iter().filter(|row| !kept.contains(**row)).count();
        assert_eq!(lost, 0, "of {} confirmed rows", confirmed.len());
        assert!(confirmed.len() > 100, "{}", writer.log());
    }
    drop(writers);

    assert!(example.ok(&["remove"]).starts_with("removed"));
    assert_eq!(example.left(), "");
    assert!(!example.state.path().join(format!("podgres/{}", example.name)).exists());
}

#[test]
fn a_pair_has_one_primary_whatever_is_stopped_killed_and_started_in_whatever_order() {
    let example = Example::new("pair", &["-1", "-2"]);
    let [one, two] = example.members.as_slice() else { panic!("two members") };
    let leads = |said: String, primary: &Container| {
        assert!(said.contains(&format!("{} is the primary", primary.name)), "{said}");
    };
    let files = example.state.path().join("podgres").join(&example.name);
    let settings = |member: &Container| files.join(&member.name).join("podgres.toml");
    leads(example.ok(&[]), one);
    // Twice, so that each has been promoted over the other.
    leads(example.ok(&["switch"]), two);
    leads(example.ok(&["switch"]), one);

    // The standby comes first, and alone.
    docker_ok(&["stop", &one.name, &two.name]);
    two.start_again();
    wait_for("the standby to answer", || two.exec(&["pg_isready", "-q"]).status.success().then_some(()));
    assert_eq!(two.sql("select pg_is_in_recovery()"), "t", "{}", two.log());
    leads(example.ok(&[]), one);
    docker_ok(&["kill", &one.name, &two.name]);
    leads(example.ok(&[]), one);

    // One that was stopped in order can hand over all the same; to one that is stopped nobody can.
    docker_ok(&["stop", &one.name]);
    leads(example.ok(&["switch"]), two);
    docker_ok(&["stop", &one.name]);
    assert!(example.refused(&["switch"]).contains("nothing was changed"));
    leads(example.ok(&[]), two);

    // One that was killed cannot hand over.
    docker_ok(&["kill", &two.name]);
    let refused = example.refused(&["switch"]);
    assert!(refused.contains("did not hand over everything") && refused.contains("failover"), "{refused}");
    assert!(!two.is_running());
    leads(example.ok(&["failover"]), one);
    leads(example.ok(&[]), one);
    one.sql("create table t (t text)");

    // Two primaries, and the way out that the README shows: the later one is given up.
    assert!(two.exec(&["podgres", "promote"]).status.success());
    two.sql("create table lost (t text)");
    assert!(example.refused(&["switch"]).contains("both are primaries"));
    for member in [one, two] {
        std::fs::write(settings(member), "").unwrap();
        assert!(member.exec(&["podgres", "reload"]).status.success());
    }
    docker_ok(&["stop", &two.name]);
    std::fs::write(settings(two), format!("standby-of = \"host={}\"\n", one.name)).unwrap();
    two.start_again();
    wait_for("a new clone to be begun", || two.exec(&["podgres", "reinit"]).status.success().then_some(()));
    leads(example.ok(&[]), one);
    assert_eq!(two.sql("select count(*) from pg_class where relname = 'lost'"), "0");

    // Both are told to follow: a hand-over that was cut short. That is said, and nobody guesses.
    docker_ok(&["stop", &one.name]);
    std::fs::write(settings(one), format!("standby-of = \"host={}\"\n", two.name)).unwrap();
    assert!(example.refused(&[]).contains("both are standbys"));
    assert!(one.exec(&["podgres", "promote"]).status.success());
    leads(example.ok(&[]), one);
    leads(example.ok(&["switch"]), two);
    assert_eq!(two.sql("select count(*) from t"), "0");
}
