//! What the API refuses, or does not answer, in words.

use std::time::Duration;

use kube::core::Status;

use super::convert::Nonsense;

/// A request that failed. Each text says what was tried, on what, why it failed, and what to do if anything can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 409: the object is not what the write was over. Another version, another UID, or it is there already.
    #[error("{0}")]
    Conflict(String),
    /// 404.
    #[error("{0}")]
    NotFound(String),
    /// 403: the service account may not. Not an outage.
    #[error("{0}")]
    Forbidden(String),
    /// 401: the API does not know who asks. Not an outage.
    #[error("{0}")]
    Unauthorized(String),
    /// No answer in time. A write may have happened.
    #[error("{0}")]
    Timeout(String),
    /// No connection, one that broke, or an API that cannot at the moment (429, 5xx). A write may have happened.
    #[error("{0}")]
    Unavailable(String),
    /// The Lease was read, and says what makes no sense.
    #[error(transparent)]
    Nonsense(#[from] Box<Nonsense>),
    /// Anything else: a request that the API finds invalid, an answer that cannot be read, files that are not there.
    #[error("{0}")]
    Other(String),
}

/// What is asked for: the words of its errors.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// As the Role says it: `patch`.
    pub(super) verb: &'static str,
    /// As the Role says it: `leases`.
    pub(super) resource: &'static str,
    /// As the Role says it: `coordination.k8s.io`.
    pub(super) group: &'static str,
    /// `Lease shop/demo`.
    pub(super) object: String,
}

impl Asked {
    pub(super) fn timeout(&self, within: Duration) -> Error {
        Error::Timeout(format!(
            "{}: the Kubernetes API has not answered within {} ms",
            self.tried(),
            within.as_millis()
        ))
    }

    pub(super) fn other(&self, why: impl std::fmt::Display) -> Error {
        Error::Other(format!("{}: {why}", self.tried()))
    }

    pub(super) fn failed(&self, error: kube::Error) -> Error {
        match error {
            kube::Error::Api(status) => self.refused(&status),
            kube::Error::HyperError(e) => self.unavailable(&e),
            kube::Error::ReadEvents(e) => self.unavailable(&e),
            kube::Error::Service(e) => match e.downcast::<Error>() {
                Ok(ours) => self.other(ours),
                Err(e) => self.unavailable(e.as_ref()),
            },
            other => self.other(chain(&other)),
        }
    }

    pub(super) fn refused(&self, status: &Status) -> Error {
        let (tried, says) = (self.tried(), &status.message);
        // A UID that does not fit is a conflict to some versions, and an invalid change of a fixed field to others.
        let other_uid = status.code == 422 && says.contains("metadata.uid");
        match status.code {
            409 => Error::Conflict(format!("{tried}: {says}")),
            422 if other_uid => Error::Conflict(format!("{tried}: {says}")),
            404 => Error::NotFound(format!("{tried}: {says}")),
            401 => Error::Unauthorized(format!(
                "{tried}: the Kubernetes API does not accept the service account's token ({says}): it has run out, or its \
                 pod or service account is gone. The kubelet renews it; if this lasts, delete the pod"
            )),
            403 => Error::Forbidden(format!(
                "{tried}: the pod's service account may not. Its Role has to have the verb {} on {} of the API group {}. \
                 The API says: {says}",
                self.verb,
                self.resource,
                if self.group.is_empty() { "\"\"" } else { self.group },
            )),
            429 | 500.. => Error::Unavailable(format!(
                "{tried}: the Kubernetes API cannot at the moment ({}): {says}",
                status.code
            )),
            code => Error::Other(format!("{tried}: the Kubernetes API refuses it ({code}): {says}")),
        }
    }

    fn unavailable(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        Error::Unavailable(format!("{}: the Kubernetes API cannot be reached: {}", self.tried(), chain(error)))
    }

    fn tried(&self) -> String {
        format!("cannot {} {}", self.verb, self.object)
    }
}

/// An error with what caused it: the outermost alone says nothing (`client error (Connect)`).
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked { verb: "patch", resource: "leases", group: "coordination.k8s.io", object: "Lease shop/demo".into() }
    }

    #[test]
    fn every_refusal_has_its_kind_and_its_words() {
        let refused = |code, message| asked().refused(&Status::failure(message, "").with_code(code));
        type Kind = fn(String) -> Error;
        for (code, message, kind) in [
            (409, "the object has been modified", Error::Conflict as Kind),
            (422, "Pod \"demo-0\" is invalid: metadata.uid: Invalid value: field is immutable", Error::Conflict),
            (422, "spec.leaseDurationSeconds: must be greater than 0", Error::Other),
            (404, "not found", Error::NotFound),
            (401, "Unauthorized", Error::Unauthorized),
            (403, "forbidden", Error::Forbidden),
            (429, "too many requests", Error::Unavailable),
            (500, "etcdserver: leader changed", Error::Unavailable),
            (503, "apiserver is shutting down", Error::Unavailable),
            (504, "Too large resource version", Error::Unavailable),
            (400, "bad request", Error::Other),
        ] {
            let error = refused(code, message);
            let text = error.to_string();
            assert_eq!(error, kind(text.clone()), "{code}");
            assert!(text.starts_with("cannot patch Lease shop/demo: ") && text.contains(message), "{code}: {text}");
        }
        let text = refused(403, "no").to_string();
        assert!(text.contains("the verb patch on leases of the API group coordination.k8s.io"), "{text}");
    }

    #[test]
    fn causes_are_told() {
        let inner = std::io::Error::other("connection refused");
        let error = asked().failed(kube::Error::ReadEvents(inner));
        assert_eq!(
            error.to_string(),
            "cannot patch Lease shop/demo: the Kubernetes API cannot be reached: connection refused"
        );
        assert!(matches!(asked().failed(kube::Error::Service("broken".into())), Error::Unavailable(_)));
    }
}
