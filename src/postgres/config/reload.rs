//! A reload: the user's files are read anew, tried, and used or refused.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::files::UserFiles;
use super::{Installed, Job, Live, Refused, cannot_write, hba, list, parse::Mistake, proven, report::Report, start};
use crate::{
    pid1::Child,
    postgres::sql::{self, Login, PendingRestart, Session},
};

/// A server that accepts connections.
pub struct Running {
    /// The postmaster.
    pub child: Child,
    /// Where its socket is.
    pub socket: Option<(PathBuf, u16)>,
    /// A superuser.
    pub login: Login,
}

/// What came of a reload, in words; none: nothing was new.
pub type Answer = Option<Result<String, String>>;

/// And how things are then; none: as before.
type Reloaded = (Answer, Option<Report>);

/// For all queries of one reload together.
const TIMEOUT: Duration = Duration::from_secs(4);

/// How long the postmaster may take to read its files.
const LOAD_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn reload(
    job: &Job,
    live: &mut Live,
    running: &Running,
    only_changes: bool,
    before: &Report,
) -> Reloaded {
    let layers = &*job.layers;
    if start::disown(job) {
        // Whatever becomes of the files: what ALTER SYSTEM set may be in force already.
        running.child.signal(Signal::SIGHUP);
    }
    let files = match UserFiles::read(layers, &layers.launch.pgdata) {
        Ok(files) => files,
        Err(mistake) => return keep_old(job, live, running, before, &Refused::one(mistake)).await,
    };
    let same = live.installed.as_ref().is_some_and(|i| i.files == files && i.inputs == job.inputs);
    if only_changes && (same || live.rejected == Some(files.fingerprint())) {
        // What was refused and is now as it was before needs no more words.
        let report = (same && before.is_refused()).then(|| before.without_refusal());
        return (None, report);
    }
    if let Err(error) = start::validate(layers, &job.inputs, &files, &job.children).await {
        return keep_old(job, live, running, before, &error).await;
    }
    match install(job, live, running, files, false, before).await {
        Ok((report, text)) => (Some(Ok(text)), Some(report)),
        Err(error) => keep_old(job, live, running, before, &error).await,
    }
}

/// The user's new files are refused. What podgres itself wants of the configuration by now takes effect all the same, with
/// the files that are in use: a standby must not miss its source over somebody's slip of the pen.
async fn keep_old(job: &Job, live: &mut Live, running: &Running, before: &Report, error: &Refused) -> Reloaded {
    let old = live.installed.as_ref().filter(|i| i.inputs != job.inputs).map(|i| i.files.clone());
    if let Some(files) = old
        && let Err(more) = install(job, live, running, files, true, before).await
    {
        tracing::error!("podgres' own settings cannot be put into PostgreSQL's files: {more}");
    }
    refused(before, error)
}

fn refused(before: &Report, error: &Refused) -> Reloaded {
    let text = format!("the changed configuration is refused, the old one stays: {}", list(&error.mistakes));
    // The same mistake again is no news; whoever asks is told all the same.
    if !before.refused.contains(&text) {
        tracing::error!("{text}");
    }
    let report = Some(Report { refused: vec![text.clone()], ..before.clone() });
    (Some(Err(text)), report)
}

/// Puts good files in use; `copied`: as they were when they were read, not as they are now. `pg_hba.conf` can only be tried by the running server, which reads it where it is to be.
async fn install(
    job: &Job,
    live: &mut Live,
    running: &Running,
    files: UserFiles,
    copied: bool,
    before: &Report,
) -> Result<(Report, String), Refused> {
    let layers = &*job.layers;
    let dir = layers.dir();
    let failed = |e: std::io::Error| cannot_write(&dir, &e);
    let defaults = layers.defaults(&files);
    let content = job.inputs.content(&files, &defaults, copied);
    content.write_rules(&dir).map_err(failed)?;
    let mut notes = Vec::new();
    let rejected = !copied && live.rejected == Some(files.fingerprint());
    match wrong_rules(running, &files).await {
        Ok(mistakes) if rejected || !mistakes.is_empty() => {
            if let Some(old) = &live.installed {
                old.inputs.content(&old.files, &old.defaults, true).write_rules(&dir).map_err(failed)?;
            }
            return Err(match mistakes.is_empty() {
                true => Refused::one(Mistake { place: None, text: start::ENDED_EARLY.into() }),
                false => Refused { mistakes, exit: super::EX_CONFIG },
            });
        }
        Ok(_) => {}
        Err(error) => notes.push(format!("pg_hba.conf could not be checked before its use: {error}")),
    }
    content.write_settings(&dir).map_err(failed)?;
    let pending = signal(running).await;
    let installed = Installed { files, inputs: job.inputs.clone(), defaults };
    let report = Report::new(layers, &installed, Vec::new(), before.raised.clone());
    live.installed = Some(installed);
    let in_force = |pending: &Vec<PendingRestart>| pending.iter().all(|p| before.is_raised(p));
    if notes.is_empty() && pending.as_ref().is_some_and(in_force) {
        // As good as a start with it. An older one may let somebody in who is not to be let in any more.
        proven::keep(layers, live);
    }
    notes
        .extend(pending.iter().flatten().filter(|p| !before.is_raised(p)).map(|p| format!("waits for a restart: {p}")));
    let text =
        [vec!["the configuration is accepted, PostgreSQL has reloaded it".to_string()], notes].concat().join("; ");
    tracing::info!("{text}");
    Ok((report, text))
}

async fn session(running: &Running) -> Result<Session, sql::Error> {
    let Some((dir, port)) = &running.socket else { return Err(sql::Error::Refused("it has no socket".into())) };
    Session::open(dir, *port, &running.login, "postgres").await
}

async fn wrong_rules(running: &Running, files: &UserFiles) -> Result<Vec<Mistake>, sql::Error> {
    let asked = async {
        let session = session(running).await?;
        let mistakes = hba::mistakes(&session.client, &files.hba, &files.ident).await;
        session.close().await;
        mistakes
    };
    tokio::time::timeout(TIMEOUT, asked).await.map_err(|_| sql::Error::Timeout)?
}

/// Makes the postmaster read its files, waits until it has, and asks what it cannot change while it runs. None where it
/// cannot be asked.
async fn signal(running: &Running) -> Option<Vec<PendingRestart>> {
    const LOADED: &str = "select pg_catalog.pg_conf_load_time()::text";
    let asked = async {
        // Two sessions: one knows what its postmaster knew when it began.
        let before: String = loaded(running, LOADED).await?;
        running.child.signal(Signal::SIGHUP);
        let begun = Instant::now();
        while loaded(running, LOADED).await? == before && begun.elapsed() < LOAD_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let session = session(running).await?;
        let pending = sql::pending_restart(&session.client).await;
        session.close().await;
        pending
    };
    let pending = tokio::time::timeout(TIMEOUT, asked).await;
    if !matches!(pending, Ok(Ok(_))) {
        running.child.signal(Signal::SIGHUP);
    }
    pending.ok()?.ok()
}

async fn loaded(running: &Running, query: &str) -> Result<String, sql::Error> {
    let session = session(running).await?;
    let time = session.client.query_one(query, &[]).await?.try_get(0)?;
    session.close().await;
    Ok(time)
}
