//! The client's side of the control socket.

use std::{path::Path, process::ExitCode, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{EX_FAILED, fail};
use crate::run_dir;

/// Longer than the manager takes for its own questions to PostgreSQL.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Commands answer when they are done, and have a deadline of their own.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);

/// Why the manager could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "no podgres runs here: no control socket in {0}. Inside a container: docker exec CONTAINER podgres …; \
         with a run-dir of your own, name it with --run-dir"
    )]
    NoManager(String),
    #[error("cannot ask the manager at {path}: {reason}")]
    Ask { path: String, reason: String },
}

/// Sends a request without a body to the manager and gives back its answer.
pub(super) fn request(run_dir: Option<&Path>, method: Method, path: &str) -> Result<(StatusCode, Bytes), Error> {
    let Some(socket) = run_dir::find_control_socket(run_dir) else {
        let looked = match run_dir {
            Some(dir) => vec![dir.display().to_string()],
            None => run_dir::candidates().iter().map(|d| d.display().to_string()).collect(),
        };
        return Err(Error::NoManager(looked.join(", ")));
    };
    let timeout = if method == Method::GET { TIMEOUT } else { COMMAND_TIMEOUT };
    let failed = |reason: String| Error::Ask { path: socket.display().to_string(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| failed(e.to_string()))?;
    let asked = runtime.block_on(async { tokio::time::timeout(timeout, ask(&socket, method, path)).await });
    match asked {
        Ok(answer) => answer.map_err(|e| failed(e.to_string())),
        Err(_) => Err(failed(format!("no answer within {} s", timeout.as_secs()))),
    }
}

async fn ask(socket: &Path, method: Method, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "podgres").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// Sends a command, prints what the manager says.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn post(run_dir: Option<&Path>, path: &str) -> ExitCode {
    match request(run_dir, Method::POST, path) {
        Ok((status, body)) if status.is_success() => {
            print!("{}", String::from_utf8_lossy(&body));
            ExitCode::SUCCESS
        }
        Ok((_, body)) => fail(EX_FAILED, String::from_utf8_lossy(&body).trim_end()),
        Err(error) => fail(EX_FAILED, error),
    }
}

/// As a value in a query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
