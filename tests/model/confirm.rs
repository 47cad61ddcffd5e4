//! Who confirms commits, inside PostgreSQL: each process goes by the setting that it has read itself, when it likes
//! (`syncrep.c`). What `src/manager/cluster/confirm.rs` orders and proves is carried out here.

use podgres::ha::{Input, Server, Standby, quorum::Names};

use crate::{acts::Act, rules::Rule, world::World};

/// A walreceiver's connection to a primary, with what its walsender knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wire {
    /// The member whose primary it is.
    pub(crate) to: usize,
    /// `application_name`.
    pub(crate) name: String,
    /// The setting that its walsender goes by.
    pub(crate) names: Names,
    /// How far the standby has said that it has flushed; none: it has said nothing yet.
    pub(crate) flushed: Option<u64>,
    /// Changes with each sign of life.
    pub(crate) replied: bool,
    /// The standby's machine is gone, and the primary has not noticed.
    pub(crate) dead: bool,
}

/// The setting in a primary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Confirms {
    /// What the file says.
    pub(crate) file: Names,
    /// What the postmaster has read, and what new processes begin with.
    pub(crate) postmaster: Names,
    /// Whether commits wait at all: a flag that the checkpointer sets when it reads the file.
    pub(crate) waits: bool,
    /// Commits up to here are released.
    pub(crate) released: u64,
    /// Those whose clients wait to be told.
    pub(crate) commits: Vec<Commit>,
}

/// A commit that is in the own WAL, on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Commit {
    /// Where it ends.
    pub(crate) lsn: u64,
    /// Whether its backend has looked and found that it is to wait.
    pub(crate) waits: bool,
}

/// A process that reads the file when it is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    Postmaster,
    Checkpointer,
    /// That of this standby.
    Walsender(usize),
}

impl Default for Confirms {
    fn default() -> Self {
        Self { file: Names::Nobody, postmaster: Names::Nobody, waits: true, released: 0, commits: Vec::new() }
    }
}

fn nobody_is_waited_for() -> Names {
    Names::Any { n: 0, standbys: Default::default() }
}

impl Wire {
    /// `sync_priority` is not 0, and there is a `flush_lsn`.
    fn counts(&self) -> Option<u64> {
        self.flushed.filter(|_| self.names.names().contains(&self.name))
    }
}

impl World {
    pub(crate) fn steps_of_streams(&self, acts: &mut Vec<Act>) {
        for (j, m) in self.members.iter().enumerate().filter(|(_, m)| m.is_synchronous()) {
            match &m.wire {
                _ if !self.has_its_disk(j) => {}
                None if self.would_connect(j).is_some() => acts.push(Act::Connect(j)),
                Some(wire) if wire.dead => acts.push(Act::HangUp(j)),
                Some(wire) => {
                    if !self.is_source(j, wire.to) || !self.may_receive(j) {
                        acts.push(Act::Disconnect(j));
                    }
                    if wire.flushed != Some(m.lsn()) || self.releases(j).is_some() {
                        acts.push(Act::Ack(j));
                    }
                }
                None => {}
            }
            if m.up && m.is_writable() {
                self.steps_of_primary(j, acts);
            }
        }
    }

    fn steps_of_primary(&self, i: usize, acts: &mut Vec<Act>) {
        let (m, c) = (&self.members[i], &self.members[i].confirms);
        if c.postmaster == c.file {
            let senders = self.wires(i).filter(|(_, wire)| wire.names != c.file);
            acts.extend(senders.map(|(j, _)| Act::Reload(i, Process::Walsender(j))));
            if c.waits != (c.file != nobody_is_waited_for()) {
                acts.push(Act::Reload(i, Process::Checkpointer));
            }
        } else {
            acts.push(Act::Reload(i, Process::Postmaster));
        }
        let looks = c.commits.iter().enumerate().filter(|(_, commit)| !commit.waits);
        acts.extend(looks.map(|(k, _)| Act::Backend(i, k)));
        if m.runs() && m.stopping.as_ref().is_some_and(|before| self.nobody_confirms(i, before)) {
            acts.push(Act::Prove(i));
        }
        if m.runs() && m.confirming.is_some() {
            acts.push(Act::Confirmed(i));
        }
        if m.runs() && m.memory.hurries(&m.config.pod) && self.has_news(i) {
            acts.push(Act::Look(i));
        }
    }

