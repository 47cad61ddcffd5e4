//! What is in a data directory, found out without changing anything.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What a path that is to be a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// No such directory, or nothing in it that anybody would miss (`lost+found`, hidden files).
    Empty,
    /// A data directory of this major version, whole as far as one can see.
    Cluster {
        /// A `backup_label` is there: a base backup that was never started.
        backup_label: bool,
    },
}

/// Why a path cannot be used as a data directory. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another major version.
    #[error(
        "the data directory {path} was made by PostgreSQL {found}, and this is PostgreSQL {ours}: their files are not \
         compatible. Run an image of PostgreSQL {found}, or convert the data with pg_upgrade or dump and restore. \
         Nothing was changed"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// What `PG_VERSION` says.
        found: String,
        /// The major version of the programs.
        ours: u32,
    },
    /// Files, but no data directory.
    #[error(
        "{path} is not empty ({examples}) and is no data directory: PG_VERSION is missing. Mount the right volume, \
         or point PGDATA at an empty directory below it, such as {path}/pgdata. Nothing was changed"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Some of the names found.
        examples: String,
    },
    /// `PG_VERSION` without `global/pg_control`.
    #[error(
        "the data directory {path} is damaged: global/pg_control is missing{}. Restore the file or the whole \
         directory from a backup, or empty the directory to begin anew. Nothing was changed",
        if *.backup_label { " (and a backup_label is there: an interrupted pg_basebackup leaves this behind)" } else { "" }
    )]
    NoControl {
        /// The directory.
        path: PathBuf,
        /// Whether `backup_label` is there.
        backup_label: bool,
    },
    /// Somebody else's.
    #[error(
        "{path} belongs to uid {owner}, and this runs as uid {us}: PostgreSQL wants to own its data directory. \
         Run the container with --user {owner}, or give the files away: chown -R {us} {path}. Nothing was changed"
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who runs this.
        us: u32,
    },
    /// Not a directory.
    #[error("PGDATA {0} is not a directory")]
    NotADirectory(PathBuf),
    /// The system refused to look.
    #[error("cannot look into the data directory {0} as uid {us}: {1}", us = nix::unistd::geteuid())]
    Io(PathBuf, #[source] io::Error),
}

/// Looks at `path` with the eyes of PostgreSQL `major`.
///
/// # Errors
/// Whatever would make a start fail or do harm, with the cure.
pub fn inspect(path: &Path, major: u32) -> Result<Content, Error> {
    let failed = |e: io::Error| Error::Io(path.to_path_buf(), e);
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(Error::NotADirectory(path.to_path_buf())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Content::Empty),
        Err(e) => return Err(failed(e)),
    }
    let names = names(path).map_err(failed)?;
    match fs::read_to_string(path.join("PG_VERSION")) {
        Ok(version) => cluster(path, version.trim(), major),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        Err(_) if names.is_empty() => Ok(Content::Empty),
        Err(_) => Err(Error::Foreign { path: path.to_path_buf(), examples: examples(&names) }),
    }
}

/// Whether `path`, if it exists, is ours, as PostgreSQL insists. To be asked before anything else: of somebody else's
/// directory not even the contents can be seen, and behind one that is closed to us not even whether it exists.
///
/// # Errors
/// [`Error::Owner`].
pub fn check_owner(path: &Path) -> Result<(), Error> {
    let us = nix::unistd::geteuid().as_raw();
    let (path, meta) = match fs::metadata(path) {
        Ok(meta) => (path, meta),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let seen = path.ancestors().skip(1).find_map(|p| Some((p, fs::metadata(p).ok()?)));
            let Some(closed) = seen else { return Ok(()) };
            closed
        }
        Err(_) => return Ok(()),
    };
    if meta.uid() == us { Ok(()) } else { Err(Error::Owner { path: path.to_path_buf(), owner: meta.uid(), us }) }
}

fn cluster(path: &Path, version: &str, major: u32) -> Result<Content, Error> {
    let path = path.to_path_buf();
    if version != major.to_string() {
        return Err(Error::Version { path, found: version.to_string(), ours: major });
    }
    let backup_label = path.join("backup_label").exists();
    match path.join("global/pg_control").metadata() {
        Ok(control) if control.len() > 0 => Ok(Content::Cluster { backup_label }),
        _ => Err(Error::NoControl { path, backup_label }),
    }
}

/// The names in `path`, without those that an empty volume may have: `lost+found` of a fresh file system, and hidden
/// ones such as `.snapshot` or `.gitkeep`.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let all = fs::read_dir(path)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
    let mut names = all.collect::<io::Result<Vec<String>>>()?;
    names.retain(|n| n != "lost+found" && !n.starts_with('.'));
    names.sort();
    Ok(names)
}

fn examples(names: &[String]) -> String {
    let shown = names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 3 { format!("{shown}, …") } else { shown }
}

