//! The commands of a cluster: what `kubectl annotate` would do, done by this member, which then waits for the outcome.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{Query, State},
    http::StatusCode,
};
use serde::Deserialize;

use super::{
    Api,
    commands::{Answer, refused},
};
use crate::{
    cluster::kubernetes::Kubernetes,
    ha::{
        self,
        member::{Account, ClusterView},
    },
    lifecycle::{Phase, Role},
    manager::ClusterEvent,
    postgres::replication::clone::random,
};

/// Longer than a hand-over may take; it goes on when nobody waits any more.
const PATIENCE: Duration = Duration::from_secs(75);
const POLL: Duration = Duration::from_millis(10);

const ALONE: &str = "this member is no member of a cluster in Kubernetes (mode is standalone)";

/// What an annotation `podgres.io/last-command` says.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Outcome {
    command: String,
    outcome: String,
    message: String,
}

/// Asks for this member as the primary, and waits.
pub(super) async fn promote(api: &Api) -> Answer {
    let (Some(kubernetes), Some(snapshot)) = (&api.kubernetes, api.snapshot().await) else { return refused(ALONE) };
    if snapshot.memory.phase == (Phase::Running { role: Role::Primary }) {
        return (StatusCode::OK, "this member is the primary\n".into());
    }
    let Some(before) = snapshot.cluster else { return refused(ALONE) };
    if let Some(why) = no_hand_over(&before) {
        return refused(why);
    }
    let asked = [("podgres.io/promote", Some(format!("{:08x}", random() & 0xffff_ffff)))].into();
    match annotate_pod(kubernetes, &before, asked).await {
        Ok(()) => outcome(api, &before, "promote").await,
        Err(why) => refused(why),
    }
}

/// Says what a promotion by force may lose.
pub(super) async fn cost(api: &Api) -> Answer {
    let Some(snapshot) = api.snapshot().await else { return refused("the manager's loop does not turn") };
    let Some(view) = snapshot.cluster.clone() else { return refused(ALONE) };
    if let Some(why) = no_force(&view, &snapshot.memory.phase) {
        return refused(why);
    }
    let answers = api.answers(&snapshot).await;
    let Some(Ok(own)) = answers.get(&view.pod) else { return refused("this member does not say how far it is") };
    (StatusCode::OK, in_words(&view, own, &answers))
}

