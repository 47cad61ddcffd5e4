//! A load that asks every member all the time whether it accepts writes, and what became of every write that one did
//! accept.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::{client, cluster::Cluster, member::Member};

/// Every address that is to be asked, with the member's name. May grow.
pub type Addresses = Arc<Mutex<Vec<(String, Ipv4Addr)>>>;

/// Between two questions to one member.
const STEP: Duration = Duration::from_millis(20);

/// After this time without an answer another connection is tried as well.
const SILENCE: Duration = Duration::from_secs(1);

/// A write that was confirmed.
#[derive(Clone, Debug)]
pub struct Write {
    pub id: i64,
    /// `NAME at ADDRESS`.
    pub member: String,
    pub timeline: u32,
    /// When the member executed it, in seconds, by the clock that all containers of this machine share.
    pub executed: f64,
    pub confirmed: Instant,
}

/// A running load.
pub struct Load {
    addresses: Addresses,
    begun: Instant,
    stop: Arc<AtomicBool>,
    writes: Arc<Mutex<Vec<Write>>>,
    thread: Option<JoinHandle<()>>,
}

/// What a load has found.
pub struct Outcome {
    /// The longest time between two confirmations.
    pub gap: Duration,
    /// Confirmed, and not on the final primary.
    pub lost: Vec<Write>,
    pub writes: Vec<Write>,
}

impl Load {
    /// Makes the table and begins. Members that the cluster gets later are asked too.
    pub fn start(cluster: &Cluster, primary: &Member<'_>) -> Self {
        primary.query("create table load (id bigint primary key)");
        let load = Self::of(cluster.addresses.clone(), Some(primary.system_identifier()));
        cluster.wait("the first write of the load", || (!load.writes().is_empty()).then_some(()));
        load
    }

    /// Of servers that have the table, and are of this system identifier: an address may be another cluster's by and by.
    pub fn of(addresses: Addresses, identity: Option<String>) -> Self {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let asking = (addresses.clone(), stop.clone(), writes.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(ask_all(asking.0, &asking.1, asking.2, identity));
            // Whoever still waits for an answer does not get one.
            runtime.shutdown_background();
        });
        Self { addresses, begun: Instant::now(), stop, writes, thread: Some(thread) }
    }

    /// What was confirmed so far.
    pub fn writes(&self) -> Vec<Write> {
        self.writes.lock().expect("no writer panics").clone()
    }

    /// Waits for a write that this member confirms from now on.
    pub fn wait_for(&self, cluster: &Cluster, member: &Member<'_>) {
        let (from, who) = (self.writes().len(), key(&member.name, member.address()));
        cluster.wait(&format!("a write that {} accepts", member.name), || {
            self.writes()[from..].iter().any(|w| w.member == who).then_some(())
        });
    }

    /// Ends it after one more write on the final primary. Never did two members accept writes at the same time.
    pub fn finish(self, cluster: &Cluster, primary: &Member<'_>) -> Outcome {
        self.finish_apart_from(cluster, primary, Duration::ZERO)
    }

    /// [`Load::finish`] where two members may have accepted writes for so long: after the thaw of a container that was
    /// frozen with all that is in it.
    pub fn finish_apart_from(mut self, cluster: &Cluster, primary: &Member<'_>, both: Duration) -> Outcome {
        self.wait_for(cluster, primary);
        self.end();
        let writes = self.writes();
        if let Some(double) = double(&writes, both) {
            panic!("two members accepted writes at the same time: {double}\n{}", cluster.report());
        }
        let there: HashSet<i64> =
            primary.query("select id from load").lines().map(|id| id.parse().expect("a number")).collect();
        let lost = writes.iter().filter(|w| !there.contains(&w.id)).cloned().collect();
        Outcome { gap: longest_gap(self.begun, &writes), lost, writes }
    }

    /// Stops asking.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the load does not panic");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Outcome {
    /// Every confirmed row is on the final primary.
    pub fn nothing_lost(&self) -> &Self {
        let lost: Vec<_> = self.lost.iter().map(|w| (w.id, &w.member)).collect();
        assert!(lost.is_empty(), "{} of {} confirmed rows are lost: {lost:?}", lost.len(), self.writes.len());
        self
    }

    /// Of what an asynchronous primary confirmed, only the last so much may be lost.
    pub fn lost_at_most(&self, tail: Duration) -> &Self {
        for write in &self.lost {
            let same = self.writes.iter().filter(|w| w.member == write.member && w.timeline == write.timeline);
            let last = same.map(|w| w.executed).fold(0.0, f64::max);
            let before = last - write.executed;
            assert!(
                before <= tail.as_secs_f64(),
                "a row that was confirmed {before} s before the last one is lost: {write:?}"
            );
        }
        self
    }

    /// Writes were accepted again within this time.
    pub fn gap_at_most(&self, limit: Duration) -> &Self {
        eprintln!("longest time without an accepted write: {:?}, allowed {limit:?}", self.gap);
        assert!(self.gap <= limit, "no write was accepted for {:?}, allowed are {limit:?}", self.gap);
        self
    }
}

fn key(member: &str, address: Ipv4Addr) -> String {
    format!("{member} at {address}")
}

