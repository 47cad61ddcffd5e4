mod failsafe;
mod follower;
mod leader;
mod requests;
mod synchronous;
mod votes;

use std::collections::BTreeMap;

use super::{
    lease::{Began, Free, Lease},
    member::{Account, Pod, Status},
    record::{Copy, Record},
    *,
};

/// A member, fed by hand.
struct Member {
    config: Config,
    memory: Memory,
    now: Mono,
    done: Vec<Action>,
}

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

impl Member {
    fn new(pod: &str) -> Self {
        let config = Config {
            pod: pod.into(),
            uid: format!("uid-{pod}"),
            instance: format!("instance-{pod}"),
            http: format!("{pod}:8008"),
            duration: S(10),
            renew: S(2),
            margin: S(2),
            max_lag: 100,
            priority: 100,
            start_timeout: S(300),
            sync: Sync::default(),
            failsafe: false,
        };
        let mut member = Self { config, memory: Memory::default(), now: S(100), done: Vec::new() };
        member.give(Input::Local(Local { copy: copy(pod), ..Local::default() }));
        member
    }

    /// One that streams from a leader.
    fn standby(pod: &str, lease: &Lease) -> Self {
        let mut member = Self::new(pod);
        member.local(|l| {
            l.data = Data::Present;
            l.server = Server::Standby;
            l.system_id = Some(42);
            l.began = Some(Began { term: 1, timeline: 1 });
        });
        member.pods(&["a", "b", "c"]);
        member.give(Input::Lease(Some(lease.clone())));
        member
    }

    /// One in office, whose server accepts writes.
    fn leader(pod: &str) -> Self {
        let mut member = Self::standby(pod, &led_by("z"));
        member.give(Input::Lease(Some(freed(Some(&copy(pod))))));
        member.granted();
        member.local(|l| l.server = Server::Primary);
        member.granted();
        member.streams(&["a", "b", "c"]);
        member.granted();
        member.done.clear();
        member
    }

    fn give(&mut self, input: Input) -> Vec<Action> {
        let (memory, actions) = step(&self.config, self.memory.clone(), self.now, input);
        self.memory = memory;
        self.done.extend(actions.clone());
        actions
    }

    fn local(&mut self, change: impl Fn(&mut Local)) -> Vec<Action> {
        let mut local = self.memory.local.clone();
        change(&mut local);
        self.give(Input::Local(local))
    }

    fn pods(&mut self, names: &[&str]) -> Vec<Action> {
        self.give(Input::Pods(names.iter().map(|n| (n.to_string(), pod(n))).collect()))
    }

    fn pod(&mut self, name: &str, change: impl Fn(&mut Pod)) -> Vec<Action> {
        let mut pods = self.memory.pods.clone().unwrap();
        change(pods.get_mut(name).unwrap());
        self.give(Input::Pods(pods))
    }

    fn streams(&mut self, names: &[&str]) -> Vec<Action> {
        self.streams_up_to(names, None)
    }

    fn streams_up_to(&mut self, names: &[&str], flushed: Option<u64>) -> Vec<Action> {
        let replied = Some(format!("{:?}", self.now));
        let row = |n: &&str| {
            let name = format!("{n}_{}", copy(n));
            Standby { name, lag: Some(0), streaming: true, flushed, replied: replied.clone() }
        };
        let rows = names.iter().filter(|n| **n != self.config.pod).map(row).collect();
        self.give(Input::Standbys(rows))
    }

    /// A moment later the leader has looked again at who streams.
    fn looks(&mut self) -> Vec<Action> {
        self.now += MS(1);
        let rows = self.memory.in_office().unwrap().standbys.clone();
        self.give(Input::Standbys(rows))
    }

    /// Lets the last write of the Lease succeed, as the API server would.
    fn granted(&mut self) -> Vec<Action> {
        let Some(lease) = self.take_written() else { return Vec::new() };
        let version = self.memory.lease().map_or(0, |l| l.version.parse::<u64>().unwrap()) + 1;
        let lease = Lease { version: version.to_string(), renewed: format!("{:?}", self.now), ..lease };
        self.give(Input::Written { sent: self.now, result: Ok(lease) })
    }

    fn take_written(&mut self) -> Option<Lease> {
        let at = self.done.iter().rposition(|a| matches!(a, Action::WriteLease { .. }))?;
        match self.done.remove(at) {
            Action::WriteLease { lease, .. } => Some(*lease),
            _ => None,
        }
    }

    fn writes(&self) -> bool {
        self.done.iter().any(|a| matches!(a, Action::WriteLease { .. }))
    }

    fn after(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.give(Input::Timer)
    }

    fn accounts(&mut self, accounts: &[Account]) -> Vec<Action> {
        self.give(Input::Accounts(accounts.to_vec()))
    }
}

fn copy(pod: &str) -> String {
    format!("copy-{pod}")
}

fn pod(name: &str) -> Pod {
    let status = Status {
        instance: format!("i-{name}"),
        copy: Some(copy(name)),
        system_id: Some("42".into()),
        priority: 100,
        ..Status::default()
    };
    Pod { name: name.into(), uid: format!("uid-{name}"), status: Some(status), ..Pod::default() }
}

fn record(pods: &[&str]) -> Record {
    Record { votes: 1, members: pods.iter().map(|p| Copy { pod: p.to_string(), copy: copy(p) }).collect() }
}

fn led_by(pod: &str) -> Lease {
    Lease {
        version: "10".into(),
        holder: pod.into(),
        duration: S(10),
        renewed: "t1".into(),
        instance: format!("instance-{pod}"),
        term: 7,
        pod_uid: format!("uid-{pod}"),
        address: format!("{pod}:5432"),
        record: Some(record(&["a", "b", "c"])),
        system_id: Some(42),
        timeline: Some(Began { term: 1, timeline: 1 }),
        ..Lease::default()
    }
}

fn freed(to: Option<&str>) -> Lease {
    let free = Some(Free { term: 7, to: to.map(String::from) });
    Lease {
        version: "11".into(),
        holder: String::new(),
        instance: String::new(),
        pod_uid: String::new(),
        free,
        ..led_by("a")
    }
}

fn account(pod: &str, lsn: u64) -> Account {
    Account {
        pod: pod.into(),
        instance: format!("instance-{pod}"),
        copy: Some(copy(pod)),
        system_id: Some("42".into()),
        began: Some(Began { term: 1, timeline: 1 }),
        lsn,
        primary: false,
        fit: true,
        priority: 100,
        term: 7,
        seen_ms: Some(9_500),
    }
}

fn aims(actions: &[Action]) -> Vec<Goal> {
    actions.iter().filter_map(|a| if let Action::Aim(aim) = a { Some(aim.goal) } else { None }).collect()
}

fn kills(actions: &[Action]) -> bool {
    actions.iter().any(|a| matches!(a, Action::Aim(Aim { kill: true, .. })))
}
