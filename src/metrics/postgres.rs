//! PostgreSQL's metrics: a table of queries, by theme, and of what their columns are called.
//!
//! Where postgres_exporter has a name for the very same thing it is used, so that dashboards that exist work. Everything
//! runs in the database `postgres`, on views and functions that touch no table of a user.

use super::{
    family::{Family, Kind, Labels, Value},
    rows::Rows,
};

/// A query, and the families that its columns are.
pub(super) struct Query {
    /// The majors that have it.
    pub(super) majors: std::ops::RangeInclusive<u32>,
    /// One statement.
    pub(super) sql: &'static str,
    /// Columns that are labels.
    labels: &'static [&'static str],
    /// The other columns, in their order: name, kind, help.
    columns: &'static [(&'static str, Kind, &'static str)],
}

const ANY: std::ops::RangeInclusive<u32> = 0..=u32::MAX;
use Kind::{Counter, Gauge};

impl Query {
    /// The name of its first family, for messages.
    pub(super) fn name(&self) -> &'static str {
        self.columns.first().map_or("", |c| c.0)
    }

    /// The families of an answer. A value that is null is not there.
    pub(super) fn families(&self, rows: &Rows) -> Vec<Family> {
        let mut families: Vec<Family> =
            self.columns.iter().map(|(n, kind, help)| Family::new(*n, *kind, *help)).collect();
        for row in &rows.rows {
            let (labels, values) = row.split_at(self.labels.len().min(row.len()));
            let labels: Labels =
                self.labels.iter().zip(labels).map(|(n, v)| ((*n).into(), v.clone().unwrap_or_default())).collect();
            for (family, value) in families.iter_mut().zip(values) {
                if let Some(value) = value.as_deref().and_then(Value::parse) {
                    family.push(labels.clone(), value);
                }
            }
        }
        families.iter_mut().for_each(|f| _ = f.remove_duplicates());
        families
    }
}

