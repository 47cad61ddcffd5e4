//! How much members ask of the API server, and what they make of its bad answers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{cluster::Cluster, load::Load, proxy::Proxy};

/// What an idle cluster of three may ask in a minute, all members together.
const BUDGET: usize = 40;

#[test]
fn an_idle_cluster_of_three_asks_little() {
    let mut cluster = Cluster::new(17);
    let proxy = Proxy::before(&mut cluster);
    let (_members, _) = cluster.members(3);
    // Until a second passes in which nobody but the leader renews.
    let mut before = proxy.requests().len();
    cluster.wait("the cluster to be idle", || {
        std::thread::sleep(Duration::from_secs(2));
        let now = proxy.requests().len();
        let asked = now - std::mem::replace(&mut before, now);
        (asked <= 2).then_some(())
    });
    let (from, begun) = (proxy.requests().len(), Instant::now());
    while begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(500));
    }
    let requests = proxy.requests();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for request in &requests[from..] {
        *kinds.entry(request.as_str()).or_default() += 1;
    }
    let count = 2 * (requests.len() - from);
    eprintln!("{count} requests a minute");
    // Fewer than the renewals cannot be: then they would not have been counted.
    assert!((20..=BUDGET).contains(&count), "{count} requests a minute, in half of one: {kinds:#?}");
}

#[test]
fn bad_answers_of_the_api_move_nobody() {
    let mut cluster = Cluster::new(17);
    let mut proxy = Proxy::before(&mut cluster);
    let (members, p) = cluster.members(2);
    let load = Load::start(&cluster, &members[p]);
    let status = |code: u16, reason: &str| {
        format!(
            "http-request return status {code} content-type application/json string \
             '{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"reason\":\"{reason}\",\"code\":{code}}}'"
        )
    };
    // Of watches all or most are too old, of all else a quarter fails, in three ways. Connections are broken off too.
    let rules = |watches: &str| {
        format!(
            "  {} if {{ urlp(watch) -m found }} {watches}\n  {} if {{ rand(12) eq 0 }}\n  {} if {{ rand(12) eq 0 }}\n  \
             http-request return status 503 if {{ rand(12) eq 0 }}",
            status(410, "Expired"),
            status(500, "InternalError"),
            status(429, "TooManyRequests"),
        )
    };
    proxy.rules(&rules(""));
    let term = cluster.term();
    cluster.never(Duration::from_secs(15), "office changed hands", || cluster.term() != term);
    // Which of them comes up is a matter of chance, and of asking often enough.
    let answered = |code: &str| proxy.requests().iter().any(|r| r.ends_with(code));
    cluster.wait("each kind of bad answer", || (answered(" 410") && answered(" 500")).then_some(()));
    proxy.rules(&rules("{ rand(6) ne 0 }"));
    cluster.never(Duration::from_secs(15), "office changed hands", || cluster.term() != term);
    assert_eq!(cluster.term(), term);
    // What somebody asks for is done all the same.
    members[1 - p].annotate("promote", json!("please"));
    let next = cluster.primary_other_than(p, &members).n;
    assert_eq!(cluster.settle(&members).n, next);
    load.finish(&cluster, &members[next]).nothing_lost();
}

#[test]
fn a_renewed_token_is_used() {
    let mut cluster = Cluster::new(17);
    let mut proxy = Proxy::before(&mut cluster);
    let (members, p) = cluster.members(1);
    let load = Load::start(&cluster, &members[p]);
    let old = members[p].token();
    members[p].renew_token();
    let signature = old.rsplit('.').next().expect("a JWT").to_string();
    proxy.rules(&format!("  http-request return status 401 if {{ req.hdr(authorization) -m end {signature} }}"));
    cluster.never(Duration::from_secs(15), "it was fenced", || !members[p].is_writable());
    assert!(!proxy.requests().is_empty());
    load.finish(&cluster, &members[p]).nothing_lost();
}
