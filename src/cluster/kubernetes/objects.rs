//! Kubernetes' objects, as far as they are read here. The whole types are large, and their code would be resident.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `metadata`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) deletion_timestamp: Option<String>,
}

/// What has `metadata`.
pub(super) trait Object: serde::de::DeserializeOwned + Clone {
    fn meta(&self) -> &Meta;
}

/// A list of objects, at one version of all.
#[derive(Debug, Deserialize)]
pub(super) struct List<T> {
    pub(super) metadata: Meta,
    #[serde(default = "Vec::new")]
    pub(super) items: Vec<T>,
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/>
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LeaseObject {
    pub(super) metadata: Meta,
    pub(super) spec: LeaseSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct LeaseSpec {
    pub(super) holder_identity: Option<String>,
    pub(super) lease_duration_seconds: Option<u32>,
    pub(super) renew_time: Option<String>,
    pub(super) lease_transitions: Option<u32>,
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodObject {
    pub(super) metadata: Meta,
    pub(super) status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) conditions: Vec<Condition>,
    pub(super) container_statuses: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) state: State,
    pub(super) last_state: State,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Terminated {
    pub(super) message: Option<String>,
}

/// An object that was written, of which nothing is wanted.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Written {}

impl Object for LeaseObject {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl Object for PodObject {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}
