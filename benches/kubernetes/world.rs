//! A cluster of one manager at the API server: its namespace, its pods as objects, their containers. The benchmark is
//! the kubelet.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use postgres::NoTls;
use serde_json::{Value, json};

use crate::{
    api::{Api, CORE, RBAC},
    common::wait_for,
    harness::{Container, Files, Volume, docker_ok, unique},
    manager::Manager,
    network::Subnet,
};

/// The cluster's name, and the service account's.
pub const NAME: &str = "db";

/// How long a container is away that a kubelet restarts: what was seen with a real one was 1.0 to 1.7 s.
pub const RESTART: Duration = Duration::from_millis(1200);

/// How long it takes a kubelet to say that a container has ended.
const NOTICE: Duration = Duration::from_millis(650);

pub struct World {
    pub manager: Manager,
    pub api: Api,
    pub namespace: String,
    pub subnet: Subnet,
    server: (String, String, String),
}

impl World {
    /// With everything but pods.
    pub fn new(manager: Manager) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let api = Api::admin();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let namespace = format!("podgres-bench-{now}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let metadata = json!({"name": NAME});
        api.create(&format!("{CORE}/namespaces"), &json!({"metadata": {"name": namespace}}));
        api.create(&format!("{CORE}/namespaces/{namespace}/serviceaccounts"), &json!({"metadata": metadata}));
        let rbac = format!("{RBAC}/namespaces/{namespace}");
        api.create(&format!("{rbac}/roles"), &json!({"metadata": metadata, "rules": manager.rules()}));
        let binding = json!({
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]
        });
        api.create(&format!("{rbac}/rolebindings"), &binding);
        Self { manager, api, namespace, subnet: Subnet::new(), server: Api::server() }
    }

    pub fn pod_path(&self, name: &str) -> String {
        format!("{CORE}/namespaces/{}/pods/{name}", self.namespace)
    }

    /// Waits for one primary from which all others stream, and for the manager to know it; gives back which it is.
    pub fn settle(&self, members: &[Member<'_>]) -> usize {
        let primary = wait_for("one primary and streaming standbys", Duration::from_millis(200), || {
            let primary = members.iter().position(|m| m.streaming() == Some(members.len() - 1))?;
            self.manager.content(self, &members[primary], members.len()).then_some(primary)
        });
        for member in members {
            member.set_ready();
        }
        primary
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.api.delete(&format!("{CORE}/namespaces/{}", self.namespace), 0);
    }
}

/// A pod, with a container that may not have been started yet.
pub struct Member<'w> {
    world: &'w World,
    pub name: String,
    pub address: Ipv4Addr,
    pub container: Container,
    options: Vec<String>,
    termination: Files,
    // What is mounted goes after the container.
    _volume: Volume,
    _files: Vec<Files>,
}

impl<'w> Member<'w> {
    pub fn new(world: &'w World, n: usize) -> Self {
        let (name, address, volume) = (format!("{NAME}-{n}"), world.subnet.address(), Volume::new());
        let uid = create_pod(world, &name, address);
        let token = token(world, &name, &uid);
        let account = Files::new(&[
            ("token", 0o644, &token),
            ("ca.crt", 0o644, &world.server.2),
            ("namespace", 0o644, &world.namespace),
        ]);
        let termination = Files::new(&[("termination-log", 0o666, "")]);
        let (mut options, _) = world.manager.arguments();
        options.extend(["--hostname", &name, "--network", &world.subnet.name].map(String::from));
        options.extend(["--ip".into(), address.to_string()]);
        options.extend(["-v".into(), volume.at("/var/lib/postgresql")]);
        options.extend(["-v".into(), account.at("/var/run/secrets/kubernetes.io/serviceaccount:ro")]);
        options.extend(["-v".into(), format!("{}/termination-log:/dev/termination-log", termination.path().display())]);
        let mut files = vec![account];
        if let Some((settings, path)) = world.manager.settings(&name, address, &world.namespace) {
            options.extend(["-v".into(), settings.at(path)]);
            files.push(settings);
        }
        let (host, port, _) = &world.server;
        let environment = [
            ("POD_NAME", &name),
            ("POD_NAMESPACE", &world.namespace),
            ("POD_UID", &uid),
            ("POD_IP", &address.to_string()),
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT", port),
        ];
        options.extend(environment.iter().flat_map(|(key, value)| ["-e".to_string(), format!("{key}={value}")]));
        let container = create(world, &options);
        Self { world, name, address, container, options, termination, _volume: volume, _files: files }
    }

