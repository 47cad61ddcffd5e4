//! Watches and requests while the network fails.

use std::time::{Duration, Instant};

use podgres::{
    cluster::kubernetes::{Error, Kubernetes, Seen},
    ha::lease::Lease,
};

use crate::{
    harness::{DEADLINE, SOON, Space, held, run, watching},
    proxy::Proxy,
};

/// A client whose way to the API can fail, and the Lease that `holder` has.
async fn by_proxy(space: &Space, direct: &Kubernetes, holder: &str) -> (Proxy, Kubernetes, Lease) {
    let proxy = Proxy::new();
    let kubernetes = space.connect_by(&proxy);
    let lease = direct.write_lease(None, &held(holder), DEADLINE).await.unwrap();
    (proxy, kubernetes, lease)
}

#[test]
fn the_leader_that_came_while_the_api_could_not_be_reached_is_told() {
    let space = Space::new();
    run(&space, |direct| async {
        let direct = direct;
        let (proxy, kubernetes, lease) = by_proxy(&space, &direct, "demo-0").await;
        watching(&kubernetes, async |told| {
            told.fine().await;
            proxy.cut();
            let why = told.trouble().await;
            assert!(why.contains("cannot be reached"), "{why}");
            let error = kubernetes.read_lease(DEADLINE).await.unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error}");

            let lease = direct.write_lease(Some(&lease.version), &held("demo-1"), DEADLINE).await.unwrap();
            proxy.restore();
            let restored = Instant::now();
            told.lease("the lease as it is now", SOON, |l| l.is_some_and(|l| l.version == lease.version)).await;
            assert!(restored.elapsed() < Duration::from_secs(5), "{:?}", restored.elapsed());
        })
        .await;
    });
}

#[test]
fn the_pods_that_went_while_the_api_could_not_be_reached_are_gone() {
    let space = Space::new();
    run(&space, |_| async {
        let proxy = Proxy::new();
        let kubernetes = space.connect_by(&proxy);
        space.pod("demo-0");
        space.pod("demo-1");
        watching(&kubernetes, async |told| {
            told.fine().await;
            proxy.cut();
            told.trouble().await;
            space.delete_pod("demo-1");
            proxy.restore();
            told.next("one pod", SOON, |s| matches!(s, Seen::Pods(p) if p.len() == 1).then_some(())).await;
        })
        .await;
    });
}

#[test]
fn a_held_lease_that_falls_silent_is_watched_anew_and_the_pods_with_it() {
    let space = Space::new();
    run(&space, |direct| async {
        let direct = direct;
        let (proxy, kubernetes, lease) = by_proxy(&space, &direct, "demo-0").await;
        watching(&kubernetes, async |told| {
            told.fine().await;
            proxy.forget();
            let lease = direct.write_lease(Some(&lease.version), &lease, DEADLINE).await.unwrap();
            let written = Instant::now();
            space.pod("demo-1");
            told.all(
                "the renewal and the pod",
                [
                    &|s| matches!(s, Seen::Lease(Some(l)) if l.version == lease.version),
                    &|s| matches!(s, Seen::Pods(p) if p.len() == 1),
                ],
            )
            .await;
            assert!(written.elapsed() < Duration::from_secs(8), "{:?}", written.elapsed());
        })
        .await;
    });
}

#[test]
fn an_api_that_does_not_answer_is_trouble_and_requests_end_at_their_deadline() {
    let space = Space::new();
    run(&space, |direct| async {
        let direct = direct;
        let (proxy, kubernetes, lease) = by_proxy(&space, &direct, "demo-0").await;
        watching(&kubernetes, async |told| {
            told.fine().await;
            kubernetes.read_lease(DEADLINE).await.unwrap();
            proxy.silence();
            let deadline = Duration::from_millis(700);
            for _ in 0..2 {
                let asked = Instant::now();
                let error = kubernetes.write_lease(Some(&lease.version), &lease, deadline).await.unwrap_err();
                assert!(matches!(error, Error::Timeout(_)), "{error}");
                assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
            }
            told.trouble().await;
            proxy.restore();
            kubernetes.read_lease(DEADLINE).await.expect("a new connection: the old one is not asked again");
            told.fine().await;
        })
        .await;
    });
}

#[test]
fn the_silence_of_a_lease_that_nobody_holds_means_nothing() {
    let space = Space::new();
    run(&space, |direct| async {
        let direct = direct;
        let (proxy, kubernetes, lease) = by_proxy(&space, &direct, "").await;
        watching(&kubernetes, async |told| {
            told.fine().await;
            let connections = proxy.accepted();
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(proxy.accepted(), connections);
            told.nothing();
            // Held, it means something. Nobody renews it, so both are watched anew.
            direct.write_lease(Some(&lease.version), &held("demo-0"), DEADLINE).await.unwrap();
            let patience = Instant::now() + SOON;
            while proxy.accepted() < connections + 2 {
                assert!(Instant::now() < patience, "waited for two new connections");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    });
}
