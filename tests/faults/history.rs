//! What clients have seen, and whether it may be so. All by the clients' own clock, which nobody steps: that one thing came
//! before another is believed only where the first was answered before the second was asked.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

/// A primary, from its promotion on: a promotion begins a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    pub address: Ipv4Addr,
    pub timeline: u32,
}

/// A write that was confirmed.
#[derive(Debug, Clone)]
pub struct Write {
    pub id: i64,
    pub server: Server,
    pub sent: Instant,
    pub confirmed: Instant,
}

/// A read, by a primary, of writes that had been confirmed before.
#[derive(Debug, Clone)]
pub struct Read {
    pub address: Ipv4Addr,
    pub sent: Instant,
    pub answered: Instant,
    /// Those that it did not find.
    pub missing: Vec<i64>,
}

#[derive(Default)]
pub struct History {
    pub writes: Vec<Write>,
    pub reads: usize,
    /// Of the reads, those that missed something.
    pub short: Vec<Read>,
    asked: usize,
}

/// What may be.
pub struct Allowed {
    /// Of what a primary that failed confirmed last, so much may be lost.
    pub lost: Duration,
    /// After all processes of a member were frozen at once, for so long two may answer: no program in a container can
    /// prevent the first instants after the thaw.
    pub thawed: Duration,
    /// Who was thawed, and when.
    pub thaws: Vec<(Ipv4Addr, Instant)>,
}

impl Allowed {
    /// Whether whoever answered this read was frozen just before.
    fn excuses(&self, read: &Read) -> bool {
        let excused = |(address, at): &(Ipv4Addr, Instant)| {
            *address == read.address && read.answered >= *at && read.answered - *at <= self.thawed
        };
        self.thaws.iter().any(excused)
    }
}

impl History {
    pub fn read(&mut self, read: Read) {
        self.reads += 1;
        if !read.missing.is_empty() {
            self.short.push(read);
        }
    }

    /// Some that were confirmed: the last ones, and others all over it.
    pub fn some(&mut self, most: usize) -> Vec<i64> {
        let n = self.writes.len();
        self.asked += 1;
        let last = self.writes.iter().rev().take(most / 2).map(|w| w.id);
        let stride = self.asked * 7919;
        let others = (0..most / 2).filter(|_| n > 0).map(|i| self.writes[(stride + i * 104_729) % n].id);
        last.chain(others).collect()
    }

    /// The longest time in which nothing was confirmed.
    pub fn gap(&self) -> Duration {
        let mut times: Vec<Instant> = self.writes.iter().map(|w| w.confirmed).collect();
        times.sort();
        times.windows(2).map(|w| w[1] - w[0]).max().unwrap_or_default()
    }

    /// Each primary's writes, in the order of their confirmation; the primaries in the order of their first one.
    fn reigns(&self) -> Vec<(Server, Vec<&Write>)> {
        let mut reigns: BTreeMap<Server, Vec<&Write>> = BTreeMap::new();
        self.writes.iter().for_each(|w| reigns.entry(w.server).or_default().push(w));
        let mut reigns: Vec<_> = reigns.into_iter().collect();
        reigns.iter_mut().for_each(|(_, writes)| writes.sort_by_key(|w| w.confirmed));
        reigns.sort_by_key(|(_, writes)| writes[0].confirmed);
        reigns
    }

