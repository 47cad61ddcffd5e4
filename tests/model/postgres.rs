//! PostgreSQL: what a server becomes, what a standby takes over, and when it has diverged.

use podgres::ha::{Data, Goal, Server, lease::Began};

use crate::{
    rules::Rule,
    world::{SYSTEM, World},
};

impl World {
    /// Whether the server is not yet what it is to be, and can become it.
    pub(crate) fn server_step(&self, i: usize) -> bool {
        let m = &self.members[i];
        // What was ordered goes on while the manager does not run; nothing new is started.
        // What has ended is started again by whoever has seen that it did.
        let may_start = !m.slow && m.memory.local.server != Server::Primary;
        let present = m.disk.data == Data::Present;
        match (m.goal, m.server) {
            _ if m.dying => false,
            (Some(Goal::Down), s) => s != Server::Down,
            (Some(Goal::Standby), Server::Primary) => true,
            (Some(Goal::Standby), Server::Down) if present => may_start,
            (Some(Goal::Standby), Server::Down) => may_start && self.may_receive(i) && self.leader_of(i).is_some(),
            (Some(Goal::Primary { .. }), Server::Down) => may_start && present,
            (Some(Goal::Primary { .. }), Server::Standby) => true,
            (Some(Goal::Initialise), Server::Down) => may_start && m.disk.data == Data::Empty,
            _ => false,
        }
    }

    pub(crate) fn server(&mut self, i: usize) {
        let m = self.member(i);
        match (m.goal, m.server) {
            (Some(Goal::Primary { direct: true }), Server::Down) => self.becomes_primary(i, true),
            (Some(Goal::Primary { .. }), Server::Standby) => self.becomes_primary(i, false),
            (Some(Goal::Primary { .. }), _) => m.server = Server::Standby,
            (Some(Goal::Initialise), _) => {
                (m.disk.data, m.disk.timeline) = (Data::Unrecorded, 1);
                self.entry(i);
                let drawn = SYSTEM + u64::from(self.entries);
                self.member(i).disk.system = drawn;
            }
            (Some(Goal::Standby), Server::Down) if m.disk.data == Data::Present => m.server = Server::Standby,
            (Some(Goal::Standby), Server::Down) => {
                if let Some(leader) = self.leader_of(i) {
                    self.clone_from(i, leader);
                    self.member(i).server = Server::Standby;
                }
            }
            _ => m.server = Server::Down,
        }
        self.attend(i);
    }

    fn becomes_primary(&mut self, i: usize, direct: bool) {
        self.check_primary(i, direct);
        let m = self.member(i);
        m.server = Server::Primary;
        // As `lifecycle`: what is a primary is started again as one.
        (m.goal, m.led) = (Some(Goal::Primary { direct: true }), m.disk.held);
        m.timeline_unnoted = true;
        if !direct {
            m.disk.timeline += 1;
            self.entry(i);
        }
        if !self.setup.notes_late {
            self.write_timeline(i);
        }
        if self.members[i].is_synchronous() {
            self.begin_confirming(i);
        }
    }

    pub(crate) fn entry(&mut self, i: usize) {
        self.entries += 1;
        let entry = self.entries;
        self.member(i).disk.log.push(entry);
    }

    pub(crate) fn note_timeline(&mut self, i: usize) {
        self.write_timeline(i);
        self.attend(i);
    }

    fn write_timeline(&mut self, i: usize) {
        let m = self.member(i);
        m.timeline_unnoted = false;
        if m.disk.began.is_none_or(|b| b.timeline != m.disk.timeline) {
            m.disk.began = Some(Began { term: m.disk.held, timeline: m.disk.timeline });
        }
    }

    /// Whether `j` is connected to `i`, which in an asynchronous cluster takes no time.
    pub(crate) fn streams(&self, j: usize, i: usize) -> bool {
        match self.members[j].is_synchronous() {
            true => self.members[j].wire.as_ref().is_some_and(|wire| wire.to == i && !wire.dead),
            false => self.is_source(j, i) && self.may_stream(j, i) && self.may_receive(j),
        }
    }

    /// Whether PostgreSQL finds nothing wrong with `j` streaming from `i`.
    pub(crate) fn may_stream(&self, j: usize, i: usize) -> bool {
        let (from, to) = (&self.members[i], &self.members[j]);
        if !from.up || !from.is_writable() || !to.up || to.server != Server::Standby {
            return false;
        }
        match to.disk.timeline.cmp(&from.disk.timeline) {
            std::cmp::Ordering::Less => from.disk.log.starts_with(&to.disk.log),
            std::cmp::Ordering::Equal => to.disk.log.len() <= from.disk.log.len(),
            std::cmp::Ordering::Greater => false,
        }
    }

