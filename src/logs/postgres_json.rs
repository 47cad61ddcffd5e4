//! PostgreSQL's jsonlog (15 and later) → the log's own JSON.
//!
//! Written by hand, since it runs for every statement under `log_statement = all`: the values that Postgres has already
//! escaped are checked and copied, never decoded.

use std::str;

use memchr::memchr2;

use super::{
    Format, Level,
    raw::raw,
    record::{Record, Value},
};

/// More than PostgreSQL has (29 in version 18).
const MAX_FIELDS: usize = 48;

/// Appends to `out` the one line for a line of jsonlog (without its newline).
///
/// `timestamp` becomes `ts`, `message` becomes `msg`, and all other fields keep their names; `level` follows from
/// `error_severity`; `logger` is `postgres`, or `pgaudit` for what that extension logs. A line that is not as
/// PostgreSQL writes it (torn by a crash) is logged as [`raw`] text.
pub fn postgres_json(line: &[u8], format: Format, out: &mut Vec<u8>) {
    // The server's messages have the encoding of the database, so this need not be UTF-8.
    let written = match str::from_utf8(line) {
        Ok(text) => write(text, format, out),
        Err(_) => write(&String::from_utf8_lossy(line), format, out),
    };
    if written.is_none() {
        raw("postgres", line, format, out);
    }
}

/// `None`, with nothing written, if `line` is not what PostgreSQL writes.
fn write(line: &str, format: Format, out: &mut Vec<u8>) -> Option<()> {
    if has_control(line.as_bytes()) {
        return None;
    }
    let (mut ts, mut severity, mut state_code, mut msg) = (None, "", "", "\"\"");
    let mut fields = [("", Value::Text("")); MAX_FIELDS];
    let mut count = 0;
    let mut rest = line.strip_prefix('{')?;
    loop {
        let (key, value, after) = member(rest)?;
        match key {
            "timestamp" => ts = Some(unquote(value)),
            "message" => msg = value,
            _ => {
                match key {
                    "error_severity" => severity = unquote(value),
                    "state_code" => state_code = unquote(value),
                    _ => {}
                }
                *fields.get_mut(count)? = (key, Value::Json(value));
                count += 1;
            }
        }
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after == "}" => break,
            None => return None,
        }
    }
    let record = Record {
        ts: Some(ts?),
        level: Level::of_message(severity, state_code),
        logger: logger(unquote(msg)),
        msg: Value::Json(msg),
        fields: &fields[..count],
    };
    record.write(format, out);
    Some(())
}

/// Who wrote a message that came through the server's log.
pub(super) fn logger(message: &str) -> &'static str {
    if message.starts_with("AUDIT: ") { "pgaudit" } else { "postgres" }
}

/// Splits `"key":value` off the start: the key without quotes, the value as it stands, what follows.
fn member(text: &str) -> Option<(&str, &str, &str)> {
    let (key, rest) = string(text)?;
    let rest = rest.strip_prefix(':')?;
    let (value, rest) = if rest.starts_with('"') { string(rest)? } else { integer(rest)? };
    Some((unquote(key), value, rest))
}

/// Splits a JSON string, quotes included, off the start.
fn string(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut at = text.starts_with('"').then_some(1)?;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        at += match bytes.get(at..at + 2) {
            Some([b'\\', b'u']) if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
            Some([b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't']) => 2,
            Some([b'\\', _]) => return None,
            _ => return text.split_at_checked(at + 1).filter(|_| bytes[at] == b'"'),
        };
    }
}

/// Splits an integer off the start.
fn integer(text: &str) -> Option<(&str, &str)> {
    let end = text.find([',', '}'])?;
    let (number, rest) = text.split_at(end);
    is_integer(number).then_some((number, rest))
}

/// Whether `text` is an integer as JSON writes it.
pub(super) fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let zero = digits.starts_with('0') && digits.len() > 1;
    !digits.is_empty() && !zero && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A JSON string without its quotes, escapes left as they are.
fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// Whether there is a control character, which JSON forbids unescaped. Without early exit the loop is vectorised.
fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, &byte| found | (byte < b' '))
}

#[cfg(test)]
mod tests;
