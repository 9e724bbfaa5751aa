//! What identifies this installation: one row.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::OrgId;
use sqlx::PgConnection;

use crate::error::{During, Result};

/// The row.
#[derive(Debug)]
pub(crate) struct Installation {
    pub trust_domain: String,
    pub root_pin: Vec<u8>,
}

/// Keeps other controllers out of the first start until the transaction ends.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!("select pg_advisory_xact_lock(hashtext('opsconductor.installation'))")
        .execute(connection)
        .await
        .during("lock of the installation")?;
    Ok(())
}

pub(crate) async fn get(connection: &mut PgConnection) -> Result<Option<Installation>> {
    sqlx::query_as!(Installation, "select trust_domain, root_pin from installation")
        .fetch_optional(connection)
        .await
        .during("query for the installation")
}

pub(crate) async fn insert(
    connection: &mut PgConnection,
    trust_domain: &str,
    root_pin: &[u8],
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into installation (trust_domain, root_pin, created_at) values ($1, $2, $3)",
        trust_domain,
        root_pin,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of the installation")?;
    Ok(())
}

/// Makes the organization that a fresh installation begins with.
pub(crate) async fn insert_organization(
    connection: &mut PgConnection,
    id: OrgId,
    name: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into organizations (id, name, created_at) values ($1, $2, $3)",
        id.0,
        name,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of the organization")?;
    Ok(())
}
