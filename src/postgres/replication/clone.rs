//! A copy of the source: pg_basebackup into a stage, verified, then exchanged for what was there.
//!
//! The slot is made before the copy begins, so that the source keeps the WAL from there on until the copy streams. What
//! was there before stays whole until the copy is, and is kept after that while there is room.

use std::{
    cell::Cell,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    rc::Rc,
};

use super::{
    divergence::Refusal,
    source::{self, Source},
};
use crate::{
    pid1::{Exit, KillOnDrop, Runner},
    postgres::{
        bindir::Bindir,
        datadir,
        lock::DirLock,
        server, space,
        stage::{self, PublishError, Stage, outside::Outside},
    },
    progress::{self, Reporter, Running},
};

/// What a clone is made with.
#[derive(Clone)]
pub struct Plan {
    /// The data directory to be made, or replaced. It exists and its lock is held.
    pub pgdata: PathBuf,
    /// Where the WAL goes if not into it.
    pub waldir: Option<PathBuf>,
    /// The slot on the source.
    pub slot: String,
    /// What is copied.
    pub source: Source,
    /// The cluster that the source must be, if that is known.
    pub system_identifier: Option<u64>,
    /// The programs.
    pub bindir: Bindir,
    /// Starts them.
    pub runner: Runner,
    /// Where progress is told.
    pub reporter: Reporter,
}

/// Why there is no clone. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// It is another PostgreSQL.
    #[error(
        "the source is PostgreSQL {theirs} and this is PostgreSQL {ours}: a copy of its files is of no use here. Run an \
         image of PostgreSQL {theirs}"
    )]
    OtherMajor {
        /// The major version here.
        ours: u32,
        /// The source's.
        theirs: u32,
    },
    /// It is another cluster.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The volume is too small.
    #[error(
        "the clone needs {} MB and {} has {} MB free: enlarge the volume, or make room on it", needed >> 20, dir.display(), free >> 20
    )]
    NoSpace {
        /// Where it would go.
        dir: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A program failed.
    #[error("{program} {exit}{hint}; its own lines, before this one, say why")]
    Program {
        /// Which one.
        program: &'static str,
        /// How it ended.
        exit: Exit,
        /// What else may explain it.
        hint: String,
    },
    /// The copy could not be put into place.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether trying again cannot help: somebody has to change something first.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::OtherMajor { .. } | Self::Refused(_))
    }
}

