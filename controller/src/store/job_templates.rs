//! Job templates: documents that an organization makes its jobs of.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::job_template::JobTemplate,
    id::{JobTemplateId, OrgId},
    job::parameters::Parameters,
};
use sqlx::{PgConnection, PgPool};

use crate::error::{During, Error, Result};

/// A template to be, or as it is to be.
#[derive(Debug)]
pub(crate) struct Saved<'a> {
    pub id: JobTemplateId,
    pub org_id: OrgId,
    pub name: &'a str,
    pub description: &'a str,
    pub document: &'a str,
    pub version: i32,
    pub at: Timestamp,
    pub by: &'a str,
}

/// A template as it was saved.
#[derive(Debug)]
pub(crate) struct Found {
    pub id: JobTemplateId,
    pub name: String,
    pub version: i32,
    pub document: String,
    pub updated_by: String,
    /// What people see of it in a list.
    pub shown: JobTemplate,
}

pub(crate) async fn insert(connection: &mut PgConnection, new: &Saved<'_>) -> Result<()> {
    sqlx::query!(
        "insert into job_templates
             (id, org_id, name, description, document, version, created_at, created_by, updated_at, updated_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $7, $8)",
        new.id.0,
        new.org_id.0,
        new.name,
        new.description,
        new.document,
        new.version,
        new.at.to_sqlx(),
        new.by
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "job_templates_name_key", "job template", new.name))
    .during("insert of the job template")?;
    Ok(())
}

pub(crate) async fn update(connection: &mut PgConnection, new: &Saved<'_>) -> Result<()> {
    sqlx::query!(
        "update job_templates
         set description = $3, document = $4, version = $5, updated_at = $6, updated_by = $7
         where org_id = $1 and id = $2",
        new.org_id.0,
        new.id.0,
        new.description,
        new.document,
        new.version,
        new.at.to_sqlx(),
        new.by
    )
    .execute(connection)
    .await
    .during("update of the job template")?;
    Ok(())
}

/// The template of this name. Locks its row when it is to be changed.
pub(crate) async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    name: &str,
    to_change: bool,
) -> Result<Option<Found>> {
    if to_change {
        sqlx::query!("select id from job_templates where org_id = $1 and name = $2 for update", org.0, name)
            .fetch_optional(&mut *connection)
            .await
            .during("lock of the job template")?;
    }
    let row = sqlx::query!(
        "select id, name, description, document, version, created_at, created_by, updated_at, updated_by
         from job_templates where org_id = $1 and name = $2",
        org.0,
        name
    )
    .fetch_optional(connection)
    .await
    .during("query for the job template")?;
    Ok(row.map(|r| Found {
        id: r.id.into(),
        name: r.name.clone(),
        version: r.version,
        document: r.document,
        updated_by: r.updated_by.clone(),
        shown: JobTemplate {
            name: r.name,
            description: r.description,
            built_in: false,
            id: Some(r.id.into()),
            version: Some(r.version),
            created_at: Some(r.created_at.to_jiff()),
            created_by: Some(r.created_by),
            updated_at: Some(r.updated_at.to_jiff()),
            updated_by: Some(r.updated_by),
            parameters: Parameters::new(),
            document: None,
        },
    }))
}

pub(crate) async fn count(connection: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from job_templates where org_id = $1"#, org.0)
        .fetch_one(connection)
        .await
        .during("count of job templates")
}

pub(crate) async fn delete(connection: &mut PgConnection, org: OrgId, id: JobTemplateId) -> Result<()> {
    sqlx::query!("delete from job_templates where org_id = $1 and id = $2", org.0, id.0)
        .execute(connection)
        .await
        .during("delete of the job template")?;
    Ok(())
}

/// By name, from behind `after`, without their documents. The order is that of the bytes, in which others are put among them.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<JobTemplate>> {
    let rows = sqlx::query!(
        r#"select id, name, description, version, created_at, created_by, updated_at, updated_by
           from job_templates where org_id = $1 and ($2::text is null or name collate "C" > $2)
           order by name collate "C" limit $3"#,
        org.0,
        after,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for job templates")?;
    Ok(rows
        .into_iter()
        .map(|r| JobTemplate {
            name: r.name,
            description: r.description,
            built_in: false,
            id: Some(r.id.into()),
            version: Some(r.version),
            created_at: Some(r.created_at.to_jiff()),
            created_by: Some(r.created_by),
            updated_at: Some(r.updated_at.to_jiff()),
            updated_by: Some(r.updated_by),
            parameters: Parameters::new(),
            document: None,
        })
        .collect())
}
