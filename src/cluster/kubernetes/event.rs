//! Events: what `kubectl describe` and `kubectl get events` show of a pod or the Lease.

use kube::api::PostParams;
use serde_json::json;

use super::{Asked, Error, Kubernetes, PoisonError, REQUEST_TIMEOUT, Written, now};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// The cluster's Lease.
    Lease,
    /// A pod.
    Pod {
        /// `metadata.name`.
        name: &'a str,
        /// `metadata.uid`.
        uid: &'a str,
    },
}

/// The API refuses a longer one
/// (<https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>).
const NOTE_BYTES: usize = 1024;

impl Kubernetes {
    /// Tells people: `reason` in one word (`PromotionFailed`), `action` that was taken (`Promote`), `note` in a sentence.
    /// Each call makes one Event.
    ///
    /// # Errors
    /// The API does not take it.
    pub async fn event(
        &self,
        about: About<'_>,
        warning: bool,
        reason: &str,
        action: &str,
        note: &str,
    ) -> Result<(), Error> {
        let namespace = &self.identity.namespace;
        let regarding = match about {
            About::Lease => json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "namespace": namespace,
                "name": self.identity.cluster,
                "uid": *self.lease_uid.lock().unwrap_or_else(PoisonError::into_inner),
            }),
            About::Pod { name, uid } => json!({
                "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid,
            }),
        };
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "generateName": format!("{}-", self.identity.pod), "namespace": namespace },
            "eventTime": now(),
            "reportingController": "podgres.io/podgres",
            "reportingInstance": self.identity.pod,
            "type": if warning { "Warning" } else { "Normal" },
            "reason": reason,
            "action": action,
            "note": cut(note),
            "regarding": regarding,
        });
        let asked = Asked {
            verb: "create",
            resource: "events",
            group: "events.k8s.io",
            object: format!("Event {reason} in {namespace}"),
        };
        let events = self.path("apis/events.k8s.io/v1", "events");
        let request = events.create(&PostParams::default(), event.to_string().into_bytes());
        let _: Written = self.ask(&asked, request, REQUEST_TIMEOUT).await?;
        Ok(())
    }
}

fn cut(note: &str) -> &str {
    let end = (0..=note.len().min(NOTE_BYTES)).rev().find(|at| note.is_char_boundary(*at));
    &note[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_as_long_as_it_may_be() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(2000)).len(), 1024);
        assert_eq!(cut(&"€".repeat(2000)), "€".repeat(341));
    }
}
