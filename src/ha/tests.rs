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
            shutdown_timeout: S(25),
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
        let row = |n: &&str| Standby { name: format!("{n}_{}", copy(n)), lag: Some(0), streaming: true };
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

#[test]
fn the_first_member_makes_the_cluster_and_serves_nobody_before_it_is_recorded() {
    let mut a = Member::new("a");
    a.give(Input::Pods([("a".to_string(), Pod { status: None, ..pod("a") })].into()));
    a.give(Input::Lease(None));
    let taken = a.take_written().expect("it takes the Lease");
    assert_eq!((taken.term, taken.holder.as_str(), taken.record), (1, "a", Some(record(&["a"]))));
    let lease = Lease { version: "1".into(), ..a_lease(&a, 1) };
    let sent = a.now;
    a.now += MS(20);
    let actions = a.give(Input::Written { sent, result: Ok(lease) });
    assert!(actions.contains(&Action::Arm(sent + S(8))) && actions.contains(&Action::NoteOffice(1)), "{actions:?}");
    assert_eq!(aims(&actions), [Goal::Initialise]);
    let actions = a.local(|l| {
        l.data = Data::Unrecorded;
        l.system_id = Some(42);
    });
    assert_eq!(aims(&actions), [], "not before the identity is on the Lease");
    let actions = a.granted();
    assert!(actions.contains(&Action::NoteRecorded), "{actions:?}");
    assert_eq!(aims(&actions), [Goal::Primary { direct: true }]);
    assert_eq!(a.memory.lease().unwrap().system_id, Some(42));
}

fn a_lease(member: &Member, term: u64) -> Lease {
    Lease {
        holder: member.config.pod.clone(),
        instance: member.config.instance.clone(),
        pod_uid: member.config.uid.clone(),
        duration: S(10),
        term,
        record: Some(record(&[&member.config.pod])),
        ..Lease::default()
    }
}

#[test]
fn nobody_makes_a_cluster_while_somebody_may_have_data() {
    let empty = |name: &str, instance: &str| Pod {
        status: Some(Status { instance: instance.into(), ..Status::default() }),
        ..pod(name)
    };
    let mut a = Member::new("a");
    a.give(Input::Pods([("a", "i"), ("b", "")].map(|(n, i)| (n.to_string(), empty(n, i))).into()));
    a.give(Input::Lease(None));
    assert!(!a.writes(), "b has not said whether it has data");
    a.pods(&["b"]);
    a.after(S(20));
    assert!(!a.writes(), "b has data");
    a.give(Input::Pods([("a", "i"), ("b", "j")].map(|(n, i)| (n.to_string(), empty(n, i))).into()));
    assert!(a.writes(), "nobody has");
}

#[test]
fn what_a_founder_made_is_discarded_where_the_lease_knows_another() {
    let mut a = Member::new("a");
    a.local(|l| {
        l.data = Data::Unrecorded;
        l.system_id = Some(1);
    });
    a.pods(&["a", "b"]);
    let actions = a.give(Input::Lease(Some(led_by("b"))));
    assert!(actions.contains(&Action::Discard), "{actions:?}");
    a.local(|l| l.data = Data::Present);
    let actions = a.give(Input::Lease(Some(led_by("b"))));
    assert!(!actions.contains(&Action::Discard) && a.memory.reason == Reason::Foreign { ours: 1, theirs: 42 });
}

#[test]
fn a_leader_is_gone_when_it_was_not_seen_to_renew_for_the_whole_duration() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(9));
    b.give(Input::Lease(Some(Lease { version: "12".into(), switchover_to: Some("b".into()), ..led_by("a") })));
    assert!(b.done.iter().any(|a| !matches!(a, Action::WriteLease { .. })));
    b.after(MS(500));
    assert!(b.done.contains(&Action::Ask(vec!["a".into(), "b".into(), "c".into()])), "asked a little before");
    b.accounts(&[account("b", 5), account("c", 5)]);
    assert!(!b.writes(), "not before its time");
    b.after(MS(500));
    let Some(Action::WriteLease { over, lease }) = b.done.iter().find(|a| matches!(a, Action::WriteLease { .. }))
    else {
        panic!("an annotation must not restart the wait: {:?}", b.memory.reason)
    };
    assert_eq!((over.as_deref(), lease.term, lease.holder.as_str()), (Some("12"), 8, "b"));
    assert_eq!(lease.record, Some(record(&["a", "b", "c"])), "taking office leaves the record as it is");
}

