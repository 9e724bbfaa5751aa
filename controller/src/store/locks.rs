//! Locks: what at most one execution holds at a time.
//!
//! Each statement sees what was committed before it began: whoever sees a lock sees what its holder did when taking it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::{AgentId, ExecutionId, OrgId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{During, Result};

/// Takes a lock, if nobody holds it and nobody older waits for it; answers who holds it then. None: it is free, and another's
/// turn.
pub(crate) async fn take(
    connection: &mut PgConnection,
    (execution, org): (ExecutionId, OrgId),
    key: &str,
    now: Timestamp,
) -> Result<Option<ExecutionId>> {
    // What ended without anybody's looking holds nothing.
    sqlx::query!(
        "delete from locks l where l.org_id = $1 and l.key = $2
           and not exists (select from executions e where e.id = l.execution_id and e.ended_at is null)",
        org.0,
        key
    )
    .execute(&mut *connection)
    .await
    .during("release of a lock")?;
    sqlx::query!(
        "insert into locks (org_id, key, execution_id, taken_at)
         select $1, $2, $3, $4
         where not exists (
             select from execution_progress p join executions e on e.id = p.execution_id
             where p.org_id = $1 and p.waits_for = $2 and p.execution_id < $3 and p.paused_at is null
               and e.ended_at is null)
         on conflict do nothing",
        org.0,
        key,
        execution.0,
        now.to_sqlx()
    )
    .execute(&mut *connection)
    .await
    .during("insert of a lock")?;
    let holder =
        sqlx::query_scalar!("select execution_id from locks where org_id = $1 and key = $2", org.0, key)
            .fetch_optional(connection)
            .await
            .during("query for a lock")?;
    Ok(holder.map(ExecutionId))
}

/// Takes the locks of these hosts; answers those that somebody else holds, with the execution.
pub(crate) async fn take_hosts(
    connection: &mut PgConnection,
    (execution, org): (ExecutionId, OrgId),
    agents: &[AgentId],
    now: Timestamp,
) -> Result<BTreeMap<AgentId, ExecutionId>> {
    // In one order, so that nobody waits for somebody who waits for him.
    let mut ids: Vec<Uuid> = agents.iter().map(|agent| agent.0).collect();
    ids.sort_unstable();
    sqlx::query!(
        "delete from locks where (org_id, key) in (
             select l.org_id, l.key from unnest($2::uuid[]) as a(id)
             join locks l on l.org_id = $1 and l.key = 'host/' || a.id
             where not exists (select from execution_hosts h join executions e on e.id = h.execution_id
                               where h.execution_id = l.execution_id and h.agent_id = a.id and h.state = 'active'
                                 and e.ended_at is null)
             order by l.key for update of l)",
        org.0,
        &ids
    )
    .execute(&mut *connection)
    .await
    .during("release of hosts")?;
    sqlx::query!(
        "insert into locks (org_id, key, execution_id, taken_at)
         select $1, 'host/' || a.id, $3, $4 from unnest($2::uuid[]) as a(id) order by a.id
         on conflict do nothing",
        org.0,
        &ids,
        execution.0,
        now.to_sqlx()
    )
    .execute(&mut *connection)
    .await
    .during("lock of hosts")?;
    let held = sqlx::query!(
        "select a.id as \"id!\", l.execution_id from unnest($2::uuid[]) as a(id)
         join locks l on l.org_id = $1 and l.key = 'host/' || a.id
         where l.execution_id <> $3",
        org.0,
        &ids,
        execution.0
    )
    .fetch_all(connection)
    .await
    .during("query for locked hosts")?;
    Ok(held.into_iter().map(|r| (r.id.into(), r.execution_id.into())).collect())
}
