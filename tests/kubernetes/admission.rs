//! The admission policies of `examples/kubernetes` and what members really write, from the first start to a switchover.

use serde_json::{Value, json};

use crate::{
    api::{Api, COORDINATION, CORE},
    cluster::{Cluster, NAME, annotation},
    policy::{Policies, Request},
};

/// Every version of the objects at this path, one after another, from this version of all on.
fn versions(api: &Api, path: &str, from: &str) -> Vec<Value> {
    let watch = format!("{path}?watch=1&resourceVersion={from}&timeoutSeconds=1");
    let text = match api.get(&watch).expect("a watch") {
        Value::String(text) => text,
        one => one.to_string(),
    };
    let events = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    events
        .map(|event| event.expect("an event"))
        .inspect(|e| assert_ne!(e["type"], "ERROR", "{e}"))
        .map(|e| e["object"].clone())
        .collect()
}

fn version(api: &Api, path: &str) -> String {
    let list = api.get(path).expect("a list");
    list["metadata"]["resourceVersion"].as_str().expect("a version").to_string()
}

/// The accounts, as the manifest labels them.
fn policies(cluster: &Cluster) -> Policies {
    let path = format!("{CORE}/namespaces/{}/serviceaccounts/{NAME}", cluster.namespace);
    let account = cluster.api.patch(&path, &json!({"metadata": {"labels": {"podgres.io/cluster": NAME}}}));
    Policies::of_the_example(&[account])
}

#[test]
fn the_policies_let_everything_through_that_members_write() {
    let cluster = Cluster::new(17);
    let policies = policies(&cluster);
    let pods = format!("{CORE}/namespaces/{}/pods", cluster.namespace);
    let leases = format!("{COORDINATION}/namespaces/{}/leases", cluster.namespace);
    let from = [&pods, &leases].map(|path| version(&cluster.api, path));
    let (members, p) = cluster.members(2);
    let standby = &members[1 - p];
    let outcome = standby.annotation("last-command");
    standby.annotate("promote", json!("please"));
    let outcome = Some(standby.wait_outcome(&outcome, &["promote", "done"]));
    assert_eq!(cluster.settle(&members).n, standby.n);
    standby.annotate("restart", json!("please"));
    standby.wait_outcome(&outcome, &["restart", "done"]);
    let former = &members[p];
    assert!(former.podgres(&["fence", "on"]).status.success());
    cluster.wait("it to be down", || former.sql("select 1").is_err().then_some(()));
    assert!(former.podgres(&["fence", "off"]).status.success());
    cluster.settle(&members);

    let (pods, leases) = (versions(&cluster.api, &pods, &from[0]), versions(&cluster.api, &leases, &from[1]));
    let user = format!("system:serviceaccount:{}:{NAME}", cluster.namespace);
    let mut judged = 0;
    for member in &members {
        let mine: Vec<_> = pods.iter().filter(|pod| pod["metadata"]["name"] == member.name.as_str()).collect();
        for pair in mine.windows(2) {
            // The test's own wishes are a person's; its reports of the kubelet's are of the status.
            let by_test = annotation(pair[1], "restart").is_some() && annotation(pair[0], "restart").is_none();
            let written = ["labels", "annotations"].iter().any(|k| pair[0]["metadata"][*k] != pair[1]["metadata"][*k]);
            if written && !by_test {
                let refused = policies.refuse(&Request { user: &user, object: pair[1], old: pair[0] });
                assert_eq!(refused, [""; 0], "{}\n{}", pair[0]["metadata"], pair[1]["metadata"]);
                judged += 1;
            }
        }
    }
    // At the least: role and status of both, the switchover's outcome, the other roles, the restart's outcome, the fence.
    assert!(judged >= 8, "{judged} changes");
    assert!(leases.len() > 5, "{} versions of the Lease", leases.len());
    let mut old = &Value::Null;
    for lease in &leases {
        assert_eq!(policies.refuse(&Request { user: &user, object: lease, old }), [""; 0], "{lease}");
        old = lease;
    }
}
