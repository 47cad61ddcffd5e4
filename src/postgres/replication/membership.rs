//! What a standby must still know after its container is gone: its slot, and that it was promoted.

use std::path::Path;

use crate::postgres::state_dir::StateDir;

/// The notes beside one data directory.
#[derive(Debug, Clone)]
pub struct Membership {
    state: StateDir,
    /// Where the source is, host and port. A promotion is one over this source.
    source: String,
    /// The slot, where somebody else knows it.
    slot: Option<String>,
}

const SLOT: &str = "slot";
const PROMOTED: &str = "promoted";

/// `NAMEDATALEN` - 1, the longest name of a slot; what podgres puts around the member's takes 17 of it.
const LONGEST_NAME: usize = 63 - 17;

impl Membership {
    /// Of the data directory `pgdata`, whose source is at `source`.
    pub fn of(pgdata: &Path, source: String) -> Self {
        Self { state: StateDir::of(pgdata), source, slot: None }
    }

    /// With this slot.
    pub fn with_slot(self, slot: String) -> Self {
        Self { slot: Some(slot), ..self }
    }

    /// The name of this member's slot on its source: drawn once, since a container's name is not its own.
    pub fn slot(&self) -> String {
        if let Some(slot) = &self.slot {
            return slot.clone();
        }
        let known = self.state.read(SLOT).ok().flatten().and_then(|text| String::from_utf8(text).ok());
        if let Some(name) = known.map(|t| t.trim().to_string()).filter(|n| is_slot_name(n)) {
            return name;
        }
        let name = slot_name(&member_name(), super::clone::random());
        if let Err(e) = self.state.write(SLOT, name.as_bytes()) {
            // Then the next start makes another slot, and this one goes after a while.
            tracing::warn!("the name of the replication slot cannot be kept in {}: {e}", self.state.path().display());
        }
        name
    }

    /// Notes, before it happens, that this member is promoted: from then on the settings' source is no longer its own,
    /// until that source is promoted in turn or the settings name another, or none.
    ///
    /// # Errors
    /// When the note cannot be written; then a restart would not know.
    pub fn note_promotion(&self) -> std::io::Result<()> {
        self.state.write(PROMOTED, self.source.as_bytes())
    }

    /// Whether this member was promoted over this source.
    pub fn promoted(&self) -> bool {
        self.state.read(PROMOTED).ok().flatten().is_some_and(|text| text == self.source.as_bytes())
    }

    /// Forgets the promotion, over whatever source: this member follows again, or its settings name no source.
    pub fn forget_promotion(&self) {
        if let Err(e) = self.state.remove(PROMOTED) {
            tracing::warn!("the note of an earlier promotion cannot be removed: {e}");
        }
    }
}

/// The name by which others know this member.
pub fn member_name() -> String {
    nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|_| "localhost".into())
}

/// Lower case letters, digits and underscores are all that a slot's name may have.
pub fn slot_name(member: &str, random: u64) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let member: String = member.chars().map(letter).take(LONGEST_NAME).collect();
    format!("podgres_{member}_{:08x}", random & 0xffff_ffff)
}

/// Whether a slot may be one that a member made for itself.
pub fn is_slot_name(name: &str) -> bool {
    name.starts_with("podgres_")
        && name.len() <= 63
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_name_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let membership = Membership::of(&dir.path().join("pgdata"), "a:5432".into());
        let name = membership.slot();
        assert!(is_slot_name(&name), "{name}");
        assert_eq!(membership.slot(), name);
        assert!(is_slot_name(&slot_name("Long.Name-Ü".repeat(20).as_str(), u64::MAX)));
    }

    #[test]
    fn a_promotion_is_one_over_that_source() {
        let dir = tempfile::tempdir().unwrap();
        let of = |source: &str| Membership::of(&dir.path().join("pgdata"), source.into());
        assert!(!of("a:5432").promoted());
        of("a:5432").note_promotion().unwrap();
        assert!(of("a:5432").promoted() && !of("b:5432").promoted());
        of("a:5432").forget_promotion();
        assert!(!of("a:5432").promoted());
    }
}
