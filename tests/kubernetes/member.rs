//! A member: a Pod object, a token bound to it, a volume and a container. The harness is its kubelet.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::{
    api::{Api, CORE},
    client,
    cluster::{Cluster, FINALIZER, NAME, annotation, tail},
    harness::*,
    network::{self, Direction},
};

/// Where the data directory is.
pub const DATA: &str = "/var/lib/postgresql/data/pgdata";

/// One Pod object, from its creation to its deletion.
struct Pod {
    uid: String,
    address: Ipv4Addr,
    /// `token`, `ca.crt`, `namespace`.
    account: Files,
    /// `termination-log`.
    termination: Files,
}

/// `db-N`.
pub struct Member<'c> {
    cluster: &'c Cluster,
    /// The number in its name.
    pub n: usize,
    pub name: String,
    /// The API server's host and port, as it is told them when its container starts.
    pub server: (String, String),
    /// docker's options for it alone.
    options: Vec<String>,
    // Dropped in this order: what a container uses cannot be removed.
    pub container: Container,
    pod: Pod,
    pub volume: Volume,
}

impl<'c> Member<'c> {
    /// With a new volume.
    pub fn new(cluster: &'c Cluster, n: usize) -> Self {
        Self::on(cluster, n, Volume::new())
    }

    /// With this volume.
    pub fn on(cluster: &'c Cluster, n: usize, volume: Volume) -> Self {
        let (host, port, _) = &cluster.server;
        Self::told(cluster, n, volume, (host.clone(), port.clone()))
    }

    /// With a new volume and a setting (`PODGRES_…=…`) that it alone has.
    pub fn with(cluster: &'c Cluster, n: usize, setting: &str) -> Self {
        Self::with_options(cluster, n, Volume::new(), vec!["-e".to_string(), setting.to_string()])
    }

    /// With docker's options that it alone has.
    pub fn with_options(cluster: &'c Cluster, n: usize, volume: Volume, options: Vec<String>) -> Self {
        let (host, port, _) = &cluster.server;
        Self::run(cluster, n, volume, (host.clone(), port.clone()), options)
    }

    /// That is told that the API server is there.
    pub fn told(cluster: &'c Cluster, n: usize, volume: Volume, server: (String, String)) -> Self {
        Self::run(cluster, n, volume, server, Vec::new())
    }

    fn run(cluster: &'c Cluster, n: usize, volume: Volume, server: (String, String), options: Vec<String>) -> Self {
        let name = format!("{NAME}-{n}");
        let pod = Pod::new(cluster, &name);
        let container = pod.run(cluster, &name, &volume, &server, &options);
        Self { cluster, n, name, server, options, container, pod, volume }
    }

    pub fn address(&self) -> Ipv4Addr {
        self.pod.address
    }

    pub fn uid(&self) -> &str {
        &self.pod.uid
    }

    /// SQL from outside; what refuses it is an error's text.
    pub fn sql(&self, sql: &str) -> Result<String, String> {
        client::sql(self.address(), sql)
    }

    /// SQL that must succeed.
    pub fn query(&self, sql: &str) -> String {
        self.sql(sql).unwrap_or_else(|e| panic!("{}: {sql}: {e}\n{}", self.name, self.cluster.report()))
    }

    pub fn is_writable(&self) -> bool {
        self.sql("select not pg_is_in_recovery()").as_deref() == Ok("t")
    }

    /// Whether it answers as a standby.
    pub fn is_standby(&self) -> bool {
        self.sql("select pg_is_in_recovery()").as_deref() == Ok("t")
    }

    pub fn http(&self, path: &str) -> u16 {
        client::http(self.address(), path).0
    }

    /// What it answers when the other members ask.
    pub fn account(&self) -> Option<Value> {
        serde_json::from_str(&client::http(self.address(), "/member").1).ok()
    }

    /// Waits for /readyz and tells Kubernetes.
    pub fn wait_ready(&self) {
        self.cluster.wait(&format!("{} to be ready", self.name), || (self.http("/readyz") == 200).then_some(()));
        self.set_ready(true);
    }

    /// The Pod object, null where there is none.
    pub fn object(&self) -> Value {
        self.cluster.api.get(&self.path()).unwrap_or_default()
    }

    pub fn path(&self) -> String {
        self.cluster.pod_path(&self.name)
    }

    pub fn annotation(&self, key: &str) -> Option<String> {
        annotation(&self.object(), key)
    }

    /// The id of its data directory, as its status says.
    pub fn copy(&self) -> Option<String> {
        let status: Value = serde_json::from_str(&self.annotation("status")?).ok()?;
        status["copy"].as_str().map(str::to_string)
    }

    /// As `kubectl annotate` does, `podgres.io/` before the key; null removes.
    pub fn annotate(&self, key: &str, value: Value) {
        let key = format!("podgres.io/{key}");
        self.cluster.api.patch(&self.path(), &json!({"metadata": {"annotations": {key: value}}}));
    }

