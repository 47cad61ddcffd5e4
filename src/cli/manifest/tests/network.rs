//! Whom the network lets in and out, as the rules say it. Nothing here obeys them: that takes a network plugin.

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::object;

/// Of a pod that calls or is called: its labels, in the namespace of the cluster or in none that is known here.
#[derive(Clone, Copy)]
struct Peer(&'static [(&'static str, &'static str)], bool);

const MEMBER: Peer = Peer(&[("podgres.io/cluster", "db"), ("podgres.io/role", "replica")], true);
const OTHER_CLUSTER: Peer = Peer(&[("podgres.io/cluster", "other")], true);
const APPLICATION: Peer = Peer(&[("app", "shop")], true);
const ELSEWHERE: Peer = Peer(&[("podgres.io/cluster", "db")], false);

fn selects(selector: &LabelSelector, labels: &[(&str, &str)]) -> bool {
    assert_eq!(selector.match_expressions, None);
    let wanted = selector.match_labels.iter().flatten();
    wanted.into_iter().all(|(key, value)| labels.contains(&(key, value)))
}

/// <https://kubernetes.io/docs/concepts/services-networking/network-policies/>: one entry that fits is enough; an entry without
/// peers, or without ports, is one for all of them.
fn is_let(peers: Option<&[NetworkPolicyPeer]>, ports: Option<&[NetworkPolicyPort]>, peer: Peer, port: i32) -> bool {
    let by_peer = peers.is_none_or(|peers| {
        peers.iter().any(|from| {
            assert_eq!(from.namespace_selector, None);
            peer.1 && from.pod_selector.as_ref().is_some_and(|pods| selects(pods, peer.0))
        })
    });
    let is_port = |p: &NetworkPolicyPort| p.port == Some(IntOrString::Int(port)) && p.protocol.is_none();
    by_peer && ports.is_none_or(|ports| ports.iter().any(is_port))
}

#[test]
fn members_reach_each_other_the_namespace_reaches_postgresql_and_nobody_else_anything() {
    let spec = object::<NetworkPolicy>(&[], "NetworkPolicy", "db").spec.unwrap();
    assert_eq!(spec.policy_types.unwrap(), ["Ingress"]);
    let rules = spec.ingress.unwrap();
    for (peer, port, expected) in [
        (MEMBER, 5432, true),
        (MEMBER, 8008, true),
        (MEMBER, 22, false),
        (APPLICATION, 5432, true),
        (APPLICATION, 8008, false),
        (OTHER_CLUSTER, 5432, true),
        (OTHER_CLUSTER, 8008, false),
        (ELSEWHERE, 5432, false),
        (ELSEWHERE, 8008, false),
    ] {
        let lets = rules.iter().any(|r| is_let(r.from.as_deref(), r.ports.as_deref(), peer, port));
        assert_eq!(lets, expected, "{:?} {port}", peer.0);
    }
}

#[test]
fn the_example_for_what_members_call_lets_them_call_each_other_and_the_api() {
    let text = include_str!("../../../../examples/kubernetes/egress.yaml");
    let policy: NetworkPolicy = serde_saphyr::from_str(text).unwrap();
    let of_the_manifest: NetworkPolicy = object(&[], "NetworkPolicy", "db");
    assert_eq!(policy.metadata.labels, of_the_manifest.metadata.labels);
    let (spec, other) = (policy.spec.unwrap(), of_the_manifest.spec.unwrap());
    assert_eq!((&spec.policy_types.unwrap()[..], spec.pod_selector), (&["Egress".to_string()][..], other.pod_selector));
    let rules = spec.egress.unwrap();
    for (peer, port, expected) in [
        (MEMBER, 5432, true),
        (MEMBER, 8008, true),
        (MEMBER, 6443, false),
        (APPLICATION, 5432, false),
        (OTHER_CLUSTER, 8008, false),
        (ELSEWHERE, 5432, false),
    ] {
        let lets = rules.iter().any(|r| is_let(r.to.as_deref(), r.ports.as_deref(), peer, port));
        assert_eq!(lets, expected, "{:?} {port}", peer.0);
    }
    // The API server's place, for people to fill: an address that nobody has (RFC 5737).
    let blocks: Vec<_> =
        rules.iter().flat_map(|r| r.to.iter().flatten()).filter_map(|to| to.ip_block.as_ref()).collect();
    assert_eq!(blocks.iter().map(|block| block.cidr.as_str()).collect::<Vec<_>>(), ["192.0.2.1/32"]);
}
