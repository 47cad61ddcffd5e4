//! What is told of changes.

use podgres::{cluster::kubernetes::Seen, ha::member::Pod};
use serde_json::json;

use crate::harness::{DEADLINE, SOON, Space, Told, held, run, watching};

async fn pod(told: &Told, what: &str, wanted: impl Fn(Option<&Pod>) -> bool) -> Option<Pod> {
    told.next(what, SOON, |s| match s {
        Seen::Pods(pods) if wanted(pods.get("demo-1")) => Some(pods.get("demo-1").cloned()),
        _ => None,
    })
    .await
}

#[test]
fn every_change_of_the_lease_is_told() {
    let space = Space::new();
    run(&space, |kubernetes| async {
        let kubernetes = kubernetes;
        watching(&kubernetes, async |told| {
            told.lease("that there is no Lease", SOON, |l| l.is_none()).await;
            told.fine().await;
            let mut lease = kubernetes.write_lease(None, &held("demo-0"), DEADLINE).await.unwrap();
            let mut slowest = std::time::Duration::ZERO;
            for _ in 0..10 {
                let sent = std::time::Instant::now();
                lease = kubernetes.write_lease(Some(&lease.version), &lease, DEADLINE).await.unwrap();
                let seen = told.lease("the renewal", SOON, |l| l.is_some_and(|l| l.version == lease.version)).await;
                assert_eq!(seen.as_ref(), Some(&lease));
                slowest = slowest.max(sent.elapsed());
            }
            assert!(slowest < std::time::Duration::from_secs(1), "{slowest:?}");

            space.kubectl(&["annotate", "--overwrite", "lease", "demo", "podgres.io/record={}"]);
            told.next("nonsense", SOON, |s| matches!(s, Seen::Nonsense(n) if n.holder == "demo-0").then_some(())).await;
            space.kubectl(&["delete", "lease", "demo"]);
            told.lease("that the Lease is gone", SOON, |l| l.is_none()).await;
            // Another one with another name is nothing to us.
            space.kubectl_with(
                &["create", "-f", "-"],
                &json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "other" } })
                    .to_string(),
            );
            kubernetes.write_lease(None, &held("demo-2"), DEADLINE).await.unwrap();
            told.lease("the new Lease", SOON, |l| {
                assert_eq!(l.map(|l| l.holder.as_str()), Some("demo-2"));
                true
            })
            .await;
        })
        .await;
    });
}

#[test]
fn pods_are_told_when_something_about_them_matters() {
    let space = Space::new();
    run(&space, |kubernetes| async {
        let kubernetes = kubernetes;
        space.pod("demo-0");
        watching(&kubernetes, async |told| {
            told.next("the pod that was there", SOON, |s| matches!(s, Seen::Pods(p) if p.len() == 1).then_some(()))
                .await;
            told.fine().await;
            let uid = space.pod("demo-1");
            let seen = pod(&told, "the new pod", |p| p.is_some()).await.unwrap();
            assert_eq!((seen.uid.as_str(), seen.ready, seen.deleting), (uid.as_str(), false, false));

            space.kubectl(&["annotate", "pod", "demo-1", "example.org/x=y"]);
            space.kubectl(&["label", "pod", "demo-1", "podgres.io/role=replica"]);
            let seen = told
                .next("any of the two", SOON, |s| match s {
                    Seen::Pods(pods) => Some(pods["demo-1"].clone()),
                    _ => None,
                })
                .await;
            assert_eq!(seen.role.as_deref(), Some("replica"), "the first was nothing that matters");

            space.set_status(
                "demo-1",
                json!({
                    "phase": "Running",
                    "conditions": [{ "type": "Ready", "status": "True" }],
                    "containerStatuses": [{
                        "name": "postgres", "image": "podgres:17", "imageID": "", "restartCount": 1, "ready": true,
                        "lastState": { "terminated": { "exitCode": 137, "message": "a1b2" } },
                    }],
                }),
            );
            let seen = pod(&told, "that it is ready", |p| p.is_some_and(|p| p.ready)).await.unwrap();
            assert_eq!(seen.ended, ["a1b2"]);

            space.kubectl(&["label", "pod", "demo-1", "podgres.io/cluster-"]);
            pod(&told, "that it is no member any more", |p| p.is_none()).await;
            space.kubectl(&["label", "pod", "demo-1", "podgres.io/cluster=demo"]);
            pod(&told, "that it is one again", |p| p.is_some()).await;
            space.delete_pod("demo-1");
            pod(&told, "that it is gone", |p| p.is_none()).await;
        })
        .await;
    });
}
