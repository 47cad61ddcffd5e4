use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Container, PodSpec, Probe, Secret, Service, ServiceAccount, VolumeProjection},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::kubernetes::RIGHTS,
    settings::{
        Settings,
        kubernetes::{POD_VARIABLES, TOKEN},
    },
};

mod network;
mod tls;

fn text(arguments: &[&str]) -> Result<String, String> {
    let all = [&["manifest"], arguments].concat();
    print(&command().try_get_matches_from(all).map_err(|e| e.to_string())?)
}

fn objects(arguments: &[&str]) -> Vec<Value> {
    let text = text(arguments).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The object of this kind and name, as what Kubernetes takes it for.
fn object<T: DeserializeOwned>(arguments: &[&str], kind: &str, name: &str) -> T {
    let fits = |o: &Value| o["kind"] == kind && o["metadata"]["name"] == name;
    let found = objects(arguments).into_iter().find(fits).unwrap_or_else(|| panic!("no {kind} {name}"));
    serde_json::from_value(found).unwrap()
}

pub(super) fn stateful_set(arguments: &[&str]) -> StatefulSet {
    object(arguments, "StatefulSet", "db")
}

fn pod(arguments: &[&str]) -> PodSpec {
    stateful_set(arguments).spec.unwrap().template.spec.unwrap()
}

fn container(arguments: &[&str]) -> Container {
    pod(arguments).containers.remove(0)
}

#[test]
fn the_objects_of_a_cluster() {
    let named = |o: &Value| format!("{} {}", o["kind"], o["metadata"]["name"]).replace('"', "");
    let found: Vec<_> = objects(&["--name", "x"]).iter().map(named).collect();
    let expected = [
        "ServiceAccount x",
        "Role x",
        "RoleBinding x",
        "Service x-rw",
        "Service x-ro",
        "Service x",
        "StatefulSet x",
        "PodDisruptionBudget x",
        "NetworkPolicy x",
    ];
    assert_eq!(found, expected);
}

#[test]
fn every_object_has_the_namespace_and_the_label() {
    for object in objects(&["--name", "x", "--namespace", "prod"]) {
        let metadata = &object["metadata"];
        assert_eq!(metadata["namespace"], "prod", "{object}");
        assert_eq!(metadata["labels"], json!({"podgres.io/cluster": "x"}), "{object}");
    }
    let binding: RoleBinding = object(&["--name", "x", "--namespace", "prod"], "RoleBinding", "x");
    let subject = binding.subjects.unwrap().remove(0);
    assert_eq!((subject.name.as_str(), subject.namespace.as_deref()), ("x", Some("prod")));
    assert_eq!(binding.role_ref.name, "x");
}

#[test]
fn the_output_depends_on_the_flags_alone_and_leaves_no_place_unfilled() {
    assert_eq!(text(&[]).unwrap(), text(&[]).unwrap());
    for arguments in [&[][..], &["--storage-class", "fast", "--kubernetes", "1.20"]] {
        let text = text(arguments).unwrap();
        assert!(!text.contains("{{"), "{text}");
    }
}

/// What the code asks for, and not one verb more: `tests/api` shows what each is for, by taking it away.
#[test]
fn the_members_may_do_what_they_do_and_nothing_else() {
    let mut allowed = BTreeSet::new();
    for rule in object::<Role>(&["--name", "x"], "Role", "x").rules.unwrap() {
        assert_eq!(rule.non_resource_urls, None);
        let own = match rule.resource_names.as_deref() {
            None => false,
            Some([name]) => name == "x",
            Some(names) => panic!("{names:?}"),
        };
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.clone().unwrap() {
                let lines = rule.verbs.iter().map(|verb| format!("{verb} {group}/{resource}, its own alone: {own}"));
                allowed.extend(lines);
            }
        }
    }
    let needed = RIGHTS.map(|r| format!("{} {}/{}, its own alone: {}", r.verb, r.group, r.resource, r.own));
    assert_eq!(allowed, needed.into());
}

