//! The settings of replication: the source, and the role that standbys use.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{
    Error, Replication,
    official::{Official, Secret},
    sources::Sources,
};
use crate::postgres::replication::{conninfo::Conninfo, source::Address};

const DEFAULT_USER: &str = "podgres";

/// The role, and its password: the one given, or one that every member with the same superuser's password derives.
pub(super) fn role(sources: &Sources, official: &Official) -> Result<Replication, Error> {
    let user = sources.text("replication-user").map_or(DEFAULT_USER, |(text, _)| text);
    if user.is_empty() || user.len() > 63 || user.contains('\0') {
        let origin = sources.text("replication-user").map(|(_, origin)| origin).unwrap_or_default();
        return Err(Error::Value { origin, value: user.into(), wanted: "the name of a role".into() });
    }
    let given = sources.text("replication-password").map(|(text, _)| Secret::new(text));
    let file = sources.text("replication-password-file");
    let password = match (given, file) {
        (Some(_), Some(_)) => return Err(Error::Both("replication-password")),
        (Some(given), None) => Some(given),
        (None, Some((path, _))) => Some(from_file(path)?),
        (None, None) => official.password.as_ref().map(|p| derive(p, user)),
    };
    Ok(Replication { user: user.into(), password })
}

/// The source, with the role and its password filled in where the connection string has none of its own.
pub(super) fn source(sources: &Sources, role: &Replication) -> Result<Option<Address>, Error> {
    let Some((text, origin)) = sources.text("standby-of").filter(|(text, _)| !text.trim().is_empty()) else {
        return Ok(None);
    };
    let conninfo = Conninfo::parse(text).map_err(|source| Error::Conninfo { origin, source })?;
    // Another user's password is not ours to guess.
    let ours = conninfo.get("user").is_none_or(|user| user == role.user);
    let other = conninfo.get("passfile").is_some() || conninfo.get("sslcert").is_some();
    let password = conninfo.password.clone().or_else(|| role.password.clone().filter(|_| ours && !other));
    let conninfo = conninfo.with_default("user", &role.user);
    Ok(Some(Address { conninfo, password, elected: false }))
}

fn from_file(path: &str) -> Result<Secret, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::File {
        what: "replication-password-file names".into(),
        path: path.into(),
        reason: format!("cannot be read as uid {}: {e}", nix::unistd::geteuid()),
    })?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r'])))
}

/// HMAC-SHA-256 of the role's name under the superuser's password, in hexadecimal: a password that tells nobody who
/// has it the superuser's, and that no member has to be told.
fn derive(superuser: &Secret, user: &str) -> Secret {
    // An HMAC takes a key of any length (RFC 2104).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(superuser.expose().as_bytes()) else { return superuser.clone() };
    mac.update(b"podgres replication\0");
    mac.update(user.as_bytes());
    Secret::new(mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::{Error, Settings};

    fn load(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        let pairs: Vec<_> = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Settings::load(&Default::default(), &pairs)
    }

    #[test]
    fn members_that_know_the_superusers_password_agree_on_the_roles() {
        let password =
            |superuser: &str| load(&[("POSTGRES_PASSWORD", superuser)]).unwrap().replication.password.unwrap();
        assert_eq!(password("a"), password("a"));
        assert_ne!(password("a"), password("b"));
        assert_eq!(password("a").expose().len(), 64);
        assert_eq!(load(&[]).unwrap().replication.password, None);
    }

    #[test]
    fn the_source_is_reached_as_that_role_unless_it_says_otherwise() {
        let source = |conninfo: &str| {
            let all = [("PODGRES_STANDBY_OF", conninfo), ("PODGRES_REPLICATION_PASSWORD", "hush")];
            load(&all).unwrap().standby_of.unwrap()
        };
        let ours = source("host=a");
        assert_eq!((ours.conninfo.get("user"), ours.password.unwrap().expose()), (Some("podgres"), "hush"));
        assert_eq!(source("host=a password=other").password.unwrap().expose(), "other");
        let other = source("host=a user=replicator");
        assert_eq!((other.conninfo.get("user"), other.password), (Some("replicator"), None));
        assert!(load(&[("PODGRES_STANDBY_OF", "")]).unwrap().standby_of.is_none());
    }

    #[test]
    fn a_connection_string_that_is_none_is_refused_without_being_shown() {
        let text = load(&[("PODGRES_STANDBY_OF", "hots=a password=hush")]).unwrap_err().to_string();
        assert!(text.contains("PODGRES_STANDBY_OF") && text.contains("hots") && !text.contains("hush"), "{text}");
    }

    #[test]
    fn two_places_for_one_password_are_one_too_many() {
        let all = [("PODGRES_REPLICATION_PASSWORD", "a"), ("PODGRES_REPLICATION_PASSWORD_FILE", "/b")];
        assert!(matches!(load(&all), Err(Error::Both(_))));
        let text = load(&all[1..]).unwrap_err().to_string();
        assert!(text.contains("/b"), "{text}");
    }
}
