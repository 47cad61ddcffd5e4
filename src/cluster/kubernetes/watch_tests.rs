//! Watching an API server that answers by a script, in a time that passes at once.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response,
    body::{Bytes, Frame},
};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::cluster::identity::Identity;

type Request = hyper::Request<Body>;
type Lines = std::pin::Pin<Box<dyn Stream<Item = String> + Send>>;

/// A status and what is sent, a line at a time.
struct Answer(u16, Lines);

fn json(status: u16, body: impl ToString) -> Answer {
    Answer(status, stream::iter([body.to_string()]).boxed())
}

fn list(version: &str, items: &[Value]) -> Answer {
    json(200, json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }))
}

fn line(event: &str, object: &Value) -> String {
    json!({ "type": event, "object": object }).to_string() + "\n"
}

/// A watch that sends `lines` and then nothing, until its time is over.
fn watch(lines: Vec<String>) -> Answer {
    let over = stream::once(sleep(WATCH)).filter_map(async |()| None);
    Answer(200, stream::iter(lines).chain(over).boxed())
}

fn lease(version: &str, holder: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": "demo", "resourceVersion": version },
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": 10 },
    })
}

fn pod(version: &str, name: &str) -> Value {
    json!({ "metadata": { "name": name, "resourceVersion": version } })
}

/// What was asked for, and when: `list leases`, `watch pods 41`.
type Asked = Arc<Mutex<Vec<(Instant, String)>>>;

