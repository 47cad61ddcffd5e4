//! What other members say: answers over HTTP, questions with their proof, and the notes that are kept of them.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use podgres::{
    cluster::{
        consent,
        notes::Notes,
        proof,
        proven::{self, Asked},
        vote,
    },
    fuzzing,
    ha::votes::Vote,
    settings::official::Secret,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
    task::LocalSet,
};

const PASSWORD: &str = "hush-4711";
const NONCE: &str = "0011223344556677";

/// The one answer whose proof is in the corpus.
const VOTED: &str = r#"{"pod":"demo-0","copy":"0a1b2c3d","term":7,"began":{"term":5,"timeline":3},"lsn":50331744}"#;

/// What is said of an answer goes into the log and the status.
const LONGEST: usize = 1024;

thread_local! {
    static RUNTIME: LazyCell<Runtime> = LazyCell::new(|| {
        Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
    });
}

fuzz_target!(|data: &[u8]| {
    let Some((what, data)) = data.split_first() else { return };
    match what % 4 {
        0 => RUNTIME.with(|runtime| LocalSet::new().block_on(runtime, answered(data))),
        1 => asked::<vote::Question>(&vote::DOOR, data),
        2 => asked::<consent::Question>(&consent::DOOR, data),
        _ => noted(data),
    }
});

async fn answered(data: &[u8]) {
    let (client, mut server) = tokio::io::duplex(256 << 10);
    let talk = async {
        // An answer to nothing is none.
        let _ = server.read(&mut [0; 4096]).await;
        let _ = server.write_all(data).await;
        let _ = server.shutdown().await;
        // It stays until the answer is understood.
        server
    };
    let (answer, _server) = tokio::join!(fuzzing::answer(client), talk);
    match answer {
        Err(error) => fit_to_show(&error.to_string()),
        Ok((status, headers, body)) => {
            match fuzzing::account("demo-0", status, &body) {
                Ok(account) => {
                    assert_eq!(account.pod, "demo-0", "a stranger");
                    same(&account);
                }
                Err(error) => fit_to_show(&error.to_string()),
            }
            let password = Secret::new(PASSWORD);
            match fuzzing::proven::<Vote>(&vote::DOOR, &password, NONCE, (status, &headers, &body)) {
                Ok(_) => assert_eq!(String::from_utf8_lossy(&body), VOTED, "a forgery"),
                Err(why) => fit_to_show(&why),
            }
        }
    }
}

/// A question of somebody who knows the password.
fn asked<Q: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(door: &proven::Door, body: &[u8]) {
    let password = Secret::new(PASSWORD);
    let right = proof::of(&password, door.asked, &[b"c\n", body].concat());
    let read = |challenge: &str, proof: &str| {
        let asked = Asked { body: body.to_vec(), challenge: challenge.into(), proof: proof.into() };
        proven::read::<Q>(door, &password, &asked)
    };
    match read("c", &right) {
        Ok(question) => same(&question),
        Err(why) => fit_to_show(&why),
    }
    let wrong = format!("{}{}", &right[1..], &right[..1]);
    assert!(wrong == right || read("c", &wrong).is_err());
    assert!(read("d", &right).is_err() && read("", &right).is_err());
    assert!(read("c", &String::from_utf8_lossy(body)).is_err());
}

fn noted(data: &[u8]) {
    if let Ok(notes) = serde_json::from_slice::<Notes>(data) {
        assert_eq!(notes.is_frozen(), notes.promised > notes.leader_term);
        same(&notes);
    }
}

/// What is written is read as it was.
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("it can be written");
    assert_eq!(&serde_json::from_str::<T>(&text).expect("it can be read"), value);
}

/// Short, and nothing that a terminal would obey.
fn fit_to_show(text: &str) {
    assert!(text.len() <= LONGEST, "{} bytes: {}…", text.len(), text.chars().take(200).collect::<String>());
    assert!(!text.contains(char::is_control), "{text:?}");
}