/// Makes this member the primary with what it has, and waits.
pub(super) async fn force(api: &Api) -> Answer {
    let Some(snapshot) = api.snapshot().await else { return refused("the manager's loop does not turn") };
    let Some(view) = snapshot.cluster else { return refused(ALONE) };
    if let Some(why) = no_force(&view, &snapshot.memory.phase) {
        return refused(why);
    }
    if !api.send(ClusterEvent::Input(ha::Input::Force).into()).await {
        return refused("the manager's loop does not turn");
    }
    let promoted = async {
        while api.snapshot().await.is_none_or(|s| s.memory.phase != (Phase::Running { role: Role::Primary })) {
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(FORCE_PATIENCE, promoted).await {
        Ok(()) => (StatusCode::OK, "this member is the primary\n".into()),
        Err(_) => refused("it is asked for and has not happened yet; podgres status shows how it goes"),
    }
}

/// A Lease that has to run out first does so by then.
const FORCE_PATIENCE: Duration = Duration::from_secs(60);

/// The Lease is not overridden.
fn no_force(view: &ClusterView, phase: &Phase) -> Option<String> {
    let holder = view.lease.as_ref().map(|l| l.holder.as_str()).filter(|holder| !holder.is_empty());
    let leads =
        holder.and_then(|h| view.pods.get(h)).and_then(|p| p.status.as_ref()).is_some_and(|s| s.role == "primary");
    match (holder, phase) {
        (_, Phase::Running { role: Role::Primary }) => Some("this member is the primary already".into()),
        (Some(holder), _) if leads && view.findings.is_empty() => {
            Some(format!("{holder} is in office: podgres promote hands over from it without losing anything"))
        }
        (_, Phase::Running { role: Role::Standby }) => None,
        (_, phase) => Some(format!("PostgreSQL does not run as a standby here: it is {}", phase.name())),
    }
}

/// What others have that this one has not, as far as they say.
fn in_words(view: &ClusterView, own: &Account, answers: &BTreeMap<String, Result<Account, String>>) -> String {
    let record = view.lease.as_ref().and_then(|l| l.record.as_ref());
    let members = record.into_iter().flat_map(|r| &r.members).map(|m| m.pod.as_str()).filter(|pod| *pod != view.pod);
    let began = |a: &Account| a.began.map_or(0, |b| b.term);
    let one = |pod: &str| match answers.get(pod) {
        Some(Ok(other)) if began(other) > began(own) => format!("{pod} has a later history: what it has since is lost"),
        Some(Ok(other)) if other.lsn > own.lsn => {
            format!("{pod} has {} bytes more, which are lost", other.lsn - own.lsn)
        }
        Some(Ok(_)) => format!("{pod} has nothing more"),
        _ => format!("{pod} does not answer: what only it has is lost"),
    };
    let lines: Vec<String> = members.map(one).collect();
    let lines = if lines.is_empty() { vec!["nobody else may have more".into()] } else { lines };
    lines.join("\n") + "\n"
}

#[derive(Debug, Deserialize)]
pub(super) struct To {
    to: String,
}

/// Asks for another primary, and waits.
pub(super) async fn switchover(State(api): State<Api>, Query(To { to }): Query<To>) -> Answer {
    let (Some(kubernetes), Some(before)) = (&api.kubernetes, cluster(&api).await) else { return refused(ALONE) };
    if let Some(why) = no_hand_over(&before) {
        return refused(why);
    }
    if to != "any" && !before.pods.contains_key(&to) {
        let members = before.pods.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return refused(format!("the cluster has no member {to}: its members are {members}"));
    }
    let asked = [("podgres.io/switchover-to", Some(to))].into();
    match kubernetes.patch_lease_annotations(&asked).await {
        Ok(_) => outcome(&api, &before, "switchover").await,
        Err(error) => refused(error.to_string()),
    }
}

fn no_hand_over(view: &ClusterView) -> Option<&'static str> {
    let lease = view.lease.as_ref();
    match lease {
        Some(lease) if lease.is_paused() => Some("the cluster is paused: podgres resume ends that"),
        Some(lease) if !lease.holder.is_empty() => None,
        _ => Some("no member leads the cluster, so nobody can hand it over; podgres status says why"),
    }
}

/// Waits until some member has written the outcome of `command` since `before`.
async fn outcome(api: &Api, before: &ClusterView, command: &str) -> Answer {
    let waited = async {
        loop {
            if let Some(told) = cluster(api).await.and_then(|now| news(before, &now, command)) {
                return told;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waited).await {
        Ok(told) if told.outcome == "done" => (StatusCode::OK, format!("{}\n", told.message)),
        Ok(told) => refused(told.message),
        Err(_) => refused(format!(
            "the {command} is asked for and nothing has come of it within {} s; podgres status shows how it goes",
            PATIENCE.as_secs()
        )),
    }
}

fn news(before: &ClusterView, now: &ClusterView, command: &str) -> Option<Outcome> {
    let last = |view: &ClusterView, name: &str| view.pods.get(name).and_then(|p| p.last_command.clone());
    let mut changed = now.pods.keys().filter(|name| last(now, name) != last(before, name));
    changed.find_map(|name| {
        let told: Outcome = serde_json::from_str(&last(now, name)?).ok()?;
        (told.command == command).then_some(told)
    })
}

#[derive(Debug, Deserialize)]
pub(super) struct Fence {
    state: String,
}

/// Keeps this member's PostgreSQL down, or no longer.
pub(super) async fn fence(State(api): State<Api>, Query(Fence { state }): Query<Fence>) -> Answer {
    let (Some(kubernetes), Some(view)) = (&api.kubernetes, cluster(&api).await) else { return refused(ALONE) };
    let value = (state == "on").then(|| "true".to_string());
    let said = if value.is_some() {
        "fenced: PostgreSQL is stopped here and stays down until podgres fence off\n"
    } else {
        "no longer fenced: PostgreSQL is started\n"
    };
    match annotate_pod(kubernetes, &view, [("podgres.io/fenced", value)].into()).await {
        Ok(()) => (StatusCode::OK, said.into()),
        Err(why) => refused(why),
    }
}

/// Nothing is to happen by itself.
pub(super) async fn pause(State(api): State<Api>) -> Answer {
    let said = "paused: nobody is promoted, demoted or replaced until podgres resume\n";
    annotate_lease(&api, Some("true".into()), said).await
}

/// The end of a pause.
pub(super) async fn resume(State(api): State<Api>) -> Answer {
    annotate_lease(&api, None, "resumed: failover is automatic again\n").await
}

async fn annotate_lease(api: &Api, paused: Option<String>, said: &str) -> Answer {
    let Some(kubernetes) = &api.kubernetes else { return refused(ALONE) };
    match kubernetes.patch_lease_annotations(&[("podgres.io/paused", paused)].into()).await {
        Ok(_) => (StatusCode::OK, said.into()),
        Err(error) => refused(error.to_string()),
    }
}

async fn annotate_pod(
    kubernetes: &Kubernetes,
    view: &ClusterView,
    annotations: BTreeMap<&str, Option<String>>,
) -> Result<(), String> {
    let uid = view.pods.get(&view.pod).map(|p| p.uid.clone());
    let Some(uid) = uid else { return Err(format!("the API does not show the pod {}", view.pod)) };
    kubernetes.patch_pod(&view.pod, &uid, &BTreeMap::new(), &annotations).await.map_err(|e| e.to_string())
}

async fn cluster(api: &Api) -> Option<ClusterView> {
    api.snapshot().await?.cluster
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha::member::Pod;

    fn view(outcomes: &[(&str, &str)]) -> ClusterView {
        let pod = |(name, text): &(&str, &str)| {
            (name.to_string(), Pod { last_command: Some(text.to_string()), ..Pod::default() })
        };
        ClusterView { pods: outcomes.iter().map(pod).collect(), ..ClusterView::default() }
    }

    #[test]
    fn only_a_new_outcome_of_the_same_command_is_news() {
        let told = |n: u32| format!(r#"{{"command":"promote","outcome":"done","message":"m{n}","term":1}}"#);
        let before = view(&[("a", &told(1)), ("b", "")]);
        assert_eq!(news(&before, &before, "promote"), None);
        let now = view(&[("a", &told(1)), ("b", &told(2))]);
        assert_eq!(news(&before, &now, "promote").unwrap().message, "m2");
        assert_eq!(news(&before, &now, "switchover"), None);
    }
}
