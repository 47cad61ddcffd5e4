//! Between Kubernetes' objects and the protocol's types. Pure.
//!
//! What is on the Lease decides who may lead, so it is never read as something weaker than what was written: a value that
//! makes no sense makes the whole Lease unreadable, and is told as such.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::objects::{LeaseObject, PodObject};
use crate::{
    ha::{
        lease::{Began, Free, Lease},
        member::Pod,
        record::Record,
    },
    units,
};

pub(super) const CLUSTER: &str = "podgres.io/cluster";
const ROLE: &str = "podgres.io/role";
const STATUS: &str = "podgres.io/status";
const INSTANCE: &str = "podgres.io/instance";
const TERM: &str = "podgres.io/term";
const POD_UID: &str = "podgres.io/pod-uid";
const ADDRESS: &str = "podgres.io/address";
const RECORD: &str = "podgres.io/record";
const SYSTEM_ID: &str = "podgres.io/system-id";
const TIMELINE: &str = "podgres.io/timeline";
const FREE: &str = "podgres.io/free";
const SWITCHOVER_TO: &str = "podgres.io/switchover-to";
const PAUSED: &str = "podgres.io/paused";

/// A Lease with an annotation that makes no sense. Nobody may stand by it; the leader in office, whom its own instance
/// tells that it is, may write it anew over this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the annotation {annotation} of the Lease makes no sense: {}; it says {:?}",
    units::beginning(why),
    units::beginning(value)
)]
pub struct Nonsense {
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `spec.holderIdentity`.
    pub holder: String,
    /// `podgres.io/instance`.
    pub instance: String,
    annotation: &'static str,
    why: String,
    value: String,
}

/// What an annotation says. None: it is not there.
///
/// # Errors
/// It makes no sense.
fn read<T>(
    object: &LeaseObject,
    annotation: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Box<Nonsense>> {
    let meta = &object.metadata;
    let Some(value) = meta.annotations.get(annotation) else { return Ok(None) };
    parse(value).map(Some).map_err(|why| nonsense(object, annotation, why, value))
}

fn nonsense(object: &LeaseObject, annotation: &'static str, why: String, value: &str) -> Box<Nonsense> {
    Box::new(Nonsense {
        version: object.metadata.resource_version.clone(),
        holder: object.spec.holder_identity.clone().unwrap_or_default(),
        instance: object.metadata.annotations.get(INSTANCE).cloned().unwrap_or_default(),
        annotation,
        why,
        value: value.to_owned(),
    })
}

/// # Errors
/// An annotation makes no sense.
pub(crate) fn lease(object: &LeaseObject) -> Result<Lease, Box<Nonsense>> {
    let (meta, spec) = (&object.metadata, &object.spec);
    let text = |annotation: &str| meta.annotations.get(annotation).cloned();
    let term = read(object, TERM, number)?;
    // Whoever writes one of these writes the term with it. Without it an election would begin from nothing.
    if term.is_none()
        && let Some(other) = [INSTANCE, RECORD, FREE, TIMELINE].iter().find(|a| meta.annotations.contains_key(**a))
    {
        return Err(nonsense(object, TERM, format!("it is not there, although {other} is"), ""));
    }
    Ok(Lease {
        version: meta.resource_version.clone(),
        holder: spec.holder_identity.clone().unwrap_or_default(),
        duration: Duration::from_secs(spec.lease_duration_seconds.unwrap_or_default().into()),
        renewed: spec.renew_time.clone().unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
        instance: text(INSTANCE).unwrap_or_default(),
        term: term.unwrap_or_default(),
        pod_uid: text(POD_UID).unwrap_or_default(),
        address: text(ADDRESS).unwrap_or_default(),
        record: read(object, RECORD, record)?,
        system_id: read(object, SYSTEM_ID, number)?,
        timeline: read(object, TIMELINE, timeline)?,
        free: read(object, FREE, free)?,
        switchover_to: text(SWITCHOVER_TO),
        paused: text(PAUSED),
    })
}

/// A number as podgres writes it: from 1, no sign, no blank.
fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|n| *n > 0 && text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| "a number from 1 is expected".into())
}

/// `{"votes":2,"members":[{"pod":"demo-0","copy":"…"},…]}`
fn record(text: &str) -> Result<Record, String> {
    let record: Record = serde_json::from_str(text).map_err(|e| format!("no record can be read from it: {e}"))?;
    if record.members.iter().any(|m| m.pod.is_empty() || m.copy.is_empty()) {
        return Err("a member has no name or no copy".into());
    }
    if !(1..=record.members.len()).contains(&record.votes) {
        return Err(format!("{} votes of {} members cannot be", record.votes, record.members.len()));
    }
    Ok(record)
}

