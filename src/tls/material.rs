//! A certificate with its key and CAs, read at one moment and checked before anybody has to rely on it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use x509_cert::{Certificate, der::Decode};

use crate::settings::tls::Tls;

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path} cannot be read as uid {}: {source}", nix::unistd::geteuid())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no {what} in PEM: {reason}")]
    Nonsense {
        /// Which one.
        path: PathBuf,
        /// What is wanted.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not belong together, or are of a kind that cannot be used.
    #[error(
        "the key in {key} and the certificate in {certificate} cannot be used together: {reason}. RSA of 2048 to 8192 bits, \
         ECDSA with P-256 or P-384 and Ed25519 can be used"
    )]
    Pair {
        /// The key's file.
        key: PathBuf,
        /// The certificate's.
        certificate: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// That of the CA is used where it is there.
    pub(super) ca: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

impl Places {
    /// As a Secret of the type kubernetes.io/tls has them.
    pub(super) fn within(dir: &Path) -> Self {
        let [certificate, key, ca] = ["tls.crt", "tls.key", "ca.crt"].map(|name| dir.join(name));
        Self { certificate, key, ca, client_ca: None }
    }

    pub(super) fn of(settings: &Tls) -> Self {
        Self { client_ca: settings.client_ca.clone(), ..Self::within(&settings.dir) }
    }
}

/// All of it, in PEM as it was read, and as rustls has it.
#[derive(Clone)]
pub(super) struct Material {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) ca: Option<Vec<u8>>,
    pub(super) client_ca: Option<Vec<u8>>,
    pub(super) pair: Arc<CertifiedKey>,
    /// Who has signed the other members' certificates; none: that is not known.
    pub(super) roots: Option<Arc<RootCertStore>>,
    /// When the first of these certificates is good no longer.
    pub(super) expires: SystemTime,
}

impl Material {
    /// Reads and checks the files at `places`.
    pub(super) fn read(places: &Places) -> Result<Self, Error> {
        let certificate = file(&places.certificate)?;
        let key = file(&places.key)?;
        let chain = certificates(&certificate, &places.certificate)?;
        let mut expires = vec![not_after(&chain, &places.certificate)?];
        let pair = Arc::new(pair(chain, &key, places)?);
        let ca = match file(&places.ca) {
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            // cert-manager writes an empty one where the issuer has no CA to show.
            ca => Some(ca?).filter(|ca| !ca.trim_ascii().is_empty()),
        };
        let roots = ca.as_ref().map(|ca| roots(ca, &places.ca, &mut expires)).transpose()?.map(Arc::new);
        let client_ca = places.client_ca.as_ref().map(|path| Ok((path, file(path)?))).transpose()?;
        if let Some((path, ca)) = &client_ca {
            roots_of(ca, path)?;
        }
        let expires = expires.into_iter().min().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Self { certificate, key, ca, client_ca: client_ca.map(|(_, ca)| ca), pair, roots, expires })
    }

    /// A name that changes with the contents.
    pub(super) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for part in [Some(&self.certificate), Some(&self.key), self.ca.as_ref(), self.client_ca.as_ref()] {
            hash.update(part.map_or(u64::MAX, |p| u64::try_from(p.len()).unwrap_or(u64::MAX)).to_be_bytes());
            hash.update(part.map_or(&[][..], |p| p));
        }
        hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// Everything but the secret.
impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("fingerprint", &self.fingerprint()).field("expires", &self.expires).finish()
    }
}

/// The one implementation of TLS in this process, whose cryptography is ring's.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn file(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.into(), source })
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let nonsense = |reason: String| Error::Nonsense { path: path.into(), what: "certificate", reason };
    let all =
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|e| nonsense(e.to_string()))?;
    if all.is_empty() { Err(nonsense("there is no section BEGIN CERTIFICATE".into())) } else { Ok(all) }
}

/// When the first of them ends.
fn not_after(chain: &[CertificateDer<'_>], path: &Path) -> Result<SystemTime, Error> {
    let nonsense = |reason: String| Error::Nonsense { path: path.into(), what: "certificate", reason };
    let ends = chain.iter().map(|der| {
        let certificate = Certificate::from_der(der).map_err(|e| nonsense(e.to_string()))?;
        Ok(certificate.tbs_certificate().validity().not_after.to_system_time())
    });
    let ends: Vec<SystemTime> = ends.collect::<Result<_, Error>>()?;
    ends.into_iter().min().ok_or_else(|| nonsense("there is none".into()))
}

fn pair(chain: Vec<CertificateDer<'static>>, key: &[u8], places: &Places) -> Result<CertifiedKey, Error> {
    let der = PrivateKeyDer::from_pem_slice(key).map_err(|e| Error::Nonsense {
        path: places.key.clone(),
        what: "private key without a passphrase",
        reason: e.to_string(),
    })?;
    CertifiedKey::from_der(chain, der, &provider()).map_err(|e| Error::Pair {
        key: places.key.clone(),
        certificate: places.certificate.clone(),
        reason: e.to_string(),
    })
}

fn roots(ca: &[u8], path: &Path, expires: &mut Vec<SystemTime>) -> Result<RootCertStore, Error> {
    // A bundle may hold a CA of before: it ends when the last of it does.
    let ends = certificates(ca, path)?.iter().filter_map(|c| not_after(std::slice::from_ref(c), path).ok()).max();
    expires.extend(ends);
    roots_of(ca, path)
}

fn roots_of(ca: &[u8], path: &Path) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(ca, path)? {
        store.add(certificate).map_err(|e| Error::Nonsense {
            path: path.into(),
            what: "certificate of a CA",
            reason: e.to_string(),
        })?;
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::{super::made, *};

    fn read(dir: &Path) -> Result<Material, Error> {
        Material::read(&Places::within(dir))
    }

    #[test]
    fn what_belongs_together_is_read_and_ends_with_its_first() {
        let dir = tempfile::tempdir().unwrap();
        made::Ca::new("one").issue(dir.path(), 2030);
        let material = read(dir.path()).unwrap();
        assert!(material.roots.is_some() && material.client_ca.is_none());
        assert_eq!(material.expires, made::first_of_january(2030));
        assert!(!format!("{material:?}").contains("PRIVATE"));

        let before = material.fingerprint();
        std::fs::write(dir.path().join("ca.crt"), "\n").unwrap();
        let without = read(dir.path()).unwrap();
        assert!(without.roots.is_none());
        assert_ne!(without.fingerprint(), before);
        std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
        assert_eq!(read(dir.path()).unwrap().fingerprint(), without.fingerprint());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let says = |wanted: &[&str]| {
            let text = read(dir.path()).unwrap_err().to_string();
            assert!(wanted.iter().all(|w| text.contains(w)), "{text}");
        };
        says(&["tls.crt", "cannot be read"]);
        let ca = made::Ca::new("one");
        ca.issue(dir.path(), 2030);
        let key = std::fs::read(dir.path().join("tls.key")).unwrap();
        ca.issue(dir.path(), 2030);
        std::fs::write(dir.path().join("tls.key"), &key).unwrap();
        says(&["tls.key", "tls.crt", "together"]);
        std::fs::write(dir.path().join("tls.key"), "hush").unwrap();
        says(&["tls.key", "no private key"]);
        ca.issue(dir.path(), 2030);
        std::fs::write(dir.path().join("ca.crt"), "what is this").unwrap();
        says(&["ca.crt", "BEGIN CERTIFICATE"]);
    }
}
