//! libpq connection strings, in both of their forms
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>).
//!
//! They are taken apart to take the password out, which must stand in no argument, setting or log line, and to add
//! what podgres knows. Everything else goes to libpq as it came.

use std::fmt;

use crate::settings::official::Secret;

/// A connection string without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conninfo {
    /// Keyword and value, in the order in which they were given; the last one of a keyword counts.
    parameters: Vec<(String, String)>,
    /// The password that was in it.
    pub password: Option<Secret>,
}

/// Why a text is no connection string.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Neither of the two forms.
    #[error(
        "it is no connection string. Write host=db1 port=5432, or postgresql://user@db1:5432/ (libpq's two forms, see \
         https://www.postgresql.org/docs/current/libpq-connect.html)"
    )]
    Form,
    /// A value begins with a quote that is not closed.
    #[error("the quote around the value of {0} is not closed")]
    Quote(String),
    /// A keyword that libpq does not have. What is like none of its keywords is not told: it may be the rest of a password
    /// with a blank or a `?` in it.
    #[error(
        "{} is no keyword of a connection string. A password with other signs than letters and digits has to be in quotes, \
         in a URI percent-encoded",
        .0.as_deref().map_or("something in it".into(), |word| format!("{word:?}"))
    )]
    Keyword(Option<String>),
    /// A port that is no number; not told, since it is the password where the `@` behind that is missing.
    #[error("a port in it is no number from 1 to 65535")]
    Port,
    /// A keyword that podgres sets itself.
    #[error("{0} cannot be chosen: podgres sets it")]
    Owned(String),
    /// Without a host libpq would take the socket of this very container.
    #[error("it names no host: the source would be this member itself")]
    NoHost,
}

/// What may stand in a source's connection string: libpq's keywords that make sense for a remote server.
const KEYWORDS: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "passfile",
    "require_auth",
    "channel_binding",
    "connect_timeout",
    "client_encoding",
    "options",
    "application_name",
    "fallback_application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "gssencmode",
    "sslmode",
    "sslnegotiation",
    "sslcompression",
    "sslcert",
    "sslkey",
    "sslkeylogfile",
    "sslpassword",
    "sslcertmode",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "sslsni",
    "requirepeer",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "min_protocol_version",
    "max_protocol_version",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "service",
    "target_session_attrs",
    "load_balance_hosts",
];

/// Each program that connects wants its own: replication or not, and which database.
const OWNED: &[&str] = &["replication"];

impl Conninfo {
    /// Reads either form.
    ///
    /// # Errors
    /// See [`Error`]. The text of an error never holds the password.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let uri = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        let mut parameters = match uri {
            Some(rest) => parse_uri(rest)?,
            None => parse_pairs(text)?,
        };
        for (key, value) in &parameters {
            check(key)?;
            if key == "port" && !value.split(',').all(is_port) {
                return Err(Error::Port);
            }
        }
        let password = parameters.iter().rfind(|(k, _)| k == "password").map(|(_, v)| Secret::new(v.clone()));
        parameters.retain(|(k, v)| k != "password" && !v.is_empty());
        let info = Self { parameters, password };
        let named = ["host", "hostaddr", "service"].iter().any(|k| info.get(k).is_some());
        if named { Ok(info) } else { Err(Error::NoHost) }
    }

    /// The value of a keyword.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.parameters.iter().rfind(|(k, _)| k == keyword).map(|(_, v)| v.as_str())
    }

    /// The same with `keyword` set.
    #[must_use]
    pub fn with(mut self, keyword: &str, value: &str) -> Self {
        self.parameters.retain(|(k, _)| k != keyword);
        self.parameters.push((keyword.into(), value.into()));
        self
    }

    /// Of a server at `address`, a literal one with its port (`10.0.0.7:5432`, `[fd00::7]:5432`), as `user`.
    pub fn of_address(address: &str, user: &str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
        let pairs = [("host", host.trim_matches(['[', ']'])), ("port", port), ("user", user)];
        let none = Self { parameters: Vec::new(), password: None };
        pairs.into_iter().fold(none, |c, (key, value)| c.with(key, value))
    }

    /// The same with `keyword` set, unless the user did.
    #[must_use]
    pub fn with_default(self, keyword: &str, value: &str) -> Self {
        if self.get(keyword).is_some() { self } else { self.with(keyword, value) }
    }

    /// Where it leads, for people: `db1:5432`.
    pub fn place(&self) -> String {
        let hosts = self.get("host").or(self.get("hostaddr")).or(self.get("service")).unwrap_or("?");
        let ports: Vec<&str> = self.get("port").unwrap_or_default().split(',').collect();
        let port = |i: usize| ports.get(i).or(ports.first()).filter(|p| !p.is_empty()).unwrap_or(&"5432");
        let place = |(i, host): (usize, &str)| format!("{host}:{}", port(i));
        hosts.split(',').enumerate().map(place).collect::<Vec<_>>().join(",")
    }
}

/// Keyword/value form, every value quoted.
impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.parameters.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))?;
        }
        Ok(())
    }
}

/// `key = value`, `key='va\'lue'` (`conninfo_parse`, fe-connect.c).
fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(Error::Form)?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(Error::Form);
        }
        check(key)?;
        let (value, after) = parse_value(key, after.trim_start())?;
        pairs.push((key.to_string(), value));
        rest = after.trim_start();
    }
    if pairs.is_empty() { Err(Error::Form) } else { Ok(pairs) }
}

