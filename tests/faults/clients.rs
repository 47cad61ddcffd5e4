//! Clients that write and read at every member all the time, several at each.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::{
    client,
    history::{History, Read, Server, Write},
    load::Addresses,
};

/// At each member.
const CLIENTS: usize = 3;
/// Between two questions of one client.
const STEP: Duration = Duration::from_millis(20);
/// After this time without an answer another connection is tried as well. An answer that comes later counts.
const SILENCE: Duration = Duration::from_secs(1);
/// How many rows one read looks for.
const LOOKED_FOR: usize = 20;

/// All of them.
pub struct Clients {
    stop: Arc<AtomicBool>,
    history: Arc<Mutex<History>>,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    /// At these addresses, which may grow, and there only at servers of this system identifier. The table is there.
    pub fn start(addresses: Addresses, identity: String) -> Self {
        let (stop, history) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(History::default())));
        let shared = (addresses, stop.clone(), history.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(all(shared.0, &shared.1, shared.2, identity));
            // Whoever still waits for an answer does not get one.
            runtime.shutdown_background();
        });
        Self { stop, history, thread: Some(thread) }
    }

    /// How many writes were confirmed so far.
    pub fn writes(&self) -> usize {
        self.history.lock().expect("no client panics").writes.len()
    }

    /// Stops them; what they have seen.
    pub fn end(mut self) -> History {
        self.stop();
        std::mem::take(&mut self.history.lock().expect("no client panics"))
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no client panics");
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn all(addresses: Addresses, stop: &AtomicBool, history: Arc<Mutex<History>>, identity: String) {
    let mut served = 0;
    let next = Arc::new(AtomicI64::new(1));
    while !stop.load(Ordering::Relaxed) {
        let new: Vec<_> = addresses.lock().expect("nobody panics with it")[served..].to_vec();
        served += new.len();
        for (_, address) in new {
            for _ in 0..CLIENTS {
                let (identity, next, history) = (identity.clone(), next.clone(), history.clone());
                tokio::spawn(One { address, identity, next, history }.run());
            }
        }
        tokio::time::sleep(STEP).await;
    }
}

/// One client of one member.
#[derive(Clone)]
struct One {
    address: Ipv4Addr,
    identity: String,
    next: Arc<AtomicI64>,
    history: Arc<Mutex<History>>,
}

impl One {
    async fn run(self) {
        let mut config = client::config(self.address);
        config.connect_timeout(Duration::from_millis(250));
        loop {
            // The timeout is for the whole: a frozen postmaster's kernel accepts connections.
            if let Ok(Ok((client, connection))) = tokio::time::timeout(SILENCE, config.connect(NoTls)).await {
                tokio::spawn(connection);
                let client = Arc::new(client);
                let theirs = tokio::time::timeout(SILENCE, self.is_of_the_cluster(&client)).await;
                while theirs == Ok(true) {
                    // In a task of its own: an answer that comes late, after a thaw, is an answer.
                    let question = tokio::spawn(self.clone().ask(client.clone()));
                    match tokio::time::timeout(SILENCE, question).await {
                        Ok(Ok(Ok(()))) => tokio::time::sleep(STEP).await,
                        _ => break,
                    }
                }
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// An address may be another cluster's by and by.
    async fn is_of_the_cluster(&self, client: &Client) -> bool {
        let answer = client.simple_query("select system_identifier from pg_control_system()").await;
        answer.is_ok_and(|messages| column(&messages, 0) == Some(&self.identity))
    }

    /// A read of what was confirmed before, then a write; nothing of a standby.
    async fn ask(self, client: Arc<Client>) -> Result<(), tokio_postgres::Error> {
        let state = client.simple_query("select pg_is_in_recovery()").await?;
        if column(&state, 0) != Some("f") {
            return Ok(());
        }
        let ids = self.history.lock().expect("no client panics").some(LOOKED_FOR);
        if !ids.is_empty() {
            let sent = Instant::now();
            let list = ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
            let query = format!("select pg_is_in_recovery(), string_agg(id::text, ',') from load where id in ({list})");
            let answer = client.simple_query(&query).await?;
            let found: Vec<i64> =
                column(&answer, 1).into_iter().flat_map(|l| l.split(',')).flat_map(str::parse).collect();
            if column(&answer, 0) == Some("f") {
                let missing = ids.into_iter().filter(|id| !found.contains(id)).collect();
                let read = Read { address: self.address, sent, answered: Instant::now(), missing };
                self.history.lock().expect("no client panics").read(read);
            }
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        let insert = format!(
            "insert into load (id) values ({id}) returning \
             ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"
        );
        let answer = client.simple_query(&insert).await?;
        if let Some(timeline) = column(&answer, 0).and_then(|t| t.parse().ok()) {
            let server = Server { address: self.address, timeline };
            let write = Write { id, server, sent, confirmed: Instant::now() };
            self.history.lock().expect("no client panics").writes.push(write);
        }
        Ok(())
    }
}

/// A column of the first row.
fn column(messages: &[SimpleQueryMessage], column: usize) -> Option<&str> {
    messages.iter().find_map(|m| match m {
        SimpleQueryMessage::Row(row) => row.get(column),
        _ => None,
    })
}
