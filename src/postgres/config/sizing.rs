//! The built-in defaults: what PostgreSQL's own would be if it knew its container. A pure function of the limits.

use super::limits::Limits;

/// A default of podgres'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Default {
    /// The setting.
    pub(super) name: &'static str,
    /// Its value.
    pub(super) value: String,
    /// What it was made from, for `status --settings`: "256 MB of memory".
    pub(super) because: Option<String>,
}

const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;

/// The defaults for a server that allows `max_connections` sessions.
pub(super) fn sizing(limits: &Limits, max_connections: u64) -> Vec<Default> {
    let mut defaults = always();
    // initdb's own value, whose line podgres takes out of new data directories; without any, PostgreSQL up to 15 takes 8MB.
    let mut shared_buffers = size("shared_buffers", 128 * MB, None);
    if let Some(memory) = limits.memory {
        let because = Some(format!("{} MB of memory", memory / MB));
        shared_buffers = size("shared_buffers", shared_buffers_of(memory), because.clone());
        defaults.extend(by_memory(memory, max_connections, &because));
    }
    defaults.push(shared_buffers);
    if let Some(cpus) = limits.cpus {
        defaults.extend(by_cpus(cpus));
    }
    if let Some(disk) = limits.disk {
        defaults.extend(by_disk(disk));
    }
    defaults
}

fn always() -> Vec<Default> {
    let fixed = |name, value: &str| Default { name, value: value.into(), because: None };
    vec![
        // pg_rewind wants it or checksums; without, a former primary must be cloned anew.
        fixed("wal_log_hints", "on"),
        // PostgreSQL's own default, said aloud: probes and followers depend on it.
        fixed("hot_standby", "on"),
        // A promotion that comes while recovery sleeps between two tries waits for the rest of that sleep: of the
        // default of 5 s, all of them in 3 of 135 promotions that were tried.
        fixed("wal_retrieve_retry_interval", "100ms"),
    ]
}

/// A quarter of the memory, as PostgreSQL's documentation advises; never less than PostgreSQL's own 128 MB unless that
/// is too much of a small container; never more than 32 GB, above which the kernel's cache serves better than ours.
fn shared_buffers_of(memory: u64) -> u64 {
    (memory / 4).max((128 * MB).min(memory * 2 / 5)).min(32 * GB)
}

fn by_memory(memory: u64, max_connections: u64, because: &Option<String>) -> Vec<Default> {
    let shared = shared_buffers_of(memory);
    vec![
        // Memory that is not ours is cache of the container's own files, mostly.
        size("effective_cache_size", memory / 4 * 3, because.clone()),
        // Three autovacuum workers may use as much each; VACUUM up to 16 makes no use of more than 1 GB.
        size("maintenance_work_mem", (memory / 16).clamp(16 * MB, GB), because.clone()),
        // Each session may use it several times over (three is usual); never less than PostgreSQL's own 4 MB.
        size("work_mem", ((memory - shared) / (max_connections.max(1) * 3)).clamp(4 * MB, 64 * MB), because.clone()),
    ]
}

/// Parallel workers beyond the processors only take turns.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
fn by_cpus(cpus: f64) -> Vec<Default> {
    let because = Some(format!("{cpus} cpus"));
    let whole = cpus.ceil().clamp(1.0, 1024.0) as u64;
    let number = |name, value: u64| Default { name, value: value.to_string(), because: because.clone() };
    vec![
        // Never less than PostgreSQL's own 8, which extensions and logical replication count on.
        number("max_worker_processes", whole.max(8)),
        number("max_parallel_workers", whole),
        // With one processor a parallel plan is only overhead; beyond four each worker gains little.
        number("max_parallel_workers_per_gather", (whole / 2).min(4)),
        number("max_parallel_maintenance_workers", (whole / 2).min(4)),
    ]
}

fn by_disk(disk: u64) -> Vec<Default> {
    let because = Some(format!("{} GB of disk", disk / GB));
    vec![
        // A slot that nobody reads keeps WAL until the disk is full and the primary stops.
        size("max_slot_wal_keep_size", (disk / 10).max(GB), because.clone()),
        // 1 GB, PostgreSQL's own, is too much of a small volume, and makes checkpoints frequent on a large one.
        size("max_wal_size", (disk / 20).clamp(256 * MB, 4 * GB), because),
    ]
}

fn size(name: &'static str, bytes: u64, because: Option<String>) -> Default {
    Default { name, value: format!("{}MB", bytes / MB), because }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(limits: &Limits, name: &str) -> Option<String> {
        let defaults = sizing(limits, 100);
        assert!(defaults.iter().filter(|d| d.name == name).count() <= 1, "{name} twice");
        defaults.into_iter().find(|d| d.name == name).map(|d| d.value)
    }

    #[test]
    fn by_the_memory_that_there_is() {
        for (megabytes, shared, cache, maintenance, work) in [
            (64, "25MB", "48MB", "16MB", "4MB"),
            (256, "102MB", "192MB", "16MB", "4MB"),
            (512, "128MB", "384MB", "32MB", "4MB"),
            (1024, "256MB", "768MB", "64MB", "4MB"),
            (4096, "1024MB", "3072MB", "256MB", "10MB"),
            (65_536, "16384MB", "49152MB", "1024MB", "64MB"),
            (1_048_576, "32768MB", "786432MB", "1024MB", "64MB"),
        ] {
            let limits = Limits { memory: Some(megabytes * MB), ..Limits::default() };
            let expected = [shared, cache, maintenance, work];
            let names = ["shared_buffers", "effective_cache_size", "maintenance_work_mem", "work_mem"];
            for (name, expected) in names.into_iter().zip(expected) {
                assert_eq!(value(&limits, name).as_deref(), Some(expected), "{name} with {megabytes} MB");
            }
        }
    }

    #[test]
    fn by_the_processors_that_there_are() {
        for (cpus, workers, parallel, gather) in [
            (0.5, "8", "1", "0"),
            (1.0, "8", "1", "0"),
            (2.0, "8", "2", "1"),
            (3.5, "8", "4", "2"),
            (32.0, "32", "32", "4"),
        ] {
            let limits = Limits { cpus: Some(cpus), ..Limits::default() };
            assert_eq!(value(&limits, "max_worker_processes").as_deref(), Some(workers), "{cpus}");
            assert_eq!(value(&limits, "max_parallel_workers").as_deref(), Some(parallel), "{cpus}");
            assert_eq!(value(&limits, "max_parallel_workers_per_gather").as_deref(), Some(gather), "{cpus}");
        }
    }

    #[test]
    fn by_the_disk_that_there_is() {
        for (gigabytes, keep, wal) in [(1, "1024MB", "256MB"), (20, "2048MB", "1024MB"), (1000, "102400MB", "4096MB")] {
            let limits = Limits { disk: Some(gigabytes * GB), ..Limits::default() };
            assert_eq!(value(&limits, "max_slot_wal_keep_size").as_deref(), Some(keep), "{gigabytes}");
            assert_eq!(value(&limits, "max_wal_size").as_deref(), Some(wal), "{gigabytes}");
        }
    }

    #[test]
    fn without_limits_only_what_has_another_reason() {
        let limits = Limits::default();
        assert_eq!(value(&limits, "shared_buffers").as_deref(), Some("128MB"));
        assert_eq!(value(&limits, "wal_log_hints").as_deref(), Some("on"));
        for name in ["work_mem", "effective_cache_size", "max_worker_processes", "max_wal_size"] {
            assert_eq!(value(&limits, name), None, "{name}");
        }
    }
}
