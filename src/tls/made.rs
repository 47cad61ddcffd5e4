//! Certificates for tests, of units and of whole systems.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, date_time_ymd,
};

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate that ends with the year before `until`, as cert-manager would put it into a Secret.
    pub(crate) fn issue(&self, dir: &Path, until: i32) {
        self.issue_to("podgres", dir, until);
    }

    /// [`Ca::issue`] to somebody with this common name.
    pub(crate) fn issue_to(&self, name: &str, dir: &Path, until: i32) {
        let mut parameters = CertificateParams::new(vec!["db".to_string()]).unwrap();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        for (name, text) in [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", self.pem())] {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }
}

pub(crate) fn first_of_january(year: i32) -> SystemTime {
    let seconds = u64::try_from(date_time_ymd(year, 1, 1).unix_timestamp()).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
