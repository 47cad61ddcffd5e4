//! The whole of it, with a real kubelet: what `podgres manifest` prints, applied with kubectl.

use std::{
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    api::{self, Api, COORDINATION, CORE},
    client,
    harness::*,
    load::{self, Addresses, Load},
};

/// A pod has to be scheduled, its volume to be made and its image to be unpacked, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

const NAME: &str = "db";

/// A cluster of pods in a namespace of its own.
struct Pods {
    api: Api,
    namespace: String,
    addresses: Addresses,
}

/// One of them, as the API shows it now.
#[derive(Clone, Debug, PartialEq)]
struct Pod {
    name: String,
    uid: String,
    address: Ipv4Addr,
    role: Option<String>,
    ready: bool,
}

impl Pods {
    /// Applies the manifest of so many members and waits until all but the primary stream.
    fn apply(replicas: usize) -> Self {
        api::up(true);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis();
        let namespace = format!("podgres-node-{}-{now}", std::process::id());
        let pods = Self { api: Api::admin(), namespace, addresses: Addresses::default() };
        pods.api.create(&format!("{CORE}/namespaces"), &json!({"metadata": {"name": pods.namespace}}));
        let password = Files::new(&[("password", 0o644, client::PASSWORD)]);
        let (image, file) = (image(17), password.at("/etc/podgres-test"));
        // Several clusters have to find room on this machine at once.
        let arguments = format!(
            "run --rm -v {file} {image} podgres manifest --name {NAME} --namespace {} --replicas {replicas} --image {image} \
             --storage 1Gi --cpu 50m --memory 512Mi --kubernetes 1.20 --password-file /etc/podgres-test/password",
            pods.namespace
        );
        let printed = docker_ok(&arguments.split_whitespace().collect::<Vec<_>>());
        let objects = kubectl_with(&["create", "--dry-run=client", "--output=json", "--filename=-"], &printed);
        pods.kubectl_with(&["apply", "--filename=-"], &owned(&stdout(&objects)));
        pods.settle(replicas);
        pods
    }

    /// `kubectl` in the namespace; it must succeed.
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with(arguments, "")
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> String {
        let output = kubectl_with(&[&["--namespace", &self.namespace], arguments].concat(), input);
        assert!(output.status.success(), "kubectl {arguments:?}: {}\n{}", stderr(&output), self.report());
        stdout(&output)
    }

    /// The pods that have an address. New ones are made known to the load.
    fn pods(&self) -> Vec<Pod> {
        let list = self.api.get(&format!("{CORE}/namespaces/{}/pods", self.namespace)).expect("pods can be listed");
        let pods: Vec<Pod> = list["items"].as_array().into_iter().flatten().filter_map(pod).collect();
        let mut addresses = self.addresses.lock().expect("nobody panics with it");
        for pod in &pods {
            let known = (pod.name.clone(), pod.address);
            if !addresses.contains(&known) {
                addresses.push(known);
            }
        }
        pods
    }

    fn wait<T>(&self, what: &str, mut condition: impl FnMut(&[Pod]) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(value) = condition(&self.pods()) {
                return value;
            }
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}\n{}", self.report());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for so many ready pods, one of them primary by label, Lease, its own word and `-rw`, from which all others
    /// stream, which are what `-ro` has.
    fn settle(&self, replicas: usize) -> Pod {
        let primary = self.wait(&format!("{replicas} ready members and one primary"), |pods| {
            let mut primaries = pods.iter().filter(|p| p.role.as_deref() == Some("primary"));
            let (primary, none) = (primaries.next()?, primaries.next().is_none());
            let all = pods.len() == replicas && pods.iter().all(|p| p.ready && p.role.is_some());
            (none && all && self.holder() == primary.name && sql(primary, "select pg_is_in_recovery()") == "f")
                .then(|| primary.clone())
        });
        let streaming = (replicas - 1).to_string();
        self.wait("all others to stream", |_| {
            (sql(&primary, "select count(*) from pg_stat_replication where state = 'streaming'") == streaming)
                .then_some(())
        });
        self.wait("the services to have them", |pods| {
            let of = |role: &str| {
                let with = pods.iter().filter(|p| p.role.as_deref() == Some(role));
                let mut addresses: Vec<_> = with.map(|p| p.address.to_string()).collect();
                addresses.sort();
                addresses
            };
            (self.endpoints("rw") == of("primary") && self.endpoints("ro") == of("replica")).then_some(())
        });
        primary
    }

