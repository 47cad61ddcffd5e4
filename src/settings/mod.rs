//! Every setting: its name, its default, its help text and its check.
//!
//! One table feeds the command line, the environment, `podgres.toml`, `--help` and the README. A setting has one name
//! in three forms (`--run-dir`, `PODGRES_RUN_DIR`, `run-dir`); the flag wins, then the environment, then the file.
//! Everything is read and checked once, before anything is started; what the rest of the program sees are plain types.
//! This module never touches a data directory.

pub mod kubernetes;
pub mod official;
mod replication;
mod sources;
mod table;
pub mod tls;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::postgres::replication::{conninfo, source::Address};
use kubernetes::Kubernetes;
use official::{Official, Secret};
use sources::Sources;
pub use sources::{Flags, nearest_flag, split_run_arguments};
pub use table::{SETTINGS, Setting, variable};

/// Why the settings cannot be used. Found before anything is touched; the process exits with 78 (`EX_CONFIG`).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A key, variable or flag that no setting has.
    #[error("{origin} names no setting{}", nearest.map(|n| format!("; the nearest one is {n}")).unwrap_or_default())]
    Unknown {
        /// Where it was found.
        origin: String,
        /// The setting whose name is most like it.
        nearest: Option<&'static str>,
    },
    /// A value that the setting does not take.
    #[error("{origin}: {value:?} is not {wanted}")]
    Value {
        /// Where it was found.
        origin: String,
        /// What was given.
        value: String,
        /// What is taken.
        wanted: String,
    },
    /// A flag without its value.
    #[error("--{0} needs a value")]
    Missing(&'static str),
    /// A file that cannot be read.
    #[error("{what} {path}: {reason}")]
    File {
        /// What the file is for.
        what: String,
        /// Its path.
        path: String,
        /// What the system or the parser said.
        reason: String,
    },
    /// A connection string that is none. Not shown: a password may be in it.
    #[error("{origin}: {source}")]
    Conninfo {
        /// Where it was found.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: conninfo::Error,
    },
    /// `X` and `X_FILE` at once.
    #[error(
        "both {0} and {0}_FILE are set, but they exclude each other: \
         keep the one that holds the value and remove the other"
    )]
    Both(&'static str),
    /// Settings that are good each, and not together.
    #[error("{0}")]
    Together(String),
    /// Variables that a member in Kubernetes needs, each with the pod's field that gives it.
    #[error(
        "mode kubernetes needs {}: set them in the container's env by the downward API \
         (valueFrom.fieldRef.fieldPath), or set mode to standalone",
        missing.iter().map(|(name, field)| format!("{name} ({field})")).collect::<Vec<_>>().join(", ")
    )]
    Pod {
        /// Variable and field.
        missing: Vec<(&'static str, &'static str)>,
    },
}

/// The role that standbys use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// `replication-user`.
    pub user: String,
    /// `replication-password`, or what follows from the superuser's; none where that is not known either.
    pub password: Option<Secret>,
}

/// How a member finds its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One member, no cluster manager.
    Standalone,
    /// By the Kubernetes API.
    Kubernetes,
}

/// The form of log lines.
pub use crate::logs::Format as LogFormat;

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `mode`.
    pub mode: Mode,
    /// The settings of mode kubernetes; none in another.
    pub kubernetes: Option<Kubernetes>,
    /// `standby-of`: the source, with the role that is used there.
    pub standby_of: Option<Address>,
    /// `replication-user` and `replication-password`.
    pub replication: Replication,
    /// `slot-retention`.
    pub slot_retention: Duration,
    /// `shutdown-timeout`: from a fast shutdown's start to the immediate one that follows.
    pub shutdown_timeout: Duration,
    /// `config-dir`.
    pub config_dir: PathBuf,
    /// `postgres-bindir`, where one was given.
    pub postgres_bindir: Option<PathBuf>,
    /// `run-dir`, where one was given.
    pub run_dir: Option<PathBuf>,
    /// `listen`.
    pub listen: Listen,
    /// `tls-dir`, `client-ca` and `tls-only`.
    pub tls: Option<tls::Tls>,
    /// `log-format`; none: by what stdout is.
    pub log_format: Option<LogFormat>,
    /// The variables of the official image.
    pub official: Official,
}

