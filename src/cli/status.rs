//! `podgres status`: the members as a table, then what is wrong, in words; and PostgreSQL's settings with their origins.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

use clap::ArgMatches;
use hyper::Method;

use super::{
    EX_FAILED, client, fail,
    table::{self, Cell, DIM, PLAIN, WAITING, WRONG, paint, table},
};
use crate::{
    postgres::config::report::Setting,
    status::{self, Cluster, ClusterMember, Level, Member, Status},
    units,
};

/// How often `--watch` asks.
const PAUSE: Duration = Duration::from_secs(1);

/// What is asked for, and how it is shown.
struct Shown<'a> {
    run_dir: Option<&'a Path>,
    json: bool,
    colour: bool,
    /// PostgreSQL's settings in place of the members: these, or those that are not at PostgreSQL's own default.
    names: Option<Vec<String>>,
}

pub(super) fn main(run_dir: Option<&Path>, matches: &ArgMatches) -> ExitCode {
    if matches.get_flag("ready") {
        return ready(run_dir);
    }
    let names = matches.get_many::<String>("settings").map(|names| names.cloned().collect());
    let shown = Shown { run_dir, json: matches.get_flag("json"), colour: table::colour_wanted(), names };
    if matches.get_flag("watch") {
        return watch(&shown);
    }
    match shown.text() {
        Ok(text) => written(write(&text)).unwrap_or(ExitCode::SUCCESS),
        Err(why) => fail(EX_FAILED, why),
    }
}

/// For health checks of container engines, which can only run a command.
fn ready(run_dir: Option<&Path>) -> ExitCode {
    match client::request(run_dir, Method::GET, "/readyz") {
        Ok((status, _)) if status.is_success() => ExitCode::SUCCESS,
        Ok((_, body)) => fail(EX_FAILED, String::from_utf8_lossy(&body).trim_end()),
        Err(error) => fail(EX_FAILED, error),
    }
}

