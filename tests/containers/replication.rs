//! Pairs of servers, without anybody who manages them: clone, follow, promote, come back.

use crate::harness::*;

const DATA: &str = "/var/lib/postgresql/data/pgdata";

/// Members that know each other by their containers' names.
pub struct Cluster {
    pub network: Network,
    pub major: u32,
}

impl Cluster {
    pub fn new(major: u32) -> Self {
        Self { network: Network::new(), major }
    }

    /// A member with this volume; `options` are docker's.
    pub fn member(&self, volume: &Volume, options: &[&str], command: &[&str]) -> Container {
        let mount = volume.at("/var/lib/postgresql");
        let common = ["--network", &self.network.0, "-v", &mount];
        Container::postgres(self.major, &[&common, options].concat(), command)
    }

    pub fn primary(&self, volume: &Volume) -> Container {
        self.member(volume, &[], &[]).ready()
    }

    pub fn standby(&self, volume: &Volume, of: &Container) -> Container {
        let source = format!("PODGRES_STANDBY_OF=host={}", of.name);
        self.member(volume, &["-e", &source], &[])
    }
}

/// Waits until `standby` has everything that `primary` has now.
pub fn wait_caught_up(primary: &Container, standby: &Container) {
    let lsn = primary.sql("select pg_current_wal_lsn()");
    wait_or(
        || format!("the standby to replay {lsn}; its log:\n{}", standby.log()),
        || {
            let sql = format!("select coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
            let output = standby.exec(&["psql", "-U", "postgres", "-XAtqc", &sql]);
            (stdout(&output) == "t").then_some(())
        },
    );
}

pub fn rows(member: &Container) -> String {
    member.sql("select string_agg(t, ' ' order by t) from t")
}

fn system_identifier(member: &Container) -> String {
    member.sql("select system_identifier from pg_control_system()")
}

/// A primary with a table and a standby that streams from it.
pub fn pair(cluster: &Cluster, volumes: [&Volume; 2]) -> (Container, Container) {
    let a = cluster.primary(volumes[0]);
    a.sql("create table t (t text); insert into t values ('common')");
    let b = cluster.standby(volumes[1], &a).ready();
    wait_caught_up(&a, &b);
    (a, b)
}

#[test]
fn a_standby_is_cloned_streams_and_is_promoted_by_a_signal() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        assert_eq!((b.http("/replica").0, b.http("/primary").0, b.http("/readyz?lag=16MB").0), (200, 503, 200));
        assert_eq!(rows(&b), "common");
        assert_eq!(a.sql("select rolpassword like 'SCRAM-SHA-256$%' from pg_authid where rolname = 'podgres'"), "t");
        assert_eq!(a.sql("select count(*) from pg_replication_slots where active and slot_name ~ '^podgres_'"), "1");
        assert_eq!(b.sql("show primary_conninfo").matches("password").count(), 0);

        b.signal("USR1");
        wait_for("the standby to be promoted", || (b.http("/primary").0 == 200).then_some(()));
        b.sql("insert into t values ('after')");
        assert!(stdout(&b.exec(&["podgres", "promote"])).contains("is the primary"));
        assert!(b.stdout().contains("promoted: writes are accepted, "), "how long it took is said");
    }
}

#[test]
fn promote_waits_and_says_how_long_it_took() {
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let (_a, b) = pair(&cluster, [&va, &vb]);
    let promoted = b.exec(&["podgres", "promote"]);
    assert!(promoted.status.success(), "{}", stderr(&promoted));
    assert!(stdout(&promoted).contains(" ms after the order"), "{}", stdout(&promoted));
    b.sql("insert into t values ('at once')");
}

#[test]
fn a_former_primary_that_was_stopped_comes_back_with_nothing_to_do() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        a.sql("insert into t values ('last')");
        a.signal("TERM");
        assert_eq!(a.wait(), 0);
        assert!(b.exec(&["podgres", "promote"]).status.success());
        b.sql("insert into t values ('new')");
        drop(a);

        let a = cluster.standby(&va, &b).ready();
        wait_caught_up(&b, &a);
        assert_eq!(rows(&a), "common last new");
        let log = a.stdout();
        assert!(log.contains("nothing diverged") && !log.contains("pg_rewind") && !log.contains("cloning"), "{log}");
    }
}

