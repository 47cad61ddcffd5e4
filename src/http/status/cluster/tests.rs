use crate::ha::record::Copy;
use std::collections::BTreeMap;

use super::*;
use crate::{
    ha::{
        lease::{Began, Free},
        record::Record,
    },
    http::status::tests::{primary, receiver, running, standby, view},
    manager::Snapshot,
    postgres::{replication::stat::Replication, sql::Facts},
    status::Finding,
};

const FIRST: Began = Began { term: 1, timeline: 3 };

fn copy(pod: &str) -> Copy {
    Copy { pod: pod.into(), copy: format!("{pod}-copy") }
}

fn pod(name: &str, role: &str) -> Pod {
    let status = Status {
        role: role.into(),
        state: "running".into(),
        copy: Some(copy(name).copy),
        timeline: Some(3),
        http: "10.0.0.7:8008".into(),
        ..Status::default()
    };
    Pod { name: name.into(), status: Some(status), ..Pod::default() }
}

fn account(pod: &str, primary: bool, lsn: u64) -> Account {
    Account {
        pod: pod.into(),
        instance: "i".into(),
        copy: Some(copy(pod).copy),
        system_id: Some("7".into()),
        began: Some(FIRST),
        lsn,
        primary,
        fit: !primary,
        priority: 1,
        term: 7,
        seen_ms: None,
    }
}

/// db-0 leads, db-1 and db-2 follow, all answer; seen by `this`.
struct Three {
    view: ClusterView,
    answers: BTreeMap<String, Result<Account, String>>,
    snapshot: Snapshot,
    said: (Facts, Replication),
}

impl Three {
    fn seen_by(this: &str) -> Self {
        let record = Record { votes: 1, members: ["db-0", "db-1"].map(copy).into() };
        let lease = Lease { holder: "db-0".into(), term: 7, record: Some(record), ..Lease::default() };
        let pods = [pod("db-0", "primary"), pod("db-1", "standby"), pod("db-2", "standby")];
        let view = ClusterView {
            name: "db".into(),
            pod: this.into(),
            lease: Some(lease),
            pods: pods.into_iter().map(|p| (p.name.clone(), p)).collect(),
            findings: Vec::new(),
            confirming: None,
            api_silent: None,
            failsafe: false,
        };
        let answers =
            [account("db-0", true, 0x500_0000), account("db-1", false, 0x500_0000), account("db-2", false, 0x400_0000)];
        let (role, facts) = if this == "db-0" { (Role::Primary, primary()) } else { (Role::Standby, standby()) };
        let receivers = ["db-1_db-1-copy", "db-2_db-2-copy"].map(|name| receiver(name, "streaming")).into();
        let receivers = if this == "db-0" { receivers } else { Vec::new() };
        Self {
            view,
            answers: answers.map(|a| (a.pod.clone(), Ok(a))).into(),
            snapshot: running(role),
            said: (facts, Replication { receivers, ..Replication::default() }),
        }
    }

    fn pod(&mut self, name: &str) -> &mut Pod {
        self.view.pods.get_mut(name).unwrap()
    }

    fn lease(&mut self) -> &mut Lease {
        self.view.lease.as_mut().unwrap()
    }

    fn status(&self) -> (Cluster, Vec<Finding>) {
        let snapshot = Snapshot { cluster: Some(self.view.clone()), ..self.snapshot.clone() };
        let status = View { answers: self.answers.clone(), ..view(&snapshot, Some(self.said.clone())) }.status();
        (status.cluster.unwrap(), status.findings)
    }

    fn member(&self, name: &str) -> ClusterMember {
        self.status().0.members.into_iter().find(|m| m.name == name).unwrap()
    }

    /// What is wrong, and only that.
    fn says(&self) -> Vec<String> {
        self.status().1.into_iter().map(|f| f.text).collect()
    }
}

#[test]
fn a_cluster_that_is_well() {
    let three = Three::seen_by("db-0");
    let (cluster, findings) = three.status();
    assert_eq!((&*cluster.name, cluster.leader.as_deref(), cluster.term), ("db", Some("db-0"), Some(7)));
    assert_eq!((findings, cluster.paused), (Vec::new(), false));
    let member = |name: &str, role: &str, lsn: &str, lag_bytes| ClusterMember {
        name: name.into(),
        role: Some(role.into()),
        state: "running".into(),
        state_age_seconds: Some(0),
        timeline: Some(3),
        lsn: Some(lsn.into()),
        lag_bytes,
        listed: Some(true),
        reachable: true,
        ..ClusterMember::default()
    };
    let standby = |name: &str, lsn: &str, lag| {
        let (streaming, sync) = (Some(true), Some("async".into()));
        ClusterMember { streaming, sync, ..member(name, "standby", lsn, Some(lag)) }
    };
    let db_2 = ClusterMember { listed: Some(false), ..standby("db-2", "0/4000000", 0x100_0000) };
    let [first, second, third] = <[_; 3]>::try_from(cluster.members).unwrap();
    let leader = member("db-0", "primary", "0/5000000", None);
    assert_eq!(first, ClusterMember { state_age_seconds: Some(60), ..leader });
    assert_eq!((second, third), (standby("db-1", "0/5000000", 0), db_2));
}

