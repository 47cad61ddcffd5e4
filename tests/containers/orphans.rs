//! Orphans, which come to PID 1 when their parents die.

use crate::harness::*;

/// Under PostgreSQL as PID 1 an orphan that exits with 2 counts as a crashed backend and restarts the whole server
/// (docker-library/postgres#1349).
#[test]
fn orphans_are_reaped_whatever_they_exit_with_and_disturb_nobody() {
    for major in MAJORS {
        let container = Container::postgres(major, &[], &[]).ready();
        let started = container.sql("select pg_postmaster_start_time()");
        let script = "for code in 0 1 2 3 127 134 137 255; do for i in $(seq 60); do (bash -c \"sleep 0.$((i % 10)); exit $code\" &) ; done; done;
                      (bash -c 'kill -SEGV $$' &); (bash -c 'kill -34 $$' &)";
        container.shell(script);
        wait_for("the orphans to be gone", || {
            let left = container.shell("cat /proc/[0-9]*/stat 2>/dev/null | awk '$3 == \"Z\" || $2 ~ /sleep/' || true");
            left.is_empty().then_some(())
        });
        assert_eq!(container.sql("select pg_postmaster_start_time()"), started);
        let log = container.stdout();
        assert!(!log.contains("terminating any other active server processes") && !log.contains("untracked"), "{log}");
    }
}
