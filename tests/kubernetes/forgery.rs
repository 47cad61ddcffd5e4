//! What members ask each other: who records a question, changes it, holds it back or makes one up gets nothing for it.

use std::time::{Duration, Instant};

use podgres::{
    cluster::{fresh, proof},
    settings::{Settings, official::Secret},
};
use serde_json::{Value, json};

use crate::{
    client,
    cluster::{Cluster, NAME},
    load::Load,
    member::Member,
    network::BOTH,
};

/// Shorter than the default, as all of this takes several of them.
const LEASE: Duration = Duration::from_secs(6);
const TIMES: [&str; 3] = ["PODGRES_LEASE_DURATION=6s", "PODGRES_RENEW_INTERVAL=1s", "PODGRES_FENCE_MARGIN=2s"];
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(10);
/// How long a challenge lasts.
const FRESH: Duration = Duration::from_secs(5);

/// The password by which members know each other.
fn password() -> Secret {
    let environment = [("POSTGRES_PASSWORD".to_string(), client::PASSWORD.to_string())];
    let settings = Settings::load(&Default::default(), &environment).expect("settings");
    settings.replication.password.expect("one is derived")
}

/// A question on its way.
#[derive(Clone)]
struct Sent {
    path: &'static str,
    body: String,
    challenge: String,
    proof: String,
}

impl Sent {
    /// With a good proof.
    fn signed(path: &'static str, question: &Value, challenge: &str) -> Self {
        let body = question.to_string();
        let said = if challenge.is_empty() { body.clone() } else { format!("{challenge}\n{body}") };
        let proof = proof::of(&password(), &path[1..], said.as_bytes());
        Self { path, body, challenge: challenge.into(), proof }
    }

    /// The code, the headers and the body of the answer.
    fn to(&self, member: &Member<'_>) -> (u16, String) {
        let Self { path, body, challenge, proof } = self;
        let header = |name: &str, value: &str| match value {
            "" => String::new(),
            value => format!("{name}: {value}\r\n"),
        };
        let (proof, challenge) = (header(proof::HEADER, proof), header(fresh::HEADER, challenge));
        let length = body.len();
        let text =
            format!("POST {path} HTTP/1.0\r\nhost: x\r\n{proof}{challenge}content-length: {length}\r\n\r\n{body}");
        client::answer(member.address(), Duration::from_secs(8), &text)
    }
}

/// A challenge of this member; empty: it gives none.
fn challenge(member: &Member<'_>, path: &'static str) -> String {
    let (_, answer) = Sent::signed(path, &json!({}), "").to(member);
    let found = answer.lines().find_map(|line| line.strip_prefix(fresh::HEADER)?.strip_prefix(": "));
    found.unwrap_or_default().to_string()
}

/// What the leader would ask this member.
fn stay(cluster: &Cluster, leader: &Member<'_>, of: &Member<'_>) -> Value {
    json!({
        "cluster": NAME, "term": cluster.term(), "leader": leader.name, "uid": leader.uid(),
        "of": cluster.lease_annotation("instance"), "duration-ms": 6_000, "pod": of.name, "instance": instance(of),
        "nonce": "0123456789abcdef"
    })
}

/// What a candidate for the next term would ask this member.
fn vote(cluster: &Cluster, candidate: &Member<'_>, of: &Member<'_>) -> Value {
    json!({
        "cluster": NAME, "term": cluster.term() + 1, "candidate": candidate.name, "pod": of.name,
        "instance": instance(of), "nonce": "0123456789abcdef"
    })
}

/// The start of its manager, as its status says.
fn instance(member: &Member<'_>) -> String {
    let status: Value = serde_json::from_str(&member.annotation("status").expect("a status")).expect("JSON");
    status["instance"].as_str().expect("an instance").to_string()
}

#[test]
fn a_recorded_question_does_not_hold_back_the_election_after_its_leaders_death() {
    let cluster = Cluster::with(17, &TIMES);
    let (members, p) = cluster.members(2);
    let (leader, standby) = (&members[p], &members[1 - p]);
    let load = Load::start(&cluster, leader);
    let recorded = Sent::signed("/failsafe", &stay(&cluster, leader, standby), &challenge(standby, "/failsafe"));
    assert_eq!(recorded.to(standby).0, 200);
    leader.kill();
    let died = Instant::now();
    let mut again = Vec::new();
    cluster.within(LEASE * 2 + SLACK, "the standby to take over", || {
        again.push(recorded.to(standby).0);
        standby.is_writable().then_some(())
    });
    eprintln!("it took over {:?} after the leader's death, asked {} times to wait", died.elapsed(), again.len());
    assert!(again.iter().all(|code| *code == 428), "{again:?}");
    load.wait_for(&cluster, standby);
}