#[test]
fn a_renewal_restarts_the_wait() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(9));
    b.give(Input::Lease(Some(Lease { version: "12".into(), renewed: "t2".into(), ..led_by("a") })));
    b.after(S(9));
    assert!(!b.writes() && !b.done.iter().any(|a| matches!(a, Action::Ask(_))));
}

#[test]
fn the_larger_duration_counts() {
    let mut b = Member::standby("b", &Lease { duration: S(30), ..led_by("a") });
    b.after(S(29));
    assert!(!b.writes() && !b.done.iter().any(|a| matches!(a, Action::Ask(_))));
}

#[test]
fn the_one_behind_leaves_it_to_the_one_ahead_for_a_second() {
    let mut b = Member::standby("b", &led_by("a"));
    b.after(S(10));
    b.accounts(&[account("b", 5), account("c", 6)]);
    assert!(!b.writes());
    b.after(S(1));
    b.accounts(&[account("b", 5), account("c", 6)]);
    assert!(b.writes(), "{:?}", b.memory.reason);
}

#[test]
fn a_freed_lease_is_for_the_one_it_was_freed_for() {
    let mut b = Member::standby("b", &led_by("a"));
    let actions = b.give(Input::Lease(Some(freed(Some(&copy("b"))))));
    assert!(matches!(actions.as_slice(), [Action::WriteLease { .. }, ..]), "at once: {actions:?}");
    let mut c = Member::standby("c", &led_by("a"));
    c.give(Input::Lease(Some(freed(Some(&copy("b"))))));
    c.after(MS(4900));
    assert!(!c.writes() && !c.done.iter().any(|a| matches!(a, Action::Ask(_))));
    c.after(MS(100));
    c.accounts(&[account("c", 5)]);
    assert!(c.writes(), "after five seconds anyone may");
}

#[test]
fn an_empty_holder_alone_is_not_free() {
    let mut b = Member::standby("b", &led_by("a"));
    b.give(Input::Lease(Some(Lease { free: None, ..freed(None) })));
    b.give(Input::Lease(Some(Lease { free: Some(Free { term: 6, to: None }), version: "13".into(), ..freed(None) })));
    b.after(S(5));
    assert!(!b.writes());
}

#[test]
fn only_the_message_of_a_terminated_container_of_a_pod_that_goes_is_proof_of_death() {
    let dies = |deleting: bool, ended: &str, uid: &str| {
        let mut b = Member::standby("b", &led_by("a"));
        b.pod("a", |p| {
            p.deleting = deleting;
            p.ended = vec![ended.into()];
            p.uid = uid.into();
        });
        b.accounts(&[account("b", 5)]);
        b.writes()
    };
    assert!(dies(true, "instance-a", "uid-a"));
    assert!(!dies(false, "instance-a", "uid-a"), "it restarts in place and loses nothing");
    assert!(!dies(true, "instance-of-before", "uid-a"));
    assert!(!dies(true, "instance-a", "uid-of-another"));
}

#[test]
fn the_same_pod_takes_its_office_again_at_once_and_on_the_same_timeline() {
    let mut a = Member::new("a");
    a.local(|l| {
        l.data = Data::Present;
        l.system_id = Some(42);
        l.held = 7;
    });
    a.pods(&["a", "b"]);
    let before = Lease { instance: "an earlier start".into(), ..led_by("a") };
    a.give(Input::Lease(Some(before.clone())));
    assert_eq!(aims(&a.done), [], "nothing was started before");
    let actions = a.granted();
    assert_eq!(aims(&actions), [Goal::Primary { direct: true }]);
    let mut stranger = Member::new("a");
    stranger.local(|l| l.data = Data::Present);
    stranger.pods(&["a", "b"]);
    stranger.give(Input::Lease(Some(Lease { pod_uid: "of another pod with this name".into(), ..before })));
    assert!(!stranger.writes(), "the same name is a stranger");
}

