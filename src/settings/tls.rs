//! The settings of TLS: where certificates are, and who may do without.

use std::path::PathBuf;

use super::{Error, sources::Sources};

/// TLS is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `tls-dir`: `tls.crt`, `tls.key` and, where members are to know each other by it, `ca.crt`
    /// (<https://kubernetes.io/docs/concepts/configuration/secret/#tls-secrets>, with cert-manager's `ca.crt`).
    pub dir: PathBuf,
    /// `client-ca`: a file.
    pub client_ca: Option<PathBuf>,
    /// `tls-only`.
    pub only: bool,
}

/// The settings, checked; none without `tls-dir`.
pub(super) fn load(sources: &Sources) -> Result<Option<Tls>, Error> {
    let path = |name| sources.parse(name, "an absolute path", |v| Some(PathBuf::from(v)).filter(|p| p.is_absolute()));
    let client_ca = path("client-ca")?;
    let only = sources.parse("tls-only", "true or false", |v| v.parse().ok())?.unwrap_or(false);
    let without = |name: &str| {
        Err(Error::Together(format!(
            "{name} is set and tls-dir is not, so that there is no certificate: set tls-dir to the directory with tls.crt \
             and tls.key, or remove {name}"
        )))
    };
    match path("tls-dir")? {
        Some(dir) => Ok(Some(Tls { dir, client_ca, only })),
        None if client_ca.is_some() => without("client-ca"),
        None if only => without("tls-only"),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Settings, *};

    fn load(variables: &[(&str, &str)]) -> Result<Option<Tls>, Error> {
        let pairs: Vec<_> = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Settings::load(&Default::default(), &pairs).map(|s| s.tls)
    }

    #[test]
    fn nothing_of_tls_is_meant_without_a_certificate() {
        assert_eq!(load(&[]).unwrap(), None);
        let dir = ("PODGRES_TLS_DIR", "/certs");
        let tls = Tls { dir: "/certs".into(), client_ca: None, only: false };
        assert_eq!(load(&[dir]).unwrap(), Some(tls.clone()));
        let all = [dir, ("PODGRES_TLS_ONLY", "true"), ("PODGRES_CLIENT_CA", "/ca.crt")];
        assert_eq!(load(&all).unwrap(), Some(Tls { client_ca: Some("/ca.crt".into()), only: true, ..tls }));
        for one in &all[1..] {
            let text = load(&[*one]).unwrap_err().to_string();
            assert!(text.contains("tls-dir"), "{text}");
        }
    }
}