/// Whether something is mounted at `path`. A bind mount has the device number of its surroundings; only the list of mounts
/// tells.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|l| l.split(' ').nth(4).is_some_and(|m| Path::new(m) == path))
}

/// Makes the names in a directory durable.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Makes a standby of a data directory, durably: PostgreSQL starts in recovery and stays there
/// (<https://www.postgresql.org/docs/current/warm-standby.html#FILE-STANDBY-SIGNAL>).
///
/// # Errors
/// When the file cannot be written.
pub fn make_standby(path: &Path) -> io::Result<()> {
    fs::File::create(path.join("standby.signal"))?.sync_all()?;
    sync(path)
}

/// Gives a data directory the permissions that PostgreSQL insists on (0700 or 0750), which an `fsGroup` or a copied
/// volume takes away. Returns the mode that was corrected.
///
/// # Errors
/// When the mode cannot be set.
pub fn repair_mode(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    if matches!(mode, 0o700 | 0o750) {
        return Ok(None);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    Ok(Some(mode))
}

/// Which directory is meant where `configured` holds no data yet: volumes of the official image keep their data in
/// other places, and start from there unchanged.
///
/// - up to 17: the volume's mount point `/var/lib/postgresql/data` itself,
/// - from 18 on: `/var/lib/postgresql/<major>/docker`.
pub fn locate(configured: &Path, major: u32) -> PathBuf {
    locate_below(Path::new("/var/lib/postgresql"), configured, major)
}

fn locate_below(root: &Path, configured: &Path, major: u32) -> PathBuf {
    if !configured.starts_with(root) || has_data(configured) {
        return configured.to_path_buf();
    }
    let mut others = vec![root.join(major.to_string()).join("docker"), root.join("data"), root.to_path_buf()];
    // Another major's directory too: to say that it is another major beats a fresh, empty database beside it.
    others.extend((13..=18).rev().map(|m| root.join(m.to_string()).join("docker")));
    others.into_iter().find(|dir| has_data(dir)).unwrap_or_else(|| configured.to_path_buf())
}

fn has_data(dir: &Path) -> bool {
    dir.join("PG_VERSION").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn nothing_anybody_would_miss_is_empty() {
        assert_eq!(inspect(Path::new("/does/not/exist"), 15).unwrap(), Content::Empty);
        let dir = directory(&[("lost+found/x", ""), (".snapshot/y", "")]);
        assert_eq!(inspect(dir.path(), 15).unwrap(), Content::Empty);
    }

    #[test]
    fn a_cluster_and_its_backup_label() {
        let dir = directory(&[("PG_VERSION", "15\n"), ("global/pg_control", "x")]);
        assert_eq!(inspect(dir.path(), 15).unwrap(), Content::Cluster { backup_label: false });
        fs::write(dir.path().join("backup_label"), "").unwrap();
        assert_eq!(inspect(dir.path(), 15).unwrap(), Content::Cluster { backup_label: true });
    }

    #[test]
    fn what_would_fail_is_said_with_its_cure() {
        let told = |files: &[(&str, &str)]| {
            let dir = directory(files);
            inspect(dir.path(), 15).unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "D")
        };
        assert!(told(&[("PG_VERSION", "14\n"), ("global/pg_control", "x")]).contains("PostgreSQL 14"));
        assert!(told(&[("PG_VERSION", "15\n")]).contains("global/pg_control is missing."));
        assert!(told(&[("PG_VERSION", "15\n"), ("backup_label", "")]).contains("pg_basebackup"));
        assert!(told(&[("a", ""), ("b", ""), ("c", ""), ("d", "")]).contains("(a, b, c, …)"));
    }

    #[test]
    fn a_mode_that_postgres_would_refuse_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2770)).unwrap();
        assert_eq!(repair_mode(dir.path()).unwrap(), Some(0o2770));
        assert_eq!(repair_mode(dir.path()).unwrap(), None);
    }

    #[test]
    fn volumes_of_the_official_image_are_found() {
        let root = directory(&[]);
        let root = root.path();
        let configured = root.join("data/pgdata");
        let place = |dir: &str| {
            fs::create_dir_all(root.join(dir)).unwrap();
            fs::write(root.join(dir).join("PG_VERSION"), "15").unwrap();
            locate_below(root, &configured, 15)
        };
        assert_eq!(locate_below(root, &configured, 15), configured, "empty");
        assert_eq!(place("17/docker"), root.join("17/docker"), "another major: so that it can be refused");
        assert_eq!(place("data"), root.join("data"));
        assert_eq!(place("15/docker"), root.join("15/docker"));
        assert_eq!(place("data/pgdata"), configured, "podgres' own wins");
        assert_eq!(locate_below(root, Path::new("/elsewhere"), 15), Path::new("/elsewhere"));
    }
}
