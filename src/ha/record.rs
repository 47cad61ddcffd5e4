//! The record: which copies of the data may take over, and how many of them must agree.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// One data directory of one member. Its id is drawn when an initialisation, a clone or a rewind begins, and never
/// inherited from its source: a name without its data is not a member.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Copy {
    /// The pod's name.
    pub pod: String,
    /// The data directory's id.
    pub copy: String,
}

/// `{votes, members}` on the Lease. The leader is itself a member.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// How many members, the candidate counted, must agree to an election.
    pub votes: usize,
    /// The copies that may take over.
    pub members: BTreeSet<Copy>,
}

/// `NAMEDATALEN` - 1 is what PostgreSQL keeps of a name; the copy's id and the underscore take nine of it.
const LONGEST_POD: usize = 63 - 9;

impl Copy {
    /// The name under which it streams (`application_name`). A pod's name has no underscore
    /// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>), so it can be taken apart again.
    pub fn application_name(&self) -> String {
        let pod: String = self.pod.chars().take(LONGEST_POD).collect();
        format!("{pod}_{}", self.copy)
    }
}

impl Record {
    /// Of a leader that has nobody.
    pub fn alone(leader: Copy) -> Self {
        Self { votes: 1, members: [leader].into() }
    }

    /// Whether this copy may take over.
    pub fn names(&self, pod: &str, copy: &str) -> bool {
        self.members.iter().any(|m| m.pod == pod && m.copy == copy)
    }
}
