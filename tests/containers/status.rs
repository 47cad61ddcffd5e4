//! `podgres status` of a pair: the members on both sides, what is wrong, settings with their origins, a clone on its way.

use serde_json::Value;

use crate::{
    harness::*,
    replication::{Cluster, pair, programs_with, wait_caught_up},
};

fn json(container: &Container, arguments: &str) -> Value {
    let text = container.shell(&format!("podgres status --json {arguments}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Its own host name.
fn host(container: &Container) -> String {
    container.shell("hostname")
}

#[test]
fn a_pair_is_seen_from_both_sides() {
    for major in majors() {
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let (a, b) = pair(&cluster, [&va, &vb]);
        let status = json(&a, "");
        let [this, other] = [0, 1].map(|i| &status["members"][i]);
        assert_eq!((&this["name"], &this["role"], &this["timeline"]), (&host(&a).into(), &"primary".into(), &1.into()));
        assert_eq!((&other["name"], &other["role"]), (&host(&b).into(), &"standby".into()), "{status}");
        assert_eq!((&other["state"], &other["sync"]), (&"streaming".into(), &"async".into()), "{status}");
        assert!(other["lag_bytes"].is_i64() && other["address"].is_string(), "{status}");
        let slot = &this["slots"][0];
        assert_eq!((&slot["active"], &slot["wal_status"]), (&true.into(), &"reserved".into()), "{status}");
        assert!(slot["retained_bytes"].is_i64(), "{status}");
        assert_eq!(status["problems"], Value::Array(Vec::new()));
        // What is not known is not 0: this one keeps no WAL yet.
        a.sql("select pg_create_physical_replication_slot('unused')");
        let status = wait_for("the other slot", || {
            let status = json(&a, "");
            let slots = status["members"][0]["slots"].as_array().unwrap();
            slots.iter().find(|s| s["name"] == "unused").map(|s| s["retained_bytes"].clone())
        });
        assert_eq!(status, Value::Null);

        let status = wait_for("the source's role to be known", || {
            let status = json(&b, "");
            (status["members"][1]["role"] == "primary").then_some(status)
        });
        let [this, source] = [0, 1].map(|i| &status["members"][i]);
        let place = format!("{}:5432", a.name);
        assert_eq!((&this["role"], &this["source"]), (&"standby".into(), &place.clone().into()), "{status}");
        assert_eq!((&source["name"], &source["timeline"]), (&place.into(), &1.into()), "{status}");
        let table = b.shell("podgres status");
        assert!(table.lines().nth(1).unwrap().contains("streaming") && !table.contains('\u{1b}'), "{table}");

        assert!(b.exec(&["podgres", "promote"]).status.success());
        let status = json(&b, "");
        let this = &status["members"][0];
        assert!(this["promotion_milliseconds"].is_u64() && this["timeline"] == 2, "{status}");
        assert!(b.shell("podgres status").contains(" ms after the order"));
    }
}

#[test]
fn a_standby_whose_source_is_gone_says_why_it_does_not_stream() {
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let (a, b) = pair(&cluster, [&va, &vb]);
    a.signal("KILL");
    wait_for("the reason", || b.shell("podgres status").contains("does not stream: cannot connect").then_some(()));
    assert!(json(&b, "")["members"][0]["waiting"].is_string());
}

#[test]
fn settings_have_origins_and_what_waits_for_a_restart_is_named() {
    let config = Files::new(&[("postgresql.conf", 0o644, "# mine\nwork_mem = '7MB'\n")]);
    let mount = config.at("/etc/podgres");
    let a = Container::postgres(17, &["-v", &mount], &["-c", "maintenance_work_mem=65MB"]).ready();
    a.sql("alter system set temp_buffers = '9MB'");
    a.sql("alter system set max_connections = 123");
    a.shell("podgres reload");
    let settings = json(&a, "--settings work_mem maintenance_work_mem temp_buffers wal_log_hints port config_file");
    let origins: Vec<&str> =
        settings["settings"].as_array().unwrap().iter().map(|s| s["origin"].as_str().unwrap()).collect();
    let expected = ["/etc/podgres/postgresql.conf:2", "command line", "ALTER SYSTEM"];
    assert_eq!(origins[..3], expected, "{settings}");
    assert!(origins[3].starts_with("podgres default"), "{settings}");
    assert_eq!(origins[4], "default", "{settings}");
    let all = a.shell("podgres status --settings");
    assert!(all.contains("work_mem") && !all.lines().any(|l| l.starts_with("port ")), "{all}");
    let status = a.shell("podgres status");
    assert!(status.contains("a changed setting waits for a restart: max_connections 100 → 123"), "{status}");
    assert_eq!(json(&a, "--settings max_connections")["settings"][0]["pending"], "123");
    let unknown = a.exec(&["podgres", "status", "--settings", "work_men"]);
    assert_eq!((code(&unknown), stderr(&unknown).contains("nearest one is work_mem")), (1, true));
    assert_eq!(a.http("/settings").0, 404, "values are not for everybody");
}

#[test]
fn a_clone_shows_how_far_it_is() {
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let a = cluster.primary(&va);
    // It says how far it is and waits for the test before it begins.
    let script = "echo ' 38412/482501 kB (7%), 0/1 tablespace' >&2\n\
                  while [ ! -e /tmp/go ]; do sleep 0.05; done\nexec $real \"$@\"";
    let programs = programs_with(17, "pg_basebackup", script);
    let (mount, source) = (programs.at("/programs"), format!("PODGRES_STANDBY_OF=host={}", a.name));
    let options = ["-v", &mount, "-e", &source, "-e", "PODGRES_POSTGRES_BINDIR=/programs"];
    let b = cluster.member(&vb, &options, &[]);
    let status = wait_for("the progress", || {
        let output = b.exec(&["podgres", "status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["members"][0]["job"]["bytes_done"].as_u64().filter(|b| *b > 0)?;
        Some(status)
    });
    let job = &status["members"][0]["job"];
    assert_eq!((&job["name"], &job["bytes_done"]), (&"clone".into(), &(38_412_u64 << 10).into()), "{status}");
    assert!(job["percent"].as_f64().unwrap() > 7.0 && job["bytes_total"].is_u64(), "{status}");
    let table = b.shell("podgres status");
    assert!(table.contains("cloning 8 %"), "{table}");
    assert!(table.contains(&format!("cloning from {}:5432: 37.5 of 471.2 MB, 8 %", a.name)), "{table}");
    b.shell("touch /tmp/go");
    b.wait_ready();
    wait_caught_up(&a, &b);
}

#[test]
fn watch_goes_on_until_nobody_reads() {
    let a = Container::postgres(15, &[], &[]).ready();
    let lines = a.shell("podgres status --json --watch | head -n 3");
    assert_eq!(lines.lines().filter(|l| l.starts_with('{')).count(), 3, "{lines}");
}
