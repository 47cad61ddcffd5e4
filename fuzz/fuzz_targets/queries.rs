//! `queries.yaml`, and what is made of the rows that PostgreSQL answers. An input is the file, a zero byte, and the rows:
//! lines of values with bars between, the columns' names first.

#![no_main]

use libfuzzer_sys::fuzz_target;
use podgres::fuzzing;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (yaml, rows) = text.split_once('\0').unwrap_or((&text, ""));
    let mut lines = rows.lines();
    let columns: Vec<String> = lines.next().unwrap_or_default().split('|').map(String::from).collect();
    let row = |line: &str| {
        let mut values: Vec<_> = line.split('|').map(|v| (v != "~").then(|| v.to_string())).collect();
        values.resize(columns.len(), None);
        values
    };
    let rows: Vec<_> = lines.map(row).collect();
    match fuzzing::metrics(yaml, &columns, &rows) {
        Ok(text) => is_openmetrics(&text),
        Err(why) => assert!(!why.is_empty()),
    }
});

/// As far as a line can be told by itself (<https://github.com/prometheus/OpenMetrics>).
fn is_openmetrics(text: &str) {
    let lines = text.strip_suffix("# EOF\n").expect("it ends");
    let mut seen = std::collections::BTreeSet::new();
    for line in lines.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            is_sample(line);
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        assert!(matches!(kind, "HELP" | "TYPE" | "UNIT"), "{line}");
        assert!(kind != "TYPE" || seen.insert(name), "{name} is there twice");
        assert!(is_name(name), "{line}");
    }
}

fn is_sample(line: &str) {
    let end = line.find(['{', ' ']).unwrap_or(line.len());
    assert!(is_name(&line[..end]), "{line}");
    let rest = match line[end..].strip_prefix('{') {
        Some(labels) => after_labels(labels).unwrap_or_else(|| panic!("labels: {line}")),
        None => &line[end..],
    };
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let special = matches!(value, "+Inf" | "-Inf" | "NaN" | "inf" | "-inf");
    assert!(special || value.parse::<f64>().is_ok(), "no number: {line}");
}

/// What follows the brace that closes.
fn after_labels(mut text: &str) -> Option<&str> {
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Some(rest);
        }
        let (name, value) = text.split_once("=\"")?;
        if !is_name(name.trim_start_matches(',')) {
            return None;
        }
        let mut escaped = false;
        let end = value.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        })?;
        text = &value[end + 1..];
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':'))
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
}