/// Where HTTP is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// Whether somebody asked for it. What nobody asked for is done without when the port is taken.
    pub explicit: bool,
}

/// Where the settings say that the manager's sockets are, if they do. A mistake in the settings file is none here: what
/// the manager makes of it is its own affair.
///
/// # Errors
/// What is wrong with the flags or the environment.
pub fn run_dir(flags: &Flags, environment: &[(String, String)]) -> Result<Option<PathBuf>, Error> {
    Sources::run_dir(flags, environment)
}

impl Settings {
    /// Whether standbys are to confirm commits.
    pub fn is_synchronous(&self) -> bool {
        self.kubernetes.as_ref().is_some_and(|k| k.sync.standbys > 0)
    }

    /// Reads and checks all settings from `flags`, `environment` and `podgres.toml` in `config-dir`.
    ///
    /// # Errors
    /// The first setting that is unknown, unreadable or makes no sense.
    pub fn load(flags: &Flags, environment: &[(String, String)]) -> Result<Self, Error> {
        let sources = Sources::gather(flags, environment)?;
        let listen =
            sources.parse("listen", "an address and port such as [::]:8008 or 127.0.0.1:8008", parse_listen)?;
        let format = sources.parse("log-format", "json or text", |v| match v {
            "json" => Some(LogFormat::Json),
            "text" => Some(LogFormat::Text),
            _ => None,
        })?;
        let official = Official::load(environment)?;
        let replication = replication::role(&sources, &official)?;
        let standby_of = replication::source(&sources, &replication)?;
        let mode = kubernetes::mode(&sources, environment, Path::new(kubernetes::TOKEN))?;
        Ok(Self {
            kubernetes: kubernetes::load(
                &sources,
                environment,
                mode,
                (standby_of.is_some(), replication.password.is_some()),
            )?,
            standby_of,
            replication,
            slot_retention: sources
                .parse("slot-retention", "a duration such as 24h or 30m", |v| humantime::parse_duration(v).ok())?
                .unwrap_or(DEFAULT_SLOT_RETENTION),
            mode,
            shutdown_timeout: sources
                .parse("shutdown-timeout", "a duration such as 25s or 500ms, at least 1s", parse_timeout)?
                .unwrap_or(DEFAULT_SHUTDOWN_TIMEOUT),
            config_dir: sources.config_dir()?,
            postgres_bindir: sources.directory("postgres-bindir")?,
            run_dir: sources.directory("run-dir")?,
            listen: Listen { address: listen.unwrap_or(DEFAULT_LISTEN), explicit: listen.is_some() },
            tls: tls::load(&sources)?,
            log_format: format,
            official,
        })
    }
}

/// Five seconds inside the kubelet's default grace period of 30 s, after which it kills
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>).
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// A node's repair or a week-end's mistake; for WAL to fill the volume `max_slot_wal_keep_size` sets the bound.
const DEFAULT_SLOT_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Patroni's port, which the load balancers that check `/primary` already use.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 8008);

fn parse_timeout(value: &str) -> Option<Duration> {
    humantime::parse_duration(value).ok().filter(|d| *d >= Duration::from_secs(1))
}

