//! `--tls-secret`.

use super::*;

#[test]
fn without_a_secret_nothing_is_said_of_tls() {
    let text = text(&[]).unwrap();
    assert!(!text.contains("tls") && !text.contains("TLS") && !text.contains("HTTPS"), "{text}");
}

#[test]
fn a_secret_is_mounted_where_podgres_looks_and_probes_come_by_https() {
    let arguments = ["--tls-secret", "db-tls"];
    let (pod, container) = (pod(&arguments), container(&arguments));
    let dir = container.env.unwrap().into_iter().find(|e| e.name == "PODGRES_TLS_DIR").unwrap().value.unwrap();
    let mounts = container.volume_mounts.unwrap().into_iter();
    let [mount] = mounts.filter(|m| m.mount_path == dir).collect::<Vec<_>>().try_into().unwrap();
    let volume = pod.volumes.unwrap().into_iter().find(|v| v.name == mount.name).unwrap();
    assert_eq!(volume.secret.unwrap().secret_name.as_deref(), Some("db-tls"));
    assert_eq!(mount.read_only, Some(true));
    for probe in [container.startup_probe, container.liveness_probe, container.readiness_probe] {
        assert_eq!(probe.unwrap().http_get.unwrap().scheme.as_deref(), Some("HTTPS"));
    }
}

#[test]
fn what_is_no_name_of_a_secret_is_refused() {
    assert!(text(&["--tls-secret", "db tls"]).unwrap_err().contains("the name of a Secret"));
    assert!(text(&["--tls-secret", "db.tls"]).is_ok());
}