/// It was killed when it had begun to receive a new timeline, from the beginning of the segment, and had not come to where
/// that one forked off. PostgreSQL prefers the newest timeline's file, and never starts again.
#[test]
fn a_standby_that_was_killed_while_it_received_the_beginning_of_a_timeline_comes_back() {
    for major in majors() {
        let (cluster, va, vb, vc) = (Cluster::new(major), Volume::new(), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        let c = cluster.standby(&vc, &a).ready();
        a.sql("select pg_switch_wal()");
        a.sql("insert into t select 'row ' || n from generate_series(1, 20000) n");
        wait_caught_up(&a, &b);
        wait_caught_up(&a, &c);
        b.signal("KILL");
        b.wait();
        drop(b);
        assert!(c.exec(&["podgres", "promote"]).status.success());
        c.sql("insert into t values ('new')");
        let script = r#"
            from=$(echo /from/*/pgdata/pg_wal) to=$(echo /to/*/pgdata/pg_wal)
            fork=$((16#$(grep -o '0/[0-9A-F]*' "$from/00000002.history" | cut -d / -f 2)))
            segment=$(printf '00000002%08X%08X' 0 $((fork >> 24)))
            cp "$from/00000002.history" "$to/"
            head -c $(((fork & 0xffffff) / 8192 * 8192 / 2)) "$from/$segment" > "$to/$segment"
            truncate -s 16M "$to/$segment"
            chown --reference "$to/../PG_VERSION" "$to/$segment" "$to/00000002.history"
            chmod 600 "$to/$segment" "$to/00000002.history"
            echo "$segment forks at $fork""#;
        let (from, to) = (vc.at("/from"), vb.at("/to"));
        let volumes = ["--user", "0:0", "-v", &from, "-v", &to, "--entrypoint", "bash"];
        let torn = run(major, &volumes, &["-euc", script]);
        assert!(torn.status.success(), "{}", stderr(&torn));

        let b = cluster.standby(&vb, &c).ready();
        wait_caught_up(&c, &b);
        let log = b.stdout();
        assert!(log.contains("received only in part") && !log.contains("cloning"), "{}{log}", stdout(&torn));
    }
}

/// `a` goes on writing after `b` was promoted, and dies.
pub fn diverge(a: &Container, b: &Container) {
    assert!(b.exec(&["podgres", "promote"]).status.success());
    a.sql("insert into t values ('lost')");
    b.sql("insert into t values ('new')");
    a.signal("KILL");
    a.wait();
}

#[test]
fn a_former_primary_that_crashed_and_has_diverged_is_rewound() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        diverge(&a, &b);
        drop(a);
        let a = cluster.standby(&va, &b).ready();
        wait_caught_up(&b, &a);
        assert_eq!(rows(&a), "common new");
        let log = a.stdout();
        assert!(log.contains("diverged: timeline 1") && log.contains("rewinding is complete"), "{log}");
        assert!(!log.contains("cloning"), "{log}");
        let kept = a.shell("ls /var/lib/postgresql/data/.pgdata.podgres/diverged-wal");
        assert!(kept.contains("000000010000000000000"), "the WAL with the lost row is kept: {kept}");
    }
}

/// A directory with PostgreSQL's programs in which one of them is this script; the real one is `$real`.
pub fn programs_with(major: u32, changed: &str, script: &str) -> Files {
    let programs = format!("/usr/lib/postgresql/{major}/bin");
    let forward = |name: &str| format!("#!/bin/sh\nexec {programs}/{name} \"$@\"\n");
    let names = [
        "postgres",
        "initdb",
        "psql",
        "pg_basebackup",
        "pg_verifybackup",
        "pg_controldata",
        "pg_waldump",
        "pg_ctl",
        "pg_rewind",
    ];
    let others = names.iter().filter(|name| **name != changed);
    let mut files: Vec<(&str, u32, String)> = others.map(|n| (*n, 0o755, forward(n))).collect();
    files.push((changed, 0o755, format!("#!/bin/sh\nreal={programs}/{changed}\n{script}")));
    let files: Vec<(&str, u32, &str)> = files.iter().map(|(n, m, t)| (*n, *m, t.as_str())).collect();
    Files::new(&files)
}

/// Starts the diverged `a` again, with a `pg_rewind` of the test's own.
fn return_with_rewind(cluster: &Cluster, volume: &Volume, of: &Container, script: &str) -> (Container, Files) {
    let programs = programs_with(cluster.major, "pg_rewind", script);
    let (mount, source) = (programs.at("/programs"), format!("PODGRES_STANDBY_OF=host={}", of.name));
    let options = ["-v", &mount, "-e", &source, "-e", "PODGRES_POSTGRES_BINDIR=/programs"];
    (cluster.member(volume, &options, &[]), programs)
}

#[test]
fn a_rewind_that_fails_half_way_gives_way_to_a_clone() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        diverge(&a, &b);
        drop(a);
        // It has begun to overwrite things when it fails.
        let (a, _programs) =
            return_with_rewind(&cluster, &va, &b, &format!(": >{DATA}/pg_hba.conf; echo half; exit 1"));
        let a = a.ready();
        wait_caught_up(&b, &a);
        assert_eq!(rows(&a), "common new");
        let log = a.stdout();
        assert!(
            log.contains("rewinding failed: pg_rewind exited with code 1") && log.contains("cloning is complete"),
            "{log}"
        );
        // What was diverged is kept beside, and the note of the rewind is gone.
        a.shell("test -e /var/lib/postgresql/data/.pgdata.podgres-old/PG_VERSION");
        a.shell("! test -e /var/lib/postgresql/data/.pgdata.podgres/rewinding");
    }
}

