//! PostgreSQL's csvlog (for 13 and 14, which have no jsonlog) → the log's own JSON, with the keys that jsonlog has.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

use super::{
    Format, Level,
    postgres_json::{is_integer, logger},
    raw::cut_raw,
    record::{Record, Value, is_time},
    splitter::MAX_LINE,
};
use crate::secrets;

/// The columns, PostgreSQL documentation "Using CSV-Format Log Output", by the names that jsonlog gives them. In the
/// place of `remote_host` stands `host:port`, in that of `func_name` `function, file:line`.
const COLUMNS: [&str; 26] = [
    "timestamp",
    "user",
    "dbname",
    "pid",
    "remote_host",
    "session_id",
    "line_num",
    "ps",
    "session_start",
    "vxid",
    "txid",
    "error_severity",
    "state_code",
    "message",
    "detail",
    "hint",
    "internal_query",
    "internal_position",
    "context",
    "statement",
    "cursor_position",
    "func_name",
    "application_name",
    "backend_type",
    "leader_pid",
    "query_id",
];

/// Where [`COLUMNS`] has "message", and "detail" after it.
const MESSAGE: usize = 13;
const DETAIL: usize = 14;

/// PostgreSQL 13 ends with `backend_type`, 14 with `query_id`.
const COUNTS: [usize; 2] = [24, 26];

/// The columns that are numbers in jsonlog.
const NUMBERS: [&str; 7] =
    ["pid", "line_num", "txid", "internal_position", "cursor_position", "leader_pid", "query_id"];

/// Room for the values of a usual record; grows for a longer one.
const IDLE: usize = if cfg!(feature = "fuzzing") { 512 } else { 8 << 10 };

/// Reads csvlog in pieces of any size; holds the last, incomplete record.
pub(crate) struct CsvLog {
    reader: Reader,
    /// The values of the record so far, one after the other.
    values: Vec<u8>,
    length: usize,
    ends: [usize; COLUMNS.len() + 1],
    columns: usize,
    /// Whether its end has come. Without it, as many columns as a record has may be only the first ones.
    whole: bool,
    /// How much of a record beyond [`MAX_LINE`] was thrown away.
    cut: u64,
}

impl Default for CsvLog {
    fn default() -> CsvLog {
        let reader = ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
        CsvLog {
            reader,
            values: vec![0; IDLE],
            length: 0,
            ends: [0; COLUMNS.len() + 1],
            columns: 0,
            whole: false,
            cut: 0,
        }
    }
}

impl CsvLog {
    /// Calls `each` for every record that is complete with `bytes`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&CsvLog)) {
        while !bytes.is_empty() {
            let (values, ends) = (&mut self.values[self.length..], &mut self.ends[self.columns..]);
            let (result, read, written, ended) = self.reader.read_record(bytes, values, ends);
            bytes = &bytes[read..];
            self.length += written;
            self.columns += ended;
            match result {
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
                ReadRecordResult::OutputFull => self.grow(),
                // Not a record of PostgreSQL's; of those that come now only the last is remembered.
                ReadRecordResult::OutputEndsFull => self.columns = COLUMNS.len(),
                ReadRecordResult::Record => {
                    self.whole = true;
                    each(self);
                    self.clear();
                }
            }
        }
    }

    /// Calls `each` with the last record if it is incomplete.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&CsvLog)) {
        if self.length > 0 {
            each(self);
        }
        *self = CsvLog::default();
    }

    fn grow(&mut self) {
        if self.values.len() < MAX_LINE {
            self.values.resize(2 * self.values.len(), 0);
        } else {
            self.length = MAX_LINE / 2;
            self.cut += (MAX_LINE - self.length) as u64;
        }
    }

    fn clear(&mut self) {
        (self.length, self.columns, self.whole, self.cut) = (0, 0, false, 0);
        self.values.truncate(IDLE);
        self.values.shrink_to_fit();
    }

    /// Appends to `out` the one line for this record, as [`postgres_json`](super::postgres_json()) would for the same
    /// message. What is not a whole record of PostgreSQL's is logged as raw text, its values with commas between.
    pub(super) fn write(&self, format: Format, out: &mut Vec<u8>) {
        let ends = &self.ends[..self.columns];
        let starts = [0].iter().chain(ends);
        if self.whole && self.cut == 0 && COUNTS.contains(&self.columns) {
            let mut values: Vec<_> =
                starts.zip(ends).map(|(&start, &end)| String::from_utf8_lossy(&self.values[start..end])).collect();
            for value in &mut values[MESSAGE..=DETAIL] {
                if let Some(text) = secrets::without_secret(value) {
                    *value = Cow::Owned(text);
                }
            }
            if values[0].get(..23).is_some_and(is_time) {
                return write(&values, format, out);
            }
        }
        cut_raw("postgres", &self.text(), self.cut, format, out);
    }

    /// What there is of a record, with commas where columns end.
    fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.length + self.columns);
        let mut start = 0;
        for &end in self.ends[..self.columns].iter().filter(|&&end| end < self.length) {
            text.extend_from_slice(&self.values[start..end]);
            text.push(b',');
            start = end;
        }
        text.extend_from_slice(&self.values[start..self.length]);
        text
    }
}

fn write(values: &[Cow<str>], format: Format, out: &mut Vec<u8>) {
    let mut fields = Vec::with_capacity(COLUMNS.len() + 3);
    let (mut severity, mut state_code, mut message) = ("", "", "");
    for (&key, value) in COLUMNS.iter().zip(values) {
        let value: &str = value;
        match key {
            "timestamp" => continue,
            "message" => {
                message = value;
                continue;
            }
            "error_severity" => severity = value,
            "state_code" => state_code = value,
            _ => {}
        }
        push(key, value, &mut fields);
    }
    let level = Level::of_message(severity, state_code);
    let (ts, msg) = (Some(&*values[0]), Value::Text(message));
    Record { ts, level, logger: logger(message), msg, fields: &fields }.write(format, out);
}

/// Adds the fields that jsonlog has for one column: none for an empty one.
fn push<'a>(key: &'a str, value: &'a str, fields: &mut Vec<(&'a str, Value<'a>)>) {
    let number = |value| if is_integer(value) { Value::Json(value) } else { Value::Text(value) };
    match (key, value.rsplit_once(':')) {
        (_, _) if value.is_empty() => {}
        // Success, which jsonlog leaves out.
        ("state_code", _) if value == "00000" => {}
        ("remote_host", Some((host, port))) => {
            fields.extend([("remote_host", Value::Text(host)), ("remote_port", number(port))]);
        }
        ("func_name", Some((place, line))) => {
            let (function, file) = place.split_once(", ").map_or((None, place), |(name, file)| (Some(name), file));
            fields.extend(function.map(|name| ("func_name", Value::Text(name))));
            fields.extend([("file_name", Value::Text(file)), ("file_line_num", number(line))]);
        }
        _ if NUMBERS.contains(&key) => fields.push((key, number(value))),
        _ => fields.push((key, Value::Text(value))),
    }
}

#[cfg(test)]
mod tests;
