//! Answers as text, whatever their types: what a metric needs of them is a number or a label.

use futures_util::TryStreamExt;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::postgres::sql::Error;

/// More rows than this are a mistake in a query, not metrics, and are not to be held in memory.
pub(super) const MOST_ROWS: usize = 5000;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

/// Runs statements and gives back the rows of the last one that has some.
pub(super) async fn query(client: &Client, sql: &str) -> Result<Rows, Error> {
    let mut messages = std::pin::pin!(client.simple_query_raw(sql).await?);
    let mut answer = Rows::default();
    while let Some(message) = messages.try_next().await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                answer = Rows { columns: columns.iter().map(|c| c.name().into()).collect(), rows: Vec::new() };
            }
            SimpleQueryMessage::Row(row) if answer.rows.len() < MOST_ROWS => {
                answer.rows.push((0..row.len()).map(|i| row.get(i).map(String::from)).collect());
            }
            SimpleQueryMessage::Row(_) => return Err(Error::Refused(format!("more than {MOST_ROWS} rows"))),
            _ => {}
        }
    }
    Ok(answer)
}
