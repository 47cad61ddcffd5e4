//! Sizes as people and PostgreSQL write them.

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
}
