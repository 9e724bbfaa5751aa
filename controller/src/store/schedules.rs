//! Schedules: what each says, and the first of its firings that is not accounted for. Whoever fires holds its row.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::schedule::{Schedule, ScheduleState},
    execution::ExecutionState,
    id::{ExecutionId, JobId, OrgId, ScheduleId},
    label::Labels,
    schedule::{self, Source},
    selector::Selector,
};
use sqlx::{FromRow, PgConnection, PgPool, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{
    executions::SignedManifest,
    selector_sql,
    versions::{SavedVersion, saved_version},
};
use crate::error::{During, Error, Result};

/// A schedule as it is saved.
#[derive(Debug)]
pub(crate) struct Saved<'a> {
    pub id: ScheduleId,
    pub org_id: OrgId,
    pub name: &'a str,
    pub job_id: JobId,
    pub document: &'a str,
    pub revision: i32,
    pub author: &'a str,
    pub author_id: &'a str,
    pub signed: &'a SignedManifest,
    /// The first firing, and when it begins.
    pub next: Option<(Timestamp, Timestamp)>,
    /// Where no clock starts it.
    pub trigger: Option<&'a Source>,
    pub at: Timestamp,
}

impl Saved<'_> {
    /// As the row says it, with the kind of events.
    fn starts_on(&self) -> (Option<&'static str>, Option<&str>) {
        match self.trigger {
            None => (None, None),
            Some(Source::Webhook(_)) => (Some("webhook"), None),
            Some(Source::Event(kind)) => (Some("event"), Some(kind)),
        }
    }
}

/// A row whose turn it is, locked.
#[derive(Debug)]
pub(crate) struct Due {
    pub id: ScheduleId,
    pub org_id: OrgId,
    pub organization: String,
    pub is_home: bool,
    pub job_id: JobId,
    /// The document with what was signed of it.
    pub saved: SavedVersion,
    pub accounted_until: Option<Timestamp>,
    pub next_due: Option<Timestamp>,
    pub is_paused: bool,
    /// Something came while somebody deleted it.
    pub is_deleted: bool,
    pub failures: i32,
    /// Executions that began before count for nothing.
    pub counted_from: Timestamp,
    /// Of its job.
    pub labels: Labels,
}

/// A row that is to be changed, locked, whether its document can be read or not.
#[derive(Debug)]
pub(crate) struct Locked {
    pub id: ScheduleId,
    pub name: String,
    pub job_id: JobId,
    pub document: String,
    pub revision: i32,
    pub author: String,
    pub accounted_until: Option<Timestamp>,
    pub next_due: Option<Timestamp>,
    pub is_paused: bool,
    /// It could not be fired.
    pub is_put_off: bool,
    /// It is not what somebody saved.
    pub is_halted: bool,
    /// Something else than a clock starts it.
    pub is_triggered: bool,
    /// Events do.
    pub is_listening: bool,
    /// Who saved it last.
    pub author_id: String,
    /// Of its job.
    pub labels: Labels,
}

/// Where a schedule stands when somebody has looked at it.
#[derive(Debug)]
pub(crate) struct Standing {
    pub id: ScheduleId,
    pub accounted_until: Option<Timestamp>,
    /// The next firing that is not accounted for.
    pub next_due: Option<Timestamp>,
    /// When somebody has to look at it.
    pub look_at: Option<Timestamp>,
    pub failures: i32,
    /// Why it is paused from now on.
    pub paused_because: Option<String>,
    /// It is not what somebody saved.
    pub is_halted: bool,
}

/// An execution of a schedule that has ended.
#[derive(Debug)]
pub(crate) struct End {
    pub schedule: ScheduleId,
    pub execution: ExecutionId,
    pub state: Option<ExecutionState>,
}

pub(crate) async fn insert(connection: &mut PgConnection, new: &Saved<'_>) -> Result<()> {
    let (starts_on, event_kind) = new.starts_on();
    sqlx::query!(
        "insert into schedules (id, org_id, name, job_id, document, revision, author, author_id, saved_at, signed,
                                signature, certificate, next_due, next_at, counted_from, created_at, updated_at,
                                starts_on, event_kind, events_after)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $9, $9, $9, $15, $16,
                 pg_current_xact_id()::text::bigint)",
        new.id.0,
        new.org_id.0,
        new.name,
        new.job_id.0,
        new.document,
        new.revision,
        new.author,
        new.author_id,
        new.at.to_sqlx(),
        new.signed.manifest,
        new.signed.signature,
        new.signed.certificate,
        new.next.map(|next| next.0.to_sqlx()) as _,
        new.next.map(|next| next.1.to_sqlx()) as _,
        starts_on,
        event_kind
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "schedules_name_key", "schedule", new.name))
    .during("insert of the schedule")?;
    Ok(())
}

