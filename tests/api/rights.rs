//! The Role: each verb of it is for something, and where it lacks one, the words say which. And whom it keeps apart.

use std::collections::BTreeMap;

use podgres::cluster::kubernetes::{About, Error, Kubernetes, RIGHTS, Right, Seen};
use serde_json::{Value, json};

use crate::harness::{DEADLINE, SOON, Space, held, in_force, rules, run, watching};

/// The Role without one right.
fn without(lacking: &Right) -> Value {
    let mut rules = rules("demo");
    for rule in rules.as_array_mut().unwrap() {
        let own = rule.get("resourceNames").is_some();
        if rule["apiGroups"] == json!([lacking.group])
            && rule["resources"] == json!([lacking.resource])
            && own == lacking.own
        {
            rule["verbs"].as_array_mut().unwrap().retain(|verb| verb != lacking.verb);
        }
    }
    rules.as_array_mut().unwrap().retain(|rule| rule["verbs"] != json!([]));
    rules
}

/// Asks for what a member asks for by this right.
async fn ask(kubernetes: &Kubernetes, right: &Right, uid: &str) -> Result<(), Error> {
    let none = BTreeMap::new();
    match (right.resource, right.verb) {
        ("leases", "get") => kubernetes.read_lease(DEADLINE).await.map(drop),
        ("leases", "create") => kubernetes.write_lease(None, &held("demo-0"), DEADLINE).await.map(drop),
        ("leases", "patch") => {
            let paused = BTreeMap::from([("podgres.io/paused", Some("true".into()))]);
            match kubernetes.patch_lease_annotations(&paused).await {
                // There is none yet; it might have been patched.
                Err(Error::NotFound(_)) => Ok(()),
                patched => patched.map(drop),
            }
        }
        ("pods", "patch") => {
            let role = BTreeMap::from([("podgres.io/role", Some("primary".into()))]);
            kubernetes.patch_pod("demo-0", uid, &role, &none).await
        }
        ("events", "create") => kubernetes.event(About::Lease, false, "Reason", "Action", "note").await,
        (resource, verb @ ("list" | "watch")) => {
            let of_this = format!("the verb {verb} on {resource} ");
            let mut answer = Ok(());
            watching(kubernetes, async |told| {
                let health = told.next("how the watches are", SOON, |seen| match seen {
                    Seen::Trouble(why) => Some(Err(why.clone())),
                    Seen::Fine => Some(Ok(())),
                    _ => None,
                });
                answer = match health.await {
                    Err(why) if why.contains(&of_this) => Err(Error::Forbidden(why)),
                    _ => Ok(()),
                };
            })
            .await;
            answer
        }
        _ => panic!("nothing is asked for by {right:?}"),
    }
}

#[test]
fn without_any_one_verb_of_the_role_one_thing_fails_and_says_which_verb() {
    let missing = RIGHTS.map(|right| (right, Space::with_role(&without(&right))));
    for (lacking, space) in missing {
        let uid = space.pod("demo-0");
        run(&space, |kubernetes| async move {
            let mut failed = Vec::new();
            for right in RIGHTS {
                failed.extend(ask(&kubernetes, &right, &uid).await.err().map(|error| (right, error)));
            }
            let [(right, Error::Forbidden(why))] = failed.as_slice() else { panic!("{lacking:?}: {failed:?}") };
            assert_eq!(*right, lacking, "{why}");
            let group = if lacking.group.is_empty() { "\"\"" } else { lacking.group };
            let named = format!("the verb {} on {} of the API group {group}", lacking.verb, lacking.resource);
            assert!(why.contains(&named) && why.contains("Its Role has to have"), "{named}: {why}");
        });
    }
}

#[test]
fn with_the_whole_role_nothing_is_refused() {
    let space = Space::new();
    let uid = space.pod("demo-0");
    run(&space, |kubernetes| async move {
        for right in RIGHTS {
            ask(&kubernetes, &right, &uid).await.unwrap_or_else(|e| panic!("{right:?}: {e}"));
        }
    });
}

#[test]
fn two_clusters_of_a_namespace_have_each_its_own_lease() {
    let space = Space::new();
    space.account("other", &rules("other"));
    run(&space, |demo| async {
        let demo = demo;
        let other = space.connect_as("other");
        in_force(&other).await;
        for (kubernetes, holder) in [(&demo, "demo-0"), (&other, "other-0")] {
            kubernetes.write_lease(None, &held(holder), DEADLINE).await.unwrap();
            assert_eq!(kubernetes.read_lease(DEADLINE).await.unwrap().unwrap().holder, holder);
        }
    });
    // What neither does by itself, its token in other hands might.
    let pause = r#"{"metadata": {"annotations": {"podgres.io/paused": "true"}}}"#;
    let of = |lease: &'static str| -> [Vec<&str>; 5] {
        [
            vec!["get", "lease", lease],
            vec!["patch", "lease", lease, "--type=merge", "--patch", pause],
            vec![
                "get",
                "lease",
                "--field-selector",
                if lease == "demo" { "metadata.name=demo" } else { "metadata.name=other" },
            ],
            vec!["delete", "lease", lease],
            vec!["get", "leases"],
        ]
    };
    for (account, foreign) in [("demo", "other"), ("other", "demo")] {
        for command in of(foreign) {
            let why = space.kubectl_as(account, &command).expect_err(&format!("{account}: {command:?}"));
            assert!(why.contains("forbidden"), "{account}: {command:?}: {why}");
        }
        for command in &of(account)[..3] {
            space.kubectl_as(account, command).unwrap_or_else(|why| panic!("{account}: {command:?}: {why}"));
        }
    }
}
