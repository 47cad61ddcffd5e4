//! Members ask each other over HTTP (`GET /member`). An answer binds nobody, and none means that nothing is known, not
//! that the other one is down.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{HeaderMap, Request, StatusCode, body::Bytes, client::conn::http1, http::request};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use crate::{
    ha::member::Account,
    postgres::replication::lsn::{Lsn, Timeline},
    tls::{self, Certificates, Dialled},
    units,
};

/// How long a member may take to answer the others.
pub const DEADLINE: Duration = Duration::from_millis(500);

/// Longer answers are no accounts.
const LONGEST: usize = 64 << 10;

/// How much later than it was told to a member may give up: the way there and back.
const ON_THE_WAY: Duration = Duration::from_millis(200);

/// Why a member's account is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Addresses are literal: nobody waits for DNS when it counts.
    #[error("{:?} is no address such as 10.0.0.7:8008", units::beginning(.0))]
    NotAnAddress(String),
    /// Nobody listens there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It took longer than it may.
    #[error("{address} did not answer within {} ms", .deadline.as_millis())]
    Silent {
        /// Where.
        address: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// The connection ended, or what came is not HTTP.
    #[error("{address} broke off: {reason}")]
    Broken {
        /// Where.
        address: SocketAddr,
        /// What was wrong.
        reason: String,
    },
    /// It answers, with something else than an account.
    #[error("{address} answered {status}: {text}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// The status of the answer.
        status: StatusCode,
        /// The answer's first line.
        text: String,
    },
    /// The answer is too long for an account.
    #[error("{0} answered with more than {LONGEST} bytes, which is no account of a member")]
    TooLong(SocketAddr),
    /// The answer is no account.
    #[error("{address} answered with what is no account of a member: {reason}")]
    Nonsense {
        /// Where.
        address: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// An address goes from pod to pod.
    #[error("{address} was to be {asked} and is {}: the address belongs to another pod by now", units::beginning(.answered))]
    Stranger {
        /// Where.
        address: SocketAddr,
        /// The pod that was asked.
        asked: String,
        /// The pod that answered.
        answered: String,
    },
    /// Its data are not those of this cluster, or are on another timeline.
    #[error("{pod} has other data: {what}")]
    OtherData {
        /// The pod.
        pod: String,
        /// What is different.
        what: String,
    },
    /// It is not there yet.
    #[error("{address} has replayed up to {reached} only")]
    NotReplayed {
        /// Where.
        address: SocketAddr,
        /// How far it came.
        reached: Lsn,
    },
}

/// How other members are called: over TLS, where there are certificates.
#[derive(Debug, Clone, Default)]
pub struct Line(Option<Certificates>);

impl From<Option<Certificates>> for Line {
    fn from(certificates: Option<Certificates>) -> Self {
        Self(certificates)
    }
}

/// Asks all `members` (pod, HTTP address) at once. Who does not answer within `deadline`, or is not who was asked, is left
/// out.
pub async fn ask(line: &Line, members: &[(String, String)], deadline: Duration) -> Vec<Account> {
    let answers = ask_each(line, members, deadline).await;
    answers.into_iter().filter_map(|(_, answer)| answer.ok()).collect()
}

/// [`ask`], and of everybody who is left out the reason.
pub async fn ask_each(
    line: &Line,
    members: &[(String, String)],
    deadline: Duration,
) -> Vec<(String, Result<Account, Error>)> {
    let one = async |(pod, address): &(String, String)| {
        let answer = account(line, pod, address, "/member", deadline).await;
        match &answer {
            Err(error @ (Error::Stranger { .. } | Error::TooLong(_) | Error::Nonsense { .. })) => {
                tracing::warn!(pod, "what was answered for {pod} is not used: {error}");
            }
            Err(error) => tracing::debug!(pod, "nothing is known of {pod}: {error}"),
            Ok(_) => {}
        }
        (pod.clone(), answer)
    };
    join_all(members.iter().map(one)).await
}

/// What a standby is waited for to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The identity of its data.
    pub system_id: String,
    /// Its timeline.
    pub timeline: Timeline,
    /// How far it is to have replayed, at least.
    pub lsn: Lsn,
}