/// All of it anew; failures are counted from the beginning. One that had no further firing, or was not what somebody saved, is not
/// paused any more: who saves it gives it some. The secret of its webhook is worth nothing any more when somebody else saves it.
pub(crate) async fn update(connection: &mut PgConnection, new: &Saved<'_>) -> Result<()> {
    let (starts_on, event_kind) = new.starts_on();
    sqlx::query!(
        "update schedules
         set name = $3, job_id = $4, document = $5, revision = $6, author = $7, author_id = $8, saved_at = $9, signed = $10,
             signature = $11, certificate = $12, next_due = $13, next_at = $14, updated_at = $9, failures = 0,
             counted_from = $9, put_off_until = null, halted_at = null,
             paused_at = case when halted_at is null and (next_due is not null or starts_on is not null) then paused_at end,
             paused_because = case when halted_at is null and (next_due is not null or starts_on is not null) then paused_because end,
             starts_on = $15, event_kind = $16,
             events_after = case when event_kind = $16 then events_after else pg_current_xact_id()::text::bigint end,
             secret_number = case when author_id = $8 then secret_number else -abs(secret_number) end
         where org_id = $2 and id = $1",
        new.id.0,
        new.org_id.0,
        new.name,
        new.job_id.0,
        new.document,
        new.revision,
        new.author,
        new.author_id,
        new.at.to_sqlx(),
        new.signed.manifest,
        new.signed.signature,
        new.signed.certificate,
        new.next.map(|next| next.0.to_sqlx()) as _,
        new.next.map(|next| next.1.to_sqlx()) as _,
        starts_on,
        event_kind
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "schedules_name_key", "schedule", new.name))
    .during("update of the schedule")?;
    Ok(())
}

/// Notes that all planned firings up to this one have a row.
pub(crate) async fn account(
    connection: &mut PgConnection,
    (org, id): (OrgId, ScheduleId),
    until: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update schedules set accounted_until = $3 where org_id = $1 and id = $2",
        org.0,
        id.0,
        until.to_sqlx()
    )
    .execute(connection)
    .await
    .during("update of the schedule")?;
    Ok(())
}

/// It fires no more; its occurrences stay.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    org: OrgId,
    id: ScheduleId,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update schedules set deleted_at = $3, next_due = null, next_at = null, updated_at = $3 where org_id = $1 and id = $2",
        org.0,
        id.0,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("delete of the schedule")?;
    Ok(())
}

/// Pauses it, or lets it go on.
pub(crate) async fn set_paused(
    connection: &mut PgConnection,
    (org, id): (OrgId, ScheduleId),
    because: Option<&str>,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update schedules
         set paused_at = case when $3::text is null then null else $4::timestamptz end, paused_because = $3, failures = 0,
             counted_from = $4, updated_at = $4
         where org_id = $1 and id = $2",
        org.0,
        id.0,
        because,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("pause of the schedule")?;
    Ok(())
}

/// How many an organization has.
pub(crate) async fn count(connection: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from schedules where org_id = $1 and deleted_at is null"#,
        org.0
    )
    .fetch_one(connection)
    .await
    .during("count of schedules")
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    job_id: Uuid,
    document: String,
    revision: i32,
    author: String,
    next_due: Option<jiff_sqlx::Timestamp>,
    paused: bool,
    paused_because: Option<String>,
    secret_number: i32,
    failures: i32,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
}

impl Row {
    fn read(self) -> Result<Schedule> {
        let schedule: schedule::Schedule = read(&self.document)?;
        let next = self.next_due.map(jiff_sqlx::Timestamp::to_jiff);
        let source = schedule.when.trigger().map(|trigger| &trigger.source);
        let state = match (self.paused, next) {
            (true, _) => ScheduleState::Paused,
            (false, None) if source.is_none() => ScheduleState::Over,
            (false, _) => ScheduleState::Active,
        };
        let has_hook = matches!(source, Some(Source::Webhook(_)));
        Ok(Schedule {
            id: self.id.into(),
            job_id: self.job_id.into(),
            state,
            paused_because: self.paused_because,
            schedule,
            revision: self.revision,
            author: self.author,
            next,
            webhook_path: has_hook.then(|| webhook_path(self.id.into())),
            webhook_has_secret: has_hook.then_some(self.secret_number > 0),
            failures: self.failures,
            created_at: self.created_at.to_jiff(),
            updated_at: self.updated_at.to_jiff(),
        })
    }
}

