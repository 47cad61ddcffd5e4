//! TLS of connections to a source: what libpq is told.

use super::Files;
use crate::postgres::replication::conninfo::Conninfo;

/// `conninfo` with what this member has: what the user says of TLS counts. `only`: `tls-only`; `member`: the source is a
/// member of this one's cluster, and has its certificate from where this one has.
///
/// Without `tls-only` TLS is what libpq prefers by itself, so that members can be given certificates one after the other.
/// With it a source has to have a certificate of the CA. The name in it is not looked at: members are called by their pods'
/// addresses, which no certificate can have (<https://www.postgresql.org/docs/current/libpq-ssl.html>).
pub fn secured(conninfo: Conninfo, files: &Files, only: bool, member: bool) -> Conninfo {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let conninfo = match (&files.ca, only) {
        (Some(_), true) => conninfo.with_default("sslmode", "verify-ca"),
        (None, true) => conninfo.with_default("sslmode", "require"),
        (_, false) => conninfo,
    };
    let verifies = conninfo.get("sslmode").is_some_and(|mode| mode.starts_with("verify-"));
    let conninfo = match &files.ca {
        Some(ca) if verifies => conninfo.with_default("sslrootcert", &text(ca)),
        _ => conninfo,
    };
    match member || files.client_ca.is_some() {
        // Its own of the two would not fit the other one of ours.
        true if conninfo.get("sslcert").or(conninfo.get("sslkey")).is_none() => {
            conninfo.with("sslcert", &text(&files.certificate)).with("sslkey", &text(&files.key))
        }
        _ => conninfo,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_counts() {
        let files = |ca: bool, client_ca: bool| Files {
            certificate: "/t/tls.crt".into(),
            key: "/t/tls.key".into(),
            ca: ca.then(|| "/t/ca.crt".into()),
            client_ca: client_ca.then(|| "/t/client-ca.crt".into()),
        };
        let said = |text: &str, files: &Files, only: bool, member: bool| {
            secured(Conninfo::parse(text).unwrap(), files, only, member).to_string()
        };
        assert_eq!(said("host=a", &files(true, false), false, false), "host='a'");
        assert_eq!(
            said("host=a", &files(true, false), true, false),
            "host='a' sslmode='verify-ca' sslrootcert='/t/ca.crt'"
        );
        assert_eq!(said("host=a", &files(false, false), true, false), "host='a' sslmode='require'");
        assert_eq!(
            said("host=a sslmode=verify-full", &files(true, false), false, false),
            "host='a' sslmode='verify-full' sslrootcert='/t/ca.crt'"
        );
        assert_eq!(said("host=a sslmode=disable", &files(true, false), true, false), "host='a' sslmode='disable'");
        let own = "host='a' sslcert='/t/tls.crt' sslkey='/t/tls.key'";
        assert_eq!(said("host=a", &files(true, false), false, true), own);
        assert_eq!(said("host=a", &files(true, true), false, false), own);
        let theirs = "host='a' sslcert='/x' sslkey='/y'";
        assert_eq!(said("host=a sslcert=/x sslkey=/y", &files(true, true), false, false), theirs);
    }
}
