//! Metric families as plain data, and their text in the OpenMetrics format
//! (<https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>).

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    fmt,
    sync::Arc,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

/// What `/metrics` answers with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What kind of values a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up.
    ///
    /// OpenMetrics wants `_total` at the end of such a name. Names that existing dashboards know and that have no such
    /// end (`pg_stat_database_xact_commit`) stay what they are, and their type is `unknown`: to `rate()` that is the same.
    Counter,
    /// Values sorted into buckets.
    Histogram,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A whole number, not rounded.
    Integer(i64),
    /// Any other.
    Float(f64),
    /// Of a [`Kind::Histogram`].
    Histogram {
        /// The sum of what was observed.
        sum: f64,
        /// How much was observed.
        count: u64,
        /// Upper bounds, and how much was observed up to each of them and above the one before.
        buckets: Vec<(f64, u64)>,
    },
}

impl Value {
    /// The value that PostgreSQL writes like this: a number or a boolean.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "t" | "true" => Some(Self::Integer(1)),
            "f" | "false" => Some(Self::Integer(0)),
            _ => text.parse().map(Self::Integer).or_else(|_| text.parse().map(Self::Float)).ok(),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a value too large for a double is not exact there either")]
    fn as_float(&self) -> f64 {
        match self {
            Self::Integer(value) => *value as f64,
            Self::Float(value) => *value,
            Self::Histogram { sum, .. } => *sum,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(value.into())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

/// Names and values.
pub(super) type Labels = Vec<(Cow<'static, str>, String)>;

/// Metrics of one name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    name: Cow<'static, str>,
    help: Cow<'static, str>,
    kind: Kind,
    samples: Vec<(Labels, Value)>,
}

impl Family {
    /// One without samples, which is not written.
    pub(super) fn new(name: impl Into<Cow<'static, str>>, kind: Kind, help: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), help: help.into(), kind, samples: Vec::new() }
    }

    /// Its name, as its samples have it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Adds a sample.
    pub(super) fn push(&mut self, labels: Labels, value: impl Into<Value>) {
        self.samples.push((labels, value.into()));
    }

    /// With one more sample.
    #[must_use]
    pub(super) fn with(mut self, labels: Labels, value: impl Into<Value>) -> Self {
        self.push(labels, value);
        self
    }

    /// Adds the samples of another family of the same name.
    pub(super) fn merge(&mut self, other: Self) {
        self.samples.extend(other.samples);
    }

    /// Removes all but the first of samples with the same labels, which must not be in one answer. Whether there were
    /// any.
    pub(super) fn remove_duplicates(&mut self) -> bool {
        let (mut seen, before) = (HashSet::new(), self.samples.len());
        self.samples.retain(|(labels, _)| seen.insert(labels.clone()));
        self.samples.len() < before
    }

    /// Whether neither its name nor one of its samples' names is in `taken`, to which they are added if so.
    pub(super) fn claim(&self, taken: &mut BTreeSet<String>) -> bool {
        let suffixes: &[&str] = match self.metric_type() {
            MetricType::Counter => &["", "_total"],
            MetricType::Histogram => &["", "_bucket", "_count", "_sum"],
            _ => &[""],
        };
        let names: Vec<String> = suffixes.iter().map(|s| format!("{}{s}", self.stem())).collect();
        let free = names.iter().all(|n| !taken.contains(n));
        if free {
            taken.extend(names);
        }
        free
    }

    /// The family's name: that of a counter's sample without `_total`, which the encoder adds.
    fn stem(&self) -> &str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(&self.name),
            _ => &self.name,
        }
    }

    fn metric_type(&self) -> MetricType {
        match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter if self.name.ends_with("_total") => MetricType::Counter,
            Kind::Counter => MetricType::Unknown,
            Kind::Histogram => MetricType::Histogram,
        }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // The encoder takes help texts as they are.
        let help = self.help.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        let metric_type = self.metric_type();
        let mut family = encoder.encode_descriptor(self.stem(), &help, None, metric_type)?;
        for (labels, value) in self.samples.iter().filter(|(_, v)| self.allows(v)) {
            match labels.is_empty() {
                true => encode_value(&mut family, metric_type, value)?,
                false => encode_value(&mut family.encode_family(labels)?, metric_type, value)?,
            }
        }
        Ok(())
    }

    /// A counter is never negative, nor not a number.
    fn allows(&self, value: &Value) -> bool {
        self.metric_type().as_str() != MetricType::Counter.as_str() || value.as_float() >= 0.0
    }
}

type NoExemplar<'a> = Option<&'a Exemplar<Labels, f64>>;

