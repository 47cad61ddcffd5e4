//! One data directory, one manager.

use crate::harness::*;

fn refused(options: &[&str]) {
    let output = run(15, &[options, &["-e", "POSTGRES_PASSWORD=x"]].concat(), &[]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(
        stderr(&output).contains("is in use") && stderr(&output).contains("Stop the other container"),
        "{output:?}"
    );
}

#[test]
fn a_second_container_on_the_volume_is_refused_whatever_the_mount() {
    let volume = Volume::new();
    let (below, at, elsewhere) =
        (volume.at("/var/lib/postgresql"), volume.at("/var/lib/postgresql/data"), volume.at("/elsewhere"));
    let first = Container::postgres(15, &["-v", &below], &[]).ready();
    refused(&["-v", &below]);
    refused(&["-v", &elsewhere, "-e", "PGDATA=/elsewhere/data/pgdata"]);
    first.signal("KILL");
    first.wait();
    Container::postgres(15, &["-v", &elsewhere, "-e", "PGDATA=/elsewhere/data/pgdata"], &[]).ready();

    let volume = Volume::new();
    volume.shell("chown 999:999 /volume; mkdir /volume/lost+found");
    let at_mount = [volume.at("/var/lib/postgresql/data"), volume.at("/elsewhere")];
    let _first = Container::postgres(15, &["-v", &at_mount[0], "-e", "PGDATA=/var/lib/postgresql/data"], &[]).ready();
    refused(&["-v", &at_mount[0], "-e", "PGDATA=/var/lib/postgresql/data"]);
    refused(&["-v", &at_mount[1], "-e", "PGDATA=/elsewhere"]);
    drop(at);
}

#[test]
fn the_lock_lives_as_long_as_any_process_of_the_server() {
    let volume = Volume::new();
    let mount = volume.at("/var/lib/postgresql");
    // Not as PID 1: when the manager is killed here, its postmaster lives on.
    let script = "podgres run & echo $! >/tmp/pid; wait; sleep 1000";
    let container = Container::postgres(15, &["-v", &mount, "--entrypoint", "bash"], &["-c", script]).ready();
    container.shell("kill -KILL $(cat /tmp/pid)");
    assert_eq!(container.sql("select 1"), "1", "the orphaned server serves on");
    refused(&["-v", &mount]);
    drop(container);
    Container::postgres(15, &["-v", &mount], &[]).ready();
}

#[test]
fn of_two_containers_that_start_at_once_on_an_empty_volume_one_initialises() {
    for _ in 0..3 {
        let volume = Volume::new();
        let mount = volume.at("/var/lib/postgresql");
        let both = [0, 1].map(|_| Container::postgres(15, &["-v", &mount], &[]));
        let refused = wait_for("one of them to be refused", || both.iter().position(|c| !c.is_running()));
        assert_eq!(both[refused].wait(), 78, "{}", both[refused].log());
        both[1 - refused].wait_ready();
    }
}

#[test]
fn data_directories_beside_each_other_do_not_exclude_each_other() {
    let volume = Volume::new();
    volume.shell("chown 999:999 /volume");
    let mount = volume.at("/v");
    let _a = Container::postgres(15, &["-v", &mount, "-e", "PGDATA=/v/a"], &[]).ready();
    let _b = Container::postgres(15, &["-v", &mount, "-e", "PGDATA=/v/b"], &[]).ready();
}

#[test]
fn a_volume_that_is_being_initialised_is_refused_to_others_and_not_disturbed() {
    let scripts = Files::new(&[("1.sh", 0o644, "echo waiting; until [ -e /tmp/go ]; do sleep 0.05; done")]);
    let at_scripts = scripts.at("/docker-entrypoint-initdb.d");
    // With the data directory below the mount it is made beside, at the mount point inside.
    for (mount, pgdata) in [("/var/lib/postgresql", "/var/lib/postgresql/data/pgdata"), ("/v", "/v")] {
        let volume = Volume::new();
        volume.shell("chown 999:999 /volume");
        let (mount, pgdata) = (volume.at(mount), format!("PGDATA={pgdata}"));
        let first = Container::postgres(15, &["-v", &mount, "-v", &at_scripts, "-e", &pgdata], &[]);
        first.wait_for_message("waiting");
        refused(&["-v", &mount, "-e", &pgdata]);
        first.shell("touch /tmp/go");
        first.wait_ready();
        refused(&["-v", &mount, "-e", &pgdata]);
    }
}
