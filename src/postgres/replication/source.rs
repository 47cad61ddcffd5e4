//! The server that a standby copies and follows, asked with psql: with libpq's own rules for connection strings, TLS,
//! password files and several hosts, as pg_basebackup, pg_rewind and the walreceiver have them too.
//!
//! What any server tells whoever may replicate from it goes over a replication connection
//! (<https://www.postgresql.org/docs/current/protocol-replication.html>). What takes SQL also takes a role that may
//! connect to a database, as the one that podgres makes on a primary.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    conninfo::Conninfo,
    divergence,
    history::{self, History},
    lsn::{Lsn, Timeline},
};
use crate::{
    pid1::{Exit, Runner},
    postgres::{bindir::Bindir, server},
    settings::official::Secret,
};

/// For one connection and its answer. libpq's own limit, which holds for each host of several, is below it.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: &str = "3";

/// Why a source did not answer as hoped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection, or none that lets us in.
    #[error("cannot connect to the source at {place}: {why}")]
    Connect {
        /// Its host and port.
        place: String,
        /// What libpq said.
        why: String,
    },
    /// It answered with an error.
    #[error("the source at {place} refuses: {why}")]
    Refused {
        /// Its host and port.
        place: String,
        /// What it said.
        why: String,
        /// SQLSTATE, where there is one.
        code: String,
    },
    /// It answered with something else than was asked for.
    #[error("the answer of the source at {place} makes no sense: {what}")]
    Answer {
        /// Its host and port.
        place: String,
        /// What was asked and answered.
        what: String,
    },
    /// psql could not be run.
    #[error("cannot run psql to ask the source at {place}: {why}")]
    Psql {
        /// Its host and port.
        place: String,
        /// What the system said.
        why: String,
    },
}

impl Error {
    fn has_code(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }
}

/// How a source is reached, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Everything but the password.
    pub conninfo: Conninfo,
    /// The password, where one is known.
    pub password: Option<Secret>,
    /// Whether it is what a cluster elected, not what a setting names.
    pub elected: bool,
}

/// The timeline of which a member has noted what began it, and its leader's, as they are at each moment.
#[derive(Debug, Clone, Default)]
pub struct Noted(Arc<Timelines>);

/// PostgreSQL counts from 1; 0: it is not known.
#[derive(Debug, Default)]
struct Timelines {
    noted: AtomicU32,
    leaders: AtomicU32,
    news: Notify,
}

impl Noted {
    /// From now on the one that is noted is this one.
    pub fn set(&self, timeline: Option<u32>) {
        self.0.noted.store(timeline.unwrap_or(0), Ordering::Relaxed);
    }

    /// The leader's is this one. Whoever receives it is to be noticed soon.
    pub fn expect(&self, timeline: Option<u32>) {
        let timeline = timeline.unwrap_or(0);
        if self.0.leaders.swap(timeline, Ordering::Relaxed) != timeline {
            self.0.news.notify_one();
        }
    }

    fn get(&self) -> Option<u32> {
        Some(self.0.noted.load(Ordering::Relaxed)).filter(|t| *t > 0)
    }
}

/// A source.
#[derive(Clone)]
pub struct Source {
    conninfo: Conninfo,
    elected: bool,
    noted: Noted,
    bindir: Bindir,
    runner: Runner,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's identity.
    pub system_identifier: u64,
    /// The timeline that it writes or replays.
    pub timeline: Timeline,
    /// How far its WAL is flushed.
    pub flushed: Lsn,
    /// Its major version.
    pub major: u32,
    /// Whether it is in recovery. Before 14 nobody tells a replication connection, and it counts as no.
    pub in_recovery: bool,
}

/// What became of a slot that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// It is there, with all the WAL since it was made.
    Found,
    /// It was made: WAL is kept from now on, not from before.
    Made,
}

