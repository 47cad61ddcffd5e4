//! Clients of a member, from outside of its container: SQL and HTTP, each with a deadline.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The superuser's password of every member.
pub const PASSWORD: &str = "hush-hush";

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(10);

/// How a client connects to a member.
pub fn config(address: Ipv4Addr) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.hostaddr(address.into()).user("postgres").password(PASSWORD).dbname("postgres").application_name("test");
    config.connect_timeout(Duration::from_secs(2));
    config
}

/// SQL as the superuser; bare values, a row each line. One connection a call.
pub fn sql(address: Ipv4Addr, sql: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let asked = runtime.block_on(async {
        tokio::time::timeout(QUESTION, async {
            let (client, connection) = config(address).connect(NoTls).await?;
            let connection = tokio::spawn(connection);
            let answer = client.simple_query(sql).await;
            connection.abort();
            answer
        })
        .await
    });
    match asked {
        Ok(Ok(messages)) => Ok(rows(&messages)),
        Ok(Err(e)) if e.as_db_error().is_some_and(wants_tls) => sql_by_tls(address, sql),
        Ok(Err(e)) => Err(e.as_db_error().map_or_else(|| e.to_string(), ToString::to_string)),
        Err(_) => Err(format!("no answer within {QUESTION:?}")),
    }
}

/// Whether it is for members that demand TLS, which `tokio_postgres` has not by itself.
fn wants_tls(error: &tokio_postgres::error::DbError) -> bool {
    error.message().contains("no encryption")
}

#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn sql_by_tls(address: Ipv4Addr, sql: &str) -> Result<String, String> {
    let conninfo = format!(
        "host={address} user=postgres password={PASSWORD} dbname=postgres application_name=test sslmode=require \
         connect_timeout=2"
    );
    let output = Command::new("timeout").args(["10", "psql", "-XAtq", "-d", &conninfo, "-c", sql]).output();
    let output = output.expect("psql can be executed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_string();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn rows(messages: &[SimpleQueryMessage]) -> String {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let columns: Vec<_> = (0..row.len()).map(|i| row.get(i).unwrap_or_default()).collect();
            Some(columns.join("|"))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect::<Vec<_>>().join("\n")
}

/// GET on the HTTP port, over TLS where the member wants that; the status code (0: no answer) and the body.
pub fn http(address: Ipv4Addr, path: &str) -> (u16, String) {
    match request(address, QUESTION, &format!("GET {path} HTTP/1.0\r\nhost: member\r\n\r\n")) {
        (400, body) if body.contains("https://") => https(address, path),
        answer => answer,
    }
}

#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn https(address: Ipv4Addr, path: &str) -> (u16, String) {
    let url = format!("https://{address}:8008{path}");
    let output = Command::new("curl")
        .args(["--silent", "--insecure", "--max-time", "10", "-w", "\n%{http_code}", &url])
        .output();
    let text = String::from_utf8_lossy(&output.expect("curl can be executed").stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", "0"));
    (code.parse().unwrap_or(0), body.to_string())
}

/// A request of HTTP/1.0 to the HTTP port, as text; the status code (0: no answer within `patience`) and the body.
pub fn request(address: Ipv4Addr, patience: Duration, text: &str) -> (u16, String) {
    let (code, text) = answer(address, patience, text);
    (code, text.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default())
}

/// [`request`], with the whole answer.
pub fn answer(address: Ipv4Addr, patience: Duration, text: &str) -> (u16, String) {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, 8008)), Duration::from_secs(2))?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(text.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = ask().unwrap_or_default();
    let code = text.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
    (code, text)
}
