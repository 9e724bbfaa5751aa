//! SQL and nothing else: one file a table. Nothing here decides.
//!
//! People's queries run as the role `opsc_app` on connections that are bound to one organization, so that row-level
//! security stands behind the `org_id = …` of each query. The engine's run as `opsc_worker`.

pub(crate) mod access_keys;
pub(crate) mod agents;
pub(crate) mod api_tokens;
pub(crate) mod approvals;
pub(crate) mod attempts;
pub(crate) mod audit;
pub(crate) mod audit_chain;
pub(crate) mod audit_export;
pub(crate) mod audit_forwarded;
pub(crate) mod calendars;
pub(crate) mod controllers;
pub(crate) mod enroll_tokens;
pub(crate) mod events;
pub(crate) mod executions;
pub(crate) mod groups;
pub(crate) mod host_metrics;
pub(crate) mod http_calls;
pub(crate) mod idempotency;
pub(crate) mod installation;
pub(crate) mod job_templates;
pub(crate) mod jobs;
pub(crate) mod join_tokens;
pub(crate) mod locks;
pub(crate) mod login_failures;
pub(crate) mod login_sessions;
pub(crate) mod manifests;
pub(crate) mod occurrences;
pub(crate) mod oidc_logins;
pub(crate) mod one_time_tokens;
pub(crate) mod organizations;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod reports;
pub(crate) mod role_bindings;
pub(crate) mod roles;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod schema;
pub(crate) mod scripts;
mod selector_sql;
pub(crate) mod service_accounts;
pub(crate) mod sessions;
pub(crate) mod statistics;
pub(crate) mod status;
pub(crate) mod target_groups;
pub(crate) mod triggers;
pub(crate) mod undo;
pub(crate) mod user_identities;
pub(crate) mod users;
pub(crate) mod versions;

use std::{collections::HashMap, sync::Mutex, time::Duration};

use model::id::OrgId;
use sqlx::{
    Executor, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub(crate) use schema::{SchemaState, check_schema, migrate, newest};

use crate::error::{During, Result};

/// Connections of each pool.
const CONNECTIONS: u32 = 16;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// A transaction in which nothing happens lasts so long at least: a busy machine is no dead one.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);

/// The engine's statements take arrays of keys: a plan for these very values is no better than one for any, and making
/// it anew each time costs more than running it. Each key is looked up in an index: what is planned once, while a table or the
/// partition of a new week is still empty, must not read all of it ever after.
const ENGINE: &str = "set role opsc_worker; set plan_cache_mode = force_generic_plan; set jit = off; \
                      set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; ";

/// The database with its roles. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Db {
    options: PgConnectOptions,
    /// What every connection is told: after this a transaction in which nothing happens is over, so that a controller
    /// that hangs or has vanished holds no rows that another one needs.
    patience: String,
    worker: PgPool,
    output: PgPool,
    by_org: Mutex<HashMap<OrgId, PgPool>>,
}

impl Db {
    /// Makes the engine's pools; connections are opened when they are needed.
    pub(crate) fn new(options: PgConnectOptions, patience: Duration) -> Self {
        let patience = patience.max(LEAST_PATIENCE).as_millis();
        let patience = format!("set idle_in_transaction_session_timeout = {patience}; ");
        let worker = pool(format!("{ENGINE}{patience}")).connect_lazy_with(options.clone());
        let output = pool(format!("{ENGINE}{patience}")).connect_lazy_with(options.clone());
        Self { options, patience, worker, output, by_org: Mutex::default() }
    }

    /// The engine's connections.
    pub(crate) fn worker(&self) -> &PgPool {
        &self.worker
    }

    /// Connections for output alone, so that a flood of it leaves the engine its own.
    pub(crate) fn output(&self) -> &PgPool {
        &self.output
    }

    /// Connections that see the rows of one organization and nothing else.
    pub(crate) fn of(&self, org: OrgId) -> PgPool {
        let mut pools = self.by_org.lock().expect("no holder of this lock panics");
        pools
            .entry(org)
            .or_insert_with(|| {
                let set_up = format!(
                    "set role opsc_app; set jit = off; {}select set_config('opsc.org', '{org}', false)",
                    self.patience
                );
                pool(set_up).idle_timeout(Duration::from_secs(60)).connect_lazy_with(self.options.clone())
            })
            .clone()
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        let pools: Vec<PgPool> = {
            let by_org = self.by_org.lock().expect("no holder of this lock panics");
            by_org.values().cloned().collect()
        };
        for pool in pools.iter().chain([&self.worker, &self.output]) {
            pool.close().await;
        }
    }

    /// Answers whether the database does.
    pub(crate) async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(&self.worker).await.during("ping")?;
        Ok(())
    }
}

/// A pool whose connections run `set_up` before their first use.
fn pool(set_up: String) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let set_up = sqlx::AssertSqlSafe(set_up.clone());
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(set_up)).await?;
                Ok(())
            })
        })
}
