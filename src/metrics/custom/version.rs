//! Version ranges, as `runonserver` has them: `>=15.0.0 <17 || 18.x`. Comparisons in a row must all hold, or all of another
//! row after `||` (<https://pkg.go.dev/github.com/blang/semver#ParseRange>).

/// A range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range(Vec<Vec<(Operator, Vec<u32>)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Longest first: `>=` begins with `>`.
const OPERATORS: [(&str, Operator); 8] = [
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("!=", Operator::NotEqual),
    ("==", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("!", Operator::NotEqual),
    ("=", Operator::Equal),
];

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a range of versions such as \">=15.0.0 <17.0.0\"");
        text.split("||").map(alternative).collect::<Option<_>>().map(Self).ok_or_else(wrong)
    }
}

fn alternative(text: &str) -> Option<Vec<(Operator, Vec<u32>)>> {
    let (mut comparisons, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let found = OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign));
        let (sign, operator) = found.copied().unwrap_or(("", Operator::Equal));
        let after = rest[sign.len()..].trim_start();
        let (version, next) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
        comparisons.push((operator, parts(version)?));
        rest = next.trim_start();
    }
    (!comparisons.is_empty()).then_some(comparisons)
}

/// The numbers of a version, up to an `x`.
fn parts(version: &str) -> Option<Vec<u32>> {
    let numbers = version.split('.').take_while(|p| !matches!(*p, "x" | "X" | "*"));
    let numbers: Vec<u32> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
    (!numbers.is_empty() && numbers.len() <= 3).then_some(numbers)
}

impl Range {
    /// Whether a server with this `server_version_num` is in it. What a version in the range leaves out is not compared.
    pub(super) fn contains(&self, server_version_num: u32) -> bool {
        let server = [server_version_num / 10_000, server_version_num % 10_000, 0];
        let holds = |(operator, version): &(Operator, Vec<u32>)| {
            let order = server[..version.len()].cmp(version.as_slice());
            match operator {
                Operator::Equal => order.is_eq(),
                Operator::NotEqual => order.is_ne(),
                Operator::Greater => order.is_gt(),
                Operator::GreaterOrEqual => order.is_ge(),
                Operator::Less => order.is_lt(),
                Operator::LessOrEqual => order.is_le(),
            }
        };
        self.0.iter().any(|all| all.iter().all(holds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, inside, outside) in [
            (">=10.0.0", 100_000, 90_624),
            (">= 15.0.0 <17.0.0", 160_004, 170_000),
            ("<16.0.0 || >17.0.0", 180_000, 160_001),
            ("15.x", 150_018, 160_000),
            ("!15.3.0", 150_004, 150_003),
            ("<=15", 150_018, 160_000),
            (">15", 160_000, 150_001),
        ] {
            let parsed = Range::try_from(range.to_string()).unwrap();
            assert!(parsed.contains(inside), "{range} {inside}");
            assert!(!parsed.contains(outside), "{range} {outside}");
        }
        for nonsense in ["", "||", ">=", "abc", "1.2.3.4", ">=15.0.0 ||"] {
            assert!(Range::try_from(nonsense.to_string()).is_err(), "{nonsense}");
        }
    }
}
