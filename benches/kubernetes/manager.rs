//! The managers that are compared: how each is run in a pod, allowed to use the API, and asked to hand over.

use std::{
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    api::COORDINATION,
    client,
    client::PASSWORD,
    harness::{Files, image, stdout},
    world::{Member, NAME, World},
};

/// What every PostgreSQL is started with here: room for twenty standbys, little memory.
pub const PARAMETERS: [(&str, &str); 3] =
    [("max_connections", "60"), ("max_wal_senders", "40"), ("shared_buffers", "16MB")];

/// Who runs PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    Patroni(Times),
    Podgres {
        /// The setting `sync`.
        sync: u32,
    },
}

/// Patroni's, in seconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub ttl: u32,
    pub loop_wait: u32,
    pub retry_timeout: u32,
}

impl Manager {
    pub fn image(self) -> String {
        match self {
            Self::Patroni(_) => patroni_image().to_string(),
            Self::Podgres { .. } => image(15),
        }
    }

    /// How long it is between two looks at the cluster, at which most of what it does begins.
    pub fn turn(self) -> Duration {
        match self {
            Self::Patroni(times) => Duration::from_secs(times.loop_wait.into()),
            Self::Podgres { .. } => Duration::from_secs(2),
        }
    }

    /// The rules of the Role: what the manager's own manual asks for.
    pub fn rules(self) -> Value {
        match self {
            // <https://github.com/patroni/patroni/blob/master/kubernetes/patroni_k8s.yaml>
            Self::Patroni(_) => json!([
                {"apiGroups": [""], "resources": ["configmaps", "endpoints"],
                 "verbs": ["create", "get", "list", "patch", "update", "watch", "delete", "deletecollection"]},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch", "update", "watch"]}
            ]),
            Self::Podgres { .. } => json!([
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                 "verbs": ["get", "list", "watch", "create", "patch"]},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
                {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}
            ]),
        }
    }

    /// docker's options of its own; the image's arguments.
    pub fn arguments(self) -> (Vec<String>, Vec<String>) {
        match self {
            Self::Patroni(_) => (vec!["--init".into()], vec!["/etc/patroni/patroni.yml".into()]),
            Self::Podgres { sync } => {
                let environment = [
                    format!("POSTGRES_PASSWORD={PASSWORD}"),
                    "POSTGRES_HOST_AUTH_METHOD=trust".to_string(),
                    format!("PODGRES_SYNC={sync}"),
                ];
                let settings = PARAMETERS.iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}")]);
                (
                    environment.into_iter().flat_map(|e| ["-e".to_string(), e]).collect(),
                    std::iter::once("postgres".to_string()).chain(settings).collect(),
                )
            }
        }
    }

    /// A file of settings, and where it belongs.
    pub fn settings(self, member: &str, address: Ipv4Addr, namespace: &str) -> Option<(Files, &'static str)> {
        let Self::Patroni(times) = self else { return None };
        let text = patroni_yml(times, member, address, namespace).to_string();
        Some((Files::new(&[("patroni.yml", 0o644, &text)]), "/etc/patroni"))
    }

    /// Whether its own idea of the cluster is that all is well.
    pub fn content(self, world: &World, primary: &Member<'_>, members: usize) -> bool {
        match self {
            Self::Patroni(_) => {
                let (code, body) = http(primary.address, "GET", "/cluster", "");
                let cluster: Value = serde_json::from_str(&body).unwrap_or_default();
                let state = |m: &Value| {
                    let (role, state) = (m["role"].as_str(), m["state"].as_str());
                    (role == Some("leader") && state == Some("running")) || state == Some("streaming")
                };
                code == 200 && cluster["members"].as_array().is_some_and(|m| m.len() == members && m.iter().all(state))
            }
            // All may take over, by the Lease.
            Self::Podgres { .. } => {
                let path = format!("{COORDINATION}/namespaces/{}/leases/{NAME}", world.namespace);
                let lease = world.api.get(&path).unwrap_or_default();
                let record = lease["metadata"]["annotations"]["podgres.io/record"].as_str().unwrap_or_default();
                let record: Value = serde_json::from_str(record).unwrap_or_default();
                http(primary.address, "GET", "/primary", "").0 == 200
                    && record["members"].as_array().is_some_and(|m| m.len() == members)
            }
        }
    }

    /// Asks for the primary to be `to`, as a user does; whether it was accepted.
    pub fn hand_over(self, world: &World, from: &Member<'_>, to: &Member<'_>) -> bool {
        match self {
            // What `patronictl switchover` sends.
            Self::Patroni(_) => {
                let body = json!({"leader": from.name, "candidate": to.name}).to_string();
                http(from.address, "POST", "/switchover", &body).0 == 200
            }
            Self::Podgres { .. } => {
                let annotation = json!({"metadata": {"annotations": {"podgres.io/promote": "1"}}});
                world.api.try_patch(&world.pod_path(&to.name), &annotation).is_ok()
            }
        }
    }
}

fn patroni_yml(times: Times, member: &str, address: Ipv4Addr, namespace: &str) -> Value {
    let parameters: serde_json::Map<_, _> = PARAMETERS.iter().map(|(k, v)| ((*k).into(), json!(v))).collect();
    // JSON is YAML.
    json!({
        "scope": NAME,
        "name": member,
        "restapi": {"listen": "0.0.0.0:8008", "connect_address": format!("{address}:8008")},
        "kubernetes": {
            "namespace": namespace, "labels": {"application": "patroni"}, "scope_label": "cluster-name",
            "use_endpoints": false
        },
        "bootstrap": {
            "dcs": {
                "ttl": times.ttl, "loop_wait": times.loop_wait, "retry_timeout": times.retry_timeout,
                // So that a former primary comes back by itself; the rest is Patroni's default.
                "postgresql": {"use_pg_rewind": true, "parameters": parameters}
            },
            "initdb": [{"auth-host": "trust"}, {"auth-local": "trust"}]
        },
        "postgresql": {
            "listen": "0.0.0.0:5432", "connect_address": format!("{address}:5432"),
            "data_dir": "/var/lib/postgresql/data/pgdata", "pgpass": "/tmp/pgpass",
            "bin_dir": "/usr/lib/postgresql/15/bin",
            "remove_data_directory_on_rewind_failure": true, "remove_data_directory_on_diverged_timelines": true,
            "pg_hba": ["local all all trust", "host all all all trust", "host replication all all trust"],
            "parameters": {"unix_socket_directories": "/var/run/postgresql"},
            "authentication": {
                "superuser": {"username": "postgres", "password": PASSWORD},
                "replication": {"username": "replicator", "password": PASSWORD}
            }
        }
    })
}

/// Made at its first use.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn patroni_image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/kubernetes/patroni-image");
        let output = Command::new(script).arg(image(15)).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{script} failed");
        stdout(&output)
    })
}

/// A request to a member's HTTP port; the status code (0: no answer) and the body.
fn http(address: Ipv4Addr, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    client::request(address, Duration::from_secs(60), &text)
}
