//! A namespace of the test's own with a member's service account in it.

#![allow(clippy::disallowed_methods, reason = "nobody reaps here")]

use std::{
    cell::RefCell,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    rc::Rc,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use podgres::{
    cluster::{
        identity::Identity,
        kubernetes::{Kubernetes, RIGHTS, Seen, Server},
    },
    ha::lease::Lease,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::proxy::Proxy;

/// For what takes milliseconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The cluster of `KUBECONFIG`, or one of this machine's own.
pub struct Cluster {
    kubectl: PathBuf,
    kubeconfig: String,
    pub host: String,
    pub port: u16,
}

pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let up = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/up");
        let said = output(Command::new(up), "");
        // `  export KUBECONFIG=… PATH=…:$PATH`, unless there is one already.
        let word = |name: &str| said.split_whitespace().find_map(|w| w.strip_prefix(name));
        let kubeconfig = word("KUBECONFIG=").map(str::to_owned).or_else(|| std::env::var("KUBECONFIG").ok()).unwrap();
        let kubectl =
            word("PATH=").map_or("kubectl".into(), |p| PathBuf::from(p.trim_end_matches(":$PATH")).join("kubectl"));
        let mut view = Command::new(&kubectl);
        view.env("KUBECONFIG", &kubeconfig).args(["config", "view", "--minify", "-o", "json"]);
        let view: Value = serde_json::from_str(&output(view, "")).unwrap();
        let server = view["clusters"][0]["cluster"]["server"].as_str().unwrap();
        let (host, port) = server.trim_start_matches("https://").trim_end_matches('/').rsplit_once(':').unwrap();
        Cluster { kubectl, kubeconfig, host: host.into(), port: port.parse().unwrap() }
    })
}

