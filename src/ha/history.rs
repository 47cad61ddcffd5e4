//! Which history a member's WAL is part of: what began the timeline that it is on. Positions on different ones say nothing
//! about each other.
//!
//! A standby notes what began the timeline of its leader when it receives that timeline and the Lease says what began it.
//! It may have received, and confirmed, some of it before: what it has when it is asked for a vote is looked up in its WAL.

use super::lease::Began;

/// What a member knows of where its WAL is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// What it has noted.
    pub noted: Option<Began>,
    /// The last term in which this copy was the leader's. 0: it never was.
    pub held: u64,
    /// The term of the leader that it followed last: all that it has was part of that one's history when it began to. 0: it has
    /// followed none.
    pub follows: u64,
    /// What the Lease says: what began its leader's timeline, or the one that a leader who has just taken office goes on from.
    pub theirs: Option<Began>,
}

impl Origin {
    /// What began `timeline`, on which the WAL ends. None: it has no WAL.
    ///
    /// Where the Lease does not say what began it, that was after the term which is noted, and not after that of the leader who
    /// is followed. The later one is taken: too late a term may cost an election, too early a one a commit.
    pub fn of(self, timeline: Option<u32>) -> Option<Began> {
        let began = |term| timeline.map(|timeline| Began { term, timeline });
        let unnoted = timeline.is_some_and(|t| self.noted.is_none_or(|noted| noted.timeline < t));
        match self.theirs {
            _ if !unnoted => self.noted,
            // It was promoted, and what it wrote is its own.
            _ if self.held > self.follows => began(self.held),
            Some(theirs) if Some(theirs.timeline) == timeline && theirs.term <= self.follows => Some(theirs),
            // One of those before: that leader's followers have all that it has.
            Some(theirs) if timeline < Some(theirs.timeline) && theirs.term <= self.follows => {
                began(self.noted.map_or(0, |noted| noted.term))
            }
            _ => began(self.follows),
        }
    }

    /// What is to be noted of a standby that receives `timeline` from the leader it follows. None: nothing new.
    pub fn receives(self, timeline: u32) -> Option<Began> {
        let theirs = self.theirs.filter(|t| t.timeline == timeline && t.term <= self.follows)?;
        let other = self.noted.is_some_and(|noted| noted.contradicts(theirs) || noted.is_after(theirs));
        (self.noted != Some(theirs) && !other).then_some(theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(term: u64, timeline: u32) -> Option<Began> {
        Some(Began { term, timeline })
    }

    /// Of a standby that has noted that timeline 4 was begun in term 4, and the Lease's.
    fn origin(held: u64, follows: u64, theirs: Option<Began>) -> Origin {
        Origin { noted: began(4, 4), held, follows, theirs }
    }

    #[test]
    fn what_is_noted_is_known() {
        assert_eq!(origin(0, 5, began(5, 5)).of(Some(4)), began(4, 4), "it has received nothing of the new one");
        assert_eq!(origin(0, 5, began(5, 5)).of(None), began(4, 4));
    }

    #[test]
    fn what_is_not_noted_yet_is_the_leaders() {
        assert_eq!(origin(0, 5, began(5, 5)).of(Some(5)), began(5, 5));
        assert_eq!(origin(0, 6, began(5, 5)).of(Some(5)), began(5, 5), "the leader of term 6 goes on from it");
        assert_eq!(origin(0, 5, began(4, 4)).of(Some(5)), began(5, 5), "it has not said so yet");
        assert_eq!(origin(0, 5, began(6, 5)).of(Some(5)), began(5, 5), "two promotions to one number");
        assert_eq!(origin(0, 7, began(7, 7)).of(Some(5)), began(4, 5), "of a leader between the two");
        assert_eq!(Origin { noted: None, ..origin(0, 5, began(5, 5)) }.of(Some(5)), began(5, 5), "a new clone");
    }

    #[test]
    fn what_it_began_itself_is_its_own() {
        assert_eq!(origin(5, 4, began(6, 5)).of(Some(5)), began(5, 5));
        assert_eq!(origin(5, 6, began(6, 6)).of(Some(6)), began(6, 6), "it follows since");
    }

    #[test]
    fn a_standby_notes_what_it_receives() {
        assert_eq!(origin(0, 5, began(5, 5)).receives(5), began(5, 5));
        assert_eq!(origin(0, 5, began(5, 5)).receives(4), None, "as long as it is on the part before");
        assert_eq!(
            origin(0, 5, began(6, 5)).receives(5),
            None,
            "the Lease is of a leader after the one that it follows"
        );
        assert_eq!(origin(0, 5, began(5, 4)).receives(4), None, "another one of that number");
        assert_eq!(origin(0, 5, began(4, 4)).receives(4), None, "it has");
    }
}
