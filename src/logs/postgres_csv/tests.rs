use serde_json::{Value as Json, json};

use super::*;

/// As PostgreSQL 14 writes it.
const ERROR: &str = concat!(
    "2026-11-23 10:11:12.123 UTC,\"joe\",\"shop\",42,\"[::1]:5000\",6922e0c0.2a,3,\"SELECT\",2026-11-23 10:11:02 UTC,3/7,0,",
    "ERROR,42601,\"syntax error at or near \"\"x\"\"\nand, a second line\",,\"try again\",,,\"PL/pgSQL function f()\",",
    "\"select\nx\",8,\"scanner_yyerror, scan.l:1176\",\"psql\",\"client backend\",,-5\n"
);

/// As PostgreSQL 13 writes it.
const LOG: &str = concat!(
    "2026-11-23 10:11:12.123 UTC,,,41,,6922e0c0.29,1,,2026-11-23 10:11:02 UTC,,0,",
    "LOG,00000,\"database system is ready\",,,,,,,,,\"\",\"postmaster\"\n"
);

fn converted<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Json> {
    let (mut csv, mut out) = (CsvLog::default(), Vec::new());
    for piece in pieces {
        csv.feed(piece, |record| record.write(Format::Json, &mut out));
    }
    csv.finish(|record| record.write(Format::Json, &mut out));
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn expected_error() -> Json {
    json!({"ts": "2026-11-23T10:11:12.123Z", "level": "error", "logger": "postgres",
        "msg": "syntax error at or near \"x\"\nand, a second line", "user": "joe", "dbname": "shop", "pid": 42,
        "remote_host": "[::1]", "remote_port": 5000, "session_id": "6922e0c0.2a", "line_num": 3, "ps": "SELECT",
        "session_start": "2026-11-23 10:11:02 UTC", "vxid": "3/7", "txid": 0, "error_severity": "ERROR",
        "state_code": "42601", "hint": "try again", "context": "PL/pgSQL function f()", "statement": "select\nx",
        "cursor_position": 8, "func_name": "scanner_yyerror", "file_name": "scan.l", "file_line_num": 1176,
        "application_name": "psql", "backend_type": "client backend", "query_id": -5})
}

fn expected_log() -> Json {
    json!({"ts": "2026-11-23T10:11:12.123Z", "level": "info", "logger": "postgres", "msg": "database system is ready",
        "pid": 41, "session_id": "6922e0c0.29", "line_num": 1, "session_start": "2026-11-23 10:11:02 UTC", "txid": 0,
        "error_severity": "LOG", "backend_type": "postmaster"})
}

#[test]
fn records_of_13_and_14_have_the_keys_of_jsonlog_however_they_are_read() {
    let text = [ERROR, LOG, ERROR].concat();
    for size in [1, 2, 7, 100, 10_000] {
        assert_eq!(converted(text.as_bytes().chunks(size)), [expected_error(), expected_log(), expected_error()]);
    }
}

#[test]
fn a_translated_severity_takes_its_level_from_the_state() {
    for (state, level) in [("42601", "error"), ("01000", "warn"), ("00000", "info")] {
        let text = ERROR.replace("ERROR,42601", &format!("FEHLER,{state}"));
        assert_eq!(converted([text.as_bytes()])[0]["level"], level);
    }
}

#[test]
fn what_is_no_record_is_logged_as_text_and_the_next_is_read() {
    let commas = ",".repeat(40) + "\n";
    for (text, message) in [
        ("a,\"b c\",d\n", "a,b c,d"),
        ("2026-11-23 10:11:12.123 UTC,x\n", "2026-11-23 10:11:12.123 UTC,x"),
        (&*format!("x{commas}"), "x"),
        (&*LOG.replace("2026", "year"), "year-11-23 10:11:12.123 UTC"),
    ] {
        let lines = converted([text.as_bytes(), LOG.as_bytes()]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0]["msg"].as_str().unwrap().starts_with(message), "{}", lines[0]["msg"]);
        assert_eq!(lines[1], expected_log());
    }
}

#[test]
fn after_a_torn_record_the_reader_finds_its_way() {
    for end in 1..ERROR.len() - 1 {
        let lines = converted([&ERROR.as_bytes()[..end], LOG.as_bytes(), LOG.as_bytes(), LOG.as_bytes()]);
        assert!(lines.contains(&expected_log()), "{end}: {lines:?}");
    }
    assert!(converted([&ERROR.as_bytes()[..100]])[0]["msg"].as_str().unwrap().contains("joe"));
}

#[test]
fn a_long_record_is_whole_and_memory_shrinks() {
    let text = LOG.replace("database", &"x".repeat(1 << 20));
    assert_eq!(converted(text.as_bytes().chunks(65_536))[0]["msg"].as_str().unwrap().len(), (1 << 20) + 16);
    let mut csv = CsvLog::default();
    csv.feed(text.as_bytes(), |_| ());
    assert!(csv.values.capacity() <= IDLE);
}

#[test]
fn a_record_beyond_the_limit_is_cut_and_the_next_is_read() {
    let text = LOG.replace("database", &"x".repeat(2 * MAX_LINE));
    let lines = converted([text.as_bytes(), LOG.as_bytes()]);
    assert_eq!(lines.len(), 2);
    let (kept, cut) = (lines[0]["msg"].as_str().unwrap().len(), lines[0]["truncated_bytes"].as_u64().unwrap());
    assert!(kept <= MAX_LINE + 26 && kept as u64 + cut > 2 * MAX_LINE as u64, "{kept} {cut}");
    assert_eq!(lines[1], expected_log());
}

#[test]
fn a_secret_value_of_a_setting_is_hidden() {
    let line = LOG.replace("database system is ready", "parameter \"\"primary_conninfo\"\" changed to \"\"hush\"\"");
    assert_eq!(converted([line.as_bytes()])[0]["msg"], "parameter \"primary_conninfo\" changed to \"…\"");
}

#[test]
fn a_record_that_is_torn_where_a_shorter_one_would_end_is_text() {
    let (first, _) = ERROR.split_once("\"client backend\",").unwrap();
    let torn = format!("{first}\"client backend\",4711");
    let [line] = converted([torn.as_bytes()]).try_into().unwrap();
    assert!(line["msg"].as_str().unwrap().ends_with("client backend,4711"), "{line}");
}
