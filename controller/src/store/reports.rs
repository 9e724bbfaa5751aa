//! What the report of access is made of: all that is granted, all hosts, and what was run.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::report::{Did, Way},
    id::{OrgId, uuid_v7_floor},
    label::Labels,
};
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::role_bindings::Reaching;
use crate::error::{During, Result};

/// Somebody with one of the bindings that reach him; a person without any has none.
#[derive(Debug)]
pub(crate) struct Holding {
    /// A person's name, or `service/NAME`.
    pub who: String,
    pub disabled: bool,
    pub binding: Option<Reaching>,
}

/// A host that is not revoked.
#[derive(Debug)]
pub(crate) struct Host {
    pub name: String,
    pub labels: Json<Labels>,
}

/// Everybody with what reaches him, also through groups; in the order of the names. At most `limit` rows.
pub(crate) async fn holdings(
    pool: &PgPool,
    org: OrgId,
    who: Option<&str>,
    limit: i64,
) -> Result<Vec<Holding>> {
    let rows = sqlx::query!(
        r#"with subject as (
               select u.id as user_id, null::uuid as service_account_id, u.name as who, u.disabled_at is not null as disabled
               from memberships m join users u on u.id = m.user_id where m.org_id = $1
               union all
               select null, s.id, 'service/' || s.name, s.disabled_at is not null from service_accounts s where s.org_id = $1
           ), reaching as (
               select b.id, b.role, b.hosts, b.jobs, coalesce(b.user_id, m.user_id) as user_id, b.service_account_id,
                      g.name as group_name, r.permissions
               from role_bindings b
                    left join groups g on g.id = b.group_id
                    left join group_members m on m.org_id = $1 and m.group_id = b.group_id
                    left join roles r on r.org_id = $1 and r.name = b.role
               where b.org_id = $1
           )
           select s.who as "who!", s.disabled as "disabled!", r.id as "id?", r.role as "role?", r.permissions as "permissions?",
                  r.group_name as "group?", r.hosts as "hosts?", r.jobs as "jobs?"
           from subject s
                left join reaching r on r.user_id = s.user_id or r.service_account_id = s.service_account_id
           where $2::text is null or s.who = $2
           order by s.who, r.id limit $3"#,
        org.0,
        who,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for what is granted")?;
    Ok(rows
        .into_iter()
        .map(|row| Holding {
            who: row.who,
            disabled: row.disabled,
            binding: row.id.zip(row.role).map(|(id, role)| Reaching {
                id,
                role,
                permissions: row.permissions,
                group: row.group,
                hosts: row.hosts,
                jobs: row.jobs,
            }),
        })
        .collect())
}

/// By name; the one called `only`, or at most `limit`.
pub(crate) async fn hosts(pool: &PgPool, org: OrgId, only: Option<&str>, limit: i64) -> Result<Vec<Host>> {
    sqlx::query_as!(
        Host,
        r#"select name, labels as "labels: Json<Labels>" from agents
           where org_id = $1 and revoked_at is null and ($2::text is null or name = $2) order by name limit $3"#,
        org.0,
        only,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for hosts")
}

/// What was handed out and is open now: API tokens, invitations, tokens for a new password. Of somebody, or all of it.
pub(crate) async fn ways(
    pool: &PgPool,
    org: OrgId,
    who: Option<&str>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Way>> {
    let rows = sqlx::query!(
        r#"select w.kind as "kind!", w.who as "who?", w.name as "name!", w.gives as "gives!", w.hosts as "hosts?",
                  w.created_by as "created_by!", w.expires_at as "expires_at!"
           from (
               select 'api_token' as kind, coalesce(u.name, 'service/' || s.name) as who, t.name,
                      case when t.permissions = '{*}' then 'all' else array_to_string(t.permissions, ' ') end as gives,
                      t.hosts, t.created_by, t.expires_at
               from api_tokens t
                    left join users u on u.id = t.user_id
                    left join service_accounts s on s.id = t.service_account_id
               where t.org_id = $1 and t.revoked_at is null and t.expires_at > $3
               union all
               select o.purpose, u.name, o.id::text,
                      case when o.purpose = 'invitation' then coalesce(o.role, '') else 'all' end, null, o.created_by, o.expires_at
               from one_time_tokens o left join users u on u.id = o.user_id
               where o.org_id = $1 and o.used_at is null and o.expires_at > $3
           ) w
           where $2::text is null or w.who = $2
           order by w.kind, w.who, w.name, w.expires_at limit $4"#,
        org.0,
        who,
        now.to_sqlx(),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for what was handed out")?;
    Ok(rows
        .into_iter()
        .map(|row| Way {
            kind: row.kind,
            who: row.who,
            name: row.name,
            gives: row.gives,
            hosts: row.hosts,
            created_by: row.created_by,
            expires_at: row.expires_at.to_jiff(),
        })
        .collect())
}

/// What was started in that time, on each host, the oldest first.
pub(crate) async fn runs(
    pool: &PgPool,
    org: OrgId,
    (since, until): (Timestamp, Timestamp),
    (who, host): (Option<&str>, Option<&str>),
    limit: i64,
) -> Result<Vec<Did>> {
    let (first, last): (Uuid, Uuid) = (uuid_v7_floor(since), uuid_v7_floor(until));
    let rows = sqlx::query!(
        "select e.created_at, e.actor, r.target, e.id, e.summary, r.state
         from executions e join runs r on r.execution_id = e.id and r.org_id = e.org_id
         where e.org_id = $1 and e.id >= $2 and e.id < $3 and e.created_at >= $4 and e.created_at < $5
           and r.execution_id >= $2 and r.execution_id < $3
           and ($6::text is null or e.actor = $6) and ($7::text is null or r.target = $7)
         order by e.id, r.target limit $8",
        org.0,
        first,
        last,
        since.to_sqlx(),
        until.to_sqlx(),
        who,
        host,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for what was run")?;
    Ok(rows
        .into_iter()
        .map(|row| Did {
            at: row.created_at.to_jiff(),
            who: row.actor,
            host: row.target,
            execution_id: row.id.into(),
            summary: row.summary,
            state: row.state,
        })
        .collect())
}
