//! Connections within limits. Whoever can reach the port must not be able to use up the manager's memory, or to keep a
//! probe from being answered: a request has to arrive soon and be small, a connection ends some time, and of too many the
//! oldest gives way. A probe is answered within milliseconds, so the oldest are those of clients that are slow on purpose.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use axum::{Router, body::Body, extract::DefaultBodyLimit};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, spawn_local},
};
use tower::ServiceExt;

use crate::tls::{self, Certificates};

/// So many connections at a time. Each has a buffer of a few kilobytes.
const MOST: usize = 64;
/// The head of a request, and before it what TLS has to say, arrives within this time, counted from the connection's beginning or the last answer. Clients that
/// keep connections open longer make new ones.
const HEAD: Duration = Duration::from_secs(5);
/// The head of a request is at most this long, as with most servers.
const HEAD_BYTES: usize = 8 * 1024;
/// Nobody sends more to a member than this.
const BODY_BYTES: usize = 16 * 1024;
/// A connection may go on for so long: the slowest body, and the slowest reader of an answer.
const CONNECTION: Duration = Duration::from_secs(60);
/// After an error of `accept`, such as too many open files, which goes away when others end.
const PAUSE: Duration = Duration::from_millis(100);

/// What a port answers.
#[derive(Clone)]
pub(super) struct Answers {
    /// To whom comes by TLS, if there are certificates, and else to everybody.
    all: Router,
    /// TLS, and what is answered to whom comes without.
    tls: Option<(Certificates, Router)>,
}

impl Answers {
    pub(super) fn plain(all: Router) -> Self {
        Self { all: all.layer(DefaultBodyLimit::max(BODY_BYTES)), tls: None }
    }

    pub(super) fn tls(all: Router, certificates: Certificates, without: Router) -> Self {
        let without = without.layer(DefaultBodyLimit::max(BODY_BYTES));
        Self { tls: Some((certificates, without)), ..Self::plain(all) }
    }
}

/// Serves every connection of `listener`, for ever.
pub(super) async fn serve(listener: TcpListener, answers: Answers) {
    let connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.add(connection(stream, answers.clone())),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What went wrong was the client's doing, and it knows.
async fn connection(stream: TcpStream, answers: Answers) {
    let Answers { all, tls } = answers;
    let Some((certificates, without)) = tls else { return answer(stream, all).await };
    let begun = async {
        match tls::is_hello(&stream).await {
            Ok(true) => tls::accept(&certificates, stream).await.ok().map(Ok),
            Ok(false) => Some(Err(stream)),
            Err(_) => None,
        }
    };
    match tokio::time::timeout(HEAD, begun).await {
        Ok(Some(Ok(stream))) => answer(stream, all).await,
        Ok(Some(Err(stream))) => answer(stream, without).await,
        Ok(None) | Err(_) => {}
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: Router) {
    let service = router.map_request(|request: hyper::Request<hyper::body::Incoming>| request.map(Body::new));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let _ = tokio::time::timeout(CONNECTION, connection).await;
}

/// Those that are open, the oldest first.
#[derive(Clone, Default)]
struct Connections(Rc<RefCell<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    tasks: BTreeMap<u64, AbortHandle>,
}

impl Connections {
    fn add(&self, connection: impl Future<Output = ()> + 'static) {
        let mut open = self.0.borrow_mut();
        let number = open.next;
        open.next += 1;
        if open.tasks.len() >= MOST
            && let Some((_, oldest)) = open.tasks.pop_first()
        {
            oldest.abort();
        }
        let all = self.clone();
        let task = spawn_local(async move {
            connection.await;
            all.0.borrow_mut().tasks.remove(&number);
        });
        open.tasks.insert(number, task.abort_handle());
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        task::LocalSet,
    };

    use super::*;

    async fn with_server<T>(test: impl AsyncFnOnce(std::net::SocketAddr) -> T) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/livez", get(async || "ok"))
            .route("/vote", post(async |body: axum::body::Bytes| body.len().to_string()));
        let all = LocalSet::new();
        all.spawn_local(serve(listener, Answers::plain(router)));
        all.run_until(test(address)).await
    }

    async fn ask(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    const PROBE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn slow_clients_give_way_to_a_probe() {
        with_server(async |address| {
            let mut slow = Vec::new();
            for _ in 0..2 * MOST {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET /livez HTTP/1.1\r\nx-").await.unwrap();
                slow.push(stream);
            }
            assert!(ask(address, PROBE).await.ends_with("ok"));
            // The first of them was closed for it, the last was not.
            let mut rest = Vec::new();
            let first = tokio::time::timeout(Duration::from_secs(2), slow[0].read_to_end(&mut rest)).await;
            assert!(first.is_ok());
            let last = slow.last_mut().unwrap();
            last.write_all(b"a: b\r\nconnection: close\r\n\r\n").await.unwrap();
            last.read_to_end(&mut rest).await.unwrap();
            assert!(String::from_utf8_lossy(&rest).ends_with("ok"));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_arrive_ends_the_connection() {
        with_server(async |address| {
            let begun = tokio::time::Instant::now();
            let answer = ask(address, b"GET /livez HTTP/1.1\r\nhost: x\r\n").await;
            assert!(!answer.contains("ok") && begun.elapsed() <= HEAD * 2, "{answer} after {:?}", begun.elapsed());
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_too_long_or_no_request_is_refused() {
        with_server(async |address| {
            let long = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES));
            assert!(ask(address, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
            let body = "x".repeat(BODY_BYTES + 1);
            let head = format!(
                "POST /vote HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            assert!(ask(address, (head + &body).as_bytes()).await.starts_with("HTTP/1.1 413"));
            assert!(ask(address, b"\x16\x03\x01 what is this\r\n\r\n").await.starts_with("HTTP/1.1 400"));
            assert!(ask(address, PROBE).await.ends_with("ok"));
        })
        .await;
    }
}