fn encode_value(encoder: &mut MetricEncoder<'_>, metric_type: MetricType, value: &Value) -> fmt::Result {
    match (metric_type, value) {
        (MetricType::Counter, Value::Integer(value)) => {
            encoder.encode_counter(&u64::try_from(*value).unwrap_or_default(), NoExemplar::None)
        }
        (MetricType::Counter, value) => encoder.encode_counter(&value.as_float(), NoExemplar::None),
        (_, Value::Histogram { sum, count, buckets }) => {
            encoder.encode_histogram::<Labels>(*sum, *count, buckets, None)
        }
        (_, Value::Integer(value)) => encoder.encode_gauge(value),
        (_, Value::Float(value)) => encoder.encode_gauge(value),
    }
}

/// Families that were found together. Clones share them.
pub(crate) type Group = Arc<Vec<Family>>;

#[derive(Debug)]
struct Groups(Vec<Group>);

impl Collector for Groups {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = self.0.iter().flat_map(|g| g.iter());
        families.filter(|f| !f.samples.is_empty()).try_for_each(|f| f.encode(&mut encoder))
    }
}

/// The text of all `groups`, which have no family in common.
pub(crate) fn encode(groups: Vec<Group>) -> String {
    let (mut registry, mut text) = (Registry::default(), String::new());
    registry.register_collector(Box::new(Groups(groups)));
    // Writing into a String does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(value: &str) -> Labels {
        vec![("l".into(), value.into())]
    }

    fn text(families: Vec<Family>) -> String {
        encode(vec![Arc::new(families)])
    }

    #[test]
    fn each_kind_as_openmetrics_writes_it() {
        let histogram = Value::Histogram { sum: 1.5, count: 3, buckets: vec![(1.0, 1), (f64::INFINITY, 2)] };
        let families = vec![
            Family::new("a", Kind::Gauge, "A \"b\"\nc").with(labels("x\"\n\\"), 1.5).with(labels("y"), true),
            Family::new("b_total", Kind::Counter, "B").with(vec![], 7_u64),
            Family::new("pg_stat_database_xact_commit", Kind::Counter, "C").with(vec![], 9_u64),
            Family::new("h", Kind::Histogram, "H").with(vec![], histogram),
            Family::new("empty", Kind::Gauge, "is not written"),
        ];
        let expected = "# HELP a A \\\"b\\\"\\nc\n# TYPE a gauge\na{l=\"x\\\"\\n\\\\\"} 1.5\na{l=\"y\"} 1\n\
            # HELP b B\n# TYPE b counter\nb_total 7\n\
            # HELP pg_stat_database_xact_commit C\n# TYPE pg_stat_database_xact_commit unknown\n\
            pg_stat_database_xact_commit 9\n\
            # HELP h H\n# TYPE h histogram\nh_sum 1.5\nh_count 3\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 3\n# EOF\n";
        assert_eq!(text(families), expected);
    }

    #[test]
    fn counters_are_neither_negative_nor_nan() {
        let family = Family::new("b_total", Kind::Counter, "B");
        let bad = family.with(vec![], -1.0).with(labels("n"), f64::NAN).with(labels("i"), Value::Integer(-3));
        assert!(!text(vec![bad]).contains("b_total"));
    }

    #[test]
    fn values_as_postgres_writes_them() {
        assert_eq!(Value::parse("12"), Some(Value::Integer(12)));
        assert_eq!(Value::parse("t"), Some(Value::Integer(1)));
        assert_eq!(Value::parse("0.25"), Some(Value::Float(0.25)));
        assert_eq!(Value::parse("18446744073709551616"), Some(Value::Float(18_446_744_073_709_551_616.0)));
        assert_eq!(Value::parse("-Infinity"), Some(Value::Float(f64::NEG_INFINITY)));
        assert_eq!(Value::parse("abc"), None);
    }

    #[test]
    fn names_are_taken_once_with_all_that_belongs_to_them() {
        let mut taken = BTreeSet::new();
        let mut claim = |name: &'static str, kind| Family::new(name, kind, "").claim(&mut taken);
        assert!(claim("a_total", Kind::Counter));
        assert!(!claim("a", Kind::Gauge));
        assert!(claim("h", Kind::Histogram));
        assert!(!claim("h_sum", Kind::Gauge));
        assert!(claim("h_max", Kind::Gauge));
    }

    #[test]
    fn of_samples_with_the_same_labels_the_first_stays() {
        let mut family = Family::new("a", Kind::Gauge, "").with(labels("x"), 1_u64).with(labels("x"), 2_u64);
        assert!(family.remove_duplicates());
        assert!(!family.remove_duplicates());
        assert!(text(vec![family]).contains("a{l=\"x\"} 1\n"));
    }
}
