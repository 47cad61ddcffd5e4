//! The Pod Security Standard "restricted", control by control, as the page below has it: API servers older than 1.23 cannot
//! be asked. <https://kubernetes.io/docs/concepts/security/pod-security-standards/>

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::tests::stateful_set;

/// The volumes that it allows.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// The sysctls that it allows, which are of the container's own namespaces.
const SYSCTLS: [&str; 9] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

/// The controls that a pod's template fails, by their names on that page.
fn failed(template: &Value) -> BTreeSet<&'static str> {
    let spec = &template["spec"];
    let containers: Vec<_> =
        ["containers", "initContainers", "ephemeralContainers"].iter().flat_map(|kind| list(&spec[kind])).collect();
    assert!(!containers.is_empty());
    let mut held = of_pod(template);
    held.extend(of_context(&spec["securityContext"]));
    for container in containers {
        held.extend(of_context(&container["securityContext"]));
        held.extend(of_container(container, &spec["securityContext"]));
    }
    held.into_iter().filter(|(_, holds)| !holds).map(|(control, _)| control).collect()
}

/// Controls, and whether they hold.
type Controls = Vec<(&'static str, bool)>;

/// What is said once in a pod.
fn of_pod(template: &Value) -> Controls {
    let spec = &template["spec"];
    let mut volumes = list(&spec["volumes"]).flat_map(|volume| volume.as_object().into_iter().flatten());
    let sysctls = &spec["securityContext"]["sysctls"];
    let beta = |(name, profile): (&String, &Value)| {
        !name.starts_with("container.apparmor.security.beta.kubernetes.io/")
            || profile == "runtime/default"
            || profile.as_str().is_some_and(|p| p.starts_with("localhost/"))
    };
    vec![
        (
            "Host Namespaces",
            ["hostNetwork", "hostPID", "hostIPC"].iter().all(|of| unset_or(&spec[of], &[json!(false)])),
        ),
        ("HostPath Volumes", list(&spec["volumes"]).all(|volume| volume["hostPath"].is_null())),
        ("Volume Types", volumes.all(|(kind, _)| kind == "name" || VOLUMES.contains(&kind.as_str()))),
        ("AppArmor", template["metadata"]["annotations"].as_object().into_iter().flatten().all(beta)),
        ("Sysctls", list(sysctls).all(|sysctl| SYSCTLS.iter().any(|safe| sysctl["name"] == *safe))),
    ]
}

/// What a pod's security context and a container's have in common.
fn of_context(context: &Value) -> Controls {
    let types = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"].map(Value::from);
    let selinux = &context["seLinuxOptions"];
    let nobody = |of: &str| unset_or(&selinux[of], &[json!("")]);
    let profiles = ["RuntimeDefault", "Localhost"].map(Value::from);
    vec![
        ("HostProcess", unset_or(&context["windowsOptions"]["hostProcess"], &[json!(false)])),
        ("AppArmor", unset_or(&context["appArmorProfile"]["type"], &profiles)),
        ("SELinux", unset_or(&selinux["type"], &types) && nobody("user") && nobody("role")),
        ("Seccomp", unset_or(&context["seccompProfile"]["type"], &profiles)),
        ("Running as Non-root user", context["runAsUser"] != 0),
    ]
}

/// What is a container's own; `pod` is the pod's security context, of which it inherits what it does not say.
fn of_container(container: &Value, pod: &Value) -> Controls {
    let context = &container["securityContext"];
    let inherited = |of: &str| if context[of].is_null() { &pod[of] } else { &context[of] };
    let capabilities = &context["capabilities"];
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
    let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
    let hosts = |action: &Value| ["httpGet", "tcpSocket"].iter().all(|of| unset_or(&action[of]["host"], &[json!("")]));
    vec![
        ("Privileged Containers", unset_or(&context["privileged"], &[json!(false)])),
        ("Host Ports", list(&container["ports"]).all(|port| unset_or(&port["hostPort"], &[json!(0)]))),
        ("Host Probes / Lifecycle Hooks", probes.into_iter().chain(hooks).all(hosts)),
        ("/proc Mount Type", unset_or(&context["procMount"], &[json!("Default")])),
        ("Privilege Escalation", context["allowPrivilegeEscalation"] == false),
        ("Running as Non-root", *inherited("runAsNonRoot") == true),
        ("Seccomp", !inherited("seccompProfile").is_null()),
        ("Capabilities", list(&capabilities["drop"]).any(|dropped| dropped == "ALL")),
        ("Capabilities", list(&capabilities["add"]).all(|added| added == "NET_BIND_SERVICE")),
    ]
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn unset_or(value: &Value, allowed: &[Value]) -> bool {
    value.is_null() || allowed.contains(value)
}

fn template() -> Value {
    serde_json::to_value(stateful_set(&[]).spec.unwrap().template).unwrap()
}

#[test]
fn the_pods_fit_the_restricted_standard() {
    assert_eq!(failed(&template()), BTreeSet::new());
}

/// What it does not ask for: nothing can be left behind in the image's file system, and one user in every member.
#[test]
fn the_pods_are_stricter_than_restricted() {
    let spec = &template()["spec"];
    assert_eq!(spec["securityContext"]["runAsUser"], 999);
    assert!(list(&spec["containers"]).all(|c| c["securityContext"]["readOnlyRootFilesystem"] == true));
    assert_eq!(spec["shareProcessNamespace"], Value::Null);
}

/// That the test above sees each control: of a pod that fails one, that one.
#[test]
fn each_control_of_the_restricted_standard_is_looked_at() {
    let (pod, container) = ("/spec", "/spec/containers/0");
    let (pods, containers) = ("/spec/securityContext", "/spec/containers/0/securityContext");
    let table = [
        ("HostProcess", pods, json!({"windowsOptions": {"hostProcess": true}})),
        ("HostProcess", containers, json!({"windowsOptions": {"hostProcess": true}})),
        ("Host Namespaces", pod, json!({"hostNetwork": true})),
        ("Host Namespaces", pod, json!({"hostPID": true})),
        ("Host Namespaces", pod, json!({"hostIPC": true})),
        ("Privileged Containers", containers, json!({"privileged": true})),
        ("Capabilities", containers, json!({"capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}})),
        ("Capabilities", containers, json!({"capabilities": {"drop": ["KILL"]}})),
        ("Capabilities", containers, json!({"capabilities": null})),
        ("Volume Types", pod, json!({"volumes": [{"name": "x", "nfs": {"server": "x", "path": "/"}}]})),
        ("Host Ports", container, json!({"ports": [{"containerPort": 5432, "hostPort": 5432}]})),
        ("Host Probes / Lifecycle Hooks", container, json!({"livenessProbe": {"httpGet": {"host": "x", "port": 1}}})),
        ("Host Probes / Lifecycle Hooks", container, json!({"lifecycle": {"preStop": {"tcpSocket": {"host": "x"}}}})),
        ("AppArmor", pods, json!({"appArmorProfile": {"type": "Unconfined"}})),
        (
            "AppArmor",
            "/metadata",
            json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/x": "unconfined"}}),
        ),
        ("SELinux", containers, json!({"seLinuxOptions": {"type": "spc_t"}})),
        ("SELinux", pods, json!({"seLinuxOptions": {"user": "system_u"}})),
        ("/proc Mount Type", containers, json!({"procMount": "Unmasked"})),
        ("Seccomp", containers, json!({"seccompProfile": {"type": "Unconfined"}})),
        ("Seccomp", pods, json!({"seccompProfile": null})),
        ("Sysctls", pods, json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})),
        ("Privilege Escalation", containers, json!({"allowPrivilegeEscalation": null})),
        ("Running as Non-root", pods, json!({"runAsNonRoot": null})),
        ("Running as Non-root", containers, json!({"runAsNonRoot": false})),
        ("Running as Non-root user", pods, json!({"runAsUser": 0})),
        ("Running as Non-root user", containers, json!({"runAsUser": 0})),
    ];
    for (control, place, change) in table {
        assert_eq!(failed(&changed(place, &change)), BTreeSet::from([control]), "{place}: {change}");
    }
    let host = json!({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]});
    assert_eq!(failed(&changed(pod, &host)), BTreeSet::from(["HostPath Volumes", "Volume Types"]));
}

/// The template with these fields at `place`.
fn changed(place: &str, fields: &Value) -> Value {
    let mut template = template();
    let object = template.pointer_mut(place).unwrap().as_object_mut().unwrap();
    object.extend(fields.as_object().unwrap().clone());
    template
}
