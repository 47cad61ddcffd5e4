use std::collections::BTreeMap;

use super::*;
use crate::ha::{member::Status, record::Copy};

fn copy(pod: &str) -> Copy {
    Copy { pod: pod.into(), copy: format!("copy-of-{pod}") }
}

fn full() -> Lease {
    Lease {
        version: "41".into(),
        holder: "demo-0".into(),
        duration: Duration::from_secs(10),
        renewed: "2026-11-25T00:00:00.000001Z".into(),
        transitions: 3,
        instance: "a1b2".into(),
        term: 7,
        pod_uid: "6b6f".into(),
        address: "10.0.0.7:5432".into(),
        record: Some(Record { votes: 1, members: [copy("demo-0"), copy("demo-1")].into() }),
        system_id: Some(7_401_234_567_890_123_456),
        timeline: Some(Began { term: 6, timeline: 3 }),
        free: Some(Free { term: 6, to: Some("copy-of-demo-1".into()) }),
        switchover_to: Some("any".into()),
        paused: Some("true".into()),
    }
}

/// As the API server would answer a write.
fn stored(mut object: Value, version: &str) -> LeaseObject {
    object["metadata"]["resourceVersion"] = version.into();
    serde_json::from_value(object).unwrap()
}

fn with(annotations: &[(&str, &str)]) -> LeaseObject {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    let object = json!({
        "metadata": { "name": "demo", "annotations": annotations },
        "spec": { "holderIdentity": "demo-0", "leaseDurationSeconds": 10 },
    });
    stored(object, "8")
}

#[test]
fn what_is_written_is_what_is_read() {
    let small = Lease { version: "41".into(), renewed: full().renewed, ..Lease::default() };
    let free_for_any = Lease { free: Some(Free { term: 7, to: None }), holder: String::new(), ..full() };
    for expected in [full(), small, free_for_any] {
        let object = lease_anew("demo", &expected, &expected.renewed).unwrap();
        assert_eq!(lease(&stored(object, "41")), Ok(expected));
    }
}

#[test]
fn annotations_are_written_as_the_contract_has_them() {
    let object = lease_anew("demo", &full(), "now").unwrap();
    assert_eq!(
        object["metadata"]["annotations"],
        json!({
            "podgres.io/instance": "a1b2",
            "podgres.io/term": "7",
            "podgres.io/pod-uid": "6b6f",
            "podgres.io/address": "10.0.0.7:5432",
            "podgres.io/record": r#"{"votes":1,"members":[{"pod":"demo-0","copy":"copy-of-demo-0"},{"pod":"demo-1","copy":"copy-of-demo-1"}]}"#,
            "podgres.io/system-id": "7401234567890123456",
            "podgres.io/timeline": "3 since term 6",
            "podgres.io/free": "6 for copy-of-demo-1",
            "podgres.io/switchover-to": "any",
            "podgres.io/paused": "true",
        })
    );
    assert_eq!(object["metadata"]["labels"], json!({ "podgres.io/cluster": "demo" }));
    assert_eq!(object["spec"]["leaseDurationSeconds"], 10);
}

#[test]
fn a_patch_is_over_a_version_removes_what_is_not_and_leaves_the_users() {
    let patch = lease_patch("41", &Lease { free: None, holder: String::new(), ..full() }, "now").unwrap();
    let metadata = &patch["metadata"];
    assert_eq!(metadata["resourceVersion"], "41");
    assert_eq!(metadata["annotations"]["podgres.io/free"], Value::Null);
    assert_eq!(patch["spec"]["holderIdentity"], Value::Null);
    for theirs in ["podgres.io/paused", "podgres.io/switchover-to"] {
        assert!(metadata["annotations"].get(theirs).is_none(), "{theirs}");
    }
}

#[test]
fn durations_are_whole_seconds_and_never_shorter() {
    for (millis, seconds) in [(10_000, json!(10)), (9_001, json!(10)), (1, json!(1)), (0, Value::Null)] {
        let lease = Lease { duration: Duration::from_millis(millis), ..Lease::default() };
        assert_eq!(lease_patch("1", &lease, "now").unwrap()["spec"]["leaseDurationSeconds"], seconds, "{millis}");
    }
}

#[test]
fn a_lease_that_podgres_has_not_written_says_nothing() {
    for annotations in [&[][..], &[("podgres.io/paused", "perhaps"), ("example.org/x", "y")]] {
        let lease = lease(&with(annotations)).unwrap();
        assert_eq!((lease.term, lease.record, lease.free), (0, None, None));
        assert_eq!(lease.holder, "demo-0");
    }
    assert_eq!(
        lease(&stored(json!({ "metadata": {} }), "8")).unwrap(),
        Lease { version: "8".into(), ..Lease::default() }
    );
}