    fn holder(&self) -> String {
        let lease = self.api.get(&format!("{COORDINATION}/namespaces/{}/leases/{NAME}", self.namespace));
        lease.unwrap_or_default()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_string()
    }

    /// The addresses behind a service.
    fn endpoints(&self, service: &str) -> Vec<String> {
        let path = format!("{CORE}/namespaces/{}/endpoints/{NAME}-{service}", self.namespace);
        let endpoints = self.api.get(&path).unwrap_or_default();
        let subsets = endpoints["subsets"].as_array().into_iter().flatten();
        let each = subsets.flat_map(|s| s["addresses"].as_array().into_iter().flatten());
        let mut addresses: Vec<_> = each.filter_map(|a| a["ip"].as_str().map(str::to_string)).collect();
        addresses.sort();
        addresses
    }

    fn load(&self, primary: &Pod) -> Load {
        client::sql(primary.address, "create table load (id bigint primary key)").expect("a table");
        let identity = sql(primary, "select system_identifier from pg_control_system()");
        let load = Load::of(self.addresses.clone(), Some(identity));
        self.wait("the first write", |_| (!load.writes().is_empty()).then_some(()));
        load
    }

    /// Waits for another primary, or another pod of the same name.
    fn replaced(&self, former: &Pod, replicas: usize) -> Pod {
        self.wait(&format!("a primary other than {former:?}"), |pods| {
            let primary = pods.iter().find(|p| p.role.as_deref() == Some("primary"))?;
            (primary.uid != former.uid && sql(primary, "select pg_is_in_recovery()") == "f").then_some(())
        });
        self.settle(replicas)
    }

    /// Ends a load: no two writers; the confirmed rows that the primary has not, and the longest gap.
    fn finish(&self, mut load: Load, primary: &Pod) -> (Vec<i64>, Duration) {
        let from = load.writes().len();
        self.wait("one more write", |_| (load.writes().len() > from).then_some(()));
        load.end();
        let writes = load.writes();
        assert_eq!(load::double(&writes, Duration::ZERO), None, "{}", self.report());
        let there = client::sql(primary.address, "select id from load").expect("the rows");
        let there: std::collections::HashSet<i64> = there.lines().map(|id| id.parse().expect("a number")).collect();
        let gap = load::longest_gap(writes[0].confirmed, &writes);
        eprintln!("longest time without an accepted write: {gap:?}");
        (writes.iter().map(|w| w.id).filter(|id| !there.contains(id)).collect(), gap)
    }

    /// The docker container of a pod's `postgres`.
    fn container(&self, pod: &Pod) -> String {
        let object = self.api.get(&format!("{CORE}/namespaces/{}/pods/{}", self.namespace, pod.name)).expect("the pod");
        let id = object["status"]["containerStatuses"][0]["containerID"].as_str().expect("a container");
        id.trim_start_matches("docker://").to_string()
    }

    fn report(&self) -> String {
        let ask = |arguments: &[&str]| {
            let output = kubectl_with(&[&["--namespace", &self.namespace], arguments].concat(), "");
            stdout(&output) + &stderr(&output)
        };
        let mut text = ask(&["get", "pods,services,endpoints,leases,events", "--output=wide"]);
        text += &ask(&["get", "leases", "--output=yaml"]);
        for pod in self.pods() {
            text += &format!("--- {}\n{}\n", pod.name, ask(&["logs", "--tail=60", &pod.name]));
        }
        text
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
        self.api.delete(&format!("{CORE}/namespaces/{}", self.namespace), 0);
    }
}