/// Where the deliveries for a schedule come.
pub(crate) fn webhook_path(id: ScheduleId) -> String {
    format!("/api/v1/hooks/{id}")
}

/// A document as it was saved.
///
/// # Errors
/// When this version of the program does not understand it: another one, or somebody else, wrote it.
pub(crate) fn read(document: &str) -> Result<schedule::Schedule> {
    serde_json::from_str(document).map_err(|error| {
        Error::Conflict(format!(
            "this controller cannot read the schedule ({error}): save it anew, or delete it"
        ))
    })
}

/// The schedule that has this id or name, with the labels of its job.
pub(crate) async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    key: &str,
) -> Result<Option<(Schedule, Labels)>> {
    let id = key.parse::<ScheduleId>().ok().map(|id| id.0);
    let row = sqlx::query!(
        r#"select s.id, s.job_id, s.document, s.revision, s.author, s.next_due, s.paused_at is not null as "paused!",
                  s.paused_because, s.secret_number, s.failures, s.created_at, s.updated_at, j.labels as "labels: Json<Labels>"
           from schedules s join jobs j on j.org_id = s.org_id and j.id = s.job_id
           where s.org_id = $1 and s.deleted_at is null and (s.id = $2 or s.name = $3)"#,
        org.0,
        id,
        key
    )
    .fetch_optional(connection)
    .await
    .during("query for the schedule")?;
    let Some(r) = row else { return Ok(None) };
    let row = Row {
        id: r.id,
        job_id: r.job_id,
        document: r.document,
        revision: r.revision,
        author: r.author,
        next_due: r.next_due,
        paused: r.paused,
        paused_because: r.paused_because,
        secret_number: r.secret_number,
        failures: r.failures,
        created_at: r.created_at,
        updated_at: r.updated_at,
    };
    Ok(Some((row.read()?, r.labels.0)))
}

/// Locks the schedule that has this id or name.
pub(crate) async fn lock(connection: &mut PgConnection, org: OrgId, key: &str) -> Result<Option<Locked>> {
    let id = key.parse::<ScheduleId>().ok().map(|id| id.0);
    let row = sqlx::query!(
        r#"select s.id, s.name, s.job_id, s.document, s.revision, s.author, s.accounted_until, s.next_due,
                  s.paused_at is not null as "is_paused!",
                  s.put_off_until is not null as "is_put_off!", s.halted_at is not null as "is_halted!", s.starts_on is not null as "is_triggered!",
                  coalesce(s.starts_on = 'event', false) as "is_listening!", s.author_id, j.labels as "labels: Json<Labels>"
           from schedules s join jobs j on j.org_id = s.org_id and j.id = s.job_id
           where s.org_id = $1 and s.deleted_at is null and (s.id = $2 or s.name = $3) for no key update of s"#,
        org.0,
        id,
        key
    )
    .fetch_optional(connection)
    .await
    .during("lock of the schedule")?;
    Ok(row.map(|r| Locked {
        id: r.id.into(),
        name: r.name,
        job_id: r.job_id.into(),
        document: r.document,
        revision: r.revision,
        author: r.author,
        accounted_until: r.accounted_until.map(jiff_sqlx::Timestamp::to_jiff),
        next_due: r.next_due.map(jiff_sqlx::Timestamp::to_jiff),
        is_paused: r.is_paused,
        is_put_off: r.is_put_off,
        is_halted: r.is_halted,
        is_triggered: r.is_triggered,
        is_listening: r.is_listening,
        author_id: r.author_id,
        labels: r.labels.0,
    }))
}

/// By name, from behind `after`; only those of one job, if that is given, and those of jobs that all `seen` hold for.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    job: Option<JobId>,
    seen: &[&Selector],
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Schedule>> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select s.id, s.job_id, s.document, s.revision, s.author, s.next_due, s.paused_at is not null as paused, \
                s.paused_because, s.secret_number, s.failures, s.created_at, s.updated_at \
         from schedules s join (select id, org_id, name, labels, '{}'::jsonb as facts from jobs) a \
              on a.org_id = s.org_id and a.id = s.job_id where s.deleted_at is null and s.org_id = ",
    );
    query.push_bind(org.0);
    if let Some(job) = job {
        query.push(" and s.job_id = ").push_bind(job.0);
    }
    if let Some(after) = after {
        query.push(" and s.name > ").push_bind(after.to_owned());
    }
    for selector in seen {
        query.push(" and ");
        selector_sql::push_predicate(&mut query, selector);
    }
    query.push(" order by s.name limit ").push_bind(limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await.during("query for schedules")?;
    let unreadable = |id: Uuid, error: &Error| {
        tracing::error!(schedule.id = %id, %error, "a schedule is left out of a list");
    };
    let each = rows.into_iter().map(|row| (row.id, row.read()));
    Ok(each.filter_map(|(id, read)| read.inspect_err(|error| unreadable(id, error)).ok()).collect())
}

