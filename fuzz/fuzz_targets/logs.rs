//! Logs in pieces: whatever comes in, each line of it is one valid line of JSON, and nothing is lost.

#![no_main]

use libfuzzer_sys::fuzz_target;
use podgres::{
    fuzzing,
    logs::{Format, Kind},
};
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    let [what, size, data @ ..] = data else { return };
    let kind = [None, Some(Kind::Json), Some(Kind::Csv)][usize::from(what % 3)];
    let input = stretched(data);
    let size = usize::from(*size).max(1);
    let lines = fuzzing::logged(kind, Format::Json, input.chunks(size));
    let lines: Vec<Map<String, Value>> = lines.iter().map(|line| valid(line)).collect();
    // As much as is read at a time is never a whole line that is too long.
    let read = fuzzing::MAX_LINE / 2;
    let whole = fuzzing::logged(kind, Format::Json, input.chunks(read));
    let whole: Vec<Map<String, Value>> = whole.iter().map(|line| valid(line)).collect();
    assert!(lines.iter().map(timeless).eq(whole.iter().map(timeless)), "pieces matter:\n{lines:?}\n{whole:?}");
    match kind {
        None => assert_each(&input, &lines, as_text),
        Some(Kind::Json) => assert_each(&input, &lines, as_json),
        Some(Kind::Csv) => {}
    }
    nothing_is_lost(&input, &lines);
    for line in fuzzing::logged(kind, Format::Text, input.chunks(read)) {
        assert!(line.ends_with(b"\n"));
    }
});

/// `\xff`, and how often to repeat the sixteen bytes before it: lines that are too long, of few bytes.
fn stretched(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = data.iter();
    while let Some(&byte) = rest.next() {
        match (byte, rest.as_slice().first()) {
            (0xff, Some(&count)) if out.len() < 3 * fuzzing::MAX_LINE => {
                rest.next();
                let last = out[out.len().saturating_sub(16)..].to_vec();
                out.extend(last.repeat(usize::from(count)));
            }
            _ => out.push(byte),
        }
    }
    out
}

fn valid(line: &[u8]) -> Map<String, Value> {
    assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1), "not one line");
    let parsed = serde_json::from_slice(line);
    let object: Map<String, Value> =
        parsed.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
    for key in ["ts", "level", "logger", "msg"] {
        assert!(object.contains_key(key), "no {key}: {object:?}");
    }
    for key in ["msg", "detail"] {
        let text = object.get(key).and_then(Value::as_str).unwrap_or_default();
        if let Some(value) = text.strip_prefix("parameter \"primary_conninfo\" changed to \"") {
            assert!(value == "…\"" || value == "\"" || value.is_empty(), "a connection string is told: {text}");
        }
    }
    object
}

/// Without the time, which may be that of the test.
fn timeless(line: &Map<String, Value>) -> Map<String, Value> {
    line.iter().filter(|(key, _)| *key != "ts").map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn assert_each(input: &[u8], lines: &[Map<String, Value>], fits: impl Fn(&[u8], &Map<String, Value>)) {
    let mut expected: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();
    expected.pop_if(|line| line.is_empty());
    assert_eq!(expected.len(), lines.len(), "a line is lost, or there is one too many");
    expected.iter().zip(lines).for_each(|(came, logged)| fits(came, logged));
}

fn as_text(came: &[u8], logged: &Map<String, Value>) {
    let cut = logged.get("truncated_bytes").and_then(Value::as_u64).unwrap_or(0);
    assert_eq!(cut, came.len().saturating_sub(fuzzing::MAX_LINE) as u64);
    let kept = &came[..came.len().min(fuzzing::MAX_LINE)];
    let text = String::from_utf8_lossy(kept.strip_suffix(b"\r").unwrap_or(kept));
    let message = logged["msg"].as_str().expect("a text");
    // What has the server's prefix is taken apart.
    let taken_apart = logged.contains_key("pid") && text.ends_with(message);
    assert!(text == message || taken_apart || message.contains('…'), "{text:?} became {message:?}");
}

fn as_json(came: &[u8], logged: &Map<String, Value>) {
    let text = String::from_utf8_lossy(came);
    let members = text.starts_with("{\"timestamp\":").then(|| serde_json::from_str::<Map<String, Value>>(&text).ok());
    let members = match members.flatten() {
        _ if logged.contains_key("truncated_bytes") => return as_text(came, logged),
        Some(members) if logged.contains_key("message") || logged["msg"] != *text => members,
        // Another form, or torn.
        _ => return as_text(came, logged),
    };
    for (key, value) in members {
        let own = matches!(key.as_str(), "ts" | "level" | "logger" | "msg" | "timestamp" | "message");
        let hidden = logged.get(&key).is_some_and(|v| v.to_string().contains('…'));
        assert!(own || hidden || logged.get(&key) == Some(&value), "{key} is not {value}: {logged:?}");
    }
}

/// Counted by a letter that is in no name and no word of ours.
fn nothing_is_lost(input: &[u8], lines: &[Map<String, Value>]) {
    let whole = lines.iter().all(|line| {
        !line.contains_key("truncated_bytes") && !line.values().any(|v| v.as_str().is_some_and(|v| v.contains('…')))
    });
    let escaped = input.contains(&b'\\');
    if whole && !escaped {
        let came = input.iter().filter(|&&byte| byte == b'z').count();
        let logged = |line: &Map<String, Value>| Value::from(line.clone()).to_string().matches('z').count();
        assert_eq!(lines.iter().map(logged).sum::<usize>(), came, "{lines:?}");
    }
}