#[test]
fn what_makes_no_sense_is_never_read_as_something_weaker() {
    const RECORD_OF_ONE: &str = r#"{"votes":1,"members":[{"pod":"demo-0","copy":"c"}]}"#;
    assert!(lease(&with(&[(TERM, "7"), (RECORD, RECORD_OF_ONE)])).is_ok());
    for (annotation, value) in [
        (TERM, ""),
        (TERM, "0"),
        (TERM, "-1"),
        (TERM, "+7"),
        (TERM, " 7"),
        (TERM, "7.0"),
        (TERM, "seven"),
        (TERM, "18446744073709551616"),
        (RECORD, ""),
        (RECORD, "{}"),
        (RECORD, "null"),
        (RECORD, r#"{"votes":1}"#),
        (RECORD, r#"{"members":[{"pod":"demo-0","copy":"c"}]}"#),
        (RECORD, r#"{"votes":1,"members":[]}"#),
        (RECORD, r#"{"votes":0,"members":[{"pod":"demo-0","copy":"c"}]}"#),
        (RECORD, r#"{"votes":2,"members":[{"pod":"demo-0","copy":"c"}]}"#),
        (RECORD, r#"{"votes":-1,"members":[{"pod":"demo-0","copy":"c"}]}"#),
        (RECORD, r#"{"votes":1,"members":[{"pod":"demo-0"}]}"#),
        (RECORD, r#"{"votes":1,"members":[{"pod":"","copy":"c"}]}"#),
        (RECORD, r#"{"votes":1,"members":[{"pod":"demo-0","copy":"c"}]"#),
        (SYSTEM_ID, ""),
        (SYSTEM_ID, "0"),
        (SYSTEM_ID, "0x12"),
        (TIMELINE, "3"),
        (TIMELINE, "3 since term"),
        (TIMELINE, "0 since term 7"),
        (TIMELINE, "4294967296 since term 7"),
        (TIMELINE, "3 since term x"),
        (FREE, ""),
        (FREE, "7"),
        (FREE, "7 for "),
        (FREE, "7 for any body"),
        (FREE, "0 for any"),
        (FREE, "any for any"),
    ] {
        let mut all = vec![(TERM, "7"), (INSTANCE, "a1b2")];
        all.retain(|(a, _)| *a != annotation);
        all.push((annotation, value));
        let nonsense = lease(&with(&all)).unwrap_err();
        assert_eq!((nonsense.version.as_str(), nonsense.holder.as_str()), ("8", "demo-0"));
        assert_eq!(nonsense.instance, "a1b2");
        let text = nonsense.to_string();
        assert!(text.contains(annotation) && text.ends_with(&format!("{value:?}")), "{text}");
    }
}

#[test]
fn a_term_that_is_gone_is_not_term_0() {
    for (annotation, value) in [(INSTANCE, "a1b2"), (RECORD, "{}"), (FREE, "7 for any"), (TIMELINE, "3 since term 7")] {
        let text = lease(&with(&[(annotation, value)])).unwrap_err().to_string();
        assert!(text.contains("podgres.io/term") && text.contains(annotation), "{text}");
    }
}

#[test]
fn a_pod_as_kubernetes_has_it() {
    let status = Status { instance: "a1b2".into(), role: "standby".into(), term: 7, ..Status::default() };
    let mut object = json!({
        "metadata": {
            "name": "demo-1", "uid": "6b6f", "resourceVersion": "41", "deletionTimestamp": "2026-11-25T00:00:00Z",
            "labels": { "podgres.io/role": "replica" },
            "annotations": {
                "podgres.io/status": serde_json::to_string(&status).unwrap(),
                "podgres.io/fenced": "true", "podgres.io/promote": "", "podgres.io/restart": "now",
                "podgres.io/reinit": "yes", "podgres.io/last-command": "restart: done",
            },
            "managedFields": [{ "manager": "kubectl", "fieldsV1": { "f:metadata": {} } }],
        },
        "spec": { "containers": [{ "name": "postgres", "image": "podgres:17" }] },
        "status": {
            "conditions": [{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": "True" }],
            "containerStatuses": [
                { "name": "postgres", "state": { "running": { "startedAt": "2026-11-25T00:00:00Z" } },
                  "lastState": { "terminated": { "exitCode": 137, "message": "instance-1" } } },
                { "name": "other", "state": { "terminated": { "exitCode": 0, "message": "" } }, "lastState": {} },
            ],
        },
    });
    let read = |object: &Value| pod(&serde_json::from_value(object.clone()).unwrap());
    let expected = Pod {
        name: "demo-1".into(),
        uid: "6b6f".into(),
        version: "41".into(),
        deleting: true,
        ready: true,
        role: Some("replica".into()),
        status: Some(status),
        fenced: Some("true".into()),
        promote: Some(String::new()),
        restart: Some("now".into()),
        reinit: Some("yes".into()),
        last_command: Some("restart: done".into()),
        ended: vec!["instance-1".into()],
    };
    assert_eq!(read(&object), expected);

    object["metadata"]["annotations"]["podgres.io/status"] = "{\"term\":-1}".into();
    object["status"]["conditions"][1]["status"] = "Unknown".into();
    assert_eq!(read(&object), Pod { status: None, ready: false, ..expected });

    let bare = read(&json!({ "metadata": { "name": "demo-2" } }));
    assert_eq!(bare, Pod { name: "demo-2".into(), ..Pod::default() });
}
