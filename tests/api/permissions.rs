//! What the service account may not, and who it is.

use std::{collections::BTreeMap, time::Duration};

use podgres::cluster::kubernetes::{About, Error, Seen};
use serde_json::json;

use crate::harness::{DEADLINE, SOON, Space, held, run, watching};

#[test]
fn what_the_role_lacks_is_named() {
    let space = Space::with_role(&json!([
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "watch"] },
    ]));
    run(&space, |kubernetes| async move {
        let lacks = |error: Error, what: &str| match error {
            Error::Forbidden(why) => assert!(why.contains(what) && why.contains("Role"), "{why}"),
            other => panic!("forbidden: {other:?}"),
        };
        let create = kubernetes.write_lease(None, &held("demo-0"), DEADLINE).await.unwrap_err();
        lacks(create, "the verb create on leases of the API group coordination.k8s.io");
        let pause =
            kubernetes.patch_lease_annotations(&BTreeMap::from([("podgres.io/paused", None)])).await.unwrap_err();
        lacks(pause, "the verb patch on leases of the API group coordination.k8s.io");
        let pod = kubernetes.patch_pod("demo-0", "6b6f", &BTreeMap::new(), &BTreeMap::new()).await.unwrap_err();
        lacks(pod, "the verb patch on pods of the API group \"\"");
        let event = kubernetes.event(About::Lease, false, "Reason", "Action", "note").await.unwrap_err();
        lacks(event, "the verb create on events of the API group events.k8s.io");

        watching(&kubernetes, async |told| {
            told.all("the Lease, and that the pods may not be seen", [
                &|s| *s == Seen::Lease(None),
                &|s| matches!(s, Seen::Trouble(why) if why.contains("the verb list on pods") && !why.contains("leases")),
            ])
            .await;
        })
        .await;
    });
}

#[test]
fn a_token_that_is_exchanged_is_in_use_at_once() {
    let space = Space::new();
    run(&space, |kubernetes| async {
        let kubernetes = kubernetes;
        let made = kubernetes.write_lease(None, &held("demo-0"), DEADLINE).await.unwrap();
        space.write_token("not.a.token\n");
        let error = kubernetes.read_lease(DEADLINE).await.unwrap_err();
        assert!(matches!(&error, Error::Unauthorized(why) if why.contains("token")), "{error}");
        watching(&kubernetes, async |told| {
            let why = told.trouble().await;
            assert!(why.contains("does not accept the service account's token"), "{why}");
            space.write_token(&(space.new_token() + "\n"));
            kubernetes.read_lease(DEADLINE).await.unwrap();
            told.lease("the Lease", SOON, |l| l.is_some_and(|l| l.version == made.version)).await;
            told.fine().await;

            // What is watched goes on; nothing is told of a token that is not needed.
            space.write_token("");
            let error = kubernetes.read_lease(DEADLINE).await.unwrap_err();
            assert!(matches!(error, Error::Unauthorized(_) | Error::Forbidden(_)), "{error}");
            space.kubectl(&["annotate", "lease", "demo", "podgres.io/paused=true"]);
            let paused = |s: &Seen| matches!(s, Seen::Lease(Some(l)) if l.paused.is_some()).then_some(());
            told.next("the pause", Duration::from_secs(10), paused).await;
        })
        .await;
    });
}
