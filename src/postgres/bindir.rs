//! Which PostgreSQL: the directory of its programs and its major version.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::pid1::Children;

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bindir {
    /// The directory that holds `postgres`.
    pub path: PathBuf,
    /// Its major version: 13 to 18 are supported.
    pub major: u32,
}

/// Why no PostgreSQL was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory that was named has no `postgres`.
    #[error("postgres-bindir: no program \"postgres\" that can be executed in {0}: name the directory that holds it")]
    Wrong(PathBuf),
    /// None was named and none is where they usually are.
    #[error("no PostgreSQL found in /usr/lib/postgresql/*/bin nor in PATH: name its directory with postgres-bindir")]
    None,
    /// `postgres --version` did not say a version.
    #[error("{0} --version said {1:?}, which is no version of PostgreSQL: is this the right postgres-bindir?")]
    Version(PathBuf, String),
    /// A version that podgres does not know.
    #[error("{path} is PostgreSQL {major}; podgres runs 13 to 18")]
    Unsupported {
        /// The directory.
        path: PathBuf,
        /// The major version found there.
        major: u32,
    },
}

impl Bindir {
    /// Finds the directory of the programs: `given`, else among Debian's (the one of major `wanted` if several are
    /// there, else the newest), else in `path_variable`.
    ///
    /// # Errors
    /// When there is none.
    pub fn locate(given: Option<&Path>, wanted: Option<u32>, path_variable: Option<&OsStr>) -> Result<PathBuf, Error> {
        match given {
            Some(dir) if is_program(&dir.join("postgres")) => Ok(dir.to_path_buf()),
            Some(dir) => Err(Error::Wrong(dir.to_path_buf())),
            None => debian(wanted).or_else(|| in_path(path_variable)).ok_or(Error::None),
        }
    }

    /// Finds out which version the programs in `path` are.
    ///
    /// # Errors
    /// When they are not PostgreSQL 13 to 18.
    pub async fn identify(path: PathBuf, children: &Children) -> Result<Self, Error> {
        let major = match major_of_debian(&path) {
            Some(major) => major,
            None => ask_version(&path.join("postgres"), children).await?,
        };
        if !(13..=18).contains(&major) {
            return Err(Error::Unsupported { path, major });
        }
        Ok(Self { path, major })
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Debian keeps each major version in a directory of its own, which names it: no need to run anything.
fn major_of_debian(bin: &Path) -> Option<u32> {
    bin.strip_prefix("/usr/lib/postgresql").ok()?.components().next()?.as_os_str().to_str()?.parse().ok()
}

fn debian(wanted: Option<u32>) -> Option<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = entries.flatten().map(|e| e.path().join("bin")).filter(|b| is_program(&b.join("postgres")));
    found.max_by_key(|b| {
        let major = major_of_debian(b);
        (major.is_some() && major == wanted, major)
    })
}

fn in_path(variable: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(variable?).find(|dir| is_program(&dir.join("postgres")))
}

async fn ask_version(program: &Path, children: &Children) -> Result<u32, Error> {
    let said = version_text(program, children).await.unwrap_or_else(|e| e.to_string());
    // "postgres (PostgreSQL) 17.6 (Debian 17.6-1)", "postgres (PostgreSQL) 18beta1"
    let version = said.split_whitespace().nth(2).unwrap_or_default();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| Error::Version(program.to_path_buf(), said))
}

async fn version_text(program: &Path, children: &Children) -> std::io::Result<String> {
    let (text, mut said) = std::io::pipe()?;
    {
        let mut command = std::process::Command::new(program);
        command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).stdout(said.try_clone()?);
        children.spawn(&mut command)?.wait().await;
    }
    // The child has ended and one line fits into a pipe: closing our end makes the read below finite.
    std::io::Write::flush(&mut said)?;
    drop(said);
    std::io::read_to_string(text).map(|t| t.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_directories_name_their_version() {
        assert_eq!(major_of_debian(Path::new("/usr/lib/postgresql/15/bin")), Some(15));
        assert_eq!(major_of_debian(Path::new("/opt/pg/bin")), None);
    }

    #[test]
    fn a_directory_without_postgres_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Bindir::locate(Some(dir.path()), None, None).unwrap_err().to_string();
        assert!(error.contains(dir.path().to_str().unwrap()) && error.contains("postgres-bindir"), "{error}");
    }
}
