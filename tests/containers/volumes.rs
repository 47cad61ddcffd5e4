//! Volumes of the official image, users, and containers with next to no rights.

use crate::harness::*;

/// Fills a volume as the official image of `major` does, with data in `dir` of it.
fn official(major: u32, dir: &str) -> Volume {
    let volume = Volume::new();
    volume.shell(&format!("install -d -o 999 -g 999 -m 700 /volume{dir}; chown 999:999 /volume"));
    let mount = volume.at("/v");
    let script = format!(
        "initdb -D /v{dir} --username=postgres --pwfile=<(echo hush) --no-sync >/dev/null
         echo 'host all all all scram-sha-256' >>/v{dir}/pg_hba.conf
         echo \"listen_addresses = '*'\" >>/v{dir}/postgresql.conf
         pg_ctl -D /v{dir} -w -o '-k /tmp' start >/dev/null
         psql -h /tmp -U postgres -qc 'create table kept as select 42 as x'
         pg_ctl -D /v{dir} -m fast -w stop >/dev/null"
    );
    let output = run(major, &["-v", &mount], &["bash", "-ec", &script]);
    assert!(output.status.success(), "{}", stderr(&output));
    volume
}

#[test]
fn volumes_of_the_official_image_start_unchanged() {
    for major in majors() {
        let layouts = [("", "/var/lib/postgresql/data"), (&format!("/{major}/docker"), "/var/lib/postgresql")];
        for (dir, path) in layouts {
            let volume = official(major, dir);
            let mount = volume.at(path);
            // No password: it is not needed where there is data.
            let container = Container::start(major, &["-v", &mount], &[]).ready();
            assert_eq!(container.sql("select x from kept"), "42");
            assert_eq!(container.sql("show data_directory"), format!("{path}{dir}"));
            assert!(container.stdout().contains("Skipping initialization"));
        }
    }
}

#[test]
fn a_new_volume_survives_its_container_wherever_it_is_mounted() {
    for path in ["/var/lib/postgresql", "/var/lib/postgresql/data"] {
        let volume = Volume::new();
        let mount = volume.at(path);
        let first = Container::postgres(17, &["-v", &mount], &[]).ready();
        first.sql("create table t as select 42 as x");
        drop(first);
        let second = Container::postgres(17, &["-v", &mount], &[]).ready();
        assert_eq!(second.sql("select x from t"), "42");
    }
}

#[test]
fn any_user_with_no_name_no_capability_and_a_read_only_root() {
    for major in majors() {
        let volume = Volume::new();
        let mount = volume.at("/var/lib/postgresql");
        let hardened = ["--user", "12345:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"];
        for tmpfs in
            [&[][..], &["--tmpfs", "/tmp", "--tmpfs", "/var/run/postgresql"], &["--tmpfs", "/var/run/postgresql"]]
        {
            let container = Container::postgres(major, &[&hardened, tmpfs, &["-v", &mount]].concat(), &[]).ready();
            let socket = container.shell("awk 'NR == 5' $PGDATA/postmaster.pid");
            let expected = if tmpfs.is_empty() { "/dev/shm/podgres-12345" } else { "/var/run/postgresql" };
            assert_eq!(socket, expected, "{tmpfs:?}");
            let query = ["psql", "-h", &socket, "-U", "postgres", "-XAtqc", "select 6 * 7"];
            assert_eq!(stdout(&container.exec(&query)), "42");
            container.signal("TERM");
            assert_eq!(container.wait(), 0, "{}", container.log());
        }
    }
}

#[test]
fn a_mode_that_a_volume_driver_spoiled_is_repaired() {
    let volume = official(15, "");
    volume.shell("chmod 2770 /volume");
    let mount = volume.at("/var/lib/postgresql/data");
    let container = Container::start(15, &["-v", &mount], &[]).ready();
    assert!(container.stdout().contains("had mode 2770"), "{}", container.log());
}
