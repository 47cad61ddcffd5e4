//! Lease and pods as the API has them: the objects, their annotations, and what a watch tells of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use podgres::{
    fuzzing,
    ha::{
        lease::{Lease, PAUSED},
        member::{Pod, Status},
    },
};
use serde_json::{Map, Value, json};

/// What is said of a Lease goes into the log, the status and Events, which the API bounds.
const LONGEST: usize = 4096;

/// In the order of the lines of an input. Each is on the object unless its line is empty.
const OF_LEASES: [&str; 10] =
    ["term", "record", "free", "timeline", "system-id", "instance", "pod-uid", "address", "switchover-to", "paused"];
const OF_PODS: [&str; 6] = ["status", "fenced", "promote", "restart", "reinit", "last-command"];

fuzz_target!(|data: &[u8]| {
    let Some((what, data)) = data.split_first() else { return };
    match what % 5 {
        0 => lease(data),
        1 => pod(data),
        2 => lease(object(&OF_LEASES, data).to_string().as_bytes()),
        3 => pod(object(&OF_PODS, data).to_string().as_bytes()),
        _ => data.split(|&byte| byte == b'\n').for_each(watched),
    }
});

fn object(names: &[&str], data: &[u8]) -> Value {
    let text = String::from_utf8_lossy(data);
    let annotation = |(name, line): (&&str, &str)| (format!("podgres.io/{name}"), Value::from(line));
    let given = names.iter().zip(text.split('\n')).filter(|(_, line)| !line.is_empty());
    let annotations: Map<String, Value> = given.map(annotation).collect();
    json!({
        "metadata": { "name": "demo", "uid": "u", "resourceVersion": "7", "annotations": annotations },
        "spec": { "holderIdentity": "demo-0", "leaseDurationSeconds": 10, "renewTime": "2026-11-23T10:11:12.000000Z" },
    })
}

fn lease(json: &[u8]) {
    match fuzzing::lease(json) {
        Some(Ok(lease)) => same_lease(lease),
        Some(Err(nonsense)) => {
            let text = nonsense.to_string();
            assert!(text.len() <= LONGEST, "{} bytes: {}…", text.len(), text.chars().take(200).collect::<String>());
            assert!(!text.contains(char::is_control), "{text:?}");
        }
        None => {}
    }
}

/// What is written is read as it was, and who may lead is never read as something weaker.
fn same_lease(lease: Lease) {
    assert_eq!(lease.is_unfenced(), lease.duration >= PAUSED);
    let noted = lease.record.is_some() || lease.free.is_some() || lease.timeline.is_some();
    assert!(lease.term > 0 || !noted && lease.instance.is_empty(), "no term: {lease:?}");
    if let Some(record) = &lease.record {
        assert!(record.votes >= 1 && record.votes <= record.members.len(), "{record:?}");
    }
    let [anew, over] = fuzzing::written(&lease).expect("it can be written");
    assert_eq!(over["metadata"]["resourceVersion"], Value::from(lease.version.as_str()));
    // An annotation that is there and says nothing is not written.
    let lease = Lease { version: String::new(), ..lease };
    assert_eq!(fuzzing::lease(anew.to_string().as_bytes()), Some(Ok(lease)));
}

fn pod(json: &[u8]) {
    if let Some(pod) = fuzzing::pod(json) {
        same_pod(&pod);
    }
}

fn same_pod(pod: &Pod) {
    assert_eq!(pod.is_fenced(), pod.fenced.as_deref() == Some("true"));
    assert!(pod.ended.iter().all(|message| !message.is_empty()));
    if let Some(status) = &pod.status {
        let text = serde_json::to_string(status).expect("it can be written");
        assert_eq!(&serde_json::from_str::<Status>(&text).expect("it can be read"), status);
    }
}

fn watched(line: &[u8]) {
    let Some((lease, pod)) = fuzzing::watched(line) else { return };
    if let Some(Ok(lease)) = lease {
        same_lease(lease);
    }
    if let Some(pod) = pod {
        same_pod(&pod);
    }
}
