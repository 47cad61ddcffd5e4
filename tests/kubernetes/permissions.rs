//! What the service account can do, and what it is refused.

use axum::http::Method;
use podgres::cluster::kubernetes::{RIGHTS, Right};
use serde_json::{Value, json};

use crate::{
    api::{Api, COORDINATION, CORE, EVENTS, RBAC},
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
        ("", "pods", &["list", "watch", "patch"]),
        ("", "events", &[]),
        ("events.k8s.io", "events", &["create"]),
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
        (Method::GET, member.path()),
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
    assert!(account.get(&format!("{namespace}/pods")).is_ok());
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
    cluster.api.patch(&role(&cluster), &json!({"rules": [rules()[0], rules()[1], rules()[3]]}));
    cluster.wait("the missing permission to be named", || {
        let check = members[p].podgres(&["check"]);
        (check.status.code() == Some(78) && stdout(&check).contains("pods")).then_some(())
    });
}

fn role(cluster: &Cluster) -> String {
    format!("{RBAC}/namespaces/{}/roles/{NAME}", cluster.namespace)
}

/// The Role without one of its verbs.
fn without(right: &Right) -> Value {
    let mut rules = rules();
    let all = rules.as_array_mut().expect("rules");
    for rule in all.iter_mut() {
        let own = rule.get("resourceNames").is_some();
        if rule["resources"][0] == right.resource && own == right.own {
            rule["verbs"].as_array_mut().expect("verbs").retain(|verb| verb != right.verb);
        }
    }
    // A rule without verbs is none.
    all.retain(|rule| rule["verbs"][0].is_string());
    rules
}

/// What becomes of the first start of a member whose Role lacks a verb.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// It leads, and never asked: by this verb it learns what became of a write that was not answered.
    LeadsUnaware,
    /// It leads, and says what it could not do.
    Leads,
    /// It leads as nobody sees: the Services have no member.
    LeadsUnseen,
    /// Nothing accepts writes, and its status says why.
    Waits,
}

/// [`Fate`], seen at a real member.
fn fate(right: &Right) {
    let fate = match (right.resource, right.verb) {
        ("leases", "get") => Fate::LeadsUnaware,
        ("leases", "watch") | ("events", "create") => Fate::Leads,
        ("pods", "watch" | "patch") => Fate::LeadsUnseen,
        _ => Fate::Waits,
    };
    let cluster = Cluster::new(17);
    cluster.api.patch(&role(&cluster), &json!({"rules": without(right)}));
    let member = cluster.member(0);
    let words = format!("Its Role has to have the verb {} on {} of the API group", right.verb, right.resource);
    if fate != Fate::LeadsUnaware {
        member.container.wait_for_message(&words);
    }
    if fate == Fate::Waits {
        let status = || stdout(&member.podgres(&["status"]));
        cluster.wait(&format!("status to say: {words}"), || status().contains(&words).then_some(()));
        assert!(!member.is_writable(), "{right:?}");
    } else {
        cluster.wait(&format!("it to lead without {right:?}"), || member.is_writable().then_some(()));
        assert_eq!(cluster.holder(), member.name, "{right:?}");
        match fate {
            Fate::LeadsUnseen => assert_eq!(member.role(), None),
            _ => member.wait_role("primary"),
        }
    }
    // Not one that was denied makes it end: an administrator who gives the verb finds it as it was.
    assert!(member.container.is_running());
    cluster.api.patch(&role(&cluster), &json!({"rules": rules()}));
    cluster.wait(&format!("it to lead with {right:?}"), || member.is_writable().then_some(()));
    member.wait_role("primary");
}

#[test]
fn a_member_whose_role_lacks_a_verb_says_so_and_does_what_it_can_until_it_is_given() {
    for some in RIGHTS.chunks(3) {
        std::thread::scope(|scope| some.iter().for_each(|right| drop(scope.spawn(|| fate(right)))));
    }
}
