//! pg_rewind: a directory that has diverged is taken back to where its past and the source's parted, by copying what
//! changed since (<https://www.postgresql.org/docs/current/app-pgrewind.html>).
//!
//! A half-rewound directory looks cleanly shut down and may even start (seen), so a note beside it, on disk before
//! pg_rewind begins, forbids that; it is redone once, and then a clone takes its place. pg_rewind deletes what it does not
//! know in the directory, so where the note can only be inside (a mount point) nothing is rewound.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::source::{self, Source};
use crate::{
    pid1::{Exit, KillOnDrop, Runner},
    postgres::{bindir::Bindir, datadir, replication::clone, server, space, stage, state_dir::StateDir},
    progress::{self, Reporter},
};

/// What a rewind is made with.
#[derive(Clone)]
pub struct Plan {
    /// The data directory, of a server that was shut down in order.
    pub pgdata: PathBuf,
    /// What it is rewound to.
    pub source: Source,
    /// The slot there: from before the rewind on, so that the WAL to become consistent is kept.
    pub slot: String,
    /// The programs.
    pub bindir: Bindir,
    /// Starts them.
    pub runner: Runner,
    /// Where progress is told.
    pub reporter: Reporter,
    /// The configuration file of the server, for its `restore_command` (15 and later).
    pub config_file: Option<PathBuf>,
}

/// Why it was not rewound. Unless it was [`Error::Impossible`] the directory must not be started any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not tried: the directory is as it was.
    #[error("pg_rewind is not possible here: {0}")]
    Impossible(String),
    /// The source.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The source was promoted and has not written a checkpoint since, by which pg_rewind would know.
    #[error("the source at {0} has written no checkpoint on its new timeline within two minutes")]
    NoCheckpoint(String),
    /// pg_rewind failed.
    #[error("pg_rewind {0}; its own lines, before this one, say why")]
    Failed(Exit),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

const NOTE: &str = "rewinding";
const KEPT_WAL: &str = "diverged-wal";
/// How long the checkpoint after a promotion may take on a source; podgres orders one at once.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(120);
/// A source that lets replication in and no SQL, which pg_rewind needs, may be about to start or to stop.
const SQL_TIMEOUT: Duration = Duration::from_secs(15);
/// Diverged WAL is kept if it is at most this many bytes and there is ten times as much room.
const MOST_KEPT: u64 = 1 << 30;

/// How often a rewind of `pgdata` was begun and not finished. More than none: it must not be started.
pub fn unfinished(pgdata: &Path) -> u32 {
    let note = StateDir::of(pgdata).read(NOTE).unwrap_or(Some(Vec::new()));
    note.map_or(0, |text| String::from_utf8_lossy(&text).trim().parse().unwrap_or(u32::MAX))
}

/// Forgets an unfinished rewind, once another directory has taken the place of the one that it was about.
///
/// # Errors
/// When the note cannot be removed.
pub fn forget(pgdata: &Path) -> io::Result<()> {
    StateDir::of(pgdata).remove(NOTE)
}

/// The copy of the WAL that diverged before the last rewind, if there is one.
pub fn kept_wal(pgdata: &Path) -> Option<PathBuf> {
    Some(StateDir::of(pgdata).path().join(KEPT_WAL)).filter(|path| path.exists())
}

/// Rewinds. Given up half-way (dropped), pg_rewind is killed and the note stays.
///
/// # Errors
/// See [`Error`].
pub async fn rewind(plan: &Plan) -> Result<(), Error> {
    if !stage::has_room_beside(&plan.pgdata) {
        return Err(Error::Impossible(format!(
            "{} is a mount point, where no note of it would last",
            plan.pgdata.display()
        )));
    }
    let mut job = plan.reporter.begin("rewind");
    job.step(format!("rewinding: asking {}", plan.source.place()));
    wait_for_checkpoint(plan).await?;
    plan.source.ensure_slot(&plan.slot).await?;
    let pgdata = plan.pgdata.clone();
    clone::in_thread(move || keep_wal(&pgdata)).await;
    let (state, tries) = (StateDir::of(&plan.pgdata), unfinished(&plan.pgdata) + 1);
    let io = |what| move |source| Error::Io { what, source };
    state
        .write(NOTE, tries.to_string().as_bytes())
        .map_err(io("cannot note that the data directory is being rewound"))?;
    job.step(format!("rewinding to {}", plan.source.place()));
    run(plan, &mut job).await?;
    // pg_rewind has written everything else to disk.
    datadir::make_standby(&plan.pgdata).map_err(io("cannot make a standby of the rewound data directory"))?;
    forget(&plan.pgdata).map_err(io("cannot remove the note that the data directory is being rewound"))
}

