//! Which replication slots a server should have, as pure functions of what there is.
//!
//! A standby keeps copies of its primary's physical slots, moved on as the primary's move, so that a promotion loses
//! none of them: the other standbys, and whoever else streams over a slot, find theirs on the new primary, with the WAL
//! since where they were (<https://www.postgresql.org/docs/current/warm-standby.html#STREAMING-REPLICATION-SLOTS>).

use std::collections::{BTreeMap, BTreeSet};

use super::lsn::Lsn;

/// A physical slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// From where on it keeps WAL.
    pub restart: Lsn,
    /// Whether somebody streams over it.
    pub active: bool,
}

/// What is to be done to this server's slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make it, and keep WAL from now on.
    Create(String),
    /// Let go of the WAL before this position.
    Advance(String, Lsn),
    /// Remove it.
    Drop(String),
}

/// What a standby has to do to have copies of the slots in `primary`.
///
/// `own` is the slot over which it streams itself: a copy of that would keep WAL for nobody. `copies` are those that it
/// made as copies: of these only, the ones that the primary no longer has are dropped, as the others may belong to
/// standbys of this standby. No copy is moved past `replayed`, nor backwards.
pub fn copy(primary: &[Slot], here: &[Slot], own: &str, copies: &BTreeSet<String>, replayed: Lsn) -> Vec<Change> {
    let local: BTreeMap<&str, &Slot> = here.iter().map(|s| (s.name.as_str(), s)).collect();
    let mut changes = Vec::new();
    for slot in primary.iter().filter(|s| s.name != own) {
        match local.get(slot.name.as_str()) {
            None => changes.push(Change::Create(slot.name.clone())),
            Some(copy) if !copy.active && slot.restart.min(replayed) > copy.restart => {
                changes.push(Change::Advance(slot.name.clone(), slot.restart.min(replayed)));
            }
            Some(_) => {}
        }
    }
    let gone = |s: &&Slot| {
        let copied = copies.contains(&s.name) && !primary.iter().any(|p| p.name == s.name);
        !s.active && (copied || s.name == own)
    };
    changes.extend(here.iter().filter(gone).map(|s| Change::Drop(s.name.clone())));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &str, restart: u64) -> Slot {
        Slot { name: name.into(), restart: Lsn(restart), active: false }
    }

    fn changes(primary: &[Slot], here: &[Slot], replayed: u64) -> Vec<Change> {
        let copies = ["a", "b"].map(String::from).into();
        copy(primary, here, "own", &copies, Lsn(replayed))
    }

    #[test]
    fn copies_are_made_of_all_but_the_own_one_and_follow_as_far_as_replay() {
        let primary = [slot("own", 500), slot("a", 500), slot("b", 500), slot("c", 500)];
        let here = [slot("a", 100), slot("b", 500)];
        assert_eq!(changes(&primary, &here, 400), [Change::Advance("a".into(), Lsn(400)), Change::Create("c".into()),]);
        assert_eq!(changes(&primary, &here, 900)[0], Change::Advance("a".into(), Lsn(500)));
        assert_eq!(changes(&primary[..2], &[slot("a", 600)], 900), [], "never backwards");
    }

    #[test]
    fn only_copies_are_dropped_when_the_primary_has_them_no_more() {
        let here = [slot("a", 1), slot("cascade", 1), Slot { active: true, ..slot("b", 1) }];
        assert_eq!(changes(&[], &here, 9), [Change::Drop("a".into())]);
    }

    #[test]
    fn the_own_slot_of_an_earlier_life_as_a_primary_holds_wal_for_nobody() {
        assert_eq!(changes(&[slot("own", 5)], &[slot("own", 1)], 9), [Change::Drop("own".into())]);
    }
}
