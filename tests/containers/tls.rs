//! TLS: of clients, of standbys and of the HTTP port; and certificates that change.

use std::{
    io::Write,
    net::TcpStream,
    process::{Child, Command},
};

use crate::{harness::*, made::Ca};

/// A certificate as a mounted Secret has it: readable to everybody, nobody's to write.
fn certificate(ca: &Ca) -> Files {
    let files = Files::new(&[]);
    ca.issue(files.path(), 2040);
    files
}

/// A place for servers with certificates, and for clients.
struct World {
    network: Network,
    major: u32,
}

impl World {
    fn new(major: u32) -> Self {
        Self { network: Network::new(), major }
    }

    /// A server with this certificate; `options` are docker's.
    fn server(&self, certificate: &Files, options: &[&str]) -> Container {
        let (mount, dir) = (certificate.at("/certs:ro"), "PODGRES_TLS_DIR=/certs");
        let common = ["--network", &self.network.0, "-v", &mount, "-e", dir];
        Container::postgres(self.major, &[&common, options].concat(), &[])
    }

    /// Somebody who has these files in `/certs`.
    fn client(&self, files: &Files) -> Container {
        Container::idle(self.major, &["--network", &self.network.0, "-v", &files.at("/certs:ro")])
    }
}

/// What `psql` says, right or wrong.
fn psql(client: &Container, server: &Container, conninfo: &str, sql: &str) -> Result<String, String> {
    let conninfo = format!("host={} user=postgres password=hush-hush connect_timeout=5 {conninfo}", server.name);
    let output = client.exec(&["psql", "-XAtq", "-d", &conninfo, "-c", sql]);
    if output.status.success() { Ok(stdout(&output)) } else { Err(stderr(&output)) }
}

const IS_TLS: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
const VERIFIED: &str = "sslmode=verify-ca sslrootcert=/certs/ca.crt";

fn address(server: &Container) -> String {
    server.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

/// What curl says of a path of the HTTP port, as the name that is in the certificate: status code and body.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn https(server: &Container, ca: &Files, path: &str) -> Result<(u16, String), String> {
    let resolve = format!("db:8008:{}", address(server));
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", "--resolve", &resolve, "--write-out", "\n%{http_code}"]);
    curl.arg("--cacert").arg(ca.path().join("ca.crt")).arg(format!("https://db:8008{path}"));
    let output = curl.output().expect("curl can be executed");
    if !output.status.success() {
        return Err(stderr(&output));
    }
    let text = stdout(&output);
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", &text));
    Ok((code.parse().expect("a status code"), body.into()))
}

/// A client that stays connected until it is dropped.
struct Session(Child);

impl Session {
    #[allow(clippy::disallowed_methods, reason = "not PID 1")]
    fn open(client: &Container, server: &Container) -> Self {
        let conninfo = format!("host={} user=postgres password=hush-hush application_name=stays", server.name);
        let mut docker = Command::new("docker");
        docker.args(["exec", &client.name, "psql", "-XAtq", "-d", &conninfo, "-c", "select pg_sleep(600)"]);
        let session = Self(docker.spawn().expect("docker can be executed"));
        wait_for("the session that stays", || (Self::is_there(server)).then_some(()));
        session
    }

    fn is_there(server: &Container) -> bool {
        let found = "select ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'stays'";
        server.sql(found) == "t"
    }
}

