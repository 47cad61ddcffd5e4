//! Whether PostgreSQL would take a configuration, asked of `postgres -C`, which reads it all, starts nothing, and works
//! beside a running server.

use std::{io, path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use super::{
    files::UserFiles,
    parse::{self, Mistake, Place},
};
use crate::{
    pid1::{Children, Exit},
    secrets,
};

/// A program that only reads some files takes some hundredths of a second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a program said, and how it ended.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) exit: Exit,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a program that says little and ends soon.
///
/// # Errors
/// When it cannot be executed, or does not end in time; then it is killed.
pub(super) async fn run(command: &mut Command, children: &Children) -> io::Result<Said> {
    let (out, out_end) = io::pipe()?;
    let (err, err_end) = io::pipe()?;
    command.stdin(std::process::Stdio::null()).stdout(out_end).stderr(err_end);
    let child = children.spawn(command);
    // The command keeps the pipes' write ends open; the readers below would never see their ends.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = child?;
    let (mut out, mut err) = (Receiver::from_owned_fd(out.into())?, Receiver::from_owned_fd(err.into())?);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let all = async { tokio::join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr), child.wait()).2 };
    let ended = tokio::time::timeout(TIMEOUT, all).await;
    let Ok(exit) = ended else {
        child.signal(Signal::SIGKILL);
        return Err(io::Error::other(format!("no end within {} s", TIMEOUT.as_secs())));
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Said { exit, stdout: text(stdout), stderr: text(stderr) })
}

/// Arguments that make what PostgreSQL says readable for us, whatever the configuration does to its log.
pub(super) const READABLE: [&str; 10] = [
    "-c",
    "lc_messages=C",
    "-c",
    "log_line_prefix=",
    "-c",
    "log_error_verbosity=default",
    "-c",
    "log_min_messages=warning",
    "-c",
    "log_destination=stderr",
];

/// Where a value may come from that PostgreSQL complains of.
pub(super) struct Sources<'a> {
    pub(super) files: &'a UserFiles,
    /// With the files that PostgreSQL read.
    pub(super) dir: &'a Path,
    /// The text of `postgresql.auto.conf`.
    pub(super) auto_conf: String,
    /// What the command line sets.
    pub(super) arguments: Vec<(String, String)>,
}

/// What is wrong, from what `postgres -C` said of the configuration that `sources` make.
pub(super) fn mistakes(stderr: &str, sources: &Sources) -> Vec<Mistake> {
    let mut found: Vec<Mistake> = Vec::new();
    let mut rest = Vec::new();
    for line in stderr.lines() {
        let Some((severity, text)) = line.split_once(":  ") else {
            rest.push(line);
            continue;
        };
        match severity {
            "HINT" | "DETAIL" => found.iter_mut().last().into_iter().for_each(|m| m.text += &format!(" ({text})")),
            _ if text.starts_with("skipping missing") || text.ends_with("contains errors") => rest.push(text),
            "LOG" | "WARNING" | "ERROR" | "FATAL" | "PANIC" => {
                // Arguments are read before any file, and a mistake in them ends it.
                found.push(mistake(text, sources, severity == "FATAL"));
            }
            _ => rest.push(line),
        }
    }
    if found.is_empty() {
        found.push(Mistake { place: None, text: format!("PostgreSQL refuses it: {}", rest.join("; ")) });
    }
    found
}

fn mistake(text: &str, sources: &Sources, fatal: bool) -> Mistake {
    if let Some((what, file, line, tail)) = split_place(text) {
        let (place, source) = original(file, line, sources);
        let secret = source.is_some_and(|l| secrets::text_has_secret(&l) || named_secret(&l));
        let tail = if secret { "" } else { tail };
        return Mistake { place: Some(place), text: format!("{what}{tail}") };
    }
    let Some(name) = text.split_once("parameter \"").and_then(|(_, t)| t.split_once('"')).map(|(n, _)| n) else {
        return Mistake { place: None, text: text.into() };
    };
    let lower = name.to_ascii_lowercase();
    let argument = sources.arguments.iter().find(|(n, _)| fatal && *n == lower);
    let auto = || parse::entries(&sources.auto_conf).rev().find(|e| e.name == lower);
    let (value, place) = match (argument, auto()) {
        (Some((_, value)), _) => (value.clone(), None),
        (None, Some(entry)) => {
            (entry.value, Some(Place { file: "postgresql.auto.conf (ALTER SYSTEM)".into(), line: entry.line }))
        }
        (None, None) => sources.files.last(&lower).map_or_else(Default::default, |(e, place)| (e.value, place)),
    };
    match secrets::is_secret(&lower, &value) {
        true => Mistake { place, text: format!("invalid value for parameter \"{name}\"") },
        false => Mistake { place, text: text.into() },
    }
}

