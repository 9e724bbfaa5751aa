//! Agents: the managed hosts.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::agent::{Agent, AgentState},
    id::{AgentId, OrgId},
    job::context,
    label::{Facts, Labels},
    selector::Selector,
};
use sqlx::{FromRow, PgConnection, PgPool, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{host_metrics, runs, selector_sql};
use crate::error::{During, Result};

/// An agent to be.
#[derive(Debug)]
pub(crate) struct NewAgent<'a> {
    pub id: AgentId,
    pub org_id: OrgId,
    pub name: &'a str,
    pub labels: &'a Labels,
    pub facts: &'a Facts,
    pub version: &'a str,
    pub pending: bool,
    pub serial: &'a [u8],
    pub certificate_not_before: Timestamp,
    pub certificate_expires_at: Timestamp,
    pub result_key: &'a [u8],
    pub seal_key: &'a [u8],
}

/// What decides whether a certificate still counts.
#[derive(Debug)]
pub(crate) struct Standing {
    pub name: String,
    pub pending: bool,
    pub revoked: bool,
    pub serial_current: Vec<u8>,
    pub serial_new: Option<Vec<u8>>,
    pub result_key: Vec<u8>,
    pub seal_key: Vec<u8>,
}

/// What the labels of an agent are judged with.
#[derive(Debug)]
pub(crate) struct Labelled {
    pub name: String,
    pub labels: Json<Labels>,
    pub facts: Json<Facts>,
    pub revoked: bool,
}

/// A target that a request selected.
#[derive(Debug, FromRow)]
pub(crate) struct Target {
    pub id: Uuid,
    pub name: String,
    /// It is among the hosts that the request may touch.
    pub allowed: bool,
    pub connected: bool,
    pub draining: bool,
}

const COLUMNS: &str = "a.id, a.name, a.labels, a.facts, a.slots, a.version, a.pending,
    a.revoked_at is not null as revoked, a.draining_since is not null as draining, coalesce(s.connected, false) as connected,
    a.enrolled_at, a.last_seen_at, a.certificate_expires_at";
const TABLES: &str = " from agents a left join sessions s on s.agent_id = a.id ";

#[derive(FromRow)]
struct Row {
    id: Uuid,
    name: String,
    labels: Json<Labels>,
    facts: Json<Facts>,
    slots: i32,
    version: String,
    pending: bool,
    revoked: bool,
    draining: bool,
    connected: bool,
    enrolled_at: jiff_sqlx::Timestamp,
    last_seen_at: Option<jiff_sqlx::Timestamp>,
    certificate_expires_at: jiff_sqlx::Timestamp,
}

impl From<Row> for Agent {
    fn from(row: Row) -> Self {
        let state = match (row.revoked, row.pending, row.draining, row.connected) {
            (true, ..) => AgentState::Revoked,
            (_, true, ..) => AgentState::Pending,
            (_, _, true, _) => AgentState::Draining,
            (.., true) => AgentState::Online,
            (.., false) => AgentState::Offline,
        };
        Self {
            id: row.id.into(),
            name: row.name,
            state,
            connected: row.connected,
            labels: row.labels.0,
            facts: row.facts.0,
            slots: row.slots,
            version: row.version,
            enrolled_at: row.enrolled_at.to_jiff(),
            last_seen_at: row.last_seen_at.map(jiff_sqlx::Timestamp::to_jiff),
            certificate_expires_at: row.certificate_expires_at.to_jiff(),
            load: None,
            metrics: None,
        }
    }
}

/// Agents by name, from behind the name `after`; all of them or those that the selector holds for.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    selector: Option<&Selector>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Agent>> {
    let mut query = QueryBuilder::<Postgres>::new("select ");
    query.push(COLUMNS).push(TABLES).push(" where a.org_id = ").push_bind(org.0);
    if let Some(after) = after {
        query.push(" and a.name > ").push_bind(after);
    }
    match selector {
        Some(selector) => {
            query.push(" and a.revoked_at is null and ");
            selector_sql::push_predicate(&mut query, selector);
        }
        None => {
            query.push(" and a.revoked_at is null");
        }
    }
    // In the text, where the planner sees that few rows are wanted: with a parameter it makes the plan anew each time, which
    // takes longer than the query.
    query.push(format_args!(" order by a.name limit {limit}"));
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await.during("query for agents")?;
    Ok(rows.into_iter().map(Agent::from).collect())
}

