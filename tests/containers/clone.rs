//! Clones: wherever they are cut short, whatever they have outside of the data directory, whatever they replace.

use crate::{harness::*, replication::*};

const ROOT: &str = "/var/lib/postgresql";
const PGDATA: &str = "/var/lib/postgresql/data/pgdata";

/// Where a data directory is, and what of it is elsewhere.
struct Layout {
    name: &'static str,
    /// Where the volume is mounted.
    mount: &'static str,
    /// Docker's other options, of the standby.
    options: &'static [&'static str],
    pgdata: &'static str,
}

const LAYOUTS: [Layout; 3] = [
    Layout { name: "a directory below the mount", mount: ROOT, options: &[], pgdata: PGDATA },
    // PGDATA is what is mounted: nothing can be exchanged for it.
    Layout {
        name: "the mount point itself",
        mount: "/var/lib/postgresql/data",
        options: &["-e", "PGDATA=/var/lib/postgresql/data"],
        pgdata: "/var/lib/postgresql/data",
    },
    Layout {
        name: "WAL of its own",
        mount: ROOT,
        options: &["-e", "POSTGRES_INITDB_WALDIR=/outside/wal"],
        pgdata: PGDATA,
    },
];

/// Holds the program that `/programs/hold` names; before that `pg_basebackup` is what it is called with.
fn held(program: &str) -> String {
    format!("if [ \"$(cat /programs/hold)\" = {program} ]; then touch /tmp/held; sleep 1000; fi\n")
}

/// A member's volumes: one for the data directory, one for what is outside of it.
struct Volumes {
    data: Volume,
    outside: Volume,
}

impl Volumes {
    fn new() -> Self {
        let volumes = Self { data: Volume::new(), outside: Volume::new() };
        volumes.outside.shell("mkdir /volume/space /volume/wal; chown -R 999:999 /volume");
        volumes
    }
}

/// A primary with a table in a tablespace.
fn primary(cluster: &Cluster, volumes: &Volumes) -> Container {
    let a = cluster.member(&volumes.data, &["-v", &volumes.outside.at("/outside")], &[]).ready();
    a.sql("create tablespace space location '/outside/space'");
    a.sql("create table t (t text) tablespace space; insert into t values ('common')");
    a
}

/// A standby in which `programs` are PostgreSQL's.
fn standby_with(cluster: &Cluster, volumes: &Volumes, of: &Container, layout: &Layout, programs: &Files) -> Container {
    let (mount, source) = (programs.at("/programs"), format!("PODGRES_STANDBY_OF=host={}", of.name));
    let outside = volumes.outside.at("/outside");
    let data = volumes.data.at(layout.mount);
    let own = ["--network", &cluster.network.0, "-v", &data, "-v", &outside, "-v", &mount, "-e", &source];
    let bindir = ["-e", "PODGRES_POSTGRES_BINDIR=/programs"];
    Container::postgres(cluster.major, &[&own[..], &bindir, layout.options].concat(), &[])
}

fn wait_held(container: &Container) {
    wait_or(
        || format!("the held program to begin; the log:\n{}", container.log()),
        || container.exec(&["test", "-e", "/tmp/held"]).status.success().then_some(()),
    );
}

fn kill_and_start_again(container: &Container) {
    container.signal("KILL");
    container.wait();
    container.start_again();
}

/// Nothing of a clone is left but the clone: no stage, no second slot, no second WAL directory or tablespace.
fn assert_tidy(a: &Container, b: &Container, layout: &Layout) {
    let stages = b.shell(&format!("find {ROOT} -name '*podgres-new*'"));
    assert_eq!(stages, "", "{}: {}", layout.name, b.log());
    wait_for("one slot for the standby", || {
        (a.sql("select count(*) filter (where active), count(*) from pg_replication_slots") == "1|1").then_some(())
    });
    assert_eq!(b.shell("ls /outside/space | wc -l"), "1", "{}", layout.name);
    if layout.options.iter().any(|o| o.contains("WALDIR")) {
        assert_eq!(b.shell("ls /outside/wal | wc -l"), "1");
        assert!(b.shell(&format!("readlink {}/pg_wal", layout.pgdata)).starts_with("/outside/wal/"));
    }
}

