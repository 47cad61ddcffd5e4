//! Against somebody who speaks as much of PostgreSQL's protocol as this takes
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use nix::unistd::Pid;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
};

use super::*;
use crate::{
    ha::{
        lease::Lease,
        member::{ClusterView, Pod, Status},
    },
    http::status::tests::running,
    manager::Event,
    postgres::{
        pidfile::PidFile,
        sql::{Local, Login},
    },
};

/// A standby that replays `step` bytes between two questions.
#[derive(Default)]
struct Standby {
    at: AtomicU64,
    step: AtomicU64,
    connections: AtomicUsize,
    frozen: AtomicBool,
    /// Sessions end after the next question.
    ends_sessions: AtomicBool,
}

impl Standby {
    async fn listen(self: Arc<Self>, dir: &Path) {
        let listener = UnixListener::bind(dir.join(".s.PGSQL.5432")).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                self.connections.fetch_add(1, SeqCst);
                tokio::spawn(self.clone().serve(stream));
            }
        });
    }

    async fn serve(self: Arc<Self>, mut stream: UnixStream) -> std::io::Result<()> {
        let mut startup = vec![0; usize::try_from(stream.read_u32().await?).unwrap() - 4];
        stream.read_exact(&mut startup).await?;
        stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()).await?;
        while stream.read_u8().await? == b'Q' {
            let mut query = vec![0; usize::try_from(stream.read_u32().await?).unwrap() - 4];
            stream.read_exact(&mut query).await?;
            if self.frozen.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            let step = self.step.load(SeqCst);
            let at = Lsn(self.at.fetch_add(step, SeqCst) + step).to_string();
            let column = [b"\0\x01lsn\0".as_slice(), &[0; 6], &[0, 0, 0, 25], &[255; 2], &[255; 4], &[0; 2]].concat();
            let row = [&[0, 1], u32::try_from(at.len()).unwrap().to_be_bytes().as_slice(), at.as_bytes()].concat();
            let answer =
                [message(b'T', &column), message(b'D', &row), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")];
            stream.write_all(&answer.concat()).await?;
            if self.ends_sessions.load(SeqCst) {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], u32::try_from(body.len() + 4).unwrap().to_be_bytes().as_slice(), body].concat()
}

fn login() -> Login {
    Login { user: "postgres".into(), password: None }
}

/// Handlers over a loop whose answer is always `snapshot`.
fn api(snapshot: Snapshot) -> Api {
    let (events, mut inbox) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(event) = inbox.recv().await {
            if let Event::Ask(reply) = event {
                let _ = reply.send(snapshot.clone());
            }
        }
    });
    Api::new(events, login(), Path::new("/nowhere"), None, Default::default())
}

fn member_of_a_cluster(socket_dir: &Path) -> Snapshot {
    let account = Account {
        pod: "db-1".into(),
        instance: "i".into(),
        copy: Some("c".into()),
        system_id: Some("7".into()),
        began: None,
        lsn: 1,
        primary: false,
        fit: true,
        priority: 1,
        term: 1,
        seen_ms: None,
    };
    let socket_dir = Some(socket_dir.into());
    let postgres = PidFile { pid: Pid::from_raw(42), start_time: 0, port: 5432, socket_dir, status: None };
    Snapshot { account: Some(account), postgres: Some(postgres), ..running(Role::Standby) }
}

async fn started() -> (tempfile::TempDir, Arc<Standby>, Snapshot) {
    let (dir, standby) = (tempfile::tempdir().unwrap(), Arc::new(Standby::default()));
    standby.at.store(0x500_0000, SeqCst);
    standby.clone().listen(dir.path()).await;
    let snapshot = member_of_a_cluster(dir.path());
    (dir, standby, snapshot)
}

fn replayed(lsn: &str, within: &str) -> Asked {
    Asked { replayed: Some(lsn.into()), within: Some(within.into()) }
}