/// Runs `command` with `input`.
fn finished(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Runs `command` with `input` and answers with what it printed.
pub fn output(mut command: Command, input: &str) -> String {
    let done = finished(&mut command, input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{command:?}: {}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

fn kubectl() -> Command {
    let cluster = cluster();
    let mut command = Command::new(&cluster.kubectl);
    command.env("KUBECONFIG", &cluster.kubeconfig).arg("--request-timeout=20s");
    command
}

/// `kubectl`, as administrator.
pub fn admin(arguments: &[&str], input: &str) -> String {
    let mut command = kubectl();
    command.args(arguments);
    output(command, input)
}

/// A namespace, and in it what a member has: the service account `demo` with its Role, its token, the CA's certificates.
pub struct Space {
    pub name: String,
    pub files: tempfile::TempDir,
}

/// The rules of the Role of a cluster with this name, as the manifest has them.
pub fn rules(cluster: &str) -> Value {
    let printed = include_str!("../../examples/kubernetes/cluster.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(printed).unwrap();
    let mut rules = objects.iter().find(|object| object["kind"] == "Role").unwrap()["rules"].clone();
    for names in rules.as_array_mut().unwrap().iter_mut().filter_map(|rule| rule.get_mut("resourceNames")) {
        *names = json!([cluster]);
    }
    rules
}

impl Space {
    pub fn new() -> Self {
        Self::with_role(&rules("demo"))
    }

    pub fn with_role(rules: &Value) -> Self {
        let random = format!("{:?}{:?}", thread::current().id(), std::time::SystemTime::now());
        let name = format!(
            "api-{}-{:x}",
            std::process::id(),
            random.bytes().fold(7u32, |h, b| h.wrapping_mul(31) ^ u32::from(b))
        );
        admin(&["create", "namespace", &name], "");
        let space = Self { name, files: tempfile::tempdir().unwrap() };
        space.account("demo", rules);
        let ca = admin(
            &[
                "config",
                "view",
                "--minify",
                "--raw",
                "-o",
                "go-template={{index (index .clusters 0).cluster \"certificate-authority-data\" | base64decode}}",
            ],
            "",
        );
        std::fs::write(space.ca(), ca).unwrap();
        space.write_token(&space.new_token());
        space
    }

    /// Makes the service account of a cluster with this name, labelled as the manifest does it, with a Role of these rules.
    pub fn account(&self, name: &str, rules: &Value) {
        let metadata = json!({ "name": name, "namespace": self.name, "labels": { "podgres.io/cluster": name } });
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata },
            { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules },
            { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
              "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
              "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": self.name }] },
        ]});
        admin(&["create", "-f", "-"], &objects.to_string());
    }

    /// What `kubectl` says to the service account of this name: what it printed, or why it was refused.
    pub fn kubectl_as(&self, account: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = kubectl();
        command.args([format!("--namespace={0}", self.name), format!("--as={}", self.user(account))]).args(arguments);
        let done = finished(&mut command, "");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// Patches an object of this namespace (`pods/demo-0`) as the service account of this name: one request, as a stolen
    /// token makes it, where `kubectl patch` reads first.
    pub async fn patch_as(&self, account: &str, object: &str, patch: &Value) -> Result<Value, String> {
        let server = self.server();
        let mut config = kube::Config::new(format!("https://{}:{}", server.host, server.port).parse().unwrap());
        config.root_cert_file = Some(server.ca);
        config.auth_info.token = Some(self.token_of(account).into());
        let client = kube::Client::try_from(config).unwrap();
        let (kind, name) = object.split_once('/').unwrap();
        let objects = kube::core::request::Request::new(format!("/api/v1/namespaces/{}/{kind}", self.name));
        let request = objects.patch(name, &Default::default(), &kube::api::Patch::Strategic(patch)).unwrap();
        client.request(request).await.map_err(|error| error.to_string())
    }

    /// The user that a service account is.
    pub fn user(&self, account: &str) -> String {
        format!("system:serviceaccount:{}:{account}", self.name)
    }

    pub fn ca(&self) -> PathBuf {
        self.files.path().join("ca.crt")
    }

    pub fn write_token(&self, token: &str) {
        // As the kubelet does: exchanged in one step.
        let (new, path) = (self.files.path().join("new"), self.files.path().join("token"));
        std::fs::write(&new, token).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    pub fn new_token(&self) -> String {
        self.token_of("demo")
    }

    fn token_of(&self, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", self.name);
        let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 3600 } });
        let made: Value =
            serde_json::from_str(&admin(&["create", "--raw", &path, "-f", "-"], &request.to_string())).unwrap();
        made["status"]["token"].as_str().unwrap().to_owned()
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with(arguments, "")
    }

    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> String {
        let namespace = format!("--namespace={}", self.name);
        admin(&[&[namespace.as_str()], arguments].concat(), input)
    }

    pub fn get(&self, what: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], what].concat())).unwrap()
    }

    /// Makes a pod of the cluster `demo`, which nothing runs, and answers with its UID.
    pub fn pod(&self, name: &str) -> String {
        self.pod_of("demo", name)
    }

    /// [`Space::pod`] of a cluster, or of an application: whatever has this service account.
    pub fn pod_of(&self, account: &str, name: &str) -> String {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "podgres.io/cluster": account } },
            "spec": { "serviceAccountName": account, "containers": [{ "name": "postgres", "image": "podgres:17" }] },
        });
        let made = self.kubectl_with(&["create", "-o", "json", "-f", "-"], &pod.to_string());
        let made: Value = serde_json::from_str(&made).unwrap();
        made["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    pub fn delete_pod(&self, name: &str) {
        self.kubectl(&["delete", "pod", name, "--grace-period=0", "--force"]);
    }

    pub fn set_status(&self, pod: &str, status: Value) {
        let mut object = self.get(&["pod", pod]);
        object["status"] = status;
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/status", self.name);
        admin(&["replace", "--raw", &path, "-f", "-"], &object.to_string());
    }

    pub fn connect(&self) -> Kubernetes {
        self.connect_to(&self.server(), "demo")
    }

    pub fn connect_by(&self, proxy: &Proxy) -> Kubernetes {
        self.connect_to(&Server { host: proxy.host.clone(), port: proxy.port, ..self.server() }, "demo")
    }

    /// By the service account of another cluster, with a token of its own.
    pub fn connect_as(&self, cluster: &str) -> Kubernetes {
        let token = self.files.path().join(format!("token-of-{cluster}"));
        std::fs::write(&token, self.token_of(cluster)).unwrap();
        self.connect_to(&Server { token, ..self.server() }, cluster)
    }

    /// The API server, the CA's certificates and the token of `demo`.
    pub fn server(&self) -> Server {
        let cluster = cluster();
        let token = self.files.path().join("token");
        Server { host: cluster.host.clone(), port: cluster.port, ca: self.ca(), token }
    }

    pub fn connect_to(&self, server: &Server, cluster: &str) -> Kubernetes {
        let identity = Identity {
            pod: format!("{cluster}-0"),
            namespace: self.name.clone(),
            uid: "6b6f".into(),
            ip: "10.0.0.7".into(),
            cluster: cluster.into(),
        };
        Kubernetes::connect_to(server, &identity).unwrap()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if !thread::panicking() {
            admin(&["delete", "namespace", &self.name, "--wait=false"], "");
        }
    }
}

