//! Where values come from: flags, environment, file.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use super::{Error, SETTINGS, Setting, variable};

/// Settings given on the command line, by name.
pub type Flags = BTreeMap<&'static str, String>;

const DEFAULT_CONFIG_DIR: &str = "/etc/podgres";

/// Where a value was found, as messages name it.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    File(PathBuf, &'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(&variable(name)),
            Self::File(path, name) => write!(f, "{name} in {}", path.display()),
        }
    }
}

/// The winning text of each setting that somebody gave.
pub(super) struct Sources(BTreeMap<&'static str, (String, Origin)>);

impl Sources {
    /// Those of the process itself.
    fn of_process(flags: &Flags, environment: &[(String, String)]) -> Result<Self, Error> {
        let mut found = BTreeMap::new();
        for (name, value) in from_environment(environment)? {
            found.insert(name, (value, Origin::Variable(name)));
        }
        for (name, value) in flags {
            found.insert(*name, (value.clone(), Origin::Flag(name)));
        }
        Ok(Self(found))
    }

    /// Where the manager's sockets are. Whoever only wants to ask it is not kept from that by a mistake in the file, of
    /// which the manager will have something to say.
    pub(super) fn run_dir(flags: &Flags, environment: &[(String, String)]) -> Result<Option<PathBuf>, Error> {
        let sources = Self::of_process(flags, environment)?;
        let in_file = || {
            let text = std::fs::read_to_string(sources.config_dir().ok()?.join("podgres.toml")).ok()?;
            Some(PathBuf::from(text.parse::<toml::Table>().ok()?.get("run-dir")?.as_str()?))
        };
        Ok(sources.directory("run-dir")?.or_else(in_file))
    }

    pub(super) fn gather(flags: &Flags, environment: &[(String, String)]) -> Result<Self, Error> {
        let mut sources = Self::of_process(flags, environment)?;
        let path = sources.config_dir()?.join("podgres.toml");
        for (name, value) in from_file(&path)? {
            sources.0.entry(name).or_insert_with(|| (value, Origin::File(path.clone(), name)));
        }
        Ok(sources)
    }

    /// The text of a setting that somebody gave, and where.
    pub(super) fn text(&self, name: &str) -> Option<(&str, String)> {
        self.0.get(name).map(|(text, origin)| (text.as_str(), origin.to_string()))
    }

    pub(super) fn parse<T>(
        &self,
        name: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some((text, origin)) = self.0.get(name) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| Error::Value {
            origin: origin.to_string(),
            value: text.clone(),
            wanted: wanted.into(),
        })
    }

    pub(super) fn config_dir(&self) -> Result<PathBuf, Error> {
        Ok(self.directory("config-dir")?.unwrap_or_else(|| DEFAULT_CONFIG_DIR.into()))
    }

    pub(super) fn directory(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        self.parse(name, "an absolute path", |v| Some(PathBuf::from(v)).filter(|p| p.is_absolute()))
    }
}

fn lookup(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

/// The setting whose name is most like `name`, if any is like it at all.
fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |s: &Setting| strsim::jaro_winkler(s.name, name);
    let best = SETTINGS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.75).then_some(best.name)
}

fn from_environment(environment: &[(String, String)]) -> Result<Vec<(&'static str, String)>, Error> {
    let mut found = Vec::new();
    for (key, value) in environment {
        let Some(rest) = key.strip_prefix("PODGRES_") else { continue };
        let name = rest.replace('_', "-").to_ascii_lowercase();
        match lookup(&name) {
            Some(setting) => found.push((setting.name, value.clone())),
            None if is_service_variable(rest) => {}
            None => {
                return Err(Error::Unknown { origin: format!("the variable {key}"), nearest: nearest(&name) });
            }
        }
    }
    Ok(found)
}

/// Whether `PODGRES_<rest>` is what the kubelet adds for a Service whose name begins with "podgres"
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
fn is_service_variable(rest: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    words.iter().enumerate().any(|(i, word)| match *word {
        "SERVICE" => matches!(words.get(i + 1), Some(&"HOST" | &"PORT")),
        "PORT" => match words.get(i + 1) {
            None => true,
            Some(port) => port.parse::<u16>().is_ok(),
        },
        _ => false,
    })
}