#[test]
fn a_manager_that_is_killed_while_it_rewinds_redoes_it() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        diverge(&a, &b);
        drop(a);
        // The first try hangs before it has touched anything; the second one works.
        let script =
            "[ -e /var/lib/postgresql/second ] || { : >/var/lib/postgresql/second; sleep 1000; }\nexec $real \"$@\"";
        let (a, _programs) = return_with_rewind(&cluster, &va, &b, script);
        wait_for("the rewind to begin", || {
            a.exec(&["test", "-e", "/var/lib/postgresql/second"]).status.success().then_some(())
        });
        a.signal("KILL");
        a.wait();
        a.start_again();
        a.wait_ready();
        wait_caught_up(&b, &a);
        assert_eq!(rows(&a), "common new");
        assert!(a.stdout().contains("a rewind of the data directory was cut short"), "{}", a.log());
    }
}

#[test]
fn a_half_rewound_directory_is_not_started_without_its_source() {
    let volume = Volume::new();
    let mount = volume.at("/var/lib/postgresql");
    let container = Container::postgres(15, &["-v", &mount], &[]).ready();
    container.shell("mkdir -p /var/lib/postgresql/data/.pgdata.podgres && echo 1 >/var/lib/postgresql/data/.pgdata.podgres/rewinding");
    container.signal("TERM");
    assert_eq!(container.wait(), 0);
    container.start_again();
    assert_eq!(container.wait(), 1);
    assert!(container.stderr().contains("cut short"), "{}", container.log());
}

#[test]
fn where_pg_rewind_is_impossible_a_former_primary_is_cloned() {
    let (cluster, va, vb) = (Cluster::new(15), Volume::new(), Volume::new());
    // Neither checksums nor hints in the WAL: pg_rewind refuses.
    let a = cluster.member(&va, &[], &["-c", "wal_log_hints=off"]).ready();
    a.sql("create table t (t text); insert into t values ('common')");
    let b = cluster.standby(&vb, &a).ready();
    wait_caught_up(&a, &b);
    diverge(&a, &b);
    drop(a);
    let a = cluster.standby(&va, &b).ready();
    wait_caught_up(&b, &a);
    assert_eq!(rows(&a), "common new");
    assert!(a.stdout().contains("cloning is complete"), "{}", a.log());
}

#[test]
fn a_promoted_standby_stays_a_primary_over_restarts_until_its_source_overtakes_it() {
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let (a, b) = pair(&cluster, [&va, &vb]);
    assert!(b.exec(&["podgres", "promote"]).status.success());
    b.sql("insert into t values ('new')");
    let restart = |b: &Container| {
        b.signal("TERM");
        assert_eq!(b.wait(), 0);
        b.start_again();
        b.wait_ready();
    };
    // The source is there, an older primary now; then it is gone.
    restart(&b);
    assert_eq!((b.sql("select pg_is_in_recovery()"), rows(&b)), ("f".into(), "common new".into()));
    a.signal("TERM");
    a.wait();
    restart(&b);
    assert_eq!(b.sql("select pg_is_in_recovery()"), "f");

    // The former source comes back as a standby, under the name that is in the settings, and is promoted in turn.
    let name = a.name.clone();
    drop(a);
    let source = format!("PODGRES_STANDBY_OF=host={}", b.name);
    let a = cluster.member(&va, &["-e", &source, "--network-alias", &name], &[]).ready();
    wait_caught_up(&b, &a);
    b.signal("TERM");
    b.wait();
    assert!(a.exec(&["podgres", "promote"]).status.success());
    b.start_again();
    b.wait_ready();
    wait_caught_up(&a, &b);
    assert_eq!(b.sql("select pg_is_in_recovery()"), "t", "{}", b.log());
}