/// Runs a test on one thread, as the manager does, after the Role is in force.
pub fn run<F: Future<Output = ()>>(space: &Space, test: impl FnOnce(Kubernetes) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kubernetes = space.connect();
        in_force(&kubernetes).await;
        tokio::time::timeout(Duration::from_secs(180), test(kubernetes)).await.expect("finished within three minutes");
    });
}

/// Waits for the Role, all of which comes into force at once.
pub async fn in_force(kubernetes: &Kubernetes) {
    let patience = Instant::now() + SOON;
    loop {
        for right in &RIGHTS {
            if kubernetes.may(right).await.unwrap() {
                return;
            }
        }
        assert!(Instant::now() < patience, "waited for the Role to be in force");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A Lease that `holder` has.
pub fn held(holder: &str) -> Lease {
    Lease {
        holder: holder.into(),
        duration: Duration::from_secs(4),
        instance: "a1b2".into(),
        term: 7,
        ..Lease::default()
    }
}

/// What a watch tells.
pub struct Told {
    seen: RefCell<mpsc::UnboundedReceiver<Seen>>,
}

impl Told {
    /// The next of what is told that is wanted; what else is told before it is passed over.
    #[allow(clippy::await_holding_refcell_ref, reason = "one test asks")]
    pub async fn next<T>(&self, what: &str, within: Duration, wanted: impl Fn(&Seen) -> Option<T>) -> T {
        let mut passed = Vec::new();
        let mut seen = self.seen.borrow_mut();
        let next = async {
            loop {
                let seen = seen.recv().await.expect("watched");
                if let Some(found) = wanted(&seen) {
                    return found;
                }
                passed.push(seen);
            }
        };
        match tokio::time::timeout(within, next).await {
            Ok(found) => found,
            Err(_) => panic!("waited {within:?} for {what}; told was {passed:#?}"),
        }
    }

    /// Until each of those that are wanted was told, in any order.
    pub async fn all<const N: usize>(&self, what: &str, wanted: [&dyn Fn(&Seen) -> bool; N]) {
        let missing = RefCell::new(Vec::from(wanted));
        self.next(what, SOON, |seen| {
            missing.borrow_mut().retain(|wanted| !wanted(seen));
            missing.borrow().is_empty().then_some(())
        })
        .await;
    }

    pub async fn lease(&self, what: &str, within: Duration, wanted: impl Fn(Option<&Lease>) -> bool) -> Option<Lease> {
        self.next(what, within, |s| match s {
            Seen::Lease(lease) if wanted(lease.as_ref()) => Some(lease.clone()),
            _ => None,
        })
        .await
    }

    pub async fn fine(&self) {
        self.next("all is watched", SOON, |s| (*s == Seen::Fine).then_some(())).await;
    }

    pub async fn trouble(&self) -> String {
        self.next("trouble", SOON, |s| match s {
            Seen::Trouble(why) => Some(why.clone()),
            _ => None,
        })
        .await
    }

    pub fn nothing(&self) {
        let seen = self.seen.borrow_mut().try_recv();
        assert!(seen.is_err(), "nothing has changed that matters: {seen:?}");
    }
}

/// Watches for as long as `test` takes.
pub async fn watching<F: Future<Output = ()>>(kubernetes: &Kubernetes, test: impl FnOnce(Rc<Told>) -> F) {
    let (tell, seen) = mpsc::unbounded_channel();
    let watch = kubernetes.watch(async |seen| drop(tell.send(seen)));
    tokio::select! {
        never = watch => match never {},
        () = test(Rc::new(Told { seen: RefCell::new(seen) })) => {}
    }
}
