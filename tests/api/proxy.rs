//! A proxy before the API server that can fail.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::harness::cluster;

/// A TCP proxy before the API server.
pub struct Proxy {
    pub host: String,
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// How new connections fare: `PASS`, `REFUSE` or `SILENT`.
    mode: AtomicUsize,
    /// Connections from before these numbers changed are closed, or forward nothing any more.
    cuts: AtomicU64,
    silences: AtomicU64,
    accepted: AtomicUsize,
}

const PASS: usize = 0;
const REFUSE: usize = 1;
const SILENT: usize = 2;

impl Proxy {
    pub fn new() -> Self {
        let cluster = cluster();
        // An address that the server's certificate has.
        let listener =
            TcpListener::bind((cluster.host.as_str(), 0)).or_else(|_| TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let accepting = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                accepting.accepted.fetch_add(1, SeqCst);
                let client = client.unwrap();
                if accepting.mode.load(SeqCst) != REFUSE
                    && let Ok(server) = TcpStream::connect((cluster.host.as_str(), cluster.port))
                {
                    accepting.connect(client, server);
                }
            }
        });
        Self { host: address.ip().to_string(), port: address.port(), state }
    }

    /// Closes every connection, and each new one.
    pub fn cut(&self) {
        self.state.mode.store(REFUSE, SeqCst);
        self.state.cuts.fetch_add(1, SeqCst);
    }

    /// Forwards nothing any more on the connections that there are; new ones are as before.
    pub fn forget(&self) {
        self.state.silences.fetch_add(1, SeqCst);
    }

    /// Forwards nothing any more.
    pub fn silence(&self) {
        self.state.mode.store(SILENT, SeqCst);
        self.forget();
    }

    /// New connections are forwarded again.
    pub fn restore(&self) {
        self.state.mode.store(PASS, SeqCst);
    }

    /// How many connections there were.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(SeqCst)
    }
}

impl State {
    fn connect(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let deaf = self.mode.load(SeqCst) == SILENT;
        let born = (self.cuts.load(SeqCst), self.silences.load(SeqCst));
        for (from, to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
            let state = self.clone();
            thread::spawn(move || {
                let _ = state.copy(&from, &to, deaf, born);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }

    fn copy(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        deaf: bool,
        (cuts, silences): (u64, u64),
    ) -> std::io::Result<()> {
        from.set_read_timeout(Some(Duration::from_millis(20)))?;
        to.set_nodelay(true)?;
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(e) => return Err(e),
            };
            if self.cuts.load(SeqCst) != cuts {
                return Ok(());
            }
            if !deaf && self.silences.load(SeqCst) == silences {
                to.write_all(&buffer[..read])?;
            }
        }
    }
}
