//! A user name for initdb, which refuses to work for a uid that has none (`get_id`, initdb.c). The server itself does
//! not mind. The container's `/etc/passwd` is not ours to write, so the lookup is answered by nss_wrapper
//! (<https://cwrap.org/nss_wrapper.html>), for that one process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{Uid, User, getegid, geteuid};

use super::{Error, trying};

/// A name for this process's uid.
pub(super) enum UserName {
    /// The system knows it.
    Known,
    /// nss_wrapper with files that say "postgres".
    Wrapped { library: PathBuf, passwd: PathBuf, group: PathBuf },
}

impl UserName {
    /// Whether a name can be had at all.
    pub(super) fn check() -> Result<(), Error> {
        if is_known() || library().is_some() { Ok(()) } else { Err(Error::NoUserName(geteuid())) }
    }

    pub(super) fn get(run_dir: &Path) -> Result<Self, Error> {
        if is_known() {
            return Ok(Self::Known);
        }
        let library = library().ok_or(Error::NoUserName(geteuid()))?;
        let (uid, gid) = (geteuid(), getegid());
        let (passwd, group) = (run_dir.join("passwd"), run_dir.join("group"));
        fs::write(&passwd, format!("postgres:x:{uid}:{gid}:PostgreSQL:/:/bin/false\n"))
            .and_then(|()| fs::write(&group, format!("postgres:x:{gid}:\n")))
            .map_err(trying(format!("cannot write into {}", run_dir.display())))?;
        Ok(Self::Wrapped { library, passwd, group })
    }

    pub(super) fn give_to(&self, command: &mut Command) {
        if let Self::Wrapped { library, passwd, group } = self {
            command.env("LD_PRELOAD", library).env("NSS_WRAPPER_PASSWD", passwd).env("NSS_WRAPPER_GROUP", group);
        }
    }
}

fn is_known() -> bool {
    matches!(User::from_uid(Uid::effective()), Ok(Some(_)))
}

fn library() -> Option<PathBuf> {
    let name = "libnss_wrapper.so";
    let multiarch = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|e| e.path());
    multiarch.chain(["/usr/lib64".into(), "/usr/lib".into()]).map(|dir: PathBuf| dir.join(name)).find(|p| p.exists())
}
