//! When two states are the same: times count from now, and only as far as any rule looks back; the numbers of versions
//! count only by their order.

use std::hash::{Hash, Hasher};

use podgres::ha::{Known, Memory, Office, Reason, lease::Lease};

use crate::{
    member::Member,
    world::{BASE, Done, Request, What, World},
};

/// No rule that is modelled looks further back than this: the target of a hand-over has five seconds.
const LONGEST: u64 = 6;

/// Sees times from `now`. (A `Duration` hashes its seconds as a u64; nothing else is as large as `BASE`.)
struct Relative<'a, H> {
    to: &'a mut H,
    now: u64,
    longest: u64,
}

impl<H: Hasher> Hasher for Relative<'_, H> {
    fn finish(&self) -> u64 {
        self.to.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.to.write(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        let time = (BASE / 2..2 * BASE).contains(&number);
        self.to.write_u64(if time {
            (BASE + number).saturating_sub(self.now).max(BASE - self.longest)
        } else {
            number
        });
    }

    fn write_u32(&mut self, number: u32) {
        self.to.write_u32(number);
    }

    fn write_u8(&mut self, number: u8) {
        self.to.write_u8(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.to.write_usize(number);
    }

    fn write_isize(&mut self, number: isize) {
        self.to.write_isize(number);
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// All versions that the state knows, in order.
fn versions(world: &World) -> Vec<u64> {
    let mut all = vec![world.api.version];
    let mut note = |lease: Option<&Lease>| {
        if let Some(lease) = lease {
            all.extend([number(&lease.version), number(&lease.renewed)]);
        }
    };
    note(world.api.lease.as_ref());
    for m in &world.members {
        note(m.memory.lease());
        note(m.lease_coming.as_ref().and_then(Option::as_ref));
        for request in &m.requests {
            match &request.done {
                Some(Done::Read(lease)) => note(lease.as_ref()),
                Some(Done::Written(lease)) => note(Some(lease)),
                _ => {}
            }
        }
    }
    for request in world.members.iter().flat_map(|m| &m.requests) {
        if let What::Write { over: Some(over), .. } = &request.what {
            all.push(number(over));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

struct Ranks(Vec<u64>);

impl Ranks {
    fn of(&self, text: &str) -> String {
        self.0.binary_search(&number(text)).map_or("?".into(), |rank| rank.to_string())
    }

    fn lease(&self, lease: &Lease) -> Lease {
        Lease { version: self.of(&lease.version), renewed: self.of(&lease.renewed), ..lease.clone() }
    }

    /// Without what is only for people.
    fn memory(&self, memory: &Memory) -> Memory {
        let mut memory = memory.clone();
        (memory.reason, memory.trouble) = (Reason::Begun, None);
        if let Some(candidacy) = &mut memory.candidacy {
            candidacy.refusals.clear();
        }
        if let Office::In(office) = &mut memory.office {
            office.failsafe.refusals.clear();
            // Only whether it has changed since counts.
            office.standbys.iter_mut().for_each(|row| row.replied = None);
        }
        if let Known::Lease { lease, .. } = &mut memory.known {
            *lease = self.lease(lease);
        }
        memory
    }

    fn request<H: Hasher>(&self, request: &Request, to: &mut H) {
        request.sent.hash(to);
        request.orphan.hash(to);
        match &request.what {
            What::Read => 0.hash(to),
            // Its version and time of renewal are what the API makes of it.
            What::Write { over, lease } => {
                over.as_ref().map(|o| self.of(o)).hash(to);
                Lease { version: String::new(), renewed: String::new(), ..(**lease).clone() }.hash(to);
            }
        }
        match &request.done {
            None => 0.hash(to),
            Some(Done::Conflict) => 1.hash(to),
            Some(Done::Missing) => 2.hash(to),
            Some(Done::Read(lease)) => lease.as_ref().map(|l| self.lease(l)).hash(to),
            Some(Done::Written(lease)) => self.lease(lease).hash(to),
        }
    }

    fn member<H: Hasher>(&self, world: &World, m: &Member, to: &mut H) {
        (&m.config.instance, &m.config.uid, m.starts, m.up, m.slow, m.cut).hash(to);
        self.memory(&m.memory).hash(to);
        (&m.disk, m.server, m.goal, m.fence, m.dying, m.fired).hash(to);
        m.requests.iter().for_each(|r| self.request(r, to));
        m.followed.hash(to);
        m.asking.as_ref().map(|a| (a.term, &a.of, a.sent)).hash(to);
        (&m.asked, m.checkpoint, &m.awaits, m.told_to_end, m.timeline_unnoted, m.better, m.led).hash(to);
        (&m.confirms, &m.stopping, &m.confirming, &m.questions).hash(to);
        if let Some(wire) = &m.wire {
            (wire.to, &wire.name, &wire.names, wire.flushed, wire.dead).hash(to);
            let replied = wire.replied.to_string();
            let rows = world.members[wire.to].memory.in_office().map(|o| &o.standbys);
            let row = rows.and_then(|rows| rows.iter().find(|r| r.name == wire.name));
            row.map(|row| row.replied.as_ref() == Some(&replied)).hash(to);
        }
        (m.lease_seen == Some(world.api.change), m.pods_seen == Some(world.pods_change)).hash(to);
        m.lease_coming.as_ref().map(|l| l.as_ref().map(|l| self.lease(l))).hash(to);
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let ranks = Ranks(versions(self));
        let longest = LONGEST.max(self.setup.durations.iter().max().map_or(0, |d| d + 1));
        let mut to = Relative { to, now: self.now, longest };
        self.api.lease.as_ref().map(|l| ranks.lease(l)).hash(&mut to);
        self.api.old.is_some().hash(&mut to);
        (&self.pods, &self.budget, &self.granted, &self.confirmed, self.violation.is_some()).hash(&mut to);
        self.members.iter().for_each(|m| ranks.member(self, m, &mut to));
    }
}

/// The checker compares fingerprints; only the reconstruction of a path needs this.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let of = |world: &World| {
            let mut hasher = std::hash::DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        of(self) == of(other)
    }
}
