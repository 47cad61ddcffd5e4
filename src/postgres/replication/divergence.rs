//! Whether a data directory may follow a source, as a pure function of the two WAL positions and the source's history.
//!
//! Every server that replays a timeline replays the same records. So a directory whose replay ended at or before the
//! position at which the source's past left that timeline holds nothing that the source has not, and can follow it. One
//! that went on has diverged: what it holds past that position exists nowhere in the source's past.

use super::{
    history::History,
    lsn::{Lsn, Timeline},
};

/// How far a data directory is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The cluster's identity, from initdb.
    pub system_identifier: u64,
    /// The timeline of the last record replayed or written.
    pub timeline: Timeline,
    /// The end of that record.
    pub end: Lsn,
}

/// What the source says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The cluster's identity.
    pub system_identifier: u64,
    /// The past of the timeline it is on.
    pub history: History,
    /// How far its WAL is flushed; asked after [`Position`] was read, so that a primary is never behind by accident.
    pub flushed: Lsn,
    /// Whether it is itself in recovery.
    pub in_recovery: bool,
    /// Whether a cluster has elected it: then its past is what counts, also where ours went on without it.
    pub elected: bool,
    /// The timeline of which this member has noted what began it; none: it notes none. A later one that it is on may be
    /// another one than the source's of that number: two promotions may choose the same (trace T13).
    pub noted: Option<u32>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing diverged: it streams, or will as soon as the source gets there.
    Follow,
    /// It holds WAL that is not in the source's past. pg_rewind can take it back.
    Rewind {
        /// Where the source's past left our timeline; none: it was never on it.
        left: Option<Lsn>,
    },
    /// It holds WAL that the source, on the very same timeline, has not and will not get. pg_rewind compares timelines
    /// and sees nothing; only a new clone helps.
    Clone,
    /// Following would be wrong whatever one does.
    Refuse(Refusal),
}

/// Why a source is not followed. Nothing is touched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// It is another cluster.
    #[error(
        "the source is another cluster: its system identifier is {theirs}, that of the data directory is {ours}. \
         Correct standby-of, or empty the data directory to clone from this source. Nothing was changed"
    )]
    OtherCluster {
        /// The data directory's.
        ours: u64,
        /// The source's.
        theirs: u64,
    },
    /// It has not seen the promotion that made our timeline. To follow it would throw away what came after.
    #[error(
        "the source is on timeline {theirs} and this data directory on timeline {ours}, which the source does not know: \
         it is the source that is out of date, or this member was promoted on purpose. Let the source follow this \
         member; or discard what is here and clone it anew with podgres reinit. Nothing was changed"
    )]
    SourceIsOlder {
        /// The data directory's.
        ours: Timeline,
        /// The source's.
        theirs: Timeline,
    },
}

