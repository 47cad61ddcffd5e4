//! What `podgres manifest` prints, as a real API server takes it; and what `podgres check` says in a pod that has it.

#![allow(missing_docs, clippy::expect_used, clippy::panic, reason = "a test program")]

use std::{
    collections::BTreeSet,
    fs::Permissions,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
};

use podgres::cluster::kubernetes::RIGHTS;
use serde_json::Value;

/// What `tests/cluster/up` says to export: it starts an API server if none is up.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn environment() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/up");
    let output = Command::new("timeout").args(["--kill-after=5", "1800", script]).output().expect("up can be executed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter(|line| line.trim_start().starts_with("export ")).collect()
}

/// Runs this in a shell that has `kubectl`, with `input` as its stdin.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn shell(script: &str, input: &[u8]) -> Output {
    let script = format!("{}\n{script}", environment());
    let mut child = Command::new("timeout")
        .args(["--kill-after=5", "60", "bash", "-euc", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash can be executed");
    child.stdin.take().expect("a pipe").write_all(input).expect("bash reads");
    child.wait_with_output().expect("bash ends")
}

#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn manifest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_podgres"))
        .arg("manifest")
        .args(arguments)
        .output()
        .expect("podgres can be executed")
}

/// Of the objects that the server would have made: kind and name.
fn names(output: &Output) -> BTreeSet<String> {
    let list: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let named = |o: &Value| format!("{} {}", o["kind"], o["metadata"]["name"]).replace('"', "");
    list["items"].as_array().expect("a list").iter().map(named).collect()
}

#[test]
fn the_server_takes_every_object() {
    let password = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(password.path(), "hush\n").expect("a password");
    let path = password.path().to_str().expect("a path");
    // A server that says what version it is: the oldest has its own place for the PodDisruptionBudget.
    let version = shell("kubectl version --output json", b"");
    let version: Value = serde_json::from_slice(&version.stdout).expect("versions");
    let version = version["serverVersion"]["gitVersion"].as_str().expect("the server's version").to_string();
    let version = ["--kubernetes", version.as_str()];
    for more in [&[][..], &["--password-file", path, "--storage-class", "fast", "--name", "on-2"]] {
        let printed = manifest(&[&version, more].concat());
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        // It validates too: a field that the server does not know is an error.
        let applied = shell("kubectl apply --dry-run=server --validate=true --output json -f -", &printed.stdout);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        assert_eq!(names(&applied).len(), 9 + usize::from(!more.is_empty()));
    }
}

/// A namespace with the objects of the manifest that give rights. Removed when the value is dropped.
struct Rights(String);

impl Rights {
    fn new(what: &str) -> Self {
        let this = Self(format!("podgres-manifest-{}-{what}", std::process::id()));
        let printed = manifest(&["--namespace", &this.0]);
        let text = String::from_utf8(printed.stdout).expect("UTF-8");
        let rights: Vec<_> = text.split("---\n").take(3).collect();
        let script = format!("kubectl create namespace {0}; kubectl apply -f -", this.0);
        let applied = shell(&script, rights.join("---\n").as_bytes());
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        this
    }

    /// What kubectl says to a member.
    fn member(&self, command: &str) -> Output {
        let who = format!("--as system:serviceaccount:{0}:db --namespace {0}", self.0);
        shell(&format!("kubectl {command} {who}"), b"")
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        let script = "kubectl delete --wait=false --namespace NAME pods,leases,roles,rolebindings,serviceaccounts --all
            kubectl delete --wait=false namespace NAME";
        shell(&script.replace("NAME", &self.0), b"");
    }
}

#[test]
fn a_member_may_use_its_own_lease_and_no_other() {
    let rights = Rights::new("rights");
    let may = |command: &str| rights.member(command).status.success();
    for allowed in
        ["create leases", "get leases/db", "watch leases/db", "patch leases/db", "list pods", "patch pods/db-1"]
    {
        assert!(may(&format!("auth can-i {allowed}")), "{allowed}");
    }
    for refused in [
        "patch leases/other",
        "delete leases/db",
        "update leases/db",
        "get secrets",
        "delete pods",
        "create pods",
        "create pods --subresource=exec",
        "get configmaps",
        "list pods --all-namespaces",
    ] {
        assert!(!may(&format!("auth can-i {refused}")), "{refused}");
    }
    // A list is of one's own too, as long as it is asked for by name.
    assert!(may("get leases --field-selector metadata.name=db"));
    assert!(!may("get leases"));
}

