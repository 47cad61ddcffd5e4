//! What must hold: noted on the state as a violation where it is broken.

use podgres::ha::{election, lease::Lease, member::Account};

use crate::world::World;

impl World {
    /// I1, and I6 of a fenced member.
    pub(crate) fn check(&mut self) {
        let writable: Vec<&str> = self.members.iter().filter(|m| m.is_writable()).map(|m| m.uid()).collect();
        if writable.len() > 1 {
            let why = format!("I1: {} accept writes at the same time", writable.join(" and "));
            self.fails(why);
        }
    }

    /// Of the accounts of others: whether somebody who is on the record and fit is ahead.
    pub(crate) fn note_better(&mut self, i: usize, accounts: &[Account]) {
        let now = self.now;
        let m = &self.members[i];
        let Some(lease) = m.memory.lease().cloned() else { return };
        let me = accounts.iter().find(|a| a.pod == m.config.pod);
        let listed = |a: &&Account| {
            let copy = a.copy.as_deref().unwrap_or_default();
            lease.record.as_ref().is_some_and(|r| r.names(&a.pod, copy))
        };
        let others = accounts.iter().filter(|a| a.pod != m.config.pod && a.fit).filter(listed);
        let better = me.is_some_and(|me| others.clone().any(|a| election::ahead(a, me).is_gt()));
        let before = m.better.filter(|(term, _)| *term == lease.term);
        self.member(i).better = better.then(|| before.unwrap_or((lease.term, now)));
    }

    /// Asynchronous loss is limited to what nobody had who is on the record and fit: whoever knows of a better one gives it
    /// a second.
    pub(crate) fn check_stood_back(&mut self, i: usize, written: &Lease) {
        let m = &self.members[i];
        let Some(lease) = m.memory.lease() else { return };
        let takes = !written.instance.is_empty() && written.term > lease.term;
        let mine = lease.pod_uid == m.config.uid && !lease.holder.is_empty();
        let for_me = lease.free.as_ref().is_some_and(|f| f.to.as_ref() == Some(&m.disk.copy));
        let hasty = m.better.is_some_and(|(term, since)| term == lease.term && self.now < since + 1);
        if takes && !mine && !for_me && hasty {
            let why = format!("loss: {} takes over although it was just told that another one is ahead", m.config.pod);
            self.fails(why);
        }
        let m = &self.members[i];
        let own = m.memory.pods.as_ref().and_then(|p| p.get(&m.config.pod));
        if takes && own.is_some_and(|p| p.is_fenced()) {
            let why = format!("I6: {} stands although it is fenced", m.config.pod);
            self.fails(why);
        }
    }
}
