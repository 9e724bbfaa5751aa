//! The controller's own Postgres, read from outside: which rows are committed, and when.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use model::id::{ExecutionId, OrgId};
use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::sleep;
use uuid::Uuid;

use crate::swarm::{Identity, Issued};

/// How the embedded Postgres is reached, below the controller's data folder.
const SOCKET_FOLDER: &str = "postgres/run";
const ROLE: &str = "opsconductor";
/// Between two looks at a row: about what a look at it costs, ten times over.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The label of all simulated agents.
pub(crate) const SIMULATED: &str = "bench=simulated";

/// How to connect to the database of the controller that keeps its data in `data`.
pub(crate) fn options(data: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(data.join(SOCKET_FOLDER))
        .port(5432)
        .username(ROLE)
        .database(ROLE)
        .ssl_mode(PgSslMode::Disable)
        .application_name("opsconductor-bench")
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Database(PgConnection);

impl Database {
    /// # Errors
    /// When the database cannot be reached.
    pub(crate) async fn open(options: &PgConnectOptions) -> anyhow::Result<Self> {
        Ok(Self(
            PgConnection::connect_with(options)
                .await
                .context("cannot connect to the controller's database")?,
        ))
    }

    pub(crate) const fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// The one organization of a new installation.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn organization(&mut self) -> anyhow::Result<OrgId> {
        let id: Uuid = sqlx::query_scalar("select id from organizations").fetch_one(&mut self.0).await?;
        Ok(OrgId(id))
    }

    /// Writes approved agents, as if they had enrolled, and gives their identities back.
    ///
    /// # Errors
    /// When the database does not take them.
    pub(crate) async fn insert_agents(&mut self, issued: Vec<Issued>) -> anyhow::Result<Vec<Arc<Identity>>> {
        let Some(first) = issued.first() else { return Ok(Vec::new()) };
        let org = first.identity.org_id.0;
        let ids: Vec<Uuid> = issued.iter().map(|issued| issued.identity.agent_id.0).collect();
        let serials: Vec<&[u8]> = issued.iter().map(|issued| &issued.serial[..]).collect();
        let result_keys: Vec<&[u8]> = issued.iter().map(|issued| &issued.result_key[..]).collect();
        let seal_keys: Vec<&[u8]> = issued.iter().map(|issued| &issued.seal_key[..]).collect();
        sqlx::query(
            "insert into agents (id, org_id, name, labels, version, pending, enrolled_at, serial_current,
                                 certificate_expires_at, result_key, seal_key)
             select id, $1, 'simulated-' || id, '{\"bench\": \"simulated\"}'::jsonb, 'bench', false, now(), serial,
                    now() + interval '1 day', result_key, seal_key
             from unnest($2::uuid[], $3::bytea[], $4::bytea[], $5::bytea[]) as a (id, serial, result_key, seal_key)",
        )
        .bind(org)
        .bind(ids)
        .bind(serials)
        .bind(result_keys)
        .bind(seal_keys)
        .execute(&mut self.0)
        .await
        .context("cannot insert the simulated agents")?;
        // What autovacuum would do in a minute.
        sqlx::query("vacuum analyze agents")
            .execute(&mut self.0)
            .await
            .context("cannot analyze the agents")?;
        Ok(issued.into_iter().map(|issued| Arc::new(issued.identity)).collect())
    }

    /// How many sessions are open.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn sessions(&mut self) -> anyhow::Result<usize> {
        let count: i64 = sqlx::query_scalar("select count(*) from sessions where connected")
            .fetch_one(&mut self.0)
            .await?;
        Ok(usize::try_from(count)?)
    }

    /// Waits until exactly so many sessions are open; when that was seen.
    ///
    /// # Errors
    /// When it does not come about in time.
    pub(crate) async fn wait_sessions(&mut self, count: usize, within: Duration) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        loop {
            let open = self.sessions().await?;
            if open == count {
                return Ok(Instant::now());
            }
            ensure!(begun.elapsed() < within, "{open} instead of {count} sessions are open after {within:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until every entry of the audit has its number.
    ///
    /// # Errors
    /// When that takes too long.
    pub(crate) async fn wait_chained(&mut self, within: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let waiting: i64 =
                sqlx::query_scalar("select count(*) from audit_queue").fetch_one(&mut self.0).await?;
            if waiting == 0 {
                return Ok(());
            }
            ensure!(begun.elapsed() < within, "{waiting} entries are not chained after {within:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the execution's last result is committed; when that was seen, at most about 1.2 ms later.
    ///
    /// # Errors
    /// When it does not end in time.
    pub(crate) async fn wait_ended(&mut self, id: ExecutionId, within: Duration) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        while self.ended(&[id]).await?.is_empty() {
            ensure!(begun.elapsed() < within, "execution {id} has not ended after {within:?}");
            sleep(LOOK_EVERY).await;
        }
        Ok(Instant::now())
    }

    /// The names of an execution's hosts, in the order of their turns.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn hosts_in_turn(&mut self, id: ExecutionId) -> anyhow::Result<Vec<String>> {
        sqlx::query_scalar("select target from execution_hosts where execution_id = $1 order by place")
            .bind(id.0)
            .fetch_all(&mut self.0)
            .await
            .context("cannot read the execution's hosts")
    }

    /// Which of these executions have all of their results committed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn ended(&mut self, ids: &[ExecutionId]) -> anyhow::Result<Vec<ExecutionId>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let ended: Vec<Uuid> =
            sqlx::query_scalar("select id from executions where id = any($1) and ended_at is not null")
                .bind(ids)
                .fetch_all(&mut self.0)
                .await
                .context("cannot read the executions")?;
        Ok(ended.into_iter().map(ExecutionId).collect())
    }

    /// Waits until so many bytes of the execution's output are committed; when that was seen.
    ///
    /// # Errors
    /// When they are not in time.
    pub(crate) async fn wait_output(
        &mut self,
        id: ExecutionId,
        bytes: u64,
        within: Duration,
    ) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        loop {
            let held: i64 = sqlx::query_scalar(
                "select coalesce(sum(stdout_offset + stderr_offset - stdout_gap - stderr_gap), 0)::bigint
                 from output_cursors where execution_id = $1",
            )
            .bind(id.0)
            .fetch_one(&mut self.0)
            .await
            .context("cannot read the cursors")?;
            if u64::try_from(held)? >= bytes {
                return Ok(Instant::now());
            }
            ensure!(begun.elapsed() < within, "{held} of {bytes} bytes are stored after {within:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Bytes that all output takes on the disk, with its indexes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn output_room(&mut self) -> anyhow::Result<u64> {
        let bytes: i64 = sqlx::query_scalar(
            "select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint from pg_partition_tree('output_chunks')",
        )
        .fetch_one(&mut self.0)
        .await
        .context("cannot weigh the table of chunks")?;
        Ok(u64::try_from(bytes)?)
    }

    /// How many of these executions succeeded.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn succeeded(&mut self, ids: &[ExecutionId]) -> anyhow::Result<usize> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let count: i64 =
            sqlx::query_scalar("select count(*) from executions where id = any($1) and state = 'succeeded'")
                .bind(ids)
                .fetch_one(&mut self.0)
                .await
                .context("cannot read the executions")?;
        Ok(usize::try_from(count)?)
    }

    /// Makes an empty database beside the controller's on the same cluster.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub(crate) async fn create_floor(&mut self) -> anyhow::Result<()> {
        sqlx::query("create database bench_floor")
            .execute(&mut self.0)
            .await
            .context("cannot make a database")?;
        Ok(())
    }
}