/// The container of a pod of the service account `db`, as the kubelet would start it.
struct Pod {
    rights: Rights,
    /// The API server's host and port.
    server: (String, String),
    account: tempfile::TempDir,
}

impl Pod {
    fn new(what: &str) -> Self {
        let rights = Rights::new(what);
        let config = shell("kubectl config view --raw --flatten --minify --output json", b"");
        let config: Value = serde_json::from_slice(&config.stdout).expect("a kubeconfig");
        let cluster = &config["clusters"][0]["cluster"];
        let url = cluster["server"].as_str().expect("an address").trim_start_matches("https://").trim_end_matches('/');
        let (host, port) = url.rsplit_once(':').unwrap_or((url, "443"));
        let request = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}"#;
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/db/token", rights.0);
        let answer = shell(&format!("kubectl create --raw {path} -f -"), request.as_bytes());
        let answer: Value = serde_json::from_slice(&answer.stdout).expect("a token");
        let authority: k8s_openapi::ByteString =
            serde_json::from_value(cluster["certificate-authority-data"].clone()).expect("a CA");
        let account = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(account.path(), Permissions::from_mode(0o755)).expect("a directory of ours");
        std::fs::write(account.path().join("ca.crt"), authority.0).expect("a file");
        let pod = Self { rights, server: (host.trim_matches(['[', ']']).into(), port.into()), account };
        pod.set_token(answer["status"]["token"].as_str().expect("a token"));
        pod
    }

    fn set_token(&self, token: &str) {
        std::fs::write(self.account.path().join("token"), token).expect("a file");
    }

    /// `podgres check`: its exit code, and its rows for Kubernetes without those of the data directory.
    #[allow(clippy::disallowed_methods, reason = "not PID 1")]
    fn check(&self, options: &[&str]) -> (Option<i32>, String) {
        let image = std::env::var("PODGRES_IMAGE_17").unwrap_or_else(|_| "podgres:17".into());
        let account = format!("{}:/var/run/secrets/kubernetes.io/serviceaccount:ro", self.account.path().display());
        let variables = [
            ("POD_NAME", "db-0"),
            ("POD_NAMESPACE", self.rights.0.as_str()),
            ("POD_UID", "0b7b5f1c"),
            ("POD_IP", "10.0.0.7"),
            ("POSTGRES_PASSWORD", "hush"),
            ("KUBERNETES_SERVICE_HOST", self.server.0.as_str()),
            ("KUBERNETES_SERVICE_PORT", self.server.1.as_str()),
        ];
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "120", "docker", "run", "--rm", "--volume", &account]);
        for (name, value) in variables {
            command.args(["--env", &format!("{name}={value}")]);
        }
        let output = command.args(options).args([&image, "podgres", "check"]).output().expect("docker can be executed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows: Vec<_> = text.lines().skip_while(|row| !row.contains(" process 1: ")).collect();
        assert!(!rows.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code(), rows.join("\n"))
    }
}

