//! Where each value comes from, and what is wrong: the configuration as `podgres status` shows it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::{Installed, Layers, arguments, parse::Place, standby};
use crate::{
    postgres::sql::{self, PendingRestart},
    secrets,
};

/// How the configuration is.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Why the user's present files are not in use; empty when they are.
    pub refused: Vec<String>,
    /// What a standby was given more of than its configuration says.
    pub raised: Vec<standby::Raise>,
    pub(super) dir: PathBuf,
    pub(super) pgdata: PathBuf,
    pub(super) user_places: Vec<Place>,
    pub(super) base_places: Vec<Place>,
    pub(super) defaults: Vec<(&'static str, Option<String>)>,
    /// Settings of the user's own command line.
    pub(super) arguments: Vec<String>,
}

impl Report {
    pub(super) fn new(
        layers: &Layers,
        installed: &Installed,
        refused: Vec<String>,
        raised: Vec<standby::Raise>,
    ) -> Self {
        Self {
            refused,
            raised,
            dir: layers.dir(),
            pgdata: layers.launch.pgdata.clone(),
            user_places: installed.files.user.as_ref().map(|u| u.places.clone()).unwrap_or_default(),
            base_places: installed.files.base.places.clone(),
            defaults: installed.defaults.iter().map(|d| (d.name, d.because.clone())).collect(),
            arguments: arguments::settings(&layers.arguments.rest).into_iter().map(|(n, _)| n).collect(),
        }
    }

    /// What a standby was started with in place of what its configuration says, in words.
    pub fn raises(&self) -> Vec<String> {
        self.raised.iter().map(|r| format!("{r}: started with {}", r.primary)).collect()
    }

    /// Whether a value only seems to wait for a restart: the next start will raise it again.
    pub fn is_raised(&self, pending: &PendingRestart) -> bool {
        let (value, new_value) = (pending.value.parse(), pending.new_value.parse());
        self.raised.iter().any(|r| r.name == pending.name && value == Ok(r.primary) && new_value == Ok(r.here))
    }

    pub(super) fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    pub(super) fn without_refusal(&self) -> Self {
        Self { refused: Vec::new(), ..self.clone() }
    }

    /// The origin of a value, from what `pg_settings` says of it.
    fn origin(&self, name: &str, source: &str, file: Option<&str>, line: Option<i32>) -> String {
        let line = line.and_then(|l| usize::try_from(l).ok()).unwrap_or(0);
        match (source, file.map(Path::new)) {
            ("configuration file", Some(file)) => self.origin_in_file(name, file, line),
            ("command line", _) if self.raised.iter().any(|r| r.name == name) => "podgres (the primary's value)".into(),
            ("command line", _) if self.arguments.iter().any(|a| a == name) => "command line".into(),
            ("command line", _) => "podgres (owned)".into(),
            // What postgres sets itself: from the control file, or computed.
            ("override", _) => "PostgreSQL".into(),
            ("environment variable", _) => "environment".into(),
            ("database" | "user" | "database user", _) => "database or role (ALTER DATABASE, ALTER ROLE)".into(),
            (other, _) => other.into(),
        }
    }

    fn origin_in_file(&self, name: &str, file: &Path, line: usize) -> String {
        let copied = |places: &[Place]| match places.get(line.wrapping_sub(1)) {
            Some(place) => self.place(&place.file, place.line),
            None => self.place(file, line),
        };
        match file {
            f if f == self.dir.join("defaults.conf") => {
                match self.defaults.iter().find(|(n, _)| *n == name).and_then(|(_, because)| because.as_deref()) {
                    Some(because) => format!("podgres default ({because})"),
                    None => "podgres default".into(),
                }
            }
            f if f == self.dir.join("user.conf") => copied(&self.user_places),
            f if f == self.dir.join("base.conf") => copied(&self.base_places),
            f if f == self.dir.join("owned.conf") => "podgres (owned)".into(),
            f if f == self.pgdata.join("postgresql.auto.conf") => "ALTER SYSTEM".into(),
            f => self.place(f, line),
        }
    }

    fn place(&self, file: &Path, line: usize) -> String {
        match file.strip_prefix(&self.pgdata) {
            Ok(below) => format!("PGDATA/{}:{line}", below.display()),
            Err(_) => format!("{}:{line}", file.display()),
        }
    }
}

/// A setting with its value and where that comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value, with its unit; hidden if it may hold a secret.
    pub value: String,
    /// Where the value comes from.
    pub origin: String,
    /// The value after a restart, where it waits for one.
    pub pending: Option<String>,
}

