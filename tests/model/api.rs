//! The API server carries out requests and answers them, and members answer each other.

use podgres::ha::{Input, Refusal, lease::Lease};

use crate::{
    rules::Rule,
    world::{Done, Request, What, World},
};

impl World {
    /// The API server carries out a request.
    pub(crate) fn serve(&mut self, i: usize, k: usize) {
        let request = self.members[i].requests[k].clone();
        let done = match request.what {
            What::Read => Done::Read(self.api.lease.clone()),
            What::Write { over, lease } => self.write(i, over.as_deref(), *lease),
        };
        let m = self.member(i);
        if request.orphan {
            m.requests.remove(k);
        } else {
            m.requests[k].done = Some(done);
        }
    }

    fn write(&mut self, i: usize, over: Option<&str>, lease: Lease) -> Done {
        let before = self.api.lease.clone();
        match (&before, over) {
            (None, Some(_)) => return Done::Missing,
            (Some(_), None) => return Done::Conflict,
            (Some(l), Some(over)) if l.version != over => return Done::Conflict,
            _ => {}
        }
        self.check_write(i, before.as_ref(), &lease);
        let version = self.api.version + 1;
        let (paused, switchover_to) = match &before {
            Some(l) => (l.paused.clone(), l.switchover_to.clone()),
            None => (lease.paused.clone(), lease.switchover_to.clone()),
        };
        let written =
            Lease { version: version.to_string(), renewed: version.to_string(), paused, switchover_to, ..lease };
        (self.api.version, self.api.change) = (version, self.api.change + 1);
        self.api.lease = Some(written.clone());
        Done::Written(Box::new(written))
    }

    pub(crate) fn reply(&mut self, i: usize, k: usize) {
        let request = self.member(i).requests.remove(k);
        let done = request.done.clone();
        self.answer(i, &request, done);
    }

    /// None: nobody knows.
    pub(crate) fn answer(&mut self, i: usize, request: &Request, done: Option<Done>) {
        let sent = self.clock_at(i, if self.broken(Rule::CountsFromSending) { self.now } else { request.sent });
        let written = |result| Input::Written { sent, result };
        self.feed(
            i,
            match (&request.what, done) {
                (What::Read, Some(Done::Read(lease))) => Input::Read(Ok(lease)),
                (What::Read, _) => Input::Read(Err("lost".into())),
                (_, Some(Done::Written(lease))) => written(Ok(*lease)),
                (_, Some(Done::Conflict)) => written(Err(Refusal::Conflict)),
                (_, Some(Done::Missing)) => written(Err(Refusal::Missing)),
                (_, _) => written(Err(Refusal::Other("lost".into()))),
            },
        );
    }

    pub(crate) fn accounts(&mut self, i: usize, all: bool) {
        let asked = self.member(i).asked.take().unwrap_or_default();
        let answers = self.members.iter().enumerate().filter(|(j, m)| {
            // By address, which only the pod that is at the API has.
            let there = self.pods[m.pod].member == Some(*j);
            m.runs() && (*j == i || (all && there && asked.contains(&m.config.pod)))
        });
        let accounts = answers.map(|(j, m)| m.account(self.clock(j))).collect();
        self.feed(i, Input::Accounts(accounts));
    }
}