/// Judges whether a directory at `ours` may follow `source`.
pub fn judge(ours: &Position, source: &Source) -> Verdict {
    let theirs = source.history.timeline;
    if ours.system_identifier != source.system_identifier {
        let (ours, theirs) = (ours.system_identifier, source.system_identifier);
        return Verdict::Refuse(Refusal::OtherCluster { ours, theirs });
    }
    let shared = ours.timeline == theirs || source.history.left(ours.timeline).is_some();
    if shared && !source.in_recovery && source.noted.is_some_and(|noted| noted < ours.timeline.0) {
        return Verdict::Clone;
    }
    if ours.timeline == theirs {
        // A source in recovery may get there yet. A primary writes its own WAL and never will.
        return if ours.end > source.flushed && !source.in_recovery { Verdict::Clone } else { Verdict::Follow };
    }
    match source.history.left(ours.timeline) {
        Some(left) if ours.end <= left => Verdict::Follow,
        Some(left) => Verdict::Rewind { left: Some(left) },
        // Our timeline is a branch that the source's past never took: two promotions from one server. Where the branches
        // parted only our own history tells, which pg_rewind reads.
        None if ours.timeline < theirs || source.elected && !source.in_recovery => Verdict::Rewind { left: None },
        None => Verdict::Refuse(Refusal::SourceIsOlder { ours: ours.timeline, theirs }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u64 = 7_000_000_000_000_000_001;

    fn ours(timeline: u32, end: u64) -> Position {
        Position { system_identifier: ID, timeline: Timeline(timeline), end: Lsn(end) }
    }

    /// A primary on the last timeline of `path`; each pair is a timeline and where it was left.
    fn source(path: &[(u32, u64)], timeline: u32, flushed: u64) -> Source {
        let ancestors = path.iter().map(|(t, end)| (Timeline(*t), Lsn(*end))).collect();
        let history = History { timeline: Timeline(timeline), ancestors };
        Source {
            system_identifier: ID,
            history,
            flushed: Lsn(flushed),
            in_recovery: false,
            elected: false,
            noted: None,
        }
    }

    fn standby(source: Source) -> Source {
        Source { in_recovery: true, ..source }
    }

    #[test]
    fn one_timeline() {
        assert_eq!(judge(&ours(1, 100), &source(&[], 1, 100)), Verdict::Follow);
        assert_eq!(judge(&ours(1, 99), &source(&[], 1, 100)), Verdict::Follow);
        assert_eq!(judge(&ours(1, 101), &source(&[], 1, 100)), Verdict::Clone, "a primary lost what we have");
        assert_eq!(judge(&ours(1, 101), &standby(source(&[], 1, 100))), Verdict::Follow, "a standby may get there");
    }

    #[test]
    fn a_timeline_that_has_no_note_may_be_another_one() {
        let noted = |noted, source: Source| Source { elected: true, noted: Some(noted), ..source };
        assert_eq!(judge(&ours(2, 100), &noted(2, source(&[(1, 50)], 2, 200))), Verdict::Follow);
        assert_eq!(judge(&ours(2, 100), &noted(1, source(&[(1, 50)], 2, 200))), Verdict::Clone);
        assert_eq!(judge(&ours(2, 100), &noted(1, source(&[(1, 50), (2, 150)], 3, 200))), Verdict::Clone);
        assert_eq!(judge(&ours(1, 50), &noted(1, source(&[(1, 50)], 2, 200))), Verdict::Follow);
    }

    #[test]
    fn the_source_was_promoted() {
        let promoted = source(&[(1, 100)], 2, 500);
        assert_eq!(judge(&ours(1, 99), &promoted), Verdict::Follow);
        assert_eq!(judge(&ours(1, 100), &promoted), Verdict::Follow, "the last record is common");
        assert_eq!(judge(&ours(1, 101), &promoted), Verdict::Rewind { left: Some(Lsn(100)) });
    }

    #[test]
    fn the_source_was_promoted_more_than_once() {
        let twice = source(&[(1, 100), (2, 200)], 3, 500);
        assert_eq!(judge(&ours(1, 100), &twice), Verdict::Follow);
        assert_eq!(judge(&ours(1, 150), &twice), Verdict::Rewind { left: Some(Lsn(100)) });
        assert_eq!(judge(&ours(2, 200), &twice), Verdict::Follow);
        assert_eq!(judge(&ours(2, 201), &twice), Verdict::Rewind { left: Some(Lsn(200)) });
    }

    #[test]
    fn the_source_took_another_branch() {
        // 1 was left at 100 for 2 (ours) and for 3 (theirs), which numbers as it finds them free.
        assert_eq!(judge(&ours(2, 150), &source(&[(1, 120)], 3, 500)), Verdict::Rewind { left: None });
    }

    #[test]
    fn what_an_elected_source_does_not_know_has_diverged() {
        let elected = Source { elected: true, ..source(&[], 1, 500) };
        assert_eq!(judge(&ours(2, 150), &elected), Verdict::Rewind { left: None });
        let refused = judge(&ours(2, 150), &standby(elected));
        assert!(matches!(refused, Verdict::Refuse(_)), "which timeline it will begin is not known yet: {refused:?}");
    }

    #[test]
    fn a_source_that_is_older_or_foreign_is_refused() {
        let refused = judge(&ours(2, 150), &source(&[], 1, 500));
        assert!(matches!(refused, Verdict::Refuse(Refusal::SourceIsOlder { .. })), "{refused:?}");
        let foreign = Source { system_identifier: 1, ..source(&[], 1, 500) };
        let refused = judge(&ours(1, 50), &foreign);
        assert!(matches!(refused, Verdict::Refuse(Refusal::OtherCluster { theirs: 1, .. })), "{refused:?}");
    }
}