    /// The connections to `i`, by standby.
    fn wires(&self, i: usize) -> impl Iterator<Item = (usize, &Wire)> {
        self.members.iter().enumerate().filter_map(move |(j, m)| Some((j, m.wire.as_ref().filter(|w| w.to == i)?)))
    }

    /// As `may_receive` of the manager. Without the rule a vote is only words.
    pub(crate) fn may_receive(&self, j: usize) -> bool {
        let m = &self.members[j];
        let frozen = m.is_frozen() && !self.broken(Rule::VoteFreezes);
        let waits = m.is_after_leader() && !self.broken(Rule::LineageIsTerm);
        !frozen && !waits
    }

    fn would_connect(&self, j: usize) -> Option<usize> {
        let m = &self.members[j];
        let free = m.wire.is_none() && self.may_receive(j);
        self.leader_of(j).filter(|i| free && self.may_stream(j, *i) && !self.has_diverged(j, *i))
    }

    pub(crate) fn connect(&mut self, j: usize) {
        let Some(to) = self.would_connect(j) else { return };
        let names = self.members[to].confirms.postmaster.clone();
        let name = self.members[j].copy().application_name();
        // Before it receives anything.
        self.note_leader(j);
        self.member(j).wire = Some(Wire { to, name, names, flushed: None, replied: false, dead: false });
    }

    /// As `prove`, whose parts stay true once they are, as long as nobody sets anything else.
    fn nobody_confirms(&self, i: usize, before: &[String]) -> bool {
        let c = &self.members[i].confirms;
        let quiet = |w: &Wire| !before.contains(&w.name) || (w.names == Names::Nobody && w.flushed.is_some());
        let proven = c.postmaster == Names::Nobody && c.waits && self.wires(i).all(|(_, w)| quiet(w));
        proven || self.broken(Rule::ProofOfReload)
    }

    pub(crate) fn prove(&mut self, i: usize) {
        self.member(i).stopping = None;
        let lsn = self.members[i].lsn();
        self.feed(i, Input::Proven(lsn));
    }

    pub(crate) fn confirmed(&mut self, i: usize) {
        if let Some(names) = self.member(i).confirming.take() {
            self.feed(i, Input::Confirmed(names));
        }
    }

    pub(crate) fn reload(&mut self, i: usize, process: Process) {
        let file = self.members[i].confirms.file.clone();
        match process {
            Process::Postmaster => self.member(i).confirms.postmaster = file,
            Process::Checkpointer => {
                let waits = file != nobody_is_waited_for();
                self.member(i).confirms.waits = waits;
                if !waits {
                    self.tell_clients(i, |c, _| c.waits);
                }
            }
            Process::Walsender(j) => {
                if let Some(wire) = &mut self.member(j).wire {
                    wire.names = file;
                }
            }
        }
    }

    /// A commit that the primary has on disk.
    pub(crate) fn commit(&mut self, i: usize) {
        self.budget.commit -= 1;
        self.entry(i);
        let lsn = self.members[i].lsn();
        if self.members[i].is_synchronous() {
            self.member(i).confirms.commits.push(Commit { lsn, waits: false });
        }
    }

    /// `SyncRepWaitForLSN`.
    pub(crate) fn backend(&mut self, i: usize, k: usize) {
        let c = &mut self.member(i).confirms;
        c.commits[k].waits = true;
        let (lsn, goes_on) = (c.commits[k].lsn, !c.waits || c.commits[k].lsn <= c.released);
        if goes_on {
            self.tell_clients(i, |c, _| c.lsn == lsn);
        }
    }

    /// The standby says how far it has flushed, and its walsender looks whom it can release: `SyncRepReleaseWaiters`.
    pub(crate) fn ack(&mut self, j: usize) {
        let lsn = self.members[j].lsn();
        let Some(wire) = &mut self.member(j).wire else { return };
        wire.flushed = Some(lsn);
        let to = wire.to;
        if let Some(released) = self.releases(j) {
            self.member(to).confirms.released = released;
            self.tell_clients(to, |c, released| c.waits && c.lsn <= released);
        }
    }

