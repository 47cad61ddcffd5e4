//! Whom the token is shown: a server with a certificate of the cluster's CA for the address that was asked, and nobody else.

#![allow(clippy::disallowed_methods, reason = "nobody reaps here")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use podgres::cluster::kubernetes::{Error, Kubernetes, Server};

use crate::harness::{DEADLINE, SOON, Space, output, run};

const KEY: [&str; 6] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config"];

fn openssl(directory: &Path, arguments: &[&str]) {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(directory).args(arguments);
    output(openssl, "");
}

/// Makes `NAME.crt` and `NAME.key` of an authority.
fn authority(directory: &Path, name: &str) -> PathBuf {
    let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
    let is: [&str; 6] =
        ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign", "-subj", &subject];
    let into = ["/dev/null", "-days", "2", "-keyout", &key, "-out", &certificate];
    openssl(directory, &[&["req", "-x509"], &KEY[..], &into[..], &is[..]].concat());
    directory.join(certificate)
}

/// Makes `server.crt` and `server.key`.
fn certificate(directory: &Path, authority: &str, days: &str, extensions: &str) {
    let into = ["/dev/null", "-subj", "/CN=api", "-keyout", "server.key", "-out", "server.csr"];
    openssl(directory, &[&["req", "-new"], &KEY[..], &into[..]].concat());
    std::fs::write(directory.join("extensions"), format!("basicConstraints=CA:FALSE\n{extensions}\n")).unwrap();
    let (ca, key) = (format!("{authority}.crt"), format!("{authority}.key"));
    let by = ["-CA", &ca, "-CAkey", &key, "-CAcreateserial", "-days", days, "-extfile", "extensions"];
    openssl(directory, &[&["x509", "-req", "-in", "server.csr", "-out", "server.crt"], &by[..]].concat());
}

/// A server with `server.crt`, which notes what it is told and answers nothing.
struct Listening {
    server: Child,
    port: u16,
    heard: JoinHandle<String>,
}

impl Listening {
    fn start(directory: &Path) -> Self {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(directory).args(["s_server", "-accept", "127.0.0.1:0"]);
        openssl.args(["-cert", "server.crt", "-key", "server.key"]);
        // It ends with its stdin.
        let pipes = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = pipes.spawn().expect("openssl can be executed");
        let mut said = BufReader::new(server.stdout.take().unwrap());
        let (tell, told) = mpsc::channel();
        let heard = thread::spawn(move || {
            let mut line = String::new();
            while said.read_line(&mut line).unwrap() > 0 && !line.contains("ACCEPT ") {}
            tell.send(line.trim().rsplit(':').next().unwrap().parse().unwrap()).unwrap();
            let mut rest = Vec::new();
            said.read_to_end(&mut rest).unwrap();
            String::from_utf8_lossy(&rest).into_owned()
        });
        let port = told.recv_timeout(SOON).expect("openssl says where it listens");
        Self { server, port, heard }
    }

    /// All that it was told.
    fn heard(mut self) -> String {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        self.heard.join().unwrap()
    }
}

/// Reads the Lease of a server with `server.crt` and answers with why that failed, and with what the server was told.
async fn read(space: &Space, ca: &Path, directory: &Path) -> (Error, String) {
    let listening = Listening::start(directory);
    let server = Server { host: "127.0.0.1".into(), port: listening.port, ca: ca.into(), ..space.server() };
    // Long enough for a handshake; there is no answer.
    let error = space.connect_to(&server, "demo").read_lease(DEADLINE).await.unwrap_err();
    (error, listening.heard())
}

const FOR_THIS: &str = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth";

