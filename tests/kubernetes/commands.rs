//! Restart and reinit by annotation and by command.

use serde_json::json;

use crate::{
    cluster::Cluster,
    harness::*,
    member::{DATA, Member},
};

fn started(member: &Member<'_>) -> Option<String> {
    member.sql("select pg_postmaster_start_time()").ok()
}

#[test]
fn a_member_whose_pod_is_annotated_restarts_its_postgres() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    for member in [&members[1 - p], &members[p]] {
        let before = started(member).expect("it runs");
        member.annotate("restart", json!("now"));
        cluster.wait("another postmaster", || started(member).filter(|s| *s != before));
        cluster.wait("the annotation to be removed", || member.annotation("restart").is_none().then_some(()));
        assert!(member.wait_outcome(&None, &["restart"]).contains(" ms"), "{:?}", member.annotation("last-command"));
        cluster.wait_for_event(&["Normal", "restart", &member.name]);
        assert_eq!(cluster.settle(&members).n, p, "nobody takes over for a restart");
    }
    let before = started(&members[p]).expect("it runs");
    let said = members[p].podgres(&["restart"]);
    assert!(said.status.success(), "{}", stderr(&said));
    assert_ne!(started(&members[p]), Some(before));
    assert_eq!(cluster.settle(&members).n, p);
}

#[test]
fn reinit_clones_a_standby_anew_and_is_refused_on_the_primary() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let (primary, standby) = (&members[p], &members[1 - p]);
    let inode = |m: &Member<'_>| m.container.shell(&format!("stat -c %i {DATA}"));
    let (before, kept) = (inode(standby), inode(primary));
    primary.annotate("reinit", json!("yes"));
    cluster.wait_for_event(&["Warning", "reinit", "primary", &primary.name]);
    assert!(primary.wait_outcome(&None, &["reinit"]).contains("primary"));
    assert!(primary.is_writable() && inode(primary) == kept);
    let refused = primary.podgres(&["reinit"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));

    standby.annotate("reinit", json!("yes"));
    cluster.wait("another data directory", || (inode(standby) != before).then_some(()));
    assert_eq!(cluster.settle(&members).n, p);
    cluster.wait("the annotation to be removed", || standby.annotation("reinit").is_none().then_some(()));
    standby.wait_outcome(&None, &["reinit"]);
    let before = inode(standby);
    let said = standby.podgres(&["reinit"]);
    assert!(said.status.success(), "{}", stderr(&said));
    cluster.wait("another data directory", || (inode(standby) != before).then_some(()));
    assert_eq!(cluster.settle(&members).n, p);
}

#[test]
fn status_shows_every_member_on_each_of_them() {
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    for member in &members {
        let said = cluster.wait("all members in status", || {
            let said = member.podgres(&["status"]);
            let text = stdout(&said);
            (said.status.success() && members.iter().all(|m| text.contains(&m.name))).then_some(text)
        });
        let row = said.lines().find(|l| l.contains(&members[p].name)).expect("the primary's row");
        assert!(row.contains("primary"), "{said}");
        let json = stdout(&member.podgres(&["status", "--json"]));
        serde_json::from_str::<serde_json::Value>(&json).unwrap_or_else(|e| panic!("{e}: {json}"));
    }
}
