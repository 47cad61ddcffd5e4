//! The manager's two doors: HTTP for probes, status and metrics, and the control socket for commands. Both ask the manager's
//! loop for everything they say.

mod api;
mod cluster;
mod commands;
mod member;
mod members;
mod probes;
pub(crate) mod serve;
mod status;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use axum::{
    Router,
    http::StatusCode,
    routing::{get, post},
};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

pub use api::Api;

use crate::{settings::Listen, tls::Certificates};
use serve::Answers;

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP port.
    #[error("listen: cannot listen on {address}: {source}. Choose another address with listen")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The control socket.
    #[error("cannot make the control socket {path}: {source}. Choose another directory with run-dir")]
    Control {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Serves probes and status on `listen`, over TLS where there are certificates. A port that nobody asked for and somebody else
/// uses is done without.
///
/// # Errors
/// When a port that was asked for cannot be used.
pub async fn serve_http(listen: Listen, api: Api, certificates: Option<Certificates>) -> Result<(), Error> {
    let listener = match bind(listen) {
        Ok(listener) => listener,
        Err(error) if !listen.explicit => {
            tracing::warn!("{error}; going on without probes over HTTP");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let all = open(api.clone());
    let tls = certificates.map(|certificates| {
        let without = without_tls(api, certificates.borrow().only);
        (certificates, without)
    });
    let answers = Answers { all, tls };
    let answer = move |stream, asks| serve::answer_by_tls(stream, answers.clone(), asks);
    tokio::task::spawn_local(serve::serve(async move || Ok(listener.accept().await?.0), answer));
    Ok(())
}

/// What anybody reaches over the network.
pub(crate) fn open(api: Api) -> Router {
    read_only(api.clone()).merge(questions(api))
}

/// Nothing else that changes anything is on the port, and this takes a proof of membership.
fn questions(api: Api) -> Router {
    Router::new().route("/vote", post(members::vote)).route("/failsafe", post(members::failsafe)).with_state(api)
}

/// Where the port speaks TLS: members may be given their certificates one after the other, and have to understand each other
/// meanwhile, unless TLS is all that is allowed.
fn without_tls(api: Api, only: bool) -> Router {
    let members = match only {
        true => Router::new(),
        false => questions(api.clone()).merge(Router::new().route("/member", get(member::member)).with_state(api)),
    };
    members.fallback(async || (StatusCode::BAD_REQUEST, "this port speaks HTTPS: ask with https://\n"))
}

/// Where the kernel has no IPv6 "everywhere" means IPv4.
fn bind(listen: Listen) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen { address: listen.address, source };
    match listener(listen.address) {
        Err(e) if listen.address.ip().is_unspecified() && e.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            listener(std::net::SocketAddr::from(([0, 0, 0, 0], listen.address.port()))).map_err(failed)
        }
        result => result.map_err(failed),
    }
}

/// So many may wait to be accepted. Of more than that the kernel says nothing to the next, a probe perhaps, which tries again
/// a second later.
const WAITING: u32 = 1024;

fn listener(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// Serves commands on the socket `path`, for its owner only.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve_control(path: &Path, api: Api) -> Result<(), Error> {
    let failed = |source| Error::Control { path: path.to_path_buf(), source };
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let router = read_only(api.clone()).merge(
        Router::new()
            .route("/restart", post(commands::restart))
            .route("/reload", post(commands::reload))
            .route("/promote", post(commands::promote))
            .route("/reinit", post(commands::reinit))
            .route("/switchover", post(cluster::switchover))
            .route("/fence", post(cluster::fence))
            .route("/pause", post(cluster::pause))
            .route("/resume", post(cluster::resume))
            .route("/settings", get(commands::settings))
            .with_state(api),
    );
    // Its owner's processes are not all as good as `podgres`, and a probe may be one of them.
    let answer = move |stream, asks| serve::answer(stream, router.clone(), asks);
    tokio::task::spawn_local(serve::serve(async move || Ok(listener.accept().await?.0), answer));
    Ok(())
}

fn read_only(api: Api) -> Router {
    Router::new()
        .route("/livez", get(probes::livez))
        .route("/startupz", get(probes::startupz))
        .route("/readyz", get(probes::readyz))
        .route("/primary", get(probes::primary))
        .route("/replica", get(probes::replica))
        .route("/read-only", get(probes::read_only))
        .route("/status", get(probes::status))
        .route("/metrics", get(probes::metrics))
        .route("/member", get(member::member))
        .with_state(api)
}
