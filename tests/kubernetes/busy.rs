//! A primary that is healthy and has more to do than it can keeps its office.

use crate::cluster::Cluster;

/// For so many seconds: `PODGRES_TEST_SECONDS` for more.
#[test]
fn a_primary_at_full_load_keeps_its_office() {
    let seconds = std::env::var("PODGRES_TEST_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    let cluster = Cluster::new(17);
    let (members, p) = cluster.members(2);
    let pgbench = |arguments: &str| {
        let command = format!("pgbench -U postgres {arguments} postgres 2>&1");
        members[p].container.shell(&command)
    };
    pgbench("--initialize --scale=20 --quiet");
    let term = cluster.term();
    // Many times more clients than this machine has processors, and checkpoints all the time.
    members[p].query("alter system set max_wal_size = '64MB'");
    members[p].query("select pg_reload_conf()");
    // No command of the tests may take as long as all of it.
    for begun in (0_u32..seconds).step_by(60) {
        let slice = 60.min(seconds - begun);
        let said = pgbench(&format!("--client=40 --jobs=4 --no-vacuum --time={slice}"));
        let tps = said.lines().find(|line| line.starts_with("tps")).unwrap_or(&said);
        eprintln!("{} of {seconds} s: {tps}", begun + slice);
        assert_eq!(cluster.term(), term, "{}", cluster.report());
    }
    assert!(members[p].is_writable());
}
