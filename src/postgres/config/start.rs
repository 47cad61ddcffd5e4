//! What comes before a start.

use std::path::Path;

use super::{
    Inputs, Installed, Job, Layers, Live, Refused, arguments, cannot_write, check, files, list, parse, proven,
    report::Report, standby, synchronous,
};
use crate::{
    pid1::{Children, Exit},
    postgres::server::{self, Launch},
};
use files::UserFiles;
use parse::Mistake;

/// A configuration to start with.
#[derive(Debug)]
pub struct Started {
    /// All of PostgreSQL's arguments but those about its log.
    pub arguments: Vec<String>,
    /// Whether no server ever became ready with it, and there is another with which one did.
    pub unproven: bool,
}

pub(super) async fn prepare(job: &Job, live: &mut Live) -> Result<(Started, Report), Refused> {
    let layers = &*job.layers;
    let Choice { files, fallback, refused } = choose(job, live).await?;
    let unproven = proven::get(layers, live).is_some_and(|p| *p != files);
    for problem in &refused {
        tracing::error!("{problem}");
    }
    disown(job);
    let defaults = layers.defaults(&files);
    let content = job.inputs.content(&files, &defaults, fallback);
    let dir = layers.dir();
    let written = content.write_settings(&dir).and_then(|()| content.write_rules(&dir));
    written.map_err(|e| cannot_write(&dir, &e))?;
    let mut arguments = arguments(&layers.arguments.rest, &dir);
    let raised = raise(job, live, &mut arguments).await;
    let installed = Installed { files, inputs: job.inputs.clone(), defaults };
    let report = Report::new(layers, &installed, refused, raised);
    live.installed = Some(installed);
    Ok((Started { arguments, unproven }, report))
}

/// What is wrong with a configuration that only a start finds wrong.
pub(super) const ENDED_EARLY: &str = "PostgreSQL ended before it was ready with it; its own lines in the log say why";

struct Choice {
    files: UserFiles,
    /// Whether these are the last that worked, in place of the user's present ones.
    fallback: bool,
    refused: Vec<String>,
}

/// The user's files if they are good, else the last that worked.
async fn choose(job: &Job, live: &mut Live) -> Result<Choice, Refused> {
    let layers = &*job.layers;
    let rejected = live.rejected;
    let proven = proven::get(layers, live).cloned();
    let refused = match UserFiles::read(layers, &layers.launch.pgdata) {
        // What worked before the cluster was a synchronous one may be no good any more.
        Ok(files) if proven.as_ref() == Some(&files) && refuse_losses(layers, &files).is_ok() => {
            return Ok(Choice { files, fallback: false, refused: Vec::new() });
        }
        Ok(files) if rejected == Some(files.fingerprint()) => {
            let changes = proven.as_ref().map(|p| files.changes_from(p).join(", ")).unwrap_or_default();
            Refused::one(Mistake { place: None, text: format!("{ENDED_EARLY}; what is new in it: {changes}") })
        }
        Ok(files) => match validate(layers, &job.inputs, &files, &job.children).await {
            Ok(()) => return Ok(Choice { files, fallback: false, refused: Vec::new() }),
            Err(refused) => refused,
        },
        Err(mistake) => Refused::one(mistake),
    };
    // What was accepted while the server ran is newer than what it was started with.
    let accepted = live.installed.as_ref().map(|i| i.files.clone()).filter(|f| rejected != Some(f.fingerprint()));
    match accepted.or(proven).filter(|files| refuse_losses(layers, files).is_ok()) {
        Some(files) => {
            let refused = vec![format!(
                "the configuration is refused, PostgreSQL is started with the last one that was good: {}",
                list(&refused.mistakes)
            )];
            Ok(Choice { files, fallback: true, refused })
        }
        None => Err(refused),
    }
}