/// `3 since term 7`
fn timeline(text: &str) -> Result<Began, String> {
    let expected = || "<timeline> since term <term> is expected".to_owned();
    let (timeline, term) = text.split_once(" since term ").ok_or_else(expected)?;
    let timeline = u32::try_from(number(timeline).map_err(|_| expected())?).map_err(|_| expected())?;
    Ok(Began { timeline, term: number(term).map_err(|_| expected())? })
}

const ANY: &str = "any";

/// `7 for 5f0c…`, `7 for any`
fn free(text: &str) -> Result<Free, String> {
    let expected = || "<term> for <copy or any> is expected".to_owned();
    let (term, to) = text.split_once(" for ").ok_or_else(expected)?;
    if to.is_empty() || to.contains(char::is_whitespace) {
        return Err(expected());
    }
    Ok(Free { term: number(term).map_err(|_| expected())?, to: (to != ANY).then(|| to.to_owned()) })
}

/// The protocol's annotations: what they are to be, none: not there.
fn annotations(lease: &Lease) -> Result<[(&'static str, Option<String>); 8], serde_json::Error> {
    let text = |t: &String| (!t.is_empty()).then(|| t.clone());
    Ok([
        (INSTANCE, text(&lease.instance)),
        (TERM, (lease.term > 0).then(|| lease.term.to_string())),
        (POD_UID, text(&lease.pod_uid)),
        (ADDRESS, text(&lease.address)),
        (RECORD, lease.record.as_ref().map(serde_json::to_string).transpose()?),
        (SYSTEM_ID, lease.system_id.map(|id| id.to_string())),
        (TIMELINE, lease.timeline.map(|b| format!("{} since term {}", b.timeline, b.term))),
        (FREE, lease.free.as_ref().map(|f| format!("{} for {}", f.term, f.to.as_deref().unwrap_or(ANY)))),
    ])
}

fn spec(lease: &Lease, now: &str) -> Value {
    // Whole seconds, and never fewer than were meant: others wait for this long.
    let seconds = lease.duration.as_secs() + u64::from(lease.duration.subsec_nanos() > 0);
    json!({
        "holderIdentity": (!lease.holder.is_empty()).then_some(&lease.holder),
        "leaseDurationSeconds": (seconds > 0).then_some(seconds),
        "renewTime": now,
        "leaseTransitions": lease.transitions,
    })
}

/// A merge patch over the version that was read. The user's annotations stay as they are.
pub(crate) fn lease_patch(over: &str, lease: &Lease, now: &str) -> Result<Value, serde_json::Error> {
    let annotations: Map<_, _> = annotations(lease)?.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
    Ok(json!({
        "metadata": { "resourceVersion": over, "annotations": annotations },
        "spec": spec(lease, now),
    }))
}

/// A Lease that is not there yet, with all that `lease` has.
pub(crate) fn lease_anew(cluster: &str, lease: &Lease, now: &str) -> Result<Value, serde_json::Error> {
    let users = [(SWITCHOVER_TO, lease.switchover_to.clone()), (PAUSED, lease.paused.clone())];
    let annotations: Map<_, _> = annotations(lease)?
        .into_iter()
        .chain(users)
        .filter_map(|(k, v)| Some((k.to_owned(), Value::from(v?))))
        .collect();
    Ok(json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": cluster, "labels": { CLUSTER: cluster }, "annotations": annotations },
        "spec": spec(lease, now),
    }))
}

/// A status that cannot be read is none: it decides nothing that a pod without one would not decide.
pub(crate) fn pod(object: &PodObject) -> Pod {
    let meta = &object.metadata;
    let text = |annotation: &str| meta.annotations.get(annotation).cloned();
    let ended = object.status.container_statuses.iter().flat_map(|c| [&c.state, &c.last_state]);
    Pod {
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        version: meta.resource_version.clone(),
        deleting: meta.deletion_timestamp.is_some(),
        ready: object.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True"),
        role: meta.labels.get(ROLE).cloned(),
        status: meta.annotations.get(STATUS).and_then(|s| serde_json::from_str(s).ok()),
        fenced: text("podgres.io/fenced"),
        promote: text("podgres.io/promote"),
        restart: text("podgres.io/restart"),
        reinit: text("podgres.io/reinit"),
        last_command: text("podgres.io/last-command"),
        ended: ended.filter_map(|s| s.terminated.as_ref()?.message.clone()).filter(|m| !m.is_empty()).collect(),
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
