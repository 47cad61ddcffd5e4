//! The command line: one file a subcommand.

mod check;
mod client;
mod manifest;
mod run;
mod status;
mod table;

use std::{fmt, path::Path, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::pid1::fence;
use crate::settings::{Flags, SETTINGS, run_dir, variable};

/// `EX_CONFIG` of `sysexits.h`: the settings, or what they name, cannot be used; nothing was touched.
pub const EX_CONFIG: u8 = 78;
const EX_FAILED: u8 = 1;
const EX_USAGE: u8 = 2;

/// Runs the command that `arguments` (without the program's name) ask for.
pub fn main(arguments: Vec<String>) -> ExitCode {
    // First, and not among the commands: it stays small by doing nothing else, and people have no use for it.
    if arguments.first().is_some_and(|a| a == fence::GUARD) {
        return fence::guard().map_or_else(|error| fail(EX_USAGE, error), |()| ExitCode::SUCCESS);
    }
    // `run` has its own rules: most of its arguments are PostgreSQL's.
    if arguments.first().is_some_and(|a| a == "run") {
        return run::main(arguments.into_iter().skip(1).collect());
    }
    let matches = match command().try_get_matches_from(std::iter::once("podgres".into()).chain(arguments)) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EX_USAGE } else { 0 });
        }
    };
    match matches.subcommand() {
        Some(("status", m)) => with_run_dir(m, |dir| status::main(dir, m)),
        Some(("restart", m)) => with_run_dir(m, |dir| client::post(dir, "/restart")),
        Some(("reload", m)) => with_run_dir(m, |dir| client::post(dir, "/reload")),
        Some(("promote", m)) if m.get_flag("force") => with_run_dir(m, |dir| {
            let said = client::post(dir, "/promote?force=cost");
            if said == ExitCode::SUCCESS { client::post(dir, "/promote?force=yes") } else { said }
        }),
        Some(("promote", m)) => with_run_dir(m, |dir| client::post(dir, "/promote")),
        Some(("switchover", m)) => with_run_dir(m, |dir| {
            let to = m.get_one::<String>("to").map_or("any", String::as_str);
            client::post(dir, &format!("/switchover?to={}", client::escaped(to)))
        }),
        Some(("fence", m)) => with_run_dir(m, |dir| {
            let state = m.get_one::<String>("state").map_or("", String::as_str);
            client::post(dir, &format!("/fence?state={state}"))
        }),
        Some(("pause", m)) => with_run_dir(m, |dir| client::post(dir, "/pause")),
        Some(("resume", m)) => with_run_dir(m, |dir| client::post(dir, "/resume")),
        Some(("reinit", m)) => with_run_dir(m, |dir| client::post(dir, "/reinit")),
        Some(("check", m)) => check::main(&flags(m)),
        Some(("manifest", m)) => manifest::main(m),
        // clap knows no other.
        _ => ExitCode::from(EX_USAGE),
    }
}

fn command() -> Command {
    Command::new("podgres")
        .version(env!("CARGO_PKG_VERSION"))
        .about("PID 1 of a PostgreSQL container: supervises PostgreSQL, as a drop-in for the official image")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("run")
                .about("Be PID 1: run PostgreSQL, or execute another command untouched")
                .override_usage("podgres run [SETTINGS] [COMMAND [ARG]...]")
                .after_help(RUN_HELP)
                .args(settings()),
        )
        .subcommand(
            Command::new("status")
                .about("Show the members as this one sees them, then what is wrong")
                .arg(switch("json", "Print JSON (its form is stable)"))
                .arg(switch("watch", "Print it again every second until interrupted"))
                .arg(
                    switch("ready", "Print nothing; exit 0 if this member is ready (as /readyz), else 1")
                        .conflicts_with_all(["json", "watch", "settings"]),
                )
                .arg(
                    Arg::new("settings")
                        .long("settings")
                        .value_name("NAME")
                        .num_args(0..)
                        .help("Show PostgreSQL's settings and where they come from: these, or all that somebody set"),
                )
                .args(settings()),
        )
        .subcommand(Command::new("restart").about("Restart this member's PostgreSQL").args(settings()))
        .subcommand(Command::new("reload").about("Re-read the settings and reload PostgreSQL").args(settings()))
        .subcommand(
            Command::new("promote")
                .about("Make this standby a primary; waits, and says how long it took")
                .arg(switch(
                    "force",
                    "In a cluster that nobody leads: also where commits may be lost; says first which",
                ))
                .args(settings()),
        )
        .subcommand(
            Command::new("switchover")
                .about("In a cluster: hand the primary over; waits, and says how long writes were refused")
                .arg(
                    Arg::new("to")
                        .long("to")
                        .value_name("MEMBER")
                        .help("The pod that is to take over [default: the best standby]"),
                )
                .args(settings()),
        )
        .subcommand(
            Command::new("fence")
                .about("In a cluster: keep this member's PostgreSQL down (on), or let it run again (off)")
                .arg(Arg::new("state").value_name("on|off").required(true).value_parser(["on", "off"]))
                .args(settings()),
        )
        .subcommand(
            Command::new("pause")
                .about("In a cluster: no failover, promotion or demotion happens by itself until resume")
                .args(settings()),
        )
        .subcommand(Command::new("resume").about("In a cluster: end a pause").args(settings()))
        .subcommand(
            Command::new("reinit")
                .about("Throw away what this standby has and clone it anew; refused on a primary")
                .args(settings()),
        )
        .subcommand(
            Command::new("check")
                .about("Check, without changing anything, whether `run` would work; exit 0 or 78")
                .args(settings()),
        )
        .subcommand(manifest::command())
}

const RUN_HELP: &str = "\
Without a command, with `postgres`, or with a first argument that begins with `-`, PostgreSQL is run with those
arguments: podgres run -c shared_buffers=1GB. Any other command is executed in podgres' place. The variables of the
official image (POSTGRES_PASSWORD, PGDATA, ...) and the scripts in /docker-entrypoint-initdb.d work as they do there.";

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn settings() -> Vec<Arg> {
    let argument = |s: &'static crate::settings::Setting| {
        let help = format!("{} [{}; default: {}]", s.help, variable(s.name), s.default);
        Arg::new(s.name).long(s.name).value_name(s.value).help(help).help_heading("Settings")
    };
    SETTINGS.iter().map(argument).collect()
}

fn flags(matches: &ArgMatches) -> Flags {
    let given = |s: &'static crate::settings::Setting| Some((s.name, matches.get_one::<String>(s.name)?.clone()));
    SETTINGS.iter().filter_map(given).collect()
}

fn with_run_dir(matches: &ArgMatches, command: impl FnOnce(Option<&Path>) -> ExitCode) -> ExitCode {
    match run_dir(&flags(matches), &environment()) {
        Ok(dir) => command(dir.as_deref()),
        Err(error) => fail(EX_CONFIG, error),
    }
}

/// This process's environment, as text.
fn environment() -> Vec<(String, String)> {
    let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
    std::env::vars_os().map(|(k, v)| (text(k), text(v))).collect()
}

/// Says on stderr why it did not work.
fn fail(code: u8, why: impl fmt::Display) -> ExitCode {
    eprintln!("Error: {why}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::command().debug_assert();
    }
}
