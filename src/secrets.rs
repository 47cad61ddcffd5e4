//! Which values are not to be shown: a connection string may hold a password, and so may any command.

/// What is shown in place of a secret.
const HIDDEN: &str = "…";

/// Settings whose values are commands or connection strings.
const NAMES: &[&str] =
    &["conninfo", "_command", "password", "passwd", "passphrase", "secret", "token", "credential", "_key"];

/// Whether the value of a setting is to be hidden.
pub fn is_secret(name: &str, value: &str) -> bool {
    // Not secrets, and of interest: a path, a choice.
    if matches!(name, "password_encryption" | "ssl_key_file" | "ssl_passphrase_command_supports_reload") {
        return false;
    }
    (!value.is_empty() && NAMES.iter().any(|n| name.to_ascii_lowercase().contains(n))) || text_has_secret(value)
}

/// Whether a text has the looks of one with a password in it.
pub fn text_has_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let credentials = lower.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    credentials || ["password", "passwd", "secret", "token"].iter().any(|w| lower.contains(w))
}

/// With one of these begins what [`without_secret`] looks for.
pub const BEGINNINGS: [&str; 3] = ["parameter ", "invalid value for parameter ", "The failed "];

/// What PostgreSQL says of a setting's value when it changes or is wrong, and of a command that failed, in which the
/// value has been hidden. None: there is nothing to hide in `text`, a message or its detail.
pub fn without_secret(text: &str) -> Option<String> {
    let hide = |before: &str, after: &str| Some(format!("{before}{HIDDEN}{after}"));
    if let Some((what, command)) = text.strip_prefix("The failed ").and_then(|t| t.split_once(" command was: ")) {
        return text_has_secret(command).then(|| hide(&format!("The failed {what} command was: "), ""))?;
    }
    let starts = ["parameter \"", "invalid value for parameter \""];
    let start = starts.iter().find(|s| text.starts_with(**s))?;
    let (name, rest) = text[start.len()..].split_once('"')?;
    let (link, value) = rest.split_once('"')?;
    let value = value.strip_suffix('"').unwrap_or(value);
    is_secret(name, value).then(|| hide(&format!("{start}{name}\"{link}\""), "\""))?
}

/// The value, or what stands for it.
pub fn shown(name: &str, value: &str) -> String {
    if is_secret(name, value) { HIDDEN.into() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_messages_of_postgres_are_hidden() {
        for (text, shown) in [
            (
                "parameter \"archive_command\" changed to \"push \"%p\"\"",
                Some("parameter \"archive_command\" changed to \"…\""),
            ),
            ("parameter \"work_mem\" changed to \"4MB\"", None),
            ("parameter \"work_mem\" cannot be changed without restarting the server", None),
            ("parameter \"restore_command\" removed from configuration file, reset to default", None),
            (
                "invalid value for parameter \"my.token\": \"hush\"",
                Some("invalid value for parameter \"my.token\": \"…\""),
            ),
            ("The failed archive command was: push --password=hush", Some("The failed archive command was: …")),
            ("The failed archive command was: false", None),
            ("anything else", None),
        ] {
            assert_eq!(without_secret(text).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn secrets_are_known_by_name_or_by_looks() {
        for (name, value, secret) in [
            ("primary_conninfo", "host=a", true),
            ("primary_conninfo", "", false),
            ("archive_command", "push %p", true),
            ("ssl_passphrase_command", "echo hush", true),
            ("my.api_key", "hush", true),
            ("my.url", "https://me:hush@there/", true),
            ("work_mem", "4MB", false),
            ("password_encryption", "scram-sha-256", false),
            ("ssl_key_file", "/tls/key.pem", false),
        ] {
            assert_eq!(is_secret(name, value), secret, "{name}");
        }
    }
}