/// The agent with its load and newest metrics, revoked or not.
pub(crate) async fn get(pool: &PgPool, org: OrgId, id: AgentId) -> Result<Option<Agent>> {
    let mut query = QueryBuilder::<Postgres>::new("select ");
    query.push(COLUMNS).push(TABLES).push(" where a.org_id = ").push_bind(org.0);
    query.push(" and a.id = ").push_bind(id.0);
    one(pool, org, query).await
}

/// The agent that has this name now, with its load and newest metrics.
pub(crate) async fn by_name(pool: &PgPool, org: OrgId, name: &str) -> Result<Option<Agent>> {
    let mut query = QueryBuilder::<Postgres>::new("select ");
    query.push(COLUMNS).push(TABLES).push(" where a.org_id = ").push_bind(org.0);
    query.push(" and a.revoked_at is null and a.name = ").push_bind(name);
    one(pool, org, query).await
}

async fn one(pool: &PgPool, org: OrgId, mut query: QueryBuilder<Postgres>) -> Result<Option<Agent>> {
    let row: Option<Row> = query.build_query_as().fetch_optional(pool).await.during("query for an agent")?;
    let Some(row) = row else { return Ok(None) };
    let mut agent = Agent::from(row);
    agent.load = Some(runs::load(pool, org, agent.id).await?);
    agent.metrics = host_metrics::newest(pool, org, agent.id).await?;
    Ok(Some(agent))
}

/// Which of an organization's agents a request means.
#[derive(Debug)]
pub(crate) enum Wanted<'a> {
    All,
    Named(&'a [String]),
    Selected(&'a Selector),
}

/// The ids of all agents that the selector matches, revoked ones too.
pub(crate) async fn ids(pool: &PgPool, org: OrgId, selector: &Selector) -> Result<Vec<Uuid>> {
    let mut query = QueryBuilder::<Postgres>::new("select a.id from agents a where a.org_id = ");
    query.push_bind(org.0).push(" and ");
    selector_sql::push_predicate(&mut query, selector);
    query.build_query_scalar().fetch_all(pool).await.during("query for the agents of a scope")
}

/// The agents that can be a target now: approved and not revoked, by name.
pub(crate) async fn targets(
    connection: &mut PgConnection,
    org: OrgId,
    wanted: Wanted<'_>,
    exclude: Option<&Selector>,
    touchable: Option<&Selector>,
) -> Result<Vec<Target>> {
    let mut query = QueryBuilder::<Postgres>::new("select a.id, a.name, ");
    match touchable {
        Some(touchable) => selector_sql::push_predicate(&mut query, touchable),
        None => drop(query.push("true")),
    }
    query
        .push(" as allowed, exists (select from sessions s where s.agent_id = a.id and s.connected) as connected,
                a.draining_since is not null as draining from agents a where a.org_id = ")
        .push_bind(org.0)
        .push(" and a.revoked_at is null and not a.pending");
    match wanted {
        Wanted::All => {}
        Wanted::Named(names) => {
            query.push(" and a.name = any(").push_bind(names).push(")");
        }
        Wanted::Selected(selector) => {
            query.push(" and ");
            selector_sql::push_predicate(&mut query, selector);
        }
    }
    if let Some(exclude) = exclude {
        query.push(" and not ");
        selector_sql::push_predicate(&mut query, exclude);
    }
    query.push(" order by a.name");
    query.build_query_as().fetch_all(connection).await.during("query for targets")
}

/// Those of these agents that are connected, or were a moment ago.
pub(crate) async fn there(
    connection: &mut PgConnection,
    agents: &[Uuid],
    since: Timestamp,
) -> Result<std::collections::BTreeSet<AgentId>> {
    let ids = sqlx::query_scalar!(
        "select agent_id from sessions where agent_id = any($1) and (connected or closed_at > $2)",
        agents,
        since.to_sqlx()
    )
    .fetch_all(connection)
    .await
    .during("query for connected agents")?;
    Ok(ids.into_iter().map(AgentId).collect())
}

/// What templates see of these agents.
pub(crate) async fn described(
    connection: &mut PgConnection,
    agents: &[Uuid],
) -> Result<HashMap<AgentId, context::Host>> {
    let rows = sqlx::query!(
        r#"select id, name, labels as "labels: Json<Labels>", facts as "facts: Json<Facts>" from agents where id = any($1)"#,
        agents
    )
    .fetch_all(connection)
    .await
    .during("query for the hosts of templates")?;
    Ok(rows
        .into_iter()
        .map(|r| (r.id.into(), context::Host { name: r.name, labels: r.labels.0, facts: r.facts.0 }))
        .collect())
}

pub(crate) async fn insert(
    connection: &mut PgConnection,
    agent: &NewAgent<'_>,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into agents (id, org_id, name, labels, facts, version, pending, enrolled_at, serial_current,
                             certificate_not_before, certificate_expires_at, result_key, seal_key)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, date_trunc('second', $10::timestamptz), $11, $12, $13)
         on conflict (org_id, name) where revoked_at is null do nothing",
        agent.id.0,
        agent.org_id.0,
        agent.name,
        Json(agent.labels) as _,
        Json(agent.facts) as _,
        agent.version,
        agent.pending,
        now.to_sqlx(),
        agent.serial,
        agent.certificate_not_before.to_sqlx(),
        agent.certificate_expires_at.to_sqlx(),
        agent.result_key,
        agent.seal_key
    )
    .execute(connection)
    .await
    .during("insert of the agent")?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn standing(pool: &PgPool, org: OrgId, id: AgentId) -> Result<Option<Standing>> {
    sqlx::query_as!(
        Standing,
        r#"select name, pending, revoked_at is not null as "revoked!", serial_current, serial_new, result_key,
                  seal_key
           from agents where org_id = $1 and id = $2"#,
        org.0,
        id.0
    )
    .fetch_optional(pool)
    .await
    .during("query for the agent's standing")
}

