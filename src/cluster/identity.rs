//! Who this member is, as Kubernetes tells it
//! (<https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>).

/// This member's pod, and the cluster that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `POD_NAME`: `metadata.name`.
    pub pod: String,
    /// `POD_NAMESPACE`: `metadata.namespace`.
    pub namespace: String,
    /// `POD_UID`: `metadata.uid`. Another pod of the same name has another one.
    pub uid: String,
    /// `POD_IP`: `status.podIP`.
    pub ip: String,
    /// The cluster's name: that of its Lease, and the value of the label `podgres.io/cluster` of its pods.
    pub cluster: String,
}
