//! The user's files, as they were read at one moment, and the files that podgres writes for PostgreSQL.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Layers, hba,
    parse::{self, Entry, Flat, Mistake, Place, quote},
    sizing::Default,
};

/// The user's `pg_hba.conf` or `pg_ident.conf`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Rules {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Whether it is the one of the data directory (or of an argument), which PostgreSQL can read where it is.
    pub(crate) base: bool,
}

/// Everything that the user says in files, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserFiles {
    /// `PGDATA/postgresql.conf`, or the one of an argument.
    pub(super) base_path: PathBuf,
    pub(super) base: Flat,
    /// `postgresql.conf` in `config-dir`.
    pub(super) user: Option<Flat>,
    pub(super) hba: Rules,
    pub(super) ident: Rules,
}

impl UserFiles {
    /// Reads them, for the data directory `pgdata`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn read(layers: &Layers, pgdata: &Path) -> Result<Self, Mistake> {
        let named = layers.arguments.config_file.clone();
        let base_path = named.clone().unwrap_or_else(|| pgdata.join("postgresql.conf"));
        let base = Flat::read(&base_path)?;
        if let (None, Some(path)) = (&base, named) {
            let text = "the file that config_file on the command line names is not there".into();
            return Err(Mistake { place: Some(Place { file: path, line: 1 }), text });
        }
        let base = base.unwrap_or_default();
        let user = Flat::read(&layers.config_dir.join("postgresql.conf"))?;
        let said = |name: &str| {
            let flats = user.iter().chain([&base]);
            let mut found = flats.filter_map(|f| f.entries().rev().find(|e| e.name == name));
            found.next().map(|e| Path::new("/").join(e.value))
        };
        let rules = |name: &str, argument: &Option<PathBuf>, setting: &str| {
            let own = layers.config_dir.join(name);
            match read_rules(&own, false)? {
                Some(rules) => Ok(rules),
                None => {
                    let path = argument.clone().or_else(|| said(setting)).unwrap_or_else(|| pgdata.join(name));
                    let none = Rules { path: path.clone(), text: String::new(), base: true };
                    Ok(read_rules(&path, true)?.unwrap_or(none))
                }
            }
        };
        Ok(Self {
            hba: rules("pg_hba.conf", &layers.arguments.hba_file, "hba_file")?,
            ident: rules("pg_ident.conf", &layers.arguments.ident_file, "ident_file")?,
            base_path,
            base,
            user,
        })
    }

    /// A number that changes with the contents.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.base.text.hash(&mut hasher);
        self.user.as_ref().map(|u| &u.text).hash(&mut hasher);
        (&self.hba.text, &self.ident.text).hash(&mut hasher);
        hasher.finish()
    }

    /// What these set otherwise than `old`, by name and place. Without the values: some are secrets.
    pub(super) fn changes_from(&self, old: &Self) -> Vec<String> {
        let names = |files: &Self| -> BTreeSet<String> {
            files.user.iter().chain([&files.base]).flat_map(Flat::entries).map(|e| e.name).collect()
        };
        let setting = |name: &String| match (self.last(name), old.last(name)) {
            (Some((new, place)), old) if old.as_ref().is_none_or(|(e, _)| e.value != new.value) => {
                Some(place.map_or_else(|| name.clone(), |p| format!("{name} ({p})")))
            }
            (None, Some(_)) => Some(format!("{name} (no longer set)")),
            _ => None,
        };
        let rules = [(&self.hba, &old.hba), (&self.ident, &old.ident)].into_iter();
        let rules = rules.filter(|(new, old)| new != old).map(|(new, _)| new.path.display().to_string());
        names(self).union(&names(old)).filter_map(setting).chain(rules).collect()
    }

    /// The files in which a change would be of interest.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let places = self.user.iter().flat_map(|u| &u.places).chain(&self.base.places).map(|p| p.file.clone());
        let mut paths: Vec<PathBuf> = places.chain([self.hba.path.clone(), self.ident.path.clone()]).collect();
        paths.dedup();
        paths
    }

    /// The last entry of `name` in the base file and in the user's.
    pub(super) fn last(&self, name: &str) -> Option<(Entry, Option<Place>)> {
        let find = |flat: &Flat| {
            let entry = flat.entries().rev().find(|e| e.name == name)?;
            let place = flat.place(entry.line).cloned();
            Some((entry, place))
        };
        self.user.as_ref().and_then(find).or_else(|| find(&self.base))
    }
}

fn read_rules(path: &Path, base: bool) -> Result<Option<Rules>, Mistake> {
    match parse::read_text(path) {
        Ok(text) => Ok(Some(Rules { path: path.to_path_buf(), text, base })),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => {
            let place = Some(Place { file: path.to_path_buf(), line: 1 });
            Err(Mistake { place, text: format!("cannot read the file: {e}") })
        }
    }
}

/// What the generated files are made from.
pub(super) struct Content<'a> {
    pub(super) files: &'a UserFiles,
    /// Whether the base file itself is no good, and a copy of an earlier state takes its place.
    pub(super) copy_base: bool,
    pub(super) defaults: &'a [Default],
    pub(super) owned: &'a [(&'static str, String)],
    pub(super) replication_user: Option<&'a str>,
    pub(super) tls: hba::Tls,
}

const HEADER: &str = "# Written by podgres at each start and reload: changes in this file are lost.\n";