    /// The label `podgres.io/role`.
    pub fn role(&self) -> Option<String> {
        self.object()["metadata"]["labels"]["podgres.io/role"].as_str().map(str::to_string)
    }

    pub fn wait_role(&self, role: &str) {
        let what = format!("{} to have the role label {role:?}", self.name);
        self.cluster.wait(&what, || (self.role().as_deref() == Some(role)).then_some(()));
    }

    /// Waits for the outcome of a command, which the container's annotation has after another one, with these words.
    pub fn wait_outcome(&self, before: &Option<String>, words: &[&str]) -> String {
        let what = format!("{}'s podgres.io/last-command with {words:?}, other than {before:?}", self.name);
        self.cluster.wait(&what, || {
            let outcome = self.annotation("last-command").filter(|o| Some(o) != before.as_ref())?;
            words.iter().all(|w| outcome.contains(w)).then_some(outcome)
        })
    }

    /// Runs podgres in the container, whatever comes of it.
    pub fn podgres(&self, arguments: &[&str]) -> std::process::Output {
        self.container.exec(&[&["podgres"], arguments].concat())
    }

    /// Ready or not, as a kubelet writes it.
    pub fn set_ready(&self, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        self.cluster.api.patch(&format!("{}/status", self.path()), &status);
    }

    /// What the manager has left in `/dev/termination-log`.
    pub fn termination_message(&self) -> String {
        std::fs::read_to_string(self.pod.termination.path().join("termination-log")).unwrap_or_default()
    }

    /// Says, as a kubelet does, that the container has ended, with its message: the proof of death.
    pub fn report_end(&self) {
        let terminated = json!({"exitCode": 137, "reason": "Error", "message": self.termination_message()});
        let container = json!({
            "name": "postgres", "image": image(self.cluster.major), "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated}
        });
        let status = json!({"status": {"containerStatuses": [container]}});
        self.cluster.api.patch(&format!("{}/status", self.path()), &status);
    }

    /// Asks for the pod's deletion, as `kubectl delete` does; the object stays until [`Member::forget`].
    pub fn delete(&self) {
        self.cluster.api.delete(&self.path(), 30);
    }

    /// The object goes at once, as with `kubectl delete --force`; the container runs on.
    pub fn forget(&self) {
        self.cluster.api.patch(&self.path(), &json!({"metadata": {"finalizers": null}}));
        self.cluster.api.delete(&self.path(), 0);
    }

    /// SIGKILL to all of it. The container is there, ended.
    pub fn kill(&self) {
        self.container.signal("KILL");
        self.container.wait();
    }

    /// A kubelet's restart: a new container of the same pod, with its address, volume and token.
    pub fn restart_in_place(&mut self) {
        docker(&["rm", "--force", &self.container.name]);
        self.container = self.pod.run(self.cluster, &self.name, &self.volume, &self.server, &self.options);
    }

    /// docker's options for its next container.
    pub fn set_options(&mut self, options: &[String]) {
        self.options = options.to_vec();
    }

    /// A StatefulSet's new pod of the same name, on the same volume: another UID, address and token.
    pub fn recreate(&mut self) {
        docker(&["rm", "--force", &self.container.name]);
        self.forget();
        self.pod = Pod::new(self.cluster, &self.name);
        self.container = self.pod.run(self.cluster, &self.name, &self.volume, &self.server, &self.options);
    }

    /// [`Member::recreate`] with an empty volume.
    pub fn recreate_empty(&mut self) {
        docker(&["rm", "--force", &self.container.name]);
        self.volume = Volume::new();
        self.recreate();
    }

    /// The process id of its postmaster, in the container.
    pub fn postmaster(&self) -> String {
        self.container.shell(&format!("head -n 1 {DATA}/postmaster.pid"))
    }

    /// Sends a signal to its postmaster and to nobody else.
    pub fn signal_postmaster(&self, signal: &str) {
        self.container.shell(&format!("kill -{signal} $(head -n 1 {DATA}/postmaster.pid)"));
    }

    /// Sends a signal to its PID 1 from outside, where STOP and KILL work too.
    #[allow(clippy::disallowed_methods, reason = "not PID 1")]
    pub fn signal_manager(&self, signal: &str) {
        let pid = self.container.inspect("{{.State.Pid}}");
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.expect("kill can be executed").success(), "kill -{signal} {pid}");
    }

    /// Cuts it off from the API server.
    pub fn cut_api(&self, directions: &[Direction]) {
        network::cut(&self.container, &self.cluster.server.0, directions);
    }

    /// Cuts it off from another member.
    pub fn cut_member(&self, other: &Member<'_>, directions: &[Direction]) {
        network::cut(&self.container, &other.address().to_string(), directions);
    }

    /// Ends every cut that was made at this member.
    pub fn heal(&self) {
        network::heal(&self.container);
    }

    /// A token of its service account, bound to the pod.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.pod.account.path().join("token")).expect("the token's file")
    }

    /// Another token, of the same pod, in its file.
    pub fn renew_token(&self) {
        self.exchange("token", &token(self.cluster, &json!({"kind": "Pod", "name": self.name, "uid": self.pod.uid})));
    }

    /// A token in its file that lives as long as a Secret.
    pub fn bind_token(&self, secret: &Value) {
        let (name, uid) = (&secret["metadata"]["name"], &secret["metadata"]["uid"]);
        self.exchange("token", &token(self.cluster, &json!({"kind": "Secret", "name": name, "uid": uid})));
    }

    /// Exchanges a file of its service account in one step, as a kubelet does.
    pub fn exchange(&self, file: &str, text: &str) {
        let account = &self.pod.account;
        account.put("next", 0o644, text);
        std::fs::rename(account.path().join("next"), account.path().join(file)).expect("the file can be exchanged");
    }

    /// The API server as the member finds it, with its token.
    pub fn api(&self) -> Api {
        Api::of(&self.server.0, &self.server.1, &self.pod.account.path().join("ca.crt"), &self.token())
    }

    /// The identity of its data.
    pub fn system_identifier(&self) -> String {
        self.query("select system_identifier from pg_control_system()")
    }
}