/// Again and again until somebody interrupts it. A manager that does not answer may be back the next time.
fn watch(shown: &Shown<'_>) -> ExitCode {
    let in_place = io::stdout().is_terminal() && !shown.json;
    loop {
        let text = match shown.text() {
            Err(why) if !in_place => {
                fail(EX_FAILED, why);
                String::new()
            }
            Err(why) => format!("{}\n", paint(&format!("Error: {why}"), WRONG, shown.colour)),
            Ok(text) if in_place || shown.json => text,
            Ok(text) => text + "\n",
        };
        // Home, and the rest of each line and of the screen erased: nothing flickers.
        let text = if in_place { format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")) } else { text };
        if let Some(code) = written(write(&text)) {
            return code;
        }
        sleep(PAUSE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// None: go on. A reader that has gone has seen enough.
pub(super) fn written(result: io::Result<()>) -> Option<ExitCode> {
    match result {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Some(ExitCode::SUCCESS),
        Err(error) => Some(fail(EX_FAILED, format_args!("cannot write to stdout: {error}"))),
    }
}

impl Shown<'_> {
    fn text(&self) -> Result<String, String> {
        let body = self.ask(if self.names.is_some() { "/settings" } else { "/status" })?;
        match &self.names {
            None if self.json => Ok(String::from_utf8_lossy(&body).into_owned() + "\n"),
            None => Ok(members(&understand(&body)?, self.colour)),
            Some(names) => {
                let all: status::Settings = understand(&body)?;
                let settings = select(all.settings, names)?;
                match self.json {
                    true => serde_json::to_string(&status::Settings { settings })
                        .map(|text| text + "\n")
                        .map_err(|e| e.to_string()),
                    false => Ok(settings_table(&settings, self.colour)),
                }
            }
        }
    }

    fn ask(&self, path: &str) -> Result<hyper::body::Bytes, String> {
        match client::request(self.run_dir, Method::GET, path) {
            Ok((status, body)) if status.is_success() => Ok(body),
            Ok((_, body)) => Err(String::from_utf8_lossy(&body).trim_end().into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn understand<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("the manager's answer makes no sense: {error}"))
}

const HEADINGS: [&str; 9] = ["NAME", "ROLE", "STATE", "TL", "LSN", "LAG", "SYNC", "PENDING RESTART", "AGE"];

fn members(status: &Status, colour: bool) -> String {
    let rows = match &status.cluster {
        Some(cluster) => cluster.members.iter().map(|m| cluster_row(m, this(status, cluster, m))).collect(),
        None => status.members.iter().map(row).collect(),
    };
    let mut text = table(HEADINGS, rows, colour);
    for finding in &status.findings {
        let (mark, style) = match finding.level {
            Level::Wrong => ("!", WRONG),
            Level::Waiting => ("!", WAITING),
            Level::Note => ("-", DIM),
        };
        text += &paint(&format!("{mark} {}", finding.text), style, colour);
        text.push('\n');
    }
    text
}

fn plain(text: Option<String>) -> Cell {
    (text.unwrap_or_else(|| "-".into()), PLAIN)
}

fn pending(member: &Member) -> Cell {
    match member.pending_restart() {
        [] => plain(None),
        [one] => (one.name.clone(), WAITING),
        several => (format!("{} settings", several.len()), WAITING),
    }
}

/// What the member that answers knows of itself beyond what all know of each other.
fn this<'a>(status: &'a Status, cluster: &Cluster, member: &ClusterMember) -> Option<&'a Member> {
    status.members.first().filter(|_| cluster.this == member.name)
}

fn cluster_row(member: &ClusterMember, this: Option<&Member>) -> [Cell; 9] {
    let state = match (this, member.streaming) {
        (Some(this), _) => state(this),
        // One that has said nothing, or has no pod, is not there to be reached.
        _ if !member.reachable && !matches!(&*member.state, "no pod" | "unknown") => ("unreachable".into(), WRONG),
        (None, Some(true)) => ("streaming".into(), PLAIN),
        (None, Some(false)) => ("not streaming".into(), WRONG),
        (None, None) => state_word(&member.state),
    };
    let pending = match (this, member.pending_restart) {
        (Some(this), _) => pending(this),
        (None, true) => ("yes".into(), WAITING),
        (None, false) => plain(None),
    };
    [
        plain(Some(member.name.clone())),
        plain(member.role.clone()),
        state,
        plain(member.timeline.map(|t| t.to_string())),
        plain(member.lsn.clone()),
        plain(member.lag_bytes.map(units::size)),
        plain(member.sync.clone()),
        pending,
        plain(member.state_age_seconds.map(units::age)),
    ]
}

fn row(member: &Member) -> [Cell; 9] {
    [
        plain(Some(member.name.clone())),
        plain(member.role.clone()),
        state(member),
        plain(member.timeline.map(|t| t.to_string())),
        plain(member.lsn.clone()),
        plain(lag(member)),
        plain(member.sync.clone()),
        pending(member),
        plain(member.state_age_seconds.map(units::age)),
    ]
}

/// The state, with what a person wants to know of it at once.
fn state(member: &Member) -> Cell {
    let standby = member.role.as_deref() == Some("standby");
    match (&member.job, &member.postgres) {
        (Some(job), _) => {
            let percent = job.percent.map(|p| format!(" {p:.0} %")).unwrap_or_default();
            (format!("{}{percent}", member.state), WAITING)
        }
        (None, Some(facts)) if standby && facts.streaming => ("streaming".into(), PLAIN),
        (None, Some(_)) if standby => ("not streaming".into(), WRONG),
        _ => state_word(&member.state),
    }
}

fn state_word(state: &str) -> Cell {
    let style = match state {
        "running" | "streaming" => PLAIN,
        "crashed" | "stopped" | "no pod" => WRONG,
        _ => WAITING,
    };
    (state.into(), style)
}

/// `0 B`, `1.2 MB 3s`.
fn lag(member: &Member) -> Option<String> {
    let bytes = units::size(member.lag_bytes?.try_into().ok()?);
    let seconds = member.lag_seconds.filter(|s| *s >= 1.0).map(Duration::from_secs_f64);
    Some(format!("{bytes}{}", seconds.map(|s| format!(" {}", units::age(s.as_secs()))).unwrap_or_default()))
}

/// Those with these names, or else all that somebody has set.
fn select(all: Vec<Setting>, names: &[String]) -> Result<Vec<Setting>, String> {
    if names.is_empty() {
        return Ok(all.into_iter().filter(|s| !matches!(&*s.origin, "default" | "PostgreSQL")).collect());
    }
    let find = |name: &String| {
        let found = all.iter().find(|s| s.name.eq_ignore_ascii_case(name)).cloned();
        found.ok_or_else(|| {
            let likeness = |s: &&Setting| strsim::jaro_winkler(&s.name, name);
            let nearest = all.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let nearest = nearest.map(|s| format!("; the nearest one is {}", s.name)).unwrap_or_default();
            format!("PostgreSQL has no setting {name}{nearest}")
        })
    };
    names.iter().map(find).collect()
}

fn settings_table(settings: &[Setting], colour: bool) -> String {
    let row = |s: &Setting| {
        let pending = s.pending.clone().map_or_else(|| ("-".into(), PLAIN), |new| (new, WAITING));
        [(s.name.clone(), PLAIN), (s.value.clone(), PLAIN), (s.origin.clone(), PLAIN), pending]
    };
    table(["NAME", "VALUE", "ORIGIN", "AFTER A RESTART"], settings.iter().map(row).collect(), colour)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        postgres::sql::{Facts, PendingRestart},
        status::{Finding, Job, Manager},
    };

    fn status(members: Vec<Member>, findings: Vec<Finding>) -> Status {
        let manager = Manager { version: "0".into(), pid: 1, uptime_seconds: 3, restarts: 0, log_lines_dropped: 2 };
        Status { members, problems: Vec::new(), findings, cluster: None, manager }
    }

    fn member(name: &str, role: &str, state: &str) -> Member {
        Member {
            name: name.into(),
            role: Some(role.into()),
            state: state.into(),
            timeline: Some(1),
            lsn: Some("0/3000148".into()),
            state_age_seconds: Some(200),
            ..Member::default()
        }
    }

    #[test]
    fn a_pair() {
        let pending = |name: &str| PendingRestart { name: name.into(), value: "1".into(), new_value: "2".into() };
        let facts = Facts { pending_restart: vec![pending("port")], ..Facts::default() };
        let primary = Member { postgres: Some(facts), ..member("db1", "primary", "running") };
        let standby = Member {
            lag_bytes: Some(1_258_291),
            lag_seconds: Some(3.4),
            sync: Some("async".into()),
            ..member("db2", "standby", "streaming")
        };
        let text = "\
NAME  ROLE     STATE      TL  LSN        LAG        SYNC   PENDING RESTART  AGE
db1   primary  running    1   0/3000148  -          -      port             3m20s
db2   standby  streaming  1   0/3000148  1.2 MB 3s  async  -                3m20s
";
        assert_eq!(members(&status(vec![primary, standby], Vec::new()), false), text);
    }

    #[test]
    fn a_clone_and_what_is_to_say_about_it() {
        let job = Job {
            name: "clone".into(),
            step: "x".into(),
            bytes_done: Some(1),
            bytes_total: Some(12),
            percent: Some(8.3),
            seconds_left: None,
        };
        let cloning = Member { name: "db2".into(), state: "cloning".into(), job: Some(job), ..Member::default() };
        let finding = |level, text: &str| Finding { level, text: text.into() };
        let findings =
            vec![finding(Level::Wrong, "bad"), finding(Level::Waiting, "slow"), finding(Level::Note, "by the way")];
        let status = status(vec![cloning], findings);
        let text = "\
NAME  ROLE  STATE        TL  LSN  LAG  SYNC  PENDING RESTART  AGE
db2   -     cloning 8 %  -   -    -    -     -                -
! bad
! slow
- by the way
";
        assert_eq!(members(&status, false), text);
        let coloured = members(&status, true);
        assert!(
            coloured.contains("\u{1b}[31m! bad\u{1b}[0m\n\u{1b}[33m! slow\u{1b}[0m\n\u{1b}[2m- by"),
            "{coloured:?}"
        );
        assert!(coloured.contains("\u{1b}[33mcloning 8 %\u{1b}[0m"), "{coloured:?}");
    }

    #[test]
    fn the_members_of_a_cluster() {
        let of = |name: &str, role: &str| ClusterMember {
            name: name.into(),
            role: Some(role.into()),
            state: "running".into(),
            timeline: Some(1),
            lsn: Some("0/3000148".into()),
            reachable: true,
            ..ClusterMember::default()
        };
        let standby = |name: &str, streaming| ClusterMember { streaming, lag_bytes: Some(0), ..of(name, "standby") };
        let members = vec![
            of("db-0", "primary"),
            ClusterMember { lag_bytes: Some(1_258_291), state_age_seconds: Some(5), ..standby("db-1", Some(true)) },
            ClusterMember { pending_restart: true, ..standby("db-2", None) },
            standby("db-3", Some(false)),
            ClusterMember { reachable: false, lag_bytes: None, lsn: None, ..standby("db-4", None) },
            ClusterMember { name: "db-5".into(), state: "no pod".into(), ..ClusterMember::default() },
        ];
        let cluster = Cluster {
            name: "db".into(),
            this: "db-1".into(),
            leader: Some("db-0".into()),
            term: Some(7),
            paused: false,
            members,
        };
        let pending = |name: &str| PendingRestart { name: name.into(), value: "1".into(), new_value: "2".into() };
        let facts = Facts { streaming: true, pending_restart: vec![pending("port")], ..Facts::default() };
        let this = Member { postgres: Some(facts), ..member("db-1", "standby", "running") };
        let status = Status { cluster: Some(cluster), ..status(vec![this], Vec::new()) };
        let text = "\
NAME  ROLE     STATE          TL  LSN        LAG     SYNC  PENDING RESTART  AGE
db-0  primary  running        1   0/3000148  -       -     -                -
db-1  standby  streaming      1   0/3000148  1.2 MB  -     port             5s
db-2  standby  running        1   0/3000148  0 B     -     yes              -
db-3  standby  not streaming  1   0/3000148  0 B     -     -                -
db-4  standby  unreachable    1   -          -       -     -                -
db-5  -        no pod         -   -          -       -     -                -
";
        assert_eq!(super::members(&status, false), text);
    }

    #[test]
    fn a_standby_that_does_not_stream_is_seen_in_its_row() {
        let lost = Member { postgres: Some(Facts::default()), ..member("db2", "standby", "running") };
        assert_eq!(state(&lost), ("not streaming".into(), WRONG));
        let facts = Facts { streaming: true, ..Facts::default() };
        assert_eq!(state(&Member { postgres: Some(facts), ..lost }), ("streaming".into(), PLAIN));
    }

    #[test]
    fn settings_are_those_that_somebody_set_or_that_are_asked_for() {
        let setting = |name: &str, origin: &str, pending: Option<&str>| Setting {
            name: name.into(),
            value: "1".into(),
            origin: origin.into(),
            pending: pending.map(Into::into),
        };
        let all = vec![
            setting("port", "default", None),
            setting("server_version", "PostgreSQL", None),
            setting("work_mem", "ALTER SYSTEM", Some("2")),
        ];
        let text = "NAME      VALUE  ORIGIN        AFTER A RESTART\nwork_mem  1      ALTER SYSTEM  2\n";
        assert_eq!(settings_table(&select(all.clone(), &[]).unwrap(), false), text);
        assert_eq!(select(all.clone(), &["PORT".into()]).unwrap()[0].name, "port");
        assert_eq!(
            select(all, &["work_men".into()]).unwrap_err(),
            "PostgreSQL has no setting work_men; the nearest one is work_mem"
        );
    }
}
