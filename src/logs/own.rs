//! Podgres' own events (`tracing::info!` and its like) → lines.

use std::fmt::{Debug, Write};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::{SetGlobalDefaultError, set_global_default},
};
use tracing_subscriber::{
    Registry,
    layer::{Context, Layer, SubscriberExt},
};

use super::{
    Level, Sink,
    record::{Record, Value},
};

/// From now on, every event of level info and up in this process becomes a line in `sink`: its message as `msg`, its
/// fields beside it, `podgres` as `logger` unless the event has a field of that name. Fails if called twice.
pub fn init(sink: Sink) -> Result<(), SetGlobalDefaultError> {
    set_global_default(Registry::default().with(Own(sink)))
}

struct Own(Sink);

impl<S: Subscriber> Layer<S> for Own {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        LevelFilter::INFO >= *metadata.level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let values: Vec<_> = fields.rest.iter().map(|(key, json)| (*key, Value::Json(json))).collect();
        let record = Record {
            ts: None,
            level: level(*event.metadata().level()),
            logger: fields.logger.as_deref().unwrap_or("podgres"),
            msg: Value::Text(&fields.message),
            fields: &values,
        };
        let mut line = Vec::new();
        record.write(self.0.format(), &mut line);
        self.0.push(&line);
    }
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
    }
}

/// The fields of one event; `rest` as JSON.
#[derive(Default)]
struct Fields {
    message: String,
    logger: Option<String>,
    rest: Vec<(&'static str, String)>,
}

impl Fields {
    fn number(&mut self, field: &Field, value: impl ToString) {
        self.rest.push((field.name(), value.to_string()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A message comes as format arguments, whose Debug is their text; so does `%value`.
        if field.name() == "message" {
            // Writing to a String cannot fail, and a Debug that does costs its own text only.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.record_str(field, &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            "logger" => self.logger = Some(value.to_owned()),
            name => self.rest.push((name, serde_json::Value::from(value).to_string())),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // NaN and infinity, which JSON has not, become null.
        self.number(field, serde_json::Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{Format, sink::Captured};
    use serde_json::json;

    fn logged(events: impl FnOnce()) -> Vec<serde_json::Value> {
        let (sink, captured) = Captured::sink(Format::Json);
        tracing::subscriber::with_default(Registry::default().with(Own(sink.clone())), events);
        captured.json(&sink)
    }

    #[test]
    fn an_event_becomes_a_line() {
        let mut lines = logged(|| {
            let error = std::io::Error::other("no \"disk\"");
            tracing::warn!(pid = 42, ratio = 0.5, ok = true, %error, name = "x", nan = f64::NAN, "{} failed", "start");
        });
        let line = lines.pop().unwrap();
        assert!(humantime::parse_rfc3339(line["ts"].as_str().unwrap()).is_ok());
        let expected = json!({"ts": line["ts"], "level": "warn", "logger": "podgres", "msg": "start failed", "pid": 42,
            "ratio": 0.5, "ok": true, "error": "no \"disk\"", "name": "x", "nan": null});
        assert_eq!(line, expected);
    }

    #[test]
    fn the_logger_can_be_named_and_debug_is_left_out() {
        let lines = logged(|| {
            tracing::debug!("too much");
            tracing::error!(logger = "initdb", "failed");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!((&lines[0]["logger"], &lines[0]["level"]), (&json!("initdb"), &json!("error")));
    }
}
