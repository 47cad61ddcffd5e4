//! One entry of the log, whatever it came from, and how it is written.

use std::{borrow::Cow, io::Write, time::SystemTime};

use super::{Format, Level};

/// A value as it came: text, or JSON that is valid already and copied as it stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Json(&'a str),
}

/// One entry of the log.
pub(super) struct Record<'a> {
    /// When, as PostgreSQL prints it with `log_timezone = UTC`: `2026-11-23 10:11:12.123 UTC`. `None`: now.
    pub(super) ts: Option<&'a str>,
    pub(super) level: Level,
    pub(super) logger: &'a str,
    pub(super) msg: Value<'a>,
    pub(super) fields: &'a [(&'a str, Value<'a>)],
}

impl Record<'_> {
    /// Appends the entry and a newline to `out`.
    pub(super) fn write(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Json => {
                self.write_json_head(out);
                for (key, value) in self.fields {
                    out.extend_from_slice(b",\"");
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b"\":");
                    value.write_json(out);
                }
                out.push(b'}');
            }
            Format::Text => self.write_text(out),
        }
        out.push(b'\n');
    }

    /// Appends the entry as JSON with `members` in place of its fields: JSON already, each with a comma before it.
    pub(super) fn write_spliced(&self, members: [&str; 2], out: &mut Vec<u8>) {
        self.write_json_head(out);
        members.iter().for_each(|members| out.extend_from_slice(members.as_bytes()));
        out.extend_from_slice(b"}\n");
    }

    /// The object's beginning, without fields and closing brace.
    fn write_json_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"ts":"#);
        match self.ts.map(|ts| rfc3339(ts).ok_or(ts)) {
            Some(Ok(ts)) => {
                out.push(b'"');
                out.extend_from_slice(&ts);
                out.push(b'"');
            }
            Some(Err(ts)) => string(ts, out),
            None => string(&now(), out),
        }
        out.extend_from_slice(br#","level":""#);
        out.extend_from_slice(self.level.as_str().as_bytes());
        out.extend_from_slice(br#"","logger":"#);
        string(self.logger, out);
        out.extend_from_slice(br#","msg":"#);
        self.msg.write_json(out);
    }

    /// `2026-11-23 10:11:12.123 LOG [42] message`, or for any other logger than Postgres
    /// `2026-11-23 10:11:12.123 INFO initdb: message key=value`.
    fn write_text(&self, out: &mut Vec<u8>) {
        let field = |name| self.fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.text());
        let severity = field("error_severity");
        let time = self.ts.map_or_else(|| Cow::Owned(now().replace('T', " ")), Cow::Borrowed);
        out.extend_from_slice(time.get(..23).unwrap_or(&time).as_bytes());
        let word = severity.clone().unwrap_or_else(|| self.level.as_str().to_ascii_uppercase().into());
        // Writing to a Vec cannot fail, here and below.
        let _ = write!(out, " {word} ");
        if let Some(pid) = field("pid") {
            let _ = write!(out, "[{pid}] ");
        }
        if self.logger != "postgres" {
            let _ = write!(out, "{}: ", self.logger);
        }
        out.extend_from_slice(self.msg.text().as_bytes());
        for (key, value) in self.fields {
            let _ = match *key {
                "detail" | "hint" | "context" | "statement" => {
                    write!(out, "\n    {}:  {}", key.to_ascii_uppercase(), value.text())
                }
                // Of a jsonlog line all members come here.
                "timestamp" | "message" => Ok(()),
                // The rest of what Postgres says about a message (user, session, …) would bury it.
                _ if severity.is_some() => Ok(()),
                _ => write!(out, " {key}={}", value.text()),
            };
        }
    }
}

impl<'a> Value<'a> {
    fn write_json(self, out: &mut Vec<u8>) {
        match self {
            Value::Text(text) => string(text, out),
            Value::Json(json) => out.extend_from_slice(json.as_bytes()),
        }
    }

    /// The value for people: a JSON string without its quotes and escapes, anything else as it stands.
    pub(super) fn text(self) -> Cow<'a, str> {
        match self {
            Value::Text(text) => Cow::Borrowed(text),
            Value::Json(json) => serde_json::from_str(json).map_or(Cow::Borrowed(json), Cow::Owned),
        }
    }
}

/// Appends `text` as a JSON string.
fn string(text: &str, out: &mut Vec<u8>) {
    // Neither can a string fail to serialise nor a Vec to be written.
    let _ = serde_json::to_writer(out, text);
}

/// The time of day in the log's format.
fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// PostgreSQL's `2026-11-23 10:11:12.123 UTC` as `2026-11-23T10:11:12.123Z`; `None` if it is anything else.
pub(super) fn rfc3339(ts: &str) -> Option<[u8; 24]> {
    let time = ts.strip_suffix(" UTC").or_else(|| ts.strip_suffix(" GMT"))?;
    if !is_time(time) {
        return None;
    }
    let mut out = [b'Z'; 24];
    out[..23].copy_from_slice(time.as_bytes());
    out[10] = b'T';
    Some(out)
}

/// Whether `text` is of the form `2026-11-23 10:11:12.123`.
pub(super) fn is_time(text: &str) -> bool {
    const FORM: &[u8; 23] = b"0000-00-00 00:00:00.000";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, &form)| if form == b'0' { byte.is_ascii_digit() } else { byte == form })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(record: &Record, format: Format) -> String {
        let mut out = Vec::new();
        record.write(format, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_has_the_four_keys_first_and_escapes() {
        let record = Record {
            ts: Some("2026-11-23 10:11:12.123 UTC"),
            level: Level::Error,
            logger: "postgres",
            msg: Value::Text("a \"quoted\"\nline\u{1}"),
            fields: &[("pid", Value::Json("42")), ("detail", Value::Text("tab\t"))],
        };
        assert_eq!(
            write(&record, Format::Json),
            concat!(
                r#"{"ts":"2026-11-23T10:11:12.123Z","level":"error","logger":"postgres","msg":"a \"quoted\"\nline\u0001","#,
                r#""pid":42,"detail":"tab\t"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn another_time_zone_stays_as_it_is() {
        assert_eq!(rfc3339("2026-11-23 10:11:12.123 CET"), None);
        assert_eq!(rfc3339("2026-11-23 10:11:12 UTC"), None);
        assert_eq!(rfc3339("2026-11-23 10:11:12.123 GMT"), Some(*b"2026-11-23T10:11:12.123Z"));
    }

    #[test]
    fn text_is_for_people() {
        let fields = [
            ("pid", Value::Json("42")),
            ("error_severity", Value::Json("\"ERROR\"")),
            ("user", Value::Text("joe")),
            ("hint", Value::Json(r#""try\nagain""#)),
        ];
        let postgres = Record {
            ts: Some("2026-11-23 10:11:12.123 UTC"),
            level: Level::Error,
            logger: "postgres",
            msg: Value::Json(r#""two\nlines""#),
            fields: &fields,
        };
        assert_eq!(
            write(&postgres, Format::Text),
            "2026-11-23 10:11:12.123 ERROR [42] two\nlines\n    HINT:  try\nagain\n"
        );
        let own = Record {
            ts: None,
            level: Level::Info,
            logger: "podgres",
            msg: Value::Text("started"),
            fields: &[("after_ms", Value::Json("7"))],
        };
        let text = write(&own, Format::Text);
        assert!(is_time(&text[..23]), "{text}");
        assert_eq!(&text[23..], " INFO podgres: started after_ms=7\n");
    }
}
