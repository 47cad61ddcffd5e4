//! What a member must still know of its cluster when its container is gone: which copy its data are, whether they were
//! the leader's, and the newest record that it saw. One file beside the data.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    ha::{lease::Began, record::Record},
    postgres::state_dir::StateDir,
};

const FILE: &str = "member";

/// The notes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Notes {
    /// The data directory's id.
    pub copy: String,
    /// The last term in which this copy was the leader's.
    pub held: u64,
    /// What began the timeline that it is on.
    pub began: Option<Began>,
    /// The term of the leader that was followed last, noted before anything is received from it.
    pub follows: u64,
    /// The term that was promised last: nothing is received before a leader was seen in that term.
    pub promised: u64,
    /// Whether somebody promoted this copy past the cluster: it may be on a timeline that has the number of the leader's.
    pub strayed: bool,
    /// Whether initdb made it and the Lease does not know it yet.
    pub unrecorded: bool,
    /// The highest term that was seen.
    pub term: u64,
    /// The record of that term.
    pub record: Option<Record>,
    /// Where the last leader's PostgreSQL is.
    pub leader: String,
    /// The term in which it was seen to lead.
    pub leader_term: u64,
}

impl Notes {
    /// Those of the data directory `pgdata`. Notes that cannot be read are none: their copy is nobody's then, and stands
    /// in no election.
    pub fn load(pgdata: &Path) -> Self {
        let text = StateDir::of(pgdata).read(FILE).unwrap_or_else(|error| {
            tracing::warn!("this member's notes of its cluster cannot be read, it begins as a stranger: {error}");
            None
        });
        let Some(text) = text else { return Self::default() };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!("this member's notes of its cluster make no sense, it begins as a stranger: {error}");
            Self::default()
        })
    }

    /// Writes them durably.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn save(&self, pgdata: &Path) -> io::Result<()> {
        StateDir::of(pgdata).write(FILE, &serde_json::to_vec(self)?)
    }

    /// Whether a term was promised in which nobody was seen to lead. Whoever led before it may still be there, and must not
    /// have anything confirmed from here.
    pub fn is_frozen(&self) -> bool {
        self.promised > self.leader_term
    }

    /// Of a copy that does not exist yet: an id that nobody had before, and no past.
    pub fn of_new_copy(&self, id: u64) -> Self {
        Self {
            copy: format!("{:08x}", id & 0xffff_ffff),
            held: 0,
            began: None,
            follows: 0,
            strayed: false,
            unrecorded: false,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nonsense_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pgdata = dir.path().join("pgdata");
        assert_eq!(Notes::load(&pgdata), Notes::default());
        let notes = Notes { held: 3, term: 7, ..Notes::default() }.of_new_copy(0xabc);
        assert_eq!((notes.copy.as_str(), notes.held, notes.term), ("00000abc", 0, 7));
        notes.save(&pgdata).unwrap();
        assert_eq!(Notes::load(&pgdata), notes);
        StateDir::of(&pgdata).write(FILE, b"{").unwrap();
        assert_eq!(Notes::load(&pgdata), Notes::default());
    }

    #[test]
    fn a_promise_is_kept_until_somebody_leads_in_its_term() {
        let led = Notes { term: 8, leader: "a".into(), leader_term: 7, promised: 8, ..Notes::default() };
        assert!(led.is_frozen(), "the Lease was seen at that term, freed, and the last address is the old leader's");
        assert!(!Notes { leader_term: 8, ..led }.is_frozen());
        assert!(!Notes::default().is_frozen());
    }
}
