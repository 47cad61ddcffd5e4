//! What `podgres check` says of a member in Kubernetes: its pod, its token, the API, and each right that it needs.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use super::{
    Verdict::{self, Bad, Doubtful, Good},
    Verdicts,
};
use crate::{
    cluster::{
        identity::Identity,
        kubernetes::{Error, Kubernetes, RIGHTS, Right, Server},
    },
    settings::kubernetes::{Kubernetes as Settings, TOKEN},
};

/// How long the API may take to show the Lease.
const DEADLINE: Duration = Duration::from_secs(5);

/// One row each.
pub(super) fn examine(settings: &Settings) -> Verdicts {
    let mut verdicts = vec![("process 1", process_1()), ("token", token(Path::new(TOKEN)))];
    verdicts.extend(match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(api(settings)),
        Err(e) => vec![("Kubernetes API", Bad(format!("cannot begin to ask: {e}")))],
    });
    verdicts
}

/// Whether podgres is PID 1 of a namespace of its own. `check` is, or whoever it was executed beside.
fn process_1() -> Verdict {
    const CURE: &str = "a leader whose Lease runs out kills every process that it sees, and must see no others. Remove \
                        hostPID and shareProcessNamespace from the pod, and let the container's command be podgres itself, \
                        not a shell or another init that runs it";
    let file = |path: &str| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let name = |path: &str| fs::read_to_string(path).unwrap_or_default().trim_end().to_string();
    let (one, own) = (name("/proc/1/comm"), name("/proc/self/comm"));
    match (std::process::id(), file("/proc/1/exe"), file("/proc/self/exe")) {
        (1, ..) => Good("podgres".into()),
        (_, Some(one), Some(own)) if one == own => Good("podgres".into()),
        // A manager that runs lets nobody see its file ([`crate::pid1::hidden`]), and everybody its name.
        (_, None, Some(_)) if one == own => Good("podgres".into()),
        _ => Bad(format!("is {}, not podgres: {CURE}", if one.is_empty() { "unknown" } else { one.as_str() })),
    }
}

fn token(path: &Path) -> Verdict {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Bad(format!("{shown} is empty: delete the pod, so that it gets another")),
        Ok(_) => Good(format!("{shown} can be read")),
        Err(e) => Bad(format!(
            "{shown} cannot be read as uid {}: {e}. Give the pod a service account (serviceAccountName) and do not set \
             automountServiceAccountToken to false",
            nix::unistd::geteuid()
        )),
    }
}

async fn api(settings: &Settings) -> Verdicts {
    const API: &str = "Kubernetes API";
    let server = match Server::of_pod(|name| std::env::var(name).ok()) {
        Ok(server) => server,
        Err(error) => return vec![(API, Bad(error.to_string()))],
    };
    let kubernetes = match Kubernetes::connect_to(&server, &settings.identity) {
        Ok(kubernetes) => kubernetes,
        Err(error) => return vec![(API, Bad(error.to_string()))],
    };
    let mut verdicts = vec![(API, Good(format!("answers at {} port {}", server.host, server.port)))];
    for rights in RIGHTS.chunk_by(|a, b| a.resource == b.resource) {
        let mut refused = Vec::new();
        for right in rights {
            match kubernetes.may(right).await {
                Ok(true) => {}
                Ok(false) => refused.push(right.verb),
                // Whoever does not answer one question is not asked the others.
                Err(error) => {
                    verdicts[0] = (API, Bad(error.to_string()));
                    return verdicts;
                }
            }
        }
        verdicts.push((rights[0].resource, may(rights, &refused)));
    }
    verdicts.push(("service account", may_beyond(kubernetes.may_beyond().await)));
    verdicts.push(("pod", pod(&kubernetes, &settings.identity).await));
    verdicts.push(("Lease", lease(&kubernetes).await));
    verdicts
}

