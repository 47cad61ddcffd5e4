//! What the API says of this member: what its service account may do, and whether its pod is seen.
//!
//! Anybody who is somebody may ask what he may: the ClusterRole `system:basic-user`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles>).

use kube::{
    api::{ListParams, PostParams},
    core::request,
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Asked, Error, Identity, Kubernetes, REQUEST_TIMEOUT,
    convert::CLUSTER,
    objects::{List, PodObject},
};

/// One line of what the Role has to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// `patch`.
    pub verb: &'static str,
    /// The API group; empty: the core group.
    pub group: &'static str,
    /// `leases`.
    pub resource: &'static str,
    /// Only for the object with the cluster's name.
    pub own: bool,
}

const fn right(group: &'static str, resource: &'static str, verb: &'static str, own: bool) -> Right {
    Right { verb, group, resource, own }
}

const COORDINATION: &str = "coordination.k8s.io";

/// All that a member needs, resource by resource.
pub const RIGHTS: [Right; 9] = [
    right(COORDINATION, "leases", "get", true),
    right(COORDINATION, "leases", "list", true),
    right(COORDINATION, "leases", "watch", true),
    right(COORDINATION, "leases", "patch", true),
    right(COORDINATION, "leases", "create", false),
    right("", "pods", "list", false),
    right("", "pods", "watch", false),
    right("", "pods", "patch", false),
    right("events.k8s.io", "events", "create", false),
];

#[derive(Debug, Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Debug, Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    allowed: bool,
}

#[derive(Debug, Deserialize)]
struct RulesReview {
    status: Rules,
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-rules-review-v1/>
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rules {
    #[serde(default)]
    resource_rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Rule {
    /// What it allows beyond [`RIGHTS`] to an account of this cluster, in words.
    fn beyond(&self, cluster: &str) -> Vec<String> {
        let mut more = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                // Everybody may ask the API about himself.
                if group.ends_with(".k8s.io") && resource.starts_with("selfsubject") {
                    continue;
                }
                let verbs = self.verbs.iter().filter(|verb| !self.is_needed(group, resource, verb, cluster));
                more.extend(verbs.map(|verb| self.words(verb, resource)));
            }
        }
        more
    }

    fn is_needed(&self, group: &str, resource: &str, verb: &str, cluster: &str) -> bool {
        let same = |right: &&Right| (right.group, right.resource, right.verb) == (group, resource, verb);
        RIGHTS.iter().find(same).is_some_and(|right| !right.own || self.resource_names == [cluster])
    }

    fn words(&self, verb: &str, resource: &str) -> String {
        match self.resource_names.as_slice() {
            [] if RIGHTS.iter().any(|r| r.own && r.resource == resource && r.verb == verb) => {
                format!("{verb} {resource} of any name")
            }
            [] => format!("{verb} {resource}"),
            names => format!("{verb} {resource} {}", names.join(", ")),
        }
    }
}

impl Kubernetes {
    /// What the service account may in the pod's namespace that no member needs, in words (`delete pods`), as far as the
    /// API names it: not every authorizer can tell what it would allow.
    ///
    /// # Errors
    /// The API does not say.
    pub async fn may_beyond(&self) -> Result<Vec<String>, Error> {
        let namespace = &self.identity.namespace;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": namespace },
        });
        let asked = Asked {
            verb: "create",
            resource: "selfsubjectrulesreviews",
            group: "authorization.k8s.io",
            object: format!("SelfSubjectRulesReview of {namespace}"),
        };
        let reviews = request::Request::new("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews");
        let request = reviews.create(&PostParams::default(), review.to_string().into_bytes());
        let review: RulesReview = self.ask(&asked, request, REQUEST_TIMEOUT).await?;
        let mut more = Vec::new();
        for words in review.status.resource_rules.iter().flat_map(|rule| rule.beyond(&self.identity.cluster)) {
            if !more.contains(&words) {
                more.push(words);
            }
        }
        Ok(more)
    }

    /// Whether the service account has this right in the pod's namespace.
    ///
    /// # Errors
    /// The API does not say.
    pub async fn may(&self, right: &Right) -> Result<bool, Error> {
        let namespace = &self.identity.namespace;
        let name = right.own.then_some(&self.identity.cluster);
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": {
                "namespace": namespace, "verb": right.verb, "group": right.group, "resource": right.resource,
                "name": name,
            } },
        });
        let asked = Asked {
            verb: "create",
            resource: "selfsubjectaccessreviews",
            group: "authorization.k8s.io",
            object: format!("SelfSubjectAccessReview: {} {} in {namespace}", right.verb, right.resource),
        };
        let reviews = request::Request::new("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
        let request = reviews.create(&PostParams::default(), review.to_string().into_bytes());
        let review: Review = self.ask(&asked, request, REQUEST_TIMEOUT).await?;
        Ok(review.status.allowed)
    }

    /// Whether this member's pod has the cluster's label, without which no member sees it.
    ///
    /// # Errors
    /// The API does not say.
    pub async fn is_labelled(&self) -> Result<bool, Error> {
        let Identity { namespace, pod, cluster, .. } = &*self.identity;
        let wanted =
            ListParams::default().labels(&format!("{CLUSTER}={cluster}")).fields(&format!("metadata.name={pod}"));
        let asked = self.pods_asked("list", &format!("the pods of {cluster} in {namespace}"));
        let found: List<PodObject> = self.ask(&asked, self.pods().list(&wanted), REQUEST_TIMEOUT).await?;
        Ok(!found.items.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beyond(verbs: &[&str], group: &str, resources: &[&str], names: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_string()).collect();
        let rule = Rule {
            verbs: owned(verbs),
            api_groups: owned(&[group]),
            resources: owned(resources),
            resource_names: owned(names),
        };
        rule.beyond("demo")
    }

    #[test]
    fn what_is_needed_is_not_too_much() {
        for right in RIGHTS {
            let names: &[&str] = if right.own { &["demo"] } else { &[] };
            assert_eq!(beyond(&[right.verb], right.group, &[right.resource], names), [""; 0], "{right:?}");
        }
        assert_eq!(beyond(&["create"], "authorization.k8s.io", &["selfsubjectaccessreviews"], &[]), [""; 0]);
        assert_eq!(beyond(&["create"], "authentication.k8s.io", &["selfsubjectreviews"], &[]), [""; 0]);
    }

    #[test]
    fn what_is_too_much_is_named() {
        assert_eq!(beyond(&["list", "get", "delete"], "", &["pods"], &[]), ["get pods", "delete pods"]);
        assert_eq!(beyond(&["get", "create"], COORDINATION, &["leases"], &[]), ["get leases of any name"]);
        assert_eq!(beyond(&["get"], COORDINATION, &["leases"], &["other"]), ["get leases other"]);
        assert_eq!(beyond(&["create"], "", &["events", "pods/exec"], &[]), ["create events", "create pods/exec"]);
        assert_eq!(beyond(&["*"], "*", &["*"], &[]), ["* *"]);
    }
}
