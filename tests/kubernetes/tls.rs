//! Clusters whose members have certificates.

use serde_json::json;

use crate::{cluster::Cluster, harness::*, load::Load, made::Ca, member::Member};

fn certificate(ca: &Ca, until: i32) -> Files {
    let files = Files::new(&[]);
    ca.issue(files.path(), until);
    files
}

/// docker's options for a member with this certificate.
fn with(certificate: &Files, settings: &[&str]) -> Vec<String> {
    let settings = settings.iter().flat_map(|s| ["-e".to_string(), (*s).to_string()]);
    let mount = ["-v".to_string(), certificate.at("/certs:ro"), "-e".into(), "PODGRES_TLS_DIR=/certs".into()];
    mount.into_iter().chain(settings).collect()
}

fn streams_by_tls(primary: &Member<'_>) -> bool {
    primary.query("select bool_and(ssl) from pg_stat_ssl join pg_stat_replication using (pid)") == "t"
}

#[test]
fn with_nothing_but_tls_members_vote_hand_over_and_fail_over() {
    let files = certificate(&Ca::new("one"), 2040);
    let mut cluster = Cluster::with(17, &["PODGRES_SYNC=1", "PODGRES_LEASE_DURATION=8s", "PODGRES_RENEW_INTERVAL=1s"]);
    cluster.options.extend(with(&files, &["PODGRES_TLS_ONLY=true", "PODGRES_CLIENT_CA=/certs/ca.crt"]));
    let (mut members, p) = cluster.members(3);
    assert!(streams_by_tls(&members[p]));
    let conninfo = members[(p + 1) % 3].query("show primary_conninfo");
    assert!(conninfo.contains("sslmode='verify-ca'"), "{conninfo}");
    members[p].query("create table t (n int); insert into t values (1)");

    let to = (p + 1) % 3;
    members[to].annotate("promote", json!("please"));
    cluster.wait(&format!("db-{to} to be primary"), || members[to].is_writable().then_some(()));
    assert_eq!(cluster.settle(&members).n, to);
    assert!(streams_by_tls(&members[to]));

    // Its rows are elected by votes.
    members[to].query("insert into t values (2)");
    members[to].kill();
    let next = cluster.primary_other_than(to, &members).n;
    assert_eq!(members[next].query("select count(*) from t"), "2");
    members[to].recreate();
    assert_eq!(cluster.settle(&members).n, next);
    assert!(streams_by_tls(&members[next]));
}

#[test]
fn members_are_given_certificates_one_after_the_other_and_then_nothing_else_is_allowed() {
    let files = certificate(&Ca::new("one"), 2040);
    let cluster = Cluster::new(15);
    let (mut members, mut p) = cluster.members(3);
    for settings in [&[][..], &["PODGRES_TLS_ONLY=true"]] {
        // As a StatefulSet does it: from the last to the first, each when the one before it is ready.
        for n in (0..3).rev() {
            members[n].set_options(&with(&files, settings));
            if n == p {
                members[n].container.signal("TERM");
                p = cluster.primary_other_than(n, &members).n;
                members[n].container.wait();
            }
            members[n].recreate();
            assert_eq!(cluster.settle(&members).n, p);
        }
        // Between the two steps clients without TLS are served.
        if settings.is_empty() {
            Load::start(&cluster, &members[p]).finish(&cluster, &members[p]).nothing_lost();
        }
        assert!(streams_by_tls(&members[p]));
    }
    assert_eq!(crate::client::request(members[p].address(), PATIENCE, "GET /member HTTP/1.0\r\n\r\n").0, 400);
}

#[test]
fn a_certificate_that_ends_soon_is_an_event() {
    let files = certificate(&Ca::new("one"), 2026);
    let mut cluster = Cluster::new(15);
    cluster.options.extend(with(&files, &[]));
    let member = cluster.member(0);
    cluster.primary(std::slice::from_ref(&member));
    cluster.wait_for_event(&["Warning", "CertificateExpires", "db-0", "2026-01-01"]);
}
