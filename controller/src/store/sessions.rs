//! Sessions: which controller serves which agent. The epoch of a session fences the agent's older streams, its fence the
//! controllers that served it before. Both count for one agent alone.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::{AgentId, ControllerId, OrgId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Result};

/// The numbers of a fresh session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub epoch: i64,
    pub fence: i64,
}

/// What a hello says about its place among the agent's hellos.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    /// The highest fence that the agent has obeyed.
    pub obeyed: i64,
    /// The boot of its host, and the microseconds since then.
    pub boot_id: &'a str,
    pub since_boot: i64,
}

/// Opens a session with numbers above those of all before it, and a fence above the one that the agent says it has obeyed.
/// None when a hello that was said later has come before this one, unless its session was closed before `forgotten`.
pub(crate) async fn open(
    connection: &mut PgConnection,
    org: OrgId,
    agent: AgentId,
    controller: ControllerId,
    said: Said<'_>,
    forgotten: Timestamp,
    now: Timestamp,
) -> Result<Option<Numbers>> {
    sqlx::query_as!(
        Numbers,
        "with opened as (
             insert into sessions as s (agent_id, org_id, controller_id, epoch, fence, boot_id, since_boot, connected,
                                        opened_at)
             values ($1, $2, $3, 1, $5::bigint + 1, $6, $7, true, $4)
             on conflict (agent_id) do update
                 set controller_id = $3, epoch = s.epoch + 1, fence = greatest(s.fence, $5::bigint) + 1, boot_id = $6,
                     since_boot = $7, connected = true, opened_at = $4, closed_at = null
                 where s.boot_id <> $6 or s.since_boot <= $7 or (not s.connected and s.closed_at < $8)
             returning epoch, fence
         ), event as (
             insert into events (id, org_id, at, kind, object, data)
             select new_uuid_v7($4), $2, $4, 'agent.connected', 'agent/' || $1::uuid,
                    jsonb_build_object('name', (select name from agents where id = $1), 'controller_id', $3::uuid)
             from opened
         )
         select epoch, fence from opened",
        agent.0,
        org.0,
        controller.0,
        now.to_sqlx(),
        said.obeyed,
        said.boot_id,
        said.since_boot,
        forgotten.to_sqlx()
    )
    .fetch_optional(connection)
    .await
    .during("opening of the session")
}

/// Closes the session, unless a newer one has taken its place.
pub(crate) async fn close(pool: &PgPool, agent: AgentId, epoch: i64, now: Timestamp) -> Result<()> {
    sqlx::query!(
        "with closed as (
             update sessions set connected = false, closed_at = $3
             where agent_id = $1 and epoch = $2 and connected returning agent_id, controller_id
         ), seen as (
             update agents set last_seen_at = $3 where id in (select agent_id from closed)
         )
         insert into events (id, org_id, at, kind, object, data)
         select new_uuid_v7($3), a.org_id, $3, 'agent.disconnected', 'agent/' || a.id,
                jsonb_build_object('name', a.name, 'controller_id', c.controller_id)
         from closed c join agents a on a.id = c.agent_id",
        agent.0,
        epoch,
        now.to_sqlx()
    )
    .execute(pool)
    .await
    .during("closing of the session")?;
    Ok(())
}

/// Closes what an earlier process of this controller left open.
pub(crate) async fn close_all_of(pool: &PgPool, controller: ControllerId, now: Timestamp) -> Result<u64> {
    let done = sqlx::query!(
        "with closed as (
             update sessions set connected = false, closed_at = $2 where controller_id = $1 and connected
             returning agent_id
         )
         insert into events (id, org_id, at, kind, object, data)
         select new_uuid_v7($2), a.org_id, $2, 'agent.disconnected', 'agent/' || a.id,
                jsonb_build_object('name', a.name, 'controller_id', $1::uuid)
         from closed c join agents a on a.id = c.agent_id",
        controller.0,
        now.to_sqlx()
    )
    .execute(pool)
    .await
    .during("closing of old sessions")?;
    Ok(done.rows_affected())
}

/// The sessions that the tables say this controller serves: agent, epoch, and when it opened.
pub(crate) async fn of_controller(
    pool: &PgPool,
    controller: ControllerId,
) -> Result<Vec<(AgentId, i64, Timestamp)>> {
    let records = sqlx::query!(
        "select agent_id, epoch, opened_at from sessions where controller_id = $1 and connected",
        controller.0
    )
    .fetch_all(pool)
    .await
    .during("query for sessions")?;
    Ok(records.into_iter().map(|r| (r.agent_id.into(), r.epoch, r.opened_at.to_jiff())).collect())
}

/// Holds the current sessions of these agents, with their epochs, until the transaction ends: a newer one waits to open, and
/// then sees what this one was offered.
///
/// It is no join with the epochs: one that was planned while few agents were known compares each with each.
pub(crate) async fn hold(
    connection: &mut PgConnection,
    controller: ControllerId,
    agents: &[Uuid],
) -> Result<Vec<(Uuid, i64)>> {
    let records = sqlx::query!(
        "select agent_id, epoch from sessions
         where agent_id = any($1) and connected and controller_id = $2
         for share skip locked",
        agents,
        controller.0
    )
    .fetch_all(connection)
    .await
    .during("lock of sessions")?;
    Ok(records.into_iter().map(|r| (r.agent_id, r.epoch)).collect())
}

/// Waits until no dispatcher holds the agent's session: what is offered from then on sees the present state of the tables.
pub(crate) async fn await_dispatch(pool: &PgPool, agent: AgentId) -> Result<()> {
    sqlx::query_scalar!("select agent_id from sessions where agent_id = $1 for update", agent.0)
        .fetch_optional(pool)
        .await
        .during("wait for the dispatcher")?;
    Ok(())
}

/// Closes the sessions of other controllers whose lease is over. A controller knows better of its own.
pub(crate) async fn close_leaseless(pool: &PgPool, me: ControllerId) -> Result<u64> {
    let done = sqlx::query!(
        "with closed as (
             update sessions s set connected = false, closed_at = now()
             from controllers c where c.id = s.controller_id and c.id <> $1 and s.connected and c.lease_until < now()
             returning s.agent_id, s.controller_id
         )
         insert into events (id, org_id, at, kind, object, data)
         select new_uuid_v7(now()), a.org_id, now(), 'agent.disconnected', 'agent/' || a.id,
                jsonb_build_object('name', a.name, 'controller_id', c.controller_id)
         from closed c join agents a on a.id = c.agent_id",
        me.0
    )
    .execute(pool)
    .await
    .during("closing of sessions without a lease")?;
    Ok(done.rows_affected())
}