impl Drop for Session {
    #[allow(clippy::disallowed_methods, reason = "not PID 1")]
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_certificate_that_is_exchanged_serves_the_next_connection_and_disturbs_no_other() {
    for major in majors() {
        let (world, one, two) = (World::new(major), Ca::new("one"), Ca::new("two"));
        let files = certificate(&one);
        let (of_one, of_two) = (certificate(&one), certificate(&two));
        let server = world.server(&files, &[]).ready();
        let (client, other) = (world.client(&of_one), world.client(&of_two));
        assert_eq!(psql(&client, &server, VERIFIED, IS_TLS).unwrap(), "t");
        assert_eq!(psql(&client, &server, "sslmode=disable", IS_TLS).unwrap(), "f", "nobody forbids it");
        assert!(psql(&other, &server, VERIFIED, IS_TLS).unwrap_err().contains("certificate verify failed"));
        assert_eq!(https(&server, &of_one, "/primary").unwrap().0, 200);
        assert!(https(&server, &of_two, "/primary").is_err());
        let (code, body) = server.http("/status");
        assert!(code == 400 && body.contains("https://"), "{code} {body}");
        let session = Session::open(&client, &server);

        two.issue(files.path(), 2041);
        wait_for("the new certificate at the HTTP port", || https(&server, &of_two, "/primary").ok());
        wait_for("the new certificate at PostgreSQL's port", || psql(&other, &server, VERIFIED, IS_TLS).ok());
        assert!(psql(&client, &server, VERIFIED, IS_TLS).is_err() && https(&server, &of_one, "/primary").is_err());
        assert!(Session::is_there(&server), "whoever was connected still is");
        drop(session);
    }
}

#[test]
fn a_certificate_that_cannot_be_used_keeps_the_old_and_says_so() {
    let (world, ca) = (World::new(majors()[0]), Ca::new("one"));
    let (files, own) = (certificate(&ca), certificate(&ca));
    let server = world.server(&files, &[]).ready();
    let client = world.client(&own);
    files.put("tls.key", 0o644, "this is no key");
    server.wait_for_message("the one of before stays in use");
    server.shell("podgres reload");
    assert_eq!(psql(&client, &server, VERIFIED, IS_TLS).unwrap(), "t");
    let metrics = https(&server, &own, "/metrics").unwrap().1;
    assert!(metrics.contains("podgres_tls_certificate_refused 1\n"), "{metrics}");
    assert!(metrics.contains("podgres_tls_certificate_expiry_timestamp_seconds 2208988800\n"), "{metrics}");
    let status = server.shell("podgres status");
    assert!(status.contains("/certs/tls.key") && status.contains("no private key"), "{status}");

    // A container that is started again in this state goes on with it, too.
    server.signal("TERM");
    server.wait();
    server.start_again();
    server.wait_ready();
    assert_eq!(psql(&client, &server, VERIFIED, IS_TLS).unwrap(), "t");
    ca.issue(files.path(), 2026);
    wait_for("a certificate that is over to be complained of", || {
        server.shell("podgres status").contains("has been good until 2026-01-01").then_some(())
    });
}

#[test]
fn where_only_tls_is_allowed_nobody_does_without_and_standbys_know_their_source() {
    for major in majors() {
        let (world, ca) = (World::new(major), Ca::new("one"));
        let files = certificate(&ca);
        let only = ["-e", "PODGRES_TLS_ONLY=true"];
        let primary = world.server(&files, &only).ready();
        let client = world.client(&files);
        let refused = psql(&client, &primary, "sslmode=disable", IS_TLS).unwrap_err();
        assert!(refused.contains("pg_hba.conf") && refused.contains("no encryption"), "{refused}");
        assert_eq!(psql(&client, &primary, VERIFIED, IS_TLS).unwrap(), "t");
        assert_eq!(primary.http("/member").0, 400);

        let source = format!("PODGRES_STANDBY_OF=host={}", primary.name);
        let standby = world.server(&files, &[&only[..], &["-e", &source]].concat()).ready();
        let conninfo = standby.sql("show primary_conninfo");
        assert!(conninfo.contains("sslmode='verify-ca'"), "{conninfo}");
        assert_eq!(primary.sql("select distinct ssl from pg_stat_ssl join pg_stat_replication using (pid)"), "t");

        // Somebody else's certificate is no source, whoever else lets it in.
        let stranger = certificate(&Ca::new("stranger"));
        let standby = world.server(&stranger, &[&only[..], &["-e", &source]].concat());
        wait_or(
            || format!("the stranger to be refused; its log:\n{}", standby.log()),
            || standby.shell("podgres status || true").contains("certificate verify failed").then_some(()),
        );
    }
}

#[test]
fn with_a_ca_of_clients_standbys_need_a_certificate_and_no_password() {
    for major in majors() {
        let (world, ca, clients) = (World::new(major), Ca::new("servers"), Ca::new("clients"));
        let files = certificate(&ca);
        ca.issue(files.path(), 2040);
        files.put("clients.crt", 0o644, &format!("{}{}", clients.pem(), ca.pem()));
        let with_ca = ["-e", "PODGRES_CLIENT_CA=/certs/clients.crt"];
        let primary = world.server(&files, &with_ca).ready();
        let source = format!("PODGRES_STANDBY_OF=host={}", primary.name);
        let other = ["-e", &source, "-e", "PODGRES_REPLICATION_PASSWORD=not-the-primarys"];
        let _standby = world.server(&files, &[&with_ca[..], &other].concat()).ready();
        assert_eq!(
            primary.sql("select client_dn from pg_stat_ssl join pg_stat_replication using (pid)"),
            "/CN=podgres"
        );

        let own = Files::new(&[]);
        clients.issue_to("somebody", own.path(), 2040);
        for name in ["podgres.crt", "podgres.key"] {
            let dir = Files::new(&[]);
            clients.issue(dir.path(), 2040);
            own.put(name, 0o644, &std::fs::read_to_string(dir.path().join(name.replace("podgres", "tls"))).unwrap());
        }
        let client = world.client(&own);
        client.shell("cp /certs/tls.key /certs/podgres.key /tmp; chmod 600 /tmp/*.key");
        let as_podgres =
            |more: &str| psql(&client, &primary, &format!("user=podgres dbname=postgres {more}"), "select 1");
        let password = client_password(&primary);
        let refused = as_podgres(&format!("password={password}")).unwrap_err();
        assert!(refused.contains("certificate"), "the password alone: {refused}");
        let refused = as_podgres(&format!("password={password} sslmode=disable")).unwrap_err();
        assert!(refused.contains("rejects"), "without TLS: {refused}");
        let refused = as_podgres("sslcert=/certs/tls.crt sslkey=/tmp/tls.key").unwrap_err();
        assert!(refused.contains("certificate authentication failed"), "somebody else's: {refused}");
        // The right name, and the key that does not belong to it.
        assert!(as_podgres("sslcert=/certs/podgres.crt sslkey=/tmp/tls.key").is_err());
    }
}

/// Known to whoever knows the superuser's.
fn client_password(primary: &Container) -> String {
    primary.sql("alter role podgres password 'known'");
    "known".into()
}

/// What the manager has for itself, in KiB.
fn anonymous(server: &Container) -> u64 {
    let path = format!("/proc/{}/status", server.inspect("{{.State.Pid}}"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// So many handshakes, each with a question.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn shake_hands(server: &Container, times: usize) {
    let url = format!("https://{}:8008/livez?[1-{times}]", address(server));
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--insecure", "--header", "connection: close", "--max-time", "10", &url]);
    let output = curl.output().expect("curl can be executed");
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Clients that begin with a handshake and go no further.
fn begin_handshakes(server: &Container, clients: usize) -> Vec<TcpStream> {
    let address = format!("{}:8008", address(server));
    let begin = |_| {
        let mut stream = TcpStream::connect(&address).expect("a connection");
        // The head of a record with a ClientHello of 512 bytes, of which none come.
        stream.write_all(&[22, 3, 1, 2, 0, 1]).expect("it takes some bytes");
        stream
    };
    (0..clients).map(begin).collect()
}

#[test]
fn handshakes_leave_nothing_behind() {
    let (world, ca) = (World::new(17), Ca::new("one"));
    let server = world.server(&certificate(&ca), &[]).ready();
    shake_hands(&server, 200);
    let before = anonymous(&server);
    shake_hands(&server, 2000);
    let slow = begin_handshakes(&server, 300);
    shake_hands(&server, 20);
    drop(slow);
    let most = before + 2048;
    wait_or(
        || format!("at most {most} KiB after the handshakes, {before} before them, not {}", anonymous(&server)),
        || (anonymous(&server) <= most).then_some(()),
    );
    eprintln!("{before} KiB before 2,020 handshakes, {} after them", anonymous(&server));
}

#[test]
fn a_directory_without_a_certificate_is_refused_before_anything_is_touched() {
    let (world, empty) = (World::new(15), Files::new(&[]));
    let server = world.server(&empty, &[]);
    assert_eq!(server.wait(), 78);
    let said = server.stderr();
    assert!(said.contains("tls-dir") && said.contains("/certs/tls.crt"), "{said}");
    let mount = empty.at("/certs");
    let output = run(15, &["-v", &mount, "-e", "PODGRES_TLS_DIR=/certs", "--entrypoint", "podgres"], &["check"]);
    assert_eq!(code(&output), 78);
    assert!(stdout(&output).contains("FAIL  tls-dir: /certs/tls.crt"), "{}", stdout(&output));
}
