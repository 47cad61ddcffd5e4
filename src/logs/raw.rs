//! Any line of text → one line of the log.

use super::{
    Format, Level,
    record::{Record, Value, is_time},
};
use crate::secrets;

/// Appends to `out` the one line for a `line` of text (without its newline) that `logger` wrote.
///
/// Takes any bytes: what is not UTF-8 is replaced, a `\r` at the end cut. A severity at the start, as PostgreSQL's
/// programs write it, sets the level (else `info`). A line with the prefix that the server uses before its logging
/// collector runs (`2026-11-23 10:11:12.123 UTC [42] LOG:  message`) is taken apart.
pub fn raw(logger: &str, line: &[u8], format: Format, out: &mut Vec<u8>) {
    cut_raw(logger, line, 0, format, out);
}

/// [`raw`] for a line that lost its last `cut` bytes, which is said in `truncated_bytes` unless it is 0.
pub(super) fn cut_raw(logger: &str, line: &[u8], cut: u64, format: Format, out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
    let cut_text = cut.to_string();
    let truncated = ("truncated_bytes", Value::Json(&cut_text));
    let skip = usize::from(cut == 0);
    if let Some(Prefixed { ts, pid, severity, message }) = Prefixed::parse(&text) {
        let level = Level::of_severity(severity).unwrap_or(Level::Info);
        let hidden = secrets::without_secret(message);
        let message = hidden.as_deref().unwrap_or(message);
        let fields = [truncated, ("pid", Value::Json(pid)), ("error_severity", Value::Text(severity))];
        Record { ts: Some(ts), level, logger, msg: Value::Text(message), fields: &fields[skip..] }.write(format, out);
    } else {
        let level = level(&text).unwrap_or(Level::Info);
        let hidden = secrets::without_secret(&text);
        let text = hidden.as_deref().unwrap_or(&text);
        Record { ts: None, level, logger, msg: Value::Text(text), fields: &[truncated][skip..] }.write(format, out);
    }
}

/// The level that a line states at its start: `ERROR:  …`, `pg_basebackup: error: …`, `psql:/x.sql:1: ERROR:  …`.
fn level(text: &str) -> Option<Level> {
    let (first, rest) = text.split_once(": ")?;
    Level::of_severity(first).or_else(|| {
        let program = !first.contains(' ');
        Level::of_severity(rest.split_once(": ")?.0).filter(|_| program)
    })
}

/// A line with PostgreSQL's default `log_line_prefix`, `%m [%p] `.
struct Prefixed<'a> {
    ts: &'a str,
    pid: &'a str,
    severity: &'a str,
    message: &'a str,
}

impl<'a> Prefixed<'a> {
    fn parse(text: &'a str) -> Option<Prefixed<'a>> {
        let (ts, rest) = text.split_once(" [")?;
        let (time, zone) = ts.split_at_checked(23)?;
        let (pid, rest) = rest.split_once("] ")?;
        let (severity, message) = rest.split_once(":  ")?;
        Level::of_severity(severity)?;
        let number = pid.parse::<u32>().is_ok_and(|number| number > 0) && !pid.starts_with(['+', '0']);
        (is_time(time) && zone.starts_with(' ') && number).then_some(Prefixed { ts, pid, severity, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    fn parsed(logger: &str, line: &[u8]) -> Json {
        let mut out = Vec::new();
        raw(logger, line, Format::Json, &mut out);
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(out.last(), Some(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn lines_of_any_length() {
        for length in [0, 1, 4096, 1 << 20] {
            let line = "ä".repeat(length);
            assert_eq!(parsed("initdb", line.as_bytes())["msg"], line);
        }
    }

    #[test]
    fn what_is_not_text_is_replaced_or_escaped() {
        assert_eq!(parsed("x", b"a\xffb\0c\x1b[1m\r")["msg"], "a\u{fffd}b\0c\u{1b}[1m");
    }

    #[test]
    fn severities_set_the_level() {
        for (line, level) in [
            ("FATAL:  no", "fatal"),
            ("HINT:  do", "info"),
            ("pg_basebackup: error: connection refused", "error"),
            ("psql:/docker-entrypoint-initdb.d/a.sql:3: ERROR:  syntax error", "error"),
            ("WARNING: enabling \"trust\"", "warn"),
            ("a sentence: error: inside", "info"),
            ("plain", "info"),
        ] {
            let json = parsed("initdb", line.as_bytes());
            assert_eq!((&json["level"], &json["msg"]), (&level.into(), &line.into()));
        }
    }

    #[test]
    fn the_default_prefix_is_taken_apart() {
        let json = parsed("postgres", b"2026-11-23 10:11:12.123 UTC [42] LOG:  starting PostgreSQL: 15");
        let expected = serde_json::json!({"ts": "2026-11-23T10:11:12.123Z", "level": "info", "logger": "postgres",
            "msg": "starting PostgreSQL: 15", "pid": 42, "error_severity": "LOG"});
        assert_eq!(json, expected);
    }

    #[test]
    fn a_value_that_nobody_is_to_see_is_hidden_with_the_prefix_and_without() {
        for (prefix, pid) in [("2026-11-23 10:11:12.123 UTC [42] LOG:  ", true), ("", false)] {
            let json = parsed("x", format!("{prefix}parameter \"primary_conninfo\" changed to \"hush\"").as_bytes());
            assert_eq!(json["msg"], "parameter \"primary_conninfo\" changed to \"…\"");
            assert_eq!(json.get("pid").is_some(), pid);
        }
    }

    #[test]
    fn what_only_resembles_the_prefix_is_left_alone() {
        for line in [
            "2026-11-23 10:11:12.123 UTC [042] LOG:  x",
            "2026-11-23 10:11:12.123 UTC [42] WORD:  x",
            "2026-11-23 10:11:12 UTC [42] LOG:  x",
            "ääääääääääää [42] LOG:  x",
        ] {
            assert_eq!(parsed("postgres", line.as_bytes())["msg"], line);
        }
    }

    #[test]
    fn a_cut_line_says_so() {
        let mut out = Vec::new();
        cut_raw("x", b"beginning", 7, Format::Json, &mut out);
        let json: Json = serde_json::from_slice(&out).unwrap();
        assert_eq!((&json["msg"], &json["truncated_bytes"]), (&"beginning".into(), &7.into()));
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_valid_line(bytes: Vec<u8>) {
            let json = parsed("x", &bytes);
            let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(&bytes));
            prop_assert_eq!(json["msg"].as_str(), Some(&*text));
        }

        #[test]
        fn valid_text_round_trips(text in "\\PC*|[\\x00-\\x7f]*") {
            prop_assume!(!text.ends_with('\r'));
            let json = parsed("x", text.as_bytes());
            prop_assert_eq!(json["msg"].as_str(), Some(&*text));
        }
    }
}