impl Content<'_> {
    /// Writes the settings, with everything that `postgresql.conf` includes, into `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write_settings(&self, dir: &Path) -> io::Result<()> {
        make(dir)?;
        let base = match self.copy_base {
            true => {
                replace(&dir.join("base.conf"), &self.files.base.text)?;
                "include 'base.conf'".into()
            }
            false => format!("include_if_exists {}", quote(&self.files.base_path.display().to_string())),
        };
        let own = |name: &str, value: &str| format!("{name} = {}\n", quote(value));
        let defaults: String = self.defaults.iter().map(|d| own(d.name, &d.value)).collect();
        replace(&dir.join("defaults.conf"), &defaults)?;
        replace(&dir.join("user.conf"), self.files.user.as_ref().map_or("", |u| &u.text))?;
        write_owned(dir, self.owned)?;
        let main = format!(
            "{HEADER}# Yours are postgresql.conf in podgres' config-dir and {}.\n\
             include 'defaults.conf'\n{base}\ninclude 'user.conf'\ninclude 'owned.conf'\n",
            self.files.base_path.display()
        );
        replace(&dir.join("postgresql.conf"), &main)
    }

    /// Writes `pg_hba.conf` and `pg_ident.conf` into `dir`. A file to which nothing is added is a link to the user's, so
    /// that whoever edits that and reloads PostgreSQL by himself finds it read.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write_rules(&self, dir: &Path) -> io::Result<()> {
        make(dir)?;
        let own = hba::own_rules(self.replication_user, self.tls);
        for (name, rules, own) in
            [("pg_hba.conf", &self.files.hba, own.as_str()), ("pg_ident.conf", &self.files.ident, "")]
        {
            let path = dir.join(name);
            match rules.base && own.is_empty() && !self.copy_base {
                true => link(&path, &rules.path)?,
                false => replace(&path, &hba::generate(own, rules))?,
            }
        }
        Ok(())
    }
}

/// Writes what podgres owns into `dir`.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write_owned(dir: &Path, owned: &[(&'static str, String)]) -> io::Result<()> {
    let text: String = owned.iter().map(|(name, value)| format!("{name} = {}\n", quote(value))).collect();
    replace(&dir.join("owned.conf"), &text)
}

/// Writes rules into `dir` for a server whose socket only its own uid can reach.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn let_everybody_in(dir: &Path) -> io::Result<()> {
    replace(&dir.join("pg_hba.conf"), "local all all trust\n")?;
    replace(&dir.join("pg_ident.conf"), "")
}

fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)
}

/// Readers see the old contents or the new ones. Not durable: the directory is made anew at each start.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = PathBuf::from(format!("{}.new", path.display()));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

fn link(path: &Path, target: &Path) -> io::Result<()> {
    let temporary = PathBuf::from(format!("{}.new", path.display()));
    let _ = fs::remove_file(&temporary);
    std::os::unix::fs::symlink(target, &temporary)?;
    fs::rename(&temporary, path)
}

/// Takes the settings `names` out of `postgresql.auto.conf`, where `ALTER SYSTEM` put them and where they would override
/// podgres' own. Returns those that were there.
///
/// # Errors
/// When the file cannot be read or replaced.
pub(super) fn take_from_auto_conf(pgdata: &Path, names: &[&str]) -> io::Result<Vec<String>> {
    let path = pgdata.join("postgresql.auto.conf");
    let text = match parse::read_text(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut taken = Vec::new();
    let mut kept = String::new();
    for line in text.lines() {
        match parse::parse_line(line).filter(|(name, _)| names.contains(&name.as_str())) {
            Some((name, _)) => taken.push(name),
            None => kept.extend([line, "\n"]),
        }
    }
    if !taken.is_empty() {
        let temporary = pgdata.join("postgresql.auto.conf.podgres");
        let _ = fs::remove_file(&temporary);
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(kept.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(pgdata)?.sync_all()?;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named_with_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let flat = |text: &str| {
            let path = dir.path().join("user.conf");
            fs::write(&path, text).unwrap();
            let mut flat = Flat::read(&path).unwrap().unwrap();
            flat.places.iter_mut().for_each(|p| p.file = "/c/postgresql.conf".into());
            flat
        };
        let rules = |text: &str| Rules { path: "/c/pg_hba.conf".into(), text: text.into(), base: false };
        let files = |text: &str, hba: &str| UserFiles {
            base_path: "/data/postgresql.conf".into(),
            base: Flat::default(),
            user: Some(flat(text)),
            hba: rules(hba),
            ident: rules(""),
        };
        let old = files("a = 1\nb = 1\nc = 1\n", "");
        let new = files("a = 1\nb = 2\nd = 1\n", "local all all trust\n");
        let changes = ["b (/c/postgresql.conf:2)", "c (no longer set)", "d (/c/postgresql.conf:3)", "/c/pg_hba.conf"];
        assert_eq!(new.changes_from(&old), changes);
        assert!(old.changes_from(&old).is_empty());
    }

    #[test]
    fn what_podgres_owns_is_taken_out_of_the_auto_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postgresql.auto.conf");
        assert!(take_from_auto_conf(dir.path(), &["primary_conninfo"]).unwrap().is_empty());
        fs::write(&path, "# Do not edit\nprimary_conninfo = 'host=a'\nwork_mem = '1MB'\n").unwrap();
        assert_eq!(take_from_auto_conf(dir.path(), &["primary_conninfo"]).unwrap(), ["primary_conninfo"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "# Do not edit\nwork_mem = '1MB'\n");
        assert!(take_from_auto_conf(dir.path(), &["primary_conninfo"]).unwrap().is_empty());
    }
}