    pub(crate) fn is_source(&self, j: usize, i: usize) -> bool {
        let (source, leader) = (self.members[j].source(), &self.members[i]);
        // A name is that of two members when one of them was deleted by force.
        let named = self.broken(Rule::AddressNotName) && source.starts_with(&leader.config.pod);
        source == leader.address() || named
    }

    /// The primary that `i` receives from.
    pub(crate) fn upstream(&self, i: usize) -> Option<usize> {
        match self.members[i].is_synchronous() {
            true => self.members[i].wire.as_ref().map(|wire| wire.to),
            false => self.leader_of(i),
        }
    }

    /// The running primary that `i` is to follow.
    pub(crate) fn leader_of(&self, i: usize) -> Option<usize> {
        (0..self.members.len()).find(|l| {
            let leader = &self.members[*l];
            *l != i && leader.up && leader.is_writable() && self.is_source(i, *l)
        })
    }

    /// As `note_leader` of the manager.
    pub(crate) fn note_leader(&mut self, i: usize) {
        let disk = &mut self.member(i).disk;
        disk.follows = disk.leader_term;
    }

    /// What `i` is to note of the timeline that it receives.
    pub(crate) fn new_history(&self, i: usize) -> Option<Began> {
        let m = &self.members[i];
        let receives = self.upstream(i).is_some_and(|l| self.streams(i, l)) && m.runs();
        m.origin().receives(m.disk.timeline).filter(|_| receives)
    }

    pub(crate) fn note_history(&mut self, i: usize) {
        let began = self.new_history(i);
        let m = self.member(i);
        m.disk.began = began.or(m.disk.began);
        self.attend(i);
    }

    pub(crate) fn would_follow(&self, i: usize, leader: usize) -> bool {
        let (m, l) = (&self.members[i], &self.members[leader]);
        let news = m.disk.log != l.disk.log || m.disk.timeline != l.disk.timeline;
        self.streams(i, leader) && !self.has_diverged(i, leader) && news
    }

    /// PostgreSQL continues what is there, whatever that is.
    pub(crate) fn follow(&mut self, i: usize) {
        let Some(leader) = self.upstream(i) else { return };
        let (log, timeline) = (self.members[leader].disk.log.clone(), self.members[leader].disk.timeline);
        if !log.starts_with(&self.members[i].disk.log) {
            let (a, b) = (&self.members[i].config.uid, &self.members[leader].config.uid);
            let why = format!("I4: {a} streams from {b} over a history that is another one: its data are corrupt");
            return self.fails(why);
        }
        if !self.members[i].is_synchronous() {
            self.note_leader(i);
        }
        let instance = self.members[leader].config.instance.clone();
        let m = self.member(i);
        m.followed = Some(instance);
        (m.disk.log, m.disk.timeline) = (log, timeline);
        self.attend(i);
    }

    /// Whether the manager of the standby `i` finds that it has diverged: as the follower's look, and `other_lineage`.
    pub(crate) fn has_diverged(&self, i: usize, leader: usize) -> bool {
        let (m, l) = (&self.members[i], &self.members[leader]);
        if m.server != Server::Standby || m.memory.in_office().is_some() || m.goal != Some(Goal::Standby) {
            return false;
        }
        let theirs = m.memory.lease().and_then(|l| l.timeline);
        let other = m.disk.began.zip(theirs).is_some_and(|(a, b)| a.contradicts(b));
        // What it streams from since it was on that timeline is one history with it. Others it looks at first.
        let unnoted = m.disk.began.is_some_and(|b| b.timeline < m.disk.timeline) && l.disk.timeline >= m.disk.timeline;
        let unnoted = unnoted && m.followed.as_ref() != Some(&l.config.instance);
        if (other || unnoted) && !self.broken(Rule::LineageIsTerm) {
            return true;
        }
        match m.disk.timeline.cmp(&l.disk.timeline) {
            std::cmp::Ordering::Less => !l.disk.log.starts_with(&m.disk.log),
            std::cmp::Ordering::Equal => m.disk.log.len() > l.disk.log.len(),
            std::cmp::Ordering::Greater => true,
        }
    }

    pub(crate) fn repair_now(&mut self, i: usize) {
        if let Some(leader) = self.leader_of(i) {
            self.clone_from(i, leader);
            self.attend(i);
        }
    }

    /// A clone or a rewind: another copy, with all that the leader has.
    fn clone_from(&mut self, i: usize, leader: usize) {
        self.copies += 1;
        let copy = format!("copy{}", self.copies);
        let from = self.members[leader].disk.clone();
        let instance = self.members[leader].config.instance.clone();
        let m = self.member(i);
        m.followed = Some(instance);
        m.disk.copy = copy;
        (m.disk.data, m.disk.held, m.disk.began, m.disk.follows) = (Data::Present, 0, None, m.disk.leader_term);
        (m.disk.log, m.disk.timeline, m.disk.system) = (from.log, from.timeline, from.system);
        self.pods_changed();
    }
}