fn may(rights: &[Right], refused: &[&str]) -> Verdict {
    let Right { group, resource, .. } = rights[0];
    if refused.is_empty() {
        let all: Vec<_> = rights.iter().map(|right| right.verb).collect();
        return Good(format!("may {}", all.join(", ")));
    }
    Bad(format!(
        "the service account may not {}: its Role has to allow that on {resource} of the API group {group:?}. `podgres \
         manifest` prints a Role that allows all",
        refused.join(", ")
    ))
}

/// Whoever gets hold of the token may do this too: PostgreSQL's superuser can read it.
fn may_beyond(more: Result<Vec<String>, Error>) -> Verdict {
    const NAMED: usize = 5;
    match more {
        Ok(more) if more.is_empty() => Good("may nothing else".into()),
        Ok(more) => {
            let rest = more.len().saturating_sub(NAMED);
            let and = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            Doubtful(format!(
                "may also {}{and}, which podgres never does: the Role that `podgres manifest` prints is enough",
                more.into_iter().take(NAMED).collect::<Vec<_>>().join(", ")
            ))
        }
        Err(error) => Doubtful(error.to_string()),
    }
}

async fn pod(kubernetes: &Kubernetes, identity: &Identity) -> Verdict {
    let Identity { pod, namespace, ip, cluster, .. } = identity;
    match kubernetes.is_labelled().await {
        Ok(true) => Good(format!("{namespace}/{pod} at {ip}, of the cluster {cluster}")),
        Ok(false) => Bad(format!(
            "{namespace}/{pod} has not the label podgres.io/cluster={cluster}, so that no member sees it: put the label \
             into the StatefulSet's template (spec.template.metadata.labels)"
        )),
        Err(error) => refused_or_bad(&error),
    }
}

/// A refusal is in a row of its own already.
fn refused_or_bad(error: &Error) -> Verdict {
    match error {
        Error::Forbidden(text) => Doubtful(text.clone()),
        error => Bad(error.to_string()),
    }
}

/// What a member that starts now would find.
async fn lease(kubernetes: &Kubernetes) -> Verdict {
    match kubernetes.read_lease(DEADLINE).await {
        Ok(None) => Good("not there yet: the first member makes it".into()),
        Ok(Some(lease)) if lease.holder.is_empty() => Good(format!("held by nobody, term {}", lease.term)),
        Ok(Some(lease)) => Good(format!("held by {}, term {}", lease.holder, lease.term)),
        Err(error) => refused_or_bad(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_named_with_its_place_in_the_role() {
        let leases: Vec<_> = RIGHTS.into_iter().filter(|right| right.resource == "leases").collect();
        assert!(matches!(may(&leases, &[]), Good(text) if text == "may get, list, watch, patch, create"));
        let Bad(text) = may(&leases, &["patch", "create"]) else { panic!("refused") };
        assert!(text.contains("may not patch, create") && text.contains("\"coordination.k8s.io\""), "{text}");
    }

    #[test]
    fn what_is_too_much_is_a_warning_and_not_endless() {
        assert!(matches!(may_beyond(Ok(Vec::new())), Good(_)));
        let Doubtful(text) = may_beyond(Ok(vec!["delete pods".into()])) else { panic!("too much") };
        assert!(text.starts_with("may also delete pods, which podgres never does"), "{text}");
        let Doubtful(text) = may_beyond(Ok((0..7).map(|n| format!("get x{n}")).collect())) else { panic!("too much") };
        assert!(text.contains("get x4 and 2 more,"), "{text}");
        assert!(matches!(may_beyond(Err(Error::Timeout("late".into()))), Doubtful(text) if text == "late"));
    }

    #[test]
    fn a_token_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(token(file.path()), Bad(text) if text.contains("is empty")));
        std::fs::write(file.path(), "hush").unwrap();
        assert!(matches!(token(file.path()), Good(text) if !text.contains("hush")));
        assert!(matches!(token(Path::new("/does/not/exist")), Bad(text) if text.contains("serviceAccountName")));
    }
}