fn trying(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// Makes the clone. Returns the lock on what then has the data directory's name, if that is another inode than before.
/// Given up half-way (dropped), its programs are killed; the stage is removed by the next try.
///
/// # Errors
/// See [`Error`].
pub async fn clone(plan: &Plan) -> Result<Option<DirLock>, Error> {
    let mut job = plan.reporter.begin("clone");
    job.step(format!("cloning: asking {}", plan.source.place()));
    check(plan).await?;
    plan.source.ensure_slot(&plan.slot).await?;
    // Of an earlier try of this manager; what an earlier manager left was cleared away when it started.
    let (pgdata, before) = (plan.pgdata.clone(), inode(&plan.pgdata));
    let left = in_thread(move || stage::recover(&pgdata)).await;
    if left.map_err(trying("cannot finish or remove an earlier clone"))? == stage::Leftover::Finished {
        // Complete, and only its way into place was cut short, by a full disk say.
        let exchanged = inode(&plan.pgdata) != before;
        return if exchanged { Ok(DirLock::acquire(&plan.pgdata).map_err(PublishError::from)?) } else { Ok(None) };
    }
    let stage = Stage::begin(&plan.pgdata)
        .map_err(trying(format!("cannot make a directory for the clone in or beside {}", plan.pgdata.display())))?;
    match build(plan, &stage, &mut job).await {
        Ok(()) => {
            job.step("cloning: moving the copy into place");
            in_thread(move || stage.publish()).await.map_err(Into::into)
        }
        Err(error) => {
            if let Err(e) = in_thread(move || stage.discard()).await {
                tracing::warn!("the unfinished clone could not be removed, the next try will: {e}");
            }
            Err(error)
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|m| m.ino())
}

async fn check(plan: &Plan) -> Result<(), Error> {
    let identity = plan.source.identify().await?;
    if identity.major != plan.bindir.major {
        return Err(Error::OtherMajor { ours: plan.bindir.major, theirs: identity.major });
    }
    match plan.system_identifier {
        Some(ours) if ours != identity.system_identifier => {
            Err(Refusal::OtherCluster { ours, theirs: identity.system_identifier }.into())
        }
        _ => Ok(()),
    }
}

async fn build(plan: &Plan, stage: &Stage, job: &mut Running) -> Result<(), Error> {
    let elsewhere = Elsewhere::of(plan).await;
    let made = elsewhere.directories().map(|d| Outside::Removed(d.clone())).collect::<Vec<_>>();
    stage.note(&made).map_err(trying("cannot write into the data directory's volume"))?;
    job.step(format!("cloning: copying from {} over slot {}", plan.source.place(), plan.slot));
    copy(plan, stage, &elsewhere, job).await?;
    job.step("cloning: verifying the copy against its manifest");
    verify(plan, &stage.data()).await?;
    become_standby(&stage.data()).map_err(trying("cannot make a standby of the copy"))
}

/// Directories that the copy has outside of itself. Each is new, in the one that was meant: what is being replaced may
/// still use that.
struct Elsewhere {
    waldir: Option<PathBuf>,
    /// Of the source, and here.
    tablespaces: Vec<(String, PathBuf)>,
}

impl Elsewhere {
    async fn of(plan: &Plan) -> Self {
        let name = format!("podgres_{:016x}", random());
        let query = "select pg_tablespace_location(oid) from pg_tablespace where pg_tablespace_location(oid) <> ''";
        // A source that does not let us ask: pg_basebackup uses the same paths as there, if they are free.
        let rows = plan.source.sql(query).await.unwrap_or_default();
        let here = |path: String| {
            let new = Path::new(&path).join(&name);
            (path, new)
        };
        let tablespaces = rows.into_iter().flatten().filter(|p| p.starts_with('/')).map(here).collect();
        Self { waldir: plan.waldir.as_ref().map(|dir| dir.join(&name)), tablespaces }
    }

    fn directories(&self) -> impl Iterator<Item = &PathBuf> {
        self.tablespaces.iter().map(|(_, new)| new).chain(&self.waldir)
    }
}

/// Not guessable is not asked for, only not repeated.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

async fn copy(plan: &Plan, stage: &Stage, elsewhere: &Elsewhere, job: &mut Running) -> Result<(), Error> {
    let mut command = Command::new(plan.bindir.program("pg_basebackup"));
    server::clean_environment(&mut command);
    command.arg("--pgdata").arg(stage.data()).arg("--dbname").arg(plan.source.conninfo().to_string());
    command.args(["--slot", &plan.slot, "--wal-method=stream", "--checkpoint=fast"]);
    command.args(["--progress", "--no-password", "--label=podgres clone"]);
    if let Some(dir) = &elsewhere.waldir {
        command.arg("--waldir").arg(dir);
    }
    for (old, new) in &elsewhere.tablespaces {
        let escaped = |path: &str| path.replace('=', "\\=");
        let mapping = format!("--tablespace-mapping={}={}", escaped(old), escaped(&new.to_string_lossy()));
        command.arg(mapping);
    }
    // Its lines are its own, in English so that the progress can be read.
    command.stdin(Stdio::null()).process_group(0).env("LC_MESSAGES", "C");
    let seen: Rc<Cell<Option<(u64, u64)>>> = Rc::default();
    let tell = seen.clone();
    let child = plan.runner.spawn_but(&mut command, "pg_basebackup", move |line| {
        let progress = std::str::from_utf8(line).ok().and_then(progress::parse_kilobytes);
        tell.set(progress.or(tell.get()));
        progress.is_some()
    });
    let mut child = KillOnDrop(child.map_err(trying("cannot execute pg_basebackup"))?);
    let mut room = Room::begin(plan);
    loop {
        tokio::select! {
            exit = child.0.wait() => {
                // A small volume is full before the first look.
                if let (true, Some((_, total))) = (exit != Exit::Code(0), seen.get()) {
                    room.check(total).await?;
                }
                return succeed("pg_basebackup", exit, &plan.pgdata);
            }
            () = tokio::time::sleep(POLL) => {}
        }
        if let Some((done, total)) = seen.get() {
            job.bytes(done, total);
            room.check(total).await?;
        }
    }
}

/// How often the progress, which comes once a second, is looked at.
const POLL: std::time::Duration = std::time::Duration::from_millis(500);

fn succeed(program: &'static str, exit: Exit, pgdata: &Path) -> Result<(), Error> {
    if exit == Exit::Code(0) { Ok(()) } else { Err(Error::Program { program, exit, hint: space::hint(pgdata) }) }
}

/// The WAL that is streamed during the copy is not in the count: two segments of the usual 16 MB, however short it is.
const LEAST_WAL: u64 = 32 << 20;

/// Whether the volume is large enough, which is better known before it is full.
struct Room<'a> {
    plan: &'a Plan,
    /// Free when the copy began; none once that was checked.
    free: Option<u64>,
}

impl<'a> Room<'a> {
    fn begin(plan: &'a Plan) -> Self {
        Self { plan, free: space::free_bytes(&plan.pgdata) }
    }

    /// `copied`: bytes that are to be copied in all.
    async fn check(&mut self, copied: u64) -> Result<(), Error> {
        let Some(free) = self.free.take() else { return Ok(()) };
        let needed = if self.plan.waldir.is_none() { copied + LEAST_WAL } else { copied };
        if needed <= free {
            return Ok(());
        }
        if let Some(old) = stage::kept(&self.plan.pgdata) {
            tracing::warn!("the data directory that was kept as {} makes room for the new clone", old.display());
            let pgdata = self.plan.pgdata.clone();
            in_thread(move || stage::discard_kept(&pgdata)).await.map_err(trying("cannot remove it"))?;
            let free = space::free_bytes(&self.plan.pgdata).unwrap_or(u64::MAX);
            if needed <= free {
                return Ok(());
            }
        }
        Err(Error::NoSpace { dir: self.plan.pgdata.clone(), needed, free })
    }
}

/// Complete means that every file of the manifest is there with its checksum, and the WAL to become consistent can be
/// read (<https://www.postgresql.org/docs/current/app-pgverifybackup.html>).
async fn verify(plan: &Plan, data: &Path) -> Result<(), Error> {
    let mut command = Command::new(plan.bindir.program("pg_verifybackup"));
    server::clean_environment(&mut command);
    command.arg("--quiet").arg("--exit-on-error").arg(data).stdin(Stdio::null()).process_group(0);
    let child = plan.runner.spawn(&mut command, "pg_verifybackup").map_err(trying("cannot execute pg_verifybackup"))?;
    let mut child = KillOnDrop(child);
    succeed("pg_verifybackup", child.0.wait().await, &plan.pgdata)
}

/// What came from the source and is not this member's goes; what makes a standby comes. pg_basebackup has written
/// everything else to disk.
fn become_standby(data: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".podgres") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    datadir::make_standby(data)
}

/// For what may take long on a large directory, so that the loop goes on.
pub async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || tell.send(work()));
    match told.await {
        Ok(done) => done,
        // The thread panicked; the panic hook has ordered the stop of everything.
        Err(_) => std::future::pending().await,
    }
}
