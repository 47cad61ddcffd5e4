//! What `podgres run` does with its arguments, and with which code it exits.

use crate::harness::*;

#[test]
fn another_command_is_executed_untouched_with_nothing_printed_before_it() {
    let output = run(15, &[], &["bash", "-c", "echo $0 $1; exit 7", "a b", "-c"]);
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("a b -c", Some(7)));
    assert_eq!(stderr(&output), "");
    let output = run(15, &[], &["psql", "--version"]);
    assert!(stdout(&output).starts_with("psql (PostgreSQL) 15"), "{output:?}");
    assert_eq!(run(15, &[], &["no-such-command"]).status.code(), Some(127));
    assert_eq!(run(15, &[], &["/etc/passwd"]).status.code(), Some(126));
}

#[test]
fn every_exit_code_of_another_command_is_its_own() {
    let script =
        "for i in $(seq 0 255); do podgres run bash -c \"exit $i\" && c=0 || c=$?; [ $c = $i ] || echo $i: $c; done";
    let output = run(15, &[], &["bash", "-c", script]);
    assert_eq!(stdout(&output), "", "{}", stderr(&output));
}

#[test]
fn every_exit_code_with_which_postgres_refuses_to_start_is_its_own() {
    let script = r#"
        mkdir /tmp/bin
        cat >/tmp/bin/postgres <<'END'
#!/bin/sh
case $1 in --version) echo "postgres (PostgreSQL) 15.0" ;; *) exit "$(cat /tmp/code)" ;; esac
END
        chmod +x /tmp/bin/postgres
        mkdir -p /tmp/data/global && chmod 700 /tmp/data && echo 15 >/tmp/data/PG_VERSION && echo x >/tmp/data/global/pg_control
        for i in $(seq 0 255); do
            echo $i >/tmp/code
            PGDATA=/tmp/data podgres run --postgres-bindir /tmp/bin >/tmp/out 2>&1 && c=0 || c=$?
            [ $c = $i ] || { echo $i: $c; cat /tmp/out; }
        done"#;
    let output = run(15, &[], &["bash", "-c", script]);
    assert_eq!(stdout(&output), "", "{}", stderr(&output));
}

#[test]
fn asking_postgres_for_its_version_or_help_needs_neither_password_nor_data() {
    for arguments in [&["postgres", "--version"][..], &["-V"], &["--version"]] {
        let output = run(17, &[], arguments);
        assert!(stdout(&output).starts_with("postgres (PostgreSQL) 17"), "{output:?}");
    }
    for arguments in [&["--help"][..], &["postgres", "-?"], &["postgres", "--help"]] {
        assert!(stdout(&run(15, &[], arguments)).contains("postgres is the PostgreSQL server."));
    }
    assert!(stdout(&run(15, &[], &["--describe-config"])).contains("max_connections"));
}

#[test]
fn a_first_argument_with_a_dash_is_postgres_own() {
    for major in majors() {
        let container = Container::postgres(major, &[], &["-c", "work_mem=7MB", "--maintenance_work_mem=9MB"]).ready();
        assert_eq!(container.sql("show work_mem"), "7MB");
        assert_eq!(container.sql("show maintenance_work_mem"), "9MB");
    }
}

#[test]
fn asking_for_one_setting_or_single_user_mode_initialises_first_and_runs_once() {
    let volume = Volume::new();
    let mount = volume.at("/var/lib/postgresql/data");
    let options = ["-v", &mount, "-e", "POSTGRES_PASSWORD=x"];
    let output = run(15, &options, &["postgres", "-C", "port"]);
    assert_eq!(stdout(&output).lines().last(), Some("5432"), "{}", stderr(&output));
    let script = "echo 'select 6 * 7 as answer' | podgres run postgres --single postgres";
    let output = run(15, &options, &["bash", "-c", script]);
    assert!(stdout(&output).contains("answer = \"42\""), "{output:?}");
}

#[test]
fn root_is_told_what_to_do_instead() {
    let output = run(15, &["--user", "0:0", "-e", "POSTGRES_PASSWORD=x"], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("--user"), "{}", stderr(&output));
    assert_eq!(stdout(&run(15, &["--user", "0:0"], &["id", "-u"])), "0", "other commands may be run as root");
}

#[test]
fn settings_stand_before_the_command_and_wrong_ones_are_refused() {
    let container = Container::postgres(15, &[], &["--shutdown-timeout", "9s", "-c", "work_mem=7MB"]).ready();
    assert_eq!(container.sql("show work_mem"), "7MB");
    for (options, arguments, said) in [
        (&["-e", "PODGRES_LISTN=x"][..], &[][..], "nearest one is listen"),
        (&["-e", "PODGRES_LISTEN=x"], &[], "PODGRES_LISTEN"),
        (&[], &["--shutdown-timeot", "9s"], "shutdown-timeout"),
        (&[], &["--mode", "k8s"], "--mode"),
        (&[], &["--mode", "kubernetes"], "POD_NAME (metadata.name)"),
    ] {
        let output = run(15, &[options, &["-e", "POSTGRES_PASSWORD=x"]].concat(), arguments);
        assert_eq!(output.status.code(), Some(78), "{options:?} {arguments:?}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

#[test]
fn check_says_what_would_go_wrong_and_changes_nothing() {
    let volume = Volume::new();
    let mount = volume.at("/var/lib/postgresql/data");
    let check = |options: &[&str]| run(15, &[&["-v", &mount], options].concat(), &["podgres", "check"]);
    volume.shell("chown 999:999 /volume; touch /volume/.keep");
    let before = volume.shell("ls -lanR /volume");
    let output = check(&["-e", "POSTGRES_PASSWORD=x"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).contains("will be initialised"));
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stdout(&output).contains("FAIL  data directory") && stdout(&output).contains("POSTGRES_PASSWORD"));
    assert_eq!(volume.shell("ls -lanR /volume"), before);
    assert_eq!(run(15, &[], &["podgres", "chekc"]).status.code(), Some(2));
    let output = run(15, &[], &["podgres", "status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no podgres runs here"), "{}", stderr(&output));
}
