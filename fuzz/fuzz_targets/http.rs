//! Any bytes on a connection to the HTTP port. Behind the real routes is a loop that only says how things are.

#![no_main]

use std::{cell::LazyCell, path::Path, time::Duration};

use axum::Router;
use libfuzzer_sys::fuzz_target;
use podgres::{
    cluster::{
        consent,
        fresh::Challenges,
        peer::Line,
        proven::{self, Unanswered},
        vote,
    },
    fuzzing,
    http::Api,
    lifecycle::{Memory, Phase, Role},
    manager::{Event, MemberAsked, Snapshot},
    postgres::sql::Login,
    settings::official::Secret,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::{LocalSet, spawn_local},
};

const PASSWORD: &str = "hush-4711";

/// The one question whose proof is in the corpus: whatever else is taken for a member's is a forgery.
const ASKED: &str =
    r#"{"cluster":"demo","term":7,"candidate":"demo-1","pod":"demo-0","instance":"i","nonce":"0011223344556677"}"#;

/// The challenge that it is proven with, and when it is asked.
const CHALLENGE: &str = "5000.0123456789abcdef.8d355537d7c5487825715e68e3b60501577eab79d00ab64425c9a2938d504ed4";
const NOW: Duration = Duration::from_secs(6);

/// As long as a connection may last, and a moment.
const LONGEST: Duration = Duration::from_secs(61);

thread_local! {
    static WORLD: LazyCell<World> = LazyCell::new(World::new);
}

/// What there is but for the connection.
struct World {
    runtime: Runtime,
    tasks: LocalSet,
    router: Router,
}

impl World {
    fn new() -> Self {
        let (events, inbox) = mpsc::channel(8);
        let tasks = LocalSet::new();
        tasks.spawn_local(answer(inbox));
        let password = Some(Secret::new(PASSWORD));
        let api =
            Api::new(events, Login { user: "postgres".into(), password }, Path::new("/nowhere"), None, Line::default());
        // Time passes when nobody has anything to do.
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        Self { runtime, tasks, router: fuzzing::router(api) }
    }
}

fuzz_target!(|data: &[u8]| {
    WORLD.with(|world| world.tasks.block_on(&world.runtime, talk(data, world.router.clone())));
});

async fn talk(data: &[u8], router: Router) {
    let begun = tokio::time::Instant::now();
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let serving = spawn_local(fuzzing::serve(server, router));
    let mut said = Vec::new();
    let _ = client.write_all(data).await;
    let _ = client.shutdown().await;
    let _ = client.read_to_end(&mut said).await;
    serving.await.expect("the connection's task ends in order");
    assert!(begun.elapsed() <= LONGEST, "the connection lasted {:?}", begun.elapsed());
    check(data, &said);
}

fn check(data: &[u8], said: &[u8]) {
    assert!(said.is_empty() || said.starts_with(b"HTTP/1."), "no answer of HTTP");
    let text = String::from_utf8_lossy(said);
    assert!(!text.contains("HTTP/1.1 500") && !text.contains("HTTP/1.0 500"), "{text}");
    // What is asked may be told.
    assert!(!text.contains(PASSWORD) || String::from_utf8_lossy(data).contains(PASSWORD), "{text}");
    // The shortest request has 16 bytes.
    assert!(said.len() <= (data.len() / 16 + 1) * (16 << 10), "{} bytes are answered with {}", data.len(), said.len());
}

/// The loop.
async fn answer(mut inbox: mpsc::Receiver<Event>) {
    while let Some(event) = inbox.recv().await {
        match event {
            Event::Ask(reply) => drop(reply.send(snapshot())),
            Event::AskTooSmall(reply) => drop(reply.send(Vec::new())),
            Event::Vote(asked) => ask::<vote::Question>(&vote::DOOR, asked),
            Event::Failsafe(asked) => ask::<consent::Question>(&consent::DOOR, asked),
            _ => panic!("something changes without a proof"),
        }
    }
}

fn ask<Q: serde::de::DeserializeOwned>(door: &proven::Door, asked: MemberAsked) {
    let MemberAsked { asked, reply } = asked;
    assert!(asked.body.len() <= 4096);
    let (password, challenges) = (Secret::new(PASSWORD), Challenges::of("i"));
    let fresh = challenges.is_fresh(&password, NOW, &asked.challenge);
    assert_eq!(fresh, asked.challenge == CHALLENGE, "a challenge that nobody gave, or that is not known again");
    let read = proven::read::<Q>(door, &password, &asked);
    if read.is_ok() {
        assert_eq!((&*String::from_utf8_lossy(&asked.body), &*asked.challenge), (ASKED, CHALLENGE), "a forgery");
    }
    let _ = reply.send(match fresh {
        true => read.map(|_| ("{}".into(), "00".into())).map_err(Unanswered::Refused),
        false => Err(Unanswered::Challenged(challenges.give(&password, NOW))),
    });
}

fn snapshot() -> Snapshot {
    let mut memory = Memory::default();
    memory.phase = Phase::Running { role: Role::Standby };
    Snapshot {
        memory,
        now: Duration::from_secs(60),
        postgres: None,
        pgdata: "/nowhere".into(),
        log_lines_dropped: 0,
        config: Default::default(),
        progress: None,
        source: None,
        source_role: None,
        waiting: None,
        account: None,
        cluster: None,
        tls: None,
    }
}
