//! What a synchronous cluster does not bear in its servers' configuration: it would confirm what can be lost.

use super::{
    arguments,
    files::UserFiles,
    parse::{self, Mistake},
};

/// Each with its values that are refused, and what it would mean.
const REFUSED: [(&str, &[&str], &str); 3] = [
    (
        "synchronous_commit",
        &["off", "local", "remote_write", "false", "no", "0"],
        "commits would be confirmed that no standby has on disk; take it out, or set it for single sessions or roles that may \
         lose theirs",
    ),
    ("fsync", NO, "what was confirmed would not be on disk"),
    ("full_page_writes", NO, "a crash could leave pages that are half written"),
];

const NO: &[&str] = &["off", "false", "no", "0"];

/// What is wrong with the user's files and arguments.
pub(super) fn mistakes(files: &UserFiles, user: &[String]) -> Vec<Mistake> {
    let arguments = arguments::settings(user);
    let argument = |name: &str| arguments.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let configured = |name: &str| match argument(name) {
        Some(value) => Some((value, None)),
        None => files.last(name).map(|(entry, place)| (entry.value, place)),
    };
    let wrong = |(name, refused, why): &(&str, &[&str], &str)| {
        let (value, place) = configured(name)?;
        let text = format!("with sync 1 or more {name} cannot be {value}: {why}");
        is_one_of(refused, &value).then_some(Mistake { place, text })
    };
    // No file of podgres' overrides an argument.
    let names = argument("synchronous_standby_names").map(|_| Mistake {
        place: None,
        text: "with sync 1 or more synchronous_standby_names is podgres' to set: take it off the command line".into(),
    });
    REFUSED.iter().filter_map(wrong).chain(names).collect()
}

/// Those that `ALTER SYSTEM` set to such a value.
pub(super) fn set_by_alter_system(auto_conf: &str) -> Vec<&'static str> {
    let set = |name: &str| parse::entries(auto_conf).rev().find(|e| e.name == name);
    let found = REFUSED.iter().filter(|(name, refused, _)| set(name).is_some_and(|e| is_one_of(refused, &e.value)));
    found.map(|(name, ..)| *name).collect()
}

/// PostgreSQL takes words in any case, and booleans as short as they are clear (`parse_bool`, bool.c).
fn is_one_of(refused: &[&str], value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let short = |word: &&str| matches!(*word, "off" | "false" | "no") && value.len() < word.len();
    let shortened = |word: &&str| short(word) && word.starts_with(&value) && !value.is_empty() && value != "o";
    refused.iter().any(|word| *word == value || shortened(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lose_commits_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postgresql.conf");
        std::fs::write(&file, "work_mem = 1MB\nsynchronous_commit = Remote_Write\nfsync = on\n").unwrap();
        let user = parse::Flat::read(&file).unwrap();
        let rules = super::super::files::Rules { path: "/x".into(), text: String::new(), base: true };
        let files = UserFiles {
            base_path: "/data/postgresql.conf".into(),
            base: parse::Flat::default(),
            user,
            hba: rules.clone(),
            ident: rules,
        };
        let said = |arguments: &str| {
            let arguments: Vec<String> = arguments.split_whitespace().map(String::from).collect();
            mistakes(&files, &arguments).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let found = said("");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("postgresql.conf:2") && found[0].contains("Remote_Write"), "{found:?}");
        let found = said("-c synchronous_commit=on -c fsync=of -c synchronous_standby_names=x");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("fsync") && found[1].contains("podgres' to set"), "{found:?}");
    }

    #[test]
    fn what_alter_system_set_is_found() {
        let found = set_by_alter_system("synchronous_commit = 'local'\nfull_page_writes = 'on'\n");
        assert_eq!(found, ["synchronous_commit"]);
    }
}
