//! Initialisation is all or nothing: SIGKILL at every step of it, a full disk, a signal.

use crate::harness::*;

/// Shell for an idle container: kills everything that runs at a step ($1) of an initialisation, starts anew and looks
/// whether all is there exactly once. `kill -KILL -1` is what the end of a container is: one moment for all processes
/// but PID 1 and the shell that says it.
///
/// `$STAGE` is where the directory is built, `$PGDATA` where it goes.
const KILL_AT_A_STEP: &str = r#"
log=/tmp/log
fail() { echo "step $step: $1"; cat $log; exit; }
# Waits until $1, a shell condition, is true. Busily for files, since some steps take a millisecond.
await() {
  local end=$((SECONDS + 30))
  until eval "$1"; do
    [ -d /proc/$manager ] || fail "podgres ended before"
    [ $SECONDS -lt $end ] || fail "waited 30 s"
    case $1 in *grep* | *pg_isready*) sleep 0.02 ;; esac
  done 2>/dev/null
}
start() { podgres run >$log 2>&1 & manager=$!; disown; }
# Whether nothing but PID 1 and this shell is left; without starting anything. Zombies nobody waits for here, but one
# that still has threads (field 20) is not dead yet: they hold its files, and with them its locks.
alone() {
  local file line fields
  for file in /proc/[0-9]*/stat; do
    read -r line <$file || continue
    case ${line%% *} in 1 | $$) continue ;; esac
    read -r -a fields <<<"${line##*) }"
    [[ ${fields[0]} == [ZX] && ${fields[17]} -le 1 ]] || return 1
  done 2>/dev/null
}
kill_all() {
  local end=$((SECONDS + 30))
  kill -KILL -1
  until alone; do [ $SECONDS -lt $end ] || fail "something outlives SIGKILL"; done
}
system_id() { pg_controldata "$PGDATA" | grep 'system identifier'; }
wipe() { find "$PGDATA" ${WAL:+"$WAL"} -mindepth 1 ! -name lost+found -delete; [ ! -e "$STAGE" ] || rm -r "$STAGE"; }

step=$1
wipe
start; await "$step"; kill_all
id=; [ ! -e "$PGDATA/PG_VERSION" ] || id=$(system_id)
start; await '[ -S /var/run/postgresql/.s.PGSQL.5432 ] && pg_isready -q'
[ -z "$id" ] || [ "$id" = "$(system_id)" ] || fail "a finished directory was made again"
[ "$(psql -U postgres -Atc 'select count(*) from once')" = 1 ] || fail "SQL did not happen exactly once"
[ "$(grep -c '^# once' "$PGDATA/pg_hba.conf")" = 1 ] || fail "a script did not happen exactly once"
# The manager's own notes about the directory are there to stay.
left=$(find "$PGDATA" "$PGDATA/.." -maxdepth 1 -name '*podgres*' ! -name .podgres ! -name .pgdata.podgres)
[ -z "$left" ] || fail "left behind: $left"
[ -z "$WAL" ] || [ "$(readlink "$PGDATA/pg_wal")" = "$WAL" ] || fail "the WAL is not in $WAL"
kill_all
echo survived
"#;

/// Conditions, in the order in which they become true.
const STEPS: &str = r#"true
[ -e "$STAGE" ]
[ -e "$STAGE/data" ]
[ -e "$STAGE/data/PG_VERSION" ]
[ -e "$STAGE/data/global/pg_control" ]
grep -q 'bootstrap script ... ok' $log
grep -q '^listen_addresses' "$STAGE/data/postgresql.conf"
[ -e "$STAGE/data/postmaster.pid" ]
grep -q 'ready to accept connections' $log
grep -q 'running /docker-entrypoint-initdb.d/1.sql' $log
grep -q 'running /docker-entrypoint-initdb.d/2.sh' $log
grep -q 'shutting down' $log
grep -q 'database system is shut down' $log
[ -e "$STAGE/complete" ] || [ -e "$PGDATA/PG_VERSION" ]
[ -e "$PGDATA/global" ]
[ -e "$PGDATA/PG_VERSION" ]
grep -q 'init process complete' $log
[ -e "$PGDATA/postmaster.pid" ]
"#;

/// At each step in one of the layouts, `nth` of three; at each step in each of them where `PODGRES_TESTS` is `full`.
fn survives_a_kill_at_every_step(nth: usize, major: u32, options: &[&str], stage: &str) {
    let (first, stride) = if is_full() { (0, 1) } else { (nth, 3) };
    let scripts = Files::new(&[
        ("1.sql", 0o644, "create table once as select 1 as x;"),
        ("2.sh", 0o755, "#!/bin/sh\necho '# once' >>\"$PGDATA/pg_hba.conf\"\n"),
        ("kill", 0o644, KILL_AT_A_STEP),
    ]);
    let (mount, stage) = (scripts.at("/docker-entrypoint-initdb.d"), format!("STAGE={stage}"));
    let common = ["--no-healthcheck", "-e", "POSTGRES_PASSWORD=x", "-v", &mount, "-e", &stage];
    let container = Container::idle(major, &[&common, options].concat());
    container.shell("mkdir -p \"$PGDATA\"; [ -z \"${MOUNTED-}\" ] || mkdir \"$PGDATA/lost+found\"");
    for step in STEPS.lines().skip(first).step_by(stride) {
        let output = container.exec(&["bash", "/docker-entrypoint-initdb.d/kill", step]);
        assert_eq!(stdout(&output), "survived", "{step}: {output:?}");
    }
}

