//! The user's `postgresql.conf` and `pg_hba.conf`, beside a second reading of the same grammars, as PostgreSQL's sources
//! (`guc-file.l`, `hba.c`) have them.

#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use podgres::{
    fuzzing,
    postgres::config::parse::{entries, parse_line, quote},
};

fuzz_target!(|data: &[u8]| {
    let Some((what, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    match what % 3 {
        0 => settings(&text),
        1 => rules(&text),
        _ => assert_eq!(parse_line(&format!("x = {}", quote(&text))), Some(("x".into(), text.into_owned()))),
    }
});

fn settings(text: &str) {
    let mut last = 0;
    for entry in entries(text) {
        assert!(entry.line > last && entry.line <= text.lines().count(), "{entry:?}");
        last = entry.line;
        let again = parse_line(&format!("{} = {}", entry.name, quote(&entry.value)));
        assert_eq!(again, Some((entry.name, entry.value)));
    }
    for line in text.lines() {
        // What PostgreSQL takes is seen, and seen as it is. What it refuses it says itself.
        if let Some((name, value)) = setting(line.as_bytes()) {
            let seen = parse_line(line);
            assert_eq!(seen, Some((name, value)), "{line:?}");
        }
    }
}

/// A line that PostgreSQL takes for a setting: name, value.
fn setting(line: &[u8]) -> Option<(String, String)> {
    let line = blank(line);
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let (name, rest) = split(line, |b| letter(b) || b.is_ascii_digit() || matches!(b, b'$' | b'.'));
    let well = name.first().is_some_and(|b| letter(*b));
    let rest = blank(rest);
    let rest = blank(rest.strip_prefix(b"=").unwrap_or(rest));
    let (value, rest) = match rest.strip_prefix(b"'") {
        Some(quoted) => quoted_value(quoted)?,
        None => {
            let (word, rest) =
                split(rest, |b| letter(b) || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b':' | b'/'));
            (!word.is_empty()).then(|| (word.to_vec(), rest))?
        }
    };
    let over = matches!(blank(rest).first(), None | Some(b'#'));
    (well && over && line.is_ascii())
        .then(|| (String::from_utf8_lossy(name).to_ascii_lowercase(), String::from_utf8_lossy(&value).into_owned()))
}

fn blank(text: &[u8]) -> &[u8] {
    split(text, |b| matches!(b, b' ' | b'\t' | b'\r')).1
}

fn split(text: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|b| !belongs(*b)).unwrap_or(text.len()))
}

fn quoted_value(mut text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    loop {
        text = match text {
            [b'\'', b'\'', rest @ ..] => {
                value.push(b'\'');
                rest
            }
            [b'\'', rest @ ..] => return Some((value, rest)),
            [b'\\', rest @ ..] if matches!(rest.first(), Some(b'0'..=b'7')) => {
                let digits = rest.iter().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
                let number = rest[..digits].iter().fold(0_u32, |n, b| n * 8 + u32::from(b - b'0'));
                value.push((number & 0xff) as u8);
                &rest[digits..]
            }
            [b'\\', escaped, rest @ ..] => {
                value.push(match escaped {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => *other,
                });
                rest
            }
            [other, rest @ ..] => {
                value.push(*other);
                rest
            }
            [] => return None,
        }
    }
}

const USERS: &str = "/etc/podgres";
const GENERATED: &str = "/run/podgres/config";

/// Podgres' own rules come first and are whole; below them the user's say the same where they stand now.
fn rules(text: &str) {
    let (user, text) = text.split_once('\n').unwrap_or(("podgres", text));
    if text.contains('\0') || user.contains('\0') {
        return;
    }
    let (own, all) = fuzzing::hba(user, &format!("{USERS}/pg_hba.conf"), text);
    let head = read("", Path::new(USERS));
    assert!(head.is_empty());
    let lines = read(&all, Path::new(GENERATED));
    let ours = read(&own, Path::new(GENERATED));
    assert!(ours.len() == 2 && ours.iter().all(|rule| rule.last() == Some(&vec![Token::Word("scram-sha-256".into())])));
    let users = read(text, Path::new(USERS));
    let expected: Vec<_> = ours.into_iter().chain(users).collect();
    assert_eq!(lines, expected, "{all}");
    let (_, without) = fuzzing::hba(user, &format!("{USERS}/pg_hba.conf"), "");
    assert_eq!(all.lines().count(), without.lines().count() + text.lines().count());
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    /// What is in it is read instead.
    File(PathBuf),
    /// Its lines are read instead.
    Include(String, PathBuf),
}

/// The rules of a file in `dir`, each with its fields (`tokenize_auth_file`).
fn read(text: &str, dir: &Path) -> Vec<Vec<Vec<Token>>> {
    let mut rules = Vec::new();
    let mut lines = text.split('\n');
    while let Some(first) = lines.next() {
        let mut line = first.trim_end_matches('\r').to_string();
        // Of two backslashes before two ends of lines only the second joins.
        let mut joined = 0;
        while line.len() > joined && line.ends_with('\\') {
            line.pop();
            joined = line.len();
            let Some(next) = lines.next() else { break };
            line += next.trim_end_matches('\r');
        }
        let mut rest = line.as_str();
        let mut fields = Vec::new();
        while let Some(field) = field(&mut rest, dir) {
            fields.push(field);
        }
        if !fields.is_empty() {
            rules.push(included(fields, dir));
        }
    }
    rules
}

fn included(mut fields: Vec<Vec<Token>>, dir: &Path) -> Vec<Vec<Token>> {
    if let [first, second] = &mut fields[..]
        && let [Token::Word(how) | Token::Quoted(how)] = &first[..]
        && matches!(how.as_str(), "include" | "include_if_exists" | "include_dir")
        && let [Token::Word(name) | Token::Quoted(name)] = &second[..]
    {
        return vec![vec![Token::Include(how.clone(), dir.join(name))]];
    }
    fields
}

/// `next_field_expand`.
fn field(rest: &mut &str, dir: &Path) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    loop {
        let mut comma = false;
        let Some((text, quoted)) = token(rest, &mut comma) else { break };
        tokens.push(match text.strip_prefix('@') {
            Some(name) if !quoted && !name.is_empty() => Token::File(dir.join(name)),
            _ if quoted => Token::Quoted(text),
            _ => Token::Word(text),
        });
        if !comma {
            break;
        }
    }
    (!tokens.is_empty()).then_some(tokens)
}

/// `next_token`: the text, and whether it begins with a quote.
fn token(rest: &mut &str, comma: &mut bool) -> Option<(String, bool)> {
    *rest = rest.trim_start_matches([' ', '\t', '\r', ',']);
    let (mut text, mut quoted, mut saw, mut inside, mut was) = (String::new(), false, false, false, false);
    let all = *rest;
    let mut end = all.len();
    for (at, c) in all.char_indices() {
        let outside = !inside;
        if outside && matches!(c, ' ' | '\t' | '\r') {
            end = at;
            break;
        }
        if outside && c == '#' {
            break;
        }
        if outside && c == ',' {
            *comma = true;
            end = at + 1;
            break;
        }
        if c != '"' || was {
            text.push(c);
        }
        was = inside && c == '"' && !was;
        if c == '"' {
            inside = !inside;
            saw = true;
            quoted |= text.is_empty();
        }
    }
    *rest = &all[end..];
    (saw || !text.is_empty()).then_some((text, quoted))
}