fn from_file(path: &std::path::Path) -> Result<Vec<(&'static str, String)>, Error> {
    let failed =
        |reason: String| Error::File { what: "settings file".into(), path: path.display().to_string(), reason };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(failed(e.to_string())),
    };
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| failed(mistake(&e, &text)))?;
    let mut found = Vec::new();
    for (key, value) in table {
        let Some(setting) = lookup(&key) else {
            return Err(Error::Unknown { origin: format!("{key} in {}", path.display()), nearest: nearest(&key) });
        };
        let text = match value {
            toml::Value::String(s) => s,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            _ => return Err(failed(format!("{key}: wanted is a text: {key} = \"{}\"", setting.value))),
        };
        found.push((setting.name, text));
    }
    Ok(found)
}

/// Where it is and what, without the line itself, in which a password may be.
fn mistake(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or_else(String::new, |before| format!("line {}: ", before.split('\n').count()));
    // A key that is there twice is named with what was read for it.
    let what = error.message().lines().next().unwrap_or_default();
    format!("{line}{what}")
}

/// Takes the settings' flags off the front of `podgres run`'s arguments; the rest is the command.
///
/// PostgreSQL's own options have the same form (`--shared_buffers=1GB`), so the first argument that is not a flag of
/// the table begins the command.
///
/// # Errors
/// A flag without its value, or one that is a slip of the pen away from a setting's.
pub fn split_run_arguments(arguments: Vec<String>) -> Result<(Flags, Vec<String>), Error> {
    let mut flags = Flags::new();
    let mut rest = arguments.into_iter().peekable();
    while let Some(argument) = rest.peek() {
        let Some(body) = argument.strip_prefix("--") else { break };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (body, None),
        };
        let Some(setting) = lookup(name) else {
            match nearest_flag(name) {
                Some(near) => return Err(Error::Unknown { origin: format!("--{name}"), nearest: Some(near) }),
                None => break,
            }
        };
        rest.next();
        let value = value.or_else(|| rest.next()).ok_or(Error::Missing(setting.name))?;
        flags.insert(setting.name, value);
    }
    Ok((flags, rest.collect()))
}

/// The setting that `name` is one or two slips away from; PostgreSQL's own names are farther than that.
pub fn nearest_flag(name: &str) -> Option<&'static str> {
    let slips = |s: &&Setting| strsim::damerau_levenshtein(s.name, name);
    SETTINGS.iter().filter(|s| s.name.len() > 5).min_by_key(slips).filter(|s| slips(s) <= 2).map(|s| s.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(arguments: &[&str]) -> Result<(Flags, Vec<String>), Error> {
        split_run_arguments(arguments.iter().map(|a| a.to_string()).collect())
    }

    #[test]
    fn settings_come_first_and_the_rest_is_the_command() {
        let (flags, rest) = split(&["--listen", ":1", "--run-dir=/r", "-c", "fsync=on", "--listen", "x"]).unwrap();
        assert_eq!(flags["listen"], ":1");
        assert_eq!(flags["run-dir"], "/r");
        assert_eq!(rest, ["-c", "fsync=on", "--listen", "x"]);
    }

    #[test]
    fn a_mistake_in_the_file_is_told_without_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("podgres.toml");
        for text in [
            "\nreplication-password = \"hush\n",
            "\nreplication-password = hush\n",
            "\nreplication-password = \"hush\" x\n",
        ] {
            std::fs::write(&path, text).unwrap();
            let said = from_file(&path).unwrap_err().to_string();
            assert!(said.contains("podgres.toml: line 2: ") && !said.contains("hush"), "{said}");
        }
    }

    #[test]
    fn options_of_postgres_are_left_to_it() {
        for option in ["--shared_buffers=1GB", "--version", "--help", "--listen_addresses=*", "--cluster_name=x"] {
            assert_eq!(split(&[option]).unwrap().1, [option]);
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_not_handed_to_postgres() {
        let text = split(&["--shutdown-timout", "1s"]).unwrap_err().to_string();
        assert!(text.contains("shutdown-timeout"), "{text}");
        assert_eq!(split(&["--run-dir"]).unwrap_err(), Error::Missing("run-dir"));
    }

    #[test]
    fn a_file_with_a_mistake_is_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for wrong in ["a = 1\nreplication-password = hush\n", "\nreplication-password = \"hush\n", "\nhush = 'a'b"] {
            std::fs::write(file.path(), wrong).unwrap();
            let text = from_file(file.path()).unwrap_err().to_string();
            assert!(text.contains("line 2") && !text.contains("hush"), "{text}");
        }
    }
}
