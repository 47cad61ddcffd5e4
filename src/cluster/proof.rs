//! How members know each other: by the password of the role that they replicate with.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::settings::official::Secret;

/// The header that has it.
pub const HEADER: &str = "podgres-proof";

/// HMAC-SHA-256 (RFC 2104) of `text`, said for this `purpose`, in hexadecimal.
pub fn of(password: &Secret, purpose: &str, text: &[u8]) -> String {
    mac(password, purpose, text).map(|mac| hex(&mac.finalize().into_bytes())).unwrap_or_default()
}

/// Whether whoever said `text` knows the password. Takes as long for a wrong proof as for a right one.
pub fn is_right(password: &Secret, purpose: &str, text: &[u8], proof: &str) -> bool {
    let byte = |at: usize| proof.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..proof.len()).step_by(2).map(byte).collect();
    // One spelling only: what is known again by its text is not to have another one.
    let spelled = proof.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let known = mac(password, purpose, text).zip(bytes.filter(|b| spelled && !b.is_empty()));
    known.is_some_and(|(mac, bytes)| mac.verify_slice(&bytes).is_ok())
}

fn mac(password: &Secret, purpose: &str, text: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(password.expose().as_bytes()).ok()?;
    mac.update(b"podgres member\0");
    mac.update(purpose.as_bytes());
    mac.update(b"\0");
    mac.update(text);
    Some(mac)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_words_for_the_same_purpose_under_the_same_password() {
        let password = |text: &str| Secret::new(text);
        let proof = of(&password("a"), "vote", b"x");
        assert_eq!(proof.len(), 64);
        assert!(is_right(&password("a"), "vote", b"x", &proof));
        for (key, purpose, text) in [("b", "vote", "x"), ("a", "voted", "x"), ("a", "vote", "y")] {
            assert!(!is_right(&password(key), purpose, text.as_bytes(), &proof), "{key} {purpose} {text}");
        }
        let (upper, signed) = (proof.to_ascii_uppercase(), proof.replace('0', "+"));
        assert!(upper != proof && !is_right(&password("a"), "vote", b"x", &upper), "another spelling");
        assert!(signed == proof || !is_right(&password("a"), "vote", b"x", &signed), "another spelling");
        for nonsense in ["", "0", "zz", "é", &proof[2..]] {
            assert!(!is_right(&password("a"), "vote", b"x", nonsense), "{nonsense}");
        }
    }
}
