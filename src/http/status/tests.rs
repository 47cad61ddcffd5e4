use std::time::{Duration, Instant};

use super::*;
use crate::{
    lifecycle::{Memory, Reason},
    postgres::{replication::stat::*, sql::PendingRestart},
    progress::Progress,
};

fn snapshot(phase: Phase, reason: Reason) -> Snapshot {
    let mut memory = Memory::default();
    (memory.phase, memory.reason) = (phase, reason);
    Snapshot {
        memory,
        now: Duration::from_secs(60),
        postgres: None,
        pgdata: "/data".into(),
        log_lines_dropped: 0,
        config: Default::default(),
        progress: None,
        source: None,
        source_role: None,
        waiting: None,
        account: None,
        cluster: None,
        tls: None,
    }
}

pub(in crate::http) fn running(role: Role) -> Snapshot {
    snapshot(Phase::Running { role }, Reason::Ready)
}

pub(super) fn view<'a>(snapshot: &'a Snapshot, said: Option<(Facts, Replication)>) -> View<'a> {
    View {
        snapshot,
        ping: Ping::Accepting,
        said: said.map(Ok),
        too_small: Vec::new(),
        custom_queries: None,
        on_disk: OnDisk::default(),
        answers: BTreeMap::new(),
    }
}

pub(super) fn primary() -> Facts {
    Facts { timeline: Some(3), lsn: Some("0/5000000".into()), ..Facts::default() }
}

pub(super) fn standby() -> Facts {
    Facts { streaming: true, lag_bytes: Some(0), ..primary() }
}

pub(super) fn receiver(name: &str, state: &str) -> Receiver {
    Receiver {
        name: name.into(),
        address: Some("10.0.0.2".into()),
        state: state.into(),
        replayed: (state == "streaming").then(|| "0/4000000".into()),
        lag_bytes: Some(0),
        sync: Some("async".into()),
        ..Receiver::default()
    }
}

fn problems(view: &View<'_>) -> Vec<String> {
    view.status().problems
}

#[test]
fn of_a_healthy_pair_nothing_is_wrong_on_either_side() {
    let snapshot = running(Role::Primary);
    let replication = Replication { receivers: vec![receiver("db2", "streaming")], ..Replication::default() };
    let status = view(&snapshot, Some((primary(), replication))).status();
    assert!(status.problems.is_empty() && status.findings.is_empty(), "{:?}", status.findings);
    let other = &status.members[1];
    assert_eq!(
        (other.name.as_str(), other.role.as_deref(), other.state.as_str()),
        ("db2", Some("standby"), "streaming")
    );
    assert_eq!((other.timeline, other.lag_bytes, other.lag_seconds), (Some(3), Some(0), Some(0.0)));

    let mut snapshot = running(Role::Standby);
    snapshot.source = Some("db1:5432".into());
    snapshot.source_role = Some(Role::Primary);
    let sender = Sender { place: "10.0.0.1:5432".into(), timeline: Some(3), lsn: Some("0/5000000".into()) };
    let replication = Replication { sender: Some(sender), ..Replication::default() };
    let status = view(&snapshot, Some((standby(), replication))).status();
    assert!(status.findings.is_empty(), "{:?}", status.findings);
    let source = &status.members[1];
    let shown = (source.name.as_str(), source.role.as_deref(), source.state.as_str(), source.timeline);
    assert_eq!(shown, ("db1:5432", Some("primary"), "running", Some(3)));
}

#[test]
fn a_clone_that_is_being_made_is_one_row_and_a_program_that_only_receives_is_no_standby() {
    let snapshot = running(Role::Primary);
    let receivers = vec![
        Receiver { replayed: None, ..receiver("archive", "streaming") },
        receiver("db2", "backup"),
        Receiver { replayed: None, ..receiver("db2", "streaming") },
        Receiver { address: Some("10.0.0.3".into()), ..receiver("db2", "streaming") },
    ];
    let status = view(&snapshot, Some((primary(), Replication { receivers, ..Replication::default() }))).status();
    let rows: Vec<_> = status.members[1..].iter().map(|m| (&*m.name, m.role.as_deref(), &*m.state)).collect();
    let expected = [("archive", None, "streaming"), ("db2", None, "cloning"), ("db2", Some("standby"), "streaming")];
    assert_eq!(rows, expected);
}

#[test]
fn a_clone_says_how_far_it_is() {
    let mut snapshot = snapshot(Phase::Working { job: Job::Clone }, Reason::NoData);
    snapshot.source = Some("db1:5432".into());
    let begun = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
    snapshot.progress = Some(Progress {
        job: "clone",
        step: "cloning: copying".into(),
        bytes_done: 96 << 20,
        bytes_total: Some(480 << 20),
        begun,
    });
    let view = view(&snapshot, None);
    assert_eq!(
        problems(&view),
        ["cloning from db1:5432: 96.0 of 480.0 MB, 20 %, about 40 s left (the data directory is empty)"]
    );
    let status = view.status();
    assert_eq!(status.findings[0].level, Level::Waiting);
    let job = status.members[0].job.as_ref().unwrap();
    assert_eq!((&*job.name, job.bytes_done, job.percent), ("clone", Some(96 << 20), Some(20.0)));
    assert_eq!((job.seconds_left, &*status.members[0].state), (Some(40), "cloning"));
    assert_eq!(status.members[1].name, "db1:5432");
}

