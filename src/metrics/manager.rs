//! The manager's own metrics, from what its loop says of itself: they are there when PostgreSQL is not.

use super::family::{Family, Kind, Labels};
use crate::{
    lifecycle::{Outcome, Phase, Role},
    manager::Snapshot,
};

fn label(name: &'static str, value: &str) -> Labels {
    vec![(name.into(), value.into())]
}

fn gauge(name: &'static str, help: &'static str) -> Family {
    Family::new(name, Kind::Gauge, help)
}

/// The families of `snapshot`.
pub(super) fn families(snapshot: &Snapshot) -> Vec<Family> {
    let memory = &snapshot.memory;
    let counter = |name, help, value: u64| Family::new(name, Kind::Counter, help).with(vec![], value);
    let version = label("version", env!("CARGO_PKG_VERSION"));
    let mut families = vec![
        gauge("podgres_build_info", "The version of podgres.").with(version, true),
        gauge("podgres_uptime_seconds", "Since the manager started.").with(vec![], snapshot.now.as_secs_f64()),
        state(&memory.phase),
        role(&memory.phase),
        gauge("podgres_state_age_seconds", "Since it came into its state.")
            .with(vec![], snapshot.now.saturating_sub(memory.since).as_secs_f64()),
        counter("podgres_restarts_total", "Starts of PostgreSQL after a crash.", memory.restarts.into()),
        counter(
            "podgres_log_lines_dropped_total",
            "Log lines that nobody read from stdout in time.",
            snapshot.log_lines_dropped,
        ),
        gauge(
            "podgres_configuration_refused",
            "Whether the present configuration files have mistakes, so that others are in use.",
        )
        .with(vec![], !snapshot.config.refused.is_empty()),
        jobs(snapshot),
    ];
    if let Some(took) = memory.promotion {
        let help = "How long the last promotion took, from the order to the first moment at which writes are accepted.";
        families.push(gauge("podgres_last_promotion_seconds", help).with(vec![], took.as_secs_f64()));
    }
    families.extend(progress(snapshot));
    families.extend(confirming(snapshot));
    families.extend(api(snapshot));
    families.extend(certificate(snapshot));
    families
}

/// Only where there is TLS.
fn certificate(snapshot: &Snapshot) -> Vec<Family> {
    let Some(tls) = &snapshot.tls else { return Vec::new() };
    let expires = tls.expires.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    vec![
        gauge(
            "podgres_tls_certificate_expiry_timestamp_seconds",
            "Until when the certificate in use is good, in seconds since 1970: the first to end of it and its CA.",
        )
        .with(vec![], expires.as_secs()),
        gauge(
            "podgres_tls_certificate_refused",
            "Whether what is in tls-dir cannot be used, so that another is in use.",
        )
        .with(vec![], tls.refused.is_some()),
    ]
}

/// Only on the leader of a synchronous cluster.
fn confirming(snapshot: &Snapshot) -> Vec<Family> {
    let Some(confirming) = snapshot.cluster.as_ref().and_then(|c| c.confirming) else { return Vec::new() };
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    vec![
        gauge("podgres_sync_standbys_wanted", "How many standbys are to confirm each commit.")
            .with(vec![], number(confirming.wanted)),
        gauge("podgres_sync_standbys", "How many standbys do confirm each commit; 0 while every commit waits.")
            .with(vec![], number(confirming.standbys.unwrap_or(0))),
        gauge("podgres_sync_waiting", "Whether every commit waits for standbys that are not there.")
            .with(vec![], confirming.standbys.is_none()),
    ]
}

/// Only of a member of a cluster.
fn api(snapshot: &Snapshot) -> Vec<Family> {
    let Some(cluster) = &snapshot.cluster else { return Vec::new() };
    let silent = cluster.api_silent.map_or(0.0, |t| t.as_secs_f64());
    vec![
        gauge("podgres_api_silent_seconds", "Since when the Kubernetes API has not answered; 0 while it does.")
            .with(vec![], silent),
        gauge(
            "podgres_failsafe",
            "Whether this primary stays without the API because the other members promise to wait.",
        )
        .with(vec![], cluster.failsafe),
    ]
}

fn state(phase: &Phase) -> Family {
    let family = gauge("podgres_state", "1 for the state that the member is in, 0 for all others.");
    Phase::NAMES.iter().fold(family, |f, name| f.with(label("state", name), *name == phase.name()))
}

/// Neither while PostgreSQL does not run.
fn role(phase: &Phase) -> Family {
    let is = |role| *phase == Phase::Running { role };
    gauge("podgres_role", "1 for the role that PostgreSQL runs in.")
        .with(label("role", "primary"), is(Role::Primary))
        .with(label("role", "standby"), is(Role::Standby))
}

fn jobs(snapshot: &Snapshot) -> Family {
    let outcomes = &snapshot.memory.outcomes;
    let mut family = Family::new("podgres_jobs_total", Kind::Counter, "Jobs on the data directory that have ended.");
    for (job, Outcome { done, failed }) in
        [("initialise", outcomes.initialise), ("clone", outcomes.clone), ("rewind", outcomes.rewind)]
    {
        for (outcome, count) in [("done", done), ("failed", failed)] {
            family.push(vec![("job".into(), job.into()), ("outcome".into(), outcome.into())], u64::from(count));
        }
    }
    family
}

