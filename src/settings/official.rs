//! The container variables of the official PostgreSQL image, with the meaning they have there
//! (<https://hub.docker.com/_/postgres>, "Environment Variables").

use std::{fmt, path::PathBuf};

use super::Error;

/// A text that is never shown: not by `Debug`, not in logs, not in errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The variables, read; an empty one counts as not set, as in the official image.
#[derive(Debug, Clone)]
pub struct Official {
    /// `POSTGRES_PASSWORD`: the superuser's password.
    pub password: Option<Secret>,
    /// `POSTGRES_USER`: the superuser's name.
    pub user: String,
    /// `POSTGRES_DB`: the database that is made at initialisation.
    pub database: String,
    /// `POSTGRES_INITDB_ARGS`, split as a shell does.
    pub initdb_args: Vec<String>,
    /// `POSTGRES_INITDB_WALDIR`.
    pub waldir: Option<PathBuf>,
    /// `POSTGRES_HOST_AUTH_METHOD`: the method of the `host all all all` line in `pg_hba.conf`.
    pub host_auth_method: Option<String>,
    /// `PGDATA`.
    pub pgdata: Option<PathBuf>,
    /// `PG_MAJOR`: which PostgreSQL an image means where it holds several.
    pub major: Option<u32>,
}

/// Variables that hold secrets, or the paths of secrets, and are kept from every process that serves clients.
pub const SECRET_VARIABLES: &[&str] = &[
    "POSTGRES_PASSWORD",
    "POSTGRES_PASSWORD_FILE",
    "PGPASSWORD",
    "PODGRES_REPLICATION_PASSWORD",
    "PODGRES_REPLICATION_PASSWORD_FILE",
    "PODGRES_STANDBY_OF",
];

impl Official {
    pub(super) fn load(environment: &[(String, String)]) -> Result<Self, Error> {
        let variables = Variables(environment);
        let user = variables.value_or_file("POSTGRES_USER")?.unwrap_or_else(|| "postgres".into());
        let args = variables.value_or_file("POSTGRES_INITDB_ARGS")?.unwrap_or_default();
        let initdb_args = shlex::split(&args).ok_or_else(|| Error::Value {
            origin: "POSTGRES_INITDB_ARGS".into(),
            value: args,
            wanted: "a list of arguments with its quotes closed".into(),
        })?;
        Ok(Self {
            password: variables.password()?,
            database: variables.value_or_file("POSTGRES_DB")?.unwrap_or_else(|| user.clone()),
            user,
            initdb_args,
            waldir: variables.path("POSTGRES_INITDB_WALDIR")?,
            host_auth_method: variables.method("POSTGRES_HOST_AUTH_METHOD")?,
            pgdata: variables.path("PGDATA")?,
            major: variables.value("PG_MAJOR").and_then(|v| v.parse().ok()),
        })
    }

    /// Whether clients need no password at all, which the official image allows and advises against.
    pub fn trusts_everybody(&self) -> bool {
        self.host_auth_method.as_deref() == Some("trust")
    }
}

struct Variables<'a>(&'a [(String, String)]);

impl Variables<'_> {
    fn value(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(k, v)| k == name && !v.is_empty()).map(|(_, v)| v.clone())
    }

    /// `NAME`, or the content of the file that `NAME_FILE` names, without the newlines at its end.
    fn value_or_file(&self, name: &'static str) -> Result<Option<String>, Error> {
        let value = self.value(name);
        let Some(path) = self.value(&format!("{name}_FILE")) else { return Ok(value) };
        if value.is_some() {
            return Err(Error::Both(name));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::File {
            what: format!("{name}_FILE names"),
            path: path.clone(),
            reason: format!("cannot be read as uid {}: {e}", nix::unistd::geteuid()),
        })?;
        Ok(Some(text.trim_end_matches(['\n', '\r']).to_string()).filter(|t| !t.is_empty()))
    }

    /// initdb takes one line. A second one would be lost without a word.
    fn password(&self) -> Result<Option<Secret>, Error> {
        match self.value_or_file("POSTGRES_PASSWORD")? {
            Some(text) if text.contains(['\n', '\r']) => Err(Error::Value {
                origin: "POSTGRES_PASSWORD".into(),
                value: "…".into(),
                wanted: "a single line: it has a line break in it".into(),
            }),
            text => Ok(text.map(Secret)),
        }
    }

    fn path(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let path = PathBuf::from(&value);
        if !path.is_absolute() {
            return Err(Error::Value { origin: name.into(), value, wanted: "an absolute path".into() });
        }
        Ok(Some(path))
    }

    /// A word that goes into a line of `pg_hba.conf`: options may follow the method, a second line may not.
    fn method(&self, name: &str) -> Result<Option<String>, Error> {
        match self.value(name) {
            Some(value) if value.contains(['\n', '\r']) => Err(Error::Value {
                origin: name.into(),
                value,
                wanted: "an authentication method of pg_hba.conf".into(),
            }),
            value => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Official, Error> {
        Official::load(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>())
    }

    #[test]
    fn the_database_is_called_like_the_user_unless_named() {
        assert_eq!(load(&[]).unwrap().database, "postgres");
        assert_eq!(load(&[("POSTGRES_USER", "ada")]).unwrap().database, "ada");
        assert_eq!(load(&[("POSTGRES_USER", "ada"), ("POSTGRES_DB", "d")]).unwrap().database, "d");
    }

    #[test]
    fn a_file_gives_a_value_without_its_last_newline() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3 cret\n").unwrap();
        let loaded = load(&[("POSTGRES_PASSWORD_FILE", file.path().to_str().unwrap())]).unwrap();
        assert_eq!(loaded.password.unwrap().expose(), "s3 cret");
    }

    #[test]
    fn a_password_of_two_lines_is_refused_and_not_shown() {
        let error = load(&[("POSTGRES_PASSWORD", "hush\nhush")]).unwrap_err().to_string();
        assert!(error.contains("single line") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn value_and_file_at_once_are_refused() {
        let error = load(&[("POSTGRES_DB", "a"), ("POSTGRES_DB_FILE", "/b")]).unwrap_err();
        assert!(error.to_string().starts_with("both POSTGRES_DB and POSTGRES_DB_FILE are set"), "{error}");
        assert!(load(&[("POSTGRES_DB", "a"), ("POSTGRES_DB_FILE", "")]).is_ok(), "an empty variable is not set");
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = load(&[("POSTGRES_PASSWORD_FILE", "/does/not/exist")]).unwrap_err().to_string();
        assert!(error.contains("POSTGRES_PASSWORD_FILE") && error.contains("/does/not/exist"), "{error}");
    }

    #[test]
    fn initdb_arguments_are_split_like_a_shell_does() {
        let args = load(&[("POSTGRES_INITDB_ARGS", "--data-checksums --locale='C UTF'")]).unwrap().initdb_args;
        assert_eq!(args, ["--data-checksums", "--locale=C UTF"]);
        assert!(load(&[("POSTGRES_INITDB_ARGS", "'open")]).is_err());
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert!(!format!("{:?}", load(&[("POSTGRES_PASSWORD", "hush")]).unwrap()).contains("hush"));
    }
}
