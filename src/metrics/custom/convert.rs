//! From the rows of a custom query to families.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    super::{
        family::{Family, Kind, Labels, Value},
        rows::Rows,
    },
    file::{Column, Name, Query, Usage},
};

/// The families of an answer, by their names. A value that is null is not there. Columns that the file does not name
/// are not used.
///
/// # Errors
/// The first column that is missing, or value that makes no sense.
pub(crate) fn families(name: &Name, query: &Query, rows: &Rows) -> Result<BTreeMap<String, Family>, String> {
    let columns: BTreeMap<&Name, &Column> = query.metrics.iter().flatten().collect();
    let index = |name: &str| rows.columns.iter().position(|c| c == name);
    let mut labels = Vec::new();
    for (column, _) in columns.iter().filter(|(_, c)| c.usage == Usage::Label) {
        let at = index(&column.0).ok_or_else(|| format!("there is no column {:?}", column.0))?;
        labels.push((column.0.clone(), at));
    }
    let mut families = BTreeMap::new();
    for (column, meaning) in columns.iter().filter(|(_, c)| !matches!(c.usage, Usage::Label | Usage::Discard)) {
        let at = index(&column.0).ok_or_else(|| format!("there is no column {:?}", column.0))?;
        let mut family = family(name, column, meaning);
        for row in &rows.rows {
            let Some(text) = row[at].as_deref() else { continue };
            let other = |suffix: &str| row[index(&format!("{}{suffix}", column.0))?].as_deref();
            let value = value(meaning, text, other).ok_or_else(|| {
                format!("column {:?}: {text:?} makes no {}", column.0, format!("{:?}", meaning.usage).to_lowercase())
            })?;
            let of_row =
                |(name, at): &(String, usize)| (Cow::Owned(name.clone()), row[*at].clone().unwrap_or_default());
            family.push(labels.iter().map(of_row).collect::<Labels>(), value);
        }
        families.insert(family.name().to_string(), family);
    }
    Ok(families)
}

fn family(name: &Name, column: &Name, meaning: &Column) -> Family {
    let (kind, suffix) = match meaning.usage {
        Usage::Counter => (Kind::Counter, ""),
        Usage::Histogram => (Kind::Histogram, ""),
        Usage::Duration => (Kind::Gauge, "_milliseconds"),
        _ => (Kind::Gauge, ""),
    };
    Family::new(format!("{}_{}{suffix}", name.0, column.0), kind, meaning.description.clone())
}

/// `other`: the row's value in the column of this name and a suffix.
fn value<'a>(meaning: &Column, text: &str, other: impl Fn(&str) -> Option<&'a str>) -> Option<Value> {
    match meaning.usage {
        Usage::MappedMetric => meaning.metric_mapping.get(text).copied().map(Value::Float),
        Usage::Duration => milliseconds(text).map(Value::Float),
        Usage::Histogram => {
            let (bounds, counts): (Vec<f64>, Vec<u64>) = (array(text)?, array(other("_bucket")?)?);
            let count = other("_count")?.parse().ok()?;
            histogram(&bounds, &counts, other("_sum")?.parse().ok()?, count)
        }
        _ => Value::parse(text),
    }
}

/// Of counts that each include those before, as postgres_exporter has them.
fn histogram(bounds: &[f64], counts: &[u64], sum: f64, count: u64) -> Option<Value> {
    let (mut buckets, mut before) = (Vec::new(), 0);
    let finite = bounds.iter().copied().zip(counts.iter().copied()).filter(|(bound, _)| bound.is_finite());
    for (bound, upto) in finite.chain([(f64::INFINITY, count)]) {
        buckets.push((bound, upto.checked_sub(before)?));
        before = upto;
    }
    let ordered = buckets.windows(2).all(|w| w[0].0 < w[1].0);
    (ordered && bounds.len() == counts.len()).then_some(Value::Histogram { sum, count, buckets })
}

/// An array as PostgreSQL writes one: `{1,2.5}`.
fn array<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    inner.split(',').filter(|e| !e.is_empty()).map(|e| e.parse().ok()).collect()
}

/// A duration as Go writes one, such as `1h2m3.5s` (<https://pkg.go.dev/time#ParseDuration>).
fn milliseconds(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 8] =
        [("ns", 1e-6), ("us", 1e-3), ("µs", 1e-3), ("μs", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 36e5)];
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    if rest == "0" {
        return Some(0.0);
    }
    let mut sum = None;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let after = &rest[number..];
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == &after[..unit])?;
        sum = Some(sum.unwrap_or(0.0) + rest[..number].parse::<f64>().ok()? * factor);
        rest = &after[unit..];
    }
    sum.map(|s| s * sign)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::file, *};
    use crate::metrics::family;

    fn text(metrics: &str, columns: &[&str], row: &[Option<&str>]) -> Result<String, String> {
        let queries = file::parse(&format!("q:\n  query: x\n  metrics:\n{metrics}")).unwrap();
        let rows = Rows {
            columns: columns.iter().map(|c| c.to_string()).collect(),
            rows: vec![row.iter().map(|v| v.map(String::from)).collect()],
        };
        let (name, query) = queries.first_key_value().unwrap();
        Ok(family::encode(vec![Arc::new(families(name, query, &rows)?.into_values().collect())]))
    }

    #[test]
    fn each_usage() {
        let metrics = "    - l: {usage: LABEL}\n    - g: {usage: GAUGE, description: G}\n    - c: {usage: COUNTER}\n    \
            - d: {usage: DURATION}\n    - m: {usage: MAPPEDMETRIC, metric_mapping: {on: 1}}\n    - x: {usage: DISCARD}\n    \
            - none: {usage: GAUGE}\n";
        let row = [Some("a"), Some("1.5"), Some("7"), Some("1m0.5s"), Some("on"), Some("?"), None, Some("9")];
        let text = text(metrics, &["l", "g", "c", "d", "m", "x", "none", "unnamed"], &row).unwrap();
        let values: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        let expected = ["q_c{l=\"a\"} 7", "q_d_milliseconds{l=\"a\"} 60500.0", "q_g{l=\"a\"} 1.5", "q_m{l=\"a\"} 1.0"];
        assert_eq!(values, expected);
    }

    #[test]
    fn histograms() {
        let columns = ["h", "h_bucket", "h_sum", "h_count"];
        let metrics = "    - h: {usage: HISTOGRAM}\n";
        let row = |counts| [Some("{1,2.5}"), Some(counts), Some("9.5"), Some("6")];
        let good = text(metrics, &columns, &row("{1,4}")).unwrap();
        for line in ["q_h_bucket{le=\"2.5\"} 4", "q_h_bucket{le=\"+Inf\"} 6", "q_h_sum 9.5", "q_h_count 6"] {
            assert!(good.contains(line), "{line}: {good}");
        }
        assert!(text(metrics, &columns, &row("{4,1}")).is_err());
        assert!(text(metrics, &columns[..1], &row("{1,4}")[..1]).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let gauge = "    - g: {usage: GAUGE}\n";
        assert!(text(gauge, &["other"], &[Some("1")]).unwrap_err().contains("no column \"g\""));
        assert!(text(gauge, &["g"], &[Some("many")]).unwrap_err().contains("\"many\" makes no gauge"));
    }

    #[test]
    fn durations() {
        for (text, expected) in [("1h2m3.5s", 3_723_500.0), ("250us", 0.25), ("-1s", -1000.0), ("0", 0.0)] {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
        }
        assert_eq!([milliseconds(""), milliseconds("5"), milliseconds("5y")], [None; 3]);
    }
}