/// Nothing while no job runs.
fn progress(snapshot: &Snapshot) -> Vec<Family> {
    let Some(progress) = &snapshot.progress else { return Vec::new() };
    let job = || label("job", progress.job);
    let running = gauge("podgres_job_seconds", "Since the running job began.");
    let done = gauge("podgres_job_done_bytes", "What the running job has copied.");
    let mut families =
        vec![running.with(job(), progress.begun.elapsed().as_secs_f64()), done.with(job(), progress.bytes_done)];
    if let (Some(total), Some(percent)) = (progress.bytes_total, progress.percent()) {
        families.push(gauge("podgres_job_size_bytes", "What it will have copied.").with(job(), total));
        families.push(gauge("podgres_job_percent", "How much of that is done.").with(job(), percent));
    }
    families
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::*;
    use crate::{
        ha::member::{ClusterView, Confirming},
        lifecycle::Memory,
        metrics::family,
        progress::Progress,
    };

    fn text(snapshot: &Snapshot) -> String {
        family::encode(vec![Arc::new(families(snapshot))])
    }

    #[allow(clippy::field_reassign_with_default, reason = "the others are the decision's own")]
    fn snapshot(phase: Phase) -> Snapshot {
        let mut memory = Memory::default();
        memory.phase = phase;
        Snapshot {
            memory,
            now: std::time::Duration::from_secs(5),
            postgres: None,
            pgdata: "/d".into(),
            log_lines_dropped: 3,
            config: Arc::default(),
            progress: None,
            source: None,
            source_role: None,
            waiting: None,
            account: None,
            cluster: None,
            tls: None,
        }
    }

    #[test]
    fn exactly_one_state_and_at_most_one_role() {
        for (phase, roles) in [(Phase::Begun, 0), (Phase::Running { role: Role::Standby }, 1)] {
            let text = text(&snapshot(phase.clone()));
            let ones = |name: &str| text.lines().filter(|l| l.starts_with(name) && l.ends_with(" 1")).count();
            assert_eq!((ones("podgres_state{"), ones("podgres_role{")), (1, roles), "{phase:?}: {text}");
        }
    }

    #[test]
    fn a_leader_says_how_many_confirm() {
        let mut snapshot = snapshot(Phase::Begun);
        assert!(!text(&snapshot).contains("podgres_sync"));
        let confirming = Some(Confirming { wanted: 2, standbys: Some(1) });
        snapshot.cluster = Some(ClusterView { confirming, ..ClusterView::default() });
        let text = text(&snapshot);
        assert!(
            text.contains("podgres_sync_standbys_wanted 2\n") && text.contains("podgres_sync_standbys 1\n"),
            "{text}"
        );
        assert!(text.contains("podgres_sync_waiting 0\n"), "{text}");
    }

    #[test]
    fn a_member_says_how_it_stands_with_the_api() {
        let mut snapshot = snapshot(Phase::Begun);
        assert!(!text(&snapshot).contains("podgres_failsafe"), "it is in no cluster");
        snapshot.cluster = Some(ClusterView::default());
        let said = text(&snapshot);
        assert!(said.contains("podgres_api_silent_seconds 0.0\n") && said.contains("podgres_failsafe 0\n"), "{said}");
        let silent = Some(std::time::Duration::from_secs(7));
        snapshot.cluster = Some(ClusterView { api_silent: silent, failsafe: true, ..ClusterView::default() });
        let said = text(&snapshot);
        assert!(said.contains("podgres_api_silent_seconds 7.0\n") && said.contains("podgres_failsafe 1\n"), "{said}");
    }

    #[test]
    fn a_certificate_ends_some_time() {
        let mut snapshot = snapshot(Phase::Begun);
        assert!(!text(&snapshot).contains("podgres_tls"));
        let expires = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_893_456_000);
        snapshot.tls = Some(crate::tls::Seen { expires, refused: Some("why".into()) });
        let said = text(&snapshot);
        assert!(said.contains("podgres_tls_certificate_expiry_timestamp_seconds 1893456000\n"), "{said}");
        assert!(said.contains("podgres_tls_certificate_refused 1\n"), "{said}");
    }

    #[test]
    fn a_job_is_there_while_it_runs() {
        let mut snapshot = snapshot(Phase::Begun);
        assert!(!text(&snapshot).contains("podgres_job_done_bytes"));
        snapshot.progress = Some(Progress {
            job: "clone",
            step: String::new(),
            bytes_done: 1,
            bytes_total: Some(4),
            begun: Instant::now(),
        });
        let text = text(&snapshot);
        assert!(text.contains("podgres_job_percent{job=\"clone\"} 25.0\n"), "{text}");
        assert!(text.contains("podgres_log_lines_dropped_total 3\n"), "{text}");
    }
}
