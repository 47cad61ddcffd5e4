//! What a primary does for its standbys: the role that they connect as, the checkpoint that lets a former primary come
//! back, and an end to the slots of standbys that never will.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, error::SqlState};

use super::membership::is_slot_name;
use crate::{
    postgres::sql::{self, Local},
    settings::{Replication, official::Secret},
};

/// A primary's care for its standbys.
pub struct Primary {
    /// The own server.
    pub local: Local,
    /// The role that standbys connect as.
    pub role: Replication,
    /// How long a slot is kept that nobody uses.
    pub retention: Duration,
    /// Whether this server was promoted just now.
    pub promoted: bool,
}

/// For statements that have no reason to take long.
const TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(5);
/// A checkpoint of a large cache on a slow disk. Nobody waits for it.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(3600);
/// Slots are looked at this often, or ten times within their retention if that is short.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Primary {
    /// Does so until it is dropped.
    pub async fn care(self) {
        if self.promoted {
            // Not a part of the promotion, which is over: it must delay nobody.
            tokio::task::spawn_local(checkpoint(self.local.clone()));
        }
        while let Err(error) = self.ensure_role().await {
            if !matches!(error, sql::Error::Timeout) {
                tracing::warn!(
                    "the role {} that standbys connect as could not be made or checked: {error}. Standbys that use it \
                     may not get in; trying again in {} s",
                    self.role.user,
                    RETRY.as_secs() * 12
                );
                tokio::time::sleep(RETRY * 11).await;
            }
            tokio::time::sleep(RETRY).await;
        }
        let pause = (self.retention / 10).clamp(Duration::from_secs(1), LONGEST_PAUSE);
        let mut idle = HashMap::new();
        loop {
            if let Err(error) = self.drop_departed(&mut idle).await {
                tracing::warn!("replication slots could not be looked at: {error}");
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Without a password that standbys can know there is no such role.
    async fn ensure_role(&self) -> Result<(), sql::Error> {
        let Some(password) = &self.role.password else { return Ok(()) };
        let user = &self.role.user;
        let made = self.local.within(TIMEOUT, async |client| make_role(client, user, password).await).await?;
        if made {
            tracing::info!("the role {user} for standbys was made");
        } else if self.is_refused(password).await {
            self.local.within(TIMEOUT, async |client| set_password(client, user, password).await).await?;
            tracing::info!("the role {user} for standbys has the password of the settings now");
        }
        Ok(())
    }

    /// Whether a login with the password of the settings fails for that reason. Only a login tells: what is stored is
    /// salted.
    async fn is_refused(&self, password: &Secret) -> bool {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.local.socket_dir).port(self.local.port).user(&self.role.user).dbname("postgres");
        config.application_name("podgres").password(password.expose());
        let asked = tokio::time::timeout(TIMEOUT, config.connect(tokio_postgres::NoTls)).await;
        matches!(asked, Ok(Err(error)) if error.code() == Some(&SqlState::INVALID_PASSWORD))
    }

    /// Drops the slots that members made for themselves and have not used for `retention`, or that have lost their WAL.
    /// `idle` remembers since when; a manager that has just started begins to count anew.
    async fn drop_departed(&self, idle: &mut HashMap<String, Instant>) -> Result<(), sql::Error> {
        let rows = self.local.within(TIMEOUT, async |client| Ok(client.query(INACTIVE, &[]).await?)).await?;
        let slots: Vec<(String, bool)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
        idle.retain(|name, _| slots.iter().any(|(n, _)| n == name));
        for (name, lost) in slots.into_iter().filter(|(name, _)| is_slot_name(name)) {
            let since = *idle.entry(name.clone()).or_insert_with(Instant::now);
            if !lost && since.elapsed() < self.retention {
                continue;
            }
            let drop =
                async |client: &Client| Ok(client.execute("select pg_drop_replication_slot($1)", &[&name]).await?);
            self.local.within(TIMEOUT, drop).await?;
            let why = if lost {
                "it had lost its WAL".into()
            } else {
                format!("nobody used it for {} s", self.retention.as_secs())
            };
            tracing::warn!("replication slot {name} was dropped: {why}. A standby that comes back makes its own anew");
        }
        Ok(())
    }
}

const INACTIVE: &str = "select slot_name::text, coalesce(wal_status = 'lost', false) from pg_replication_slots
    where slot_type = 'physical' and not temporary and not active";

/// A former primary can be rewound once the new timeline has a checkpoint (before 16), and crash recovery is short.
async fn checkpoint(local: Local) {
    let begun = Instant::now();
    let work = async |client: &Client| Ok(client.batch_execute("set statement_timeout = 0; checkpoint").await?);
    match local.within(CHECKPOINT_TIMEOUT, work).await {
        Ok(()) => tracing::info!("the checkpoint after the promotion took {} ms", begun.elapsed().as_millis()),
        Err(error) => tracing::warn!("the checkpoint after the promotion failed: {error}"),
    }
}

/// Makes the role, if it is missing, and lets it do what standbys need. Says whether it was missing.
async fn make_role(client: &Client, user: &str, password: &Secret) -> Result<bool, sql::Error> {
    let found = client
        .query_opt("select rolsuper, rolreplication and rolcanlogin from pg_roles where rolname = $1", &[&user])
        .await?;
    let name = quoted(user);
    let (exists, superuser, able) = match &found {
        Some(row) => (true, row.get::<_, bool>(0), row.get::<_, bool>(1)),
        None => (false, false, false),
    };
    if superuser {
        return Ok(false);
    }
    if !exists {
        client.batch_execute(UNSEEN).await?;
        let verifier = verifier(password);
        client.batch_execute(&format!("create role {name} replication login password '{verifier}'")).await?;
    } else if !able {
        client.batch_execute(&format!("alter role {name} replication login")).await?;
    }
    if !exists || !client.query_one(MAY_REWIND, &[&user]).await?.get::<_, bool>(0) {
        let functions = REWIND_FUNCTIONS.join(", ");
        client.batch_execute(&format!("grant execute on function {functions} to {name}")).await?;
    }
    Ok(!exists)
}

async fn set_password(client: &Client, user: &str, password: &Secret) -> Result<(), sql::Error> {
    let found = client.query_opt("select from pg_roles where rolname = $1 and not rolsuper", &[&user]).await?;
    if found.is_some() {
        client.batch_execute(UNSEEN).await?;
        client.batch_execute(&format!("alter role {} password '{}'", quoted(user), verifier(password))).await?;
    }
    Ok(())
}

/// What pg_rewind calls on its source (<https://www.postgresql.org/docs/current/app-pgrewind.html#id-1.9.5.7.6>).
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];
const MAY_REWIND: &str =
    "select has_function_privilege($1, 'pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)', 'execute')";

/// What comes next in this session has a verifier in it, which shows nobody the password, but lets whoever reads the log try
/// as many as they like, and play the server. So nothing writes it down: the log, with whatever reason, `pg_stat_activity`,
/// `pg_stat_statements`.
const UNSEEN: &str = "set log_statement = 'none'; set log_min_duration_statement = -1; set log_min_duration_sample = -1; \
    set log_transaction_sample_rate = 0; set log_min_error_statement = 'panic'; set track_activities = off; \
    set pg_stat_statements.track_utility = off";

/// What PostgreSQL stores of a password, so that the password itself is in no statement that a log may show.
fn verifier(password: &Secret) -> String {
    postgres_protocol::password::scram_sha_256(password.expose().as_bytes())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
