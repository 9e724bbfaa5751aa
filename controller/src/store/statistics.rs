//! Counts and durations: of one organization, or of all of them for the metrics.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::statistics::{Bucket, People},
    id::OrgId,
};
use sqlx::PgPool;

use crate::error::{During, Result};

/// Executions of one state that were started in one bucket, with the counts of their runs.
#[derive(Debug)]
pub(crate) struct Started {
    pub start: Timestamp,
    pub state: String,
    pub executions: i64,
    pub runs: Vec<(&'static str, i64)>,
}

/// How long the runs took of what was started in one bucket, or, without one, in all of them.
#[derive(Debug)]
pub(crate) struct Durations {
    pub start: Option<Timestamp>,
    pub p50_seconds: f64,
    pub p95_seconds: f64,
}

/// The people of each organization by its name; those count as active who entered since `since`.
pub(crate) async fn people(
    pool: &PgPool,
    org: Option<OrgId>,
    since: Timestamp,
) -> Result<Vec<(String, People)>> {
    let records = sqlx::query!(
        r#"with used as (
               select org_id, user_id from login_sessions
               where ($1::uuid is null or org_id = $1) and last_used_at >= $2
               union
               select org_id, user_id from api_tokens
               where ($1::uuid is null or org_id = $1) and user_id is not null and last_used_at >= $2
           )
           select o.name, count(u.id) as "total!", count(u.disabled_at) as "disabled!",
                  count(u.totp_confirmed_at) as "with_second_factor!", count(used.user_id) as "active!",
                  (select count(*) from service_accounts s where s.org_id = o.id) as "service_accounts!"
           from organizations o
                left join memberships m on m.org_id = o.id
                left join users u on u.id = m.user_id
                left join used on used.org_id = m.org_id and used.user_id = m.user_id
           where ($1::uuid is null or o.id = $1)
           group by o.id"#,
        org.map(|org| org.0),
        since.to_sqlx()
    )
    .fetch_all(pool)
    .await
    .during("count of people")?;
    Ok(records
        .into_iter()
        .map(|r| {
            let people = People {
                total: r.total,
                disabled: r.disabled,
                with_second_factor: r.with_second_factor,
                active: r.active,
                service_accounts: r.service_accounts,
            };
            (r.name, people)
        })
        .collect())
}

/// Hosts by the state of their agents, as `GET /api/v1/agents` shows it.
pub(crate) async fn hosts(pool: &PgPool, org: Option<OrgId>) -> Result<Vec<(String, i64)>> {
    let records = sqlx::query!(
        r#"select case when a.pending then 'pending' when a.draining_since is not null then 'draining'
                       when s.connected then 'online' else 'offline' end as "state!", count(*) as "count!"
           from agents a left join sessions s on s.agent_id = a.id
           where ($1::uuid is null or a.org_id = $1) and a.revoked_at is null
           group by 1"#,
        org.map(|org| org.0)
    )
    .fetch_all(pool)
    .await
    .during("count of hosts")?;
    Ok(records.into_iter().map(|r| (r.state, r.count)).collect())
}

/// What was started from `since` to `until`, by bucket and state.
pub(crate) async fn started(
    pool: &PgPool,
    org: Option<OrgId>,
    since: Timestamp,
    until: Timestamp,
    bucket: Bucket,
) -> Result<Vec<Started>> {
    let records = sqlx::query!(
        r#"select date_trunc($4, created_at, 'UTC') as "start!: jiff_sqlx::Timestamp", state, count(*) as "executions!",
                  sum(runs_waiting) as "waiting!", sum(runs_active) as "active!", sum(runs_succeeded) as "succeeded!",
                  sum(runs_failed) as "failed!", sum(runs_cancelled) as "cancelled!", sum(runs_timed_out) as "timed_out!",
                  sum(runs_skipped) as "skipped!", sum(runs_expired) as "expired!", sum(runs_unknown) as "unknown!"
           from executions
           where ($1::uuid is null or org_id = $1) and id >= uuid_v7_floor($2) and id < uuid_v7_floor($3)
           group by 1, 2"#,
        org.map(|org| org.0),
        since.to_sqlx(),
        until.to_sqlx(),
        bucket.as_str()
    )
    .fetch_all(pool)
    .await
    .during("count of executions")?;
    Ok(records
        .into_iter()
        .map(|r| Started {
            start: r.start.to_jiff(),
            state: r.state,
            executions: r.executions,
            runs: vec![
                ("waiting", r.waiting),
                ("active", r.active),
                ("succeeded", r.succeeded),
                ("failed", r.failed),
                ("cancelled", r.cancelled),
                ("timed_out", r.timed_out),
                ("skipped", r.skipped),
                ("expired", r.expired),
                ("unknown", r.unknown),
            ],
        })
        .collect())
}

/// How long the runs took that have ended of what was started from `since` to `until`, by bucket and in all.
pub(crate) async fn durations(
    pool: &PgPool,
    org: Option<OrgId>,
    since: Timestamp,
    until: Timestamp,
    bucket: Bucket,
) -> Result<Vec<Durations>> {
    let records = sqlx::query!(
        r#"select date_trunc($4, e.created_at, 'UTC') as "start: jiff_sqlx::Timestamp",
                  percentile_cont(array[0.5, 0.95]) within group (
                      order by extract(epoch from r.ended_at - r.started_at)::float8) as "seconds!"
           from executions e
           join runs r on r.execution_id = e.id
           where ($1::uuid is null or e.org_id = $1) and e.id >= uuid_v7_floor($2) and e.id < uuid_v7_floor($3)
             and r.execution_id >= uuid_v7_floor($2) and r.execution_id < uuid_v7_floor($3)
             and r.started_at is not null and r.ended_at is not null
           group by grouping sets ((date_trunc($4, e.created_at, 'UTC')), ())
           having count(*) > 0"#,
        org.map(|org| org.0),
        since.to_sqlx(),
        until.to_sqlx(),
        bucket.as_str()
    )
    .fetch_all(pool)
    .await
    .during("query for durations")?;
    Ok(records
        .into_iter()
        .map(|r| Durations {
            start: r.start.map(jiff_sqlx::Timestamp::to_jiff),
            p50_seconds: r.seconds.first().copied().unwrap_or_default(),
            p95_seconds: r.seconds.last().copied().unwrap_or_default(),
        })
        .collect())
}
