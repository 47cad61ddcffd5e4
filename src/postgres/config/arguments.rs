//! PostgreSQL's command line: what of it podgres must know.

use std::path::{Path, PathBuf};

/// Options of `postgres` whose value may be an argument of its own (`PostmasterMain`, postmaster.c).
const WITH_VALUE: &[char] = &['B', 'b', 'c', 'C', 'D', 'd', 'f', 'h', 'k', 'N', 'p', 'r', 'S', 't', 'W'];

/// The user's arguments without those that name files, which podgres gives in its own way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// Those that remain.
    pub(super) rest: Vec<String>,
    /// `config_file`.
    pub(super) config_file: Option<PathBuf>,
    /// `hba_file`.
    pub(super) hba_file: Option<PathBuf>,
    /// `ident_file`.
    pub(super) ident_file: Option<PathBuf>,
}

impl Arguments {
    /// Of the arguments as they were given.
    pub(super) fn of(arguments: &[String]) -> Self {
        let mut this = Self::default();
        for words in options(arguments) {
            let file = match setting(words) {
                Some((name, value)) => match name.as_str() {
                    "config_file" => Some((&mut this.config_file, value)),
                    "hba_file" => Some((&mut this.hba_file, value)),
                    "ident_file" => Some((&mut this.ident_file, value)),
                    _ => None,
                },
                None => None,
            };
            match file {
                // The server's working directory is where a relative one begins.
                Some((file, value)) => *file = Some(Path::new("/").join(value)),
                None => this.rest.extend_from_slice(words),
            }
        }
        this
    }
}

/// The names of the settings that `arguments` set with their values, in order: the last one of a name wins.
pub(super) fn settings(arguments: &[String]) -> Vec<(String, String)> {
    options(arguments).filter_map(setting).collect()
}

/// The arguments in groups: an option with its value, or one word alone.
fn options(arguments: &[String]) -> impl Iterator<Item = &[String]> {
    let mut rest = arguments;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut letters = first.strip_prefix('-').unwrap_or_default().chars();
        let takes_next = letters.next().is_some_and(|l| WITH_VALUE.contains(&l)) && letters.next().is_none();
        let (words, tail) = rest.split_at(if takes_next { 2.min(rest.len()) } else { 1 });
        rest = tail;
        Some(words)
    })
}

/// `-c name=value`, `-cname=value`, `--name=value`, and the letters that mean settings.
fn setting(words: &[String]) -> Option<(String, String)> {
    let first = words.first()?;
    let assignment = match (first.as_str(), words.get(1)) {
        ("-c", Some(next)) => next.clone(),
        ("-N", Some(next)) => format!("max_connections={next}"),
        ("-B", Some(next)) => format!("shared_buffers={next}"),
        ("-p", Some(next)) => format!("port={next}"),
        ("-h", Some(next)) => format!("listen_addresses={next}"),
        ("-k", Some(next)) => format!("unix_socket_directories={next}"),
        (first, _) => first.strip_prefix("--").or_else(|| first.strip_prefix("-c"))?.to_string(),
    };
    let (name, value) = assignment.split_once('=')?;
    Some((name.trim().replace('-', "_").to_ascii_lowercase(), value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn files_are_taken_out_in_each_of_their_forms() {
        for text in [
            "-c a=b -c config_file=/x/y.conf -p 1",
            "-c a=b -cconfig_file=/x/y.conf -p 1",
            "-c a=b --config_file=/x/y.conf -p 1",
            "-c a=b --config-file=/old --config-file=/x/y.conf -p 1",
        ] {
            let arguments = Arguments::of(&list(text));
            assert_eq!(arguments.config_file, Some("/x/y.conf".into()), "{text}");
            assert_eq!(arguments.rest, list("-c a=b -p 1"), "{text}");
        }
        let arguments = Arguments::of(&list("--hba-file=hba -c ident_file=/i -k -c -c"));
        assert_eq!(arguments.hba_file, Some("/hba".into()));
        assert_eq!(arguments.ident_file, Some("/i".into()));
        assert_eq!(arguments.rest, list("-k -c -c"));
    }

    #[test]
    fn settings_of_the_command_line() {
        let found = settings(&list("-c work_mem=1MB --max-connections=5 -N 7 -i -cfsync=off"));
        let found: Vec<String> = found.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(found, ["work_mem=1MB", "max_connections=5", "max_connections=7", "fsync=off"]);
    }
}
