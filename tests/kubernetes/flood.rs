//! Clients of the HTTP port that are of no good will: requests that are none, and connections that are slow on purpose.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

/// What no client of good will sends, the `n`th of it: no two are the same.
pub fn nonsense(n: usize) -> Vec<u8> {
    let post = |path: &str, rest: &str| format!("POST {path} HTTP/1.1\r\nhost: x\r\n{rest}").into_bytes();
    let (door, proof) = (["/vote", "/failsafe"][n % 2], format!("podgres-proof: {n:064x}\r\n"));
    let question = |body: &str| {
        let head = format!("{proof}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        post(door, &head)
    };
    match n % 16 {
        0 => garbage(n, 64 + n % 3000),
        1 => [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), garbage(n, 500)].concat(),
        2 => format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(20_000 + n)).into_bytes(),
        3 => format!("GET /{n} HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)).into_bytes(),
        4 => format!("{} /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", METHODS[n / 16 % METHODS.len()])
            .into(),
        5 => post(door, "content-length: 99999999999999999999\r\n\r\n"),
        6 => post(door, "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        7 => post(door, "transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n"),
        8 => post(door, "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\nffffffffffffffff\r\n"),
        9 => post(door, &format!("{proof}content-length: 16000\r\n\r\n{{\"cluster\"")),
        10 => question(&format!("{{\"cluster\":\"db\",\"term\":{n},\"pod\":\"db-0\",\"nonce\":\"{n}\"}}")),
        11 => question(&"[".repeat(3000)),
        12 => question(&format!("\"\\ud800 {n}")),
        13 => format!(
            "GET /member?replayed={n}/%zz&within=99999999999999999999 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .into(),
        14 => {
            format!("GET /readyz?lag={}&%00=%ff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "9".repeat(n % 5000))
                .into()
        }
        _ => format!("GET /live{}", n % 7).into_bytes(),
    }
}

const METHODS: [&str; 6] = ["DELETE", "PUT", "CONNECT", "TRACE", "PRI", "M\u{0}"];

fn garbage(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u64 | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Some hundred a second are taken also where there is little time for it.
const LONGEST: Duration = Duration::from_secs(240);

/// Sends nonsense in so many requests, over a connection each, from several threads at once; waits for the end of it.
pub fn send_nonsense(address: Ipv4Addr, requests: usize) {
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= requests {
                        return;
                    }
                    assert!(begun.elapsed() < LONGEST, "{n} of {requests} requests were taken within {LONGEST:?}");
                    send(address, &nonsense(n));
                }
            });
        }
    });
}

/// It may be refused, broken off or answered: whoever sends it does not care.
fn send(address: Ipv4Addr, bytes: &[u8]) {
    let to = SocketAddr::from((address, 8008));
    let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(10)) else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
    let _ = stream.write_all(bytes);
    let _ = stream.read(&mut [0; 512]);
}

/// Slow clients, until it is dropped.
pub struct Slow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// How many connections they have made.
    pub made: Arc<AtomicUsize>,
}

/// Between two bytes of a client that trickles.
const DRIP: Duration = Duration::from_millis(250);
/// Before whoever was thrown out comes back.
const BACK: Duration = Duration::from_secs(1);

impl Slow {
    /// So many at a time: a third each trickles a head, trickles a question, and does not read what it asks for.
    pub fn start(address: Ipv4Addr, clients: usize) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, count) = (stop.clone(), made.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                for n in 0..clients {
                    tokio::spawn(be_slow(address, n, count.clone()));
                }
                while !over.load(Ordering::Relaxed) {
                    tokio::time::sleep(DRIP).await;
                }
            });
            runtime.shutdown_background();
        });
        Self { stop, thread: Some(thread), made }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Comes back for ever.
async fn be_slow(address: Ipv4Addr, n: usize, made: Arc<AtomicUsize>) {
    loop {
        made.fetch_add(1, Ordering::Relaxed);
        let _ = stay(address, n).await;
        tokio::time::sleep(BACK).await;
    }
}

/// As long as the server lets it.
async fn stay(address: Ipv4Addr, n: usize) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(2048)?;
    let mut stream = socket.connect(SocketAddr::from((address, 8008))).await?;
    if n % 3 == 2 {
        let path = ["/metrics", "/status"][n / 3 % 2];
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(3).as_bytes()).await?;
        loop {
            // It notices that it was thrown out, and takes nothing of what it is sent.
            tokio::time::sleep(DRIP).await;
            stream.write_all(b"G").await?;
        }
    }
    let begins =
        ["GET /livez HTTP/1.1\r\nx-", "POST /vote HTTP/1.1\r\npodgres-proof: 00\r\ncontent-length: 4000\r\n\r\n"];
    stream.write_all(begins[n % 3].as_bytes()).await?;
    loop {
        let mut answer = [0; 64];
        match tokio::time::timeout(DRIP, stream.read(&mut answer)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(read) => drop(read?),
            Err(_) => stream.write_all(b"a").await?,
        }
    }
}