#[test]
fn services_select_by_role() {
    let selector = |name: &str| {
        let service: Service = object(&[], "Service", name);
        service.spec.unwrap().selector.unwrap().into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()
    };
    assert_eq!(selector("db-rw"), ["podgres.io/cluster=db", "podgres.io/role=primary"]);
    assert_eq!(selector("db-ro"), ["podgres.io/cluster=db", "podgres.io/role=replica"]);
    assert_eq!(selector("db"), ["podgres.io/cluster=db"]);
    let peers = object::<Service>(&[], "Service", "db").spec.unwrap();
    assert_eq!((peers.cluster_ip.as_deref(), peers.publish_not_ready_addresses), (Some("None"), Some(true)));
    assert_eq!(stateful_set(&[]).spec.unwrap().service_name.as_deref(), Some("db"));
}

#[test]
fn the_pods_labels_are_what_everything_selects() {
    let spec = stateful_set(&[]).spec.unwrap();
    let labels = spec.template.metadata.unwrap().labels;
    assert_eq!(labels.as_ref().unwrap()["podgres.io/cluster"], "db");
    assert_eq!(spec.selector.match_labels, labels);
    let budget: PodDisruptionBudget = object(&[], "PodDisruptionBudget", "db");
    assert_eq!(budget.spec.unwrap().selector.unwrap().match_labels, labels);
    let policy: NetworkPolicy = object(&[], "NetworkPolicy", "db");
    assert_eq!(policy.spec.unwrap().pod_selector.unwrap().match_labels, labels);
}

#[test]
fn what_postgresql_writes_to_is_mounted() {
    let paths: Vec<_> = container(&[]).volume_mounts.unwrap().into_iter().map(|m| m.mount_path).collect();
    let expected = ["/var/lib/postgresql", "/etc/podgres", "/run/podgres", "/var/run/postgresql", "/tmp", "/dev/shm"];
    assert_eq!(paths[..expected.len()], expected);
    let memory = |name: &str| {
        let volumes = pod(&[]).volumes.unwrap();
        let volume = volumes.into_iter().find(|v| v.name == name).unwrap();
        volume.empty_dir.unwrap().medium
    };
    assert_eq!(memory("shm").as_deref(), Some("Memory"));
}

/// By nobody else: neither by default, nor in a container that somebody adds.
#[test]
fn the_token_is_mounted_where_podgres_looks_for_it_and_nowhere_else() {
    let account: ServiceAccount = object(&[], "ServiceAccount", "db");
    let pod = pod(&[]);
    assert_eq!(
        (account.automount_service_account_token, pod.automount_service_account_token),
        (Some(false), Some(false))
    );
    let tokens = |sources: Vec<VolumeProjection>| sources.into_iter().find_map(|source| source.service_account_token);
    let volumes = pod.volumes.unwrap().into_iter();
    let with_token = volumes.filter_map(|v| Some((v.name, tokens(v.projected?.sources?)?)));
    let [(volume, token)] = with_token.collect::<Vec<_>>().try_into().unwrap();
    // An hour is also what pods get by default; the kubelet renews it from 80 % on.
    assert_eq!((token.path.as_str(), token.expiration_seconds, token.audience), ("token", Some(3600), None));
    let mounts = container(&[]).volume_mounts.unwrap().into_iter();
    let [mount] = mounts.filter(|mount| mount.name == volume).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((format!("{}/token", mount.mount_path), mount.read_only), (TOKEN.into(), Some(true)));
}