#[test]
fn a_job_that_failed_says_why_and_when_it_is_tried_again() {
    let phase = Phase::Waiting { until: Duration::from_secs(64), job: Some(Job::Clone) };
    let mut snapshot = snapshot(phase, Reason::JobFailed(Job::Clone, "nobody answers".into()));
    snapshot.source = Some("db1:5432".into());
    let view = view(&snapshot, None);
    assert_eq!(problems(&view), ["cloning failed: nobody answers; trying again in 4 s"]);
    let job = view.status().members[0].job.clone().unwrap();
    assert_eq!((&*job.name, &*job.step, job.seconds_left), ("clone", "cloning is tried again", Some(4)));
}

#[test]
fn a_standby_that_does_not_stream_says_why_and_whether_anything_is_done_about_it() {
    let mut snapshot = running(Role::Standby);
    let facts = || Facts { streaming: false, lag_bytes: None, ..standby() };
    let said = |s: &Snapshot| problems(&view(s, Some((facts(), Replication::default()))));
    assert_eq!(said(&snapshot), ["the standby does not stream from a primary"]);
    snapshot.waiting = Some("cannot connect to the source at db1:5432: no route".into());
    assert_eq!(said(&snapshot), ["the standby does not stream: cannot connect to the source at db1:5432: no route"]);
    snapshot.memory.repairs = 3;
    assert!(said(&snapshot)[1].contains("podgres reinit"));
}

#[test]
fn replay_that_waits_says_for_what() {
    let snapshot = running(Role::Standby);
    let replication = Replication { replay_paused: true, ..Replication::default() };
    let mut view = view(&snapshot, Some((standby(), replication)));
    assert!(problems(&view)[0].contains("pg_wal_replay_resume"));
    view.too_small = vec![Raise { name: "max_connections", here: 100, primary: 200 }];
    let expected = "replay waits: max_connections is 100 here and 200 on the primary; podgres restart starts it with \
                    enough";
    assert_eq!(problems(&view), [expected]);
}

#[test]
fn what_waits_for_a_restart_is_shown_with_its_values_and_the_order_of_members() {
    let snapshot = running(Role::Primary);
    let pending = |name: &str, value: &str, new: &str| PendingRestart {
        name: name.into(),
        value: value.into(),
        new_value: new.into(),
    };
    let pending_restart = vec![pending("max_connections", "100", "200"), pending("shared_buffers", "1GB", "2GB")];
    let said = problems(&view(&snapshot, Some((Facts { pending_restart, ..primary() }, Replication::default()))));
    assert!(
        said[0].starts_with("a changed setting waits for a restart: max_connections 100 → 200; restart the standbys")
    );
    assert_eq!(said[1], "a changed setting waits for a restart: shared_buffers 1GB → 2GB");
}

#[test]
fn only_slots_that_do_harm_are_named() {
    let snapshot = running(Role::Primary);
    let slot = |name: &str, active, status: &str, kept| Slot {
        name: name.into(),
        kind: "physical".into(),
        active,
        wal_status: Some(status.into()),
        retained_bytes: Some(kept),
    };
    let slots = vec![
        slot("idle", false, "reserved", 1 << 20),
        slot("busy", true, "extended", 9 << 30),
        slot("full", false, "extended", 2 << 30),
        slot("late", true, "unreserved", 3 << 30),
        slot("gone", false, "lost", 0),
    ];
    let said = problems(&view(
        &snapshot,
        Some((primary(), Replication { slots, max_wal_size: 1 << 30, ..Replication::default() })),
    ));
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].contains("full keeps 2.0 GB")
            && said[1].contains("late is 3.0 GB")
            && said[2].contains("gone has lost")
    );
}

#[test]
fn what_is_wrong_comes_first_and_notes_are_no_problems() {
    let mut snapshot = running(Role::Primary);
    snapshot.memory.promotion = Some(Duration::from_millis(312));
    snapshot.log_lines_dropped = 2;
    let mut report = crate::postgres::config::Report::default();
    report.refused = vec!["refused: /etc/x:3: y".into()];
    snapshot.config = report.into();
    let pending = PendingRestart { name: "port".into(), value: "1".into(), new_value: "2".into() };
    let facts = Facts { pending_restart: vec![pending], ..primary() };
    let mut view = view(&snapshot, Some((facts, Replication::default())));
    view.on_disk = OnDisk { kept: Some("/.data.podgres-old".into()), kept_wal: None, half_rewound: true };
    let status = view.status();
    let levels: Vec<Level> = status.findings.iter().map(|f| f.level).collect();
    use Level::{Note, Waiting, Wrong};
    assert_eq!(levels, [Wrong, Wrong, Wrong, Waiting, Note, Note]);
    assert_eq!(status.problems.len(), 4);
    assert_eq!(status.problems[0], "refused: /etc/x:3: y");
    assert!(status.findings[4].text.contains("312 ms") && status.findings[5].text.contains("/.data.podgres-old"));
    assert_eq!(status.members[0].promotion_milliseconds, Some(312));
    assert_eq!(status.members[0].kept_data_directory.as_deref(), Some("/.data.podgres-old"));
}

#[test]
fn a_server_that_does_not_answer_is_a_problem_and_so_is_one_that_does_not_run() {
    let mut snapshot = running(Role::Primary);
    let view_ = View { ping: Ping::NoAnswer, ..view(&snapshot, None) };
    assert_eq!(problems(&view_), ["PostgreSQL does not answer a new connection"]);
    snapshot.memory.phase = Phase::Starting;
    snapshot.memory.reason = Reason::DataFound;
    let said = "PostgreSQL does not accept connections (starting): the data directory is initialised";
    assert_eq!(problems(&view(&snapshot, None)), [said]);
    snapshot.memory.phase = Phase::Waiting { until: Duration::from_secs(62), job: None };
    assert_eq!(
        problems(&view(&snapshot, None)),
        ["PostgreSQL is started again in 2 s: the data directory is initialised"]
    );
}
