//! Which values are not to be shown: a connection string may hold a password, and so may any command.

/// What is shown in place of a secret.
const HIDDEN: &str = "…";

/// Settings whose values are commands or connection strings.
const NAMES: &[&str] =
    &["conninfo", "_command", "password", "passwd", "passphrase", "secret", "token", "credential", "_key"];

/// Whether the value of a setting is to be hidden.
pub(super) fn is_secret(name: &str, value: &str) -> bool {
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

/// The value, or what stands for it.
pub fn shown(name: &str, value: &str) -> String {
    if is_secret(name, value) { HIDDEN.into() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
