//! The copies of certificates and keys in `run-dir` that PostgreSQL and libpq read.
//!
//! Copies, because both are particular about the mode and the owner of a key
//! (<https://www.postgresql.org/docs/current/ssl-tcp.html#SSL-SETUP>), which a mounted Secret cannot satisfy for every uid; and
//! so that what they read has been checked, and is all of one moment.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use super::material::{Error, Material, Places};

/// The link to the directory that is in use.
const LINK: &str = "tls";
/// What the directories' names begin with.
const DIR: &str = "tls-";
const CLIENT_CA: &str = "client-ca.crt";

/// The paths that go into PostgreSQL's settings and connection strings. They stay as they are when what is there is exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, with those that lead to its CA.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA of the members.
    pub ca: Option<PathBuf>,
    /// The CAs of clients.
    pub client_ca: Option<PathBuf>,
}

/// Puts `material` in place of what is there, in one step.
///
/// # Errors
/// When it cannot be written.
pub(super) fn install(material: &Material, run_dir: &Path) -> io::Result<()> {
    let name = format!("{DIR}{}", material.fingerprint());
    let dir = run_dir.join(&name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    let places = places(&dir, true);
    let mut files = vec![(places.certificate, Some(&material.certificate)), (places.key, Some(&material.key))];
    files.push((places.ca, material.ca.as_ref()));
    files.extend(places.client_ca.map(|path| (path, material.client_ca.as_ref())));
    for (path, content) in files {
        if let Some(content) = content {
            write(&path, content)?;
        }
    }
    let (link, new) = (run_dir.join(LINK), run_dir.join("tls.new"));
    let _ = fs::remove_file(&new);
    symlink(&name, &new)?;
    fs::rename(&new, &link)?;
    remove_others(run_dir, &name);
    Ok(())
}

/// What was put there last, perhaps by an earlier start of this container.
pub(super) fn installed(run_dir: &Path) -> Result<Material, Error> {
    let dir = run_dir.join(LINK);
    Material::read(&places(&dir, dir.join(CLIENT_CA).exists()))
}

/// Where the copies of `material` are.
pub(super) fn files(material: &Material, run_dir: &Path) -> Files {
    let Places { certificate, key, ca, client_ca } = places(&run_dir.join(LINK), material.client_ca.is_some());
    Files { certificate, key, ca: material.ca.is_some().then_some(ca), client_ca }
}

fn places(dir: &Path, client_ca: bool) -> Places {
    Places { client_ca: client_ca.then(|| dir.join(CLIENT_CA)), ..Places::within(dir) }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    // What a crash left half written is made anew.
    let _ = fs::remove_file(path);
    fs::File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

/// Nobody reads them any more, and there are keys in them.
fn remove_others(run_dir: &Path, name: &str) {
    for entry in fs::read_dir(run_dir).into_iter().flatten().flatten() {
        let other = entry.file_name();
        if other.to_string_lossy().starts_with(DIR) && other != name {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{super::made, *};

    #[test]
    fn the_copies_are_their_owners_alone_and_exchanged_as_a_whole() {
        let (dir, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        made::Ca::new("one").issue(dir.path(), 2030);
        let read = || Material::read(&Places::within(dir.path())).unwrap();
        let first = read();
        install(&first, run.path()).unwrap();
        let files = files(&first, run.path());
        assert_eq!(fs::read(&files.key).unwrap(), first.key);
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(installed(run.path()).unwrap().fingerprint(), first.fingerprint());

        made::Ca::new("two").issue(dir.path(), 2031);
        install(&read(), run.path()).unwrap();
        assert_ne!(fs::read(&files.key).unwrap(), first.key);
        assert_eq!(installed(run.path()).unwrap().expires, made::first_of_january(2031));
        // The link and the one directory that it leads to.
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 2);
        install(&read(), run.path()).unwrap();
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 2);
    }
}