#[test]
fn the_token_is_shown_only_to_a_server_that_the_clusters_authority_vouches_for() {
    let space = Space::new();
    run(&space, |_: Kubernetes| async {
        let token = std::fs::read_to_string(space.server().token).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let ca = authority(directory, "ca");
        authority(directory, "other");

        // That it would be seen.
        certificate(directory, "ca", "2", FOR_THIS);
        let (error, heard) = read(&space, &ca, directory).await;
        assert!(matches!(error, Error::Timeout(_)), "{error}");
        assert!(heard.contains("GET /apis/coordination.k8s.io/") && heard.contains(&token), "{heard}");

        for (authority, days, extensions, words) in [
            ("other", "2", FOR_THIS, "UnknownIssuer"),
            ("ca", "2", "subjectAltName=IP:127.0.0.2\nextendedKeyUsage=serverAuth", "not valid for name"),
            ("ca", "2", "subjectAltName=DNS:kubernetes.default.svc\nextendedKeyUsage=serverAuth", "not valid for name"),
            ("ca", "2", "extendedKeyUsage=serverAuth", "not valid for name"),
            // A member's or a node's, in whose hands an address is.
            ("ca", "2", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=clientAuth", "Extended Key Usage"),
            ("ca", "-1", FOR_THIS, "expired"),
        ] {
            certificate(directory, authority, days, extensions);
            let (error, heard) = read(&space, &ca, directory).await;
            let Error::Unavailable(why) = error else { panic!("{extensions}: {error:?}") };
            assert!(why.contains("cannot be reached") && why.contains("invalid peer certificate"), "{why}");
            assert!(why.to_lowercase().contains(&words.to_lowercase()), "{words}: {why}");
            assert!(!heard.contains("GET ") && !heard.contains(&token), "{extensions}: {heard}");
        }
    });
}

#[test]
fn the_real_server_is_not_believed_without_its_authority() {
    let space = Space::new();
    let directory = tempfile::tempdir().unwrap();
    let other = authority(directory.path(), "other");
    run(&space, |_: Kubernetes| async {
        let kubernetes = space.connect_to(&Server { ca: other, ..space.server() }, "demo");
        let error = kubernetes.read_lease(DEADLINE).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable(why) if why.contains("UnknownIssuer")), "{error:?}");
    });
}

#[test]
fn a_server_without_tls_is_not_spoken_to() {
    let space = Space::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut heard = vec![0; 16 * 1024];
        let read = client.read(&mut heard).unwrap();
        heard.truncate(read);
        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        client.read_to_end(&mut heard).ok();
        heard
    });
    run(&space, |_: Kubernetes| async {
        let server = Server { host: "127.0.0.1".into(), port, ..space.server() };
        let error = space.connect_to(&server, "demo").read_lease(DEADLINE).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    });
    let (heard, token) = (heard.join().unwrap(), std::fs::read_to_string(space.server().token).unwrap());
    // A handshake's first bytes, and no HTTP.
    assert_eq!(heard[0], 22, "{heard:?}");
    let heard = String::from_utf8_lossy(&heard);
    assert!(!heard.contains("GET ") && !heard.contains("Bearer") && !heard.contains(&token));
}

/// The kubelet adds the next authority to the file before the API server has a certificate of it.
#[test]
fn the_authority_that_is_added_to_the_file_is_believed_within_a_minute() {
    let space = Space::new();
    run(&space, |_: Kubernetes| async {
        let token = std::fs::read_to_string(space.server().token).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let (ca, next) = (authority(directory, "ca"), authority(directory, "next"));
        certificate(directory, "next", "2", FOR_THIS);
        let listening = Listening::start(directory);
        let server = Server { host: "127.0.0.1".into(), port: listening.port, ca: ca.clone(), ..space.server() };
        let kubernetes = space.connect_to(&server, "demo");
        let error = kubernetes.read_lease(DEADLINE).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable(why) if why.contains("UnknownIssuer")), "{error:?}");

        let both = std::fs::read_to_string(&ca).unwrap() + &std::fs::read_to_string(next).unwrap();
        std::fs::write(&ca, both).unwrap();
        let (began, patience) = (Instant::now(), Duration::from_secs(100));
        while let Error::Unavailable(why) = kubernetes.read_lease(Duration::from_secs(2)).await.unwrap_err() {
            assert!(began.elapsed() < patience, "waited {patience:?} for the file to be read: {why}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(listening.heard().contains(&token));
    });
}
