//! Certificates: read from `tls-dir`, checked, and read again whenever they change.
//!
//! One certificate serves all: PostgreSQL's clients, the HTTP port, and this member when it is a client of another one. What
//! cannot be used is refused in words, and what was in use before stays.

mod copies;
mod libpq;
#[cfg(test)]
mod made;
mod material;
mod stream;
mod wire;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

pub use copies::Files;
pub use libpq::secured;
pub use material::Error;
use material::{Material, Places};
pub use stream::{Dialled, accept, dial, is_hello};

use crate::settings::tls::Tls;

/// Why TLS cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There is nothing good.
    #[error(
        "tls-dir: {0}. Wanted are tls.crt and tls.key, and ca.crt where the members are to know each other by it, as in a \
         Secret of cert-manager's"
    )]
    Material(#[from] Error),
    /// It cannot be handed to PostgreSQL.
    #[error(
        "the certificate cannot be copied into {path} for PostgreSQL: {source}. Choose another directory with run-dir"
    )]
    Install {
        /// `run-dir`.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// rustls does not take it.
    #[error("the certificate cannot be used for HTTPS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What is in use at a moment.
#[derive(Debug, Clone)]
pub struct Current {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    /// `tls-only`.
    pub only: bool,
    /// When it is good no longer.
    pub expires: SystemTime,
}

/// Where everybody finds what is in use.
pub type Certificates = watch::Receiver<Current>;

/// How things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When what is in use is good no longer.
    pub expires: SystemTime,
    /// Why what is in `tls-dir` now is not in use.
    pub refused: Option<String>,
}

/// From this time before its end on a certificate is complained of. cert-manager renews at a third of the time.
pub const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Reads certificates, and knows which are in use.
pub struct Keeper {
    settings: Tls,
    run_dir: PathBuf,
    material: Material,
    refused: Option<String>,
    exchanges: u64,
    current: watch::Sender<Current>,
}

impl Keeper {
    /// Begins with what is in `tls-dir`, or, if that cannot be used, with what an earlier start of this container had used.
    ///
    /// # Errors
    /// There is neither.
    pub fn begin(settings: &Tls, run_dir: &Path) -> Result<Self, BeginError> {
        let (material, refused) = match Material::read(&Places::of(settings)) {
            Ok(material) => (material, None),
            Err(error) => match copies::installed(run_dir) {
                Ok(before) => (before, Some(said(&error))),
                Err(_) => return Err(error.into()),
            },
        };
        if let Some(refused) = &refused {
            tracing::error!("{refused}");
        }
        let install = |source| BeginError::Install { path: run_dir.into(), source };
        copies::install(&material, run_dir).map_err(install)?;
        let current = watch::Sender::new(current(&material, settings.only)?);
        Ok(Self { settings: settings.clone(), run_dir: run_dir.into(), material, refused, exchanges: 0, current })
    }

    /// Reads them again. Whether others are in use now.
    pub fn read_again(&mut self) -> bool {
        match Material::read(&Places::of(&self.settings)) {
            Ok(material) if material.fingerprint() == self.material.fingerprint() => {
                self.refused = None;
                false
            }
            Ok(material) => self.exchange(material),
            Err(error) => self.refuse(said(&error)),
        }
    }

    fn exchange(&mut self, material: Material) -> bool {
        let current = match current(&material, self.settings.only) {
            Ok(current) => current,
            Err(error) => return self.refuse(said(&error)),
        };
        if let Err(error) = copies::install(&material, &self.run_dir) {
            return self.refuse(said(&error));
        }
        tracing::info!("the certificate was exchanged: the new one is good until {}", day(material.expires));
        self.material = material;
        self.refused = None;
        self.exchanges += 1;
        self.current.send_replace(current);
        true
    }

    fn refuse(&mut self, why: String) -> bool {
        // The same again is no news.
        if self.refused.as_ref() != Some(&why) {
            tracing::error!("{why}");
        }
        self.refused = Some(why);
        false
    }

    /// Where everybody finds what is in use.
    pub fn certificates(&self) -> Certificates {
        self.current.subscribe()
    }

    /// The files for PostgreSQL and libpq.
    pub fn files(&self) -> Files {
        copies::files(&self.material, &self.run_dir)
    }