#[test]
fn a_primary_by_its_settings_forgets_over_whom_it_was_promoted() {
    let (cluster, va, vb) = (Cluster::new(15), Volume::new(), Volume::new());
    let a = cluster.primary(&va);
    let follows = format!("standby-of = \"host={}\"\n", a.name);
    let config = Files::new(&[("podgres.toml", 0o644, &follows)]);
    let b = cluster.member(&vb, &["-v", &config.at("/etc/podgres")], &[]).ready();
    drop(a);
    assert!(b.exec(&["podgres", "promote"]).status.success());
    config.put("podgres.toml", 0o644, "");
    let reloaded = b.exec(&["podgres", "reload"]);
    assert!(reloaded.status.success(), "{}", stderr(&reloaded));
    assert!(!stdout(&reloaded).contains("restart"), "{}", stdout(&reloaded));
    b.signal("TERM");
    assert_eq!(b.wait(), 0);
    // It is to follow, and its source is not there yet: that makes no primary of it.
    config.put("podgres.toml", 0o644, &follows);
    b.start_again();
    b.wait_for_message("without its source");
    wait_for("reads", || {
        let recovery = b.exec(&["psql", "-U", "postgres", "-XAtqc", "select pg_is_in_recovery()"]);
        (stdout(&recovery) == "t").then_some(())
    });
}

#[test]
fn another_cluster_is_refused_and_nothing_touched() {
    let (cluster, va, vb) = (Cluster::new(15), Volume::new(), Volume::new());
    let (a, b) = (cluster.primary(&va), cluster.primary(&vb));
    b.signal("TERM");
    assert_eq!(b.wait(), 0);
    drop(b);
    let before = vb.snapshot();
    let b = cluster.standby(&vb, &a);
    assert_eq!(b.wait(), 78, "{}", b.log());
    assert!(b.stderr().contains("another cluster"), "{}", b.stderr());
    assert_eq!(vb.snapshot(), before);
}

#[test]
fn a_source_that_is_down_or_refuses_is_asked_again_with_a_plain_reason() {
    let (cluster, va, vb) = (Cluster::new(15), Volume::new(), Volume::new());
    let config = Files::new(&[("podgres.toml", 0o644, "replication-password = \"first\"\n")]);
    let a = cluster.member(&va, &["-v", &config.at("/etc/podgres")], &[]).ready();
    let source = format!("PODGRES_STANDBY_OF=host={} password=wrong-hush", a.name);
    let b = cluster.member(&vb, &["-e", &source], &[]);
    b.wait_for_message("password authentication failed");
    assert_eq!((b.http("/startupz").0, b.http("/readyz").0), (200, 503));
    let status = stdout(&b.exec(&["podgres", "status"]));
    assert!(status.contains("cloning") && status.contains("password authentication failed"), "{status}");
    assert!(!b.log().contains("wrong-hush"), "the password is in no line");
    // The primary gives its role the password of its settings, also when that changes.
    config.put("podgres.toml", 0o644, "replication-password = \"wrong-hush\"\n");
    b.wait_ready();

    // A standby whose source is gone answers reads, and is not ready.
    a.signal("TERM");
    a.wait();
    wait_for("the standby to be unready", || (b.http("/readyz").0 == 503).then_some(()));
    assert_eq!(b.sql("select 1"), "1");
    b.signal("TERM");
    assert_eq!(b.wait(), 0);
    b.start_again();
    b.wait_for_message("without its source");
    a.start_again();
    b.wait_ready();
}

