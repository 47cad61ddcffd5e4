//! Labels and annotations of pods, and Events.

use std::collections::BTreeMap;

use podgres::cluster::kubernetes::{About, Error};
use serde_json::Value;

use crate::harness::{DEADLINE, Space, held, run};

#[test]
fn a_pod_that_was_made_anew_is_not_touched() {
    let space = Space::new();
    run(&space, |kubernetes| async {
        let kubernetes = kubernetes;
        let uid = space.pod("demo-0");
        let labels = BTreeMap::from([("podgres.io/role", Some("primary".to_owned()))]);
        let annotations = BTreeMap::from([("podgres.io/status", Some("{}".to_owned()))]);
        kubernetes.patch_pod("demo-0", &uid, &labels, &annotations).await.unwrap();
        let metadata = space.get(&["pod", "demo-0"])["metadata"].clone();
        assert_eq!(metadata["labels"]["podgres.io/role"], "primary");
        assert_eq!(metadata["labels"]["podgres.io/cluster"], "demo");
        assert_eq!(metadata["annotations"]["podgres.io/status"], "{}");

        let none = BTreeMap::from([("podgres.io/role", None)]);
        kubernetes.patch_pod("demo-0", &uid, &none, &BTreeMap::new()).await.unwrap();
        assert!(space.get(&["pod", "demo-0"])["metadata"]["labels"].get("podgres.io/role").is_none());

        space.delete_pod("demo-0");
        let error = kubernetes.patch_pod("demo-0", &uid, &labels, &annotations).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{error}");
        space.pod("demo-0");
        let error = kubernetes.patch_pod("demo-0", &uid, &labels, &annotations).await.unwrap_err();
        assert!(matches!(error, Error::Conflict(_)), "{error}");
        assert!(space.get(&["pod", "demo-0"])["metadata"]["labels"].get("podgres.io/role").is_none());
    });
}

#[test]
fn events_are_about_the_pod_or_the_lease() {
    let space = Space::new();
    run(&space, |kubernetes| async {
        let kubernetes = kubernetes;
        let uid = space.pod("demo-0");
        kubernetes.write_lease(None, &held("demo-0"), DEADLINE).await.unwrap();
        let pod = About::Pod { name: "demo-0", uid: &uid };
        let long = "€".repeat(2000);
        kubernetes.event(pod, true, "Refused", "Promote", &long).await.unwrap();
        kubernetes.event(About::Lease, false, "TookOffice", "Promote", "demo-0 leads").await.unwrap();

        // As kubectl reads them: core events.
        let events = space.get(&["events"]);
        let of = |reason: &str| -> Value {
            events["items"].as_array().unwrap().iter().find(|e| e["reason"] == reason).expect(reason).clone()
        };
        let refused = of("Refused");
        assert_eq!((&refused["type"], &refused["involvedObject"]["name"]), (&"Warning".into(), &"demo-0".into()));
        assert_eq!(refused["involvedObject"]["uid"], uid.as_str());
        assert!(refused["message"].as_str().unwrap().starts_with("€€"));
        let took = of("TookOffice");
        assert_eq!((&took["type"], &took["message"]), (&"Normal".into(), &"demo-0 leads".into()));
        assert_eq!(took["involvedObject"]["kind"], "Lease");
        assert_eq!(took["involvedObject"]["uid"], space.get(&["lease", "demo"])["metadata"]["uid"]);
        assert!(space.kubectl(&["describe", "pod", "demo-0"]).contains("Refused"));
    });
}
