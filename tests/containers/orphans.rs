//! Orphans, which come to PID 1 when their parents die.

use crate::harness::*;

/// Under PostgreSQL as PID 1 an orphan that exits with 2 counts as a crashed backend and restarts the whole server
/// (docker-library/postgres#1349).
#[test]
fn orphans_are_reaped_whatever_they_exit_with_and_disturb_nobody() {
    for major in majors() {
        let container = Container::postgres(major, &[], &[]).ready();
        let started = container.sql("select pg_postmaster_start_time()");
        // Every exit code twice and some signals. They wait at a gate, so that all of them end at once as orphans.
        container.shell(
            "mkfifo /tmp/gate
             for code in {0..255} {0..255}; do (read -r _ </tmp/gate; exit $code) >/dev/null 2>&1 & done
             for signal in KILL SEGV ABRT 34 64; do (read -r _ </tmp/gate; kill -$signal $BASHPID) >/dev/null 2>&1 & done",
        );
        let count = |what: &str| -> usize {
            container.shell(&format!("cat /proc/[0-9]*/status 2>/dev/null | grep -c '{what}' || true")).parse().unwrap()
        };
        let own = ["PPid:.1$", "^State:.Z"];
        wait_for("517 orphans", || (count(own[0]) >= 517).then_some(()));
        wait_for("the orphans to be gone", || {
            container.shell("timeout 0.5 bash -c ': >/tmp/gate' || true");
            (count(own[0]) < 10).then_some(())
        });
        wait_for("no zombie", || (count(own[1]) == 0).then_some(()));
        assert_eq!(container.sql("select pg_postmaster_start_time()"), started);
        let log = container.stdout();
        assert!(!log.contains("terminating any other active server processes") && !log.contains("untracked"), "{log}");
        assert_eq!(log.matches("ready to accept connections").count(), 2, "the temporary one and the server: {log}");
    }
}
