//! The Kubernetes API: watching and writing a cluster's Lease and pods. It has no opinion: what is seen is told, what is
//! ordered is asked for once, and an error says what happened.
//!
//! | | requests |
//! |---|---|
//! | to watch | four when it begins, then two every five minutes; more only while something fails or nobody renews |
//! | anything else | one each, never a second by itself |
//!
//! What it has to be allowed is in [`RIGHTS`].

mod access;
mod client;
pub(crate) mod convert;
mod error;
mod event;
pub(crate) mod objects;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use hyper::Request;
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
    core::request,
};
use serde_json::{Value, json};

pub use access::{RIGHTS, Right};
pub use client::Server;
pub use convert::Nonsense;
use error::Asked;
pub use error::Error;
pub use event::About;
use objects::{LeaseObject, Object, Written};
pub use watch::Seen;

use super::identity::Identity;
use crate::ha::lease::Lease;

/// A request that is ready to be sent.
type Built = Result<Request<Vec<u8>>, request::Error>;

/// How long a request may take on which nothing hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// One cluster's Lease and pods at the API.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    /// For watching: a connection of its own each time. One that waited may be as dead as the one that fell silent.
    watching: Client,
    identity: Arc<Identity>,
    server: Arc<str>,
    /// Of the Lease when it was last seen: events name it.
    lease_uid: Arc<Mutex<String>>,
}

/// Labels or annotations: what each is to be, none: removed.
pub type Changes<'a> = BTreeMap<&'a str, Option<String>>;

impl Kubernetes {
    /// By the service account of this pod. Asks nothing yet. Has to be called inside a runtime.
    ///
    /// # Errors
    /// This is no container of a pod, or its token or the CA's certificates cannot be used.
    pub fn connect(identity: &Identity) -> Result<Self, Error> {
        Self::connect_to(&Server::of_pod(|name| std::env::var(name).ok())?, identity)
    }

    /// As [`Self::connect`], to a server that is named.
    ///
    /// # Errors
    /// As there.
    pub fn connect_to(server: &Server, identity: &Identity) -> Result<Self, Error> {
        Ok(Self {
            client: client::connect(server, &identity.namespace, 1)?,
            watching: client::connect(server, &identity.namespace, 0)?,
            identity: Arc::new(identity.clone()),
            server: server.url().into(),
            lease_uid: Arc::default(),
        })
    }

    /// Where the API is.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The Lease as it is now (not as a cache of the API server has it). None: there is none.
    ///
    /// # Errors
    /// It cannot be read within `deadline`, or makes no sense.
    pub async fn read_lease(&self, deadline: Duration) -> Result<Option<Lease>, Error> {
        let asked = self.lease_asked("get");
        match self.ask(&asked, self.leases().get(&self.identity.cluster, &Default::default()), deadline).await {
            Ok(object) => Ok(Some(self.lease(&object)?)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what `lease` says, if the Lease is still at the version `over`; none: if there is none yet. Fields and
    /// annotations of the protocol that `lease` has not are removed. What is the user's (`switchover-to`, `paused`, and
    /// all that podgres does not know) is left as it is, and written only where the Lease is made anew. The time of the
    /// renewal is now, by this machine's clock. Answers with the Lease as it was written.
    ///
    /// # Errors
    /// [`Error::Conflict`]: nothing was written. [`Error::Timeout`] and [`Error::Unavailable`]: it may have been written,
    /// now or later; only a read that shows another version tells.
    pub async fn write_lease(&self, over: Option<&str>, lease: &Lease, deadline: Duration) -> Result<Lease, Error> {
        let now = now();
        let cluster = &self.identity.cluster;
        let asked = self.lease_asked(if over.is_some() { "patch" } else { "create" });
        let object: LeaseObject = match over {
            Some(version) => {
                let patch = convert::lease_patch(version, lease, &now).map_err(|e| asked.other(e))?;
                self.ask(&asked, merge(&self.leases(), cluster, patch), deadline).await?
            }
            None => {
                let object = convert::lease_anew(cluster, lease, &now).map_err(|e| asked.other(e))?;
                let body = object.to_string().into_bytes();
                self.ask(&asked, self.leases().create(&PostParams::default(), body), deadline).await?
            }
        };
        Ok(self.lease(&object)?)
    }

    /// Changes annotations of the Lease, whatever else it says. Not for those of the protocol.
    ///
    /// # Errors
    /// [`Error::NotFound`]: there is none. Else as [`Self::read_lease`].
    pub async fn patch_lease_annotations(&self, annotations: &Changes<'_>) -> Result<Lease, Error> {
        let patch = json!({ "metadata": { "annotations": annotations } });
        let request = merge(&self.leases(), &self.identity.cluster, patch);
        Ok(self.lease(&self.ask(&self.lease_asked("patch"), request, REQUEST_TIMEOUT).await?)?)
    }

    /// Changes labels and annotations of the pod `name`, if it is the one with this UID.
    ///
    /// # Errors
    /// [`Error::Conflict`]: another pod has the name now. [`Error::NotFound`]: none has.
    pub async fn patch_pod(
        &self,
        name: &str,
        uid: &str,
        labels: &Changes<'_>,
        annotations: &Changes<'_>,
    ) -> Result<(), Error> {
        let patch = json!({ "metadata": { "uid": uid, "labels": labels, "annotations": annotations } });
        let asked = self.pods_asked("patch", &format!("Pod {}/{name}", self.identity.namespace));
        let _: Written = self.ask(&asked, merge(&self.pods(), name, patch), REQUEST_TIMEOUT).await?;
        Ok(())
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        asked: &Asked,
        request: Built,
        deadline: Duration,
    ) -> Result<T, Error> {
        answer(&self.client, asked, request, deadline).await
    }

    fn lease(&self, object: &LeaseObject) -> Result<Lease, Box<Nonsense>> {
        self.lease_uid.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&object.meta().uid);
        convert::lease(object)
    }

    fn path(&self, group: &str, resource: &str) -> request::Request {
        request::Request::new(format!("/{group}/namespaces/{}/{resource}", self.identity.namespace))
    }

    fn leases(&self) -> request::Request {
        self.path("apis/coordination.k8s.io/v1", "leases")
    }

    fn pods(&self) -> request::Request {
        self.path("api/v1", "pods")
    }

    fn lease_asked(&self, verb: &'static str) -> Asked {
        let object = format!("Lease {}/{}", self.identity.namespace, self.identity.cluster);
        Asked { verb, resource: "leases", group: "coordination.k8s.io", object }
    }

    fn pods_asked(&self, verb: &'static str, object: &str) -> Asked {
        Asked { verb, resource: "pods", group: "", object: object.to_owned() }
    }
}

/// One request, once, within `deadline`.
async fn answer<T: serde::de::DeserializeOwned>(
    client: &Client,
    asked: &Asked,
    request: Built,
    deadline: Duration,
) -> Result<T, Error> {
    let request = request.map_err(|e| asked.other(e))?;
    let text = tokio::time::timeout(deadline, client.request_text(request))
        .await
        .map_err(|_| asked.timeout(deadline))?
        .map_err(|e| asked.failed(e))?;
    serde_json::from_str(&text).map_err(|e| asked.other(format_args!("its answer cannot be read: {e}")))
}

fn merge(objects: &request::Request, name: &str, patch: Value) -> Built {
    objects.patch(name, &PatchParams::default(), &Patch::Merge(patch))
}

/// As Kubernetes writes a MicroTime.
fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}