    /// `tls-only`.
    pub fn only(&self) -> bool {
        self.settings.only
    }

    /// How often another one was taken into use.
    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// The files whose change is of interest.
    pub fn paths(&self) -> Vec<PathBuf> {
        let Places { certificate, key, ca, client_ca } = Places::of(&self.settings);
        [certificate, key, ca].into_iter().chain(client_ca).collect()
    }

    /// How things are.
    pub fn seen(&self) -> Seen {
        Seen { expires: self.material.expires, refused: self.refused.clone() }
    }
}

fn said(error: &impl std::fmt::Display) -> String {
    format!("the certificate in tls-dir is refused, the one of before stays in use: {error}")
}

fn current(material: &Material, only: bool) -> Result<Current, rustls::Error> {
    let (server, client) = (wire::server(material)?, wire::client(material)?);
    Ok(Current { server, client, only, expires: material.expires })
}

/// Whether something readable is in `tls-dir`, for `podgres check`; when it ends.
///
/// # Errors
/// What is wrong with it.
pub fn check(settings: &Tls) -> Result<SystemTime, Error> {
    Material::read(&Places::of(settings)).map(|material| material.expires)
}

/// `2026-11-29`
pub fn day(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string().chars().take(10).collect()
}

/// What there is to say of a certificate that ends soon, or has ended.
pub fn complaint(expires: SystemTime, now: SystemTime) -> Option<String> {
    match expires.duration_since(now) {
        Err(_) => Some(format!("the certificate in tls-dir has been good until {} only: renew it", day(expires))),
        Ok(left) if left <= SOON => {
            let days = left.as_secs() / (24 * 60 * 60);
            Some(format!(
                "the certificate in tls-dir is good until {} only, {days} days from now: renew it",
                day(expires)
            ))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_one_is_exchanged_and_a_bad_one_keeps_the_old() {
        let (dir, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let settings = Tls { dir: dir.path().into(), client_ca: None, only: false };
        assert!(Keeper::begin(&settings, run.path()).is_err(), "there is nothing");
        let ca = made::Ca::new("one");
        ca.issue(dir.path(), 2030);
        let mut keeper = Keeper::begin(&settings, run.path()).unwrap();
        let mut certificates = keeper.certificates();
        assert!(!keeper.read_again());

        let key = std::fs::read(dir.path().join("tls.key")).unwrap();
        std::fs::write(dir.path().join("tls.key"), "hush").unwrap();
        assert!(!keeper.read_again());
        let refused = keeper.seen().refused.unwrap();
        assert!(
            refused.contains("stays in use") && refused.contains("tls.key") && !refused.contains("hush"),
            "{refused}"
        );
        assert_eq!(std::fs::read(keeper.files().key).unwrap(), key);
        assert!(!certificates.has_changed().unwrap());

        ca.issue(dir.path(), 2031);
        assert!(keeper.read_again());
        assert_eq!(keeper.seen(), Seen { expires: made::first_of_january(2031), refused: None });
        assert!(certificates.has_changed().unwrap());
        assert_eq!(certificates.borrow_and_update().expires, made::first_of_january(2031));
        assert_eq!(keeper.exchanges(), 1);
    }

    #[test]
    fn a_start_with_a_bad_one_goes_on_with_what_was_in_use() {
        let (dir, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let settings = Tls { dir: dir.path().into(), client_ca: None, only: false };
        made::Ca::new("one").issue(dir.path(), 2030);
        Keeper::begin(&settings, run.path()).unwrap();
        std::fs::write(dir.path().join("tls.crt"), "").unwrap();
        let keeper = Keeper::begin(&settings, run.path()).unwrap();
        assert_eq!(keeper.seen().expires, made::first_of_january(2030));
        assert!(keeper.seen().refused.is_some());
    }

    #[test]
    fn the_last_week_is_complained_of() {
        let expires = made::first_of_january(2030);
        let before = |days: u64| complaint(expires, expires - Duration::from_secs(days * 24 * 60 * 60));
        assert_eq!(before(8), None);
        assert!(before(7).unwrap().contains("until 2030-01-01 only, 7 days"));
        assert!(
            complaint(expires, expires + Duration::from_secs(1)).unwrap().contains("has been good until 2030-01-01")
        );
    }
}