/// A keyword that may be used.
fn check(key: &str) -> Result<(), Error> {
    if OWNED.contains(&key) {
        return Err(Error::Owned(key.into()));
    }
    let most = if key.len() < 8 { 1 } else { 2 };
    let slip = |known: &&str| strsim::damerau_levenshtein(known, key) <= most;
    match KEYWORDS.contains(&key) {
        true => Ok(()),
        false => Err(Error::Keyword(KEYWORDS.iter().any(slip).then(|| key.into()))),
    }
}

/// Nothing: the default.
fn is_port(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn parse_value<'a>(key: &str, text: &'a str) -> Result<(String, &'a str), Error> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if c.is_whitespace() && !quoted => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(Error::Quote(key.into())) } else { Ok((value, "")) }
}

/// What follows `postgresql://`: `user:password@host:port,host/dbname?key=value` (`conninfo_uri_parse_options`).
fn parse_uri(rest: &str) -> Result<Vec<(String, String)>, Error> {
    // To libpq this is a login with a question mark in it, to others a query: nobody means either.
    let login = rest.split_once('/').map_or(rest, |(login, _)| login);
    if login.split_once('?').is_some_and(|(_, query)| query.contains('@')) {
        return Err(Error::Form);
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = split_port(host).ok_or(Error::Form)?;
        names.push(decode(name)?);
        ports.push(port.to_string());
    }
    let mut pairs = vec![("user".into(), decode(user)?), ("password".into(), decode(password)?)];
    pairs.push(("host".into(), names.join(",")));
    if ports.iter().any(|p| !p.is_empty()) {
        pairs.push(("port".into(), ports.join(",")));
    }
    pairs.push(("dbname".into(), decode(dbname)?));
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or(Error::Form)?;
        pairs.push((decode(key)?, decode(value)?));
    }
    pairs.retain(|(_, value)| !value.is_empty());
    Ok(pairs)
}

/// `[::1]:5432` → `::1` and `5432`.
fn split_port(host: &str) -> Option<(&str, &str)> {
    match host.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            Some((name, port.strip_prefix(':').unwrap_or(port)))
        }
        // The first colon, as libpq has it: a second one makes a port that is no number.
        None => Some(host.split_once(':').unwrap_or((host, ""))),
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok()).ok_or(Error::Form)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| Error::Form)?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| Error::Form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        Conninfo::parse(text).map_or_else(|e| e.to_string(), |c| c.to_string())
    }

    #[test]
    fn pairs() {
        assert_eq!(shown("host=a port = 5433"), "host='a' port='5433'");
        assert_eq!(
            shown(r"host='a b' user=o\'neill options='-c x=\'y\''"),
            r"host='a b' user='o\'neill' options='-c x=\'y\''"
        );
        assert_eq!(shown("host=a host=b"), "host='a' host='b'");
        assert_eq!(Conninfo::parse("host=a host=b").unwrap().get("host"), Some("b"));
    }

    #[test]
    fn uris() {
        assert_eq!(
            shown("postgresql://me@a:5433/db?sslmode=require"),
            "user='me' host='a' port='5433' dbname='db' sslmode='require'"
        );
        assert_eq!(shown("postgres://a"), "host='a'");
        assert_eq!(shown("postgres://[fe80::1]:1,b:2/"), "host='fe80::1,b' port='1,2'");
        assert_eq!(shown("postgres://o%27neill@a/"), r"user='o\'neill' host='a'");
    }

    #[test]
    fn the_password_is_taken_out() {
        for text in ["host=a password=hush", "postgres://me:hush@a/", "postgres://a/?password=hush"] {
            let info = Conninfo::parse(text).unwrap();
            assert_eq!(info.password.as_ref().map(Secret::expose), Some("hush"));
            assert!(!info.to_string().contains("hush") && !format!("{info:?}").contains("hush"));
        }
    }

    #[test]
    fn what_may_be_a_part_of_a_password_is_not_told() {
        for text in [
            "postgres://me:hush/x@a/",
            "postgres://me:hush:5432/",
            "postgres://me:x?hush=1@a/",
            "postgres://me:hush,b/",
            "host=a password=x hush=1",
            "host=a password=x hush='1",
            "host=a port=hush",
        ] {
            let said = Conninfo::parse(text).map(|info| info.place()).unwrap_or_else(|error| error.to_string());
            assert!(!said.contains("hush"), "{text}: {said}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        assert!(shown("db1").contains("no connection string"));
        assert!(shown("host='a").contains("not closed"));
        assert!(shown("hots=a").contains("hots"));
        assert!(shown("host=a replication=true").contains("podgres sets it"));
        assert!(shown("user=a").contains("no host"));
        assert!(shown("postgres://a%zz/").contains("no connection string"));
    }

    #[test]
    fn places() {
        let place = |text| Conninfo::parse(text).unwrap().place();
        assert_eq!(place("host=a"), "a:5432");
        assert_eq!(place("host=a,b port=1,2"), "a:1,b:2");
        assert_eq!(place("hostaddr=10.0.0.1 port=6000"), "10.0.0.1:6000");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(values in proptest::collection::vec("\\PC+", 1..4)) {
            let mut info = Conninfo::parse("host=a").unwrap();
            for (key, value) in ["user", "dbname", "options"].iter().zip(&values) {
                info = info.with(key, value);
            }
            prop_assert_eq!(Conninfo::parse(&info.to_string()).unwrap(), info);
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = Conninfo::parse(&text);
            let _ = Conninfo::parse(&format!("postgres://{text}"));
        }
    }
}