#[test]
fn a_copy_that_the_record_does_not_name_never_stands() {
    let mut b = Member::standby("b", &Lease { record: Some(record(&["a", "c"])), ..led_by("a") });
    b.after(S(60));
    assert!(!b.writes());
}

#[test]
fn nobody_stands_by_a_lease_that_was_restored() {
    let mut b = Member::standby("b", &led_by("a"));
    b.give(Input::Read(Ok(Some(Lease { version: "9".into(), term: 5, renewed: "t0".into(), ..led_by("c") }))));
    b.after(S(60));
    b.accounts(&[account("b", 5)]);
    assert!(!b.writes(), "{:?}", b.memory.reason);
}

#[test]
fn a_pause_stops_elections_and_its_end_counts_from_the_next_renewal() {
    let paused = Lease { paused: Some("true".into()), duration: lease::PAUSED, ..led_by("a") };
    let mut b = Member::standby("b", &paused);
    b.after(S(60));
    assert!(!b.writes());
    // The leader may not know of the resume (T15), and whoever starts now has not seen the pause.
    let resumed = Lease { version: "12".into(), paused: None, ..paused.clone() };
    let mut c = Member::standby("c", &resumed);
    for member in [&mut b, &mut c] {
        member.give(Input::Lease(Some(resumed.clone())));
        member.after(S(3600));
        assert!(!member.writes());
    }
    b.give(Input::Lease(Some(Lease { version: "13".into(), renewed: "t2".into(), ..led_by("a") })));
    b.after(S(10));
    b.accounts(&[account("b", 5)]);
    assert!(b.writes());
}

#[test]
fn only_a_renewal_that_says_so_spares_a_leader_the_fence() {
    let mut a = Member::leader("a");
    let before = a.memory.lease().unwrap().clone();
    a.give(Input::Lease(Some(Lease { version: "80".into(), paused: Some("true".into()), ..before })));
    assert_eq!(a.take_written().map(|l| l.duration), Some(lease::PAUSED), "at once, not at its next turn");
    let paused = Lease {
        version: "81".into(),
        renewed: "p".into(),
        duration: lease::PAUSED,
        ..a.memory.lease().unwrap().clone()
    };
    let actions = a.give(Input::Written { sent: a.now, result: Ok(paused.clone()) });
    assert!(actions.contains(&Action::Disarm), "{actions:?}");
    a.done.clear();
    a.give(Input::Lease(Some(Lease { version: "82".into(), paused: None, ..paused })));
    assert_eq!(a.take_written().map(|l| l.duration), Some(S(10)));
}

#[test]
fn a_leader_renews_and_moves_its_fence() {
    let mut a = Member::leader("a");
    a.after(MS(1900));
    assert!(!a.writes());
    a.after(MS(100));
    let sent = a.now;
    let actions = a.granted();
    assert!(actions.contains(&Action::Arm(sent + S(8))), "{actions:?}");
    assert_eq!(a.memory.lease().unwrap().record, Some(record(&["a", "b", "c"])));
}

