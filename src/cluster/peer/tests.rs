use std::time::Instant;

use axum::{Json, Router, http::Uri, routing::get};
use tokio::net::TcpListener;

use super::*;
use crate::ha::lease::Began;

fn on(timeline: u32, pod: &str) -> Account {
    Account {
        pod: pod.into(),
        instance: "i".into(),
        copy: None,
        system_id: Some("7".into()),
        began: Some(Began { term: 1, timeline }),
        lsn: 0x500_0000,
        primary: false,
        fit: true,
        priority: 1,
        term: 1,
        seen_ms: None,
    }
}

/// Somebody who answers at `at` with what `router` says; gives back its address.
async fn serve(at: &str, router: Router) -> String {
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn says(account: Account) -> Router {
    Router::new().route("/member", get(async move || Json(account)))
}

/// A listener that accepts nobody: the kernel says yes, and then there is silence.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn named(pod: &str, address: &str) -> (String, String) {
    (pod.into(), address.into())
}

#[tokio::test]
async fn who_answers_in_time_is_known_and_nobody_waits_for_the_others() {
    let good = serve("127.0.0.1:0", says(on(1, "db-0"))).await;
    let (_listener, quiet) = silent().await;
    let slow = Router::new().route(
        "/member",
        get(async || {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Json(on(1, "db-3"))
        }),
    );
    let slow = serve("127.0.0.1:0", slow).await;
    let refused = silent().await.1; // its listener is gone
    let members = [
        named("db-0", &good),
        named("db-1", &quiet),
        named("db-2", &refused),
        named("db-3", &slow),
        named("db-4", "localhost:8008"),
    ];
    let begun = Instant::now();
    let answers = ask_each(&Line::default(), &members, DEADLINE).await;
    assert!(begun.elapsed() < 2 * DEADLINE, "one after the other: {:?}", begun.elapsed());
    let [first, second, third, fourth, fifth] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(first.1.as_ref().unwrap(), &on(1, "db-0"));
    assert!(matches!(second.1, Err(Error::Silent { .. })), "{second:?}");
    assert!(matches!(third.1, Err(Error::Connect { .. })), "{third:?}");
    assert!(matches!(fourth.1, Err(Error::Silent { .. })), "{fourth:?}");
    assert!(matches!(fifth.1, Err(Error::NotAnAddress(_))), "{fifth:?}");
    assert_eq!(ask(&Line::default(), &members[..1], DEADLINE).await, [on(1, "db-0")]);
}

#[tokio::test]
async fn ipv6() {
    let address = serve("[::1]:0", says(on(1, "db-0"))).await;
    assert!(address.starts_with("[::1]:"));
    assert_eq!(ask(&Line::default(), &[named("db-0", &address)], DEADLINE).await, [on(1, "db-0")]);
}

#[tokio::test]
async fn what_is_no_account_of_the_pod_that_was_asked_is_not_used() {
    let answer = async |router: Router| {
        let address = serve("127.0.0.1:0", router).await;
        let mut answers = ask_each(&Line::default(), &[named("db-0", &address)], DEADLINE).await;
        answers.remove(0).1.unwrap_err()
    };
    let text = |text: String| Router::new().route("/member", get(async move || text));
    assert!(matches!(answer(says(on(1, "db-9"))).await, Error::Stranger { answered, .. } if answered == "db-9"));
    assert!(matches!(answer(text("hello".into())).await, Error::Nonsense { .. }));
    // Valid, and too long.
    let long = serde_json::to_string(&on(1, "db-0")).unwrap() + &" ".repeat(LONGEST);
    assert!(matches!(answer(text(long)).await, Error::TooLong(_)));
    let error = answer(Router::new()).await;
    assert!(matches!(error, Error::Refused { status: StatusCode::NOT_FOUND, .. }), "{error}");
}

#[tokio::test]
async fn who_breaks_off_is_not_waited_for() {
    let (listener, address) = silent().await;
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let answers = ask_each(&Line::default(), &[named("db-0", &address)], Duration::from_secs(60)).await;
    assert!(matches!(answers[0].1, Err(Error::Broken { .. })), "{answers:?}");
}

#[tokio::test]
async fn replayed_and_of_the_same_cluster_and_timeline() {
    let wanted = |system_id: &str, timeline| Replayed {
        system_id: system_id.into(),
        timeline: Timeline(timeline),
        lsn: Lsn(0x500_0000),
    };
    let asked = |uri: Uri| assert_eq!(uri.query(), Some("replayed=0/5000000&within=500"));
    let there = Router::new().route(
        "/member",
        get(async move |uri: Uri| {
            asked(uri);
            Json(on(3, "db-1"))
        }),
    );
    let there = serve("127.0.0.1:0", there).await;
    assert!(wait_replayed(&Line::default(), "db-1", &there, &wanted("7", 3), DEADLINE).await.is_ok());
    for (other, text) in [(wanted("8", 3), "of the cluster 7, not 8"), (wanted("7", 4), "on timeline 3, not 4")] {
        let error = wait_replayed(&Line::default(), "db-1", &there, &other, DEADLINE).await.unwrap_err();
        assert_eq!(error.to_string(), format!("db-1 has other data: {text}"));
    }
    let behind = get(async || (StatusCode::SERVICE_UNAVAILABLE, "0/4000000\n"));
    let behind = serve("127.0.0.1:0", Router::new().route("/member", behind)).await;
    let error = wait_replayed(&Line::default(), "db-1", &behind, &wanted("7", 3), DEADLINE).await.unwrap_err();
    assert!(matches!(error, Error::NotReplayed { reached: Lsn(0x400_0000), .. }), "{error}");
}
