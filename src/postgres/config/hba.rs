//! `pg_hba.conf` and `pg_ident.conf`: podgres' own rules, then the user's.

use std::path::Path;

use tokio_postgres::Client;

use super::{
    files::Rules,
    parse::{Mistake, Place},
    tokens::anchored,
};
use crate::postgres::sql;

/// The lines before the user's own.
const OWN_LINES: usize = 6;

/// What TLS demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tls {
    /// `tls-only`: nobody connects over TCP without it.
    pub only: bool,
    /// `client-ca`: standbys have certificates.
    pub clients: bool,
    /// How often the certificate was exchanged: each time the server has to read it again.
    pub exchanges: u64,
}

/// podgres' own rules, which are first because the first rule that matches decides: they let the standbys' role in, and keep
/// out who has to have TLS and has not.
pub(crate) fn own_rules(replication_user: Option<&str>, tls: Tls) -> String {
    let mut rules = replication_user.map(|user| of_replication(user, tls)).unwrap_or_default();
    if tls.only {
        rules += "hostnossl all all all reject\n";
    }
    rules
}

fn of_replication(user: &str, tls: Tls) -> String {
    // In quotes no name is a keyword; a line break cannot be in a rule, and no sane role has one.
    let user = format!("\"{}\"", user.replace('"', "\"\"").replace(['\n', '\r'], " "));
    let local = format!("local postgres,replication {user} scram-sha-256\n");
    match tls {
        // Without the second rule one of the user's might let it in with the password alone.
        Tls { clients: true, .. } => format!(
            "{local}hostssl postgres,replication {user} all cert\nhostnossl postgres,replication {user} all reject\n"
        ),
        Tls { clients: false, .. } => format!("{local}host postgres,replication {user} all scram-sha-256\n"),
    }
}

/// The whole file. The user's first line is line `OWN_LINES + 1`, whatever the own rules are.
pub(crate) fn generate(own: &str, rules: &Rules) -> String {
    let mut text = format!(
        "# Written by podgres at each start and reload: changes in this file are lost.\n\
         # Below its own rules are those of {}.\n",
        rules.path.display()
    );
    text += own;
    for _ in text.lines().count()..OWN_LINES {
        text += "#\n";
    }
    let dir = rules.path.parent().unwrap_or(Path::new("/"));
    text += &anchored(&rules.text, dir);
    if !rules.text.is_empty() && !rules.text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Asks a running server, which reads the file anew for this, what is wrong with its `pg_hba.conf` and, where it can
/// tell, its `pg_ident.conf`. `places` are the user's files.
///
/// # Errors
/// When it cannot be asked.
pub(super) async fn mistakes(client: &Client, hba: &Rules, ident: &Rules) -> Result<Vec<Mistake>, sql::Error> {
    let mut found = wrong_lines(client, "pg_hba_file_rules", "hba_file", hba).await?;
    let views = "select from pg_catalog.pg_class where relname = 'pg_ident_file_mappings'";
    if client.query_opt(views, &[]).await?.is_some() {
        found.extend(wrong_lines(client, "pg_ident_file_mappings", "ident_file", ident).await?);
    }
    Ok(found)
}

async fn wrong_lines(client: &Client, view: &str, setting: &str, rules: &Rules) -> Result<Vec<Mistake>, sql::Error> {
    // The file's name is there from 16 on, where files may include others.
    let query = format!(
        "select v.line_number, v.error, to_jsonb(v) ->> 'file_name', current_setting('{setting}')
           from pg_catalog.{view} v where v.error is not null order by v.line_number"
    );
    let mut found = Vec::new();
    for row in client.query(&query, &[]).await? {
        let (line, text): (Option<i32>, String) = (row.try_get(0)?, row.try_get(1)?);
        let (file, main): (Option<String>, String) = (row.try_get(2)?, row.try_get(3)?);
        let line = line.and_then(|l| usize::try_from(l).ok()).unwrap_or(0);
        found.push(Mistake { place: Some(place(line, file.as_deref(), Path::new(&main), rules)), text });
    }
    Ok(found)
}

/// A line of the file `main`, or of another one that it includes, as a line of the user's. `main` is generated, or a
/// link to the user's.
fn place(line: usize, file: Option<&str>, main: &Path, rules: &Rules) -> Place {
    match file.map(Path::new) {
        Some(included) if included != main => Place { file: included.into(), line },
        _ if main.is_symlink() => Place { file: rules.path.clone(), line },
        _ => Place { file: rules.path.clone(), line: line.saturating_sub(OWN_LINES) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        Rules { path: "/etc/podgres/pg_hba.conf".into(), text: text.into(), base: false }
    }

    #[test]
    fn own_rules_are_first_and_take_a_fixed_number_of_lines() {
        let demanding = Tls { only: true, clients: true, exchanges: 0 };
        for own in ["".to_string(), own_rules(Some("re\"pl"), Tls::default()), own_rules(Some("a"), demanding)] {
            let text = generate(&own, &rules("local all all trust\n"));
            assert_eq!(text.lines().nth(OWN_LINES), Some("local all all trust"), "{text}");
        }
        let rules = own_rules(Some("re\"pl"), Tls::default());
        assert!(rules.starts_with("local postgres,replication \"re\"\"pl\" scram-sha-256\nhost "), "{rules}");
    }

    #[test]
    fn tls_is_demanded_of_whom_it_is_to_be_demanded() {
        let own = |only, clients| own_rules(Some("r"), Tls { only, clients, exchanges: 0 });
        let last = |rules: String, n: usize| rules.lines().rev().nth(n).unwrap_or_default().to_string();
        assert_eq!(own_rules(None, Tls { only: true, ..Tls::default() }), "hostnossl all all all reject\n");
        assert_eq!(last(own(true, false), 0), "hostnossl all all all reject");
        assert_eq!(last(own(true, false), 1), "host postgres,replication \"r\" all scram-sha-256");
        assert_eq!(last(own(false, true), 0), "hostnossl postgres,replication \"r\" all reject");
        assert_eq!(last(own(false, true), 1), "hostssl postgres,replication \"r\" all cert");
    }

    #[test]
    fn each_of_the_users_lines_is_there_even_a_last_one_without_its_end() {
        for user in ["", "a", "a\n", "include \"x \\\ny", "local all @\"x \\\ny"] {
            let text = generate(&own_rules(Some("r"), Tls::default()), &rules(user));
            assert_eq!(text.lines().count(), OWN_LINES + user.lines().count(), "{text}");
        }
    }

    #[test]
    fn lines_are_the_users() {
        let (rules, main) = (rules(""), Path::new("/run/x/pg_hba.conf"));
        assert_eq!(place(7, None, main, &rules), Place { file: rules.path.clone(), line: 1 });
        assert_eq!(place(7, Some("/run/x/pg_hba.conf"), main, &rules).line, 1);
        assert_eq!(place(7, Some("/d/more.conf"), main, &rules), Place { file: "/d/more.conf".into(), line: 7 });
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("pg_hba.conf");
        std::os::unix::fs::symlink(&rules.path, &link).unwrap();
        assert_eq!(place(7, None, &link, &rules), Place { file: rules.path.clone(), line: 7 });
    }
}