#[tokio::test]
async fn the_position_is_of_this_moment_and_the_session_is_kept() {
    let (_dir, standby, snapshot) = started().await;
    let api = api(snapshot);
    for at in [0x500_0000, 0x600_0000] {
        standby.at.store(at, SeqCst);
        let account = answer(&api, &Asked::default()).await.unwrap();
        assert_eq!((account.lsn, account.fit, &*account.pod), (at, true, "db-1"));
    }
    assert_eq!(standby.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_session_that_ended_is_opened_anew() {
    let (_dir, standby, snapshot) = started().await;
    standby.ends_sessions.store(true, SeqCst);
    let api = api(snapshot);
    for _ in 0..5 {
        assert!(answer(&api, &Asked::default()).await.unwrap().fit);
    }
    assert_eq!(standby.connections.load(SeqCst), 5);
}

#[tokio::test]
async fn a_server_that_does_not_answer_makes_it_unfit_in_time() {
    let (_dir, standby, snapshot) = started().await;
    let api = api(snapshot);
    standby.frozen.store(true, SeqCst);
    let begun = Instant::now();
    let account = answer(&api, &Asked::default()).await.unwrap();
    assert!(begun.elapsed() < 2 * crate::cluster::peer::DEADLINE);
    assert_eq!((account.lsn, account.fit), (1, false));
    standby.frozen.store(false, SeqCst);
    assert!(answer(&api, &Asked::default()).await.unwrap().fit, "thawed");
}

#[tokio::test]
async fn a_server_that_stops_is_not_asked() {
    let (_dir, standby, mut snapshot) = started().await;
    snapshot.memory.phase = Phase::CleaningUp;
    let api = api(snapshot);
    assert!(!answer(&api, &Asked::default()).await.unwrap().fit);
    let (status, _) = answer(&api, &replayed("0/1", "10")).await.unwrap_err();
    assert_eq!((status, standby.connections.load(SeqCst)), (StatusCode::SERVICE_UNAVAILABLE, 0));
}

#[tokio::test]
async fn the_wait_for_a_replay_ends_when_it_is_there_or_the_time_is_over() {
    let (_dir, standby, snapshot) = started().await;
    let api = api(snapshot);
    assert_eq!(
        answer(&api, &replayed("0/5000001", "20")).await.unwrap_err(),
        (StatusCode::SERVICE_UNAVAILABLE, "0/5000000".into())
    );
    standby.step.store(0x10_0000, SeqCst);
    let account = answer(&api, &replayed("0/5500000", "30000")).await.unwrap();
    assert!(account.lsn >= 0x550_0000 && account.lsn < 0x600_0000, "{:x}: it was waited too long", account.lsn);
    for (lsn, within) in [("five", "1"), ("0/5", "soon")] {
        assert_eq!(answer(&api, &replayed(lsn, within)).await.unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn few_wait_at_once() {
    let (_dir, _standby, snapshot) = started().await;
    let api = api(snapshot);
    let _others = api.waits.clone().acquire_many_owned(u32::try_from(WAITS).unwrap()).await.unwrap();
    let (status, _) = answer(&api, &replayed("0/1", "1")).await.unwrap_err();
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer(&api, &Asked::default()).await.is_ok(), "who only asks is answered");
}

#[tokio::test]
async fn a_standalone_server_is_no_member() {
    let api = api(running(Role::Primary));
    for asked in [Asked::default(), replayed("0/1", "1")] {
        assert_eq!(answer(&api, &asked).await.unwrap_err(), standalone());
    }
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_closed() {
    let (dir, standby, _) = started().await;
    let local = Local { socket_dir: dir.path().into(), port: 5432, login: login() };
    let kept = crate::postgres::kept::Kept::new(Duration::from_millis(20));
    let ask = async || kept.row(&local, 42, POSITION, DEADLINE).await.unwrap();
    assert_eq!(ask().await, [Some("0/5000000".into())]);
    let closed = async {
        while kept.is_open().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
    ask().await;
    assert_eq!(standby.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn status_asks_all_members_and_whoever_asks_meanwhile_shares_the_answers() {
    let (_dir, _standby, mut snapshot) = started().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = listener.local_addr().unwrap().to_string();
    let leader = Account { pod: "db-0".into(), primary: true, lsn: 0x500_0010, ..snapshot.account.clone().unwrap() };
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer = async move || {
        count.fetch_add(1, SeqCst);
        Json(leader)
    };
    let router = axum::Router::new().route("/member", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let pod = |name: &str, http: &str| {
        let status = Status { http: http.into(), ..Status::default() };
        (name.to_string(), Pod { name: name.into(), status: Some(status), ..Pod::default() })
    };
    snapshot.cluster = Some(ClusterView {
        pod: "db-1".into(),
        lease: Some(Lease { holder: "db-0".into(), ..Lease::default() }),
        pods: [pod("db-0", &http), pod("db-1", "127.0.0.1:1"), pod("db-2", "")].into(),
        ..ClusterView::default()
    });
    let api = api(snapshot.clone());
    let (status, other) = tokio::join!(api.status(&snapshot), api.status(&snapshot));
    let members = status.cluster.unwrap().members;
    let seen: Vec<_> = members.iter().map(|m| (&*m.name, m.reachable, m.lsn.as_deref(), m.lag_bytes)).collect();
    let expected = [
        ("db-0", true, Some("0/5000010"), None),
        ("db-1", true, Some("0/5000000"), Some(0x10)),
        ("db-2", false, None, None),
    ];
    assert_eq!(seen, expected);
    assert_eq!((other.cluster.unwrap().members, asked.load(SeqCst)), (members, 1));
}