impl Pod {
    fn new(cluster: &Cluster, name: &str) -> Self {
        let address = cluster.subnet.address();
        let pods = format!("{CORE}/namespaces/{}/pods", cluster.namespace);
        // No scheduler is of that name, so no node takes it.
        let object = json!({
            "metadata": {"name": name, "labels": {"podgres.io/cluster": NAME}, "finalizers": [FINALIZER]},
            "spec": {
                "schedulerName": "the-test", "serviceAccountName": NAME, "terminationGracePeriodSeconds": 30,
                "containers": [{"name": "postgres", "image": image(cluster.major)}]
            }
        });
        let uid = cluster.api.create(&pods, &object)["metadata"]["uid"].as_str().expect("a UID").to_string();
        let status = json!({"status": {
            "phase": "Running", "podIP": address.to_string(), "podIPs": [{"ip": address.to_string()}],
            "conditions": [{"type": "Ready", "status": "False"}]
        }});
        cluster.api.patch(&format!("{pods}/{name}/status"), &status);
        let token = token(cluster, &json!({"kind": "Pod", "name": name, "uid": uid}));
        let files = [("token", token.as_str()), ("ca.crt", &cluster.server.2), ("namespace", &cluster.namespace)];
        Self {
            uid,
            address,
            account: Files::new(&files.map(|(file, text)| (file, 0o644, text))),
            termination: Files::new(&[]),
        }
    }

    fn run(
        &self,
        cluster: &Cluster,
        name: &str,
        volume: &Volume,
        server: &(String, String),
        own: &[String],
    ) -> Container {
        // A new one for each container, as kubelets do.
        self.termination.put("termination-log", 0o666, "");
        let termination = format!("{}:/dev/termination-log", self.termination.path().join("termination-log").display());
        let account = format!("{}:ro", self.account.at("/var/run/secrets/kubernetes.io/serviceaccount"));
        let (mount, address) = (volume.at("/var/lib/postgresql"), self.address.to_string());
        let environment = [
            ("POD_NAME", name),
            ("POD_NAMESPACE", &cluster.namespace),
            ("POD_UID", &self.uid),
            ("POD_IP", &address),
            ("KUBERNETES_SERVICE_HOST", &server.0),
            ("KUBERNETES_SERVICE_PORT", &server.1),
            ("POSTGRES_PASSWORD", client::PASSWORD),
            // Clients that ask all the time do not spend their time on hashes.
            ("POSTGRES_HOST_AUTH_METHOD", "trust"),
        ]
        .map(|(key, value)| format!("{key}={value}"));
        let mut options = vec!["--hostname", name, "--network", &cluster.subnet.name, "--ip", &address];
        for mounted in [&mount, &termination, &account] {
            options.extend(["-v", mounted.as_str()]);
        }
        for variable in &environment {
            options.extend(["-e", variable.as_str()]);
        }
        options.extend(cluster.options.iter().chain(own).map(String::as_str));
        let container = Container::start(cluster.major, &options, &[]);
        cluster.containers.lock().expect("no test panics with it").push((name.to_string(), container.name.clone()));
        let mut addresses = cluster.addresses.lock().expect("no test panics with it");
        let known = (name.to_string(), self.address);
        if !addresses.contains(&known) {
            addresses.push(known);
        }
        container
    }
}

/// A token that lives as long as this object.
fn token(cluster: &Cluster, bound: &Value) -> String {
    let mut bound = bound.clone();
    bound["apiVersion"] = json!("v1");
    let path = format!("{CORE}/namespaces/{}/serviceaccounts/{NAME}/token", cluster.namespace);
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": [], "expirationSeconds": 3600, "boundObjectRef": bound
        }
    });
    cluster.api.create(&path, &request)["status"]["token"].as_str().expect("a token").to_string()
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of {}, which is removed now:\n{}", self.name, tail(&self.container.name, 150));
        }
        // Its own object, not that of a pod which has its name by now.
        if self.object()["metadata"]["uid"] == self.pod.uid.as_str() {
            self.forget();
        }
    }
}
