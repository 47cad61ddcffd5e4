//! Probes over HTTP, `podgres status` and the control socket.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::harness::*;

fn codes(container: &Container, paths: &[&str]) -> Vec<u16> {
    paths.iter().map(|p| container.http(p).0).collect()
}

const ALL: [&str; 6] = ["/livez", "/startupz", "/readyz", "/primary", "/replica", "/read-only"];

#[test]
fn a_primary_from_initialisation_to_its_freeze() {
    let scripts = Volume::new();
    scripts.shell("printf 'echo sleeping; while [ ! -e /tmp/go ]; do sleep 0.05; done' >/volume/1.sh");
    let mount = scripts.at("/docker-entrypoint-initdb.d");
    let container = Container::postgres(15, &["-v", &mount], &[]);
    container.wait_for_message("sleeping");
    assert_eq!(codes(&container, &ALL), [200, 200, 503, 503, 503, 503]);
    assert!(container.http("/readyz").1.contains("initialising"));
    container.shell("touch /tmp/go");
    container.wait_ready();
    assert_eq!(codes(&container, &ALL), [200, 200, 200, 200, 503, 200]);
    assert_eq!(codes(&container, &["/readyz?lag=16MB", "/readyz?lag=much", "/nonsense"]), [200, 400, 404]);

    let request = |method: &str| {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/8008; printf '{method} /readyz HTTP/1.0\\r\\nhost: x\\r\\n\\r\\n' >&3; timeout 5 head -n1 <&3"
        );
        container.shell(&script).split(' ').nth(1).unwrap_or_default().to_string()
    };
    assert_eq!(["HEAD", "POST", "PUT", "DELETE"].map(request), ["200", "405", "405", "405"]);

    container.shell("kill -STOP $(head -n1 $PGDATA/postmaster.pid)");
    wait_for("the freeze to be seen", || (container.http("/readyz").0 == 503).then_some(()));
    assert_eq!(codes(&container, &["/livez", "/startupz", "/primary"]), [200, 200, 503]);
    container.shell("kill -CONT $(head -n1 $PGDATA/postmaster.pid)");
    wait_for("the thaw to be seen", || (container.http("/readyz").0 == 200).then_some(()));
}

#[test]
fn a_standalone_server_says_that_it_is_a_member_of_no_cluster() {
    let container = Container::postgres(17, &[], &[]).ready();
    let (status, text) = container.http("/member");
    assert_eq!((status, text.trim_end()), (404, "this server is a member of no cluster"));
    assert_eq!(codes(&container, &["/member?replayed=0/1&within=10", "/member?replayed=one"]), [404, 400]);
}

#[test]
fn a_server_without_a_free_connection_is_ready_and_probes_take_none() {
    let container =
        Container::postgres(15, &[], &["-c", "max_connections=5", "-c", "superuser_reserved_connections=0"]).ready();
    for _ in 0..5 {
        docker_ok(&["exec", "-d", &container.name, "psql", "-U", "postgres", "-c", "select pg_sleep(1000)"]);
    }
    wait_for("all connections to be taken", || {
        let output = container.exec(&["psql", "-U", "postgres", "-c", "select 1"]);
        stderr(&output).contains("too many clients").then_some(())
    });
    assert_eq!(container.http("/readyz").0, 200);
}

#[test]
fn a_flood_of_probes_is_no_flood_of_connections() {
    let container = Container::postgres(15, &[], &["-c", "log_connections=on"]).ready();
    let before = container.stdout().matches("connection received").count();
    container.shell(
        "for i in $(seq 20); do (for j in $(seq 25); do exec 3<>/dev/tcp/127.0.0.1/8008
         printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3; grep -q '200 OK' <&3 || echo bad; done) & done; wait",
    );
    let connections = container.stdout().matches("connection received").count() - before;
    assert!(connections < 250, "{connections} connections for 500 probes");
}

/// What no client of good will sends.
const NONSENSE: [&[u8]; 8] = [
    b"\x00\xff\x00\xff\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET  /livez  HTTP/9.9\r\n\r\n",
    b"GET /%00%ff%2e%2e HTTP/1.1\r\nhost: \r\n\r\n",
    b"POST /vote HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
    b"POST /vote HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"DELETE /status HTTP/1.1\r\nhost: x\r\n : \r\n\r\n",
];

#[test]
fn nonsense_and_slow_clients_neither_stop_a_probe_nor_stay_in_memory() {
    let container = Container::postgres(17, &[], &[]).ready();
    let address = format!("{}:8008", container.inspect("{{.NetworkSettings.IPAddress}}"));
    let memory = || {
        let status = container.exec(&["cat", "/proc/1/status"]);
        let line = stdout(&status).lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS").to_string();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("kB")
    };
    let connect = || {
        let stream = TcpStream::connect(&address).expect("the port is open");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
        stream
    };
    let probe = || {
        let begun = Instant::now();
        let mut stream = connect();
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        begun.elapsed()
    };
    let nonsense = |times: usize| {
        for n in 0..times {
            let mut stream = connect();
            // It may be closed before all of it was sent.
            let _ = stream.write_all(NONSENSE[n % NONSENSE.len()]);
        }
    };
    nonsense(500);
    let before = memory();
    nonsense(if is_full() { 10_000 } else { 1500 });
    let slow: Vec<_> = (0..500)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(b"GET /status HTTP/1.1\r\nx").expect("the beginning of a request");
            stream
        })
        .collect();
    let slowest = (0..20).map(|_| probe()).max().expect("some");
    assert!(slowest < Duration::from_secs(2), "a probe took {slowest:?} beside slow clients");
    drop(slow);
    wait_or(|| format!("{} kB before, {} kB now", before, memory()), || (memory() < before + 2048).then_some(()));
    assert_eq!(container.inspect("{{.State.Running}} {{.RestartCount}}"), "true 0");
}

