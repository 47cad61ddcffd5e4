//! `podgres status`: the member as a table, then what is wrong, in words.

use std::{process::ExitCode, thread::sleep, time::Duration};

use clap::ArgMatches;
use hyper::Method;

use super::{EX_FAILED, client, fail};
use crate::{
    settings::Settings,
    status::{Member, Status},
};

pub(super) fn main(settings: &Settings, matches: &ArgMatches) -> ExitCode {
    if matches.get_flag("ready") {
        return ready(settings);
    }
    loop {
        let code = show(settings, matches.get_flag("json"));
        if !matches.get_flag("watch") {
            return code;
        }
        sleep(Duration::from_secs(1));
    }
}

/// For health checks of container engines, which can only run a command.
fn ready(settings: &Settings) -> ExitCode {
    match client::request(settings, Method::GET, "/readyz") {
        Ok((status, _)) if status.is_success() => ExitCode::SUCCESS,
        Ok((_, body)) => fail(EX_FAILED, String::from_utf8_lossy(&body).trim_end()),
        Err(error) => fail(EX_FAILED, error),
    }
}

#[allow(clippy::print_stdout, reason = "the command's output")]
fn show(settings: &Settings, json: bool) -> ExitCode {
    let body = match client::request(settings, Method::GET, "/status") {
        Ok((status, body)) if status.is_success() => body,
        Ok((_, body)) => return fail(EX_FAILED, String::from_utf8_lossy(&body).trim_end()),
        Err(error) => return fail(EX_FAILED, error),
    };
    if json {
        println!("{}", String::from_utf8_lossy(&body));
        return ExitCode::SUCCESS;
    }
    match serde_json::from_slice(&body) {
        Ok(status) => print!("{}", table(&status)),
        Err(error) => return fail(EX_FAILED, format_args!("the manager's answer makes no sense: {error}")),
    }
    ExitCode::SUCCESS
}

const HEADINGS: [&str; 8] = ["NAME", "ROLE", "STATE", "TL", "LSN", "LAG", "PENDING RESTART", "AGE"];

fn table(status: &Status) -> String {
    let rows: Vec<[String; 8]> =
        std::iter::once(HEADINGS.map(String::from)).chain(status.members.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|r| r[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:w$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    for problem in &status.problems {
        text += &format!("! {problem}\n");
    }
    if status.manager.log_lines_dropped > 0 {
        text += &format!("! {} log lines were dropped: nobody read them in time\n", status.manager.log_lines_dropped);
    }
    text
}

fn row(member: &Member) -> [String; 8] {
    let dash = || "-".to_string();
    let facts = member.postgres.as_ref();
    [
        member.name.clone(),
        member.role.clone().unwrap_or_else(dash),
        member.state.clone(),
        facts.and_then(|f| f.timeline).map_or_else(dash, |t| t.to_string()),
        facts.and_then(|f| f.lsn.clone()).unwrap_or_else(dash),
        facts.and_then(|f| f.lag_bytes).map_or_else(dash, |l| format!("{l} B")),
        facts
            .map(|f| f.pending_restart.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            .filter(|p| !p.is_empty())
            .unwrap_or_else(dash),
        age(member.state_age_seconds),
    ]
}

/// `42s`, `3m20s`, `5h1m`, `12d4h`: two units are enough.
fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Manager;

    #[test]
    fn ages() {
        assert_eq!([5, 65, 3700, 90_000].map(age), ["5s", "1m5s", "1h1m", "1d1h"]);
    }

    #[test]
    fn a_member_that_does_not_answer_is_shown_with_its_problem() {
        let status = Status {
            members: vec![Member {
                name: "db".into(),
                role: None,
                state: "starting".into(),
                reason: "x".into(),
                state_age_seconds: 3,
                accepting: false,
                postgres_pid: None,
                data_directory: "/d".into(),
                postgres: None,
            }],
            problems: vec!["it is starting".into()],
            manager: Manager { version: "0".into(), pid: 1, uptime_seconds: 3, restarts: 0, log_lines_dropped: 2 },
        };
        let text = table(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("NAME  ROLE  STATE     TL"), "{text}");
        assert_eq!(lines[1], "db    -     starting  -   -    -    -                3s");
        assert_eq!(lines[2], "! it is starting");
        assert!(lines[3].contains("2 log lines"));
    }
}
