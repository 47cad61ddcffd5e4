//! Members ask each other for votes, and freeze: as `src/manager/cluster/votes.rs`, with the check and the arithmetic that
//! are shipped. What a vote's position is in PostgreSQL (the end of the valid WAL), and that no walreceiver is left, is below
//! the model: tests with PostgreSQL itself look at that.

use podgres::ha::{
    Input, Server,
    history::Origin,
    votes::{Vote, may_promise},
};

use crate::{acts::Act, rules::Rule, world::World};

/// A question for a vote, that of a candidate to itself too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) term: u64,
    /// The member.
    pub(crate) of: usize,
    /// The start of its manager.
    pub(crate) instance: String,
    pub(crate) sent: u64,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// The question is on its way.
    None,
    /// The term is promised. That nothing is received any more is still to be seen.
    Freezes { copy: String, origin: Origin },
    /// The answer is on its way.
    Voted(Vote),
}

impl World {
    pub(crate) fn steps_of_votes(&self, i: usize, acts: &mut Vec<Act>) {
        for (k, question) in self.members[i].questions.iter().enumerate() {
            let runs = self.members[question.of].runs();
            match question.answer {
                Answer::None if runs => acts.push(Act::Asked(i, k)),
                Answer::Freezes { .. } if runs => acts.push(Act::Freezes(i, k)),
                Answer::Voted(_) if self.members[i].runs() => acts.push(Act::Voted(i, k)),
                _ => {}
            }
        }
    }

    pub(crate) fn ask_votes(&mut self, i: usize, term: u64, pods: &[String]) {
        let sent = self.now;
        for pod in pods {
            let seen = self.members[i].memory.pods.as_ref().and_then(|p| p.get(pod));
            let instance = seen.and_then(|p| Some(p.status.as_ref()?.instance.clone()));
            let there = self.pods.iter().find(|p| p.name == pod).and_then(|p| p.member);
            let Some((instance, of)) = instance.zip(there) else { continue };
            let m = self.member(i);
            // Another question to the same member would be answered alike.
            if !m.questions.iter().any(|q| q.of == of && q.term == term) {
                m.questions.push(Question { term, of, instance, sent, answer: Answer::None });
            }
        }
    }

    pub(crate) fn freeze_self(&mut self, i: usize, term: u64) {
        let m = &self.members[i];
        let (instance, sent) = (m.config.instance.clone(), self.now);
        let answer = if self.broken(Rule::CandidateFreezes) {
            Some(Answer::Voted(self.vote(i, term, m.disk.copy.clone(), m.origin())))
        } else {
            self.freeze(i, term)
        };
        let m = self.member(i);
        if let Some(answer) = answer.filter(|_| !m.questions.iter().any(|q| q.of == i && q.term == term)) {
            m.questions.push(Question { term, of: i, instance, sent, answer });
        }
    }

    fn vote(&self, j: usize, term: u64, copy: String, origin: Origin) -> Vote {
        let m = &self.members[j];
        let began = match self.broken(Rule::HistoryOfWal) {
            true => origin.noted,
            false => origin.of(Some(m.disk.timeline).filter(|t| *t > 0)),
        };
        Vote { pod: m.config.pod.clone(), copy, term, began, lsn: m.lsn() }
    }

    /// Promises the term on disk.
    fn freeze(&mut self, j: usize, term: u64) -> Option<Answer> {
        if self.members[j].server != Server::Standby {
            return None;
        }
        self.pods_changed();
        let m = self.member(j);
        m.disk.promised = term;
        Some(Answer::Freezes { copy: m.disk.copy.clone(), origin: m.origin() })
    }

    /// A question arrives.
    pub(crate) fn asked(&mut self, i: usize, k: usize) {
        let question = self.members[i].questions[k].clone();
        let m = &self.members[question.of];
        let me = m.config.instance == question.instance;
        let may = me && may_promise(&m.config, &m.memory, self.clock(question.of), question.term).is_ok();
        match may.then(|| self.freeze(question.of, question.term)).flatten() {
            Some(answer) => self.member(i).questions[k].answer = answer,
            None => self.refuse(i, k),
        }
        self.attend(question.of);
    }

    /// No walreceiver is left, and none will be begun.
    pub(crate) fn freezes(&mut self, i: usize, k: usize) {
        let Question { of, term, instance, answer, .. } = self.members[i].questions[k].clone();
        let m = &self.members[of];
        let there = m.config.instance == instance && m.server == Server::Standby;
        let Answer::Freezes { copy, origin } = answer else { return };
        if !there {
            return self.refuse(i, k);
        }
        if !self.broken(Rule::VoteFreezes) {
            self.member(of).wire = None;
        }
        let vote = self.vote(of, term, copy, origin);
        self.member(i).questions[k].answer = Answer::Voted(vote);
    }

    pub(crate) fn voted(&mut self, i: usize, k: usize) {
        if let Answer::Voted(vote) = self.member(i).questions.remove(k).answer {
            self.feed(i, Input::Voted(vote));
        }
    }

    /// There is no vote, or its answer is lost.
    pub(crate) fn refuse(&mut self, i: usize, k: usize) {
        let of = self.member(i).questions.remove(k).of;
        if self.members[i].runs() {
            let pod = self.members[of].config.pod.clone();
            self.feed(i, Input::Refused { pod, why: String::new() });
        }
    }

    /// Nobody waits for an answer for ever.
    pub(crate) fn time_out_questions(&mut self, i: usize) {
        let late = |w: &Self| {
            let old = |q: &Question| q.sent < w.now && !matches!(q.answer, Answer::Voted(_));
            w.members[i].questions.iter().position(old).filter(|_| w.members[i].runs())
        };
        while let Some(k) = late(self) {
            self.refuse(i, k);
        }
    }
}
