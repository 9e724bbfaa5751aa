//! Jobs: what the newest version of each says, and their versions, which never change.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::job::{Job, JobVersion},
    id::{JobId, OrgId},
    selector::Selector,
};
use sqlx::{FromRow, PgConnection, PgPool, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{
    selector_sql,
    versions::{NewVersion, SavedVersion, saved_version},
};
use crate::error::{During, Error, Result};

type Labels = BTreeMap<String, String>;

/// Makes the job's row; its first version comes with it.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    new: &NewVersion<'_>,
    (name, description, labels): (&str, &str, &Labels),
) -> Result<()> {
    sqlx::query!(
        "insert into jobs (id, org_id, name, description, labels, version, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $7)",
        new.id,
        new.org_id.0,
        name,
        description,
        Json(labels) as _,
        new.version,
        new.created_at.to_sqlx()
    )
    .execute(&mut *connection)
    .await
    .map_err(|error| Error::taken(error, "jobs_name_key", "job", name))
    .during("insert of the job")?;
    insert_version(connection, new).await
}

/// Makes a further version, and the job's row say what it says.
pub(crate) async fn update(
    connection: &mut PgConnection,
    new: &NewVersion<'_>,
    description: &str,
    labels: &Labels,
) -> Result<()> {
    sqlx::query!(
        "update jobs set description = $3, labels = $4, version = $5, updated_at = $6 where org_id = $1 and id = $2",
        new.org_id.0,
        new.id,
        description,
        Json(labels) as _,
        new.version,
        new.created_at.to_sqlx()
    )
    .execute(&mut *connection)
    .await
    .during("update of the job")?;
    insert_version(connection, new).await
}

async fn insert_version(connection: &mut PgConnection, new: &NewVersion<'_>) -> Result<()> {
    sqlx::query!(
        "insert into job_versions (job_id, version, org_id, document, sha256, comment, author, author_id, created_at,
                                   signed, signature, certificate)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        new.id,
        new.version,
        new.org_id.0,
        new.document,
        new.sha256,
        new.comment,
        new.author,
        new.author_id,
        new.created_at.to_sqlx(),
        new.signed.manifest,
        new.signed.signature,
        new.signed.certificate
    )
    .execute(connection)
    .await
    .during("insert of the job's version")?;
    Ok(())
}

/// The job that has this id or name, with its newest document. Locks its row when it is to be changed.
pub(crate) async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    key: &str,
    to_change: bool,
) -> Result<Option<Job>> {
    let id = key.parse::<JobId>().ok().map(|id| id.0);
    if to_change {
        sqlx::query!(
            "select id from jobs where org_id = $1 and deleted_at is null and (id = $2 or name = $3) for update",
            org.0,
            id,
            key
        )
        .fetch_optional(&mut *connection)
        .await
        .during("lock of the job")?;
    }
    let row = sqlx::query!(
        r#"select j.id, j.name, j.description, j.labels as "labels: Json<Labels>", j.version, v.author, v.comment,
                  j.created_at, j.updated_at, v.document
           from jobs j join job_versions v on v.job_id = j.id and v.version = j.version
           where j.org_id = $1 and v.org_id = $1 and j.deleted_at is null and (j.id = $2 or j.name = $3)"#,
        org.0,
        id,
        key
    )
    .fetch_optional(connection)
    .await
    .during("query for the job")?;
    Ok(row.map(|r| Job {
        id: r.id.into(),
        name: r.name,
        description: r.description,
        labels: r.labels.0,
        version: r.version,
        author: r.author,
        comment: r.comment,
        created_at: r.created_at.to_jiff(),
        updated_at: r.updated_at.to_jiff(),
        document: Some(r.document),
    }))
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    name: String,
    description: String,
    labels: Json<Labels>,
    version: i32,
    author: String,
    comment: Option<String>,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
}

/// Jobs by name, from behind the name `after`, without their documents; those that all of `selectors` hold for.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    selectors: &[&Selector],
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Job>> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select a.* from (
             select j.id, j.name, j.description, j.labels, j.version, v.author, v.comment, j.created_at, j.updated_at,
                    '{}'::jsonb as facts
             from jobs j join job_versions v on v.job_id = j.id and v.version = j.version
             where j.deleted_at is null and v.org_id = j.org_id and j.org_id = ",
    );
    query.push_bind(org.0).push(") a where true");
    if let Some(after) = after {
        query.push(" and a.name > ").push_bind(after);
    }
    for selector in selectors {
        query.push(" and ");
        selector_sql::push_predicate(&mut query, selector);
    }
    query.push(format_args!(" order by a.name limit {limit}"));
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await.during("query for jobs")?;
    Ok(rows
        .into_iter()
        .map(|row| Job {
            id: row.id.into(),
            name: row.name,
            description: row.description,
            labels: row.labels.0,
            version: row.version,
            author: row.author,
            comment: row.comment,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            document: None,
        })
        .collect())
}