#[test]
fn sigkill_at_every_step_with_a_directory_below_the_mount() {
    survives_a_kill_at_every_step(0, 17, &[], "/var/lib/postgresql/data/.pgdata.podgres-new");
}

#[test]
fn sigkill_at_every_step_with_the_mount_point_itself_and_lost_and_found_in_it() {
    let options = ["-e", "PGDATA=/var/lib/postgresql/data", "-e", "MOUNTED=1"];
    let volume = Volume::new();
    let mount = volume.at("/var/lib/postgresql/data");
    let options = [&options as &[&str], &["-v", &mount]].concat();
    survives_a_kill_at_every_step(1, 15, &options, "/var/lib/postgresql/data/.podgres-new");
}

#[test]
fn sigkill_at_every_step_with_the_wal_on_a_volume_of_its_own() {
    let volume = Volume::new();
    volume.shell("chown 999:999 /volume");
    let mount = volume.at("/wal:nocopy");
    let options = ["-v", &mount, "-e", "POSTGRES_INITDB_WALDIR=/wal", "-e", "WAL=/wal"];
    survives_a_kill_at_every_step(2, 17, &options, "/var/lib/postgresql/data/.pgdata.podgres-new");
}

/// The real thing, at a few moments: a container that is killed, and a new one on its volume.
#[test]
fn a_killed_container_is_followed_by_one_that_begins_anew() {
    let scripts = Files::new(&[
        ("1.sql", 0o644, "create table once as select 1 as x;"),
        ("2.sh", 0o755, "#!/bin/sh\n[ ! -e /docker-entrypoint-initdb.d/hold ] || exec sleep 50\n"),
        ("hold", 0o644, ""),
    ]);
    for (major, pgdata) in [(15, "/var/lib/postgresql/data"), (17, "/var/lib/postgresql/data/pgdata")] {
        let volume = Volume::new();
        let pgdata = format!("PGDATA={pgdata}");
        let mounts = [volume.at("/var/lib/postgresql/data"), scripts.at("/docker-entrypoint-initdb.d")];
        let options = ["-e", &pgdata, "-v", &mounts[0], "-v", &mounts[1]];
        scripts.put("hold", 0o644, "");
        for moment in
            ["the data directory is empty", "syncing data|Sync to disk", "running /docker-entrypoint-initdb.d/2.sh"]
        {
            let container = Container::postgres(major, &options, &[]);
            wait_for(moment, || {
                let log = container.stdout();
                moment.split('|').any(|m| log.contains(m)).then_some(())
            });
            container.signal("KILL");
            assert_eq!(container.wait(), 137);
        }
        scripts.remove("hold");
        let container = Container::postgres(major, &options, &[]).ready();
        assert!(
            container.stdout().contains("an interrupted initialisation or clone was removed"),
            "{}",
            container.log()
        );
        assert_eq!(container.sql("select count(*) from once"), "1");
        let id = container.sql("select system_identifier from pg_control_system()");
        drop(container);
        let container = Container::postgres(major, &options, &[]).ready();
        assert_eq!(container.sql("select system_identifier from pg_control_system()"), id);
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_behind() {
    // Too little for initdb; for the WAL; for what a script loads.
    let load = "create table t as select md5(x::text) from generate_series(1, 5000000) x;";
    let scripts = Files::new(&[("1.sql", 0o644, load)]);
    let mount = scripts.at("/docker-entrypoint-initdb.d");
    for (major, size) in [(15, "8m"), (17, "30m"), (17, "100m")] {
        let tmpfs = format!("/var/lib/postgresql/data:size={size},mode=1777");
        let container = Container::idle(major, &["-e", "POSTGRES_PASSWORD=x", "--tmpfs", &tmpfs, "-v", &mount]);
        let output = container.exec(&["podgres", "run"]);
        assert_eq!(code(&output), 1, "{size}: {output:?}");
        assert!(stderr(&output).contains("the disk is full"), "{size}: {}\n{}", stdout(&output), stderr(&output));
        assert!(stdout(&output).contains("No space left on device"), "{size}: {}", stdout(&output));
        let left = container.shell("find /var/lib/postgresql/data -mindepth 1 ! -path \"$PGDATA\"");
        assert_eq!(left, "", "{size}");
    }
}

#[test]
fn told_to_stop_while_it_initialises_it_ends_with_0_and_leaves_nothing_behind() {
    let scripts = Files::new(&[("1.sh", 0o755, "#!/bin/bash\ntrap '' TERM INT\nwhile :; do sleep 50; done\n")]);
    for (major, pgdata, moment, signal) in [
        (15, "/var/lib/postgresql/data/pgdata", "the data directory is empty", "TERM"),
        (17, "/var/lib/postgresql/data/pgdata", "running /docker-entrypoint-initdb.d/1.sh", "TERM"),
        (15, "/var/lib/postgresql/data", "running /docker-entrypoint-initdb.d/1.sh", "INT"),
    ] {
        let volume = Volume::new();
        let variable = format!("PGDATA={pgdata}");
        let mounts = [volume.at("/var/lib/postgresql/data"), scripts.at("/docker-entrypoint-initdb.d")];
        let container = Container::postgres(major, &["-e", &variable, "-v", &mounts[0], "-v", &mounts[1]], &[]);
        container.wait_for_message(moment);
        container.signal(signal);
        let begun = std::time::Instant::now();
        assert_eq!(container.wait(), 0, "{}", container.log());
        // Docker's own patience is 10 s.
        assert!(begun.elapsed().as_secs() < 8, "{:?}", begun.elapsed());
        assert_eq!(volume.shell("find /volume -mindepth 1 ! -path /volume/pgdata"), "", "{moment}");
    }
}
