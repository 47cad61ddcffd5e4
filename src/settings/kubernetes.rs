//! The settings of Kubernetes mode, and what the downward API says of the pod.
//!
//! The times are checked together: a leader that cannot renew must be dead before anybody else may lead.

use std::{net::IpAddr, path::Path, time::Duration};

use super::{Error, Mode, sources::Sources};
use crate::{cluster::identity::Identity, units};

/// The service account's token
/// (<https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api>).
pub const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The variables that the downward API has to give, each with the pod's field that it is taken from.
pub const POD_VARIABLES: [(&str, &str); 4] = [
    ("POD_NAME", "metadata.name"),
    ("POD_NAMESPACE", "metadata.namespace"),
    ("POD_UID", "metadata.uid"),
    ("POD_IP", "status.podIP"),
];

/// What only a member of a cluster in Kubernetes needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// The pod, and `cluster`.
    pub identity: Identity,
    /// `lease-duration`, in whole seconds.
    pub lease_duration: Duration,
    /// `renew-interval`.
    pub renew_interval: Duration,
    /// `fence-margin`.
    pub fence_margin: Duration,
    /// `max-lag-on-failover`, in bytes of WAL.
    pub max_lag: u64,
    /// `priority`; 0: never.
    pub priority: u32,
    /// `start-timeout`.
    pub start_timeout: Duration,
    /// `sync` and `sync-strict`.
    pub sync: Sync,
    /// `failsafe`.
    pub failsafe: bool,
}

/// How many standbys confirm each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sync {
    /// `sync`; 0: none.
    pub standbys: usize,
    /// `sync-strict`: rather none is committed than fewer confirm it.
    pub strict: bool,
}

/// `mode`, with auto decided. `token` is [`TOKEN`] but for tests.
pub(super) fn mode(sources: &Sources, environment: &[(String, String)], token: &Path) -> Result<Mode, Error> {
    let given = sources.parse("mode", "auto, standalone or kubernetes", |v| match v {
        "auto" => Some(None),
        "standalone" => Some(Some(Mode::Standalone)),
        "kubernetes" => Some(Some(Mode::Kubernetes)),
        _ => None,
    })?;
    let pod = variable(environment, "POD_NAME").is_some() && token.exists();
    let found = if pod { Mode::Kubernetes } else { Mode::Standalone };
    Ok(given.flatten().unwrap_or(found))
}

/// The settings, checked in every mode; none where the mode is another.
pub(super) fn load(
    sources: &Sources,
    environment: &[(String, String)],
    mode: Mode,
    (standby, password): (bool, bool),
) -> Result<Option<Kubernetes>, Error> {
    let times = Times::load(sources)?;
    let sync = sync(sources, mode, password)?;
    let failsafe = sources.parse("failsafe", "on or off", |v| match v {
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    })?;
    let max_lag = sources.parse("max-lag-on-failover", "a size such as 16MB or 1GB", units::parse_size)?;
    let priority = sources.parse("priority", "a whole number, 0 or more", |v| v.parse().ok())?;
    let start_timeout = sources.parse("start-timeout", "a duration such as 300s, at least 1s", super::parse_timeout)?;
    let cluster = sources.parse("cluster", LABEL, |v| Some(v.to_string()).filter(|v| is_label(v)))?;
    if mode != Mode::Kubernetes {
        return Ok(None);
    }
    if standby {
        return Err(Error::Together(
            "standby-of names a source, but in mode kubernetes the Lease says whom a member follows: remove standby-of, \
             or set mode to standalone"
                .into(),
        ));
    }
    Ok(Some(Kubernetes {
        identity: identity(environment, cluster)?,
        lease_duration: times.lease,
        renew_interval: times.renew,
        fence_margin: times.margin,
        max_lag: max_lag.unwrap_or(16 << 20),
        priority: priority.unwrap_or(100),
        start_timeout: start_timeout.unwrap_or(Duration::from_secs(300)),
        sync,
        failsafe: failsafe.unwrap_or(true),
    }))
}