fn named_secret(line: &str) -> bool {
    let name: String = line.trim_start().chars().take_while(|c| !c.is_whitespace() && *c != '=').collect();
    secrets::is_secret(&name, line)
}

/// `X in file "F" line N, Y` in its parts.
fn split_place(text: &str) -> Option<(&str, &str, usize, &str)> {
    let (what, rest) = text.split_once(" in file \"")?;
    let (file, rest) = rest.split_once("\" line ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((what, file, rest[..end].parse().ok()?, &rest[end..]))
}

/// The user's own file and line, and the line's text where it is known.
fn original(file: &str, line: usize, sources: &Sources) -> (Place, Option<String>) {
    let (files, dir) = (sources.files, sources.dir);
    let copy = match Path::new(file) {
        path if path == dir.join("user.conf") => files.user.as_ref(),
        path if path == dir.join("base.conf") => Some(&files.base),
        _ => None,
    };
    let place = copy.and_then(|f| f.place(line)).cloned().unwrap_or_else(|| Place { file: file.into(), line });
    let source =
        parse::read_text(Path::new(file)).ok().and_then(|t| t.lines().nth(line.saturating_sub(1)).map(String::from));
    (place, source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::config::files::Rules;

    fn files() -> UserFiles {
        let dir = tempfile::tempdir().unwrap();
        let user = dir.path().join("postgresql.conf");
        std::fs::write(&user, "port = 1\nwork_mem = abc\n\nprimary_conninfo = 'password=hush'\n").unwrap();
        let rules = |name: &str| Rules { path: name.into(), text: String::new(), base: true };
        let mut flat = parse::Flat::read(&user).unwrap().unwrap();
        flat.places.iter_mut().for_each(|p| p.file = "/etc/podgres/postgresql.conf".into());
        UserFiles {
            base_path: "/data/postgresql.conf".into(),
            base: parse::Flat::default(),
            user: Some(flat),
            hba: rules("/data/pg_hba.conf"),
            ident: rules("/data/pg_ident.conf"),
        }
    }

    fn say(stderr: &str) -> Vec<String> {
        let (files, dir) = (files(), Path::new("/run/c"));
        let arguments = vec![("work_mem".into(), "xyz".into()), ("my.token".into(), "hush".into())];
        let sources = Sources { files: &files, dir, auto_conf: String::new(), arguments };
        mistakes(stderr, &sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_postgres_says_names_the_users_file_and_line() {
        let said = say("LOG:  skipping missing configuration file \"/x\"\n\
            LOG:  unrecognized configuration parameter \"wrk\" in file \"/run/c/user.conf\" line 3\n\
            LOG:  syntax error in file \"/data/postgresql.conf\" line 9, near token \"x\"\n\
            FATAL:  configuration file \"/run/c/user.conf\" contains errors\n");
        assert_eq!(
            said,
            [
                "/etc/podgres/postgresql.conf:3: unrecognized configuration parameter \"wrk\"",
                "/data/postgresql.conf:9: syntax error, near token \"x\""
            ]
        );
    }

    #[test]
    fn a_value_without_a_line_is_found() {
        assert_eq!(
            say("LOG:  invalid value for parameter \"work_mem\": \"abc\"\nHINT:  Valid units are …\n"),
            ["/etc/podgres/postgresql.conf:2: invalid value for parameter \"work_mem\": \"abc\" (Valid units are …)"]
        );
    }

    #[test]
    fn a_mistake_on_the_command_line_is_in_no_file() {
        let said = say("FATAL:  invalid value for parameter \"work_mem\": \"xyz\"\n");
        assert_eq!(said, ["invalid value for parameter \"work_mem\": \"xyz\""]);
        let said = say("FATAL:  invalid value for parameter \"my.token\": \"hush\"\n");
        assert_eq!(said, ["invalid value for parameter \"my.token\""]);
    }

    #[test]
    fn a_secret_is_not_repeated() {
        let said = say("LOG:  invalid value for parameter \"primary_conninfo\": \"password=hush\"\n");
        assert_eq!(said, ["/etc/podgres/postgresql.conf:4: invalid value for parameter \"primary_conninfo\""]);
    }

    #[test]
    fn something_is_said_of_every_refusal() {
        assert_eq!(say("FATAL:  configuration file \"/x\" contains errors\n").len(), 1);
        assert!(say("postgres: could not access directory\n")[0].contains("could not access"));
    }
}
