//! Every line that anything in the container writes is one valid line of JSON, and nobody who does not read it can stop
//! PostgreSQL.

use crate::harness::*;

#[test]
fn a_busy_life_is_logged_in_valid_lines_with_postgres_own_fields() {
    for major in majors() {
        let archive = "archive_command=echo archiving %f >&2; echo to stdout; printf 'no newline'";
        let arguments =
            ["-c", "log_statement=all", "-c", "archive_mode=on", "-c", archive, "-c", "log_min_messages=info"];
        let container = Container::postgres(major, &[], &arguments).ready();
        container.sql("select 'one\ntwo\n\tthree'");
        container.exec(&["psql", "-U", "postgres", "-c", "select 1/0 as \"deliberate\""]);
        container
            .sql(r#"do $$ begin raise log 'quotes " and \ and controls % % and ünïcödé', chr(7), chr(27); end $$"#);
        container.sql("do $$ begin raise log '%', repeat('x', 20000); raise log '%', repeat('yz', 500000); end $$");
        container.sql("select pg_switch_wal()");
        container.wait_for_message("archiving 0000");
        container.shell("kill -KILL $(psql -U postgres -XAtc 'select pg_backend_pid()') || true");
        container.wait_ready();
        container.signal("TERM");
        assert_eq!(container.wait(), 0);

        let lines = container.json_lines();
        let by = |what: &dyn Fn(&serde_json::Value) -> bool| lines.iter().find(|l| what(l)).cloned();
        let error = by(&|l| l["msg"] == "division by zero").expect("the error");
        for (key, value) in [
            ("level", "error"),
            ("logger", "postgres"),
            ("error_severity", "ERROR"),
            ("state_code", "22012"),
            ("user", "postgres"),
            ("dbname", "postgres"),
            ("statement", "select 1/0 as \"deliberate\""),
        ] {
            assert_eq!(error[key], value, "{error}");
        }
        assert!(error["pid"].is_i64() && error["ts"].as_str().unwrap().ends_with('Z'), "{error}");
        let contains = |text: &str| by(&|l| l["msg"].as_str().unwrap().contains(text)).is_some();
        assert!(contains("one\ntwo\n\tthree") && contains("controls \u{7} \u{1b} and ünïcödé"));
        assert!(by(&|l| l["msg"].as_str().unwrap() == "x".repeat(20_000)).is_some(), "a message over 4 KB is whole");
        assert!(by(&|l| l["msg"].as_str().unwrap() == "yz".repeat(500_000)).is_some(), "and one of 1 MB");
        assert!(contains("database system is shut down"), "the last line is there");
    }
}

#[test]
fn text_is_for_people() {
    let container = Container::postgres(15, &["-e", "PODGRES_LOG_FORMAT=text"], &[]).ready();
    assert!(container.stdout().lines().all(|l| !l.starts_with('{')), "{}", container.stdout());
    container.wait_for_message("LOG");
}

#[test]
fn a_reader_that_does_not_read_stops_nobody_and_drops_are_counted() {
    // stdout is a pipe of which nobody reads, until the test does.
    let script = "mkfifo /tmp/out; sleep 1000 </tmp/out & exec podgres run -c log_statement=all >/tmp/out";
    let container = Container::postgres(15, &["--entrypoint", "bash"], &["-c", script]).ready();
    // 40 MB of log lines: ten times what is kept for a reader.
    container.shell("yes \"select '$(head -c 2000 /dev/zero | tr '\\0' x)';\" | head -n 20000 | timeout 100 psql -U postgres -Xq >/dev/null");
    let dropped = || container.shell("podgres status --json | grep -o 'log_lines_dropped\":[0-9]*' | grep -o '[0-9]*'");
    wait_for("drops to be counted", || (dropped().parse::<u64>().unwrap() > 10_000).then_some(()));
    let used = container.shell("du -sk /run/podgres/log | cut -f1");
    assert!(used.parse::<u64>().unwrap() < 10_000, "{used} kB of log files are kept");
    let resident = container.shell("awk '/RssAnon/ {print $2}' /proc/1/status");
    assert!(resident.parse::<u64>().unwrap() < 20_000, "{resident} kB of lines are kept in memory");
    container.shell("(timeout 5 cat /tmp/out >/tmp/read || true)");
    let read = container.shell("head -n 1000 /tmp/read; grep 'log lines were dropped' /tmp/read");
    let said: u64 = read.lines().filter_map(|line| json_line(line)["dropped"].as_u64()).sum();
    assert_eq!(said, dropped().parse::<u64>().unwrap(), "lines say how many");
    assert_eq!(container.sql("select 1"), "1");
    container.signal("TERM");
    assert_eq!(container.wait(), 0);
}

#[test]
fn log_files_take_no_room_however_much_is_logged() {
    let container = Container::postgres(17, &[], &["-c", "log_statement=all"]).ready();
    container.shell(
        "yes \"select '$(head -c 4000 /dev/zero | tr '\\0' x)';\" | head -n 20000 | psql -U postgres -Xq >/dev/null",
    );
    wait_for("the files to be punched", || {
        let used = container.shell("du -sk /run/podgres/log | cut -f1");
        (used.parse::<u64>().unwrap() < 10_000).then_some(())
    });
}

#[test]
fn bytes_that_are_no_text_become_valid_lines() {
    for major in majors() {
        let container = Container::postgres(major, &[], &[]).ready();
        container.sql("create database bytes encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'");
        let log = r#"do $$ begin raise log '%', E'bytes \xff \xc3( \x01 \x1b[1m \x7f " \\'; end $$"#;
        let output = container.exec(&["psql", "-U", "postgres", "-d", "bytes", "-c", log]);
        assert!(output.status.success(), "{output:?}");
        container.wait_for_message("bytes ");
        let lines = container.json_lines();
        let line = lines.iter().find(|l| l["msg"].as_str().unwrap().starts_with("bytes ")).expect("the message");
        let expected = "bytes \u{fffd} \u{fffd}( \u{1} \u{1b}[1m \u{7f} \" \\";
        assert_eq!((line["msg"].as_str(), line["error_severity"].as_str()), (Some(expected), Some("LOG")));
    }
}

#[test]
fn no_secret_is_logged() {
    let scripts = Files::new(&[("1.sh", 0o644, "echo in a script")]);
    let options = ["-v", &scripts.at("/docker-entrypoint-initdb.d"), "-e", "POSTGRES_USER=alice"];
    let arguments = ["-c", "primary_conninfo=host=nowhere password=hush-too"];
    let container = Container::postgres(15, &options, &arguments).ready();
    container.signal("USR2");
    container.wait_for_message("the manager's state");
    container.shell("podgres status; podgres status --json; podgres reload; podgres restart");
    container.wait_ready();
    container.signal("TERM");
    assert_eq!(container.wait(), 0);
    let state: Vec<_> = container.json_lines().into_iter().filter(|l| l["msg"] == "the manager's state").collect();
    assert_eq!(state.len(), 1);
    assert!(state[0]["arguments"].as_str().unwrap().contains("primary_conninfo"), "{}", state[0]);
    assert!(!container.log().contains("hush"), "{}", container.log());
}
