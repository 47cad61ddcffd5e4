//! Who may take over, as far as the members' own accounts tell. Nothing in here binds anybody.

use std::cmp::Ordering;

use super::{member::Account, record::Record};

/// Which of two members has more of the cluster's history: the later term that began its timeline, then the higher
/// position. A timeline's number says nothing by itself: two members may have begun the same one (trace T13).
pub fn ahead(a: &Account, b: &Account) -> Ordering {
    a.began.cmp(&b.began).then(a.lsn.cmp(&b.lsn))
}

/// The order in which members are to take over: the most history, then priority, then the name.
pub fn order(a: &Account, b: &Account) -> Ordering {
    ahead(a, b).then(a.priority.cmp(&b.priority)).then_with(|| b.pod.cmp(&a.pod))
}

/// Why a candidate stands back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StandBack {
    /// This member saw the leader renew, or is a primary itself.
    LeaderAlive(String),
    /// This one would be better.
    Better {
        /// The pod.
        pod: String,
        /// Whether it has more of the cluster's history, and does not only come first.
        has_more: bool,
    },
}

/// Whether the candidate `me` may take the office of `term` that has ended, after what the others say.
///
/// `fresh_ms`: an account of a renewal that is younger than this shows a leader in office.
///
/// # Errors
/// The first reason why not.
pub fn may_take(
    me: &Account,
    others: &[Account],
    record: &Record,
    term: u64,
    fresh_ms: Option<u64>,
) -> Result<(), StandBack> {
    for other in others.iter().filter(|o| o.pod != me.pod && o.term >= term) {
        let saw = fresh_ms.zip(other.seen_ms).is_some_and(|(fresh, seen)| seen < fresh);
        if saw || other.primary {
            return Err(StandBack::LeaderAlive(other.pod.clone()));
        }
    }
    let admitted = |m: &&Account| m.copy.as_ref().is_some_and(|c| record.names(&m.pod, c));
    let fit = others.iter().filter(|o| o.pod != me.pod && o.fit && o.priority > 0).filter(admitted);
    match fit.max_by(|a, b| order(a, b)) {
        Some(best) if order(best, me) == Ordering::Greater => {
            Err(StandBack::Better { pod: best.pod.clone(), has_more: ahead(best, me) == Ordering::Greater })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha::{lease::Began, record::Copy};

    fn account(pod: &str, term: u64, lsn: u64) -> Account {
        Account {
            pod: pod.into(),
            instance: String::new(),
            copy: Some("c".into()),
            system_id: None,
            began: Some(Began { term, timeline: 1 }),
            lsn,
            primary: false,
            fit: true,
            priority: 100,
            term: 7,
            seen_ms: None,
        }
    }

    fn record(pods: &[&str]) -> Record {
        let members = pods.iter().map(|p| Copy { pod: p.to_string(), copy: "c".into() }).collect();
        Record { votes: 1, members }
    }

    fn take(me: &Account, others: &[Account]) -> Result<(), StandBack> {
        may_take(me, others, &record(&["a", "b", "c"]), 7, Some(3000))
    }

    #[test]
    fn most_history_first_then_priority_then_name() {
        let better = |name: &str, has_more| Err(StandBack::Better { pod: name.into(), has_more });
        assert_eq!(take(&account("a", 3, 100), &[account("b", 3, 200)]), better("b", true));
        assert_eq!(take(&account("a", 3, 200), &[account("b", 3, 100)]), Ok(()));
        assert_eq!(
            take(&account("a", 3, 900), &[account("b", 5, 100)]),
            better("b", true),
            "a later term before a higher LSN"
        );
        assert_eq!(take(&account("b", 3, 100), &[account("a", 3, 100)]), better("a", false), "the name, among equals");
        let low = Account { priority: 10, ..account("a", 3, 100) };
        assert_eq!(take(&low, &[account("b", 3, 100)]), better("b", false));
        assert_eq!(take(&account("b", 3, 100), &[low]), Ok(()));
    }

    #[test]
    fn who_cannot_stand_is_not_waited_for() {
        let me = account("b", 3, 100);
        let unfit = Account { fit: false, ..account("a", 3, 900) };
        let never = Account { priority: 0, ..account("a", 3, 900) };
        let stranger = account("z", 3, 900);
        let other_copy = Account { copy: Some("other".into()), ..account("a", 3, 900) };
        assert_eq!(take(&me, &[unfit, never, stranger, other_copy]), Ok(()));
    }

    #[test]
    fn a_leader_that_anybody_saw_alive_is_one() {
        let me = account("b", 3, 100);
        let alive = |name: &str| Err(StandBack::LeaderAlive(name.into()));
        let saw = |ms, term| Account { seen_ms: Some(ms), term, fit: false, ..account("c", 3, 0) };
        assert_eq!(take(&me, &[saw(2999, 7)]), alive("c"));
        assert_eq!(take(&me, &[saw(3000, 7)]), Ok(()), "no younger than the candidate's own");
        assert_eq!(take(&me, &[saw(10, 6)]), Ok(()), "of an earlier term");
        assert_eq!(take(&me, &[Account { primary: true, ..account("a", 3, 0) }]), alive("a"));
    }
}
