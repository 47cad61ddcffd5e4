//! The harness itself: what it says of podgres counts only if it would say otherwise of something else.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::Method;

use crate::{
    api::{Api, CORE},
    client,
    cluster::Cluster,
    harness::*,
    load::{self, Load},
    member::Member,
    network::{self, BOTH, Direction},
    proxy::Proxy,
};

/// A server without a cluster, with an address of the cluster's network.
fn alone(cluster: &Cluster) -> (Container, std::net::Ipv4Addr) {
    let address = cluster.subnet.address();
    let options = ["--network", &cluster.subnet.name, "--ip", &address.to_string()].map(str::to_string);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let trust = ["-e", "POSTGRES_HOST_AUTH_METHOD=trust", "-e", "PODGRES_MODE=standalone"];
    (Container::postgres(17, &[options.as_slice(), &trust].concat(), &[]), address)
}

#[test]
fn a_double_writer_a_lost_row_and_a_gap_are_found() {
    let cluster = Cluster::new(17);
    let (a, b) = (alone(&cluster), alone(&cluster));
    let addresses = Arc::new(Mutex::new(Vec::new()));
    for (name, (container, address)) in [("a", &a), ("b", &b)] {
        container.wait_ready();
        client::sql(*address, "create table load (id bigint primary key)").unwrap();
        addresses.lock().unwrap().push((name.to_string(), *address));
    }

    let only_a = Arc::new(Mutex::new(vec![addresses.lock().unwrap()[0].clone()]));
    let mut load = Load::of(only_a, None);
    wait_for("a write", || (!load.writes().is_empty()).then_some(()));
    a.0.pause();
    let paused = load.writes().len();
    std::thread::sleep(Duration::from_millis(1500));
    a.0.unpause();
    wait_for("writes after the thaw", || (load.writes().len() > paused + 3).then_some(()));
    load.end();
    let writes = load.writes();
    assert_eq!(load::double(&writes, Duration::ZERO), None);
    assert!(load::longest_gap(writes[0].confirmed, &writes) > Duration::from_millis(1400));

    client::sql(a.1, "truncate load").unwrap();
    let mut load = Load::of(addresses, None);
    wait_for("writes on both", || {
        let of = |name: &str| load.writes().iter().filter(|w| w.member.starts_with(name)).count();
        (of("a") > 2 && of("b") > 2).then_some(())
    });
    load.end();
    assert!(load::double(&load.writes(), Duration::ZERO).is_some());
}

#[test]
fn a_token_is_its_pods_and_a_cut_is_of_one_direction() {
    let cluster = Cluster::new(17);
    let (a, b) = (Member::new(&cluster, 0), Member::new(&cluster, 1));
    let account = Api::with_token(&a.token());
    // Allowed, whether or not the members have made it by now.
    assert!(account.get(&cluster.lease_path()).err().is_none_or(|e| e.0 == 404));
    let pods = format!("{CORE}/namespaces/{}/pods", cluster.namespace);
    assert!(account.get(&pods).is_ok());
    let secrets = format!("{CORE}/namespaces/{}/secrets", cluster.namespace);
    assert_eq!(account.get(&secrets).unwrap_err().0, 403);
    assert_eq!(account.call(Method::DELETE, &b.path(), None).unwrap_err().0, 403);

    // A listener each, with nothing of podgres.
    let idle = |m: &Member<'_>| m.container.inspect("{{.State.Running}}");
    assert_eq!((idle(&a), idle(&b)), ("true".into(), "true".into()), "{}", a.container.log());
    let reaches = |from: &Container, host: &str, port: &str| {
        from.exec(&["timeout", "2", "bash", "-c", &format!("</dev/tcp/{host}/{port}")]).status.success()
    };
    let api = |from: &Container| reaches(from, &cluster.server.0, &cluster.server.1);
    let other = b.address().to_string();
    wait_for("b to listen", || reaches(&a.container, &other, "8008").then_some(()));
    assert!(api(&a.container) && a.http("/livez") == 200);
    for cut in [&[Direction::In][..], &[Direction::Out], &BOTH] {
        a.cut_api(cut);
        assert!(!api(&a.container) && reaches(&a.container, &other, "8008"), "{cut:?}");
        a.heal();
        a.cut_member(&b, cut);
        assert!(api(&a.container) && !reaches(&a.container, &other, "8008"), "{cut:?}");
        assert_eq!(a.http("/livez"), 200, "the test itself is not cut off");
        network::heal(&a.container);
    }
    assert!(api(&a.container) && reaches(&a.container, &other, "8008"));

    // Deleted, the object stays until its kubelet lets go of it; the token does not outlive it for long.
    a.delete();
    assert!(a.object()["metadata"]["deletionTimestamp"].is_string());
    a.forget();
    assert!(a.object().is_null());
    wait_for("the token to be refused", || (account.get(&pods).err()?.0 == 401).then_some(()));
}

#[test]
fn a_proxy_counts_requests_and_spoils_answers() {
    let mut cluster = Cluster::new(17);
    let mut proxy = Proxy::before(&mut cluster);
    let member = cluster.member(0);
    let account = member.api();
    // Allowed, whether or not the members have made it by now.
    assert!(account.get(&cluster.lease_path()).err().is_none_or(|e| e.0 == 404));
    let mine = |r: &&String| r.ends_with(&format!(" GET {} 404", cluster.lease_path()));
    wait_for("the request in the log", || (proxy.requests().iter().filter(mine).count() >= 1).then_some(()));
    proxy.rules("  http-request return status 429");
    assert_eq!(account.get(&cluster.lease_path()).unwrap_err().0, 429);
}