/// The first call with the new serial retires the current one.
pub(crate) async fn promote_serial(pool: &PgPool, id: AgentId, serial: &[u8]) -> Result<()> {
    sqlx::query!(
        "update agents set serial_current = serial_new, serial_new = null where id = $1 and serial_new = $2",
        id.0,
        serial
    )
    .execute(pool)
    .await
    .during("change of the agent's serial")?;
    Ok(())
}

/// Takes over a serial that this database never heard of, of a certificate that began after all that it knows of; `false`
/// when it did not. The start counts, not the end: the configured life may have become shorter.
pub(crate) async fn adopt_serial(
    pool: &PgPool,
    id: AgentId,
    serial: &[u8],
    not_before: Timestamp,
    expires_at: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "update agents set serial_current = $2, serial_new = null, certificate_not_before = $3,
                           certificate_expires_at = $4
         where id = $1 and certificate_not_before < $3 and revoked_at is null",
        id.0,
        serial,
        not_before.to_sqlx(),
        expires_at.to_sqlx()
    )
    .execute(pool)
    .await
    .during("adoption of the agent's serial")?;
    Ok(done.rows_affected() == 1)
}

/// Notes the serial of a renewed certificate, beside the current one. Certificates name whole seconds. Of two controllers
/// one may be behind: the latest start stays.
pub(crate) async fn set_new_serial(
    connection: &mut PgConnection,
    id: AgentId,
    serial: &[u8],
    not_before: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update agents set serial_new = $2, certificate_expires_at = $4,
                certificate_not_before = greatest(certificate_not_before, date_trunc('second', $3::timestamptz))
         where id = $1 and revoked_at is null",
        id.0,
        serial,
        not_before.to_sqlx(),
        expires_at.to_sqlx()
    )
    .execute(connection)
    .await
    .during("note of the renewed certificate")?;
    Ok(())
}