/// `[::]:8008`, `127.0.0.1:8008`, or `:8008` as other tools write "everywhere".
fn parse_listen(value: &str) -> Option<SocketAddr> {
    match value.strip_prefix(':') {
        Some(port) => Some(SocketAddr::new(DEFAULT_LISTEN.ip(), port.parse().ok()?)),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn load(flags: &[(&'static str, &str)], variables: &[(&str, &str)]) -> Result<Settings, Error> {
        let flags = flags.iter().map(|(k, v)| (*k, v.to_string())).collect();
        Settings::load(&flags, &env(variables))
    }

    fn message(result: Result<Settings, Error>) -> String {
        result.unwrap_err().to_string()
    }

    /// The table of settings as it stands in the README.
    fn table() -> String {
        let row = |s: &Setting| format!("| `{}` | {} | {} |\n", s.name, s.default, s.help);
        let rows: String = SETTINGS.iter().map(row).collect();
        format!("| setting | default | meaning |\n|---|---|---|\n{rows}")
    }

    #[test]
    fn the_readme_says_the_same() {
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&table()), "the README's table of settings is not this one:\n{}", table());
    }

    #[test]
    fn defaults() {
        let s = load(&[], &[]).unwrap();
        assert_eq!(s.shutdown_timeout, Duration::from_secs(25));
        assert_eq!(s.listen.address, "[::]:8008".parse().unwrap());
        assert!(!s.listen.explicit);
    }

    #[test]
    fn the_flag_wins_then_the_environment_then_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("podgres.toml"), "shutdown-timeout = \"3s\"\n").unwrap();
        let config = dir.path().to_str().unwrap();
        let seconds = |flags: &[(&'static str, &str)], variables: &[(&str, &str)]| {
            load(flags, variables).unwrap().shutdown_timeout.as_secs()
        };
        let variables = [("PODGRES_CONFIG_DIR", config), ("PODGRES_SHUTDOWN_TIMEOUT", "2s")];
        assert_eq!(seconds(&[("shutdown-timeout", "1s")], &variables), 1);
        assert_eq!(seconds(&[], &variables), 2);
        assert_eq!(seconds(&[], &variables[..1]), 3);
    }

    #[test]
    fn whoever_asks_the_manager_needs_no_good_settings_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("podgres.toml"), "run-dir = \"/r\"\nlistn = \"x\"\n").unwrap();
        let variables = env(&[("PODGRES_CONFIG_DIR", dir.path().to_str().unwrap())]);
        assert!(Settings::load(&Flags::new(), &variables).is_err());
        assert_eq!(run_dir(&Flags::new(), &variables).unwrap(), Some("/r".into()));
        assert_eq!(run_dir(&Flags::from([("run-dir", "/f".into())]), &variables).unwrap(), Some("/f".into()));
        std::fs::write(dir.path().join("podgres.toml"), "nonsense").unwrap();
        assert_eq!(run_dir(&Flags::new(), &variables).unwrap(), None);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named_with_its_place() {
        let text = message(load(&[], &[("PODGRES_SHUTDOWN_TIMEOUT", "soon")]));
        assert!(
            text.contains("PODGRES_SHUTDOWN_TIMEOUT") && text.contains("\"soon\"") && text.contains("25s"),
            "{text}"
        );
        let text = message(load(&[("listen", "everywhere")], &[]));
        assert!(text.contains("--listen"), "{text}");
    }

    #[test]
    fn a_key_that_no_setting_has_names_the_nearest() {
        let text = message(load(&[], &[("PODGRES_SHUTDOWN_TIMOUT", "1s")]));
        assert!(text.contains("PODGRES_SHUTDOWN_TIMOUT") && text.contains("shutdown-timeout"), "{text}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("podgres.toml"), "rundir = \"/x\"\n").unwrap();
        let text = message(load(&[("config-dir", dir.path().to_str().unwrap())], &[]));
        assert!(text.contains("podgres.toml") && text.contains("run-dir"), "{text}");
    }

    #[test]
    fn variables_that_kubernetes_makes_of_a_service_called_podgres_are_not_settings() {
        for name in [
            "PODGRES_SERVICE_HOST",
            "PODGRES_SERVICE_PORT",
            "PODGRES_SERVICE_PORT_HTTP",
            "PODGRES_PORT",
            "PODGRES_PORT_5432_TCP",
            "PODGRES_PORT_5432_TCP_ADDR",
            "PODGRES_RW_SERVICE_HOST",
            "PODGRES_RW_PORT_5432_TCP_PROTO",
        ] {
            assert!(load(&[], &[(name, "10.0.0.1")]).is_ok(), "{name}");
        }
    }

    #[test]
    fn listen_takes_a_port_alone() {
        let s = load(&[("listen", ":9000")], &[]).unwrap();
        assert_eq!(s.listen, Listen { address: "[::]:9000".parse().unwrap(), explicit: true });
    }

    #[test]
    fn a_relative_directory_is_refused() {
        assert!(message(load(&[("run-dir", "run")], &[])).contains("absolute"));
    }
}