#[test]
fn the_settings_are_ones_that_podgres_takes() {
    let mut found = Vec::new();
    for variable in container(&[]).env.unwrap() {
        let source = variable.value_from.unwrap_or_default();
        let field = source.field_ref.map(|f| f.field_path);
        let value = match (variable.name.as_str(), &field) {
            ("POD_NAME", _) => Some("db-0".into()),
            ("POD_IP", _) => Some("10.0.0.7".into()),
            (_, Some(_)) => Some("x".into()),
            _ => variable.value,
        };
        let fits = POD_VARIABLES.iter().find(|(name, _)| *name == variable.name).map(|(_, field)| field.to_string());
        assert_eq!(field, fits, "{}", variable.name);
        if let Some(secret) = source.secret_key_ref {
            assert_eq!((variable.name.as_str(), secret.name.as_str()), ("POSTGRES_PASSWORD", "db"));
            assert_eq!(secret.key, "password");
        }
        found.extend(value.map(|value| (variable.name, value)));
    }
    let settings = Settings::load(&Default::default(), &found).unwrap();
    assert_eq!(settings.kubernetes.unwrap().identity.cluster, "db");
    let grace = Duration::from_secs(pod(&[]).termination_grace_period_seconds.unwrap().try_into().unwrap());
    assert!(grace >= settings.shutdown_timeout + Duration::from_secs(5), "an immediate shutdown needs a moment too");
}

#[test]
fn probes_are_those_of_the_http_server() {
    let container = container(&[]);
    let ports: Vec<_> = container.ports.unwrap().into_iter().map(|p| (p.name.unwrap(), p.container_port)).collect();
    assert_eq!(ports, [("postgres".into(), 5432), ("http".into(), 8008)]);
    let asked = |probe: Option<Probe>| {
        let get = probe.unwrap().http_get.unwrap();
        (get.path.unwrap(), serde_json::to_value(get.port).unwrap())
    };
    assert_eq!(asked(container.startup_probe), ("/startupz".into(), json!("http")));
    assert_eq!(asked(container.liveness_probe), ("/livez".into(), json!("http")));
    assert_eq!(asked(container.readiness_probe), ("/readyz".into(), json!("http")));
    assert_eq!(container.termination_message_policy.as_deref(), Some("File"));
}

#[test]
fn flags_are_where_they_belong() {
    let given = [
        "--replicas=5",
        "--image=registry.example:5000/podgres@sha256:0123",
        "--storage=1.5Ti",
        "--storage-class=fast.ssd",
        "--memory=4Gi",
        "--cpu=2",
    ];
    let spec = stateful_set(&given).spec.unwrap();
    assert_eq!(spec.replicas, Some(5));
    let claim = spec.volume_claim_templates.unwrap().remove(0).spec.unwrap();
    assert_eq!(claim.storage_class_name.as_deref(), Some("fast.ssd"));
    assert_eq!(claim.resources.unwrap().requests.unwrap()["storage"].0, "1.5Ti");
    let container = container(&given);
    assert_eq!(container.image.as_deref(), Some("registry.example:5000/podgres@sha256:0123"));
    let resources = container.resources.unwrap();
    assert_eq!(resources.limits.unwrap()["memory"].0, "4Gi");
    assert_eq!(resources.requests.unwrap()["cpu"].0, "2");
    let none = stateful_set(&[]).spec.unwrap().volume_claim_templates.unwrap().remove(0).spec.unwrap();
    assert_eq!(none.storage_class_name, None);
}

#[test]
fn the_budget_is_in_the_group_that_the_version_has() {
    let group = |arguments: &[&str]| {
        let all = objects(arguments);
        all.iter().find(|o| o["kind"] == "PodDisruptionBudget").unwrap()["apiVersion"].clone()
    };
    assert_eq!(group(&["--kubernetes", "1.20"]), "policy/v1beta1");
    assert_eq!(group(&["--kubernetes", "v1.20.2"]), "policy/v1beta1");
    assert_eq!(group(&["--kubernetes", "1.33"]), "policy/v1");
    assert_eq!(group(&[]), "policy/v1");
}

