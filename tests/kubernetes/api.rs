//! The API server: JSON in, JSON out, each call with a deadline.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use axum::http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::harness::{Files, stderr, stdout};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(20);

/// The paths of the core group and of the others.
pub const CORE: &str = "/api/v1";
pub const COORDINATION: &str = "/apis/coordination.k8s.io/v1";
pub const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
pub const EVENTS: &str = "/apis/events.k8s.io/v1";

/// What `tests/cluster/up` has started, or found.
pub struct Found {
    pub kubeconfig: PathBuf,
    /// Its directory holds the commands; none: those of `PATH`.
    pub commands: Option<PathBuf>,
}

/// Starts what is not up, once; `node`: with a node.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
pub fn up(node: bool) -> &'static Found {
    static FOUND: [OnceLock<Found>; 2] = [OnceLock::new(), OnceLock::new()];
    FOUND[usize::from(node)].get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/up");
        let mut command = Command::new("timeout");
        command.args(["--verbose", "--kill-after=5", "1800", script]).args(node.then_some("--node"));
        let output = command.output().expect("tests/cluster/up can be executed");
        assert!(output.status.success(), "tests/cluster/up: {}\n{}", stdout(&output), stderr(&output));
        let text = stdout(&output);
        let words = || text.split_whitespace();
        let kubeconfig = words().find_map(|w| w.strip_prefix("KUBECONFIG=")).map(PathBuf::from);
        let commands = words().find_map(|w| w.strip_prefix("PATH=")?.strip_suffix(":$PATH")).map(PathBuf::from);
        let kubeconfig = kubeconfig.or_else(|| std::env::var_os("KUBECONFIG").map(PathBuf::from));
        Found { kubeconfig: kubeconfig.expect("up says what KUBECONFIG is"), commands }
    })
}

/// A client of the API server.
pub struct Api {
    runtime: tokio::runtime::Runtime,
    client: kube::Client,
}

impl Api {
    /// As the administrator that `KUBECONFIG` names.
    pub fn admin() -> Self {
        Self::new(Kubeconfig::read_from(&up(false).kubeconfig).expect("the kubeconfig can be read"))
    }

    /// As the service account that the token is of.
    pub fn with_token(token: &str) -> Self {
        let (host, port, authority) = Self::server();
        let files = Files::new(&[("ca.crt", 0o644, &authority)]);
        Self::of(&host, &port, &files.path().join("ca.crt"), token)
    }

    /// [`Api::with_token`] of the server at an address, by an authority.
    pub fn of(host: &str, port: &str, authority: &Path, token: &str) -> Self {
        let kubeconfig = json!({
            "current-context": "test", "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{host}:{port}"), "certificate-authority": authority
            }}],
            "users": [{"name": "test", "user": {"token": token}}]
        });
        Self::new(serde_json::from_value(kubeconfig).expect("a kubeconfig"))
    }

    fn new(kubeconfig: Kubeconfig) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            let mut config = config.expect("the kubeconfig is one");
            config.default_retry = false;
            kube::Client::try_from(config).expect("a client")
        });
        Self { runtime, client }
    }

    /// Host, port and certificate authority (PEM) of the API server.
    pub fn server() -> (String, String, String) {
        let kubeconfig = Kubeconfig::read_from(&up(false).kubeconfig).expect("the kubeconfig can be read");
        let current = kubeconfig.current_context.clone().expect("a current context");
        let context = kubeconfig.contexts.iter().find(|c| c.name == current).and_then(|c| c.context.clone());
        let name = context.expect("the current context").cluster;
        let cluster = kubeconfig.clusters.iter().find(|c| c.name == name).and_then(|c| c.cluster.clone());
        let cluster = cluster.expect("the current cluster");
        let url: axum::http::Uri = cluster.server.expect("an address").parse().expect("a URL");
        let authority = match (cluster.certificate_authority_data, cluster.certificate_authority) {
            (Some(data), _) => {
                let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(data)).expect("base64");
                String::from_utf8(bytes.0).expect("PEM")
            }
            (None, Some(file)) => std::fs::read_to_string(file).expect("the authority's certificate can be read"),
            (None, None) => String::new(),
        };
        let port = url.port_u16().unwrap_or(443).to_string();
        (url.host().expect("a host").to_string(), port, authority)
    }

    /// One call. An answer that is an error is its code and message.
    pub fn call(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, (u16, String)> {
        let mut request = Request::builder().method(method.clone()).uri(path);
        if let Some((content, _)) = body {
            request = request.header("content-type", content);
        }
        let body = body.map(|(_, value)| value.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(body).expect("a request");
        let answer = self.runtime.block_on(async {
            // Inside of the runtime: the timer is its.
            tokio::time::timeout(CALL, self.client.request_text(request)).await
        });
        match answer.unwrap_or_else(|_| panic!("{method} {path}: no answer within {CALL:?}")) {
            Ok(text) => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
            Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
            Err(e) => panic!("{method} {path}: {e}"),
        }
    }

    pub fn get(&self, path: &str) -> Result<Value, (u16, String)> {
        self.call(Method::GET, path, None)
    }

    pub fn create(&self, path: &str, object: &Value) -> Value {
        self.call(Method::POST, path, Some(("application/json", object)))
            .unwrap_or_else(|e| panic!("POST {path}: {e:?}"))
    }

    /// A merge patch, which must succeed.
    pub fn patch(&self, path: &str, patch: &Value) -> Value {
        self.try_patch(path, patch).unwrap_or_else(|e| panic!("PATCH {path}: {e:?}"))
    }

    pub fn try_patch(&self, path: &str, patch: &Value) -> Result<Value, (u16, String)> {
        self.call(Method::PATCH, path, Some(("application/merge-patch+json", patch)))
    }

    /// Deletes it, `grace` seconds for a pod; whether it was there.
    pub fn delete(&self, path: &str, grace: u32) -> bool {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace});
        match self.call(Method::DELETE, path, Some(("application/json", &options))) {
            Ok(_) => true,
            Err((404, _)) => false,
            Err(e) => panic!("DELETE {path}: {e:?}"),
        }
    }
}
