//! `queries.yaml`: the format of postgres_exporter's `--extend.query-path`, with CloudNativePG's `primary` and
//! `target_databases`.

use std::collections::BTreeMap;

use super::{
    version::Range,
    yaml::{self, Mistake, Node},
};

/// A query and what its columns mean.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Query {
    /// One statement.
    pub(super) query: String,
    /// Only on a primary.
    pub(super) primary: bool,
    /// For how long an answer is good.
    pub(super) cache_seconds: u32,
    /// With which versions.
    pub(super) runonserver: Option<Range>,
    /// In which databases, by names and patterns; none: in `postgres`.
    pub(super) target_databases: Vec<String>,
    /// Its columns.
    pub(super) metrics: Vec<BTreeMap<Name, Column>>,
}

/// What a column means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(super) usage: Usage,
    pub(super) description: String,
    /// Numbers for the texts of a [`Usage::MappedMetric`].
    pub(super) metric_mapping: BTreeMap<String, f64>,
}

/// What is made of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
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

const USAGES: [(&str, Usage); 7] = [
    ("LABEL", Usage::Label),
    ("GAUGE", Usage::Gauge),
    ("COUNTER", Usage::Counter),
    ("HISTOGRAM", Usage::Histogram),
    ("MAPPEDMETRIC", Usage::MappedMetric),
    ("DURATION", Usage::Duration),
    ("DISCARD", Usage::Discard),
];

/// A name that can be part of a metric's name, or a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(pub(crate) String);

impl Name {
    fn of(node: &Node) -> Result<Self, Mistake> {
        let name = node.text()?;
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        match first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            _ if name.starts_with("podgres_") => {
                Err(node.wrong(format_args!("{name:?}: names with podgres_ are podgres' own")))
            }
            true => Ok(Self(name.into())),
            false => Err(node.wrong(format_args!("{name:?} is not a name of letters, digits and _"))),
        }
    }
}

/// All queries, by the beginning of their metrics' names.
pub(crate) type Queries = BTreeMap<Name, Query>;

/// Reads the file's text.
///
/// # Errors
/// The first mistake, with its line in front.
pub(crate) fn parse(text: &str) -> Result<Queries, Mistake> {
    let Some(root) = yaml::parse(text)? else { return Ok(Queries::default()) };
    root.map()?.iter().map(|(key, value)| Ok((Name::of(key)?, query(key, value)?))).collect()
}

fn query(name: &Node, node: &Node) -> Result<Query, Mistake> {
    let mut query = Query::default();
    for (key, value) in node.map()? {
        match key.text()? {
            "query" => query.query = value.text()?.into(),
            // postgres_exporter: once for the server, not once for each database that it discovered. That is always so
            // here.
            "master" => drop(value.parsed::<bool>(YES_OR_NO)?),
            "primary" => query.primary = value.parsed(YES_OR_NO)?,
            "cache_seconds" => query.cache_seconds = value.parsed("a whole number of seconds")?,
            "runonserver" => {
                let range = Range::try_from(value.text()?.to_string()).map_err(|e| value.wrong(e))?;
                query.runonserver = Some(range);
            }
            "target_databases" => {
                let names = value.list()?.iter().map(|n| n.text().map(String::from));
                query.target_databases = names.collect::<Result<_, _>>()?;
            }
            "metrics" => query.metrics = value.list()?.iter().map(columns).collect::<Result<_, _>>()?,
            other => {
                return Err(key.wrong(format_args!(
                    "{other:?} is none of query, master, primary, cache_seconds, runonserver, target_databases, metrics"
                )));
            }
        }
    }
    match () {
        () if query.query.is_empty() => Err(name.wrong("its query is missing")),
        () if query.metrics.is_empty() => Err(name.wrong("its metrics are missing")),
        () => Ok(query),
    }
}

const YES_OR_NO: &str = "true or false";

fn columns(node: &Node) -> Result<BTreeMap<Name, Column>, Mistake> {
    node.map()?.iter().map(|(key, value)| Ok((Name::of(key)?, column(key, value)?))).collect()
}

fn column(name: &Node, node: &Node) -> Result<Column, Mistake> {
    let (mut found, mut description, mut metric_mapping) = (None, String::new(), BTreeMap::new());
    for (key, value) in node.map()? {
        match key.text()? {
            "usage" => found = Some(usage(value)?),
            "description" => description = value.text()?.into(),
            "metric_mapping" => {
                let number = |(k, v): &(Node, Node)| Ok((k.text()?.to_string(), v.parsed("a number")?));
                metric_mapping = value.map()?.iter().map(number).collect::<Result<_, Mistake>>()?;
            }
            other => {
                return Err(key.wrong(format_args!("{other:?} is none of usage, description, metric_mapping")));
            }
        }
    }
    let usage = found.ok_or_else(|| name.wrong("its usage is missing"))?;
    Ok(Column { usage, description, metric_mapping })
}

fn usage(node: &Node) -> Result<Usage, Mistake> {
    let text = node.text()?;
    let found = USAGES.iter().find(|(name, _)| *name == text).map(|(_, usage)| *usage);
    found.ok_or_else(|| {
        let names = USAGES.map(|(name, _)| name).join(", ");
        node.wrong(format_args!("{text:?} is none of {names}"))
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
            ("cache_seconds: 30", "cache_seconds: soon", "7: ", "whole number"),
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
