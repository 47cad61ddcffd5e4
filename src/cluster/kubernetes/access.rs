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

impl Kubernetes {
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