/// When the next firing of all begins.
pub(crate) async fn next_at(pool: &PgPool) -> Result<Option<Timestamp>> {
    let at = sqlx::query_scalar!(
        r#"select next_at as "next_at!" from schedules where next_at is not null order by next_at limit 1"#
    )
    .fetch_optional(pool)
    .await
    .during("query for the next firing")?;
    Ok(at.map(jiff_sqlx::Timestamp::to_jiff))
}

/// Locks schedules whose time has come, of which an execution has ended, or for which something came. Of each of these who waits
/// for longest comes first, and none keeps the others from their turn. Those that somebody else has locked are his, and those that
/// are put off are not looked at. Each schedule's first end and arrival is found by a step in an index. What refers to a schedule (an occurrence that comes) does not wait for who holds it here.
pub(crate) async fn take(connection: &mut PgConnection, now: Timestamp, limit: i64) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"with due as (
               select id from schedules where next_at <= $1 and (put_off_until is null or put_off_until <= $1)
               order by next_at limit $2 for no key update skip locked
           ), with_ends as (
               select s.id, e.at from schedules s join (
                   with recursive each as (
                       (select schedule_id, at from schedule_ends order by schedule_id, at limit 1)
                       union all
                       select n.schedule_id, n.at from each cross join lateral (
                           select schedule_id, at from schedule_ends where schedule_id > each.schedule_id
                           order by schedule_id, at limit 1) n
                   ) select * from each
               ) e on e.schedule_id = s.id
               where s.put_off_until is null or s.put_off_until <= $1
           ), ended as (
               select s.id from schedules s join with_ends e on e.id = s.id
               order by e.at limit greatest($2 / 4, 1) for no key update of s skip locked
           ), with_arrivals as (
               select s.id, o.due from schedules s join (
                   with recursive each as (
                       (select schedule_id, due from occurrences
                        where delivery is not null and state = 'waiting' and cause is null order by schedule_id, due limit 1)
                       union all
                       select n.schedule_id, n.due from each cross join lateral (
                           select schedule_id, due from occurrences
                           where delivery is not null and state = 'waiting' and cause is null and schedule_id > each.schedule_id
                           order by schedule_id, due limit 1) n
                   ) select * from each
               ) o on o.schedule_id = s.id
               where s.put_off_until is null or s.put_off_until <= $1
           ), arrived as (
               select s.id from schedules s join with_arrivals o on o.id = s.id
               order by o.due limit greatest($2 / 4, 1) for no key update of s skip locked
           )
           select id as "id!" from due union select id from ended union select id from arrived
           limit case when $2 = 1 then 1 end"#,
        now.to_sqlx(),
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for schedules whose time has come")
}