#[test]
fn a_slot_that_lost_its_wal_leads_to_a_new_clone() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let small = ["-c", "max_slot_wal_keep_size=16MB", "-c", "max_wal_size=32MB", "-c", "min_wal_size=32MB"];
        let a = cluster.member(&va, &[], &small).ready();
        a.sql("create table t (t text); insert into t values ('common')");
        let b = cluster.standby(&vb, &a).ready();
        wait_caught_up(&a, &b);
        b.signal("TERM");
        assert_eq!(b.wait(), 0);
        a.sql("create table big as select repeat('x', 1000) from generate_series(1, 150000)");
        a.sql("drop table big");
        a.sql("checkpoint");
        a.sql("checkpoint");
        wait_for("the slot to lose its WAL", || {
            a.sql("select pg_switch_wal()");
            a.sql("checkpoint");
            (a.sql("select count(*) from pg_replication_slots where wal_status <> 'lost'") == "0").then_some(())
        });
        b.start_again();
        b.wait_ready();
        wait_caught_up(&a, &b);
        assert!(b.stdout().contains("no longer has the WAL from"), "{}", b.log());
    }
}

#[test]
fn a_standby_that_is_ahead_of_the_new_primary_is_rewound() {
    let (cluster, va, vb, vc) = (Cluster::new(17), Volume::new(), Volume::new(), Volume::new());
    let (a, b) = pair(&cluster, [&va, &vb]);
    let config = Files::new(&[("podgres.toml", 0o644, &format!("standby-of = \"host={}\"\n", a.name))]);
    let mount = config.at("/etc/podgres");
    let c = cluster.member(&vc, &["-v", &mount], &[]).ready();
    wait_caught_up(&a, &c);
    // What comes now reaches only c.
    b.sql("select pg_wal_replay_pause()");
    docker_ok(&["network", "disconnect", &cluster.network.0, &b.name]);
    a.sql("insert into t values ('ahead')");
    wait_caught_up(&a, &c);
    a.signal("KILL");
    a.wait();
    docker_ok(&["network", "connect", &cluster.network.0, &b.name]);
    assert!(b.exec(&["podgres", "promote"]).status.success());
    b.sql("insert into t values ('new')");
    config.put("podgres.toml", 0o644, &format!("standby-of = \"host={}\"\n", b.name));
    wait_for("c to follow b", || {
        let output = c.exec(&["psql", "-U", "postgres", "-XAtqc", "select string_agg(t, ' ' order by t) from t"]);
        (stdout(&output) == "common new").then_some(())
    });
    assert!(c.stdout().contains("rewinding is complete"), "{}", c.log());
}