/// `password`: whether the members know one of each other, by which they know who asks for a vote.
fn sync(sources: &Sources, mode: Mode, password: bool) -> Result<Sync, Error> {
    let standbys =
        sources.parse("sync", "a whole number from 0 to 16", |v| v.parse().ok().filter(|n| *n <= MOST_SYNC))?;
    let strict = sources.parse("sync-strict", "true or false", |v| v.parse().ok())?;
    let sync = Sync { standbys: standbys.unwrap_or(0), strict: strict.unwrap_or(false) };
    let refuse = |why: &str| Err(Error::Together(why.into()));
    match sync {
        Sync { standbys: 0, strict: true } => refuse(
            "sync-strict is true and sync is 0, so that there is nothing to be strict about: set sync to 1 or more",
        ),
        Sync { standbys: 1.., .. } if mode != Mode::Kubernetes => refuse(
            "sync is for mode kubernetes, where the members know who may take over: remove sync, or set \
             synchronous_standby_names in postgresql.conf",
        ),
        Sync { standbys: 1.., .. } if !password => refuse(
            "sync lets members vote, and they know each other by the password of replication: set POSTGRES_PASSWORD or \
             replication-password",
        ),
        sync => Ok(sync),
    }
}

/// More standbys than anybody has.
const MOST_SYNC: usize = 16;

struct Times {
    lease: Duration,
    renew: Duration,
    margin: Duration,
}

impl Times {
    fn load(sources: &Sources) -> Result<Self, Error> {
        let duration = |name, wanted, good: fn(&Duration) -> bool, default| {
            let parsed = sources.parse(name, wanted, |v| humantime::parse_duration(v).ok().filter(good));
            parsed.map(|given| given.unwrap_or(Duration::from_secs(default)))
        };
        let times = Self {
            lease: duration("lease-duration", "a duration in whole seconds such as 10s, at most 1h", is_lease, 10)?,
            renew: duration("renew-interval", "a duration such as 2s, at least 100ms", is_interval, 2)?,
            margin: duration("fence-margin", "a duration such as 2s", |_| true, 2)?,
        };
        times.check().map_err(Error::Together).map(|()| times)
    }

    /// Two renewals may fail before the third is the leader's last, and a fenced leader is dead before the Lease runs
    /// out: 1.5 s for the kill, 2 % for two clocks that are off by 1 % each.
    fn check(&self) -> Result<(), String> {
        let shown = |d: Duration| humantime::format_duration(d).to_string().replace(' ', "");
        let (lease, renew, margin) = (shown(self.lease), shown(self.renew), shown(self.margin));
        let least = Duration::from_millis(1500) + self.lease / 50;
        if self.margin < least {
            return Err(format!(
                "fence-margin is {margin}, but a lease-duration of {lease} needs at least {} (1.5s and 2 % of it): \
                 raise fence-margin",
                shown(least)
            ));
        }
        let needed = 3 * self.renew;
        if self.lease.saturating_sub(self.margin) < needed {
            return Err(format!(
                "lease-duration is {lease}, which does not leave room for three renewals (renew-interval {renew}) and \
                 fence-margin ({margin}): raise lease-duration to at least {}s, or lower renew-interval",
                (needed + self.margin).as_secs_f64().ceil()
            ));
        }
        Ok(())
    }
}

/// The Lease holds whole seconds. An hour is more than anybody means.
fn is_lease(given: &Duration) -> bool {
    given.subsec_nanos() == 0 && (1..=3600).contains(&given.as_secs())
}

/// Ten writes a second are as much as an API server should bear from one cluster.
fn is_interval(given: &Duration) -> bool {
    (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(given)
}

fn variable<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment.iter().find(|(k, v)| k == name && !v.is_empty()).map(|(_, v)| v.as_str())
}

