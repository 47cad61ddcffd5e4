//! Settings that a standby must not have smaller than its primary had: recovery would end (up to 13), or pause until a
//! restart (from 14 on).
//! <https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-ADMIN>
//!
//! What the primary has comes with the WAL and is kept in `pg_control`.

use std::{path::Path, process::Command};

use super::check;
use crate::{pid1::Children, postgres::bindir::Bindir};

/// The settings, and what `pg_controldata` calls them.
pub const SENSITIVE: [(&str, &str); 5] = [
    ("max_connections", "max_connections setting"),
    ("max_worker_processes", "max_worker_processes setting"),
    ("max_wal_senders", "max_wal_senders setting"),
    ("max_prepared_transactions", "max_prepared_xacts setting"),
    ("max_locks_per_transaction", "max_locks_per_xact setting"),
];

/// A setting that is smaller here than it was on the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raise {
    /// The setting.
    pub name: &'static str,
    /// What the configuration here says.
    pub here: i64,
    /// What `pg_control` demands.
    pub primary: i64,
}

impl std::fmt::Display for Raise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {} here and {} on the primary", self.name, self.here, self.primary)
    }
}

/// Whether PostgreSQL will start as a standby, or recover from an archive, on `pgdata`.
pub fn is_standby(pgdata: &Path) -> bool {
    ["standby.signal", "recovery.signal"].iter().any(|name| pgdata.join(name).exists())
}

/// What `pg_control` of `pgdata` demands. Empty where it cannot be read: PostgreSQL itself will say so.
pub async fn demands(bindir: &Bindir, pgdata: &Path, children: &Children) -> Vec<(&'static str, i64)> {
    let mut command = Command::new(bindir.program("pg_controldata"));
    command.arg("-D").arg(pgdata).env("LC_ALL", "C").current_dir("/");
    match check::run(&mut command, children).await {
        Ok(said) => parse(&said.stdout),
        Err(error) => {
            tracing::warn!("pg_controldata {}: {error}", pgdata.display());
            Vec::new()
        }
    }
}

pub(crate) fn parse(text: &str) -> Vec<(&'static str, i64)> {
    let value =
        |label: &str| text.lines().find_map(|l| l.strip_prefix(label)?.trim_start_matches(':').trim().parse().ok());
    SENSITIVE.iter().filter_map(|(name, label)| Some((*name, value(label)?))).collect()
}

/// Which of the values `here` are below what is demanded.
pub fn too_small(here: &[(&'static str, i64)], demanded: &[(&'static str, i64)]) -> Vec<Raise> {
    let of = |name: &str| here.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let small = |(name, primary): &(&'static str, i64)| {
        let here = of(name)?;
        (here < *primary).then_some(Raise { name, here, primary: *primary })
    };
    demanded.iter().filter_map(small).collect()
}

/// In which order members are to be restarted for a pending change of a sensitive setting; none for any other setting,
/// or where the order does not matter.
pub fn order(primary: bool, name: &str, value: &str, new_value: &str) -> Option<&'static str> {
    SENSITIVE.iter().find(|(n, _)| *n == name)?;
    let (value, new_value) = (value.parse::<i64>().ok()?, new_value.parse::<i64>().ok()?);
    match (primary, new_value > value) {
        (true, true) => Some("restart the standbys first: they must not have less than their primary"),
        (false, false) => Some("restart the primary first: a standby must not have less than it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_controldata_is_understood() {
        let text = "wal_level setting:                    replica\n\
            max_connections setting:              200\n\
            max_worker_processes setting:         8\n\
            max_wal_senders setting:              10\n\
            max_prepared_xacts setting:           0\n\
            max_locks_per_xact setting:           64\n";
        let names: Vec<String> = parse(text).iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            names,
            [
                "max_connections=200",
                "max_worker_processes=8",
                "max_wal_senders=10",
                "max_prepared_transactions=0",
                "max_locks_per_transaction=64"
            ]
        );
        assert!(parse("nonsense").is_empty());
    }

    #[test]
    fn only_what_is_smaller_is_raised() {
        let raises = too_small(
            &[("max_connections", 100), ("max_wal_senders", 20)],
            &[("max_connections", 200), ("max_wal_senders", 10), ("max_worker_processes", 8)],
        );
        assert_eq!(raises, [Raise { name: "max_connections", here: 100, primary: 200 }]);
        assert_eq!(raises[0].to_string(), "max_connections is 100 here and 200 on the primary");
    }

    #[test]
    fn standbys_go_first_up_and_the_primary_first_down() {
        assert!(order(true, "max_connections", "100", "200").unwrap().contains("standbys first"));
        assert_eq!(order(true, "max_connections", "200", "100"), None);
        assert!(order(false, "max_connections", "200", "100").unwrap().contains("primary first"));
        assert_eq!(order(false, "max_connections", "100", "200"), None);
        assert_eq!(order(true, "shared_buffers", "100", "200"), None);
    }
}
