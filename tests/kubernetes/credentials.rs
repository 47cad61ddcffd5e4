//! What a member and the API know each other by, while it is exchanged: no renewal is missed.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;

use crate::{api::CORE, cluster::Cluster, load::Load, member::Member, proxy::Proxy};

/// Each token is used for so long: a few renewals.
const TURN: Duration = Duration::from_secs(5);

#[test]
fn a_leader_whose_tokens_are_replaced_and_revoked_misses_no_renewal() {
    // Without others who consent, each missed renewal counts.
    let mut cluster = Cluster::with(17, &["PODGRES_FAILSAFE=off"]);
    let proxy = Proxy::before(&mut cluster);
    let (mut members, _) = cluster.members(1);
    let secrets = format!("{CORE}/namespaces/{}/secrets", cluster.namespace);
    // A token that lives as long as a Secret, from the start of this process on.
    let begin = |leader: &Member<'_>, n: usize| {
        let name = format!("life-{n}");
        leader.bind_token(&cluster.api.create(&secrets, &json!({"metadata": {"name": name}})));
        (name, leader.api())
    };
    let mut former = begin(&members[0], 0);
    members[0].restart_in_place();
    let leader = cluster.settle(&members);
    let load = Load::start(&cluster, leader);
    let from = proxy.requests().len();
    for n in 1..4 {
        let (name, account) = std::mem::replace(&mut former, begin(leader, n));
        cluster.api.delete(&format!("{secrets}/{name}"), 0);
        // The API server may believe it for some ten seconds more.
        let is_refused = || (account.get(&cluster.lease_path()).err()?.0 == 401).then_some(());
        cluster.wait("the former token to be refused", is_refused);
        cluster.never(TURN, "it was fenced", || !leader.is_writable());
    }
    let mine = |r: &&String| r.starts_with(&leader.address().to_string());
    let failed = |r: &&String| !r.ends_with(" 200") && !r.ends_with(" 201");
    let requests = proxy.requests();
    assert_eq!(requests[from..].iter().filter(mine).filter(failed).collect::<Vec<_>>(), [""; 0]);
    load.finish(&cluster, leader).nothing_lost();
}

/// The answers to what the leader wrote into the Lease.
fn renewals(proxy: &Proxy) -> Vec<String> {
    proxy.requests().into_iter().filter(|r| r.contains(" PATCH ") && r.contains("/leases/")).collect()
}

#[test]
fn a_leader_whose_token_is_refused_for_a_moment_stays() {
    let cluster = Cluster::with(17, &["PODGRES_FAILSAFE=off"]);
    let (members, p) = cluster.members(1);
    let leader = &members[p];
    let load = Load::start(&cluster, leader);
    let term = cluster.term();
    leader.exchange("token", "not.a.token");
    leader.container.wait_for_message("does not accept the service account's token");
    leader.renew_token();
    let renewed = cluster.lease()["spec"]["renewTime"].clone();
    cluster.wait("the next renewal", || (cluster.lease()["spec"]["renewTime"] != renewed).then_some(()));
    cluster.never(TURN, "it was fenced", || !leader.is_writable());
    assert_eq!(cluster.term(), term);
    load.finish(&cluster, leader).nothing_lost();
}

/// As at a rotation (<https://kubernetes.io/docs/tasks/tls/manual-rotation-of-ca-certificates/>): first the next authority is
/// added to the file, then the server gets a certificate of it.
#[test]
fn a_leader_goes_over_to_the_next_authority_without_a_missed_renewal() {
    let mut cluster = Cluster::with(17, &["PODGRES_FAILSAFE=off"]);
    let mut proxy = Proxy::before(&mut cluster);
    let (members, p) = cluster.members(1);
    let leader = &members[p];
    let load = Load::start(&cluster, leader);
    let (former, next) = (cluster.server.2.clone(), proxy.next_certificate());
    leader.exchange("ca.crt", &format!("{former}{next}"));
    // The file is read once a minute, when a connection is made. The kubelet exchanges it with as little hurry.
    let reads = Duration::from_secs(70);
    cluster.never(reads, "it was fenced", || !leader.is_writable());
    // What connections there are end with it.
    proxy.rules("");
    cluster.wait("renewals by the next authority", || (renewals(&proxy).len() > 1).then_some(()));
    cluster.never(TURN, "it was fenced", || !leader.is_writable());
    let codes: BTreeSet<_> = renewals(&proxy).iter().map(|r| r.rsplit(' ').next().map(str::to_string)).collect();
    assert_eq!(codes, [Some("200".to_string())].into());
    load.finish(&cluster, leader).nothing_lost();
}
