//! `queries.yaml`: the format of postgres_exporter's `--extend.query-path`, with CloudNativePG's `primary` and
//! `target_databases`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::version::Range;

/// A query and what its columns mean.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    /// One statement.
    pub(super) query: String,
    /// postgres_exporter: once for the server, not once for each database that it discovered. That is always so here.
    #[serde(default, rename = "master")]
    _master: bool,
    /// Only on a primary.
    #[serde(default)]
    pub(super) primary: bool,
    /// For how long an answer is good.
    #[serde(default)]
    pub(super) cache_seconds: u32,
    /// With which versions.
    #[serde(default)]
    pub(super) runonserver: Option<Range>,
    /// In which databases, by names and patterns; none: in `postgres`.
    #[serde(default)]
    pub(super) target_databases: Vec<String>,
    /// Its columns.
    pub(super) metrics: Vec<BTreeMap<Name, Column>>,
}

/// What a column means.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Column {
    pub(super) usage: Usage,
    #[serde(default)]
    pub(super) description: String,
    /// Numbers for the texts of a [`Usage::MappedMetric`].
    #[serde(default)]
    pub(super) metric_mapping: BTreeMap<String, f64>,
}

/// What is made of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Usage {
    /// A label of the row's other columns.
    Label,
    /// A value that goes up and down.
    Gauge,
    /// A value that only goes up.
    Counter,
    /// Upper bounds, with more columns: `_bucket`, `_sum`, `_count`.
    Histogram,
    /// A text that stands for a number.
    MappedMetric,
    /// A text such as `1m30s`, in milliseconds.
    Duration,
    /// Nothing.
    Discard,
}

/// A name that can be part of a metric's name, or a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Name(pub(super) String);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        match first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            _ if name.starts_with("podgres_") => Err(format!("{name:?}: names with podgres_ are podgres' own")),
            true => Ok(Self(name)),
            false => Err(format!("{name:?} is not a name of letters, digits and _")),
        }
    }
}

/// All queries, by the beginning of their metrics' names.
pub(super) type Queries = BTreeMap<Name, Query>;

/// Reads the file's text.
///
/// # Errors
/// The first mistake, with its line in front.
pub(super) fn parse(text: &str) -> Result<Queries, String> {
    let nothing = text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
    if nothing {
        return Ok(Queries::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|l| format!("{}: ", l.line())).unwrap_or_default();
        // The first line says it; a picture of the file follows.
        let what = error.without_snippet().to_string();
        let what = what.lines().next().unwrap_or_default();
        format!("{line}{}", what.rsplit_once(" at line ").map_or(what, |(text, _)| text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
# a comment
app_orders:
  query: "select state, count(*) as count from orders group by state"
  master: true
  primary: true
  cache_seconds: 30
  runonserver: ">=15.0.0"
  target_databases: ["app", "tenant_*"]
  metrics:
    - state:
        usage: "LABEL"
        description: "State"
    - count: {usage: GAUGE, description: Orders}
    - mood: {usage: MAPPEDMETRIC, metric_mapping: {good: 1, bad: 0}}
"#;

    #[test]
    fn a_good_file() {
        let queries = parse(GOOD).unwrap();
        let query = &queries[&Name("app_orders".into())];
        assert!(query.primary && query.cache_seconds == 30 && query.target_databases == ["app", "tenant_*"]);
        assert!(query.runonserver.as_ref().unwrap().contains(150_000));
        assert_eq!(query.metrics[1][&Name("count".into())].usage, Usage::Gauge);
        assert_eq!(query.metrics[2][&Name("mood".into())].metric_mapping["good"], 1.0);
        assert!(parse("").unwrap().is_empty() && parse("# nothing\n").unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (from, to, line, word) in [
            ("GAUGE", "GUAGE", "14: ", "GUAGE"),
            ("cache_seconds", "cache_second", "7: ", "cache_second"),
            (">=15.0.0", "new", "8: ", "range of versions"),
            ("app_orders", "app-orders", "3: ", "app-orders"),
            ("app_orders", "podgres_orders", "3: ", "own"),
            ("cache_seconds: 30", "cache_seconds: soon", "7: ", "u32"),
        ] {
            let error = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.starts_with(line) && error.contains(word), "{from} → {to}: {error}");
        }
    }

    #[test]
    fn a_query_of_the_same_name_twice_is_a_mistake() {
        assert!(parse(&format!("{GOOD}{}", GOOD.trim_start())).is_err());
    }
}