/// Tries a configuration, in a directory of its own.
pub(super) async fn validate(
    layers: &Layers,
    inputs: &Inputs,
    files: &UserFiles,
    children: &Children,
) -> Result<(), Refused> {
    refuse_losses(layers, files)?;
    let dir = layers.candidate_dir();
    let defaults = layers.defaults(files);
    inputs.content(files, &defaults, false).write_settings(&dir).map_err(|e| cannot_write(&dir, &e))?;
    let said = ask(layers, &dir, &[], "port", children).await;
    let result = match said {
        Ok(said) if said.exit == Exit::Code(0) => Ok(()),
        Ok(said) => {
            let auto_conf = parse::read_text(&layers.launch.pgdata.join("postgresql.auto.conf")).unwrap_or_default();
            let arguments = arguments::settings(&layers.arguments.rest);
            let mistakes = check::mistakes(&said.stderr, &check::Sources { files, dir: &dir, auto_conf, arguments });
            Err(Refused::by_postgres(mistakes, said.exit))
        }
        // No verdict is no mistake: PostgreSQL itself has the last word.
        Err(error) => {
            tracing::warn!("the configuration could not be checked before its use: postgres -C: {error}");
            Ok(())
        }
    };
    let _ = std::fs::remove_dir_all(&dir);
    result
}

/// What a synchronous cluster does not bear.
fn refuse_losses(layers: &Layers, files: &UserFiles) -> Result<(), Refused> {
    let mistakes = if layers.synchronous { synchronous::mistakes(files, &layers.arguments.rest) } else { Vec::new() };
    if mistakes.is_empty() { Ok(()) } else { Err(Refused { mistakes, exit: super::EX_CONFIG }) }
}

/// `postgres -C name` with the configuration in `dir`.
async fn ask(
    layers: &Layers,
    dir: &Path,
    more: &[String],
    name: &str,
    children: &Children,
) -> std::io::Result<check::Said> {
    // Before initdb any directory will do.
    let there = layers.launch.pgdata.join("PG_VERSION").exists();
    let pgdata = if there { layers.launch.pgdata.clone() } else { dir.to_path_buf() };
    let mut command = server::command(&Launch { pgdata, ..layers.launch.clone() });
    command.args(&layers.arguments.rest).args(more).args(check::READABLE);
    command.arg("-c").arg(format!("config_file={}", dir.join("postgresql.conf").display()));
    command.args(["-C", name]);
    check::run(&mut command, children).await
}

/// The user's arguments, and those that lead PostgreSQL to the files in `dir`.
pub(super) fn arguments(user: &[String], dir: &Path) -> Vec<String> {
    let mut arguments = user.to_vec();
    for (name, file) in
        [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")]
    {
        arguments.extend(["-c".into(), format!("{name}={}", dir.join(file).display())]);
    }
    arguments
}

/// Takes what podgres owns out of `postgresql.auto.conf`. Returns whether there was anything to take.
pub(super) fn disown(job: &Job) -> bool {
    let mut names = job.inputs.owned_names();
    if job.layers.synchronous {
        let auto_conf = parse::read_text(&job.layers.launch.pgdata.join("postgresql.auto.conf")).unwrap_or_default();
        names.extend(synchronous::set_by_alter_system(&auto_conf));
    }
    if names.is_empty() {
        return false;
    }
    match files::take_from_auto_conf(&job.layers.launch.pgdata, &names) {
        Ok(taken) if taken.is_empty() => false,
        Ok(taken) => {
            tracing::warn!(
                "removed from postgresql.auto.conf, where ALTER SYSTEM put them, since they are podgres' to set: {}",
                taken.join(", ")
            );
            true
        }
        Err(error) => {
            tracing::warn!("cannot look for settings of podgres' in postgresql.auto.conf: {error}");
            false
        }
    }
}

/// Gives a standby at least what `pg_control` demands: with less PostgreSQL would not start.
async fn raise(job: &Job, live: &mut Live, arguments: &mut Vec<String>) -> Vec<standby::Raise> {
    let (layers, launch) = (&*job.layers, &job.layers.launch);
    live.sensitive.clear();
    if !standby::is_standby(&launch.pgdata) {
        return Vec::new();
    }
    let demanded = standby::demands(&launch.bindir, &launch.pgdata, &job.children).await;
    for (name, _) in &demanded {
        let said = ask(layers, &layers.dir(), &[], name, &job.children).await;
        let value = said.ok().and_then(|s| s.stdout.trim().parse().ok());
        live.sensitive.extend(value.map(|v: i64| (*name, v)));
    }
    let raises = standby::too_small(&live.sensitive, &demanded);
    for raise in &raises {
        tracing::warn!("{raise}: started with {}", raise.primary);
        arguments.extend(["-c".into(), format!("{}={}", raise.name, raise.primary)]);
        live.sensitive.iter_mut().filter(|(n, _)| *n == raise.name).for_each(|(_, v)| *v = raise.primary);
    }
    raises
}