fn pod(object: &Value) -> Option<Pod> {
    let text = |v: &Value| v.as_str().map(str::to_string);
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    Some(Pod {
        name: text(&object["metadata"]["name"])?,
        uid: text(&object["metadata"]["uid"])?,
        address: object["status"]["podIP"].as_str()?.parse().ok()?,
        role: text(&object["metadata"]["labels"]["podgres.io/role"]),
        ready: conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True"),
    })
}

/// A pod's answer, or nothing.
fn sql(pod: &Pod, sql: &str) -> String {
    client::sql(pod.address, sql).unwrap_or_default()
}

#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn kubectl_with(arguments: &[&str], input: &str) -> Output {
    let found = api::up(false);
    let program = found.commands.as_ref().map_or_else(|| "kubectl".into(), |directory| directory.join("kubectl"));
    let mut command = Command::new("timeout");
    command.args(["--verbose", "--kill-after=5", "200"]).arg(program).args(arguments);
    command.env("KUBECONFIG", &found.kubeconfig);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl can be executed");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("kubectl reads");
    child.wait_with_output().expect("kubectl ends")
}

/// The objects, with an init container that gives the volume to podgres: here `fsGroup` does nothing for volumes.
fn owned(objects: &str) -> String {
    let mut text = String::new();
    for document in serde_json::Deserializer::from_str(objects).into_iter::<Value>() {
        let mut object = document.expect("JSON of kubectl");
        if object["kind"] == "List" {
            for item in object["items"].as_array_mut().into_iter().flatten() {
                text += &owned(&item.to_string());
            }
            continue;
        }
        if object["kind"] == "StatefulSet" {
            let pod = &mut object["spec"]["template"]["spec"];
            let image = pod["containers"][0]["image"].clone();
            pod["initContainers"] = json!([{
                "name": "owner", "image": image, "command": ["chown", "999:999", "/var/lib/postgresql"],
                "securityContext": {"runAsUser": 0, "runAsNonRoot": false},
                "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql"}]
            }]);
        }
        text += &format!("---\n{object}\n");
    }
    text
}

#[test]
fn one_apply_makes_three_streaming_members_that_hand_over_when_one_is_annotated() {
    let pods = Pods::apply(3);
    let primary = pods.settle(3);
    let load = pods.load(&primary);
    let next = pods.pods().into_iter().find(|p| p.name != primary.name).expect("a standby");
    pods.kubectl(&["annotate", "pod", &next.name, "podgres.io/promote=please"]);
    let after = pods.replaced(&primary, 3);
    assert_eq!(after.name, next.name);
    let (lost, gap) = pods.finish(load, &after);
    assert_eq!((lost, gap < Duration::from_secs(4)), (vec![], true), "{gap:?}");
    let events = pods.kubectl(&["get", "events"]);
    assert!(events.lines().any(|l| l.contains(" ms") && l.contains(&next.name)), "{events}");

    // Up, down and up again.
    for replicas in [4, 2, 3] {
        pods.kubectl(&["scale", "statefulset", NAME, &format!("--replicas={replicas}")]);
        let primary = pods.settle(replicas);
        assert_eq!(sql(&primary, "select count(*) > 0 from load"), "t");
    }
}

/// What the manifest mounts, as the API server and the kubelet make it: here an init container is added, as people add them.
#[test]
fn the_token_is_in_podgres_container_and_in_no_other_of_the_pod() {
    const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let pods = Pods::apply(1);
    let name = pods.settle(1).name;
    let spec =
        pods.api.get(&format!("{CORE}/namespaces/{}/pods/{name}", pods.namespace)).expect("the pod")["spec"].clone();
    let has_token = |container: &Value| {
        container["volumeMounts"].as_array().into_iter().flatten().any(|mount| mount["mountPath"] == ACCOUNT)
    };
    assert_eq!(spec["initContainers"].as_array().map(|all| all.iter().any(has_token)), Some(false), "{spec}");
    assert!(has_token(&spec["containers"][0]), "{spec}");
    let mode =
        pods.kubectl(&["exec", &name, "--", "stat", "--dereference", "--format=%a", &format!("{ACCOUNT}/token")]);
    assert!(["600", "640"].contains(&mode.trim()), "{mode}");
    let check = pods.kubectl(&["exec", &name, "--", "podgres", "check"]);
    assert!(check.contains("ok    token: ") && check.contains("ok    service account: may nothing else"), "{check}");
}