#[test]
fn a_question_that_was_changed_or_made_up_is_refused() {
    let cluster = Cluster::with(15, &TIMES);
    let (members, p) = cluster.members(2);
    let (leader, standby) = (&members[p], &members[1 - p]);
    let good = stay(&cluster, leader, standby);
    let fresh = || challenge(standby, "/failsafe");
    let with = |key: &str, value: Value| {
        let mut question = good.clone();
        question[key] = value;
        Sent::signed("/failsafe", &question, &fresh())
    };
    let signed = || Sent::signed("/failsafe", &good, &fresh());
    assert_eq!(signed().to(standby).0, 200, "the good one");

    let ours = signed();
    let altered = Sent { body: ours.body.replace("6000", "9000"), ..ours };
    let ours = signed();
    let broken = Sent { proof: ours.proof.replace(['0', '1', '2', '3'], "4"), ..ours };
    let ours = Sent::signed("/vote", &good, &fresh());
    let elsewhere = Sent { path: "/failsafe", ..ours };
    for (what, sent) in [("a changed byte", altered), ("a changed proof", broken), ("a proof for a vote", elsewhere)] {
        let (code, answer) = sent.to(standby);
        assert!(code == 409 && answer.contains("knows the password"), "{what}: {code} {answer}");
    }
    for (what, sent, why) in [
        ("another cluster", with("cluster", json!("other")), "somebody else was asked"),
        ("another member", with("pod", json!(leader.name)), "somebody else was asked"),
        ("another start of it", with("instance", json!("0123456789abcdef")), "somebody else was asked"),
        ("a term that is over", with("term", json!(0)), "it has seen term"),
        ("another holder", with("of", json!("0123456789abcdef")), "the Lease has another holder"),
        ("for days", with("duration-ms", json!(u64::MAX)), "makes no sense"),
        ("no question", Sent::signed("/failsafe", &json!(["x"]), &fresh()), "this is no question"),
    ] {
        let (code, answer) = sent.to(standby);
        assert!(code == 409 && answer.contains(why), "{what}: {code} {answer}");
    }
    assert_eq!(Sent { proof: String::new(), ..signed() }.to(standby).0, 403, "no proof");
    let other = Sent::signed("/failsafe", &good, &challenge(leader, "/failsafe"));
    assert_eq!(other.to(standby).0, 428, "another member's challenge");
    assert_eq!(Sent::signed("/failsafe", &good, "").to(standby).0, 428, "no challenge");
    assert_eq!(Sent::signed("/failsafe", &good, "1.2.3").to(standby).0, 428, "an invented challenge");
}

#[test]
fn a_vote_that_was_held_back_freezes_nobody_and_one_that_is_asked_now_does() {
    let cluster = Cluster::with(17, &TIMES);
    let leader = &cluster.member(0);
    cluster.wait("a primary", || leader.is_writable().then_some(()));
    let standby = &Member::with(&cluster, 1, "PODGRES_PRIORITY=0");
    cluster.streams(leader, standby);
    [leader, standby].iter().for_each(|m| m.wait_ready());
    let question = vote(&cluster, leader, standby);
    let held = Sent::signed("/vote", &question, &challenge(standby, "/vote"));
    let refused = Sent::signed("/vote", &question, &challenge(standby, "/vote")).to(standby);
    assert!(refused.0 == 409 && refused.1.contains("in office"), "{refused:?}");

    // By its own watch the office is over soon, and it does not stand. The leader does not know.
    standby.cut_api(&BOTH);
    std::thread::sleep(FRESH.max(LEASE) + Duration::from_secs(3));
    assert_eq!(held.to(standby).0, 428);
    leader.query("create table after (t text)");
    cluster.streams(leader, standby);

    let term = cluster.term();
    let now = Sent::signed("/vote", &question, &challenge(standby, "/vote"));
    let (code, answer) = now.to(standby);
    assert!(code == 200 && answer.contains(&format!("\"term\":{}", term + 1)), "{code} {answer}");
    assert_eq!(now.to(standby).0, 428, "twice");
    // A leader that sees the promise makes the term its own, and its standby receives again.
    standby.heal();
    cluster.wait("the leader to take up the term", || (cluster.term() == term + 1).then_some(()));
    cluster.streams(leader, standby);
    assert!(now.to(standby).0 == 428 && leader.is_writable());
}
