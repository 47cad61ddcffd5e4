//! The official image's variables.

use crate::harness::*;

/// Whether `password` opens the server over TCP.
fn opens(container: &Container, user: &str, password: &str, database: &str) -> bool {
    // By the container's address: 127.0.0.1 is trusted by initdb's own lines.
    let script = "PGPASSWORD=$1 psql -h \"$(hostname -i | cut -d' ' -f1)\" -U \"$0\" -d \"$2\" -XAtqc 'select 1'";
    container.exec(&["bash", "-c", script, user, password, database]).status.success()
}

#[test]
fn user_database_and_password() {
    for major in majors() {
        let options =
            ["-e", "POSTGRES_USER=ada", "-e", "POSTGRES_DB=Machine \"1\"", "-e", "POSTGRES_PASSWORD=p@ss'w\"ord"];
        let container = Container::start(major, &options, &[]).ready();
        let sql = |sql: &str| stdout(&container.exec(&["psql", "-U", "ada", "-d", "Machine \"1\"", "-XAtqc", sql]));
        assert_eq!(sql("select current_database()"), "Machine \"1\"");
        assert_eq!(sql("select rolsuper from pg_roles where rolname = 'ada'"), "t");
        assert_eq!(sql("select left(rolpassword, 13) from pg_authid where rolname = 'ada'"), "SCRAM-SHA-256");
        assert!(opens(&container, "ada", "p@ss'w\"ord", "postgres"), "{}", container.log());
        assert!(!opens(&container, "ada", "wrong", "postgres"));
    }
}

#[test]
fn files_give_values() {
    let script = "mkdir /tmp/s; echo u1 >/tmp/s/u; printf 'pw\\n' >/tmp/s/p; echo d1 >/tmp/s/d; exec podgres run";
    let options = [
        "-e",
        "POSTGRES_USER_FILE=/tmp/s/u",
        "-e",
        "POSTGRES_PASSWORD_FILE=/tmp/s/p",
        "-e",
        "POSTGRES_DB_FILE=/tmp/s/d",
    ];
    let container = Container::start(15, &options, &["bash", "-c", script]).ready();
    assert!(opens(&container, "u1", "pw", "d1"), "{}", container.log());
}

#[test]
fn arguments_for_initdb_and_a_wal_directory() {
    let wal = Volume::new();
    wal.shell("mkdir /volume/wal; chown 999:999 /volume/wal");
    let mount = wal.at("/wal");
    for major in majors() {
        let waldir = format!("POSTGRES_INITDB_WALDIR=/wal/wal/{major}");
        let options =
            ["-v", &mount, "-e", &waldir, "-e", "POSTGRES_INITDB_ARGS=--data-checksums --wal-segsize=1 --locale='C'"];
        let container = Container::postgres(major, &options, &[]).ready();
        assert_eq!(container.sql("show data_checksums"), "on");
        assert_eq!(container.sql("show wal_segment_size"), "1MB");
        assert_eq!(container.sql("show lc_messages"), "C");
        assert_eq!(container.shell("readlink $PGDATA/pg_wal"), format!("/wal/wal/{major}"));
        container.signal("TERM");
        assert_eq!(container.wait(), 0);
        container.start_again();
        container.wait_ready();
    }
}

#[test]
fn authentication_methods() {
    let trust = Container::start(15, &["-e", "POSTGRES_HOST_AUTH_METHOD=trust"], &[]).ready();
    assert!(opens(&trust, "postgres", "anything", "postgres"));
    let md5 =
        Container::postgres(15, &["-e", "POSTGRES_HOST_AUTH_METHOD=md5"], &["-c", "password_encryption=md5"]).ready();
    assert!(opens(&md5, "postgres", "hush-hush", "postgres"));
    assert!(md5.shell("tail -n1 $PGDATA/pg_hba.conf").ends_with("md5"));
}

#[test]
fn a_data_directory_elsewhere() {
    let container = Container::postgres(15, &["-e", "PGDATA=/var/lib/postgresql/elsewhere/x"], &[]).ready();
    assert_eq!(container.sql("show data_directory"), "/var/lib/postgresql/elsewhere/x");
    assert_eq!(container.sql("show listen_addresses"), "*");
}

#[test]
fn the_password_is_in_no_environment_no_argument_no_log_and_no_file() {
    // PID 1's environment is the runtime's to set, and so is that of the health check, which it runs.
    let script = "for p in /proc/[0-9]*; do
            [ $p = /proc/1 ] || [ \"$(cat $p/comm 2>/dev/null)\" = podgres ] ||
            { cat $p/environ $p/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -q 'batter[y]' && echo $p $(cat $p/comm); }
        done
        grep -rl 'batter[y]' $PGDATA /run/podgres /tmp /dev/shm; true";
    for major in majors() {
        let options = ["-e", "POSTGRES_PASSWORD=correct-horse-battery", "-e", "PGPASSWORD=correct-horse-battery"];
        let container = Container::start(major, &options, &[]).ready();
        container.sql("select 1");
        let without = ["exec", "-e", "POSTGRES_PASSWORD=", "-e", "PGPASSWORD=", &container.name, "bash", "-c", script];
        assert_eq!(docker_ok(&without), "");
        container.signal("USR2");
        container.wait_for_message("the manager's state");
        assert!(!container.log().contains("battery"));
    }
}