impl Source {
    /// A source at `address`. Its password, if there is one, goes into a file in `run_dir` that only this user can read,
    /// for all programs that connect to it: it stands in no argument and no setting.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(address: &Address, run_dir: &Path, bindir: &Bindir, runner: &Runner) -> io::Result<Self> {
        let mut conninfo = address.conninfo.clone();
        if let Some(password) = &address.password {
            let file = write_passfile(run_dir, password)?;
            conninfo = conninfo.with("passfile", &file.to_string_lossy());
        }
        Ok(Self {
            conninfo,
            elected: address.elected,
            noted: Noted::default(),
            bindir: bindir.clone(),
            runner: runner.clone(),
        })
    }

    /// Connects as `secure` says.
    pub fn secured(self, secure: impl FnOnce(Conninfo, bool) -> Conninfo) -> Self {
        Self { conninfo: secure(self.conninfo, self.elected), ..self }
    }

    /// Of a member that has noted what began this timeline ([`divergence::Source::noted`]).
    pub fn noting(self, noted: Noted) -> Self {
        Self { noted, ..self }
    }

    /// Whether `timeline` is the leader's, and noted. Yes where nothing is noted at all.
    pub fn is_noted(&self, timeline: Timeline) -> bool {
        let leaders = self.noted.0.leaders.load(Ordering::Relaxed);
        self.noted.get().is_none_or(|noted| noted == timeline.0 && leaders <= timeline.0)
    }

    /// Until the leader has another timeline.
    pub async fn news(&self) {
        self.noted.0.news.notified().await;
    }

    /// Host and port, for messages.
    pub fn place(&self) -> String {
        self.conninfo.place()
    }

    /// What the walreceiver, pg_basebackup and pg_rewind are to connect with. Holds no password, but the way to it.
    pub fn conninfo(&self) -> Conninfo {
        // Slot synchronisation wants a database (17 and later); the walreceiver ignores it.
        self.conninfo.clone().with_default("dbname", "postgres").with_default("connect_timeout", CONNECT_TIMEOUT)
    }

    /// Who it is and how far.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn identify(&self) -> Result<Identity, Error> {
        // A walsender knows no function, and the setting only since 14.
        let recovery = if self.bindir.major >= 14 { "SHOW in_hot_standby" } else { "SHOW server_version_num" };
        let rows = self.replication(&["IDENTIFY_SYSTEM", "SHOW server_version_num", recovery]).await?;
        let parse = || {
            let [system, version, recovery] = rows.as_slice() else { return None };
            let version: u32 = version.first()?.parse().ok()?;
            Some(Identity {
                system_identifier: system.first()?.parse().ok()?,
                timeline: Timeline(system.get(1)?.parse().ok()?),
                flushed: system.get(2)?.parse().ok()?,
                major: version / 10_000,
                in_recovery: recovery.first()? == "on",
            })
        };
        parse().ok_or_else(|| self.nonsense(&rows))
    }

    /// The past of the timeline that it is on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn history(&self, timeline: Timeline) -> Result<History, Error> {
        if timeline == Timeline(1) {
            return Ok(History::first(timeline));
        }
        // The content has line breaks and tabs; psql's fields end with these two, which it has not.
        let said =
            self.psql(&[("replication", "true")], &["-z", "-0"], &[format!("TIMELINE_HISTORY {timeline}")]).await?;
        let content = said.split('\0').nth(1).unwrap_or_default();
        History::parse(timeline, content).map_err(|e: history::Error| self.nonsense(&e.to_string()))
    }

    /// What [`divergence::judge`] wants to know of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn look(&self) -> Result<(Identity, divergence::Source), Error> {
        let identity = self.identify().await?;
        let source = divergence::Source {
            system_identifier: identity.system_identifier,
            history: self.history(identity.timeline).await?,
            flushed: identity.flushed,
            in_recovery: identity.in_recovery,
            elected: self.elected,
            noted: self.noted.get(),
        };
        Ok((identity, source))
    }

    /// Sees to it that the slot is there and holds WAL. One that has lost its WAL serves nobody any more and is made anew.
    /// With it those of the member's former copies go, in a cluster.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ensure_slot(&self, name: &str) -> Result<Slot, Error> {
        let make = format!("CREATE_REPLICATION_SLOT \"{name}\" PHYSICAL RESERVE_WAL");
        let mut made = self.replication(&[&make]).await;
        match &made {
            Ok(_) => match self.drop_former(name).await {
                Ok(_) => {}
                // Another one has dropped them, or does: nothing depends on it here.
                Err(error) => tracing::info!("replication slots of former copies are left for now: {error}"),
            },
            Err(error) if error.has_code(CONFIGURATION_LIMIT_EXCEEDED) && self.drop_former(name).await? => {
                made = self.replication(&[&make]).await;
            }
            Err(_) => {}
        }
        match made {
            Ok(_) => return Ok(Slot::Made),
            Err(error) if error.has_code(DUPLICATE_OBJECT) => {}
            Err(error) => return Err(error),
        }
        // Who may not ask counts on it being whole; the walreceiver will tell.
        let lost = format!(
            "select wal_status = 'lost' or restart_lsn is null from pg_replication_slots where slot_name = '{name}'"
        );
        if self.sql(&lost).await.is_ok_and(|rows| rows.iter().flatten().any(|v| v == "t")) {
            self.drop_slot(name).await?;
            self.replication(&[&make]).await?;
            return Ok(Slot::Made);
        }
        Ok(Slot::Found)
    }

    /// Whether there were slots of former copies of the member whose slot this is. They keep WAL for nobody, and there may be
    /// so many that no other slot can be made. Only in a cluster a name is one member's.
    async fn drop_former(&self, name: &str) -> Result<bool, Error> {
        let Some((member, _)) = name.rsplit_once('_').filter(|_| self.elected) else { return Ok(false) };
        let query = format!(
            "select slot_name from pg_replication_slots where slot_type = 'physical' and not active
                and slot_name ~ '^{member}_[0-9a-f]{{8}}$' and slot_name <> '{name}'"
        );
        let former: Vec<String> = self.sql(&query).await?.into_iter().flatten().collect();
        for slot in &former {
            tracing::info!("replication slot {slot} at {} is of a former copy of this member: dropped", self.place());
            self.drop_slot(slot).await?;
        }
        Ok(!former.is_empty())
    }

    /// Drops a slot that nobody uses.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn drop_slot(&self, name: &str) -> Result<(), Error> {
        self.replication(&[&format!("DROP_REPLICATION_SLOT \"{name}\"")]).await.map(drop)
    }

    /// Runs one query in a database; rows of fields.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn sql(&self, query: &str) -> Result<Vec<Vec<String>>, Error> {
        let dbname = self.conninfo.get("dbname").unwrap_or("postgres").to_string();
        let said = self.psql(&[("dbname", &dbname)], FIELDS, &[query.into()]).await?;
        Ok(rows(&said))
    }

    /// Runs commands of the replication protocol; the first row of each.
    async fn replication(&self, commands: &[&str]) -> Result<Vec<Vec<String>>, Error> {
        let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
        let said = self.psql(&[("replication", "true")], FIELDS, &commands).await?;
        Ok(rows(&said))
    }

    async fn psql(&self, extra: &[(&str, &str)], form: &[&str], commands: &[String]) -> Result<String, Error> {
        let conninfo = extra.iter().fold(self.conninfo(), |c, (key, value)| c.with(key, value));
        let mut command = Command::new(self.bindir.program("psql"));
        server::clean_environment(&mut command);
        command.args(["-XAtqw", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]).args(form);
        command.arg("-d").arg(conninfo.to_string()).env("LC_ALL", "C").env("PGCLIENTENCODING", "UTF8");
        for text in commands {
            command.arg("-c").arg(text);
        }
        let psql = |why: String| Error::Psql { place: self.place(), why };
        match self.runner.capture(&mut command, TIMEOUT).await {
            Ok(said) if said.exit == Exit::Code(0) => Ok(said.stdout),
            Ok(said) => Err(self.failed(&said.stderr)),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                Err(Error::Connect { place: self.place(), why: e.to_string() })
            }
            Err(e) => Err(psql(e.to_string())),
        }
    }

    /// `psql: error: connection to server at "a" (10.0.0.1), port 5432 failed: FATAL:  …`, or
    /// `ERROR:  42710: replication slot "x" already exists` with a LOCATION below.
    fn failed(&self, stderr: &str) -> Error {
        let place = self.place();
        if let Some(why) = stderr.trim().strip_prefix("psql: error: ") {
            return Error::Connect { place, why: one_line(why) };
        }
        let line = stderr.lines().find(|l| l.contains("ERROR:  ") || l.contains("FATAL:  ")).unwrap_or(stderr.trim());
        let said = line.split_once(":  ").map_or(line, |(_, rest)| rest);
        let (code, why) = said.split_once(": ").filter(|(code, _)| code.len() == 5).unwrap_or(("", said));
        Error::Refused { place, why: why.trim().into(), code: code.into() }
    }

    fn nonsense(&self, what: &impl std::fmt::Debug) -> Error {
        Error::Answer { place: self.place(), what: format!("{what:?}") }
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const DUPLICATE_OBJECT: &str = "42710";
const CONFIGURATION_LIMIT_EXCEEDED: &str = "53400";
const FIELDS: &[&str] = &["-F", "\t"];

fn rows(said: &str) -> Vec<Vec<String>> {
    said.lines().map(|line| line.split('\t').map(String::from).collect()).collect()
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ")
}

/// One line that fits every server: what connects with it goes nowhere else
/// (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).
/// Takes the password away again: whoever connects with it from now on is not let in.
///
/// # Errors
/// When the file cannot be removed.
pub fn forget_password(run_dir: &Path) -> io::Result<()> {
    match fs::remove_file(run_dir.join(PASSFILE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

const PASSFILE: &str = "source.pgpass";

fn write_passfile(run_dir: &Path, password: &Secret) -> io::Result<PathBuf> {
    let path = run_dir.join(PASSFILE);
    let escaped = password.expose().replace('\\', "\\\\").replace(':', "\\:");
    let line = format!("*:*:*:*:{escaped}\n");
    if fs::read_to_string(&path).is_ok_and(|text| text == line) {
        return Ok(path);
    }
    // A new file each time: a walreceiver that reads it now reads one or the other.
    let temporary = run_dir.join("source.pgpass.new");
    let _ = fs::remove_file(&temporary);
    fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary)?.write_all(line.as_bytes())?;
    fs::rename(&temporary, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{logs::Sink, pid1::Children};

    fn source() -> Source {
        let runner = Runner { children: Children::default(), sink: Sink::stdout(crate::logs::Format::Json).unwrap() };
        let bindir = Bindir { path: "/bin".into(), major: 15 };
        Source { conninfo: Conninfo::parse("host=a").unwrap(), elected: false, noted: Noted::default(), bindir, runner }
    }

    #[tokio::test]
    async fn a_new_timeline_of_the_leader_is_news_until_it_is_received_and_noted() {
        let noted = Noted::default();
        let source = source().noting(noted.clone());
        assert!(source.is_noted(Timeline(4)), "outside of a cluster nothing is noted");
        noted.set(Some(4));
        noted.expect(Some(4));
        source.news().await;
        assert!(source.is_noted(Timeline(4)));
        noted.expect(Some(4));
        assert!(tokio::time::timeout(Duration::from_millis(1), source.news()).await.is_err(), "it is no other");
        noted.expect(Some(5));
        source.news().await;
        assert!(!source.is_noted(Timeline(4)) && !source.is_noted(Timeline(5)));
        noted.set(Some(5));
        assert!(source.is_noted(Timeline(5)));
    }

    #[test]
    fn errors_are_told_apart() {
        let error = source().failed(
            "psql: error: connection to server at \"a\" (10.0.0.1), port 5432 failed: Connection refused\n\tIs the server running?\n",
        );
        assert!(
            matches!(&error, Error::Connect { why, .. } if why.ends_with("refused; Is the server running?")),
            "{error}"
        );
        let error = source().failed("ERROR:  42710: replication slot \"x\" already exists\nLOCATION:  f, slot.c:1\n");
        assert!(
            error.has_code(DUPLICATE_OBJECT) && error.to_string().ends_with("slot \"x\" already exists"),
            "{error}"
        );
    }

    #[test]
    fn the_password_is_in_the_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address {
            conninfo: Conninfo::parse("host=a").unwrap(),
            password: Some(Secret::new(r"a:b\c")),
            elected: false,
        };
        let source = source();
        let source = Source::new(&address, dir.path(), &source.bindir, &source.runner).unwrap();
        assert!(!source.conninfo().to_string().contains("a:b"));
        let path = dir.path().join("source.pgpass");
        assert_eq!(fs::read_to_string(&path).unwrap(), "*:*:*:*:a\\:b\\\\c\n");
        assert!(source.conninfo().to_string().contains(path.to_str().unwrap()));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
