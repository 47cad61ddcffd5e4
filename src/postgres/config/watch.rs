//! Sees changes of the user's files, without looking: inotify on the directories that they are in.
//!
//! Directories, because editors and Kubernetes replace files rather than write into them: a mounted ConfigMap changes by
//! the renaming of one symbolic link, `..data`.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::io::unix::AsyncFd;

use super::{Layers, files::UserFiles};

/// After a change is seen: editors and Kubernetes change several files at once.
const REST: Duration = Duration::from_millis(100);

/// Calls `changed` whenever one of the user's files may have changed. Returns only where there is no inotify.
pub async fn watch(layers: Layers, changed: impl AsyncFn()) {
    if let Err(error) = follow(&layers, changed).await {
        tracing::warn!("changed files are not noticed by themselves, reload podgres after a change: inotify: {error}");
    }
}

async fn follow(layers: &Layers, changed: impl AsyncFn()) -> std::io::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    #[allow(deprecated, reason = "its successor is unsafe; an OwnedFd is nobody else's to close")]
    let descriptor = AsyncFd::new(inotify.as_fd().try_clone_to_owned()?)?;
    let mut watched = BTreeMap::new();
    rewatch(&inotify, layers, &mut watched);
    loop {
        let mut ready = descriptor.readable().await?;
        let interesting = read(&inotify, layers, &watched)?;
        // All has been read: what comes from here on makes it readable again.
        ready.clear_ready();
        if interesting {
            tokio::time::sleep(REST).await;
            // Before the files are read: what changes from then on must be noticed.
            rewatch(&inotify, layers, &mut watched);
            read(&inotify, layers, &watched)?;
            changed().await;
        }
    }
}

type Watched = BTreeMap<PathBuf, WatchDescriptor>;

/// Watches the directories in which the files are now, which symbolic links can change; and the one that the data
/// directory is in, as the data directory comes into being, and is replaced, by a renaming.
fn rewatch(inotify: &Inotify, layers: &Layers, watched: &mut Watched) {
    let mut wanted = directories(layers);
    wanted.extend(layers.launch.pgdata.parent().map(Path::to_path_buf));
    watched.retain(|dir, descriptor| {
        let keep = wanted.contains(dir);
        if !keep {
            let _ = inotify.rm_watch(*descriptor);
        }
        keep
    });
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_ONLYDIR;
    for dir in wanted {
        // Again each time: a directory of the same name may be another one by now.
        match inotify.add_watch(&dir, flags) {
            Ok(descriptor) => drop(watched.insert(dir, descriptor)),
            Err(_) => drop(watched.remove(&dir)),
        }
    }
}

fn directories(layers: &Layers) -> BTreeSet<PathBuf> {
    let mut dirs: BTreeSet<PathBuf> = [layers.config_dir.clone(), layers.launch.pgdata.clone()].into();
    let own = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "podgres.toml"];
    let mut paths: Vec<PathBuf> = own.iter().map(|name| layers.config_dir.join(name)).collect();
    if let Ok(files) = UserFiles::read(layers, &layers.launch.pgdata) {
        paths.extend(files.paths());
    }
    paths.extend(layers.watched.iter().cloned());
    for path in paths {
        dirs.extend(path.parent().map(Path::to_path_buf));
        dirs.extend(path.canonicalize().ok().and_then(|p| Some(p.parent()?.to_path_buf())));
    }
    dirs
}

/// Takes what has been noticed; whether it may concern the user's files.
fn read(inotify: &Inotify, layers: &Layers, watched: &Watched) -> std::io::Result<bool> {
    let pgdata = &layers.launch.pgdata;
    let mut interesting = false;
    loop {
        let events = match inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN) => return Ok(interesting),
            Err(error) => return Err(error.into()),
        };
        interesting |= events.iter().any(|e| {
            let name = e.name.as_deref().unwrap_or_default();
            let within = |dir: &Path| watched.get(dir) == Some(&e.wd);
            if within(pgdata) {
                // PostgreSQL's own files come and go here.
                name.to_string_lossy().ends_with(".conf")
            } else if pgdata.parent().is_some_and(within) {
                pgdata.file_name() == Some(name) || name.to_string_lossy().ends_with(".conf")
            } else {
                true
            }
        });
    }
}
