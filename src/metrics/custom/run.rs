//! Runs the custom queries that are due, one after the other, over one connection at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use tokio_postgres::Client;

use super::{
    super::{Inner, family::Family, lock, open, rows},
    convert,
    file::{Name, Query},
    unclaimed,
};
use crate::postgres::sql::{Local, Session};

/// What a server is, as far as queries depend on it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Server {
    pub(in super::super) version_num: u32,
    pub(in super::super) is_primary: bool,
}

/// What the queries of a scrape found so far, by query.
type Found = BTreeMap<Name, Result<BTreeMap<String, Family>, String>>;

/// Runs what is due until `deadline`, in the database `postgres` over `session`, which ends, then in others. Each answer
/// goes to `show`.
pub(in super::super) async fn run(
    inner: &Inner,
    local: &Local,
    session: Session,
    server: Server,
    deadline: Instant,
    taken: &mut BTreeSet<String>,
    show: &impl Fn(super::Group),
) {
    let (cached, due) = {
        let custom = lock(&inner.custom);
        (custom.all_cached(server.is_primary), custom.due(server.version_num, server.is_primary))
    };
    for group in cached {
        // A name that is taken by now was free when this was asked for.
        if group.iter().all(|f| f.claim(taken)) {
            show(group);
        }
    }
    let databases = match due.iter().any(|(_, q)| !q.target_databases.is_empty()) {
        true => databases(&session.client).await,
        false => Vec::new(),
    };
    let mut found: Found = due.iter().map(|(n, _)| (n.clone(), Ok(BTreeMap::new()))).collect();
    let mut session = Some(("postgres".to_string(), session));
    for (database, queries) in by_database(&due, &databases, &mut found) {
        let current = match session.take() {
            Some((name, current)) if name == database => current,
            // Closed before the next is opened: never two.
            other => {
                if let Some((_, other)) = other {
                    other.close().await;
                }
                match open(local, &database).await {
                    Ok(opened) => opened,
                    Err(why) => {
                        queries.iter().for_each(|(n, _)| drop(found.insert((*n).clone(), Err(why.to_string()))));
                        continue;
                    }
                }
            }
        };
        for (name, query) in queries {
            let result = ask(&current.client, name, query, deadline).await.map_err(|e| format!("in {database}: {e}"));
            add(&mut found, name, result);
        }
        session = Some((database, current));
    }
    if let Some((_, last)) = session {
        last.close().await;
    }
    for (name, families) in found {
        let families = families.and_then(|f| complete(f.into_values().collect(), taken));
        let group = lock(&inner.custom).done(&name, families, &mut lock(&inner.troubles));
        group.into_iter().for_each(show);
    }
}

async fn databases(client: &Client) -> Vec<String> {
    let all = "select datname from pg_database where datallowconn and not datistemplate order by 1";
    let rows = rows::query(client, all).await.unwrap_or_default();
    rows.rows.into_iter().flatten().flatten().collect()
}

/// Which queries run in which databases, `postgres` first because there is a session in it. A database that is named
/// and is not there is an error; a pattern that fits none is not.
fn by_database<'a>(
    due: &'a [(Name, Query)],
    databases: &[String],
    found: &mut Found,
) -> Vec<(String, Vec<&'a (Name, Query)>)> {
    let mut plan: Vec<(String, Vec<&(Name, Query)>)> = vec![("postgres".into(), Vec::new())];
    for entry in due {
        let (name, query) = entry;
        let mut targets: BTreeSet<String> = BTreeSet::new();
        for pattern in &query.target_databases {
            let before = targets.len();
            targets.extend(databases.iter().filter(|d| fits(pattern, d)).cloned());
            if targets.len() == before && !pattern.contains(['*', '?']) && !targets.contains(pattern) {
                found.insert(name.clone(), Err(format!("there is no database {pattern:?}")));
            }
        }
        if query.target_databases.is_empty() {
            targets.insert("postgres".into());
        }
        for target in targets {
            match plan.iter_mut().find(|(d, _)| *d == target) {
                Some((_, queries)) => queries.push(entry),
                None => plan.push((target, vec![entry])),
            }
        }
    }
    plan.retain(|(_, queries)| !queries.is_empty());
    plan
}

/// Whether `name` is like `pattern`, in which `*` is any text and `?` any character.
fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = name.chars();
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => name.char_indices().map(|(i, _)| i).chain([name.len()]).any(|i| fits(&pattern[1..], &name[i..])),
        Some('?') => rest.next().is_some() && fits(&pattern[1..], rest.as_str()),
        Some(c) => rest.next() == Some(c) && fits(&pattern[c.len_utf8()..], rest.as_str()),
    }
}

async fn ask(
    client: &Client,
    name: &Name,
    query: &Query,
    deadline: Instant,
) -> Result<BTreeMap<String, Family>, String> {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    if left == 0 {
        return Err("no time was left for it; cache_seconds gives it room".into());
    }
    let begin = format!(
        "begin read only; set local statement_timeout = {left}; set local search_path = pg_catalog, public; \
         set local role pg_monitor"
    );
    client.batch_execute(&begin).await.map_err(|e| message(e.into()))?;
    let rows = async {
        // Several statements in one cannot be prepared: a `commit` among them would end the transaction that only reads.
        client.prepare(&query.query).await.map_err(|e| message(e.into()))?;
        rows::query(client, &query.query).await.map_err(message)
    };
    let rows = rows.await;
    client.batch_execute("rollback").await.map_err(|e| message(e.into()))?;
    convert::families(name, query, &rows?)
}

fn message(error: crate::postgres::sql::Error) -> String {
    error.to_string()
}

fn add(found: &mut Found, name: &Name, result: Result<BTreeMap<String, Family>, String>) {
    match (found.get_mut(name), result) {
        (Some(Ok(all)), Ok(families)) => {
            for (name, family) in families {
                match all.get_mut(&name) {
                    Some(merged) => merged.merge(family),
                    None => drop(all.insert(name, family)),
                }
            }
        }
        (Some(all @ Ok(_)), Err(why)) => *all = Err(why),
        _ => {}
    }
}

fn complete(mut families: Vec<Family>, taken: &mut BTreeSet<String>) -> Result<Vec<Family>, String> {
    match families.iter_mut().any(Family::remove_duplicates) {
        true => Err("several rows have the same labels; current_database() as a LABEL tells databases apart".into()),
        false => unclaimed(families, taken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_databases() {
        for (pattern, name, expected) in [
            ("app", "app", true),
            ("app", "apple", false),
            ("*", "app", true),
            ("a*e", "apple", true),
            ("a*e", "apples", false),
            ("t_?", "t_1", true),
            ("t_?", "t_", false),
            ("*é", "café", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