/// Labels, then columns, in the order of the statement's.
pub(super) const QUERIES: &[Query] = &[
    Query {
        majors: ANY,
        sql: "select version(), split_part(current_setting('server_version'), ' ', 1), 1",
        labels: &["version", "short_version"],
        columns: &[("pg_static", Gauge, "PostgreSQL's version.")],
    },
    Query {
        majors: ANY,
        // The timeline of a primary is in the name of the WAL file that it writes; the control file learns it later.
        sql: "select pg_is_in_recovery(), extract(epoch from pg_postmaster_start_time()),
              case when pg_is_in_recovery() then coalesce((select received_tli from pg_stat_wal_receiver),
                        (select timeline_id from pg_control_checkpoint()))
                   else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int end,
              current_setting('max_connections'), current_setting('superuser_reserved_connections'),
              current_setting('max_wal_senders'), current_setting('max_replication_slots'),
              current_setting('autovacuum_freeze_max_age'), pg_size_bytes(current_setting('max_wal_size')),
              pg_size_bytes(current_setting('shared_buffers'))",
        labels: &[],
        columns: &[
            ("pg_replication_is_replica", Gauge, "Whether it is a standby."),
            ("pg_postmaster_start_time_seconds", Gauge, "When it was started."),
            ("pg_timeline", Gauge, "The timeline that is written, or received."),
            ("pg_settings_max_connections", Gauge, "The setting max_connections."),
            ("pg_settings_superuser_reserved_connections", Gauge, "The setting superuser_reserved_connections."),
            ("pg_settings_max_wal_senders", Gauge, "The setting max_wal_senders."),
            ("pg_settings_max_replication_slots", Gauge, "The setting max_replication_slots."),
            ("pg_settings_autovacuum_freeze_max_age", Gauge, "The setting autovacuum_freeze_max_age."),
            ("pg_settings_max_wal_size_bytes", Gauge, "The setting max_wal_size."),
            ("pg_settings_shared_buffers_bytes", Gauge, "The setting shared_buffers."),
        ],
    },
    Query {
        majors: ANY,
        // A primary has no lag of its own. A standby that streams and has replayed all that it was told of is not behind,
        // however long ago the primary last wrote; before it is told anything it cannot know. For one that does not stream
        // only its last commit gets older. (`greatest` skips nulls: unknown would be 0.)
        sql: "select case when not r then pg_current_wal_lsn() - '0/0' end,
              case when r then pg_last_wal_receive_lsn() - '0/0' end, case when r then pg_last_wal_replay_lsn() - '0/0' end,
              case when r then s.streaming is not null end,
              case when behind < 0 then 0 else behind end,
              case when not r or (s.streaming and behind is null) then null when behind <= 0 then 0
                   when pg_last_xact_replay_timestamp() > clock_timestamp() then 0
                   else extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) end,
              case when r then pg_is_wal_replay_paused() end
              from pg_is_in_recovery() r
              left join (select true, latest_end_lsn from pg_stat_wal_receiver where status = 'streaming') s(streaming, lsn)
                   on true, lateral (select case when r then s.lsn - pg_last_wal_replay_lsn() end) b(behind)",
        labels: &[],
        columns: &[
            ("pg_wal_current_lsn_bytes", Gauge, "A primary's write position."),
            ("pg_wal_receive_lsn_bytes", Gauge, "How far a standby has received by streaming."),
            ("pg_wal_replay_lsn_bytes", Gauge, "How far a standby has replayed."),
            ("pg_wal_receiver_streaming", Gauge, "Whether a standby streams."),
            ("pg_replication_lag_bytes", Gauge, "How far a standby's replay is behind what its primary last reported."),
            ("pg_replication_lag_seconds", Gauge, "How old the last replayed commit is, 0 when all is replayed."),
            ("pg_wal_replay_paused", Gauge, "Whether a standby's replay is paused."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select r.application_name, coalesce(host(r.client_addr), ''), r.state, coalesce(s.slot_name, ''),
              max(here - '0/0'), max(here - r.replay_lsn), max(here - r.flush_lsn),
              max(extract(epoch from r.write_lag)), max(extract(epoch from r.flush_lag)),
              max(extract(epoch from r.replay_lag)), max((r.sync_state in ('sync', 'quorum'))::int)
              from pg_stat_replication r left join pg_replication_slots s on s.active_pid = r.pid,
              lateral (select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) h(here)
              group by 1, 2, 3, 4",
        labels: &["application_name", "client_addr", "state", "slot_name"],
        columns: &[
            ("pg_stat_replication_pg_current_wal_lsn_bytes", Gauge, "WAL position in bytes."),
            ("pg_stat_replication_pg_wal_lsn_diff", Gauge, "How many bytes of WAL the standby has not replayed."),
            ("pg_stat_replication_flush_lsn_diff", Gauge, "How many bytes of WAL the standby has not flushed."),
            ("pg_stat_replication_write_lag_seconds", Gauge, "From the flush here to the standby's write."),
            ("pg_stat_replication_flush_lag_seconds", Gauge, "From the flush here to the standby's flush."),
            ("pg_stat_replication_replay_lag_seconds", Gauge, "From the flush here to the standby's replay."),
            ("pg_stat_replication_sync", Gauge, "Whether commits wait for the standby."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select slot_name, slot_type, coalesce(database, ''), active,
              (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) - restart_lsn,
              safe_wal_size from pg_replication_slots",
        labels: &["slot_name", "slot_type", "database"],
        columns: &[
            ("pg_replication_slots_active", Gauge, "Whether somebody streams over the slot."),
            ("pg_replication_slots_pg_wal_lsn_diff", Gauge, "How many bytes of WAL the slot retains."),
            ("pg_replication_slot_safe_wal_size_bytes", Gauge, "How much can be written before the slot may lose its WAL."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select slot_name, slot_type, wal_status, 1 from pg_replication_slots where wal_status is not null",
        labels: &["slot_name", "slot_type", "wal_status"],
        columns: &[("pg_replication_slot_wal_status", Gauge, "Whether the slot's WAL is there.")],
    },
    Query {
        majors: ANY,
        sql: "select archived_count, failed_count, extract(epoch from clock_timestamp() - last_archived_time),
              extract(epoch from last_archived_time), extract(epoch from last_failed_time),
              (select count(*) from pg_ls_archive_statusdir() where name like '%.ready') from pg_stat_archiver",
        labels: &[],
        columns: &[
            ("pg_stat_archiver_archived_count", Counter, "WAL files that were archived."),
            ("pg_stat_archiver_failed_count", Counter, "Tries to archive a WAL file that failed."),
            ("pg_stat_archiver_last_archive_age", Gauge, "Seconds since a WAL file was archived."),
            ("pg_stat_archiver_last_archived_time_seconds", Gauge, "When a WAL file was last archived."),
            ("pg_stat_archiver_last_failed_time_seconds", Gauge, "When that last failed."),
            ("pg_stat_archiver_ready_count", Gauge, "WAL files that wait to be archived."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select count(*), coalesce(sum(size), 0) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$'",
        labels: &[],
        columns: &[
            ("pg_wal_segments", Gauge, "Files in pg_wal."),
            ("pg_wal_size_bytes", Gauge, "Their size."),
        ],
    },
    Query {
        majors: 14..=u32::MAX,
        sql: "select wal_records, wal_fpi, wal_bytes, wal_buffers_full from pg_stat_wal",
        labels: &[],
        columns: &[
            ("pg_stat_wal_records_total", Counter, "WAL records."),
            ("pg_stat_wal_fpi_total", Counter, "Full page images in the WAL."),
            ("pg_stat_wal_bytes_total", Counter, "Bytes of WAL."),
            ("pg_stat_wal_buffers_full_total", Counter, "Writes of WAL because its buffers were full."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select d.datname, s.state, count(a.pid),
              greatest(0, coalesce(max(extract(epoch from clock_timestamp() - a.xact_start)), 0))
              from pg_database d cross join (values ('active'), ('idle'), ('idle in transaction'),
                   ('idle in transaction (aborted)'), ('fastpath function call'), ('disabled')) s(state)
              left join pg_stat_activity a on a.datid = d.oid and a.state = s.state and a.pid <> pg_backend_pid()
              where d.datallowconn group by 1, 2",
        labels: &["datname", "state"],
        columns: &[
            ("pg_stat_activity_count", Gauge, "Connections in this state, podgres' own for metrics not counted."),
            ("pg_stat_activity_max_tx_duration", Gauge, "How old the oldest transaction of these is, in seconds."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select datid, datname, numbackends, xact_commit, xact_rollback, blks_read, blks_hit, tup_returned,
              tup_fetched, tup_inserted, tup_updated, tup_deleted, conflicts, temp_files, temp_bytes, deadlocks,
              checksum_failures, blk_read_time, blk_write_time, extract(epoch from stats_reset)
              from pg_stat_database where datname is not null",
        labels: &["datid", "datname"],
        columns: &[
            ("pg_stat_database_numbackends", Gauge, "Connections to the database."),
            ("pg_stat_database_xact_commit", Counter, "Transactions that were committed."),
            ("pg_stat_database_xact_rollback", Counter, "Transactions that were rolled back."),
            ("pg_stat_database_blks_read", Counter, "Blocks that were read."),
            ("pg_stat_database_blks_hit", Counter, "Blocks that were found in shared buffers."),
            ("pg_stat_database_tup_returned", Counter, "Rows that scans returned."),
            ("pg_stat_database_tup_fetched", Counter, "Rows that index scans fetched."),
            ("pg_stat_database_tup_inserted", Counter, "Rows that were inserted."),
            ("pg_stat_database_tup_updated", Counter, "Rows that were updated."),
            ("pg_stat_database_tup_deleted", Counter, "Rows that were deleted."),
            ("pg_stat_database_conflicts", Counter, "Queries that a standby's replay cancelled."),
            ("pg_stat_database_temp_files", Counter, "Temporary files."),
            ("pg_stat_database_temp_bytes", Counter, "Bytes of temporary files."),
            ("pg_stat_database_deadlocks", Counter, "Deadlocks."),
            ("pg_stat_database_checksum_failures", Counter, "Pages whose checksum is wrong."),
            ("pg_stat_database_blk_read_time", Counter, "Milliseconds of reading, with track_io_timing."),
            ("pg_stat_database_blk_write_time", Counter, "Milliseconds of writing, with track_io_timing."),
            ("pg_stat_database_stats_reset", Gauge, "When the database's statistics were reset."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select datid, datname, confl_tablespace, confl_lock, confl_snapshot, confl_bufferpin, confl_deadlock
              from pg_stat_database_conflicts where pg_is_in_recovery()",
        labels: &["datid", "datname"],
        columns: &[
            ("pg_stat_database_conflicts_confl_tablespace", Counter, "Queries cancelled for a dropped tablespace."),
            ("pg_stat_database_conflicts_confl_lock", Counter, "Queries cancelled for a lock."),
            ("pg_stat_database_conflicts_confl_snapshot", Counter, "Queries cancelled for an old snapshot."),
            ("pg_stat_database_conflicts_confl_bufferpin", Counter, "Queries cancelled for a pinned buffer."),
            ("pg_stat_database_conflicts_confl_deadlock", Counter, "Queries cancelled for a deadlock."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select datname, age(datfrozenxid), mxid_age(datminmxid) from pg_database where datallowconn",
        labels: &["datname"],
        columns: &[
            ("pg_database_wraparound_age_datfrozenxid_seconds", Gauge, "Age of the oldest unfrozen transaction, in transactions."),
            ("pg_database_wraparound_age_datminmxid_seconds", Gauge, "Age of the oldest multixact, in multixacts."),
        ],
    },
    Query {
        majors: 0..=16,
        sql: "select checkpoints_timed, checkpoints_req, checkpoint_write_time, checkpoint_sync_time, buffers_checkpoint,
              buffers_backend, buffers_backend_fsync from pg_stat_bgwriter",
        labels: &[],
        columns: &[
            ("pg_stat_bgwriter_checkpoints_timed_total", Counter, "Checkpoints because of the time."),
            ("pg_stat_bgwriter_checkpoints_req_total", Counter, "Checkpoints that were requested."),
            ("pg_stat_bgwriter_checkpoint_write_time_total", Counter, "Milliseconds of writing in checkpoints."),
            ("pg_stat_bgwriter_checkpoint_sync_time_total", Counter, "Milliseconds of fsync in checkpoints."),
            ("pg_stat_bgwriter_buffers_checkpoint_total", Counter, "Buffers written by checkpoints."),
            ("pg_stat_bgwriter_buffers_backend_total", Counter, "Buffers written by backends."),
            ("pg_stat_bgwriter_buffers_backend_fsync_total", Counter, "Times that a backend had to fsync by itself."),
        ],
    },
    Query {
        majors: 17..=u32::MAX,
        sql: "select num_timed, num_requested, restartpoints_timed, restartpoints_req, restartpoints_done, write_time,
              sync_time, buffers_written from pg_stat_checkpointer",
        labels: &[],
        columns: &[
            ("pg_stat_checkpointer_num_timed_total", Counter, "Checkpoints because of the time."),
            ("pg_stat_checkpointer_num_requested_total", Counter, "Checkpoints that were requested."),
            ("pg_stat_checkpointer_restartpoints_timed_total", Counter, "Restartpoints because of the time."),
            ("pg_stat_checkpointer_restartpoints_req_total", Counter, "Restartpoints that were requested."),
            ("pg_stat_checkpointer_restartpoints_done_total", Counter, "Restartpoints."),
            ("pg_stat_checkpointer_write_time_total", Counter, "Milliseconds of writing in checkpoints."),
            ("pg_stat_checkpointer_sync_time_total", Counter, "Milliseconds of fsync in checkpoints."),
            ("pg_stat_checkpointer_buffers_written_total", Counter, "Buffers written by checkpoints."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select buffers_clean, maxwritten_clean, buffers_alloc from pg_stat_bgwriter",
        labels: &[],
        columns: &[
            ("pg_stat_bgwriter_buffers_clean_total", Counter, "Buffers written by the background writer."),
            ("pg_stat_bgwriter_maxwritten_clean_total", Counter, "Scans that it stopped at bgwriter_lru_maxpages."),
            ("pg_stat_bgwriter_buffers_alloc_total", Counter, "Buffers that were allocated."),
        ],
    },
    Query {
        majors: ANY,
        sql: "select d.datname, m.mode, count(l.mode) from pg_database d
              cross join (values ('accesssharelock'), ('rowsharelock'), ('rowexclusivelock'), ('shareupdateexclusivelock'),
                   ('sharelock'), ('sharerowexclusivelock'), ('exclusivelock'), ('accessexclusivelock'), ('sireadlock')) m(mode)
              left join (select database, lower(mode) as mode from pg_locks where pid is distinct from pg_backend_pid()) l
                   on l.database = d.oid and l.mode = m.mode where d.datallowconn group by 1, 2",
        labels: &["datname", "mode"],
        columns: &[("pg_locks_count", Gauge, "Locks.")],
    },
    Query {
        majors: ANY,
        sql: "select name, 1 from pg_settings where pending_restart and source <> 'command line'",
        labels: &["name"],
        columns: &[("pg_settings_pending_restart", Gauge, "Settings whose changed value waits for a restart.")],
    },
    // Last: it looks at every file.
    Query {
        majors: ANY,
        sql: "select datname, pg_database_size(oid) from pg_database where datallowconn",
        labels: &["datname"],
        columns: &[("pg_database_size_bytes", Gauge, "The size of the database on disk.")],
    },
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;
    use crate::metrics::family;

    #[test]
    fn no_name_twice_with_any_version() {
        for major in [13, 15, 16, 17, 18] {
            let mut taken = BTreeSet::new();
            for query in QUERIES.iter().filter(|q| q.majors.contains(&major)) {
                for family in query.families(&Rows::default()) {
                    assert!(family.claim(&mut taken), "{major}: {}", family.name());
                }
            }
        }
    }

    #[test]
    fn null_is_no_value_and_labels_come_first() {
        let query = QUERIES.iter().find(|q| q.labels.first() == Some(&"slot_name")).unwrap();
        let row = ["a", "physical", "", "t"].map(|v| Some(v.to_string())).into_iter().chain([None, Some("5".into())]);
        let text = family::encode(vec![Arc::new(query.families(&Rows { columns: vec![], rows: vec![row.collect()] }))]);
        assert!(text.contains("pg_replication_slots_active{slot_name=\"a\",slot_type=\"physical\",database=\"\"} 1\n"));
        assert!(text.contains("safe_wal_size_bytes") && !text.contains("pg_wal_lsn_diff"), "{text}");
    }
}
