//! The Lease: compare-and-swap, and what is not podgres' on it.

use std::{collections::BTreeMap, time::Duration};

use podgres::{
    cluster::kubernetes::Error,
    ha::{
        lease::{Began, Free, Lease},
        record::{Copy, Record},
    },
};

use crate::harness::{DEADLINE, Space, held, run};

#[test]
fn one_of_two_writes_over_the_same_version_wins() {
    let space = Space::new();
    run(&space, |kubernetes| async move {
        assert_eq!(kubernetes.read_lease(DEADLINE).await.unwrap(), None);
        let missing = kubernetes.write_lease(Some("1"), &held("demo-0"), DEADLINE).await.unwrap_err();
        assert!(matches!(missing, Error::NotFound(_)), "{missing}");

        let first = kubernetes.write_lease(None, &held("demo-0"), DEADLINE).await.unwrap();
        assert_eq!(kubernetes.read_lease(DEADLINE).await.unwrap().as_ref(), Some(&first));
        let exists = kubernetes.write_lease(None, &held("demo-1"), DEADLINE).await.unwrap_err();
        assert!(matches!(exists, Error::Conflict(_)), "{exists}");

        let renewed = kubernetes.write_lease(Some(&first.version), &first, DEADLINE).await.unwrap();
        assert_ne!(renewed.version, first.version);
        assert_ne!(renewed.renewed, first.renewed);
        let stale = kubernetes.write_lease(Some(&first.version), &held("demo-1"), DEADLINE).await.unwrap_err();
        assert!(matches!(&stale, Error::Conflict(why) if why.contains("cannot patch Lease")), "{stale}");
        assert_eq!(kubernetes.read_lease(DEADLINE).await.unwrap(), Some(renewed.clone()));

        let (one, other) = (held("demo-1"), held("demo-2"));
        let (one, other) = tokio::join!(
            kubernetes.write_lease(Some(&renewed.version), &one, DEADLINE),
            kubernetes.write_lease(Some(&renewed.version), &other, DEADLINE)
        );
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    });
}

#[test]
fn all_of_it_is_written_read_and_removed_and_the_rest_is_left() {
    let space = Space::new();
    run(&space, |kubernetes| async {
        let kubernetes = kubernetes;
        let copy = |pod: &str| Copy { pod: pod.into(), copy: format!("copy-of-{pod}") };
        let full = Lease {
            pod_uid: "6b6f".into(),
            address: "10.0.0.7:5432".into(),
            record: Some(Record { votes: 1, members: [copy("demo-0"), copy("demo-1")].into() }),
            system_id: Some(7_401_234_567_890_123_456),
            timeline: Some(Began { term: 7, timeline: 2 }),
            free: Some(Free { term: 6, to: None }),
            transitions: 3,
            ..held("demo-0")
        };
        let made = kubernetes.write_lease(None, &full, DEADLINE).await.unwrap();
        assert_eq!(Lease { version: String::new(), renewed: String::new(), ..made.clone() }, full);

        space.kubectl(&["annotate", "lease", "demo", "example.org/x=theirs", "podgres.io/paused=true"]);
        space.kubectl(&["label", "lease", "demo", "team=theirs"]);
        let switch = BTreeMap::from([("podgres.io/switchover-to", Some("demo-1".to_owned()))]);
        let seen = kubernetes.patch_lease_annotations(&switch).await.unwrap();
        assert_eq!((seen.switchover_to.as_deref(), seen.paused.as_deref()), (Some("demo-1"), Some("true")));
        assert_eq!(seen.record, full.record);

        let stale = kubernetes.write_lease(Some(&made.version), &full, DEADLINE).await.unwrap_err();
        assert!(matches!(stale, Error::Conflict(_)), "an annotation of the user's is a change too: {stale}");

        let free = Lease {
            holder: String::new(),
            instance: String::new(),
            pod_uid: String::new(),
            address: String::new(),
            free: Some(Free { term: 7, to: Some("copy-of-demo-1".into()) }),
            ..full.clone()
        };
        let freed = kubernetes.write_lease(Some(&seen.version), &free, DEADLINE).await.unwrap();
        assert_eq!((freed.holder.as_str(), &freed.free, &freed.record), ("", &free.free, &full.record));
        assert_eq!((freed.switchover_to.as_deref(), freed.paused.as_deref()), (Some("demo-1"), Some("true")));

        let none = BTreeMap::from([("podgres.io/switchover-to", None), ("podgres.io/paused", None)]);
        let seen = kubernetes.patch_lease_annotations(&none).await.unwrap();
        assert_eq!((seen.switchover_to, seen.paused, &seen.free), (None, None, &free.free));

        let object = space.get(&["lease", "demo"]);
        let metadata = &object["metadata"];
        assert_eq!(metadata["annotations"]["example.org/x"], "theirs");
        assert_eq!(metadata["labels"]["team"], "theirs");
        assert_eq!(metadata["labels"]["podgres.io/cluster"], "demo");
        assert!(metadata["annotations"].get("podgres.io/instance").is_none(), "{metadata}");
    });
}

#[test]
fn a_lease_that_makes_no_sense_is_told_with_what_is_needed_to_write_it_anew() {
    let space = Space::new();
    run(&space, |kubernetes| async {
        let kubernetes = kubernetes;
        kubernetes.write_lease(None, &held("demo-0"), DEADLINE).await.unwrap();
        space.kubectl(&["annotate", "--overwrite", "lease", "demo", "podgres.io/term=latest"]);
        let Error::Nonsense(nonsense) = kubernetes.read_lease(DEADLINE).await.unwrap_err() else { panic!("nonsense") };
        let text = nonsense.to_string();
        assert!(text.contains("podgres.io/term") && text.contains("latest"), "{text}");
        assert_eq!((nonsense.holder.as_str(), nonsense.instance.as_str()), ("demo-0", "a1b2"));
        let anew = kubernetes.write_lease(Some(&nonsense.version), &held("demo-0"), DEADLINE).await.unwrap();
        assert_eq!(anew.term, 7);
    });
}

#[test]
fn annotations_of_no_lease_are_not_found() {
    let space = Space::new();
    run(&space, |kubernetes| async move {
        let pause = BTreeMap::from([("podgres.io/paused", Some("true".to_owned()))]);
        let error = kubernetes.patch_lease_annotations(&pause).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{error}");
        let error = kubernetes.read_lease(Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, Error::Timeout(_)), "a deadline that is over is over: {error}");
    });
}