#[test]
fn a_conflict_is_read_back_and_only_another_holder_ends_the_office() {
    let mut a = Member::leader("a");
    a.after(S(2));
    let before = a.memory.lease().unwrap().clone();
    a.take_written();
    let actions = a.give(Input::Written { sent: a.now, result: Err(Refusal::Conflict) });
    assert!(actions.contains(&Action::ReadLease));
    let moved = Lease { version: "99".into(), paused: Some("false".into()), ..before.clone() };
    a.give(Input::Read(Ok(Some(moved))));
    assert!(a.writes(), "an annotation moved the version: once more");
    a.take_written();
    a.give(Input::Written { sent: a.now, result: Err(Refusal::Conflict) });
    let other = Lease { version: "100".into(), term: before.term + 1, ..led_by("b") };
    let actions = a.give(Input::Read(Ok(Some(other))));
    assert!(kills(&actions), "{actions:?}");
    assert_eq!(aims(&actions), [Goal::Down, Goal::Standby]);
    assert!(!actions.contains(&Action::Disarm), "not while a postmaster is there");
    assert!(a.local(|l| l.server = Server::Down).contains(&Action::Disarm));
}

#[test]
fn a_lease_that_somebody_deleted_is_written_anew_by_the_leader_in_office() {
    let mut a = Member::leader("a");
    a.give(Input::Lease(None));
    a.after(S(2));
    let Some(Action::WriteLease { over: None, lease }) =
        a.done.last().cloned().into_iter().find(|a| matches!(a, Action::WriteLease { .. }))
    else {
        panic!("{:?}", a.done)
    };
    assert_eq!((lease.term, lease.system_id, lease.record.clone()), (8, Some(42), Some(record(&["a", "b", "c"]))));
    let mut b = Member::standby("b", &led_by("a"));
    b.local(|l| l.record = Some(record(&["a", "b", "c"])));
    b.give(Input::Lease(None));
    b.after(S(9));
    assert!(!b.writes());
    b.after(S(1));
    b.accounts(&[account("b", 5)]);
    assert_eq!(b.take_written().unwrap().term, 8);
}

#[test]
fn a_leader_that_was_fenced_begins_again_as_if_it_had_just_started() {
    let mut a = Member::leader("a");
    a.now += S(8);
    let actions = a.give(Input::Fired);
    assert_eq!((&a.memory.office, aims(&actions).as_slice()), (&Office::Out, [Goal::Standby].as_slice()));
    assert!(!actions.contains(&Action::Disarm));
    assert!(a.local(|l| l.server = Server::Down).contains(&Action::Disarm));
    assert!(a.writes(), "the Lease is still this pod's: with its server proven dead it takes it again");
}

#[test]
fn the_record_forgets_who_has_not_streamed_for_a_duration() {
    let mut a = Member::leader("a");
    for _ in 0..5 {
        a.after(S(2));
        a.streams(&["b"]);
        a.granted();
    }
    a.after(S(2));
    a.granted();
    assert_eq!(a.memory.lease().unwrap().record, Some(record(&["a", "b"])));
    a.streams(&["b", "c"]);
    a.granted();
    assert_eq!(a.memory.lease().unwrap().record, Some(record(&["a", "b", "c"])), "at once when it is back");
    a.pod("c", |p| p.deleting = true);
    a.granted();
    assert_eq!(a.memory.lease().unwrap().record, Some(record(&["a", "b"])), "at once when its pod goes");
}

#[test]
fn a_switchover_is_a_checkpoint_a_shutdown_and_a_lease_freed_for_the_target() {
    let mut a = Member::leader("a");
    assert!(!a.pod("b", |p| p.promote = Some("1".into())).contains(&Action::Checkpoint), "who streams may be old news");
    assert!(a.memory.hurries() && a.looks().contains(&Action::Checkpoint));
    a.now += MS(300);
    let actions = a.give(Input::Checkpointed);
    assert_eq!(aims(&actions), [Goal::Down]);
    assert!(!kills(&actions) && actions.contains(&Action::AwaitTarget("b".into())));
    a.local(|l| l.server = Server::Changing);
    assert!(a.give(Input::CaughtUp(Ok(()))).contains(&Action::Quit));
    assert!(a.take_written().is_none(), "not before it is reaped");
    a.now += MS(100);
    a.local(|l| l.server = Server::Down);
    let Some(freed) = a.take_written() else { panic!("{:?}", a.done) };
    assert_eq!((freed.holder.as_str(), freed.free.clone()), ("", Some(Free { term: 8, to: Some(copy("b")) })));
    let freed = Lease { version: "50".into(), renewed: "x".into(), ..freed };
    let actions = a.give(Input::Written { sent: a.now, result: Ok(freed.clone()) });
    assert!(actions.contains(&Action::Disarm));
    assert_eq!(aims(&actions), [Goal::Standby]);
    a.now += MS(50);
    let taken = Lease {
        version: "51".into(),
        term: 9,
        timeline: Some(Began { term: 9, timeline: 2 }),
        free: None,
        ..led_by("b")
    };
    let actions = a.give(Input::Lease(Some(taken)));
    let outcome = actions.iter().find_map(|x| match x {
        Action::PatchPod { pod, annotations, .. } if pod == "b" => annotations.get("last-command").cloned().flatten(),
        _ => None,
    });
    let outcome = outcome.expect("the outcome is on the pod that was annotated");
    assert!(outcome.contains("150 ms") && outcome.contains("done"), "{outcome}");
}