#[test]
fn slots_of_the_primary_are_copied_so_that_a_promotion_loses_none() {
    for major in majors() {
        let (cluster, va, vb, vc) = (Cluster::new(major), Volume::new(), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        let c = cluster.standby(&vc, &a).ready();
        let others = "select slot_name from pg_replication_slots where slot_name in (select slot_name from pg_replication_slots) order by 1";
        let on_a = a.sql(others);
        let own = b.sql("show primary_slot_name");
        let expected: Vec<&str> = on_a.lines().filter(|s| *s != own).collect();
        wait_for("b to have a copy of c's slot", || {
            (b.sql(others).lines().collect::<Vec<_>>() == expected).then_some(())
        });
        assert_eq!(expected, [c.sql("show primary_slot_name")]);
        assert!(b.exec(&["podgres", "promote"]).status.success());
        assert_eq!(b.sql(others), expected[0]);
    }
}

#[test]
fn slots_of_standbys_that_never_come_back_are_dropped_after_a_while() {
    let (cluster, va, vb) = (Cluster::new(15), Volume::new(), Volume::new());
    let a = cluster.member(&va, &["-e", "PODGRES_SLOT_RETENTION=2s"], &[]).ready();
    a.sql("select pg_create_physical_replication_slot('mine', true)");
    let b = cluster.standby(&vb, &a).ready();
    let slots = || a.sql("select count(*) from pg_replication_slots where slot_name like 'podgres%'");
    assert_eq!(slots(), "1");
    drop(b);
    wait_for("the slot to be dropped", || (slots() == "0").then_some(()));
    assert_eq!(a.sql("select slot_name from pg_replication_slots"), "mine", "others' slots are theirs");
}

#[test]
fn reinit_clones_a_standby_anew_and_is_refused_on_a_primary() {
    let (cluster, va, vb) = (Cluster::new(15), Volume::new(), Volume::new());
    let (a, b) = pair(&cluster, [&va, &vb]);
    let refused = a.exec(&["podgres", "reinit"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    let inode = |c: &Container| c.shell(&format!("stat -c %i {DATA}"));
    let before = inode(&b);
    assert!(b.exec(&["podgres", "reinit"]).status.success());
    wait_for("the new clone", || (inode(&b) != before).then_some(()));
    b.wait_ready();
    wait_caught_up(&a, &b);
    assert_eq!(system_identifier(&a), system_identifier(&b));
}

#[test]
fn a_manager_that_is_killed_while_it_promotes_goes_on_with_it() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        // With replay paused a promotion takes place all the same; with its startup process frozen it cannot.
        b.shell(
            "for p in /proc/[0-9]*; do grep -q '^postgres: startup' $p/cmdline && kill -STOP ${p#/proc/}; done; true",
        );
        b.signal("USR1");
        b.wait_for_message("PostgreSQL is told to promote itself");
        b.signal("KILL");
        b.wait();
        b.start_again();
        wait_or(|| format!("the promotion: {}", b.log()), || (b.http("/primary").0 == 200).then_some(()));
        b.sql("insert into t values ('new')");
        assert_eq!(rows(&b), "common new");
        drop(a);
    }
}

#[test]
fn a_manager_that_is_killed_while_it_looks_at_its_source_looks_again() {
    let (cluster, va, vb) = (Cluster::new(15), Volume::new(), Volume::new());
    let (a, b) = pair(&cluster, [&va, &vb]);
    b.signal("TERM");
    assert_eq!(b.wait(), 0);
    a.pause();
    b.start_again();
    b.wait_for_message("joining");
    b.signal("KILL");
    b.wait();
    b.start_again();
    a.unpause();
    b.wait_ready();
    a.sql("insert into t values ('more')");
    wait_caught_up(&a, &b);
}

#[test]
fn a_frozen_source_keeps_no_standby_from_its_reads() {
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let (a, b) = pair(&cluster, [&va, &vb]);
    a.pause();
    b.signal("TERM");
    assert_eq!(b.wait(), 0);
    b.start_again();
    wait_or(
        || format!("reads: {}", b.log()),
        || {
            let read = b.exec(&["psql", "-U", "postgres", "-XAtqc", "select t from t"]);
            (stdout(&read) == "common").then_some(())
        },
    );
    assert_eq!((b.http("/readyz").0, b.http("/livez").0), (503, 200));
    a.unpause();
    b.wait_ready();
    wait_caught_up(&a, &b);
}

#[test]
fn a_standby_of_a_standby_follows_the_timeline_that_a_promotion_begins() {
    for major in majors() {
        let (cluster, va, vb, vc) = (Cluster::new(major), Volume::new(), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        let c = cluster.standby(&vc, &b).ready();
        wait_caught_up(&a, &c);
        a.signal("KILL");
        a.wait();
        assert!(b.exec(&["podgres", "promote"]).status.success());
        b.sql("insert into t values ('new')");
        wait_caught_up(&b, &c);
        assert_eq!(rows(&c), "common new");
        assert_eq!(c.sql("select received_tli from pg_stat_wal_receiver"), "2");
        assert!(!c.stdout().contains("rewinding") && c.stdout().matches("cloning is complete").count() == 1);
    }
}

#[test]
fn logical_slots_that_are_to_survive_a_failover_do() {
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let logical = ["-c", "wal_level=logical"];
    let a = cluster.member(&va, &[], &logical).ready();
    a.sql("create table t (t text); insert into t values ('common')");
    a.sql("select pg_create_logical_replication_slot('changes', 'test_decoding', false, false, true)");
    a.sql("select pg_create_logical_replication_slot('local', 'test_decoding')");
    let source = format!("PODGRES_STANDBY_OF=host={}", a.name);
    let b = cluster.member(&vb, &["-e", &source], &logical).ready();
    wait_or(
        || format!("the slot to be synchronised: {}", b.log()),
        || {
            // It can be once whoever reads from it has read up to something that the standby has too.
            a.sql("insert into t values ('common')");
            a.sql("select count(*) from pg_logical_slot_get_changes('changes', null, null)");
            a.sql("select pg_log_standby_snapshot()");
            let ready =
                "select count(*) from pg_replication_slots where slot_name = 'changes' and synced and not temporary";
            (b.sql(ready) == "1").then_some(())
        },
    );
    wait_caught_up(&a, &b);
    assert!(b.exec(&["podgres", "promote"]).status.success());
    b.sql("insert into t values ('after the promotion')");
    let changes = b.sql("select data from pg_logical_slot_get_changes('changes', null, null)");
    assert!(changes.contains("after the promotion"), "{changes}");
    assert_eq!(b.sql("select count(*) from pg_replication_slots where slot_name = 'local'"), "0");
}

#[test]
fn a_second_return_is_as_quick_as_the_first() {
    // There and back again: roles change hands, nothing is cloned, and the slots do not grow in number.
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let (a, b) = pair(&cluster, [&va, &vb]);
    let config = Files::new(&[("podgres.toml", 0o644, "")]);
    let (names, mount) = ([a.name.clone(), b.name.clone()], config.at("/etc/podgres"));
    drop((a, b));
    let member = |volume: &Volume, name: &str, of: &str| {
        let source = format!("PODGRES_STANDBY_OF=host={of}");
        cluster.member(volume, &["-v", &mount, "-e", &source, "--network-alias", name], &[])
    };
    let start = |primary: usize| {
        let volumes = [&va, &vb];
        let standby = 1 - primary;
        let leader = member(volumes[primary], &names[primary], &names[standby]);
        wait_or(
            || format!("reads: {}", leader.log()),
            || leader.exec(&["pg_isready", "-q"]).status.success().then_some(()),
        );
        assert!(leader.exec(&["podgres", "promote"]).status.success(), "{}", leader.log());
        leader.wait_ready();
        let follower = member(volumes[standby], &names[standby], &names[primary]).ready();
        (leader, follower)
    };
    for round in 0..4 {
        let (leader, follower) = start(1 - round % 2);
        leader.sql(&format!("insert into t values ('{round}')"));
        wait_caught_up(&leader, &follower);
        assert_eq!(follower.sql("select count(*) from t"), (round + 2).to_string());
        assert_eq!(leader.sql("select count(*) from pg_replication_slots"), "1", "{}", leader.log());
        assert!(
            !follower.stdout().contains("rewinding") && !follower.stdout().contains("cloning"),
            "{}",
            follower.log()
        );
        // The primary first, so that the standby has all of it.
        leader.signal("TERM");
        leader.wait();
        follower.signal("TERM");
        follower.wait();
    }
}

#[test]
fn a_standby_that_is_ahead_of_a_lagging_source_waits_for_it() {
    let (cluster, va, vb, vc) = (Cluster::new(17), Volume::new(), Volume::new(), Volume::new());
    let (a, b) = pair(&cluster, [&va, &vb]);
    let config = Files::new(&[("podgres.toml", 0o644, &format!("standby-of = \"host={}\"\n", a.name))]);
    let c = cluster.member(&vc, &["-v", &config.at("/etc/podgres")], &[]).ready();
    // More than a segment, of which b has nothing.
    docker_ok(&["network", "disconnect", &cluster.network.0, &b.name]);
    a.sql("insert into t select repeat('x', 1000) from generate_series(1, 50000)");
    wait_caught_up(&a, &c);
    a.pause();
    docker_ok(&["network", "connect", &cluster.network.0, &b.name]);
    config.put("podgres.toml", 0o644, &format!("standby-of = \"host={}\"\n", b.name));
    wait_for("the reason", || stdout(&c.exec(&["podgres", "status"])).contains("behind this standby").then_some(()));
    a.unpause();
    c.wait_ready();
    a.sql("insert into t values ('last')");
    wait_caught_up(&a, &c);
    assert_eq!(c.stdout().matches("cloning is complete").count(), 1, "{}", c.log());
}

#[test]
fn a_source_that_lets_no_sql_in_is_cloned_from_where_a_rewind_would_ask() {
    let (cluster, va, vb) = (Cluster::new(15), Volume::new(), Volume::new());
    let (a, b) = pair(&cluster, [&va, &vb]);
    diverge(&a, &b);
    drop(a);
    b.sql("revoke connect on database postgres from public");
    let a = cluster.standby(&va, &b);
    wait_or(|| format!("why not: {}", a.log()), || a.stdout().contains("pg_rewind is not possible here").then_some(()));
    a.wait_ready();
    wait_caught_up(&b, &a);
    assert_eq!(rows(&a), "common new");
}