#[test]
fn the_leader_comes_first_wherever_one_asks() {
    let mut three = Three::seen_by("db-1");
    three.lease().holder = "db-2".into();
    let names: Vec<_> = three.status().0.members.into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["db-2", "db-0", "db-1"]);
}

#[test]
fn nobody_leads() {
    let mut three = Three::seen_by("db-1");
    three.answers.clear();
    three.lease().holder = String::new();
    three.view.pods.retain(|name, _| name == "db-1");
    assert_eq!(
        three.says(),
        ["nobody leads: the Lease names no holder", "db-0 may take over and has no pod"],
        "db-0 is on the record"
    );
    three.lease().free = Some(Free { term: 7, to: Some("db-1".into()) });
    assert_eq!(three.says()[0], "nobody leads: office is free for db-1");
    three.lease().free = Some(Free { term: 7, to: None });
    assert_eq!(three.says()[0], "nobody leads: office is free for anyone who is listed");
    three.lease().holder = "db-0".into();
    assert_eq!(three.says(), ["the leader db-0 has no pod"]);
    assert_eq!((three.member("db-0").state, three.member("db-0").reachable), ("no pod".into(), false));
    three.view.lease = None;
    assert_eq!(three.says(), ["cluster db has no Lease: nobody leads"]);
}

#[test]
fn who_does_not_answer_is_unreachable_and_its_last_word_is_shown() {
    let mut three = Three::seen_by("db-0");
    three.answers.insert("db-1".into(), Err("10.0.0.7:8008 did not answer within 500 ms".into()));
    three.answers.remove("db-2");
    three.pod("db-2").status.as_mut().unwrap().http.clear();
    let member = three.member("db-1");
    assert_eq!((member.role.as_deref(), &*member.state, member.timeline), (Some("standby"), "running", Some(3)));
    assert_eq!((member.reachable, member.lsn, member.lag_bytes), (false, None, None));
    let db_1 = "db-1 cannot be reached: 10.0.0.7:8008 did not answer within 500 ms";
    assert_eq!(three.says(), [db_1, "db-2 cannot be reached: it has not said where"]);
    three.pod("db-1").deleting = true;
    three.pod("db-2").status = None;
    assert_eq!(three.says(), ["db-1 is being deleted", "db-2 has not said anything of itself yet"]);
    assert_eq!(three.member("db-2").state, "unknown");
}

#[test]
fn what_users_ask_for_is_said_and_a_value_that_makes_no_sense_changes_nothing() {
    let mut three = Three::seen_by("db-1");
    three.lease().paused = Some("true".into());
    three.lease().switchover_to = Some("db-1".into());
    three.pod("db-2").fenced = Some("true".into());
    let paused = "the cluster is paused: no failover, promotion or demotion by itself";
    let fenced = "db-2 is fenced: its PostgreSQL stays down until that is taken away";
    assert_eq!(three.says(), [paused, "a switchover to db-1 is asked for", fenced]);
    assert!(three.status().0.paused && three.member("db-2").fenced);
    three.lease().paused = Some("perhaps".into());
    three.lease().switchover_to = None;
    three.pod("db-2").fenced = Some("no".into());
    assert_eq!(three.says(), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_members_is_said() {
    let mut three = Three::seen_by("db-0");
    three.said.1.receivers[1].state = "startup".into();
    three.pod("db-1").status.as_mut().unwrap().problem = Some("the disk is full".into());
    three.pod("db-2").status.as_mut().unwrap().pending_restart = true;
    three.view.findings.push("term 3 is lower than one seen before".into());
    let streams = "db-2 does not stream from this leader";
    let findings = ["db-1: the disk is full", streams, "term 3 is lower than one seen before"];
    assert_eq!(three.says()[..3], findings);
    assert_eq!(three.says()[3..], ["db-2: changed settings wait for a restart"]);
    assert_eq!(three.member("db-2").streaming, Some(false));
}

#[test]
fn a_member_that_clones_is_not_blamed_for_not_streaming() {
    let mut three = Three::seen_by("db-0");
    three.said.1.receivers.clear();
    for name in ["db-1", "db-2"] {
        three.pod(name).status.as_mut().unwrap().state = "cloning".into();
    }
    assert_eq!((three.says(), three.member("db-1").streaming), (Vec::new(), None));
}

#[test]
fn a_standby_knows_of_itself_only_whether_it_streams() {
    let mut three = Three::seen_by("db-1");
    assert_eq!((three.member("db-1").streaming, three.member("db-2").streaming), (Some(true), None));
    three.said.0.streaming = false;
    assert_eq!(three.says(), ["the standby does not stream from a primary"], "and says it once");
}

#[test]
fn two_primaries_are_seen_and_positions_on_two_timelines_are_not_compared() {
    let mut three = Three::seen_by("db-1");
    let other = Account { began: Some(Began { term: 5, ..FIRST }), ..account("db-2", true, 0x400_0000) };
    three.answers.insert("db-2".into(), Ok(other));
    assert_eq!(three.says(), ["db-2 runs as a primary, and the leader is db-0"]);
    assert_eq!((three.member("db-2").role.as_deref(), three.member("db-2").lag_bytes), (Some("primary"), None));
    // Its annotation is older than its answer.
    three.answers.insert("db-0".into(), Ok(account("db-0", false, 0x500_0000)));
    assert_eq!(three.member("db-0").role, None);
}