#[test]
fn what_looks_like_something_else_stays_a_text() {
    let given = ["--namespace", "2024", "--storage-class", "on", "--image", "1e3"];
    let set = stateful_set(&given);
    assert_eq!(set.metadata.namespace.as_deref(), Some("2024"));
    assert_eq!(set.spec.unwrap().template.spec.unwrap().containers[0].image.as_deref(), Some("1e3"));
}

#[test]
fn a_password_is_printed_only_when_asked_for() {
    assert!(!objects(&[]).iter().any(|o| o["kind"] == "Secret"));
    assert!(
        text(&["--name", "x", "--namespace", "prod"]).unwrap().contains("--namespace prod create secret generic x ")
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let secret = |content: &str| {
        std::fs::write(path, content).unwrap();
        text(&["--password-file", path]).map(|_| {
            let secret: Secret = object(&["--password-file", path], "Secret", "db");
            secret.string_data.unwrap()["password"].clone()
        })
    };
    assert_eq!(secret("hush: \"{{name}}\" #\\ ä'\n").unwrap(), "hush: \"{{name}}\" #\\ ä'");
    for bad in ["", "\n", "a\nb"] {
        let error = secret(bad).unwrap_err();
        assert!(error.contains(path) && !error.contains("a\nb"), "{error}");
    }
    assert!(text(&["--password-file", "/does/not/exist"]).unwrap_err().contains("/does/not/exist"));
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let long = "a".repeat(53);
    let table: &[(&str, &[&str])] = &[
        ("--name", &["", "Db", "db-", "0db", "d_b", "a.b", "a\nb", "on", &long]),
        ("--namespace", &["", "A", "a.b", "-a", "a: b"]),
        ("--replicas", &["0", "-1", "101", "three"]),
        ("--image", &["", "a b", "a: b", "a\nb", "podgres:", "a#b", "{{name}}", "-a"]),
        ("--storage", &["", "10", "0Gi", "10GB", "-1Gi", "Gi", "1e3Gi", ".5Gi", "10 Gi"]),
        ("--storage-class", &["", "A", "a..b", "a_b"]),
        ("--memory", &["", "1G B", "lots"]),
        ("--cpu", &["", "0", "0.0", "0.5m", "many", "-1"]),
        ("--kubernetes", &["", "1", "1.19", "2.0", "new"]),
    ];
    for (flag, values) in table {
        for value in *values {
            let error = text(&[&format!("{flag}={value}")]);
            assert!(error.as_ref().is_err_and(|e| e.contains(flag)), "{flag}={value:?}: {error:?}");
        }
    }
    assert!(text(&["--nmae", "x"]).unwrap_err().contains("--name"));
}

#[test]
fn the_example_is_what_is_printed() {
    let example = include_str!("../../../examples/kubernetes/cluster.yaml");
    assert_eq!(text(&[]).unwrap(), example, "make it anew: podgres manifest > examples/kubernetes/cluster.yaml");
}

#[test]
fn the_kustomization_changes_what_is_there() {
    let text = include_str!("../../../examples/kubernetes/kustomization.yaml");
    let kustomization: Value = serde_saphyr::from_str(text).unwrap();
    let set = serde_json::to_value(stateful_set(&[])).unwrap();
    assert_eq!(kustomization["resources"], json!(["cluster.yaml"]));
    assert_eq!(kustomization["replicas"][0]["name"], "db");
    let image = &kustomization["images"][0];
    let whole = format!("{}:{}", image["name"], image["newTag"]).replace('"', "");
    assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], whole);
    for patch in kustomization["patches"].as_array().unwrap() {
        assert_eq!(patch["target"], json!({"kind": "StatefulSet", "name": "db"}));
        let steps: Value = serde_saphyr::from_str(patch["patch"].as_str().unwrap()).unwrap();
        for step in steps.as_array().unwrap() {
            assert!(set.pointer(step["path"].as_str().unwrap()).is_some(), "{step}");
        }
    }
}