/// Asks for all settings.
///
/// # Errors
/// When PostgreSQL refuses, or does not answer.
pub async fn settings(client: &Client, report: &Report) -> Result<Vec<Setting>, sql::Error> {
    let mut pending = sql::pending_restart(client).await?;
    pending.retain(|p| !report.is_raised(p));
    let rows = client.query(SETTINGS, &[]).await?;
    let setting = |row: &tokio_postgres::Row| {
        let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (source, file): (String, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
        let (line, computed): (Option<i32>, bool) = (row.try_get(4)?, row.try_get(5)?);
        let origin = match self::is_computed(&source, computed) {
            true => "PostgreSQL".into(),
            false => report.origin(&name, &source, file.as_deref(), line),
        };
        let pending = pending.iter().find(|p| p.name == name).map(|p| p.new_value.clone());
        Ok(Setting { value: secrets::shown(&name, &value), name, origin, pending })
    };
    rows.iter().map(setting).collect()
}

fn is_computed(source: &str, internal: bool) -> bool {
    internal && matches!(source, "default" | "override")
}

/// Our own session brings settings of its own, which nobody else has: of those the one that others have is shown.
const SETTINGS: &str = "
with files as (
    select distinct on (lower(name)) lower(name) as name, setting, sourcefile, sourceline
      from pg_catalog.pg_file_settings where error is null order by lower(name), seqno desc)
select s.name,
       case when s.source in ('client', 'session') then coalesce(f.setting, s.boot_val, '')
            else current_setting(s.name) end,
       case when s.source not in ('client', 'session') then s.source
            when f.name is not null then 'configuration file' else 'default' end,
       coalesce(s.sourcefile, f.sourcefile), coalesce(s.sourceline, f.sourceline),
       s.context = 'internal'
  from pg_catalog.pg_settings s left join files f on f.name = lower(s.name)
 order by s.name";

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            dir: "/run/podgres/config".into(),
            pgdata: "/data".into(),
            user_places: vec![Place { file: "/etc/podgres/postgresql.conf".into(), line: 12 }],
            defaults: vec![("shared_buffers", Some("256 MB of memory".into())), ("wal_log_hints", None)],
            arguments: vec!["work_mem".into()],
            raised: vec![standby::Raise { name: "max_connections", here: 100, primary: 200 }],
            ..Report::default()
        }
    }

    #[test]
    fn every_layer_has_its_name() {
        for (name, source, file, line, origin) in [
            (
                "shared_buffers",
                "configuration file",
                Some("/run/podgres/config/defaults.conf"),
                1,
                "podgres default (256 MB of memory)",
            ),
            ("wal_log_hints", "configuration file", Some("/run/podgres/config/defaults.conf"), 1, "podgres default"),
            ("a", "configuration file", Some("/run/podgres/config/user.conf"), 1, "/etc/podgres/postgresql.conf:12"),
            ("a", "configuration file", Some("/run/podgres/config/owned.conf"), 1, "podgres (owned)"),
            ("a", "configuration file", Some("/data/postgresql.conf"), 3, "PGDATA/postgresql.conf:3"),
            ("a", "configuration file", Some("/data/postgresql.auto.conf"), 3, "ALTER SYSTEM"),
            ("a", "configuration file", Some("/elsewhere/x.conf"), 3, "/elsewhere/x.conf:3"),
            ("work_mem", "command line", None, 0, "command line"),
            ("log_destination", "command line", None, 0, "podgres (owned)"),
            ("max_connections", "command line", None, 0, "podgres (the primary's value)"),
            ("port", "default", None, 0, "default"),
        ] {
            assert_eq!(report().origin(name, source, file, Some(line)), origin, "{name} {source} {file:?}");
        }
    }

    #[test]
    fn what_was_raised_does_not_wait_for_a_restart() {
        let pending = |name: &str, value: &str, new_value: &str| PendingRestart {
            name: name.into(),
            value: value.into(),
            new_value: new_value.into(),
        };
        assert!(report().is_raised(&pending("max_connections", "200", "100")));
        assert!(!report().is_raised(&pending("max_connections", "200", "300")));
        assert!(!report().is_raised(&pending("max_wal_senders", "200", "100")));
    }

    #[test]
    fn what_was_raised_is_said_in_words() {
        assert_eq!(report().raises(), ["max_connections is 100 here and 200 on the primary: started with 200"]);
    }
}