#[test]
fn check_says_what_a_pod_lacks() {
    let pod = Pod::new("check");
    // Nobody's pod: should there be a node, it has no part in this.
    let object = format!(
        r#"{{"apiVersion": "v1", "kind": "Pod",
            "metadata": {{"name": "db-0", "namespace": "{}", "labels": {{"podgres.io/cluster": "db"}}}},
            "spec": {{"schedulerName": "nobody", "serviceAccountName": "db",
                      "containers": [{{"name": "postgres", "image": "podgres"}}]}}}}"#,
        pod.rights.0
    );
    assert!(shell("kubectl create -f -", object.as_bytes()).status.success());
    let (code, rows) = pod.check(&[]);
    assert!(code == Some(0) && rows.lines().all(|row| row.starts_with("ok ")), "{code:?}\n{rows}");
    for expected in [
        "db-0 at 10.0.0.7",
        "process 1: podgres",
        "leases: may get",
        "pods: may",
        "events: may",
        "may nothing else",
        "not there",
    ] {
        assert!(rows.contains(expected), "{expected}\n{rows}");
    }
    let failed = |(code, rows): (Option<i32>, String), row: &str, words: &[&str]| {
        let line = rows.lines().find(|line| line.starts_with(&format!("FAIL  {row}: ")));
        let line = line.unwrap_or_else(|| panic!("{row} does not fail\n{rows}"));
        assert_eq!(code, Some(78), "{rows}");
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    };
    failed(pod.check(&["--init"]), "process 1", &["docker-init", "shareProcessNamespace"]);
    let nowhere = ["--env", "KUBERNETES_SERVICE_PORT=1"];
    failed(pod.check(&nowhere), "Kubernetes API", &["cannot be reached"]);
    let label = format!("kubectl --namespace {} label pod db-0 podgres.io/cluster-", pod.rights.0);
    assert!(shell(&label, b"").status.success());
    failed(pod.check(&[]), "pod", &["db-0 has not the label podgres.io/cluster=db"]);
    let more = r#"[{"op": "add", "path": "/rules/-", "value": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}}]"#;
    let patched = shell(&format!("kubectl --namespace {} patch role db --type json -p '{more}'", pod.rights.0), b"");
    assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stderr));
    let warned = (0..100).map(|_| pod.check(&[])).find(|(_, rows)| rows.contains("may also get secrets, which"));
    assert!(
        warned.is_some_and(|(_, rows)| rows.contains("warn  service account: ")),
        "more than is needed is a warning"
    );
    let patch = r#"[{"op": "remove", "path": "/rules/0/verbs/3"}, {"op": "remove", "path": "/rules/2"}]"#;
    let patched = shell(&format!("kubectl --namespace {} patch role db --type json -p '{patch}'", pod.rights.0), b"");
    assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stderr));
    // The server looks at its own copy of the Role, a moment later.
    let refused = (0..100).map(|_| pod.check(&[])).find(|(_, rows)| rows.contains("FAIL  pods")).expect("a refusal");
    failed(refused.clone(), "leases", &["may not patch:", "coordination.k8s.io", "podgres manifest"]);
    failed(refused, "pods", &["may not list, watch, patch:"]);
    pod.set_token("nonsense");
    failed(pod.check(&[]), "Kubernetes API", &["does not accept the service account's token"]);
    pod.set_token("");
    failed(pod.check(&[]), "token", &["is empty"]);
}

/// Each verb of the Role in turn, taken out of it.
#[test]
fn check_names_each_verb_that_the_role_lacks() {
    let pod = Pod::new("verbs");
    let role = shell(&format!("kubectl --namespace {} get role db --output json", pod.rights.0), b"");
    let role: Value = serde_json::from_slice(&role.stdout).expect("a Role");
    for right in RIGHTS {
        let mut lacking = role.clone();
        for rule in lacking["rules"].as_array_mut().expect("rules") {
            let own = rule.get("resourceNames").is_some();
            if rule["resources"][0] == right.resource && own == right.own {
                rule["verbs"].as_array_mut().expect("verbs").retain(|verb| verb != right.verb);
            }
        }
        // A rule without verbs is none.
        lacking["rules"].as_array_mut().expect("rules").retain(|rule| rule["verbs"][0].is_string());
        let applied = shell(
            &format!("kubectl --namespace {} replace --force -f -", pod.rights.0),
            lacking.to_string().as_bytes(),
        );
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        let wanted = format!("FAIL  {}: the service account may not {}: ", right.resource, right.verb);
        let group = format!("on {} of the API group {:?}", right.resource, right.group);
        // The server looks at its own copy of the Role, a moment later.
        let said = (0..20).map(|_| pod.check(&[])).find(|(_, rows)| rows.contains(&wanted));
        let (code, rows) = said.unwrap_or_else(|| panic!("{wanted}: {}", pod.check(&[]).1));
        assert_eq!(code, Some(78), "{rows}");
        assert!(rows.contains(&group) && rows.contains("`podgres manifest` prints a Role"), "{rows}");
        let of_others = |row: &&str| {
            RIGHTS.iter().any(|r| r.resource != right.resource && row.contains(&format!("{}: ", r.resource)))
        };
        assert!(rows.lines().filter(of_others).all(|row| row.starts_with("ok ")), "{rows}");
    }
}

#[test]
fn what_is_wrong_on_the_command_line_is_usage() {
    for wrong in [&["--nmae", "x"][..], &["--name", "X"], &["--replicas", "0"], &["extra"]] {
        let output = manifest(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty(), "{wrong:?}");
    }
    assert_eq!(manifest(&["--password-file", "/does/not/exist"]).status.code(), Some(1));
}
