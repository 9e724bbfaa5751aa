//! Scripts: what the newest version of each says, and their versions, which never change.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::script::{SavedScript, ScriptVersion},
    id::{OrgId, ScriptId},
    script::ScriptDocument,
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

/// Makes the script's row; its first version comes with it.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    new: &NewVersion<'_>,
    (name, description, labels): (&str, &str, &Labels),
) -> Result<()> {
    sqlx::query!(
        "insert into scripts (id, org_id, name, description, labels, version, created_at, updated_at)
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
    .map_err(|error| Error::taken(error, "scripts_name_key", "script", name))
    .during("insert of the script")?;
    insert_version(connection, new).await
}

/// Makes a further version, and the script's row say what it says.
pub(crate) async fn update(
    connection: &mut PgConnection,
    new: &NewVersion<'_>,
    description: &str,
    labels: &Labels,
) -> Result<()> {
    sqlx::query!(
        "update scripts set description = $3, labels = $4, version = $5, updated_at = $6 where org_id = $1 and id = $2",
        new.org_id.0,
        new.id,
        description,
        Json(labels) as _,
        new.version,
        new.created_at.to_sqlx()
    )
    .execute(&mut *connection)
    .await
    .during("update of the script")?;
    insert_version(connection, new).await
}

async fn insert_version(connection: &mut PgConnection, new: &NewVersion<'_>) -> Result<()> {
    sqlx::query!(
        "insert into script_versions (script_id, version, org_id, document, sha256, comment, author, author_id, created_at,
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
    .during("insert of the script's version")?;
    Ok(())
}

/// The script that has this id or name, with its newest document. Locks its row when it is to be changed.
pub(crate) async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    key: &str,
    to_change: bool,
) -> Result<Option<SavedScript>> {
    let id = key.parse::<ScriptId>().ok().map(|id| id.0);
    if to_change {
        sqlx::query!(
            "select id from scripts where org_id = $1 and deleted_at is null and (id = $2 or name = $3) for update",
            org.0,
            id,
            key
        )
        .fetch_optional(&mut *connection)
        .await
        .during("lock of the script")?;
    }
    let row = sqlx::query!(
        r#"select s.id, s.name, s.description, s.labels as "labels: Json<Labels>", s.version, v.author, v.comment,
                  v.sha256, s.created_at, s.updated_at, v.document
           from scripts s join script_versions v on v.script_id = s.id and v.version = s.version
           where s.org_id = $1 and v.org_id = $1 and s.deleted_at is null and (s.id = $2 or s.name = $3)"#,
        org.0,
        id,
        key
    )
    .fetch_optional(connection)
    .await
    .during("query for the script")?;
    let Some(r) = row else { return Ok(None) };
    Ok(Some(SavedScript {
        script: Some(read(&r.document)?),
        id: r.id.into(),
        name: r.name,
        description: r.description,
        labels: r.labels.0,
        version: r.version,
        author: r.author,
        comment: r.comment,
        sha256: hex::encode(r.sha256),
        created_at: r.created_at.to_jiff(),
        updated_at: r.updated_at.to_jiff(),
    }))
}

/// A version as it was written.
fn read(document: &str) -> Result<ScriptDocument> {
    serde_json::from_str(document)
        .map_err(|error| Error::Tampered(format!("the script cannot be read ({error})")))
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
    sha256: Vec<u8>,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
}

/// Scripts by name, from behind the name `after`, without their documents; those that all of `selectors` hold for.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    selectors: &[&Selector],
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<SavedScript>> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select a.* from (
             select s.id, s.name, s.description, s.labels, s.version, v.author, v.comment, v.sha256, s.created_at,
                    s.updated_at, '{}'::jsonb as facts
             from scripts s join script_versions v on v.script_id = s.id and v.version = s.version
             where s.deleted_at is null and v.org_id = s.org_id and s.org_id = ",
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
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await.during("query for scripts")?;
    Ok(rows
        .into_iter()
        .map(|row| SavedScript {
            id: row.id.into(),
            name: row.name,
            description: row.description,
            labels: row.labels.0,
            version: row.version,
            author: row.author,
            comment: row.comment,
            sha256: hex::encode(row.sha256),
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            script: None,
        })
        .collect())
}

pub(crate) async fn count(connection: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from scripts where org_id = $1 and deleted_at is null"#,
        org.0
    )
    .fetch_one(connection)
    .await
    .during("count of scripts")
}

/// The versions of a script, the newest first, from behind `after`, without their documents.
pub(crate) async fn versions(
    pool: &PgPool,
    org: OrgId,
    script: ScriptId,
    after: Option<i32>,
    limit: i64,
) -> Result<Vec<ScriptVersion>> {
    let rows = sqlx::query!(
        "select version, author, comment, sha256, created_at from script_versions
         where org_id = $1 and script_id = $2 and ($3::int is null or version < $3) order by version desc limit $4",
        org.0,
        script.0,
        after,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for the script's versions")?;
    Ok(rows
        .into_iter()
        .map(|r| ScriptVersion {
            version: r.version,
            author: r.author,
            comment: r.comment,
            sha256: hex::encode(r.sha256),
            created_at: r.created_at.to_jiff(),
            script: None,
        })
        .collect())
}

/// The number of the newest version, by the versions themselves.
pub(crate) async fn newest_version(
    connection: &mut PgConnection,
    org: OrgId,
    script: ScriptId,
) -> Result<Option<i32>> {
    sqlx::query_scalar!(
        "select max(version) from script_versions where org_id = $1 and script_id = $2",
        org.0,
        script.0
    )
    .fetch_one(connection)
    .await
    .during("query for the newest version")
}

/// One version with its document and signature.
pub(crate) async fn version(
    connection: &mut PgConnection,
    org: OrgId,
    script: ScriptId,
    version: i32,
) -> Result<Option<SavedVersion>> {
    let row = sqlx::query!(
        "select version, author, author_id, comment, sha256, created_at, document, signed, signature, certificate
         from script_versions where org_id = $1 and script_id = $2 and version = $3",
        org.0,
        script.0,
        version
    )
    .fetch_optional(connection)
    .await
    .during("query for the script's version")?;
    Ok(row.map(|r| saved_version!(r)))
}

impl TryFrom<SavedVersion> for ScriptVersion {
    type Error = Error;

    fn try_from(saved: SavedVersion) -> Result<Self> {
        Ok(Self {
            script: Some(read(&saved.document)?),
            version: saved.version,
            author: saved.author,
            comment: saved.comment,
            sha256: hex::encode(saved.sha256),
            created_at: saved.created_at,
        })
    }
}

/// The highest number that a version of a script of this name ever had, of those that are deleted too; 0: there was none.
pub(crate) async fn highest_version(connection: &mut PgConnection, org: OrgId, name: &str) -> Result<i32> {
    sqlx::query_scalar!(
        r#"select coalesce(max(version), 0) as "version!" from scripts where org_id = $1 and name = $2"#,
        org.0,
        name
    )
    .fetch_one(connection)
    .await
    .during("query for the highest version")
}

/// Deletes a script; its versions stay, and so do their numbers.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    org: OrgId,
    script: ScriptId,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update scripts set deleted_at = $3 where org_id = $1 and id = $2 and deleted_at is null",
        org.0,
        script.0,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("deletion of the script")?;
    Ok(())
}