    pub fn start(&self) {
        docker_ok(&["start", &self.container.name]);
    }

    /// A connection as the superuser; an error where there is none to be had.
    pub fn connect(&self) -> Result<postgres::Client, postgres::Error> {
        crate::load::config(self.address, 5432).connect(NoTls)
    }

    /// How many standbys stream from it; none where it does not accept writes.
    pub fn streaming(&self) -> Option<usize> {
        let mut client = self.connect().ok()?;
        let sql = "select count(*) from pg_stat_replication where state = 'streaming' \
                   having not pg_is_in_recovery()";
        let row = client.query_opt(sql, &[]).ok()??;
        usize::try_from(row.get::<_, i64>(0)).ok()
    }

    /// SIGKILL to its postmaster and to nobody else.
    pub fn kill_postmaster(&self) {
        self.container.shell("kill -9 $(head -n 1 /var/lib/postgresql/data/pgdata/postmaster.pid)");
    }

    /// SIGKILL to all of it, then what a kubelet does: it says that the container has ended and starts a new one, of the
    /// same pod (the same UID, address and volume).
    pub fn kill_and_restart(&mut self) {
        let next = create(self.world, &self.options);
        self.container.signal("KILL");
        let killed = std::time::Instant::now();
        std::thread::sleep(NOTICE);
        self.report_end();
        std::thread::sleep(RESTART.saturating_sub(killed.elapsed()));
        docker_ok(&["start", &next.name]);
        // Removes the old one.
        self.container = next;
    }

    /// A new container after one that has ended.
    pub fn restart(&mut self) {
        self.container.wait();
        self.container = create(self.world, &self.options);
        self.start();
    }

    fn report_end(&self) {
        let message = std::fs::read_to_string(self.termination.path().join("termination-log")).unwrap_or_default();
        let container = json!({
            "name": "postgres", "image": self.world.manager.image(), "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 137, "reason": "Error", "message": message}}
        });
        self.patch_status(&json!({"containerStatuses": [container]}));
    }

    fn set_ready(&self) {
        self.patch_status(&json!({"conditions": [{"type": "Ready", "status": "True"}]}));
    }

    fn patch_status(&self, status: &Value) {
        self.world.api.patch(&format!("{}/status", self.world.pod_path(&self.name)), &json!({"status": status}));
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of {}:\n{}", self.name, self.container.log());
        }
        self.world.api.delete(&self.world.pod_path(&self.name), 0);
    }
}

fn create(world: &World, options: &[String]) -> Container {
    let container = Container { name: unique("bench") };
    let (_, arguments) = world.manager.arguments();
    let image = world.manager.image();
    let mut command = vec!["create", "--name", &container.name];
    command.extend(options.iter().map(String::as_str));
    command.push(&image);
    command.extend(arguments.iter().map(String::as_str));
    docker_ok(&command);
    container
}

/// The object; gives back its UID.
fn create_pod(world: &World, name: &str, address: Ipv4Addr) -> String {
    let pods = format!("{CORE}/namespaces/{}/pods", world.namespace);
    // No scheduler is of that name, so no node takes it.
    let object = json!({
        "metadata": {
            "name": name,
            "labels": {"podgres.io/cluster": NAME, "application": "patroni", "cluster-name": NAME}
        },
        "spec": {
            "schedulerName": "the-benchmark", "serviceAccountName": NAME, "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "postgres", "image": world.manager.image()}]
        }
    });
    let uid = world.api.create(&pods, &object)["metadata"]["uid"].as_str().unwrap().to_string();
    let status = json!({"status": {
        "phase": "Running", "podIP": address.to_string(), "podIPs": [{"ip": address.to_string()}],
        "conditions": [{"type": "Ready", "status": "False"}]
    }});
    world.api.patch(&format!("{pods}/{name}/status"), &status);
    uid
}

/// Bound to the pod.
fn token(world: &World, pod: &str, uid: &str) -> String {
    let path = format!("{CORE}/namespaces/{}/serviceaccounts/{NAME}/token", world.namespace);
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": [], "expirationSeconds": 7200,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
        }
    });
    world.api.create(&path, &request)["status"]["token"].as_str().unwrap().to_string()
}
