//! What must hold: noted on the state as a violation where it is broken.

use podgres::ha::{election, lease::Lease, member::Account};

use crate::{
    rules::Rule,
    world::{Granted, World},
};

impl World {
    /// I1, which without any fence nobody promises, and I2.
    pub(crate) fn check(&mut self) {
        self.check_kept();
        let writable: Vec<&str> = self.members.iter().filter(|m| m.is_writable()).map(|m| m.uid()).collect();
        if writable.len() > 1 && !self.setup.unfenced {
            let why = format!("I1: {} accept writes at the same time", writable.join(" and "));
            self.fails(why);
        }
    }

    /// I2: what a client was told is committed is in every later primary, whoever else still is one.
    fn check_kept(&mut self) {
        let lost = self.members.iter().filter(|m| m.is_writable()).find_map(|m| {
            let later = self.confirmed.iter().filter(|(_, term)| *term <= m.disk.held);
            let missing = later.map(|(entry, _)| entry).find(|entry| !m.disk.log.contains(entry))?;
            Some(format!("I2: {} is a primary in term {} without the confirmed commit {missing}", m.uid(), m.disk.held))
        });
        if let Some(why) = lost {
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
        let hasty = m.better.is_some_and(|(term, since)| term == lease.term && self.now < since + self.setup.ticks(1));
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

    /// I3: a term is one member's, whose copy the record admits. I6: of a pause.
    pub(crate) fn check_write(&mut self, i: usize, before: Option<&Lease>, lease: &Lease) {
        let known = |g: &Granted| g.term == lease.term && g.instance == lease.instance;
        if lease.instance.is_empty() || self.granted.iter().any(known) {
            return;
        }
        // A Lease that was deleted before anybody knew who had it may be anybody's once more.
        let counts = |g: &&Granted| g.term == lease.term && (g.entered || before.is_some());
        if let Some(other) = self.granted.iter().find(counts) {
            let why = format!("I3: term {} is granted to {} and to {}", lease.term, other.instance, lease.instance);
            self.fails(why);
        }
        let m = &self.members[i];
        let copy = m.disk.copy.clone();
        let record = before.and_then(|l| l.record.as_ref()).or(m.disk.record.as_ref());
        let founds = before.is_none_or(|l| l.system_id.is_none());
        let (pod, same) = (m.config.pod.clone(), before.is_some_and(|l| l.pod_uid == lease.pod_uid));
        if !founds && !record.is_some_and(|r| r.names(&pod, &copy)) {
            self.fails(format!("I3: {pod} takes office with {copy}, which the record does not admit"));
        }
        if before.is_some_and(Lease::is_paused) && !same {
            self.fails(format!("I6: {pod} takes over in a paused cluster"));
        }
        self.granted.push(Granted { term: lease.term, instance: lease.instance.clone(), copy, entered: false });
    }

    /// I3: nobody is in an office that was not granted, or that another one was in.
    pub(crate) fn check_office(&mut self, term: u64, instance: &str) {
        if let Some(other) = self.granted.iter().find(|g| g.term == term && g.entered && g.instance != instance) {
            let why = format!("I3: {instance} enters the office of term {term}, in which {} was", other.instance);
            return self.fails(why);
        }
        match self.granted.iter_mut().find(|g| g.term == term && g.instance == instance) {
            Some(granted) => granted.entered = true,
            None => self.fails(format!("I3: {instance} enters an office of term {term} that it was not granted")),
        }
    }

    /// I3: only in office, and on the old timeline only with the last leader's data.
    pub(crate) fn check_primary(&mut self, i: usize, direct: bool) {
        let m = &self.members[i];
        let (instance, held, copy) = (m.config.instance.clone(), m.disk.held, m.disk.copy.clone());
        let granted = self.granted.iter().any(|g| g.term == held && g.instance == instance);
        let in_office = m.memory.in_office().is_some() && granted;
        // Whoever began a cluster and has no data has begun none.
        let founds = self.setup.founding && m.disk.log.len() == 1;
        let before = self.granted.iter().filter(|g| g.term < held).max_by_key(|g| g.term);
        let other = before.is_some_and(|g| g.copy != copy) && m.led != held;
        // Without that rule it is I1 that is to break.
        if !in_office && !self.broken(Rule::OwnWrite) {
            self.fails(format!("I3: {instance} becomes a primary without an office"));
        }
        if direct && other && !founds {
            self.fails(format!("I3: {instance} goes on on its timeline, and another one led since"));
        }
    }
}