/// Schedules that were taken, as they are now that they are locked.
pub(crate) async fn taken(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Due>> {
    let rows = sqlx::query!(
        r#"select s.id, s.org_id, o.name as organization, coalesce(s.org_id = i.home_org_id, false) as "is_home!", s.job_id,
                  s.document, s.revision, s.author, s.author_id, s.saved_at, s.signed, s.signature, s.certificate,
                  s.accounted_until, s.next_due, s.paused_at is not null as "is_paused!",
                  s.deleted_at is not null as "is_deleted!", s.failures, s.counted_from,
                  j.labels as "labels: Json<Labels>"
           from schedules s join organizations o on o.id = s.org_id join jobs j on j.org_id = s.org_id and j.id = s.job_id
                left join installation i on true
           where s.id = any($1) order by s.next_at"#,
        ids
    )
    .fetch_all(connection)
    .await
    .during("query for the schedules that were taken")?;
    let due = rows.into_iter().map(|r| Due {
        id: r.id.into(),
        org_id: r.org_id.into(),
        organization: r.organization,
        is_home: r.is_home,
        job_id: r.job_id.into(),
        saved: saved_version!(schedule r),
        accounted_until: r.accounted_until.map(jiff_sqlx::Timestamp::to_jiff),
        next_due: r.next_due.map(jiff_sqlx::Timestamp::to_jiff),
        is_paused: r.is_paused,
        is_deleted: r.is_deleted,
        failures: r.failures,
        counted_from: r.counted_from.to_jiff(),
        labels: r.labels.0,
    });
    Ok(due.collect())
}

/// Somebody has to look at it now.
pub(crate) async fn look_at(
    connection: &mut PgConnection,
    (org, id): (OrgId, ScheduleId),
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update schedules set next_at = $3 where org_id = $1 and id = $2",
        org.0,
        id.0,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("wake-up of the schedule")?;
    Ok(())
}

/// What its author saved of a schedule.
pub(crate) async fn saved(
    connection: &mut PgConnection,
    (org, id): (OrgId, ScheduleId),
) -> Result<SavedVersion> {
    let r = sqlx::query!(
        "select document, revision, author, author_id, saved_at, signed, signature, certificate from schedules
         where org_id = $1 and id = $2",
        org.0,
        id.0
    )
    .fetch_one(connection)
    .await
    .during("query for what was saved of a schedule")?;
    Ok(saved_version!(schedule r))
}

/// Looks at one only later, whatever it waits for: something is wrong with it, and it must not hold up the others.
pub(crate) async fn put_off(pool: &PgPool, id: ScheduleId, until: Timestamp) -> Result<()> {
    sqlx::query!(
        "update schedules set put_off_until = $2, next_at = case when next_at is not null then $2::timestamptz end where id = $1",
        id.0,
        until.to_sqlx()
    )
    .execute(pool)
    .await
    .during("delay of a schedule")?;
    Ok(())
}

/// Takes the ends of executions of these schedules, in the order in which they ended.
pub(crate) async fn take_ends(connection: &mut PgConnection, schedules: &[Uuid]) -> Result<Vec<End>> {
    let mut rows = sqlx::query!(
        "delete from schedule_ends where schedule_id = any($1) returning schedule_id, execution_id, state, at",
        schedules
    )
    .fetch_all(connection)
    .await
    .during("query for ends of executions")?;
    rows.sort_by_key(|row| (row.at.to_jiff(), row.execution_id));
    let end = rows.into_iter().map(|row| End {
        schedule: row.schedule_id.into(),
        execution: row.execution_id.into(),
        state: ExecutionState::parse(&row.state),
    });
    Ok(end.collect())
}

/// The executions of these schedules that are open, the oldest first. Those of each schedule are found by a step in an index,
/// whatever is known of how many there are (hence `offset 0`).
pub(crate) async fn open(
    connection: &mut PgConnection,
    schedules: &[Uuid],
) -> Result<Vec<(ScheduleId, ExecutionId)>> {
    let rows = sqlx::query!(
        r#"select s.id as "schedule_id!", e.id
           from unnest($1::uuid[]) as s(id)
           cross join lateral (
               select id from executions where schedule_id = s.id and ended_at is null offset 0
           ) e
           order by e.id"#,
        schedules
    )
    .fetch_all(connection)
    .await
    .during("query for open executions of schedules")?;
    Ok(rows.into_iter().map(|row| (row.schedule_id.into(), row.id.into())).collect())
}

/// Writes where these schedules stand now.
pub(crate) async fn set(connection: &mut PgConnection, standings: &[Standing], now: Timestamp) -> Result<()> {
    let ids: Vec<Uuid> = standings.iter().map(|standing| standing.id.0).collect();
    let time = |of: fn(&Standing) -> Option<Timestamp>| -> Vec<Option<jiff_sqlx::Timestamp>> {
        standings.iter().map(|standing| of(standing).map(ToSqlx::to_sqlx)).collect()
    };
    let failures: Vec<i32> = standings.iter().map(|standing| standing.failures).collect();
    let because: Vec<Option<&str>> =
        standings.iter().map(|standing| standing.paused_because.as_deref()).collect();
    sqlx::query!(
        "update schedules s
         set put_off_until = null, accounted_until = n.accounted_until, next_due = n.next_due, next_at = n.next_at, failures = n.failures,
             paused_at = case when n.because is null then s.paused_at else $6::timestamptz end,
             paused_because = coalesce(n.because, s.paused_because),
             halted_at = case when n.is_halted then $6::timestamptz else s.halted_at end
         from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::int[], $5::text[], $7::timestamptz[], $8::bool[])
              as n(id, next_due, next_at, failures, because, accounted_until, is_halted)
         where s.id = n.id",
        &ids,
        &time(|standing| standing.next_due) as _,
        &time(|standing| standing.look_at) as _,
        &failures,
        &because as _,
        now.to_sqlx(),
        &time(|standing| standing.accounted_until) as _,
        &standings.iter().map(|standing| standing.is_halted).collect::<Vec<_>>()
    )
    .execute(connection)
    .await
    .during("update of schedules")?;
    Ok(())
}
