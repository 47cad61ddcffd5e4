use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// As PostgreSQL 15 writes it.
const STATEMENT: &str = concat!(
    r#"{"timestamp":"2026-11-23 10:11:12.123 UTC","user":"postgres","dbname":"bench","pid":4242,"remote_host":"[local]","#,
    r#""session_id":"6922e0c0.1092","line_num":17,"ps":"idle in transaction","session_start":"2026-11-23 10:11:02 UTC","#,
    r#""vxid":"5/1234","txid":99321,"error_severity":"LOG","message":"statement: UPDATE pgbench_accounts SET abalance "#,
    r#"= abalance + -2671 WHERE aid = 54321;","application_name":"pgbench","backend_type":"client backend","query_id":0}"#
);

const ERROR: &str = concat!(
    r#"{"timestamp":"2026-11-23 10:11:12.123 UTC","pid":7,"remote_host":"10.0.0.1","remote_port":5000,"#,
    r#""error_severity":"ERROR","state_code":"42601","message":"syntax error at or near \"x\"","#,
    r#""statement":"select\n\tx \u001f \\","cursor_position":8,"query_id":-5}"#
);

fn converted(line: &[u8]) -> Json {
    let mut out = Vec::new();
    postgres_json(line, Format::Json, &mut out);
    assert_eq!(out.iter().position(|&byte| byte == b'\n'), Some(out.len() - 1));
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn fields_keep_their_names_and_values() {
    let mut expected: Json = serde_json::from_str(STATEMENT).unwrap();
    let fields = expected.as_object_mut().unwrap();
    let message = fields.remove("message").unwrap();
    fields.remove("timestamp").unwrap();
    fields.extend(
        json!({"ts": "2026-11-23T10:11:12.123Z", "level": "info", "logger": "postgres", "msg": message})
            .as_object()
            .unwrap()
            .clone(),
    );
    assert_eq!(converted(STATEMENT.as_bytes()), expected);
}

#[test]
fn escapes_stay_what_they_mean() {
    let json = converted(ERROR.as_bytes());
    assert_eq!(json["level"], "error");
    assert_eq!(json["msg"], "syntax error at or near \"x\"");
    assert_eq!(json["statement"], "select\n\tx \u{1f} \\");
    assert_eq!((&json["remote_port"], &json["query_id"]), (&json!(5000), &json!(-5)));
}

#[test]
fn levels_and_loggers() {
    for (severity, level) in
        [("LOG", "info"), ("NOTICE", "info"), ("DEBUG", "debug"), ("WARNING", "warn"), ("PANIC", "fatal")]
    {
        let line = format!(
            r#"{{"timestamp":"2026-11-23 10:11:12.123 CET","error_severity":"{severity}","message":"AUDIT: SESSION"}}"#
        );
        let json = converted(line.as_bytes());
        let found = (&json["level"], &json["logger"], &json["ts"]);
        assert_eq!(found, (&json!(level), &json!("pgaudit"), &json!("2026-11-23 10:11:12.123 CET")));
    }
}

#[test]
fn another_encoding_is_replaced() {
    let line =
        b"{\"timestamp\":\"2026-11-23 10:11:12.123 UTC\",\"pid\":1,\"error_severity\":\"LOG\",\"message\":\"a\xe9b\"}";
    let json = converted(line);
    assert_eq!((&json["msg"], &json["pid"]), (&json!("a\u{fffd}b"), &json!(1)));
}

#[test]
fn a_line_that_is_not_whole_is_logged_as_text() {
    for end in 0..STATEMENT.len() {
        let torn = &STATEMENT[..end];
        assert_eq!(converted(torn.as_bytes())["msg"], torn);
        let two = format!("{torn}{STATEMENT}");
        // Two lines in one may by chance be a valid object (`{` at the end of a string); it is one valid line anyway.
        converted(two.as_bytes());
    }
    for line in ["{}", r#"{"a":1}"#, r#"{"timestamp":01}"#, r#"{"timestamp":"x\q"}"#, "{\"timestamp\":\"a\tb\"}"] {
        assert_eq!(converted(line.as_bytes())["msg"], line);
    }
}

#[test]
fn text_for_people() {
    let mut out = Vec::new();
    postgres_json(ERROR.as_bytes(), Format::Text, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "2026-11-23 10:11:12.123 ERROR [7] syntax error at or near \"x\"\n    STATEMENT:  select\n\tx \u{1f} \\\n"
    );
}

proptest! {
    /// Whatever a message says, it comes out as it went in; whatever the bytes are, the line is valid.
    #[test]
    fn any_message_and_any_damage(message in ".*|\\PC*", detail in "[\\x00-\\x7f]*", at in 0..200_usize, byte: u8) {
        let line = format!(
            r#"{{"timestamp":"2026-11-23 10:11:12.123 UTC","pid":1,"message":{},"detail":{}}}"#,
            json!(message), json!(detail)
        );
        let json = converted(line.as_bytes());
        prop_assert_eq!(json["msg"].as_str(), Some(&*message));
        prop_assert_eq!(json["detail"].as_str(), Some(&*detail));
        let mut damaged = line.into_bytes();
        if let Some(place) = damaged.get_mut(at) && byte != b'\n' {
            *place = byte;
            converted(&damaged);
        }
    }
}

#[test]
fn a_secret_value_of_a_setting_is_hidden() {
    let line = br#"{"timestamp":"2026-11-23 10:11:12.123 UTC","pid":1,"error_severity":"LOG","message":"parameter \"archive_command\" changed to \"push hush\"","detail":"The failed archive command was: password=hush","query_id":0}"#;
    let json = converted(line);
    assert_eq!(json["msg"], "parameter \"archive_command\" changed to \"…\"");
    assert_eq!((&json["detail"], &json["query_id"]), (&json!("The failed archive command was: …"), &json!(0)));
    let mut text = Vec::new();
    postgres_json(line, Format::Text, &mut text);
    assert!(!String::from_utf8(text).unwrap().contains("hush"));
}

#[test]
fn half_a_character_is_nothing_that_postgresql_writes() {
    let line = br#"{"timestamp":"2026-11-23 10:11:12.123 UTC","message":"a\ud800b"}"#;
    assert!(converted(line)["msg"].as_str().unwrap().contains("ud800"));
}