/// Waits until `pod` at `address` has replayed as far as is `wanted`; it answers in the moment in which it has.
///
/// # Errors
/// When it has not at the end of `deadline`, has other data, or cannot be asked.
pub async fn wait_replayed(
    line: &Line,
    pod: &str,
    address: &str,
    wanted: &Replayed,
    deadline: Duration,
) -> Result<(), Error> {
    let path = format!("/member?replayed={}&within={}", wanted.lsn, deadline.as_millis());
    let account = account(line, pod, address, &path, deadline + ON_THE_WAY).await?;
    let other = |what: String| Err(Error::OtherData { pod: pod.into(), what });
    match (&account.system_id, account.began.map(|b| b.timeline)) {
        (Some(id), _) if *id != wanted.system_id => other(format!("of the cluster {id}, not {}", wanted.system_id)),
        (None, _) => other("it does not say of which cluster".into()),
        (_, Some(timeline)) if timeline == wanted.timeline.0 => Ok(()),
        (_, Some(timeline)) => other(format!("on timeline {timeline}, not {}", wanted.timeline)),
        (_, None) => other("it does not say on which timeline".into()),
    }
}

async fn account(line: &Line, pod: &str, address: &str, path: &str, deadline: Duration) -> Result<Account, Error> {
    let socket = address.parse().map_err(|_| Error::NotAnAddress(address.into()))?;
    let answer = tokio::time::timeout(deadline, get(line, socket, path)).await;
    let (status, body) = answer.map_err(|_| Error::Silent { address: address.into(), deadline })??;
    understood(pod, socket, status, &body)
}

/// The account of `pod` that an answer has.
pub(crate) fn understood(pod: &str, socket: SocketAddr, status: StatusCode, body: &[u8]) -> Result<Account, Error> {
    if status != StatusCode::OK {
        return Err(refused(socket, status, &String::from_utf8_lossy(body)));
    }
    let account: Account = serde_json::from_slice(body).map_err(|e| nonsense(socket, &e))?;
    match account.pod == pod {
        true => Ok(account),
        false => Err(Error::Stranger { address: socket, asked: pod.into(), answered: account.pod }),
    }
}

/// The reason quotes the answer, however long that is.
fn nonsense(address: SocketAddr, error: &serde_json::Error) -> Error {
    Error::Nonsense { address, reason: units::beginning(&error.to_string()) }
}

/// A standby that is not there yet says only how far it is.
fn refused(address: SocketAddr, status: StatusCode, text: &str) -> Error {
    match text.trim().parse() {
        Ok(reached) if status == StatusCode::SERVICE_UNAVAILABLE => Error::NotReplayed { address, reached },
        _ => Error::Refused { address, status, text: units::beginning(text) },
    }
}

/// The connection ends with the question, answered or not.
struct Carrier(JoinHandle<hyper::Result<()>>);

impl Drop for Carrier {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn get(line: &Line, address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), Error> {
    let (status, _, body) = send(line, address, Request::get(path), Bytes::new()).await?;
    Ok((status, body))
}

/// One request over a connection of its own. There is no deadline in here.
pub(super) async fn send(
    line: &Line,
    address: SocketAddr,
    request: request::Builder,
    body: Bytes,
) -> Result<(StatusCode, HeaderMap, Bytes), Error> {
    match tls::dial(line.0.as_ref(), address).await {
        Ok(Dialled::Tls(stream)) => exchange(address, stream, request, body).await,
        Ok(Dialled::Plain(stream)) => exchange(address, stream, request, body).await,
        Err(source) => Err(Error::Connect { address, source }),
    }
}

/// One request, and its answer, over a connection to `address`.
pub(crate) async fn exchange(
    address: SocketAddr,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: request::Builder,
    body: Bytes,
) -> Result<(StatusCode, HeaderMap, Bytes), Error> {
    let broken = |reason: String| Error::Broken { address, reason };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(e.to_string()))?;
    let _carrier = Carrier(tokio::spawn(connection));
    let request = request.header("host", address.to_string()).header("connection", "close");
    let request = request.body(Full::new(body)).map_err(|e| broken(e.to_string()))?;
    let response = sender.send_request(request).await.map_err(|e| broken(e.to_string()))?;
    let (status, headers) = (response.status(), response.headers().clone());
    match Limited::new(response.into_body(), LONGEST).collect().await {
        Ok(body) => Ok((status, headers, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLong(address)),
        Err(error) => Err(broken(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
