//! Connections within limits. Whoever can reach the port must not be able to use up the manager's memory, or to keep a
//! probe from being answered: a request has to arrive soon and be small, a connection ends some time, and of too many the
//! oldest gives way that has not said all that it wants, or does not read its answer. Those are clients that are slow on
//! purpose: a probe says all in one packet, and is answered within milliseconds.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    convert::Infallible,
    io,
    rc::Rc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::{AbortHandle, spawn_local, yield_now},
    time::timeout,
};
use tower::ServiceExt;

use crate::tls::{self, Certificates};

/// So many connections at a time. Each has a buffer of a few kilobytes.
const MOST: usize = 64;
/// The head of a request, and before it what TLS has to say, arrives within this time, counted from the connection's beginning or the last answer, and its body
/// within the same again. Clients that keep connections open longer make new ones.
const HEAD: Duration = Duration::from_secs(5);
/// The head of a request is at most this long, as with most servers.
const HEAD_BYTES: usize = 8 * 1024;
/// Nobody sends more to a member than this.
const BODY_BYTES: usize = 16 * 1024;
/// A connection may go on for so long, longer than any command: the slowest reader of an answer.
const CONNECTION: Duration = Duration::from_secs(120);
/// After an error of `accept`, such as too many open files, which goes away when others end.
const PAUSE: Duration = Duration::from_millis(100);

/// What a port answers.
#[derive(Clone)]
pub(super) struct Answers {
    /// To whom comes by TLS, if there are certificates, and else to everybody.
    pub(super) all: Router,
    /// TLS, and what is answered to whom comes without.
    pub(super) tls: Option<(Certificates, Router)>,
}

/// While a whole request of a connection is being answered.
pub(crate) type Asks = Rc<Cell<bool>>;

/// Serves every connection that `accept` gives, for ever, by `answer`.
pub(super) async fn serve<S, F: Future<Output = ()> + 'static>(
    accept: impl AsyncFn() -> io::Result<S>,
    answer: impl Fn(S, Asks) -> F,
) {
    let connections = Connections::default();
    loop {
        match accept().await {
            Ok(stream) => {
                let asks = Asks::default();
                connections.add(asks.clone(), answer(stream, asks));
                // What it has said already is read before it counts among those that say nothing.
                yield_now().await;
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// [`answer`], over TLS where there are certificates. What went wrong was the client's doing, and it knows.
pub(super) async fn answer_by_tls(stream: TcpStream, answers: Answers, asks: Asks) {
    let Answers { all, tls } = answers;
    let Some((certificates, without)) = tls else { return answer(stream, all, asks).await };
    let begun = async {
        match tls::is_hello(&stream).await {
            Ok(true) => tls::accept(&certificates, stream).await.ok().map(Ok),
            Ok(false) => Some(Err(stream)),
            Err(_) => None,
        }
    };
    match timeout(HEAD, begun).await {
        Ok(Some(Ok(stream))) => answer(stream, all, asks).await,
        Ok(Some(Err(stream))) => answer(stream, without, asks).await,
        Ok(None) | Err(_) => {}
    }
}

/// Answers one connection.
pub(crate) async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: Router, asks: Asks) {
    let service = service_fn(async |request: Request<Incoming>| {
        let request = match whole(request).await {
            Ok(request) => request,
            Err(status) => return Ok::<_, Infallible>(status.into_response()),
        };
        asks.set(true);
        let answer: Result<Response, Infallible> = router.clone().oneshot(request).await;
        asks.set(false);
        answer
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    // What went wrong was the client's doing, and it knows.
    let _ = timeout(CONNECTION, connection).await;
}

/// The request with its body, which has to be short and to arrive.
async fn whole(request: Request<Incoming>) -> Result<Request<Body>, StatusCode> {
    let (head, body) = request.into_parts();
    match timeout(HEAD, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, Body::from(body.to_bytes()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// Those that are open, the oldest first.
#[derive(Clone, Default)]
struct Connections(Rc<RefCell<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    tasks: BTreeMap<u64, (Asks, AbortHandle)>,
}

impl Connections {
    fn add(&self, asks: Asks, connection: impl Future<Output = ()> + 'static) {
        let mut open = self.0.borrow_mut();
        let number = open.next;
        open.next += 1;
        if open.tasks.len() >= MOST {
            let idle = open.tasks.iter().find(|(_, (asks, _))| !asks.get()).map(|(number, _)| *number);
            let oldest = idle.or_else(|| open.tasks.keys().next().copied());
            if let Some((_, task)) = oldest.and_then(|number| open.tasks.remove(&number)) {
                task.abort();
            }
        }
        let all = self.clone();
        let task = spawn_local(async move {
            connection.await;
            all.0.borrow_mut().tasks.remove(&number);
        });
        open.tasks.insert(number, (asks, task.abort_handle()));
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::Notify,
        task::LocalSet,
    };

    use super::*;

    async fn with_server<T>(test: impl AsyncFnOnce(std::net::SocketAddr) -> T) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/livez", get(async || "ok"))
            .route("/waits", get(async || SLOW.notified().await))
            .route("/vote", post(async |body: axum::body::Bytes| body.len().to_string()));
        let all = LocalSet::new();
        let answered = move |stream: TcpStream, asks| answer(stream, router.clone(), asks);
        all.spawn_local(serve(async move || Ok(listener.accept().await?.0), answered));
        all.run_until(test(address)).await
    }

    /// What a probe waits for that takes longer than the others.
    static SLOW: Notify = Notify::const_new();

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

    #[tokio::test]
    async fn a_probe_that_is_being_answered_does_not_give_way() {
        with_server(async |address| {
            let mut probe = TcpStream::connect(address).await.unwrap();
            probe.write_all(b"GET /waits HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut slow = Vec::new();
            for _ in 0..2 * MOST {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"POST /vote HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx").await.unwrap();
                slow.push(stream);
            }
            // The first of them was closed, so all were seen.
            let mut answer = Vec::new();
            let _ = slow[0].read_to_end(&mut answer).await;
            SLOW.notify_one();
            let answered = timeout(Duration::from_secs(10), probe.read_to_end(&mut answer)).await.unwrap();
            assert!(answered.is_ok() && answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_ends_the_question() {
        with_server(async |address| {
            let begun = tokio::time::Instant::now();
            let head = b"POST /vote HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\nx";
            let answer = ask(address, head).await;
            assert!(
                answer.starts_with("HTTP/1.1 408") && begun.elapsed() <= HEAD * 2,
                "{answer} {:?}",
                begun.elapsed()
            );
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
