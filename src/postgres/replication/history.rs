//! Timeline histories: where each timeline of a server's past ended
//! (<https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>).

use super::lsn::{Lsn, Timeline};

/// The past of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct History {
    /// The timeline itself.
    pub timeline: Timeline,
    /// Its ancestors, oldest first: each with the position at which the next one forked off.
    pub ancestors: Vec<(Timeline, Lsn)>,
}

/// A line of a history file that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the history of timeline {timeline} has a line that makes no sense: {line:?}")]
pub struct Error {
    timeline: Timeline,
    line: String,
}

impl History {
    /// The history of a timeline that has no ancestors: the first one of a cluster.
    pub fn first(timeline: Timeline) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// Reads the content of the history file of `timeline`, as `readTimeLineHistory` (timeline.c) does: each line that
    /// is no comment has a timeline, a position and a reason.
    ///
    /// # Errors
    /// A line that has no timeline or no position, or timelines that do not rise.
    pub fn parse(timeline: Timeline, text: &str) -> Result<Self, Error> {
        let mut ancestors: Vec<(Timeline, Lsn)> = Vec::new();
        for line in text.lines().filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')) {
            let mut words = line.split_whitespace();
            let number = words.next().and_then(|w| w.parse().ok()).map(Timeline);
            let end = words.next().and_then(|w| w.parse().ok());
            match (number, end) {
                (Some(number), Some(end))
                    if number < timeline && ancestors.last().is_none_or(|(last, _)| *last < number) =>
                {
                    ancestors.push((number, end));
                }
                _ => return Err(Error { timeline, line: line.into() }),
            }
        }
        Ok(Self { timeline, ancestors })
    }

    /// Where `timeline` was left for its descendant on the way to this history's own timeline. None: it is not among
    /// the ancestors.
    pub fn left(&self, timeline: Timeline) -> Option<Lsn> {
        self.ancestors.iter().find(|(t, _)| *t == timeline).map(|(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_postgres_writes_it() {
        let text =
            "1\t0/3000148\tno recovery target specified\n\n# comment\n2\t0/5000000\tbefore 2000-01-01 00:00:00+00\n";
        let history = History::parse(Timeline(3), text).unwrap();
        assert_eq!(history.ancestors, [(Timeline(1), Lsn(0x300_0148)), (Timeline(2), Lsn(0x500_0000))]);
        assert_eq!(history.left(Timeline(2)), Some(Lsn(0x500_0000)));
        assert_eq!(history.left(Timeline(3)), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["1\n", "x 0/1 y\n", "1 0\n", "3 0/1 itself\n", "2 0/1 a\n1 0/2 b\n"] {
            assert!(History::parse(Timeline(3), text).is_err(), "{text:?}");
        }
    }
}