#[test]
fn a_primary_whose_pod_is_deleted_hands_over_and_comes_back_as_a_standby() {
    let pods = Pods::apply(3);
    let primary = pods.settle(3);
    let load = pods.load(&primary);
    pods.kubectl(&["delete", "pod", "--wait=false", &primary.name]);
    let after = pods.replaced(&primary, 3);
    assert_ne!(after.name, primary.name);
    // By force: the container may live for a while.
    pods.kubectl(&["delete", "pod", "--force", "--grace-period=0", "--wait=false", &after.name]);
    let last = pods.replaced(&after, 3);
    let (lost, gap) = pods.finish(load, &last);
    // What was on its way to the standbys when the container was killed.
    assert!(lost.len() <= 50, "{lost:?}");
    assert!(gap < Duration::from_secs(15), "{gap:?}");
}

#[test]
fn a_primary_whose_container_is_killed_is_primary_again_within_moments() {
    let pods = Pods::apply(3);
    let primary = pods.settle(3);
    let load = pods.load(&primary);
    docker_ok(&["kill", "--signal", "KILL", &pods.container(&primary)]);
    let from = load.writes().len();
    pods.wait("writes again", |_| (load.writes().len() > from + 10).then_some(()));
    let after = pods.settle(3);
    assert_eq!(after.uid, primary.uid, "a restart in place loses nothing");
    let (lost, gap) = pods.finish(load, &after);
    assert_eq!((lost, gap < Duration::from_secs(8)), (vec![], true), "{gap:?}");
}

#[test]
fn a_primary_that_dies_while_its_kubelet_hangs_is_replaced_when_its_lease_has_run_out() {
    let pods = Pods::apply(3);
    let primary = pods.settle(3);
    let load = pods.load(&primary);
    let container = pods.container(&primary);
    let kubelet = Frozen::kubelet();
    docker_ok(&["kill", "--signal", "KILL", &container]);
    pods.wait("another primary", |now| {
        let others = now.iter().filter(|p| p.uid != primary.uid);
        others.clone().any(|p| sql(p, "select pg_is_in_recovery()") == "f").then_some(())
    });
    let from = load.writes().len();
    pods.wait("writes again", |_| (load.writes().len() > from + 10).then_some(()));
    drop(kubelet);
    let after = pods.settle(3);
    assert_ne!(after.uid, primary.uid);
    let (lost, gap) = pods.finish(load, &after);
    assert!(lost.len() <= 50, "{lost:?}");
    assert!(gap < Duration::from_secs(15), "{gap:?}");
}

/// A process that does not run until this is dropped.
struct Frozen(String);

impl Frozen {
    fn kubelet() -> Self {
        let state = api::up(true).kubeconfig.parent().expect("a directory").to_path_buf();
        let pid = std::fs::read_to_string(state.join("pid/kubelet")).expect("a kubelet of tests/cluster");
        let frozen = Self(pid.split_whitespace().next().expect("a process id").to_string());
        frozen.signal("STOP");
        frozen
    }

    #[allow(clippy::disallowed_methods, reason = "not PID 1")]
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.0]).status();
        assert!(sent.expect("kill can be executed").success(), "kill -{signal} {}", self.0);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

#[test]
fn a_rolling_restart_loses_no_confirmed_row() {
    let pods = Pods::apply(3);
    let primary = pods.settle(3);
    let load = pods.load(&primary);
    let before: Vec<_> = pods.pods().into_iter().map(|p| p.uid).collect();
    pods.kubectl(&["rollout", "restart", "statefulset", NAME]);
    pods.wait("three new pods", |now| {
        (now.len() == 3 && now.iter().all(|p| p.ready && !before.contains(&p.uid))).then_some(())
    });
    let last = pods.settle(3);
    let (lost, gap) = pods.finish(load, &last);
    assert_eq!((lost, gap < Duration::from_secs(4)), (vec![], true), "{gap:?}");
}
