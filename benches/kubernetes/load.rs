//! One writer for each server, on a connection of its own, and the times at which writes were accepted.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use postgres::{Config, NoTls};

use crate::common::wait_for;

/// Between two writes to one server.
const STEP: Duration = Duration::from_millis(10);

/// How a client connects to a server.
pub fn config(address: Ipv4Addr, port: u16) -> Config {
    let mut config = Config::new();
    config.host(&address.to_string()).port(port).user("postgres").password(crate::client::PASSWORD).dbname("postgres");
    config.connect_timeout(Duration::from_millis(250)).tcp_user_timeout(Duration::from_secs(1));
    // What is refused is not logged: it would load those with a log more than others.
    config.options("-c log_min_messages=fatal");
    config
}

/// A running load. It makes a table `written`.
pub struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<Vec<Instant>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(primary: (Ipv4Addr, u16), servers: &[(Ipv4Addr, u16)]) -> Self {
        let mut client = config(primary.0, primary.1).connect(NoTls).unwrap();
        client.batch_execute("create table if not exists written (t text)").unwrap();
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let writer = |&(address, port): &(Ipv4Addr, u16)| {
            let (config, stop, accepted) = (config(address, port), stop.clone(), accepted.clone());
            std::thread::spawn(move || write(&config, &stop, &accepted))
        };
        let threads = servers.iter().map(writer).collect();
        let load = Self { stop, accepted, threads };
        load.wait_for_write();
        load
    }

    /// Waits until some server has accepted a write that it was asked for from now on.
    pub fn wait_for_write(&self) {
        let from = Instant::now() + STEP;
        wait_for("an accepted write", STEP / 2, || self.last().is_some_and(|last| last > from).then_some(()));
    }

    fn last(&self) -> Option<Instant> {
        self.accepted.lock().unwrap().last().copied()
    }

    /// Seconds: the longest time without an accepted write since then.
    pub fn gap(&self, since: Instant) -> f64 {
        let mut accepted = self.accepted.lock().unwrap().clone();
        accepted.sort();
        let gaps = accepted.windows(2).filter(|pair| pair[1] > since).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default().as_secs_f64()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn write(config: &Config, stop: &AtomicBool, accepted: &Mutex<Vec<Instant>>) {
    let stopped = || stop.load(Ordering::Relaxed);
    while !stopped() {
        if let Ok(mut client) = config.connect(NoTls) {
            while !stopped() {
                match client.batch_execute("insert into written values ('x')") {
                    Ok(()) => accepted.lock().unwrap().push(Instant::now()),
                    // A standby's refusal.
                    Err(e) if e.code() == Some(&postgres::error::SqlState::READ_ONLY_SQL_TRANSACTION) => {}
                    Err(_) => break,
                }
                std::thread::sleep(STEP);
            }
        }
        std::thread::sleep(STEP);
    }
}
