//! A proxy before the API server, for its members alone: counts what they ask, and spoils answers.

use std::{net::Ipv4Addr, process::Command};

use crate::{cluster::Cluster, harness::*};

const PORT: &str = "6443";

pub struct Proxy {
    files: Files,
    address: Ipv4Addr,
    /// Where the API server is.
    server: (String, String),
    network: String,
    container: Container,
}

impl Proxy {
    /// Starts one. Members that the cluster gets from now on are told that it is the API server.
    pub fn before(cluster: &mut Cluster) -> Self {
        let address = cluster.subnet.address();
        let files = Files::new(&[]);
        certificate(&files, address);
        let certificate = std::fs::read_to_string(files.path().join("api.crt")).expect("the certificate");
        let authority = (address.to_string(), PORT.to_string(), certificate);
        let (host, port, _) = std::mem::replace(&mut cluster.server, authority);
        let (server, network) = ((host, port), cluster.subnet.name.clone());
        let container = run(&files, address, &server, &network, "");
        Self { files, address, server, network, container }
    }

    /// Makes the certificate that it has from the next [`Proxy::rules`] on, and answers with it: it is its own authority.
    pub fn next_certificate(&self) -> String {
        certificate(&self.files, self.address);
        std::fs::read_to_string(self.files.path().join("api.crt")).expect("the certificate")
    }

    /// From now on with these rules of HAProxy's in its frontend. Connections are broken off.
    pub fn rules(&mut self, rules: &str) {
        docker(&["rm", "--force", &self.container.name]);
        self.container = run(&self.files, self.address, &self.server, &self.network, rules);
    }

    /// The requests so far, since the last change of rules: `CLIENT METHOD URI CODE`.
    pub fn requests(&self) -> Vec<String> {
        let log = self.container.stdout();
        log.lines().filter_map(|line| line.strip_prefix("request ")).map(str::to_string).collect()
    }
}

fn run(files: &Files, address: Ipv4Addr, server: &(String, String), network: &str, rules: &str) -> Container {
    let (host, port) = server;
    let configuration = format!(
        "global\n  log stdout format raw local0\n\
         defaults\n  mode http\n  log global\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         \x20 option logasap\n  log-format \"request %ci %HM %HU %ST\"\n\
         frontend members\n  bind :{PORT} ssl crt /etc/haproxy/api.pem\n{rules}\n  default_backend api\n\
         backend api\n  server api {host}:{port} ssl verify none\n"
    );
    files.put("haproxy.cfg", 0o644, &configuration);
    let (mount, address) = (files.at("/etc/haproxy"), address.to_string());
    let container = Container::of_image(&haproxy_image(), &["--network", network, "--ip", &address, "-v", &mount], &[]);
    let listens = || std::net::TcpStream::connect((address.as_str(), PORT.parse().expect("a port"))).is_ok();
    wait_or(|| format!("the proxy to listen: {}", container.log()), || listens().then_some(()));
    container
}

/// One that is its own authority.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn certificate(files: &Files, address: Ipv4Addr) {
    let path = |name: &str| files.path().join(name).display().to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=proxy", "-addext", &format!("subjectAltName=IP:{address}")]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-config", "/dev/null"]);
    openssl.args(["-keyout", &path("api.key"), "-out", &path("api.crt")]);
    let output = openssl.output().expect("openssl can be executed");
    assert!(output.status.success(), "{}", stderr(&output));
    let read = |name: &str| std::fs::read_to_string(path(name)).expect("openssl has written it");
    files.put("api.pem", 0o644, &(read("api.crt") + &read("api.key")));
}