pub(crate) async fn count(connection: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from jobs where org_id = $1 and deleted_at is null"#,
        org.0
    )
    .fetch_one(connection)
    .await
    .during("count of jobs")
}

/// The versions of a job, the newest first, from behind `after`, without their documents.
pub(crate) async fn versions(
    pool: &PgPool,
    org: OrgId,
    job: JobId,
    after: Option<i32>,
    limit: i64,
) -> Result<Vec<JobVersion>> {
    let rows = sqlx::query!(
        "select version, author, comment, sha256, created_at from job_versions
         where org_id = $1 and job_id = $2 and ($3::int is null or version < $3) order by version desc limit $4",
        org.0,
        job.0,
        after,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for the job's versions")?;
    Ok(rows
        .into_iter()
        .map(|r| JobVersion {
            version: r.version,
            author: r.author,
            comment: r.comment,
            sha256: hex::encode(r.sha256),
            created_at: r.created_at.to_jiff(),
            document: None,
        })
        .collect())
}

/// A job with the version of it that is to run.
#[derive(Debug)]
pub(crate) struct ToRun {
    pub id: JobId,
    pub name: String,
    /// As the newest version has them.
    pub labels: Labels,
    pub saved: SavedVersion,
    /// Which version is the newest, whatever the job's row says.
    pub newest: i32,
}

/// The job that has this id or name, with this version, or the one that its row says is the newest.
pub(crate) async fn to_run(
    connection: &mut PgConnection,
    org: OrgId,
    key: &str,
    version: Option<i32>,
) -> Result<Option<ToRun>> {
    let row = sqlx::query!(
        r#"select j.id, j.name, j.labels as "labels: Json<Labels>", v.version, v.author, v.author_id, v.comment, v.sha256,
                  v.created_at, v.document, v.signed, v.signature, v.certificate, newest.version as "newest!"
           from jobs j join job_versions v on v.job_id = j.id and v.version = coalesce($4, j.version)
                cross join lateral (select max(version) as version from job_versions where job_id = j.id) newest
           where j.org_id = $1 and v.org_id = $1 and j.deleted_at is null and (j.id = $2 or j.name = $3)"#,
        org.0,
        key.parse::<JobId>().ok().map(|id| id.0),
        key,
        version
    )
    .fetch_optional(connection)
    .await
    .during("query for the job that is to run")?;
    Ok(row.map(|r| ToRun {
        id: r.id.into(),
        name: r.name,
        labels: r.labels.0,
        newest: r.newest,
        saved: saved_version!(r),
    }))
}

/// One version with its document and signature.
pub(crate) async fn version(
    connection: &mut PgConnection,
    org: OrgId,
    job: JobId,
    version: i32,
) -> Result<Option<SavedVersion>> {
    let row = sqlx::query!(
        "select version, author, author_id, comment, sha256, created_at, document, signed, signature, certificate
         from job_versions where org_id = $1 and job_id = $2 and version = $3",
        org.0,
        job.0,
        version
    )
    .fetch_optional(connection)
    .await
    .during("query for the job's version")?;
    Ok(row.map(|r| saved_version!(r)))
}

impl From<SavedVersion> for JobVersion {
    fn from(saved: SavedVersion) -> Self {
        Self {
            version: saved.version,
            author: saved.author,
            comment: saved.comment,
            sha256: hex::encode(saved.sha256),
            created_at: saved.created_at,
            document: Some(saved.document),
        }
    }
}

/// Deletes a job; its versions stay, for the executions that are bound to them.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    org: OrgId,
    job: JobId,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update jobs set deleted_at = $3 where org_id = $1 and id = $2 and deleted_at is null",
        org.0,
        job.0,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("deletion of the job")?;
    Ok(())
}

/// The labels of a job, also of one that was deleted.
pub(crate) async fn labels(connection: &mut PgConnection, org: OrgId, job: JobId) -> Result<Labels> {
    let labels = sqlx::query_scalar!(
        r#"select labels as "labels: Json<Labels>" from jobs where org_id = $1 and id = $2"#,
        org.0,
        job.0
    )
    .fetch_optional(connection)
    .await
    .during("query for the job's labels")?;
    Ok(labels.map(|labels| labels.0).unwrap_or_default())
}
