//! Rows that nobody with an account wrote: what a thief of the database's password could do.

use fastrand::Rng;
use model::id::uuid_v7;
use uuid::Uuid;

use super::lab::Lab;
use crate::clock;

/// When, the proof, and the runs and executions that it was done to.
pub(super) type Forged = (u64, String, Vec<String>);

/// What a command is changed to; its token is of no job.
const FORGED_TOKEN: &str = "forged";

/// Forges something. Subjects `inserted-run/…` are runs that must be refused and audited.
pub(super) async fn row(lab: &Lab, rng: &mut Rng) -> Option<Forged> {
    match rng.u32(0..4) {
        0 => copied(lab).await,
        1 => edited(lab).await,
        2 => redirected(lab).await,
        _ => attempt(lab).await,
    }
}

/// A whole execution, copied under another id, with a run for one of the hosts.
async fn copied(lab: &Lab) -> Option<Forged> {
    let (at, mut sql) = (lab.history.now(), lab.sql().await?);
    let execution = uuid_v7(clock::now(), pki::random());
    let run = uuid_v7(clock::now(), pki::random());
    let source: Option<(Uuid,)> = sqlx::query_as(
        "select execution_id from runs where target like 'h%' and state = 'succeeded' order by random() limit 1",
    )
    .fetch_optional(&mut sql)
    .await
    .ok()?;
    let (source,) = source?;
    let mut tx = sqlx::Connection::begin(&mut sql).await.ok()?;
    let statements = [
        "insert into executions (id, org_id, summary, command, actor, request_id, created_at, start_before, state,
             manifest, manifest_signature, manifest_certificate, runs_total, runs_waiting)
         select $1, org_id, summary, command, actor, request_id, now(), now() + interval '1 hour', 'queued', manifest,
             manifest_signature, manifest_certificate, 1, 1 from executions where id = $3 and $2::uuid is not null",
        "insert into output_positions select $1 where $2::uuid is not null and $3::uuid is not null",
        "insert into runs (execution_id, id, org_id, agent_id, target, state, queued_at, due_at, start_before)
         select $1, $2, org_id, agent_id, target, 'queued', now(), now(), now() + interval '1 hour' from runs
         where execution_id = $3 order by random() limit 1",
    ];
    for statement in statements {
        let done =
            sqlx::query(statement).bind(execution).bind(run).bind(source).execute(&mut *tx).await.ok()?;
        if done.rows_affected() != 1 {
            return None;
        }
    }
    tx.commit().await.ok()?;
    Some((at, format!("inserted the execution {execution}"), vec![format!("inserted-run/{run}")]))
}

/// The command of an execution that has not begun yet.
async fn edited(lab: &Lab) -> Option<Forged> {
    let (at, mut sql) = (lab.history.now(), lab.sql().await?);
    let line =
        format!("exec '{}' '{}' 0 {FORGED_TOKEN} 0 0 1 0 0 0 0", lab.helper.display(), lab.starts.display());
    let edited: Option<(Uuid,)> = sqlx::query_as(
        "update executions set command = jsonb_set(command, '{program,shell}', to_jsonb($1::text))
         where id = (select execution_id from runs where state = 'queued' order by random() limit 1) returning id",
    )
    .bind(line)
    .fetch_optional(&mut sql)
    .await
    .ok()?;
    let (execution,) = edited?;
    Some((at, format!("edited the command of {execution}"), vec![execution.to_string()]))
}

/// A run that waits, given to another host.
async fn redirected(lab: &Lab) -> Option<Forged> {
    let (at, mut sql) = (lab.history.now(), lab.sql().await?);
    let edited: Option<(Uuid, Uuid)> = sqlx::query_as(
        "update runs r set agent_id = (select a.id from agents a where a.name like 'h%' and a.id <> r.agent_id
             order by random() limit 1)
         where (execution_id, id) in (select execution_id, id from runs where state = 'queued' order by random() limit 1)
             and state = 'queued'
         returning execution_id, id",
    )
    .fetch_optional(&mut sql)
    .await
    .ok()?;
    let (execution, run) = edited?;
    Some((at, format!("gave {run} to another host"), vec![execution.to_string()]))
}

/// A further attempt of a run that has ended, as if it had been offered.
async fn attempt(lab: &Lab) -> Option<Forged> {
    let (at, mut sql) = (lab.history.now(), lab.sql().await?);
    let inserted: Option<(Uuid,)> = sqlx::query_as(
        "insert into attempts (execution_id, run_id, number, org_id, agent_id, state, fence, epoch, offered_at, deadline)
         select r.execution_id, r.id, r.attempt + 1, r.org_id, r.agent_id, 'offered', s.fence, s.epoch, now(),
             now() + interval '1 minute'
         from runs r join sessions s on s.agent_id = r.agent_id
         where r.state = 'succeeded' and s.connected order by random() limit 1
         returning run_id",
    )
    .fetch_optional(&mut sql)
    .await
    .ok()?;
    let (run,) = inserted?;
    Some((at, format!("inserted an attempt of {run}"), vec![format!("inserted-attempt/{run}")]))
}
