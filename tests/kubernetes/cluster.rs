//! A namespace of its own with what a cluster needs in it, the network of its members, and what is asked of all of them.

use std::{
    sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    api::{Api, COORDINATION, CORE, RBAC},
    harness::{Volume, docker},
    load::Addresses,
    member::Member,
    network::Subnet,
};

/// The cluster's name, and so the Lease's and the service account's.
pub const NAME: &str = "db";

/// What keeps a Pod object until the harness, its kubelet, lets go of it.
pub const FINALIZER: &str = "tests.podgres.io/kubelet";

/// An address that nobody has (<https://www.rfc-editor.org/rfc/rfc5737>).
pub const NOBODY: &str = "192.0.2.1";

/// Long enough for three members on a busy machine, one lease that runs out included; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// One cluster. Everything that it made is removed when it is dropped.
pub struct Cluster {
    pub api: Api,
    pub namespace: String,
    pub subnet: Subnet,
    pub major: u32,
    /// docker's options for every member.
    pub options: Vec<String>,
    /// The API server's host, port and certificate authority, as members are told them.
    pub server: (String, String, String),
    /// Every address that a member ever had, for a [`crate::load::Load`].
    pub addresses: Addresses,
    /// The containers that were started, for reports.
    pub containers: Mutex<Vec<(String, String)>>,
}