#[test]
fn a_clone_that_is_killed_at_any_step_is_redone() {
    let (cluster, va) = (Cluster::new(17), Volumes::new());
    let a = primary(&cluster, &va);
    // Copied slowly enough to be killed in the middle.
    let slowly = format!("{}exec $real --max-rate=4M \"$@\"", held("start"));
    for layout in &LAYOUTS {
        let vb = Volumes::new();
        let programs = programs_with(17, "pg_basebackup", &slowly);
        programs.put("hold", 0o644, "start");
        let b = standby_with(&cluster, &vb, &a, layout, &programs);
        wait_held(&b);
        programs.put("hold", 0o644, "nothing");
        kill_and_start_again(&b);
        wait_or(
            || format!("{}: half a copy\n{}", layout.name, b.log()),
            || {
                let found =
                    b.exec(&["bash", "-c", &format!("find {ROOT} -path '*podgres-new/data/base/1/*' | grep -q .")]);
                found.status.success().then_some(())
            },
        );
        kill_and_start_again(&b);
        wait_for("the copy to begin again", || (b.stdout().matches("cloning: copying").count() == 3).then_some(()));
        b.wait_ready();
        wait_caught_up(&a, &b);
        assert_eq!(rows(&b), "common");
        assert!(b.stdout().contains("an interrupted initialisation or clone was removed"), "{}", b.log());
        assert_tidy(&a, &b, layout);
        let slot = b.sql("show primary_slot_name");
        drop(b);
        wait_for("the standby to be gone", || {
            (a.sql("select count(*) from pg_replication_slots where active") == "0").then_some(())
        });
        a.sql(&format!("select pg_drop_replication_slot('{slot}')"));
    }
}

#[test]
fn a_copy_that_is_killed_before_it_was_verified_is_made_again() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volumes::new(), Volumes::new());
        let a = primary(&cluster, &va);
        let programs = programs_with(major, "pg_verifybackup", &format!("{}exec $real \"$@\"", held("verify")));
        programs.put("hold", 0o644, "verify");
        let b = standby_with(&cluster, &vb, &a, &LAYOUTS[0], &programs);
        wait_held(&b);
        assert_eq!(b.http("/readyz").0, 503);
        b.shell(&format!("! test -e {PGDATA}/PG_VERSION"));
        programs.put("hold", 0o644, "nothing");
        kill_and_start_again(&b);
        b.wait_ready();
        wait_caught_up(&a, &b);
        assert_tidy(&a, &b, &LAYOUTS[0]);
    }
}

#[test]
fn a_copy_that_fails_its_verification_is_not_used() {
    let (cluster, va, vb) = (Cluster::new(15), Volumes::new(), Volumes::new());
    let a = primary(&cluster, &va);
    // A byte that the network or the disk changed.
    let spoil = "for last; do :; done\n[ -e /tmp/spoilt ] || { touch /tmp/spoilt; printf x | dd of=$last/PG_VERSION conv=notrunc 2>/dev/null; }\nexec $real \"$@\"";
    let programs = programs_with(15, "pg_verifybackup", spoil);
    let b = standby_with(&cluster, &vb, &a, &LAYOUTS[0], &programs).ready();
    wait_caught_up(&a, &b);
    assert!(b.stdout().contains("cloning failed: pg_verifybackup exited with code 1"), "{}", b.log());
    assert_tidy(&a, &b, &LAYOUTS[0]);
}

#[test]
fn a_replacement_that_is_killed_leaves_what_was_there() {
    for layout in &LAYOUTS {
        let (cluster, va, vb) = (Cluster::new(15), Volumes::new(), Volumes::new());
        let a = primary(&cluster, &va);
        let programs = programs_with(15, "pg_basebackup", &format!("{}exec $real \"$@\"", held("replace")));
        programs.put("hold", 0o644, "nothing");
        let b = standby_with(&cluster, &vb, &a, layout, &programs).ready();
        wait_caught_up(&a, &b);
        programs.put("hold", 0o644, "replace");
        assert!(b.exec(&["podgres", "reinit"]).status.success());
        wait_held(&b);
        kill_and_start_again(&b);
        b.wait_ready();
        assert_eq!(rows(&b), "common", "{}", layout.name);
        assert_tidy(&a, &b, layout);
        // And one that is not killed replaces it, with all that it has elsewhere.
        programs.put("hold", 0o644, "nothing");
        let id = "stat -c %i $PGDATA/PG_VERSION";
        let before = b.shell(id);
        assert!(b.exec(&["podgres", "reinit"]).status.success());
        wait_for("the new clone", || {
            let now = b.exec(&["bash", "-c", id]);
            (now.status.success() && stdout(&now) != before).then_some(())
        });
        b.wait_ready();
        a.sql("insert into t values ('more')");
        wait_caught_up(&a, &b);
        assert_eq!(rows(&b), "common more", "{}", layout.name);
        b.shell("rm -rf /var/lib/postgresql/data/.pgdata.podgres-old");
    }
}

