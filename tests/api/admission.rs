//! What the Role cannot keep a service account from, and the admission policies of `examples/kubernetes` do.

use serde_json::{Value, json};

use crate::{
    harness::{DEADLINE, Space, held, rules, run},
    policy::{Policies, Request},
};

/// Two clusters in one namespace, and an application.
struct Clusters {
    space: Space,
    policies: Policies,
}

impl Clusters {
    fn new() -> Self {
        let space = Space::new();
        space.account("other", &rules("other"));
        space.kubectl(&["create", "serviceaccount", "app"]);
        let accounts = ["demo", "other", "app"].map(|account| space.get(&["serviceaccount", account]));
        Self { policies: Policies::of_the_example(&accounts), space }
    }

    /// A new pod, of a cluster or of the application, to which somebody has given a label and an annotation.
    fn anothers(&self, account: &str, name: &str) -> Value {
        self.space.pod_of(account, name);
        let mut theirs = json!({"metadata": {"labels": {"theirs": "here"}, "annotations": {"theirs": "here"}}});
        if account == "app" {
            theirs["metadata"]["labels"]["podgres.io/cluster"] = Value::Null;
        }
        self.space.kubectl(&["patch", "pod", name, "--patch", &theirs.to_string()]);
        self.pod(name)
    }

    fn pod(&self, name: &str) -> Value {
        self.space.get(&["pod", name])
    }

    /// What the policies make of a change by this user.
    fn refuse(&self, account: &str, old: &Value, object: &Value) -> Vec<String> {
        self.policies.refuse(&Request { user: &self.space.user(account), object, old })
    }
}

#[test]
fn what_podgres_writes_to_pods_is_let_through() {
    let clusters = Clusters::new();
    let space = &clusters.space;
    run(space, |kubernetes| async {
        let kubernetes = kubernetes;
        let uid = space.pod("demo-1");
        space.kubectl(&["annotate", "pod", "demo-1", "podgres.io/restart=now", "podgres.io/reinit=now"]);
        space.kubectl(&["label", "pod", "demo-1", "theirs=here"]);
        let some = |text: &str| Some(text.to_string());
        for (labels, annotations) in [
            (vec![("podgres.io/role", some("primary"))], vec![("podgres.io/status", some("{}"))]),
            (vec![("podgres.io/role", some("replica"))], vec![]),
            (vec![("podgres.io/role", None)], vec![("podgres.io/status", some("{\"timeline\":2}"))]),
            (vec![], vec![("podgres.io/promote", some("SIGUSR1"))]),
            (vec![], vec![("podgres.io/last-command", some("{}")), ("podgres.io/promote", None)]),
            (vec![], vec![("podgres.io/last-command", some("{\"n\":2}")), ("podgres.io/restart", None)]),
            (vec![], vec![("podgres.io/last-command", some("{\"n\":3}")), ("podgres.io/reinit", None)]),
            (vec![], vec![("podgres.io/fenced", some("true"))]),
            (vec![], vec![("podgres.io/fenced", None)]),
        ] {
            let (labels, annotations) = (labels.into_iter().collect(), annotations.into_iter().collect());
            // The leader corrects the labels of others too.
            let old = clusters.pod("demo-1");
            kubernetes.patch_pod("demo-1", &uid, &labels, &annotations).await.unwrap();
            let object = clusters.pod("demo-1");
            assert_ne!(old["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
            assert_eq!(clusters.refuse("demo", &old, &object), [""; 0], "{labels:?} {annotations:?}");
        }
    });
}

/// Each is done at the real API server, to whom the Role is enough.
#[test]
fn what_the_role_cannot_refuse_the_policy_does() {
    let clusters = Clusters::new();
    run(&clusters.space, |_| forge(&clusters));
}

async fn forge(clusters: &Clusters) {
    let (cluster, spec, label, annotation, owner) = (
        "pods of its own cluster only",
        "may not change a pod's spec",
        "no label but podgres.io/role",
        "no annotation but those of podgres",
        "finalizers and owners",
    );
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    let annotations = |annotations: Value| json!({"metadata": {"annotations": annotations}});
    let image = json!({"spec": {"containers": [{"name": "postgres", "image": "somebody/else:1"}]}});
    let owned = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}]);
    let forgeries = [
        ("other", labels(json!({"podgres.io/role": "primary"})), cluster),
        ("other", annotations(json!({"podgres.io/fenced": "true"})), cluster),
        ("app", annotations(json!({"podgres.io/status": "{}"})), cluster),
        ("app", labels(json!({"podgres.io/cluster": "demo", "podgres.io/role": "primary"})), cluster),
        ("app", image.clone(), cluster),
        ("demo", image, spec),
        ("demo", json!({"spec": {"activeDeadlineSeconds": 1}}), spec),
        ("demo", labels(json!({"podgres.io/cluster": "other"})), label),
        ("demo", labels(json!({"podgres.io/cluster": null})), label),
        ("demo", labels(json!({"podgres.io/cluster": "demo", "app": "shop"})), label),
        ("demo", labels(json!({"theirs": "there"})), label),
        ("demo", labels(json!({"theirs": null})), label),
        ("demo", labels(json!({"podgres.io/role": "leader"})), "is primary or replica"),
        ("demo", annotations(json!({"app": "shop"})), annotation),
        ("demo", annotations(json!({"theirs": "there"})), annotation),
        ("demo", annotations(json!({"theirs": null})), annotation),
        ("demo", annotations(json!({"podgres.io/reinit": "now"})), annotation),
        ("demo", annotations(json!({"podgres.io/restart": "now"})), annotation),
        ("demo", json!({"metadata": {"finalizers": ["somebody.else/x"]}}), owner),
        ("demo", json!({"metadata": {"ownerReferences": owned}}), owner),
    ];
    for (n, (whose, patch, why)) in forgeries.into_iter().enumerate() {
        let pod = clusters.anothers(whose, &format!("{whose}-{}", n + 10));
        let name = pod["metadata"]["name"].as_str().unwrap();
        let forged = clusters.space.patch_as("demo", &format!("pods/{name}"), &patch).await;
        let object = forged.unwrap_or_else(|refused| panic!("{patch}: {refused}"));
        let refused = clusters.refuse("demo", &pod, &object);
        assert!(refused.iter().any(|message| message.contains(why)), "{patch}: {why}: {refused:?}");
        // Who may do it all the same: people, the cluster's own parts, and whatever else has a service account.
        for user in ["kubernetes-admin", "system:node:n", &clusters.space.user("app")] {
            let others = Request { user, object: &object, old: &pod };
            assert_eq!(clusters.policies.refuse(&others), [""; 0], "{user}: {patch}");
        }
    }
}