/// The rules of the Role that members have, whole: `podgres manifest`'s, which a unit test sees to.
pub fn rules() -> Value {
    let printed = include_str!("../../examples/kubernetes/cluster.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(printed).expect("objects of a cluster with this name");
    let role = objects.iter().find(|object| object["kind"] == "Role" && object["metadata"]["name"] == NAME);
    role.expect("a Role")["rules"].clone()
}

impl Cluster {
    /// A namespace with a service account and its Role, and a network; no member yet.
    pub fn new(major: u32) -> Self {
        Self::with(major, &[])
    }

    /// [`Cluster::new`] with settings (`PODGRES_…=…`) that every member has.
    pub fn with(major: u32, settings: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let api = Api::admin();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("podgres-{}-{now}-{count}", std::process::id());
        api.create(&format!("{CORE}/namespaces"), &json!({"metadata": {"name": namespace}}));
        let metadata = json!({"name": NAME});
        api.create(&format!("{CORE}/namespaces/{namespace}/serviceaccounts"), &json!({"metadata": metadata}));
        let roles = format!("{RBAC}/namespaces/{namespace}/roles");
        api.create(&roles, &json!({"metadata": metadata, "rules": rules()}));
        let binding = json!({
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]
        });
        api.create(&format!("{RBAC}/namespaces/{namespace}/rolebindings"), &binding);
        Self {
            api,
            namespace,
            subnet: Subnet::new(),
            major,
            options: settings.iter().flat_map(|s| ["-e".to_string(), (*s).to_string()]).collect(),
            server: Api::server(),
            addresses: Arc::default(),
            containers: Mutex::default(),
        }
    }

    /// `db-N` with a new volume.
    pub fn member(&self, n: usize) -> Member<'_> {
        Member::new(self, n)
    }

    /// `db-N` with a new volume, and an API server that does not answer.
    pub fn member_without_api(&self, n: usize) -> Member<'_> {
        Member::told(self, n, Volume::new(), (NOBODY.into(), self.server.1.clone()))
    }

    /// `db-0` and so on, started at once. Waits for one primary, whose number is given back too, from which all others
    /// stream.
    pub fn members(&self, n: usize) -> (Vec<Member<'_>>, usize) {
        let members = self.starting(n);
        let primary = self.settle(&members).n;
        (members, primary)
    }

    /// `db-0` and so on, started at once.
    pub fn starting(&self, n: usize) -> Vec<Member<'_>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..n).map(|n| scope.spawn(move || self.member(n))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a member can be started")).collect()
        })
    }

    /// Waits for one primary, for all others to stream from it, and for the Lease to name it and to admit all of them; tells
    /// Kubernetes that all are ready. Gives back the primary.
    pub fn settle<'m, 'c>(&self, members: &'m [Member<'c>]) -> &'m Member<'c> {
        let primary = self.primary(members);
        for member in members.iter().filter(|m| m.name != primary.name) {
            self.streams(primary, member);
        }
        self.wait(&format!("the Lease to name {}", primary.name), || (self.holder() == primary.name).then_some(()));
        self.wait("all copies on the record", || {
            let record: Value = serde_json::from_str(&self.lease_annotation("record")?).ok()?;
            let copies: Vec<_> = record["members"].as_array()?.iter().map(|m| m["copy"].clone()).collect();
            members.iter().all(|m| m.copy().is_some_and(|c| copies.contains(&json!(c)))).then_some(())
        });
        for member in members {
            member.wait_ready();
        }
        primary
    }

    /// Waits for a member that accepts writes.
    pub fn primary<'m, 'c>(&self, members: &'m [Member<'c>]) -> &'m Member<'c> {
        self.wait("a member that accepts writes", || members.iter().find(|m| m.is_writable()))
    }

    /// Waits for a member other than this one that accepts writes.
    pub fn primary_other_than<'m, 'c>(&self, former: usize, members: &'m [Member<'c>]) -> &'m Member<'c> {
        let what = format!("a member other than {NAME}-{former} that accepts writes");
        self.wait(&what, || members.iter().find(|m| m.n != former && m.is_writable()))
    }

    /// Waits until `standby` streams from `primary` and has all that it has now.
    pub fn streams(&self, primary: &Member<'_>, standby: &Member<'_>) {
        let query = format!(
            "select count(*) from pg_stat_replication where state = 'streaming' and client_addr = '{}' \
             and replay_lsn >= '{}'",
            standby.address(),
            self.wait("the primary's position", || primary.sql("select pg_current_wal_lsn()").ok())
        );
        self.wait(&format!("{} to stream from {}", standby.name, primary.name), || {
            (primary.sql(&query).as_deref() == Ok("1")).then_some(())
        });
    }

    /// Waits until `condition` gives something; panics with all there is to know when it takes too long.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        self.within(PATIENCE, what, condition)
    }

    /// [`Cluster::wait`] with a deadline of the test's own.
    pub fn within<T>(&self, limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(value) = condition() {
                return value;
            }
            if begun.elapsed() > limit {
                panic!("waited {limit:?} for {what}\n{}", self.report());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sees to it that nothing of the sort happens for a while.
    pub fn never(&self, long: Duration, what: &str, mut condition: impl FnMut() -> bool) {
        let begun = Instant::now();
        while begun.elapsed() < long {
            assert!(!condition(), "after {:?}: {what}\n{}", begun.elapsed(), self.report());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn pod_path(&self, name: &str) -> String {
        format!("{CORE}/namespaces/{}/pods/{name}", self.namespace)
    }

    pub fn lease_path(&self) -> String {
        format!("{COORDINATION}/namespaces/{}/leases/{NAME}", self.namespace)
    }

    /// The Lease, null where there is none.
    pub fn lease(&self) -> Value {
        self.api.get(&self.lease_path()).unwrap_or_default()
    }

    /// An annotation of the Lease, without `podgres.io/`.
    pub fn lease_annotation(&self, key: &str) -> Option<String> {
        annotation(&self.lease(), key)
    }

    /// Annotates the Lease; null removes.
    pub fn annotate_lease(&self, key: &str, value: Value) {
        let key = format!("podgres.io/{key}");
        self.api.patch(&self.lease_path(), &json!({"metadata": {"annotations": {key: value}}}));
    }

    /// Who the Lease names; empty: nobody.
    pub fn holder(&self) -> String {
        self.lease()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_string()
    }

    pub fn term(&self) -> u64 {
        self.lease_annotation("term").and_then(|t| t.parse().ok()).unwrap_or(0)
    }

    /// `type reason object: message` of every Event.
    pub fn events(&self) -> Vec<String> {
        let list = self.api.get(&format!("{CORE}/namespaces/{}/events", self.namespace)).expect("events can be listed");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
        let event = |e: &Value| {
            let object = text(&e["involvedObject"]["name"]);
            format!("{} {} {object}: {}", text(&e["type"]), text(&e["reason"]), text(&e["message"]))
        };
        list["items"].as_array().map(|items| items.iter().map(event).collect()).unwrap_or_default()
    }

    /// Waits for an Event with all these words in it.
    pub fn wait_for_event(&self, words: &[&str]) -> String {
        self.wait(&format!("an Event with {words:?}"), || {
            self.events().into_iter().find(|e| words.iter().all(|w| e.contains(w)))
        })
    }

    /// Lease, pods, Events and the end of every log.
    pub fn report(&self) -> String {
        let mut text = format!("Lease: {}\n", self.lease());
        let pods = self.api.get(&format!("{CORE}/namespaces/{}/pods", self.namespace)).unwrap_or_default();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let metadata = &pod["metadata"];
            text += &format!(
                "{}: deleted {}, labels {}, annotations {}\n",
                metadata["name"], metadata["deletionTimestamp"], metadata["labels"], metadata["annotations"]
            );
        }
        text += &format!("Events:\n  {}\n", self.events().join("\n  "));
        for (member, container) in self.containers.lock().expect("no test panics with it").iter() {
            text += &format!("--- {member} ({container}):\n{}\n", tail(container, 40));
        }
        text
    }
}

/// The last lines of a container's log, in short; what is said again and again is counted.
pub fn tail(container: &str, lines: usize) -> String {
    let output = docker(&["logs", container]);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let mut said: Vec<(String, String, usize)> = Vec::new();
    for line in text.lines() {
        let (when, what) = match serde_json::from_str::<Value>(line) {
            Ok(v) => {
                let field = |key: &str| v[key].as_str().unwrap_or_default().to_string();
                (field("ts"), format!("{} {}: {} {}", field("level"), field("logger"), field("msg"), field("error")))
            }
            Err(_) => (String::new(), line.to_string()),
        };
        match said.last_mut() {
            Some((_, last, count)) if *last == what => *count += 1,
            _ => said.push((when, what, 1)),
        }
    }
    let again = |count: usize| if count > 1 { format!(" ({count} times)") } else { String::new() };
    let last = &said[said.len().saturating_sub(lines)..];
    last.iter().map(|(when, what, count)| format!("  {when} {what}{}\n", again(*count))).collect()
}

/// An annotation of an object, without `podgres.io/`.
pub fn annotation(object: &Value, key: &str) -> Option<String> {
    object["metadata"]["annotations"][format!("podgres.io/{key}")].as_str().map(str::to_string)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Lease: {}\nEvents:\n  {}", self.lease(), self.events().join("\n  "));
        }
        self.api.delete(&format!("{CORE}/namespaces/{}", self.namespace), 0);
    }
}