/// `answer` has what is asked for, and how often something was asked for before.
fn server(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> (Kubernetes, Asked) {
    let asked = Asked::default();
    let log = asked.clone();
    let answer = move |request: Request| {
        let uri = request.uri().to_string();
        let resource = if uri.contains("/leases?") { "leases" } else { "pods" };
        let version = uri.split_once("resourceVersion=").map(|(_, v)| v.split('&').next().unwrap().to_owned());
        let what = match version {
            Some(version) if uri.contains("watch=true") => format!("watch {resource} {version}"),
            _ => format!("list {resource}"),
        };
        let Answer(status, lines) = {
            let mut log = log.lock().unwrap();
            log.push((Instant::now(), what.clone()));
            answer(&what, log.iter().filter(|(_, w)| *w == what).count() - 1)
        };
        let body = StreamBody::new(lines.map(|line| Ok::<_, std::io::Error>(Frame::data(Bytes::from(line)))));
        let body: UnsyncBoxBody<Bytes, std::io::Error> = body.boxed_unsync();
        std::future::ready(Ok::<_, std::io::Error>(Response::builder().status(status).body(body).unwrap()))
    };
    let identity = Identity {
        pod: "demo-0".into(),
        namespace: "shop".into(),
        uid: "6b6f".into(),
        ip: "10.0.0.7".into(),
        cluster: "demo".into(),
    };
    let client = kube::Client::new(tower::service_fn(answer), "shop");
    (
        Kubernetes {
            client: client.clone(),
            watching: client,
            identity: identity.into(),
            server: "https://api".into(),
            lease_uid: Arc::default(),
        },
        asked,
    )
}

/// All that is told within `time`.
async fn told(kubernetes: &Kubernetes, time: Duration) -> Vec<Seen> {
    let told = RefCell::new(Vec::new());
    let watch = kubernetes.watch(async |seen| told.borrow_mut().push(seen));
    assert!(timeout(time, watch).await.is_err());
    told.into_inner()
}

fn count(asked: &Asked) -> usize {
    asked.lock().unwrap().len()
}

const MINUTE: Duration = Duration::from_secs(60);

/// Members that share an API server with others. Three of them, with the leader's thirty renewals, stay below forty
/// requests a minute; twenty below sixty.
#[tokio::test(start_paused = true)]
async fn an_idle_cluster_asks_for_next_to_nothing() {
    let renewals = || {
        let each = stream::unfold(0u32, async |n| {
            sleep(Duration::from_secs(2)).await;
            (n < 145).then(|| (line("MODIFIED", &lease(&format!("{}", 100 + n), "demo-0")), n + 1))
        });
        Answer(200, each.boxed())
    };
    let (kubernetes, asked) = server(move |what, _| match what.split(' ').collect::<Vec<_>>()[..] {
        ["list", "leases"] => list("1", &[lease("1", "demo-0")]),
        ["list", _] => list("1", &[pod("1", "demo-0")]),
        [_, "leases", _] => renewals(),
        _ => watch(vec![]),
    });
    told(&kubernetes, 60 * MINUTE).await;
    assert!((20..=30).contains(&count(&asked)), "{} requests in an hour", count(&asked));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_dead_is_asked_after_less_and_less() {
    let (kubernetes, asked) = server(|what, _| match what {
        "list leases" => list("1", &[lease("1", "demo-0")]),
        "list pods" => list("1", &[]),
        _ => watch(vec![]),
    });
    let told = told(&kubernetes, 10 * MINUTE).await;
    assert!((30..=100).contains(&count(&asked)), "{} requests in ten minutes", count(&asked));
    assert!(!told.iter().any(|s| matches!(s, Seen::Trouble(_))), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_has_forgotten_is_listed_anew() {
    let gone = json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old" });
    let (kubernetes, asked) = server(move |what, before| match (what, before) {
        ("list leases", 0) => list("1", &[lease("1", "demo-0")]),
        ("watch leases 1", _) => watch(vec![line("ERROR", &gone)]),
        ("list leases", _) => list("7", &[lease("7", "demo-1")]),
        ("list pods", 0) => list("1", &[pod("1", "demo-0"), pod("1", "demo-1")]),
        ("watch pods 1", _) => json(410, &gone),
        ("list pods", _) => list("7", &[pod("7", "demo-1")]),
        _ => watch(vec![]),
    });
    let told = told(&kubernetes, Duration::from_secs(2)).await;
    let holders: Vec<_> = told.iter().filter_map(|s| if let Seen::Lease(l) = s { l.as_ref() } else { None }).collect();
    assert_eq!(holders.iter().map(|l| l.holder.as_str()).collect::<Vec<_>>(), ["demo-0", "demo-1"]);
    let pods: Vec<_> = told.iter().filter_map(|s| if let Seen::Pods(p) = s { Some(p.len()) } else { None }).collect();
    assert_eq!(pods, [2, 1]);
    assert!(!told.iter().any(|s| matches!(s, Seen::Trouble(_))), "{told:?}");
    assert!(asked.lock().unwrap().iter().any(|(_, w)| w == "watch pods 7"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_what_was_seen_last() {
    let (kubernetes, asked) = server(|what, _| match what {
        "list leases" => list("1", &[]),
        "watch leases 1" => watch(vec![line("ADDED", &lease("4", "")), line("BOOKMARK", &lease("6", ""))]),
        "list pods" => list("1", &[]),
        "watch pods 1" => watch(vec![line("ADDED", &pod("5", "demo-0")), line("DELETED", &pod("9", "demo-0"))]),
        _ => watch(vec![]),
    });
    let told = told(&kubernetes, 6 * MINUTE).await;
    assert_eq!(told.iter().filter(|s| **s == Seen::Fine).count(), 1, "an orderly end is no trouble: {told:?}");
    let asked: Vec<_> = asked.lock().unwrap().iter().map(|(_, w)| w.clone()).collect();
    assert!(asked.contains(&"watch leases 6".to_owned()) && asked.contains(&"watch pods 9".to_owned()), "{asked:?}");
    assert_eq!(asked.len(), 6, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_none_are_trouble_until_there_is_one() {
    for (status, body) in [
        (200, "{"),
        (200, "<html>"),
        (200, "{}"),
        (200, r#"{"metadata":{},"items":[]}"#),
        (429, "slow down"),
        (500, r#"{"kind":"Status","status":"Failure","code":500,"message":"etcdserver: no leader"}"#),
        (503, ""),
    ] {
        let (kubernetes, _) = server(move |what, before| match what {
            "list leases" if before < 3 => json(status, body),
            "watch leases 1" if before < 3 => Answer(200, stream::iter(["{\"type\": 1}\n".to_owned()]).boxed()),
            "list leases" => list("1", &[lease("1", "")]),
            "list pods" => list("1", &[]),
            _ => watch(vec![]),
        });
        let told = told(&kubernetes, Duration::from_secs(20)).await;
        assert!(told.iter().any(|s| matches!(s, Seen::Trouble(_))), "{status} {body}: {told:?}");
        assert_eq!(told.last(), Some(&Seen::Fine), "{status} {body}: {told:?}");
        assert!(told.iter().any(|s| matches!(s, Seen::Lease(Some(_)))), "{status} {body}: {told:?}");
    }
}

/// How often was asked in the first minute of `answer`, and when for the second time.
async fn asked_in_a_minute(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (usize, Option<Duration>) {
    let (kubernetes, asked) = server(move |what, _| if what.starts_with("list") { list("1", &[]) } else { answer() });
    told(&kubernetes, MINUTE).await;
    let times: Vec<_> =
        asked.lock().unwrap().iter().filter(|(_, w)| w == "watch leases 1").map(|(at, _)| *at).collect();
    (count(&asked), times.get(1).map(|second| *second - times[0]))
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_asked_again_at_once_and_then_seldom() {
    // Two watches, each every one to two seconds.
    const IN_A_MINUTE: Range<usize> = 60..140;
    let (count, second) = asked_in_a_minute(|| json(503, "no")).await;
    assert!(
        IN_A_MINUTE.contains(&count) && second.unwrap() <= Duration::from_millis(200),
        "fails: {count}, {second:?}"
    );
    let (count, second) = asked_in_a_minute(|| Answer(200, stream::empty().boxed())).await;
    assert!(IN_A_MINUTE.contains(&count) && second.unwrap() <= Duration::from_millis(200), "ends: {count}, {second:?}");
    let hour = || Answer(200, stream::once(sleep(60 * MINUTE)).filter_map(async |()| None).boxed());
    let (count, _) = asked_in_a_minute(hour).await;
    assert_eq!(count, 4, "a watch that is open is waited for");
}

#[test]
fn a_held_lease_is_silent_for_half_its_duration_and_then_longer() {
    let s = Duration::from_secs;
    for (duration, silences, expected) in [
        (10, 0, 5),
        (10, 1, 10),
        (10, 2, 20),
        (10, 3, 30),
        (10, 99, 30),
        (4, 0, 3),
        (0, 0, 3),
        (100, 0, 50),
        (100, 3, 50),
    ] {
        assert_eq!(patience(s(duration), silences), s(expected), "{duration} {silences}");
    }
}

#[test]
fn versions_alone_are_no_change() {
    let pods = |version: &str, ready| {
        BTreeMap::from([("demo-0".into(), Pod { version: version.into(), ready, ..Pod::default() })])
    };
    assert!(same(&pods("1", true), &pods("2", true)));
    assert!(!same(&pods("1", true), &pods("1", false)));
    assert!(!same(&pods("1", true), &BTreeMap::new()));
}

#[test]
fn the_first_retry_is_soon_and_none_at_the_same_time() {
    let some: Vec<f64> = (0..100).map(|_| jitter()).collect();
    assert!(some.iter().all(|j| (0.5..=1.0).contains(j)));
    assert!(some.windows(2).any(|w| (w[0] - w[1]).abs() > 0.01));
    assert!(FIRST_RETRY <= Duration::from_millis(200));
}