    /// Everything that must not be, in words. `there`: what the last primary has.
    pub fn violations(&self, there: &HashSet<i64>, allowed: &Allowed) -> Vec<String> {
        let reigns = self.reigns();
        let mut found: Vec<String> = two_writers(&reigns, allowed.thawed);
        let lost: HashSet<i64> = self.writes.iter().map(|w| w.id).filter(|id| !there.contains(id)).collect();
        for (server, writes) in &reigns {
            let last = writes[writes.len() - 1].confirmed;
            let early: Vec<i64> = writes
                .iter()
                .filter(|w| lost.contains(&w.id) && (allowed.lost.is_zero() || last - w.confirmed > allowed.lost))
                .map(|w| w.id)
                .collect();
            if !early.is_empty() {
                found
                    .push(format!("{server:?} confirmed what is lost: {early:?} (and lost may be {:?})", allowed.lost));
            }
        }
        for read in &self.short {
            let missing: Vec<i64> = read.missing.iter().copied().filter(|id| !lost.contains(id)).collect();
            if !missing.is_empty() && !allowed.excuses(read) {
                found.push(format!(
                    "{} read as a primary, and did not find {missing:?}, which is not lost",
                    read.address
                ));
            }
        }
        found
    }
}

/// A write that was sent to a primary after a later primary had confirmed one, and was confirmed all the same.
fn two_writers(reigns: &[(Server, Vec<&Write>)], thawed: Duration) -> Vec<String> {
    let mut found = Vec::new();
    for (i, (later, writes)) in reigns.iter().enumerate() {
        let first = writes[0].confirmed;
        for (former, before) in &reigns[..i] {
            let after: Vec<&&Write> = before.iter().filter(|w| w.sent > first).collect();
            let (Some(a), Some(b)) = (after.first(), after.last()) else { continue };
            let whole = b.confirmed - a.confirmed;
            if whole > thawed || thawed.is_zero() {
                found.push(format!(
                    "{former:?} confirmed {} writes that were sent after the first one of {later:?} was confirmed, \
                     {:?} to {:?} after that",
                    after.len(),
                    a.sent - first,
                    b.sent - first
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Allowed = Allowed { lost: Duration::ZERO, thawed: Duration::ZERO, thaws: Vec::new() };

    fn history(writes: &[(i64, u8, u32, u64)]) -> History {
        let begun = Instant::now();
        let write = |(id, host, timeline, at): &(i64, u8, u32, u64)| {
            let server = Server { address: Ipv4Addr::new(10, 0, 0, *host), timeline: *timeline };
            let sent = begun + Duration::from_millis(*at);
            Write { id: *id, server, sent, confirmed: sent + Duration::from_millis(5) }
        };
        History { writes: writes.iter().map(write).collect(), ..History::default() }
    }

    #[test]
    fn what_must_not_be_is_found() {
        let all = HashSet::from([1, 2, 3]);
        let fine = history(&[(1, 1, 1, 0), (2, 1, 1, 10), (3, 2, 2, 100)]);
        assert_eq!(fine.violations(&all, &NONE), Vec::<String>::new());
        let two = history(&[(1, 1, 1, 0), (3, 2, 2, 100), (2, 1, 1, 110)]);
        assert!(two.violations(&all, &NONE)[0].contains("after the first one"));
        // One that was on its way when the other began proves nothing.
        let close = history(&[(1, 1, 1, 0), (3, 2, 2, 100), (2, 1, 1, 104)]);
        assert_eq!(close.violations(&all, &NONE), Vec::<String>::new());
        let lost = fine.violations(&HashSet::from([2, 3]), &NONE);
        assert!(lost[0].contains("lost: [1]"), "{lost:?}");
        let some = Allowed { lost: Duration::from_millis(50), ..NONE };
        assert_eq!(fine.violations(&HashSet::from([3]), &some), Vec::<String>::new());
    }

    #[test]
    fn a_primary_that_does_not_find_what_is_there_is_found() {
        let mut history = history(&[(1, 1, 1, 0)]);
        let now = Instant::now();
        let address = Ipv4Addr::new(10, 0, 0, 2);
        history.read(Read { address, sent: now, answered: now, missing: vec![1] });
        assert!(history.violations(&HashSet::from([1]), &NONE)[0].contains("did not find [1]"));
        let thawed = Allowed { thawed: Duration::from_secs(1), thaws: vec![(address, now)], ..NONE };
        assert_eq!(history.violations(&HashSet::from([1]), &thawed), Vec::<String>::new());
    }
}