fn identity(environment: &[(String, String)], cluster: Option<String>) -> Result<Identity, Error> {
    let missing: Vec<_> = POD_VARIABLES.into_iter().filter(|(name, _)| variable(environment, name).is_none()).collect();
    if !missing.is_empty() {
        return Err(Error::Pod { missing });
    }
    let field = |name: &str, wanted: &str, good: fn(&str) -> bool| {
        let value = variable(environment, name).unwrap_or_default().to_string();
        if good(&value) { Ok(value) } else { Err(Error::Value { origin: name.into(), value, wanted: wanted.into() }) }
    };
    let pod = field("POD_NAME", LABEL, is_label)?;
    let cluster = match cluster.or_else(|| stateful_set(&pod).map(str::to_string)) {
        Some(cluster) => cluster,
        None => {
            return Err(Error::Together(format!(
                "POD_NAME is {pod:?}, which no StatefulSet gave (it ends in no number), so that the cluster has no \
                 name: set cluster"
            )));
        }
    };
    Ok(Identity {
        namespace: field("POD_NAMESPACE", LABEL, is_label)?,
        uid: field("POD_UID", "the pod's uid", |v| v.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))?,
        ip: field("POD_IP", "an IP address", |v| v.parse::<IpAddr>().is_ok())?,
        pod,
        cluster,
    })
}

