//! PostgreSQL's jsonlog (15 and later) → the log's own JSON.
//!
//! Read by hand, since it runs for every statement under `log_statement = all`: what Postgres has escaped already is
//! checked once and copied as it stands. Reading with serde_json's raw values alone takes more instructions (10,000 for
//! a usual line) than reading and writing here (8,000).

use std::{fmt::Write, str};

use super::{
    Format, Level,
    raw::raw,
    record::{Record, Value},
};
use crate::secrets;

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
    let message = Message::read(line)?;
    if message.may_tell
        && let Some(line) = without_secrets(line)
    {
        put(&Message::read(&line)?, &line, format, out);
    } else {
        put(&message, line, format, out);
    }
    Some(())
}

fn put(message: &Message, line: &str, format: Format, out: &mut Vec<u8>) {
    let &Message { ts, severity, state_code, msg, before, after, .. } = message;
    let fields = match format {
        Format::Json => Vec::new(),
        Format::Text => Members::new(line).map(|(key, value)| (key, Value::Json(value))).collect(),
    };
    let record = Record {
        ts: Some(ts),
        level: Level::of_message(severity, state_code),
        logger: logger(unquote(msg)),
        msg: Value::Json(msg),
        fields: &fields,
    };
    match format {
        Format::Json => record.write_spliced([before, after], out),
        Format::Text => record.write(format, out),
    }
}

/// The line with the values hidden that nobody is to see. None: it has none.
fn without_secrets(line: &str) -> Option<String> {
    let mut clean = String::from("{");
    let mut found = false;
    for (index, (key, value)) in Members::new(line).enumerate() {
        let hidden = matches!(key, "message" | "detail").then(|| secrets::without_secret(&Value::Json(value).text()));
        let hidden = hidden.flatten().and_then(|text| serde_json::to_string(&text).ok());
        found |= hidden.is_some();
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(clean, "{comma}\"{key}\":{}", hidden.as_deref().unwrap_or(value));
    }
    found.then(|| clean + "}")
}

/// Who wrote a message that came through the server's log.
pub(super) fn logger(message: &str) -> &'static str {
    if message.starts_with("AUDIT: ") { "pgaudit" } else { "postgres" }
}

/// What has to be known of a line.
struct Message<'a> {
    ts: &'a str,
    severity: &'a str,
    state_code: &'a str,
    msg: &'a str,
    /// The members between `timestamp`, which comes first, and `message`, each with the comma before it.
    before: &'a str,
    /// Likewise those that follow `message`.
    after: &'a str,
    /// Whether it has the looks of one that tells a setting's value.
    may_tell: bool,
}

impl<'a> Message<'a> {
    fn read(line: &'a str) -> Option<Message<'a>> {
        let mut members = Members::new(line);
        let ("timestamp", ts) = members.next()? else { return None };
        let (first, end) = (members.at, line.len().checked_sub(1)?);
        let (mut severity, mut state_code, mut msg) = ("", "", "\"\"");
        let mut place = end..end;
        let mut start = first;
        let mut may_tell = false;
        while let Some((key, value)) = members.next() {
            may_tell |= matches!(key, "message" | "detail")
                && secrets::BEGINNINGS.iter().any(|b| unquote(value).starts_with(b));
            match key {
                "error_severity" => severity = unquote(value),
                "state_code" => state_code = unquote(value),
                "message" => (msg, place) = (value, start..members.at),
                _ => {}
            }
            start = members.at;
        }
        (members.at == end && line.ends_with('}')).then(|| Message {
            ts: unquote(ts),
            severity,
            state_code,
            msg,
            before: &line[first..place.start],
            after: &line[place.end..end],
            may_tell,
        })
    }
}

/// The members of a flat JSON object, as PostgreSQL writes it: without white space, of strings and integers only. Each
/// is a key without its quotes and a value as it stands. Ends before whatever is not a whole member.
struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Members<'a> {
    fn new(text: &'a str) -> Members<'a> {
        Members { text, at: 0 }
    }

    fn bytes(&self, at: usize) -> &'a [u8] {
        self.text.as_bytes().get(at..).unwrap_or_default()
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let start = if self.at == 0 { b'{' } else { b',' };
        self.bytes(self.at).first().filter(|&&byte| byte == start)?;
        let key = self.at + 1;
        let colon = key + string(self.bytes(key))?;
        self.bytes(colon).first().filter(|&&byte| byte == b':')?;
        let value = colon + 1;
        let bytes = self.bytes(value);
        let end = value + string(bytes).or_else(|| integer(bytes))?;
        self.at = end;
        Some((unquote(self.text.get(key..colon)?), self.text.get(value..end)?))
    }
}

/// The length of the JSON string, quotes included, that `bytes` begin with.
fn string(bytes: &[u8]) -> Option<usize> {
    let mut at = if bytes.first() == Some(&b'"') { 1 } else { return None };
    loop {
        at += plain(&bytes[at..]);
        at += match bytes[at..] {
            [b'"', ..] => return Some(at + 1),
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            // Only control characters are written so (escape_json, json.c); halves of others would be no JSON.
            [b'\\', b'u', b'0', b'0', a, b, ..] if [a, b].iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
    }
}

/// How many bytes there are before one that does not stand for itself in a JSON string: a quote, a backslash, a control
/// character. Looks at eight at a time, which halves the time of a whole line.
fn plain(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks();
    let whole = 8 * words.iter().take_while(|&&word| !may_be_special(u64::from_ne_bytes(word))).count();
    whole + bytes[whole..].iter().take_while(|&&byte| byte >= b' ' && byte != b'"' && byte != b'\\').count()
}

/// Whether one of the eight bytes of `word` is special, as [`plain`] means it; may be wrong about a word with another
/// special byte only. For the arithmetic see "Bit Twiddling Hacks", "Determine if a word has a byte less than n".
fn may_be_special(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let less = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let equal = |byte: u8| less(word ^ (ONES * u64::from(byte)), 1);
    (less(word, 32) | equal(b'"') | equal(b'\\')) & (ONES << 7) != 0
}

/// The length of the integer that `bytes` begin with.
fn integer(bytes: &[u8]) -> Option<usize> {
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let digits = bytes[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let zero = bytes[sign..].first() == Some(&b'0');
    (digits == 1 || digits > 1 && !zero).then_some(sign + digits)
}

/// Whether `text` is an integer as JSON writes it.
pub(super) fn is_integer(text: &str) -> bool {
    integer(text.as_bytes()) == Some(text.len())
}

/// A JSON string without its quotes, escapes left as they are.
fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests;
