//! A namespace of the test's own with a member's service account in it, and a proxy before the API server that can fail.

#![allow(clippy::disallowed_methods, reason = "nobody reaps here")]

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use podgres::{
    cluster::{
        identity::Identity,
        kubernetes::{Error, Kubernetes, Seen, Server},
    },
    ha::lease::Lease,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// For what takes milliseconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The cluster of `KUBECONFIG`, or one of this machine's own.
struct Cluster {
    kubectl: PathBuf,
    kubeconfig: String,
    host: String,
    port: u16,
}

fn cluster() -> &'static Cluster {
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

/// Runs `command` with `input` and answers with what it printed.
fn output(mut command: Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(
        done.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}

/// `kubectl`, as administrator.
fn admin(arguments: &[&str], input: &str) -> String {
    let cluster = cluster();
    let mut command = Command::new(&cluster.kubectl);
    command.env("KUBECONFIG", &cluster.kubeconfig).arg("--request-timeout=20s").args(arguments);
    output(command, input)
}

/// A namespace, and in it what a member has: the service account `member` with its Role, its token, the CA's certificates.
pub struct Space {
    pub name: String,
    files: tempfile::TempDir,
}

/// As the manifest has it.
const ROLE: &str = r#"[
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["demo"],
     "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}
]"#;

impl Space {
    pub fn new() -> Self {
        Self::with_role(&serde_json::from_str(ROLE).unwrap())
    }

    pub fn with_role(rules: &Value) -> Self {
        let random = format!("{:?}{:?}", thread::current().id(), std::time::SystemTime::now());
        let name = format!(
            "api-{}-{:x}",
            std::process::id(),
            random.bytes().fold(7u32, |h, b| h.wrapping_mul(31) ^ u32::from(b))
        );
        let metadata = json!({ "name": "member", "namespace": name });
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } },
            { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata },
            { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules },
            { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
              "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "member" },
              "subjects": [{ "kind": "ServiceAccount", "name": "member", "namespace": name }] },
        ]});
        admin(&["create", "-f", "-"], &objects.to_string());
        let space = Self { name, files: tempfile::tempdir().unwrap() };
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

    fn ca(&self) -> PathBuf {
        self.files.path().join("ca.crt")
    }

    pub fn write_token(&self, token: &str) {
        // As the kubelet does: exchanged in one step.
        let (new, path) = (self.files.path().join("new"), self.files.path().join("token"));
        std::fs::write(&new, token).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    pub fn new_token(&self) -> String {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/member/token", self.name);
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
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "podgres.io/cluster": "demo" } },
            "spec": { "serviceAccountName": "member", "containers": [{ "name": "postgres", "image": "podgres:17" }] },
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
        self.connect_through(&cluster().host, cluster().port)
    }

    pub fn connect_by(&self, proxy: &Proxy) -> Kubernetes {
        self.connect_through(&proxy.host, proxy.port)
    }

    fn connect_through(&self, host: &str, port: u16) -> Kubernetes {
        let server = Server { host: host.into(), port, ca: self.ca(), token: self.files.path().join("token") };
        let identity = Identity {
            pod: "demo-0".into(),
            namespace: self.name.clone(),
            uid: "6b6f".into(),
            ip: "10.0.0.7".into(),
            cluster: "demo".into(),
        };
        Kubernetes::connect_to(&server, &identity).unwrap()
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
        let patience = Instant::now() + SOON;
        while let Err(Error::Forbidden(why)) = kubernetes.read_lease(DEADLINE).await {
            assert!(Instant::now() < patience, "waited for the Role to be in force: {why}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::timeout(Duration::from_secs(180), test(kubernetes)).await.expect("finished within three minutes");
    });
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

/// A TCP proxy before the API server.
pub struct Proxy {
    host: String,
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// How new connections fare: `PASS`, `REFUSE` or `SILENT`.
    mode: AtomicUsize,
    /// Connections from before these numbers changed are closed, or forward nothing any more.
    cuts: AtomicU64,
    silences: AtomicU64,
    accepted: AtomicUsize,
}

const PASS: usize = 0;
const REFUSE: usize = 1;
const SILENT: usize = 2;

impl Proxy {
    pub fn new() -> Self {
        let cluster = cluster();
        // An address that the server's certificate has.
        let listener =
            TcpListener::bind((cluster.host.as_str(), 0)).or_else(|_| TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let accepting = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                accepting.accepted.fetch_add(1, SeqCst);
                let client = client.unwrap();
                if accepting.mode.load(SeqCst) != REFUSE
                    && let Ok(server) = TcpStream::connect((cluster.host.as_str(), cluster.port))
                {
                    accepting.connect(client, server);
                }
            }
        });
        Self { host: address.ip().to_string(), port: address.port(), state }
    }

    /// Closes every connection, and each new one.
    pub fn cut(&self) {
        self.state.mode.store(REFUSE, SeqCst);
        self.state.cuts.fetch_add(1, SeqCst);
    }

    /// Forwards nothing any more on the connections that there are; new ones are as before.
    pub fn forget(&self) {
        self.state.silences.fetch_add(1, SeqCst);
    }

    /// Forwards nothing any more.
    pub fn silence(&self) {
        self.state.mode.store(SILENT, SeqCst);
        self.forget();
    }

    /// New connections are forwarded again.
    pub fn restore(&self) {
        self.state.mode.store(PASS, SeqCst);
    }

    /// How many connections there were.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(SeqCst)
    }
}

impl State {
    fn connect(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let deaf = self.mode.load(SeqCst) == SILENT;
        let born = (self.cuts.load(SeqCst), self.silences.load(SeqCst));
        for (from, to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
            let state = self.clone();
            thread::spawn(move || {
                let _ = state.copy(&from, &to, deaf, born);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }

    fn copy(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        deaf: bool,
        (cuts, silences): (u64, u64),
    ) -> std::io::Result<()> {
        from.set_read_timeout(Some(Duration::from_millis(20)))?;
        to.set_nodelay(true)?;
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(e) => return Err(e),
            };
            if self.cuts.load(SeqCst) != cuts {
                return Ok(());
            }
            if !deaf && self.silences.load(SeqCst) == silences {
                to.write_all(&buffer[..read])?;
            }
        }
    }
}