/// The StatefulSet's name: the pod's without `-<ordinal>`
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-identity>).
fn stateful_set(pod: &str) -> Option<&str> {
    let (name, ordinal) = pod.rsplit_once('-')?;
    (is_label(name) && !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

const LABEL: &str = "a DNS label: at most 63 lower-case letters, digits and hyphens, no hyphen at either end";

/// Whether `text` is a DNS label as Kubernetes has them
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names>).
pub fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::{super::Settings, *};

    const POD: [(&str, &str); 4] = [
        ("POD_NAME", "my-db-12"),
        ("POD_NAMESPACE", "prod"),
        ("POD_UID", "0b7b5f1c-3b5e-4f0c-8d6e-1f2e3d4c5b6a"),
        ("POD_IP", "10.0.0.7"),
    ];

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    /// In mode kubernetes with the pod's variables, of which `other` replaces or adds some.
    fn with(other: &[(&str, &str)]) -> Result<Kubernetes, String> {
        let pod = POD.iter().filter(|(name, _)| !other.iter().any(|(k, _)| k == name));
        let all: Vec<_> = [("PODGRES_MODE", "kubernetes")].iter().chain(pod).chain(other).copied().collect();
        Settings::load(&Default::default(), &env(&all)).map(|s| s.kubernetes.unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults() {
        let found = with(&[]).unwrap();
        let identity = Identity {
            pod: "my-db-12".into(),
            namespace: "prod".into(),
            uid: POD[2].1.into(),
            ip: "10.0.0.7".into(),
            cluster: "my-db".into(),
        };
        let seconds = Duration::from_secs;
        let expected = Kubernetes {
            identity,
            lease_duration: seconds(10),
            renew_interval: seconds(2),
            fence_margin: seconds(2),
            max_lag: 16 << 20,
            priority: 100,
            start_timeout: seconds(300),
            failsafe: true,
            sync: Sync::default(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn auto_is_kubernetes_where_there_are_a_token_and_a_pods_name() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        let found = |pairs: &[(&str, &str)]| {
            let sources = Sources::gather(&Default::default(), &env(pairs)).unwrap();
            mode(&sources, &env(pairs), &token).unwrap()
        };
        assert_eq!(found(&POD), Mode::Standalone);
        std::fs::write(&token, "x").unwrap();
        assert_eq!(found(&POD), Mode::Kubernetes);
        assert_eq!(found(&[("PODGRES_MODE", "auto"), POD[0]]), Mode::Kubernetes);
        assert_eq!(found(&[]), Mode::Standalone);
        assert_eq!(found(&[("POD_NAME", "")]), Mode::Standalone);
        assert_eq!(found(&[("PODGRES_MODE", "standalone"), POD[0]]), Mode::Standalone);
    }

    #[test]
    fn a_mode_that_is_none_is_named_with_those_that_are() {
        let text = Settings::load(&Default::default(), &env(&[("PODGRES_MODE", "k8s")])).unwrap_err().to_string();
        assert!(text.contains("auto, standalone or kubernetes"), "{text}");
    }

    #[test]
    fn each_missing_variable_is_named_with_its_field() {
        let text = with(&[("POD_UID", ""), ("POD_IP", "")]).unwrap_err();
        assert!(text.contains("POD_UID (metadata.uid), POD_IP (status.podIP)"), "{text}");
        assert!(!text.contains("POD_NAME"), "{text}");
    }

    #[test]
    fn names_are_dns_labels() {
        assert!(with(&[("POD_NAMESPACE", "Prod")]).unwrap_err().contains("POD_NAMESPACE"));
        assert!(with(&[("POD_IP", "db-0")]).unwrap_err().contains("IP address"));
        assert!(with(&[("PODGRES_CLUSTER", "a.b")]).unwrap_err().contains("PODGRES_CLUSTER"));
        assert!(with(&[("POD_IP", "fd00::7")]).is_ok());
        for name in ["", "-a", "a-", "a_b", "ä", &"a".repeat(64)] {
            assert!(!is_label(name), "{name}");
        }
        assert!(is_label(&"a".repeat(63)) && is_label("0"));
    }

    #[test]
    fn a_pod_of_no_stateful_set_needs_the_clusters_name() {
        assert!(with(&[("POD_NAME", "db")]).unwrap_err().contains("set cluster"));
        assert!(with(&[("POD_NAME", "db-x7f2p")]).unwrap_err().contains("set cluster"));
        let found = with(&[("POD_NAME", "db"), ("PODGRES_CLUSTER", "other")]).unwrap();
        assert_eq!(found.identity.cluster, "other");
    }

    #[test]
    fn a_source_and_a_lease_contradict_each_other() {
        let text = with(&[("PODGRES_STANDBY_OF", "host=a password=hush")]).unwrap_err();
        assert!(text.contains("standby-of") && !text.contains("hush"), "{text}");
    }

    #[test]
    fn the_margin_covers_the_kill_and_the_clocks() {
        let margin = |lease, margin| with(&[("PODGRES_LEASE_DURATION", lease), ("PODGRES_FENCE_MARGIN", margin)]);
        assert!(margin("10s", "1700ms").is_ok());
        assert!(margin("10s", "1699ms").unwrap_err().contains("at least 1s700ms"));
        assert!(margin("60s", "2s").unwrap_err().contains("2s700ms"));
    }

    #[test]
    fn three_renewals_fit_before_the_fence() {
        let renew = |lease, renew| with(&[("PODGRES_LEASE_DURATION", lease), ("PODGRES_RENEW_INTERVAL", renew)]);
        assert!(renew("8s", "2s").is_ok());
        assert!(renew("7s", "2s").unwrap_err().contains("at least 8s"));
        assert!(renew("1s", "2s").unwrap_err().contains("at least 8s"));
    }

    #[test]
    fn synchronous_clusters_are_kubernetes_with_a_password() {
        let password = ("POSTGRES_PASSWORD", "hush");
        let sync = |pairs: &[(&str, &str)]| with(pairs).map(|k| k.sync);
        let (one, strict) = (("PODGRES_SYNC", "1"), ("PODGRES_SYNC_STRICT", "true"));
        assert_eq!(sync(&[one, password]), Ok(Sync { standbys: 1, strict: false }));
        assert_eq!(sync(&[one, strict, password]), Ok(Sync { standbys: 1, strict: true }));
        assert!(sync(&[strict]).unwrap_err().contains("sync is 0"));
        assert!(sync(&[one]).unwrap_err().contains("replication-password"));
        let standalone = Settings::load(&Default::default(), &env(&[one, password])).unwrap_err().to_string();
        assert!(standalone.contains("mode kubernetes"), "{standalone}");
    }

    #[test]
    fn values_that_make_no_sense_are_refused_in_every_mode() {
        for (name, value) in [
            ("PODGRES_LEASE_DURATION", "10500ms"),
            ("PODGRES_LEASE_DURATION", "0s"),
            ("PODGRES_LEASE_DURATION", "1day"),
            ("PODGRES_RENEW_INTERVAL", "0s"),
            ("PODGRES_MAX_LAG_ON_FAILOVER", "little"),
            ("PODGRES_PRIORITY", "-1"),
            ("PODGRES_START_TIMEOUT", "0s"),
            ("PODGRES_SYNC", "some"),
            ("PODGRES_SYNC_STRICT", "yes"),
        ] {
            let standalone = Settings::load(&Default::default(), &env(&[(name, value)]));
            assert!(standalone.unwrap_err().to_string().contains(name), "{name}={value}");
        }
    }
}