/// Before 16 pg_rewind takes the source's timeline from its latest checkpoint, which right after a promotion is one of
/// the old timeline: it would see nothing to do.
async fn wait_for_checkpoint(plan: &Plan) -> Result<(), Error> {
    let begun = Instant::now();
    let mut refused_since = None;
    while begun.elapsed() < CHECKPOINT_TIMEOUT {
        let timeline = plan.source.identify().await?.timeline;
        match plan.source.sql("select timeline_id from pg_control_checkpoint()").await {
            Ok(rows) if rows.iter().flatten().any(|t| *t == timeline.to_string()) => return Ok(()),
            Ok(_) => refused_since = None,
            Err(error) if refused_since.get_or_insert_with(Instant::now).elapsed() > SQL_TIMEOUT => {
                return Err(Error::Impossible(format!("the source answers, and lets no SQL in: {error}")));
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::NoCheckpoint(plan.source.place()))
}

async fn run(plan: &Plan, job: &mut progress::Running) -> Result<(), Error> {
    let mut command = Command::new(plan.bindir.program("pg_rewind"));
    server::clean_environment(&mut command);
    command.arg("--target-pgdata").arg(&plan.pgdata).arg("--source-server").arg(plan.source.conninfo().to_string());
    // By itself it would run `postgres --single` with fsync off, which refuses a standby.
    command.args(["--progress", "--no-ensure-shutdown"]);
    if let Some(file) = &plan.config_file {
        command.arg("--restore-target-wal").arg("--config-file").arg(file);
    }
    command.stdin(Stdio::null()).process_group(0).env("LC_MESSAGES", "C");
    let seen = std::rc::Rc::new(std::cell::Cell::new(None));
    let tell = seen.clone();
    let child = plan.runner.spawn_but(&mut command, "pg_rewind", move |line| {
        let progress = std::str::from_utf8(line).ok().and_then(progress::parse_kilobytes);
        tell.set(progress.or(tell.get()));
        progress.is_some()
    });
    let mut child = KillOnDrop(child.map_err(|source| Error::Io { what: "cannot execute pg_rewind", source })?);
    loop {
        tokio::select! {
            exit = child.0.wait() => return if exit == Exit::Code(0) { Ok(()) } else { Err(Error::Failed(exit)) },
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        if let Some((done, total)) = seen.get() {
            job.bytes(done, total);
        }
    }
}

/// Keeps a copy of the WAL, in which everything is that the source never had: whoever misses a transaction finds it
/// there with pg_waldump. Only where there is plenty of room, and only the last.
fn keep_wal(pgdata: &Path) {
    let dir = StateDir::of(pgdata).path().join(KEPT_WAL);
    let wal = pgdata.join("pg_wal");
    let files: Vec<PathBuf> =
        fs::read_dir(&wal).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    let size: u64 = files.iter().filter_map(|f| fs::metadata(f).ok()).map(|m| m.len()).sum();
    if size > MOST_KEPT || space::free_bytes(pgdata).is_none_or(|free| free / 10 < size) {
        tracing::warn!("the diverged WAL is not kept: {} MB are too much for this volume", size >> 20);
        return;
    }
    let copy = || -> io::Result<()> {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        files.iter().try_for_each(|f| fs::copy(f, dir.join(f.file_name().unwrap_or_default())).map(drop))
    };
    match copy() {
        Ok(()) => tracing::info!("the diverged WAL is kept in {}", dir.display()),
        Err(e) => tracing::warn!("the diverged WAL could not be copied to {}: {e}", dir.display()),
    }
}
