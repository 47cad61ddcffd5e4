//! The Lease as the protocol reads it (<https://kubernetes.io/docs/concepts/architecture/leases/>).

use std::time::Duration;

use super::record::Record;

/// What the Lease says. All of it is written in one compare-and-swap over the version that was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Lease {
    /// `metadata.resourceVersion`: what a write must be over.
    pub version: String,
    /// `spec.holderIdentity`: the leader's pod. Empty: nobody.
    pub holder: String,
    /// `spec.leaseDurationSeconds`.
    pub duration: Duration,
    /// `spec.renewTime`, as text. For people, and to see that it changes; nobody compares it with a clock.
    pub renewed: String,
    /// `spec.leaseTransitions`, for people.
    pub transitions: u32,
    /// `podgres.io/instance`: the start of a manager that holds it.
    pub instance: String,
    /// `podgres.io/term`: rises with every taking of office.
    pub term: u64,
    /// `podgres.io/pod-uid` of the holder.
    pub pod_uid: String,
    /// `podgres.io/address` of the holder's PostgreSQL, `10.0.0.7:5432`.
    pub address: String,
    /// `podgres.io/record`.
    pub record: Option<Record>,
    /// `podgres.io/system-id`: the cluster's identity.
    pub system_id: Option<u64>,
    /// `podgres.io/timeline`: the leader's timeline and the term that began it. Informs, bars nobody.
    pub timeline: Option<Began>,
    /// `podgres.io/free`: given up by a leader whose postmaster is reaped.
    pub free: Option<Free>,
    /// `podgres.io/switchover-to`: what somebody asks for.
    pub switchover_to: Option<String>,
    /// `podgres.io/paused`, as it stands there.
    pub paused: Option<String>,
}

/// What a leader writes as the Lease's duration while the cluster is paused, and is then not fenced: whoever does not lead,
/// and whoever starts only after the pause, waits until the leader has renewed without the pause (trace T15). Ten years.
pub const PAUSED: Duration = Duration::from_secs(315_360_000);

impl Lease {
    /// Whether the holder's last renewal was one in a pause, so that nothing fences it.
    pub fn is_unfenced(&self) -> bool {
        self.duration >= PAUSED
    }

    /// Whether people want nothing to happen by itself.
    pub fn is_paused(&self) -> bool {
        self.paused.as_deref() == Some("true")
    }
}

/// A timeline's number is not its identity: two promotions that knew nothing of each other may choose the same one. The
/// term that began it tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Began {
    /// The term.
    pub term: u64,
    /// The timeline.
    pub timeline: u32,
}

/// "`<term>` for `<copy or any>`".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Free {
    /// The term that ended.
    pub term: u64,
    /// The copy it is meant for; none: any.
    pub to: Option<String>,
}

impl Began {
    /// Whether two timelines that have the same number are not the same (trace T13).
    pub fn contradicts(self, other: Self) -> bool {
        self.timeline == other.timeline && self.term != other.term
    }

    /// Whether this one was begun after all that whose leader knows: it has not said yet what it began itself, and may choose
    /// the same number.
    pub fn is_after(self, other: Self) -> bool {
        self.term > other.term
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_its_number_and_its_term() {
        let began = |term, timeline| Began { term, timeline };
        assert!(began(8, 6).contradicts(began(9, 6)));
        assert!(!began(8, 6).contradicts(began(8, 6)));
        assert!(
            !began(8, 6).contradicts(began(9, 7)),
            "that one follows from the other, or PostgreSQL says that it does not"
        );
    }
}