/// The longest time without a confirmation.
pub fn longest_gap(begun: Instant, writes: &[Write]) -> Duration {
    let mut times: Vec<_> = writes.iter().map(|w| w.confirmed).collect();
    times.sort();
    let before = std::iter::once(begun).chain(times.iter().copied());
    before.zip(&times).map(|(a, b)| b.duration_since(a)).max().unwrap_or_default()
}

/// Two members that accepted writes at the same time, in words. A promotion begins a timeline, so the writes of one member
/// on one timeline are a reign, and the first write of another one ends it. `allowed`: a former primary may have gone on
/// for so long.
pub fn double(writes: &[Write], allowed: Duration) -> Option<String> {
    let mut reigns: BTreeMap<(&str, u32), Vec<f64>> = BTreeMap::new();
    for write in writes {
        // A pod may have the address of a former one, whose client then writes to it too: one server all the same.
        let server = write.member.split_once(" at ").map_or(write.member.as_str(), |(_, address)| address);
        reigns.entry((server, write.timeline)).or_default().push(write.executed);
    }
    let mut reigns: Vec<_> = reigns.into_iter().collect();
    reigns.iter_mut().for_each(|(_, times)| times.sort_by(f64::total_cmp));
    reigns.sort_by(|a, b| a.1[0].total_cmp(&b.1[0]));
    for (i, (later, times)) in reigns.iter().enumerate() {
        for (former, before) in &reigns[..i] {
            let after: Vec<f64> = before.iter().copied().filter(|t| *t >= times[0]).collect();
            if let (Some(first), Some(last)) = (after.first(), after.last())
                && (allowed.is_zero() || last - first > allowed.as_secs_f64())
            {
                return Some(format!(
                    "{former:?} accepted {} writes after the first of {later:?}, from {:.3} s to {:.3} s after it",
                    after.len(),
                    first - times[0],
                    last - times[0]
                ));
            }
        }
    }
    None
}

/// Asks every address, in tasks of their own, until it is told to stop.
async fn ask_all(addresses: Addresses, stop: &AtomicBool, writes: Arc<Mutex<Vec<Write>>>, identity: Option<String>) {
    let mut asked = 0;
    let next = Arc::new(AtomicI64::new(1));
    while !stop.load(Ordering::Relaxed) {
        let new: Vec<_> = addresses.lock().expect("nobody panics with it")[asked..].to_vec();
        asked += new.len();
        for (member, address) in new {
            let identity = identity.clone();
            tokio::spawn(ask(Asked {
                identity,
                member: key(&member, address),
                address,
                next: next.clone(),
                writes: writes.clone(),
            }));
        }
        tokio::time::sleep(STEP).await;
    }
}

/// One member, as its task sees it.
#[derive(Clone)]
struct Asked {
    member: String,
    address: Ipv4Addr,
    identity: Option<String>,
    next: Arc<AtomicI64>,
    writes: Arc<Mutex<Vec<Write>>>,
}

/// Asks one member for ever, over one connection while that answers.
async fn ask(asked: Asked) {
    let mut config = client::config(asked.address);
    config.connect_timeout(Duration::from_millis(250));
    loop {
        // The timeout is for the whole: a frozen postmaster's kernel accepts connections.
        if let Ok(Ok((client, connection))) = tokio::time::timeout(SILENCE, config.connect(NoTls)).await {
            tokio::spawn(connection);
            let client = Arc::new(client);
            let is_asked = tokio::time::timeout(SILENCE, is_of(&client, asked.identity.as_deref())).await;
            while is_asked == Ok(true) {
                // In a task of its own: an answer that comes late, after a thaw, is an answer.
                let question = tokio::spawn(write(client.clone(), asked.clone()));
                match tokio::time::timeout(SILENCE, question).await {
                    Ok(Ok(Ok(()))) => tokio::time::sleep(STEP).await,
                    _ => break,
                }
            }
        }
        tokio::time::sleep(STEP).await;
    }
}

/// A column of the first row.
fn first(messages: &[SimpleQueryMessage], column: usize) -> Option<String> {
    messages.iter().find_map(|m| match m {
        SimpleQueryMessage::Row(row) => row.get(column).map(str::to_string),
        _ => None,
    })
}

/// Whether a server has this system identifier.
async fn is_of(client: &Client, identity: Option<&str>) -> bool {
    let Some(identity) = identity else { return true };
    let answer = client.simple_query("select system_identifier from pg_control_system()").await;
    answer.is_ok_and(|messages| first(&messages, 0).as_deref() == Some(identity))
}

/// One row, if the member is not in recovery.
async fn write(client: Arc<Client>, asked: Asked) -> Result<(), tokio_postgres::Error> {
    if first(&client.simple_query("select pg_is_in_recovery()").await?, 0).as_deref() != Some("f") {
        return Ok(());
    }
    let id = asked.next.fetch_add(1, Ordering::Relaxed);
    let insert = format!(
        "insert into load (id) values ({id}) returning extract(epoch from clock_timestamp()), \
         ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"
    );
    let answer = client.simple_query(&insert).await?;
    let parsed = (first(&answer, 0).and_then(|t| t.parse().ok()), first(&answer, 1).and_then(|t| t.parse().ok()));
    if let (Some(executed), Some(timeline)) = parsed {
        let write = Write { id, member: asked.member, timeline, executed, confirmed: Instant::now() };
        asked.writes.lock().expect("nobody panics with it").push(write);
    }
    Ok(())
}