    /// Up to where the walsender of `j` could release more than is released: so many as it has read itself, of all that
    /// count by what each of theirs has read.
    fn releases(&self, j: usize) -> Option<u64> {
        let wire = self.members[j].wire.as_ref()?;
        wire.counts()?;
        let mut flushed: Vec<u64> = self.wires(wire.to).filter_map(|(_, w)| w.counts()).collect();
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        let n = wire.names.confirm().filter(|n| *n > 0)?;
        let released = *flushed.get(n - 1)?;
        (released > self.members[wire.to].confirms.released).then_some(released)
    }

    fn tell_clients(&mut self, i: usize, which: impl Fn(&Commit, u64) -> bool) {
        let m = self.member(i);
        let released = m.confirms.released;
        let term = m.disk.held;
        let (told, wait) = m.confirms.commits.iter().partition(|c| which(c, released));
        m.confirms.commits = wait;
        let told: Vec<Commit> = told;
        for commit in told {
            let entry = self.members[i].disk.log[usize::try_from(commit.lsn).unwrap() - 1];
            self.confirmed.push((entry, term));
        }
    }

    /// A server has become a primary: by the rule its file says nobody since it was started.
    pub(crate) fn begin_confirming(&mut self, i: usize) {
        let mut confirms = Confirms::default();
        if self.broken(Rule::BeginsWithNobody) {
            let names = nobody_is_waited_for();
            confirms = Confirms { file: names.clone(), postmaster: names, waits: false, ..confirms };
        }
        let m = self.member(i);
        (m.confirms, m.wire) = (confirms, None);
    }

    /// Connections end with the processes at either end, and with a primary what was to be put in force in it.
    pub(crate) fn tidy(&mut self) {
        for j in 0..self.members.len() {
            let m = &self.members[j];
            let stands = m.up && m.server == Server::Standby;
            let broken = m.wire.as_ref().is_some_and(|w| {
                let leader = &self.members[w.to];
                !leader.up || !leader.is_writable() || (!stands && !w.dead)
            });
            if broken {
                self.member(j).wire = None;
            }
            let m = &self.members[j];
            if !m.is_writable() && (m.confirms != Confirms::default() || m.stopping.is_some() || m.confirming.is_some())
            {
                let m = self.member(j);
                (m.confirms, m.stopping, m.confirming) = (Confirms::default(), None, None);
            }
        }
    }

    pub(crate) fn signs_of_life(&mut self) {
        for j in 0..self.members.len() {
            if let Some(wire) = self.member(j).wire.as_mut().filter(|w| !w.dead) {
                wire.replied = !wire.replied;
            }
        }
    }

    /// Who streams from `i`, as `pg_stat_replication` shows it.
    pub(crate) fn standbys(&self, i: usize) -> Vec<Standby> {
        let end = self.members[i].lsn();
        if self.members[i].is_synchronous() {
            let row = |w: &Wire| Standby {
                name: w.name.clone(),
                lag: w.flushed.map(|flushed| end.saturating_sub(flushed)),
                streaming: true,
                flushed: w.flushed,
                replied: Some(w.replied.to_string()),
            };
            return self.wires(i).map(|(_, w)| row(w)).collect();
        }
        let rows = (0..self.members.len()).filter(|j| *j != i && self.streams(*j, i));
        rows.map(|j| {
            let m = &self.members[j];
            let (name, lag) = (m.copy().application_name(), Some(end.saturating_sub(m.lsn())));
            Standby { name, lag, streaming: true, flushed: None, replied: None }
        })
        .collect()
    }

    /// Whether a look would show more than signs of life.
    fn has_news(&self, i: usize) -> bool {
        let known = self.members[i].memory.in_office().map(|o| &o.standbys);
        let silent = |rows: &[Standby]| -> Vec<Standby> {
            rows.iter().map(|row| Standby { replied: None, ..row.clone() }).collect()
        };
        known.is_some_and(|known| silent(known) != silent(&self.standbys(i)))
    }
}
