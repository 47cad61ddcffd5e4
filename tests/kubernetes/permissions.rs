//! What the service account can do, and what it is refused.

use axum::http::Method;
use serde_json::json;

use crate::{
    api::{Api, COORDINATION, CORE, EVENTS},
    cluster::{Cluster, NAME, rules},
    harness::*,
};

/// As `kubectl auth can-i` asks.
fn can(api: &Api, namespace: &str, verb: &str, group: &str, resource: &str) -> bool {
    can_with(api, namespace, verb, group, resource, "")
}

/// [`can`] with one that has this name.
fn can_with(api: &Api, namespace: &str, verb: &str, group: &str, resource: &str, name: &str) -> bool {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "name": name}}
    });
    api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review)["status"]["allowed"] == true
}

#[test]
fn the_service_account_can_do_what_the_contract_lists_and_nothing_else() {
    let cluster = Cluster::new(17);
    let member = cluster.member(0);
    let account = Api::with_token(&member.token());
    let all = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    let allowed = [
        // Of any name; those of its own are below.
        ("coordination.k8s.io", "leases", &["create"][..]),
        ("", "pods", &["get", "list", "watch", "patch"]),
        ("", "events", &["create", "patch"]),
        ("events.k8s.io", "events", &["create", "patch"]),
        ("", "secrets", &[]),
        ("", "configmaps", &[]),
        ("", "services", &[]),
        ("", "endpoints", &[]),
        ("", "pods/exec", &[]),
        ("", "pods/log", &[]),
        ("", "pods/status", &[]),
        ("", "pods/eviction", &[]),
        ("", "serviceaccounts/token", &[]),
        ("", "persistentvolumeclaims", &[]),
        ("apps", "statefulsets", &[]),
        ("rbac.authorization.k8s.io", "roles", &[]),
        ("rbac.authorization.k8s.io", "rolebindings", &[]),
    ];
    for (group, resource, verbs) in allowed {
        for verb in all {
            let expected = verbs.contains(&verb);
            assert_eq!(can(&account, &cluster.namespace, verb, group, resource), expected, "{verb} {group}/{resource}");
            assert!(!can(&account, "default", verb, group, resource), "{verb} {group}/{resource} elsewhere");
        }
    }
    for verb in all {
        let can = |name: &str| can_with(&account, &cluster.namespace, verb, "coordination.k8s.io", "leases", name);
        assert_eq!(can(NAME), ["get", "list", "watch", "create", "patch"].contains(&verb), "{verb} its Lease");
        assert_eq!(can("another"), verb == "create", "{verb} another Lease");
    }
    for (verb, resource) in [("get", "nodes"), ("list", "namespaces"), ("create", "persistentvolumes")] {
        assert!(!can(&account, "", verb, "", resource), "{verb} {resource}");
    }
}

#[test]
fn what_is_refused_is_refused_by_the_api_server() {
    let cluster = Cluster::new(17);
    let member = cluster.member(0);
    let account = Api::with_token(&member.token());
    let namespace = format!("{CORE}/namespaces/{}", cluster.namespace);
    let refused = [
        (Method::GET, format!("{namespace}/secrets")),
        (Method::GET, format!("{namespace}/configmaps")),
        (Method::DELETE, member.path()),
        (Method::DELETE, cluster.lease_path()),
        (Method::GET, format!("{CORE}/nodes")),
        (Method::GET, format!("{CORE}/namespaces/default/pods")),
        (Method::GET, format!("{COORDINATION}/namespaces/kube-system/leases")),
        (Method::GET, format!("{EVENTS}/namespaces/{}/events", cluster.namespace)),
    ];
    for (method, path) in refused {
        let answer = account.call(method.clone(), &path, None);
        assert_eq!(answer.expect_err("refused").0, 403, "{method} {path}");
    }
    assert!(account.get(&member.path()).is_ok());
}

#[test]
fn check_in_a_member_names_each_permission() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(1);
    let check = members[p].podgres(&["check"]);
    assert_eq!(check.status.code(), Some(0), "{}{}", stdout(&check), stderr(&check));
    let said = stdout(&check);
    for what in ["leases", "pods", "events"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    // One that is taken away is named, with what to do about it.
    let role = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/{NAME}", cluster.namespace);
    cluster.api.patch(&role, &json!({"rules": [rules()[0], rules()[1], rules()[3]]}));
    cluster.wait("the missing permission to be named", || {
        let check = members[p].podgres(&["check"]);
        (check.status.code() == Some(78) && stdout(&check).contains("pods")).then_some(())
    });
}