#[test]
fn a_lease_of_another_name_is_nobodys_to_make() {
    let clusters = Clusters::new();
    let space = &clusters.space;
    run(space, |demo| async {
        let demo = demo;
        let made = demo.write_lease(None, &held("demo-0"), DEADLINE).await.unwrap();
        let object = space.get(&["lease", "demo"]);
        assert_eq!(clusters.refuse("demo", &Value::Null, &object), [""; 0]);
        demo.write_lease(Some(&made.version), &held("demo-1"), DEADLINE).await.unwrap();
        let renewed = space.get(&["lease", "demo"]);
        assert_eq!(clusters.refuse("demo", &object, &renewed), [""; 0]);
        // Whoever made the Lease somebody's own is not to stop its renewals.
        let mut owned = object.clone();
        owned["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}]);
        let mut still = renewed.clone();
        still["metadata"]["ownerReferences"] = owned["metadata"]["ownerReferences"].clone();
        assert_eq!(clusters.refuse("demo", &owned, &still), [""; 0]);
        let refused = clusters.refuse("demo", &object, &still);
        assert!(refused.iter().any(|message| message.contains("finalizers and owners")), "{refused:?}");

        // A token of `demo` that says it is of `other`: the Role lets it make that Lease, which is `other`'s to lead by.
        let stolen = space.connect_to(&space.server(), "other");
        stolen.write_lease(None, &held("demo-0"), DEADLINE).await.unwrap();
        let object = space.get(&["lease", "other"]);
        let refused = clusters.refuse("demo", &Value::Null, &object);
        assert!(refused.iter().any(|message| message.contains("has one Lease")), "{refused:?}");
        assert_eq!(clusters.refuse("other", &Value::Null, &object), [""; 0]);
    });
}