#[test]
fn a_target_that_cannot_take_over_is_refused_in_words() {
    let refusal = |change: &dyn Fn(&mut Member)| {
        let mut a = Member::leader("a");
        change(&mut a);
        a.done.clear();
        let mut actions = a.pod("b", |p| p.promote = Some("yes".into()));
        actions.extend(a.looks());
        actions.extend(a.after(S(3)));
        assert!(!actions.contains(&Action::Checkpoint), "{actions:?}");
        let note = actions
            .into_iter()
            .find_map(|x| if let Action::Event { note, warning: true, .. } = x { Some(note) } else { None });
        note.unwrap()
    };
    assert!(refusal(&|a| drop(a.streams(&["c"]))).contains("b does not stream"));
    assert!(refusal(&|a| drop(a.pod("b", |p| p.fenced = Some("true".into())))).contains("fenced"));
    let row = |lag, streaming| Standby { name: format!("b_{}", copy("b")), lag, streaming };
    assert!(refusal(&|a| drop(a.give(Input::Standbys(vec![row(Some(101), true)])))).contains("101 bytes behind"));
    assert!(refusal(&|a| drop(a.give(Input::Standbys(vec![row(Some(0), false)])))).contains("catching up"));
    let mut a = Member::leader("a");
    a.pod("a", |p| p.promote = Some("yes".into()));
    a.looks();
    assert!(format!("{:?}", a.done).contains("a is the primary already"));
}

#[test]
fn a_slip_of_the_pen_is_kept_and_complained_of_once() {
    let mut a = Member::leader("a");
    let lease = Lease { version: "80".into(), switchover_to: Some("d".into()), ..a.memory.lease().unwrap().clone() };
    a.give(Input::Lease(Some(lease)));
    let actions = a.looks();
    let complaints = |actions: &[Action]| {
        actions.iter().filter(|x| matches!(x, Action::Event { reason: "BadAnnotation", .. })).count()
    };
    assert_eq!((complaints(&actions), actions.contains(&Action::ClearSwitchover)), (1, false), "{actions:?}");
    assert_eq!(complaints(&a.after(S(1))), 0);
}

#[test]
fn a_leader_that_is_told_to_end_hands_over_first() {
    let mut a = Member::leader("a");
    a.give(Input::Terminate { hand_over: true });
    assert!(a.looks().contains(&Action::Checkpoint));
    let mut alone = Member::leader("a");
    alone.give(Input::Standbys(Vec::new()));
    alone.give(Input::Terminate { hand_over: true });
    let actions = alone.looks();
    assert_eq!(aims(&actions), [Goal::Down], "with nobody to hand over to it just stops");
    alone.local(|l| l.server = Server::Down);
    assert_eq!(alone.take_written().unwrap().free, Some(Free { term: 8, to: None }));
    let free = Lease { version: "90".into(), renewed: "y".into(), ..freed(None) };
    let actions = alone.give(Input::Written { sent: alone.now, result: Ok(free) });
    assert!(actions.contains(&Action::Exit), "{actions:?}");
}