/// What an agent said of itself when its session opened.
/// Writes what the agent said, and gives the epoch of the journal that it had until now; empty if it had none.
pub(crate) async fn update_at_hello(
    connection: &mut PgConnection,
    id: AgentId,
    facts: &Facts,
    version: &str,
    slots: i32,
    journal_epoch: &[u8],
    now: Timestamp,
) -> Result<Vec<u8>> {
    sqlx::query_scalar!(
        "with until_now as (select id, journal_epoch from agents where id = $1 for update)
         update agents a
         set facts = $2, version = $3, slots = $4, journal_epoch = $5, last_seen_at = $6
         from until_now u where a.id = u.id returning u.journal_epoch",
        id.0,
        Json(facts) as _,
        version,
        slots,
        journal_epoch,
        now.to_sqlx()
    )
    .fetch_one(connection)
    .await
    .during("update of the agent")
}

pub(crate) async fn update_facts(pool: &PgPool, id: AgentId, facts: &Facts, now: Timestamp) -> Result<()> {
    sqlx::query!(
        "update agents set facts = $2, last_seen_at = $3 where id = $1",
        id.0,
        Json(facts) as _,
        now.to_sqlx()
    )
    .execute(pool)
    .await
    .during("update of the agent's facts")?;
    Ok(())
}

/// Revokes; `false` when there is no such agent or it was revoked before.
pub(crate) async fn revoke(
    connection: &mut PgConnection,
    org: OrgId,
    id: AgentId,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "update agents set revoked_at = $3 where org_id = $1 and id = $2 and revoked_at is null",
        org.0,
        id.0,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("revocation of the agent")?;
    Ok(done.rows_affected() == 1)
}

/// Approves a pending agent; `false` when there is none.
pub(crate) async fn approve(connection: &mut PgConnection, org: OrgId, id: AgentId) -> Result<bool> {
    let done = sqlx::query!(
        "update agents set pending = false where org_id = $1 and id = $2 and pending and revoked_at is null",
        org.0,
        id.0
    )
    .execute(connection)
    .await
    .during("approval of the agent")?;
    Ok(done.rows_affected() == 1)
}

/// The agent with its labels, which nobody else changes before the transaction ends.
pub(crate) async fn lock_labels(
    connection: &mut PgConnection,
    org: OrgId,
    id: AgentId,
) -> Result<Option<Labelled>> {
    sqlx::query_as!(
        Labelled,
        r#"select name, labels as "labels: Json<Labels>", facts as "facts: Json<Facts>",
                  revoked_at is not null as "revoked!"
           from agents where org_id = $1 and id = $2 for update"#,
        org.0,
        id.0
    )
    .fetch_optional(connection)
    .await
    .during("query for the agent's labels")
}

/// Writes the labels of an agent whose row is locked.
pub(crate) async fn set_labels(
    connection: &mut PgConnection,
    org: OrgId,
    id: AgentId,
    labels: &Labels,
) -> Result<()> {
    sqlx::query!(
        "update agents set labels = $3 where org_id = $1 and id = $2",
        org.0,
        id.0,
        Json(labels) as _
    )
    .execute(connection)
    .await
    .during("change of the agent's labels")?;
    Ok(())
}

/// Begins or ends an agent's drain; `false` when there is no such agent, or that is how it is already.
pub(crate) async fn set_draining(
    connection: &mut PgConnection,
    org: OrgId,
    id: AgentId,
    since: Option<Timestamp>,
) -> Result<bool> {
    let done = sqlx::query!(
        "update agents set draining_since = $3
         where org_id = $1 and id = $2 and revoked_at is null
           and (draining_since is null) <> ($3::timestamptz is null)",
        org.0,
        id.0,
        since.map(ToSqlx::to_sqlx) as _
    )
    .execute(connection)
    .await
    .during("drain of the agent")?;
    Ok(done.rows_affected() == 1)
}

/// Agents that were revoked at or after `since`.
pub(crate) async fn revoked_since(pool: &PgPool, since: Timestamp) -> Result<Vec<AgentId>> {
    let ids = sqlx::query_scalar!("select id from agents where revoked_at >= $1", since.to_sqlx())
        .fetch_all(pool)
        .await
        .during("query for revoked agents")?;
    Ok(ids.into_iter().map(AgentId).collect())
}
