//! Sizes and times as people and PostgreSQL write them.

use std::time::Duration;

/// Reads `16MB`, `512kB`, `1GB`, `2TB` or a number of bytes, with PostgreSQL's factors of 1024
/// (<https://www.postgresql.org/docs/current/config-setting.html>); upper and lower case alike.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        "tb" => 1_u64 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

/// The largest unit of which there is at least one, and how many bytes it has. What would be rounded to 1024.0 of a unit
/// is 1.0 of the next.
fn unit(bytes: u64) -> (u64, &'static str) {
    let mut at = 0;
    while at + 1 < UNITS.len() && bytes >= (1 << (10 * (at + 1))) - (1 << (10 * at)) / 20 {
        at += 1;
    }
    (1 << (10 * at), UNITS[at])
}

#[allow(clippy::cast_precision_loss, reason = "rounded to a tenth")]
fn number(bytes: u64, unit: u64) -> String {
    if unit == 1 { bytes.to_string() } else { format!("{:.1}", bytes as f64 / unit as f64) }
}

/// `512 B`, `1.2 MB`: with PostgreSQL's units.
pub fn size(bytes: u64) -> String {
    let (factor, name) = unit(bytes);
    format!("{} {name}", number(bytes, factor))
}

/// `38.4 of 482.5 MB`.
pub fn size_of(part: u64, whole: u64) -> String {
    let (factor, name) = unit(whole);
    format!("{} of {} {name}", number(part, factor), number(whole, factor))
}

/// `42s`, `3m20s`, `5h1m`, `12d4h`: two units are enough.
pub fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// `40 s`, `3 min`, `2 h`: as much as an estimate is worth.
pub fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..90 => format!("{seconds} s"),
        seconds @ 90..5400 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h", (seconds + 1800) / 3600),
    }
}

/// How much is shown of a text that somebody else wrote.
const BEGINNING: usize = 200;

/// The beginning of the first line of a text that somebody else wrote, as far as it is fit for a log and a terminal.
pub fn beginning(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(BEGINNING).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16MB"), Some(16 << 20));
        assert_eq!(parse_size("512kB"), Some(512 << 10));
        assert_eq!(parse_size("1 gb"), Some(1 << 30));
        assert_eq!(parse_size("100"), Some(100));
        for nonsense in ["", "MB", "1XB", "-1MB", "99999999999TB", "1.5GB"] {
            assert_eq!(parse_size(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn sizes_for_people() {
        let shown = [0, 1023, 1024, 1_258_291, (1 << 20) - 1, (1 << 30) - 1, 5 << 40, 5 << 50].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 kB", "1.2 MB", "1.0 MB", "1.0 GB", "5.0 TB", "5120.0 TB"]);
        assert_eq!(size(1000), "1000 B");
        assert_eq!(size_of(40_265_318, 505_937_920), "38.4 of 482.5 MB");
        assert_eq!(size_of(0, 1 << 30), "0.0 of 1.0 GB");
    }

    #[test]
    fn of_what_others_write_a_line_without_controls_is_shown() {
        assert_eq!(beginning("no: \x1b[1mfull\nof it"), "no: [1mfull");
        assert_eq!(beginning(&"ä".repeat(1000)).chars().count(), BEGINNING);
    }

    #[test]
    fn times() {
        assert_eq!([0, 5, 65, 3700, 90_000].map(age), ["0s", "5s", "1m5s", "1h1m", "1d1h"]);
        let shown = [0, 89, 90, 200, 5399, 5400].map(|s| about(Duration::from_secs(s)));
        assert_eq!(shown, ["0 s", "89 s", "2 min", "3 min", "90 min", "2 h"]);
    }
}