#[test]
fn a_standby_that_streams_and_one_that_does_not() {
    for major in majors() {
        let volume = Volume::new();
        volume.shell("chown 999:999 /volume");
        let mount = volume.at("/backup");
        let origin = Container::postgres(major, &["-v", &mount], &[]).ready();
        origin.shell("echo 'host replication all all trust' >>$PGDATA/pg_hba.conf; podgres reload");
        let address = origin.inspect("{{.NetworkSettings.IPAddress}}");
        origin.shell("pg_basebackup -U postgres -D /backup/b -X stream -c fast; touch /backup/b/standby.signal");
        let conninfo = format!("primary_conninfo=host={address} user=postgres");
        let options = ["-v", &mount, "-e", "PGDATA=/backup/b", "-e", "POSTGRES_PASSWORD=hush-hush"];
        let standby = Container::start(major, &options, &["-c", &conninfo]).ready();
        assert_eq!(codes(&standby, &ALL), [200, 200, 200, 503, 200, 200]);
        wait_for("the standby to catch up", || (standby.http("/replica?lag=1MB").0 == 200).then_some(()));
        let table = standby.shell("podgres status");
        assert!(table.contains("standby") && table.contains("0 B"), "{table}");
        origin.signal("KILL");
        wait_for("the loss to be seen", || (standby.http("/readyz").0 == 503).then_some(()));
        assert!(standby.shell("podgres status").contains("does not stream"));
    }
}

#[test]
fn status_and_commands_on_the_control_socket() {
    let container = Container::postgres(15, &[], &[]).ready();
    assert_eq!(container.shell("stat -c %a /run/podgres/control.sock"), "600");
    let status: serde_json::Value = serde_json::from_str(&container.shell("podgres status --json")).unwrap();
    let member = &status["members"][0];
    assert_eq!((&member["role"], &member["state"]), (&"primary".into(), &"running".into()), "{status}");
    assert_eq!(member["postgres"]["timeline"], 1, "{status}");
    let mut over_http: serde_json::Value = serde_json::from_str(&container.http("/status").1).unwrap();
    over_http["members"][0]["state_age_seconds"] = status["members"][0]["state_age_seconds"].clone();
    over_http["manager"]["uptime_seconds"] = status["manager"]["uptime_seconds"].clone();
    assert_eq!(status, over_http);
    container.sql("alter system set shared_buffers = '32MB'");
    container.shell("podgres reload");
    wait_for("the pending restart", || container.shell("podgres status").contains("shared_buffers").then_some(()));
    let old = container.shell("head -n1 $PGDATA/postmaster.pid");
    container.shell("podgres restart");
    wait_for("another postmaster", || {
        let new = container.exec(&["bash", "-c", "head -n1 $PGDATA/postmaster.pid"]);
        (stdout(&new) != old && !stdout(&new).is_empty()).then_some(())
    });
    container.wait_ready();
    assert_eq!(container.sql("show shared_buffers"), "32MB");
    // The port of HTTP is for looking only.
    assert_eq!(
        container
            .shell("exec 3<>/dev/tcp/127.0.0.1/8008; printf 'POST /restart HTTP/1.0\\r\\n\\r\\n' >&3; head -n1 <&3")
            .split(' ')
            .nth(1),
        Some("404")
    );
}

#[test]
fn the_image_says_when_it_is_healthy() {
    let container = Container::postgres(17, &[], &[]);
    wait_for("health", || (container.inspect("{{.State.Health.Status}}") == "healthy").then_some(()));
}

#[test]
fn a_port_that_is_taken_is_done_without_unless_somebody_asked_for_it() {
    let first = Container::postgres(15, &[], &[]).ready();
    let network = format!("container:{}", first.name);
    let second = Container::postgres(17, &["--network", &network], &["-p", "5433"]).ready();
    second.wait_for_message("going on without probes over HTTP");
    assert!(second.shell("podgres status").contains("primary"), "the control socket is another door");
    let options = ["--network", &network, "-e", "POSTGRES_PASSWORD=x", "-e", "PODGRES_LISTEN=[::]:8008"];
    let refused = run(15, &options, &["-p", "5434"]);
    assert_eq!(code(&refused), 78, "{refused:?}");
    assert!(stderr(&refused).contains("listen: cannot listen on [::]:8008"), "{refused:?}");
}

#[test]
fn where_no_manager_runs_commands_say_so() {
    for command in [&["podgres", "status"][..], &["podgres", "restart"], &["podgres", "status", "--ready"]] {
        let output = run(15, &[], command);
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(stderr(&output).contains("no podgres runs here"), "{output:?}");
    }
}

/// Whoever reads the JSON relies on these keys.
#[test]
fn the_schema_of_status_is_stable() {
    let container = Container::postgres(15, &[], &[]).ready();
    let status: serde_json::Value = serde_json::from_str(&container.http("/status").1).unwrap();
    let keys = |value: &serde_json::Value| {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys.join(" ")
    };
    let member = &status["members"][0];
    assert_eq!(keys(&status), "cluster findings manager members problems");
    assert_eq!(keys(&status["manager"]), "log_lines_dropped pid restarts uptime_seconds version");
    let expected = "accepting address data_directory job kept_data_directory lag_bytes lag_seconds lsn name postgres \
                    postgres_pid promotion_milliseconds reason role slots source state state_age_seconds sync timeline \
                    waiting";
    assert_eq!(keys(member), expected);
    assert_eq!(keys(&member["postgres"]), "lag_bytes lsn pending_restart streaming system_identifier timeline version");
}
