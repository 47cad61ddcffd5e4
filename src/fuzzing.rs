//! What reads foreign input, for the fuzz targets in `fuzz/`, which are a crate of their own and see nothing else that is
//! not public. Nothing here decides anything.

use std::{collections::BTreeSet, sync::Arc};

use axum::Router;
use hyper::{HeaderMap, Request, StatusCode, body::Bytes};
use kube::api::WatchEvent;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    cluster::{
        kubernetes::{
            convert,
            objects::{LeaseObject, PodObject},
        },
        peer,
        proven::{self, Door},
    },
    ha::{lease::Lease, member::Account, member::Pod},
    http,
    logs::{Format, Kind, batch::Lines, tail::file::Decoder},
    metrics::{custom, family, rows::Rows},
    postgres::{
        config::{files::Rules, hba, standby},
        controldata::{ControlData, State},
        pidfile::PidFile,
    },
    settings::official::Secret,
};

/// What is made of a log that comes in `pieces`: of no kind, text.
pub fn logged<'a>(kind: Option<Kind>, format: Format, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut all = Collected { format, lines: Vec::new() };
    let mut decoder = kind.map_or_else(Decoder::text, Decoder::structured);
    pieces.into_iter().for_each(|piece| decoder.feed(piece, &mut all));
    decoder.finish(&mut all);
    all.lines
}

/// The longest line that is kept whole.
pub const MAX_LINE: usize = crate::logs::MAX_LINE;

struct Collected {
    format: Format,
    lines: Vec<Vec<u8>>,
}

impl Lines for Collected {
    fn add(&mut self, write: impl FnOnce(Format, &mut Vec<u8>)) {
        let mut line = Vec::new();
        write(self.format, &mut line);
        self.lines.push(line);
    }
}

/// What is reached over the network.
pub fn router(api: http::Api) -> Router {
    http::open(api)
}

/// Serves one connection.
pub async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: Router) {
    http::serve::answer(stream, router, http::serve::Asks::default()).await;
}

/// Where nobody is asked.
const NOWHERE: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8008);

/// The answer of whoever is behind `stream`.
///
/// # Errors
/// There is none.
pub async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(StatusCode, HeaderMap, Bytes), peer::Error> {
    peer::exchange(NOWHERE, stream, Request::get("/member"), Bytes::new()).await
}

/// What is made of an answer where the pod `pod` should be.
///
/// # Errors
/// Why it is not used.
pub fn account(pod: &str, status: StatusCode, body: &[u8]) -> Result<Account, peer::Error> {
    peer::understood(pod, NOWHERE, status, body)
}

/// What is made of an answer to a question with this nonce.
///
/// # Errors
/// Why it is not used.
pub fn proven<A: serde::de::DeserializeOwned>(
    door: &Door,
    password: &Secret,
    nonce: &str,
    (status, headers, body): (StatusCode, &HeaderMap, &[u8]),
) -> Result<A, String> {
    proven::understood(door, password, nonce, status, headers, body)
}

/// A Lease as the API has it. None: it is no Lease at all.
pub fn lease(json: &[u8]) -> Option<Result<Lease, Box<convert::Nonsense>>> {
    serde_json::from_slice::<LeaseObject>(json).ok().map(|object| convert::lease(&object))
}

/// A Lease as it is written where there is none, and over another one.
///
/// # Errors
/// It cannot be written down.
pub fn written(lease: &Lease) -> serde_json::Result<[Value; 2]> {
    Ok([convert::lease_anew("c", lease, &lease.renewed)?, convert::lease_patch(&lease.version, lease, &lease.renewed)?])
}

/// A pod as the API has it. None: it is no pod at all.
pub fn pod(json: &[u8]) -> Option<Pod> {
    serde_json::from_slice::<PodObject>(json).ok().map(|object| convert::pod(&object))
}

/// A line of a watch: what was put into force, or nothing.
pub fn watched(line: &[u8]) -> Option<(Option<Result<Lease, Box<convert::Nonsense>>>, Option<Pod>)> {
    let lease = match serde_json::from_slice(line).ok()? {
        WatchEvent::<LeaseObject>::Added(o) | WatchEvent::Modified(o) => Some(convert::lease(&o)),
        _ => None,
    };
    let pod = match serde_json::from_slice(line).ok()? {
        WatchEvent::<PodObject>::Added(o) | WatchEvent::Modified(o) => Some(convert::pod(&o)),
        _ => None,
    };
    Some((lease, pod))
}

/// What `pg_controldata` says.
pub fn control_data(text: &str) -> Option<ControlData> {
    ControlData::parse(text)
}

/// The settings in what `pg_controldata` says.
pub fn demands(text: &str) -> Vec<(&'static str, i64)> {
    standby::parse(text)
}

/// The beginning of `pg_control`.
pub fn state(head: [u8; 20]) -> Option<State> {
    State::parse(head)
}

/// `postmaster.pid`.
pub fn pid_file(text: &str) -> Option<PidFile> {
    PidFile::parse(text)
}

/// `pg_hba.conf` for the role `user`, with the user's rules below: podgres' own rules, and the whole.
pub fn hba(user: &str, path: &str, text: &str) -> (String, String) {
    let own = hba::own_rules(Some(user), hba::Tls::default());
    let all = hba::generate(&own, &Rules { path: path.into(), text: text.into(), base: false });
    (own, all)
}

/// The metrics that a file of queries makes of one answer to each.
///
/// # Errors
/// What is wrong with the file or the answer.
pub fn metrics(yaml: &str, columns: &[String], rows: &[Vec<Option<String>>]) -> Result<String, String> {
    let rows = Rows { columns: columns.to_vec(), rows: rows.to_vec() };
    let (mut taken, mut groups) = (BTreeSet::new(), Vec::new());
    for (name, query) in custom::file::parse(yaml)? {
        let families = custom::convert::families(&name, &query, &rows)?.into_values().collect();
        groups.push(Arc::new(custom::unclaimed(families, &mut taken)?));
    }
    Ok(family::encode(groups))
}
