//! Bad input: a clear error that names the thing, the reason and the cure; exit 78; nothing changed.

use crate::harness::*;

const DATA: &str = "/var/lib/postgresql/data";

/// Everything in the volume: names, owners, modes, contents.
fn fingerprint(volume: &Volume) -> String {
    volume.shell("cd /volume; find . -printf '%p %U %m %y\\n' | sort; find . -type f -exec sha256sum {} + | sort")
}

/// Starts on the volume and expects a refusal that says all of `texts`, with everything as it was.
fn refused(volume: &Volume, options: &[&str], texts: &[&str]) {
    let before = fingerprint(volume);
    let mount = volume.at(DATA);
    let output = run(15, &[&["-v", &mount, "-e", "POSTGRES_PASSWORD=x"], options].concat(), &[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}\n{}", stdout(&output));
    for text in texts {
        assert!(said.contains(text), "{text:?} is missing: {said}");
    }
    assert_eq!(fingerprint(volume), before);
}

/// A data directory as initdb of `major` makes it, at the root of the volume.
fn initdb(major: u32, volume: &Volume) {
    volume.shell("chown 999:999 /volume; chmod 700 /volume");
    let mount = volume.at(DATA);
    let output = run(major, &["-v", &mount], &["initdb", "-D", DATA, "--no-sync", "-U", "postgres"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn no_password() {
    let volume = Volume::new();
    volume.shell("chown 999:999 /volume; touch /volume/.keep");
    let before = fingerprint(&volume);
    let mount = volume.at(DATA);
    let output = run(15, &["-v", &mount], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).starts_with("Error: Database is uninitialized and superuser password is not specified."),
        "{}",
        stderr(&output)
    );
    assert_eq!(fingerprint(&volume), before);
}

#[test]
fn variables_that_contradict_each_other_or_cannot_be_read() {
    let volume = Volume::new();
    volume.shell("chown 999:999 /volume; touch /volume/.keep");
    refused(
        &volume,
        &["-e", "POSTGRES_PASSWORD_FILE=/x"],
        &["both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set"],
    );
    refused(&volume, &["-e", "POSTGRES_DB_FILE=/etc/shadow"], &["POSTGRES_DB_FILE", "/etc/shadow", "uid 999"]);
    refused(&volume, &["-e", "PODGRES_POSTGRES_BINDIR=/usr"], &["postgres-bindir", "/usr"]);
    refused(&volume, &["-e", "PGDATA=relative"], &["PGDATA", "absolute"]);
}

#[test]
fn an_unknown_key_in_the_settings_file() {
    let output = run(
        15,
        &["-e", "POSTGRES_PASSWORD=x", "-e", "PODGRES_CONFIG_DIR=/tmp/c"],
        &["bash", "-c", "mkdir /tmp/c; echo 'shutdown-timout = \"1s\"' >/tmp/c/podgres.toml; exec podgres run"],
    );
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("podgres.toml") && stderr(&output).contains("shutdown-timeout"));
}

#[test]
fn a_data_directory_that_cannot_work() {
    let volume = Volume::new();
    initdb(17, &volume);
    refused(&volume, &[], &["made by PostgreSQL 17", "this is PostgreSQL 15", "pg_upgrade", DATA]);
    volume.shell("chown 1234 /volume");
    refused(&volume, &[], &["belongs to uid 1234", "uid 999", "--user 1234"]);
    volume.shell("chown 999 /volume; echo 15 >/volume/PG_VERSION; rm /volume/global/pg_control");
    refused(&volume, &[], &["global/pg_control is missing", "backup"]);
    volume.shell("touch /volume/backup_label");
    refused(&volume, &[], &["global/pg_control is missing", "pg_basebackup"]);
    volume.shell("rm /volume/PG_VERSION");
    refused(
        &volume,
        &["-e", "PGDATA=/var/lib/postgresql/data"],
        &["PG_VERSION is missing", "base", "Mount the right volume"],
    );
}

#[test]
fn a_volume_that_is_not_ours_to_write() {
    let volume = Volume::new();
    volume.shell("chown 0:0 /volume; chmod 755 /volume; touch /volume/.keep");
    refused(&volume, &[], &["/var/lib/postgresql/data/pgdata", "uid 999", "Permission denied", "chown"]);
    refused(&volume, &["-e", "PGDATA=/var/lib/postgresql/data"], &["belongs to uid 0", "chown -R 999"]);
}

#[test]
fn a_volume_with_nothing_but_lost_and_found_is_empty() {
    let volume = Volume::new();
    volume.shell("chown 999:999 /volume; mkdir -m 700 /volume/lost+found; touch /volume/.hidden");
    let mount = volume.at(DATA);
    for major in majors() {
        let pgdata = format!("PGDATA={DATA}");
        let container = Container::postgres(major, &["-v", &mount, "-e", &pgdata], &[]).ready();
        assert_eq!(container.sql("show data_directory"), DATA);
        assert_eq!(container.shell("stat -c %a $PGDATA; ls -d $PGDATA/.hidden"), format!("700\n{DATA}/.hidden"));
        drop(container);
        volume.shell("find /volume -mindepth 1 -maxdepth 1 ! -name lost+found ! -name .hidden -exec rm -r {} +");
    }
}

#[test]
fn a_base_backup_is_recovered_with_a_warning() {
    for major in majors() {
        let volume = Volume::new();
        volume.shell("chown 999:999 /volume");
        let mount = volume.at("/backup");
        let origin = Container::postgres(major, &["-v", &mount], &[]).ready();
        origin.sql("create table t as select 42 as x");
        origin.shell("pg_basebackup -U postgres -D /backup/b -X stream -c fast");
        let mount = volume.at(DATA);
        let pgdata = format!("PGDATA={DATA}/b");
        let copy = Container::postgres(major, &["-v", &mount, "-e", &pgdata], &[]).ready();
        assert_eq!(copy.sql("select x from t"), "42");
        assert!(copy.stdout().contains("backup_label"));
    }
}

#[test]
fn little_shared_memory_is_a_warning() {
    let warns = |size: &str| {
        let container = Container::postgres(15, &["--shm-size", size], &[]).ready();
        container.json_lines().iter().any(|l| l["level"] == "warn" && l["msg"].as_str().unwrap().contains("/dev/shm"))
    };
    assert!(warns("64m"));
    assert!(!warns("256m"));
}

#[test]
fn a_broken_configuration_is_postgres_own_error_and_exit_code() {
    let container = Container::postgres(15, &[], &["-c", "no_such_setting=1"]);
    assert_eq!(container.wait(), 1);
    assert!(container.stdout().contains("no_such_setting"), "{}", container.log());
    let container = Container::postgres(15, &[], &[]).ready();
    container.shell("echo 'nonsense nonsense' >>$PGDATA/postgresql.conf");
    container.signal("TERM");
    assert_eq!(container.wait(), 0);
    // It has worked before: what worked is still known.
    container.start_again();
    container.wait_ready();
    let problems = container.shell("podgres status");
    for said in [container.stdout(), problems] {
        assert!(
            said.contains("started with the last one that was good") && said.contains("postgresql.conf:"),
            "{said}"
        );
    }
    container.json_lines();
}

#[test]
fn a_port_that_was_asked_for_and_is_taken_is_refused_and_the_default_is_done_without() {
    let first = Container::postgres(15, &[], &[]).ready();
    let network = format!("container:{}", first.name);
    let options = ["--network", &network, "-e", "POSTGRES_PASSWORD=x", "-e", "PGPORT=5433"];
    let output = run(15, &options, &["--listen", "[::]:8008"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("[::]:8008"), "{}", stderr(&output));
    let second = Container::start(15, &options, &[]).ready();
    assert!(second.stdout().contains("going on without probes"));
}
