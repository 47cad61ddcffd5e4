//! `podgres check`: whether `run` would work, found out without changing anything. One line each; exit 0 or 78.

mod kubernetes;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use super::{EX_CONFIG, environment, run};
use crate::{
    pid1::Children,
    postgres::{
        bindir::Bindir,
        datadir::{self, Content},
        initialise::{self, Plan},
        server::Launch,
    },
    run_dir,
    settings::{Flags, Settings, tls::Tls},
    shm, tls,
};

/// Less than this is too little for a new data directory with its first WAL segments.
const LITTLE_SPACE: u64 = 128 << 20;

enum Verdict {
    Good(String),
    Doubtful(String),
    Bad(String),
}

use Verdict::{Bad, Doubtful, Good};

#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn main(flags: &Flags) -> ExitCode {
    let verdicts = examine(flags);
    for (what, verdict) in &verdicts {
        match verdict {
            Good(text) => println!("ok    {what}: {text}"),
            Doubtful(text) => println!("warn  {what}: {text}"),
            Bad(text) => println!("FAIL  {what}: {text}"),
        }
    }
    let bad = verdicts.iter().any(|(_, v)| matches!(v, Bad(_)));
    ExitCode::from(if bad { EX_CONFIG } else { 0 })
}

type Verdicts = Vec<(&'static str, Verdict)>;

fn examine(flags: &Flags) -> Verdicts {
    let settings = match Settings::load(flags, &environment()) {
        Ok(settings) => settings,
        Err(error) => return vec![("settings", Bad(error.to_string()))],
    };
    let mut verdicts = vec![("settings", Good("understood".into())), ("user", user())];
    match programs(&settings) {
        Ok(bindir) => {
            verdicts.push(("programs", Good(format!("PostgreSQL {} in {}", bindir.major, bindir.path.display()))));
            let (content, verdict) = data_directory(&settings, bindir);
            verdicts.push(("data directory", verdict));
            verdicts.push(("free space", free_space(&content)));
        }
        Err(error) => verdicts.push(("programs", Bad(error))),
    }
    verdicts.push(("run-dir", writable_run_dir(settings.run_dir.as_deref())));
    verdicts.push(("/dev/shm", shm::warning().map_or(Good("large enough".into()), Doubtful)));
    verdicts.extend(settings.tls.as_ref().map(|tls| ("tls-dir", certificate(tls))));
    if let Some(settings) = &settings.kubernetes {
        verdicts.extend(kubernetes::examine(settings));
    }
    verdicts
}

fn certificate(settings: &Tls) -> Verdict {
    match tls::check(settings) {
        Ok(expires) => match tls::complaint(expires, SystemTime::now()) {
            Some(complaint) => Doubtful(complaint),
            None => Good(format!("a certificate that is good until {}", tls::day(expires))),
        },
        Err(error) => Bad(error.to_string()),
    }
}

fn user() -> Verdict {
    match nix::unistd::geteuid() {
        uid if uid.is_root() => {
            Bad("uid 0: PostgreSQL refuses to run as root; run the container as another user".into())
        }
        uid => Good(format!("uid {uid}")),
    }
}

fn programs(settings: &Settings) -> Result<Bindir, String> {
    let path = run::locate_programs(settings).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let children = Children::default();
    runtime.block_on(async {
        let reaper = async {
            // A single child, alone in this process: looking now and then does.
            loop {
                children.reap();
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            found = Bindir::identify(path, &children) => found.map_err(|e| e.to_string()),
            () = reaper => Err("unreachable".into()),
        }
    })
}

/// The verdict, and the directory whose free space counts.
fn data_directory(settings: &Settings, bindir: Bindir) -> (PathBuf, Verdict) {
    let configured = settings.official.pgdata.clone().unwrap_or_else(|| run::DEFAULT_PGDATA.into());
    let pgdata = datadir::locate(&configured, bindir.major);
    let major = bindir.major;
    let verdict = match datadir::check_owner(&pgdata).and_then(|()| datadir::inspect(&pgdata, major)) {
        Err(error) => Bad(error.to_string()),
        Ok(Content::Cluster { backup_label: true }) => {
            Doubtful(format!("{} holds a base backup (backup_label)", pgdata.display()))
        }
        Ok(Content::Cluster { backup_label: false }) => Good(format!("{} is initialised", pgdata.display())),
        Ok(Content::Empty) => {
            let launch = Launch { bindir, pgdata: pgdata.clone(), arguments: Vec::new(), run_dir: PathBuf::new() };
            let official = settings.official.clone();
            let config_dir = settings.config_dir.clone();
            let (scripts_dir, synchronous) = (initialise::SCRIPTS_DIR.into(), settings.is_synchronous());
            let plan = Plan { launch, official, scripts_dir, config_dir, synchronous };
            let (checked, fate) = match (&settings.standby_of, &settings.kubernetes) {
                (Some(_), _) => (Ok(()), "cloned"),
                // Any member may be the first.
                (None, Some(_)) => (plan.check(), "initialised, or cloned from the primary"),
                (None, None) => (plan.check(), "initialised"),
            };
            match (checked, can_make(&pgdata)) {
                (Err(error), _) => Bad(error.to_string()),
                (_, false) => Bad(format!(
                    "{} cannot be made as uid {}: give the volume to that uid (chown)",
                    pgdata.display(),
                    nix::unistd::geteuid()
                )),
                _ => Good(format!("{} is empty and will be {fate}", pgdata.display())),
            }
        }
    };
    (pgdata, verdict)
}

/// The nearest directory above (or at) `path` that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

fn can_make(path: &Path) -> bool {
    nix::unistd::access(existing(path), nix::unistd::AccessFlags::W_OK).is_ok()
}

fn free_space(pgdata: &Path) -> Verdict {
    match nix::sys::statvfs::statvfs(existing(pgdata)) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let text = format!("{} MB on the volume of {}", free >> 20, pgdata.display());
            if free < LITTLE_SPACE {
                Bad(format!("only {text}: make room before PostgreSQL stops"))
            } else {
                Good(text)
            }
        }
        Err(e) => Doubtful(format!("unknown: {e}")),
    }
}

fn writable_run_dir(named: Option<&Path>) -> Verdict {
    let dirs = named.map_or_else(|| run_dir::candidates().to_vec(), |dir| vec![dir.to_path_buf()]);
    match dirs.iter().find(|dir| can_make(dir)) {
        Some(dir) => Good(dir.display().to_string()),
        None => {
            let tried: Vec<_> = dirs.iter().map(|d| d.display().to_string()).collect();
            Bad(format!("none of {} can be written: mount a tmpfs at one of them or set run-dir", tried.join(", ")))
        }
    }
}