#[test]
fn a_sick_server_is_killed_and_reaped_before_the_lease_is_freed() {
    let mut a = Member::leader("a");
    let actions = a.local(|l| l.sick = Some("its postmaster is frozen".into()));
    assert!(kills(&actions) && a.take_written().is_none());
    a.after(S(3));
    assert!(!a.writes(), "it does not renew any more");
    a.local(|l| l.server = Server::Down);
    assert_eq!(a.take_written().unwrap().free, Some(Free { term: 8, to: None }));
    let free = Lease {
        version: "90".into(),
        renewed: "y".into(),
        free: Some(Free { term: 8, to: None }),
        term: 8,
        ..freed(None)
    };
    a.give(Input::Written { sent: a.now, result: Ok(free) });
    a.local(|l| l.server = Server::Standby);
    a.after(S(29));
    assert!(!a.writes(), "it stands back for the others");
}

#[test]
fn a_stale_label_of_another_is_corrected() {
    let mut a = Member::leader("a");
    let actions = a.pod("b", |p| p.role = Some("primary".into()));
    let corrected =
        Action::PatchPod { pod: "b".into(), uid: "uid-b".into(), role: Some(None), annotations: BTreeMap::new() };
    assert!(actions.contains(&corrected), "{actions:?}");
}

#[test]
fn without_the_api_a_member_with_data_serves_reads() {
    let mut b = Member::new("b");
    b.local(|l| l.data = Data::Present);
    b.give(Input::Reachable(false));
    assert_eq!(aims(&b.done), []);
    assert_eq!(aims(&b.after(S(3))), [Goal::Standby]);
}

#[test]
fn reinit_is_refused_on_the_primary() {
    let mut a = Member::leader("a");
    let actions = a.pod("a", |p| p.reinit = Some("1".into()));
    assert!(!actions.contains(&Action::Reinit) && format!("{actions:?}").contains("the primary"), "{actions:?}");
    let mut b = Member::standby("b", &led_by("a"));
    assert!(b.pod("b", |p| p.reinit = Some("1".into())).contains(&Action::Reinit));
    assert!(!b.pod("b", |_| {}).contains(&Action::Reinit), "once");
}

#[test]
fn nobody_is_woken_for_what_has_passed() {
    let mut b = Member::standby("b", &Lease { record: Some(record(&["a", "c"])), ..led_by("a") });
    for _ in 0..100 {
        b.after(MS(200));
        assert!(b.memory.wake.is_none_or(|w| w > b.now), "{:?} at {:?}", b.memory.wake, b.now);
    }
}

#[test]
fn a_watch_that_is_quicker_than_the_answer_to_the_write_ends_no_office_in_anger() {
    let mut a = Member::leader("a");
    a.pod("b", |p| p.promote = Some("1".into()));
    a.looks();
    a.give(Input::Checkpointed);
    a.give(Input::CaughtUp(Ok(())));
    a.local(|l| l.server = Server::Down);
    let freed = Lease { version: "50".into(), renewed: "x".into(), ..a.take_written().unwrap() };
    a.done.clear();
    a.give(Input::Lease(Some(freed.clone())));
    assert!(!kills(&a.done) && a.memory.handed_over.is_some(), "{:?}", a.done);
    a.give(Input::Written { sent: a.now, result: Ok(freed) });
    assert!(!kills(&a.done) && a.memory.in_office().is_none(), "{:?}", a.done);
}

#[test]
fn a_request_waits_a_moment_for_its_standby() {
    let mut a = Member::leader("a");
    a.streams(&["c"]);
    a.done.clear();
    assert!(!a.pod("b", |p| p.promote = Some("1".into())).contains(&Action::Checkpoint));
    assert!(a.memory.hurries());
    a.now += S(1);
    assert!(a.streams(&["b", "c"]).contains(&Action::Checkpoint));
    assert!(!format!("{:?}", a.done).contains("RequestRefused"));
}
