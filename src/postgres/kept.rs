//! One session that is kept for as long as somebody uses it: for questions that are asked when milliseconds count, of
//! which a new connection costs about five.
//!
//! It is in the database `postgres`, which nobody can drop or rename, or use as a template, meanwhile. So it is closed
//! when it has not been used for a while.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use tokio_postgres::SimpleQueryMessage;

use super::sql::{Error, Local, Session};

/// Without a question for that long the session is closed.
const IDLE: Duration = Duration::from_secs(60);

/// The columns of a row, as text.
pub type Row = Vec<Option<String>>;

/// The session, when there is one. Clones share it.
#[derive(Clone)]
pub struct Kept {
    idle: Duration,
    open: Arc<Mutex<Option<Open>>>,
}

struct Open {
    session: Arc<Session>,
    /// Of which postmaster: after a restart another one is behind the same socket.
    postmaster: i32,
    used: Instant,
}

impl Default for Kept {
    fn default() -> Self {
        Self::new(IDLE)
    }
}

impl Kept {
    /// One that is closed after `idle` without a question.
    pub fn new(idle: Duration) -> Self {
        Self { idle, open: Arc::default() }
    }

    /// The first row of what `postmaster`, which is reached at `local`, answers to `query`; within `deadline` in all. Several
    /// questions at once share the session. One that is not answered ends it, and the next opens another.
    ///
    /// # Errors
    /// When PostgreSQL refuses, or the deadline passes.
    pub async fn row(&self, local: &Local, postmaster: i32, query: &str, deadline: Duration) -> Result<Row, Error> {
        let ask = async {
            let session = self.session(local, postmaster).await?;
            match session.client.simple_query(query).await {
                // It was over before the question came (`pg_terminate_backend`, the crash of another backend).
                Err(error) if error.is_closed() || session.client.is_closed() => {
                    let session = self.session(local, postmaster).await?;
                    Ok(first(session.client.simple_query(query).await?))
                }
                answer => Ok(first(answer?)),
            }
        };
        let answer = tokio::time::timeout(deadline, ask).await.unwrap_or(Err(Error::Timeout));
        // Whoever holds the lock is about to open another.
        if answer.is_err()
            && let Ok(mut open) = self.open.try_lock()
        {
            open.take();
        }
        answer
    }

    /// Whether there is a session right now.
    pub async fn is_open(&self) -> bool {
        self.open.lock().await.is_some()
    }

    async fn session(&self, local: &Local, postmaster: i32) -> Result<Arc<Session>, Error> {
        let mut open = self.open.lock().await;
        if let Some(kept) = open.as_mut().filter(|o| o.postmaster == postmaster && !o.session.client.is_closed()) {
            kept.used = Instant::now();
            return Ok(kept.session.clone());
        }
        // The old one is gone before there is another.
        open.take();
        let session = Arc::new(Session::open(&local.socket_dir, local.port, &local.login, "postgres").await?);
        *open = Some(Open { session: session.clone(), postmaster, used: Instant::now() });
        tokio::spawn(close_unused(Arc::downgrade(&self.open), Arc::downgrade(&session), self.idle));
        Ok(session)
    }
}

/// Closes the session once nobody has used it for `idle`.
async fn close_unused(open: Weak<Mutex<Option<Open>>>, session: Weak<Session>, idle: Duration) {
    loop {
        let Some(open) = open.upgrade() else { return };
        let mut open = open.lock().await;
        let Some(kept) = open.as_ref().filter(|o| std::ptr::eq(Arc::as_ptr(&o.session), session.as_ptr())) else {
            return;
        };
        let left = idle.saturating_sub(kept.used.elapsed());
        if !left.is_zero() {
            drop(open);
            tokio::time::sleep(left).await;
            continue;
        }
        if let Some(session) = open.take().and_then(|o| Arc::into_inner(o.session)) {
            session.close().await;
        }
        return;
    }
}

fn first(messages: Vec<SimpleQueryMessage>) -> Row {
    let row = messages.into_iter().find_map(|m| match m {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.map(|r| (0..r.len()).map(|i| r.get(i).map(Into::into)).collect()).unwrap_or_default()
}