#[test]
fn a_gigabyte_is_cloned_with_kills() {
    let (cluster, va, vb) = (Cluster::new(17), Volumes::new(), Volumes::new());
    let a = primary(&cluster, &va);
    a.sql("create table big as select i, repeat(md5(i::text), 30) as filler from generate_series(1, 1000000) i");
    assert_eq!(a.sql("select pg_database_size('postgres') > 1000000000"), "t");
    // Whoever reads this volume is not much slower, and the test finds its moments.
    let programs = programs_with(17, "pg_basebackup", "exec $real --max-rate=300M \"$@\"");
    let b = standby_with(&cluster, &vb, &a, &LAYOUTS[0], &programs);
    // Near the beginning, in the middle, and when all is copied but not verified.
    let copied = |megabytes: u64| {
        let script = format!("[ $(du -sm {ROOT}/data/.pgdata.podgres-new | cut -f1) -ge {megabytes} ]");
        b.exec(&["bash", "-c", &script]).status.success()
    };
    for (what, reached) in [
        ("100 MB", Box::new(|| copied(100)) as Box<dyn Fn() -> bool>),
        ("500 MB", Box::new(|| copied(500))),
        ("the verification", Box::new(|| b.stdout().contains("verifying the copy"))),
    ] {
        wait_or(|| format!("{what}:\n{}", b.log()), || reached().then_some(()));
        kill_and_start_again(&b);
    }
    b.wait_ready();
    wait_caught_up(&a, &b);
    let sum = "select count(*), sum(hashtext(filler)::bigint) from big";
    assert_eq!(b.sql(sum), a.sql(sum));
    assert_tidy(&a, &b, &LAYOUTS[0]);
    assert!(b.json_lines().iter().any(|l| l["bytes_done"].as_u64() > Some(1) && l["bytes_total"].is_u64()), "progress");
}

#[test]
fn term_during_a_clone_ends_it_in_order() {
    let (cluster, va, vb) = (Cluster::new(15), Volumes::new(), Volumes::new());
    let a = primary(&cluster, &va);
    let programs = programs_with(15, "pg_basebackup", &format!("{}exec $real \"$@\"", held("start")));
    programs.put("hold", 0o644, "start");
    let b = standby_with(&cluster, &vb, &a, &LAYOUTS[0], &programs);
    wait_held(&b);
    b.signal("TERM");
    assert_eq!(b.wait(), 0, "{}", b.log());
    programs.put("hold", 0o644, "nothing");
    b.start_again();
    b.wait_ready();
    wait_caught_up(&a, &b);
    assert_tidy(&a, &b, &LAYOUTS[0]);
}

#[test]
fn a_source_of_another_major_is_refused_at_once() {
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let a = cluster.primary(&va);
    let source = format!("PODGRES_STANDBY_OF=host={}", a.name);
    let b = Container::postgres(15, &["--network", &cluster.network.0, "-e", &source, "-v", &vb.at(ROOT)], &[]);
    assert_eq!(b.wait(), 78, "{}", b.log());
    assert!(b.stderr().contains("PostgreSQL 17") && b.stderr().contains("Run an image"), "{}", b.stderr());
}

#[test]
fn a_volume_that_is_too_small_is_named_with_what_is_needed() {
    let (cluster, va) = (Cluster::new(15), Volume::new());
    let a = cluster.primary(&va);
    let slowly = programs_with(15, "pg_basebackup", "exec $real --max-rate=8M \"$@\"");
    let (source, mount) = (format!("PODGRES_STANDBY_OF=host={}", a.name), slowly.at("/programs"));
    let small = "/var/lib/postgresql:size=30m,uid=999";
    let common = ["--network", &cluster.network.0, "-e", &source, "-v", &mount, "--tmpfs", small];
    // Seen before the volume is full, and after, where it was too fast for that.
    let (early, late) = (["enlarge the volume"; 2], ["enlarge the volume", "the disk is full"]);
    for (bindir, words) in [("PODGRES_POSTGRES_BINDIR=/programs", early), ("A=b", late)] {
        let says = |text: &str| words.iter().any(|w| text.contains(w)).then_some(());
        let b = Container::postgres(15, &[&common[..], &["-e", bindir]].concat(), &[]);
        wait_or(|| format!("{words:?} in {}", b.log()), || says(&b.stdout()));
        assert_eq!((b.http("/startupz").0, b.http("/readyz").0), (200, 503));
        wait_for("status to say so", || says(&stdout(&b.exec(&["podgres", "status"]))));
        b.signal("TERM");
        assert_eq!(b.wait(), 0);
    }
}

#[test]
fn what_was_replaced_is_kept_until_the_volume_is_nearly_full() {
    let (cluster, va) = (Cluster::new(15), Volume::new());
    let a = cluster.primary(&va);
    let source = format!("PODGRES_STANDBY_OF=host={}", a.name);
    let options = ["--network", &cluster.network.0, "-e", &source, "--tmpfs", "/var/lib/postgresql:size=200m,uid=999"];
    let b = Container::postgres(15, &options, &[]).ready();
    assert!(b.exec(&["podgres", "reinit"]).status.success());
    let kept = "/var/lib/postgresql/data/.pgdata.podgres-old/PG_VERSION";
    wait_for("the clone to be replaced", || b.exec(&["test", "-e", kept]).status.success().then_some(()));
    b.wait_ready();
    assert!(stdout(&b.exec(&["podgres", "status"])).contains("podgres-old"));
    b.shell("free=$(df --output=avail -m /var/lib/postgresql | tail -n 1); head -c $((free - 10))M /dev/zero >/var/lib/postgresql/fill");
    wait_or(
        || format!("room to be made: {}", b.log()),
        || (!b.exec(&["test", "-e", kept]).status.success()).then_some(()),
    );
    b.wait_for_message("less than a tenth of the volume was free");
    b.wait_ready();
}
