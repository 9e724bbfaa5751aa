//! What identifies this installation: one row.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::OrgId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{During, Result};

/// The row.
#[derive(Debug)]
pub(crate) struct Installation {
    pub trust_domain: String,
    pub root_pin: Vec<u8>,
    /// The organization that setup made; null: it is not set up yet.
    pub home_org_id: Option<Uuid>,
    pub setup_token_hash: Option<Vec<u8>>,
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
    sqlx::query_as!(
        Installation,
        "select trust_domain, root_pin, home_org_id, setup_token_hash from installation"
    )
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

/// The organization that setup made, if that was done.
pub(crate) async fn home(connection: &mut PgConnection) -> Result<Option<OrgId>> {
    let home = sqlx::query_scalar!("select home_org_id from installation")
        .fetch_optional(connection)
        .await
        .during("query for the home organization")?;
    Ok(home.flatten().map(OrgId))
}

/// Notes the hash of the token that sets the installation up; `false` when it is set up already.
pub(crate) async fn offer_setup(connection: &mut PgConnection, token_hash: &[u8]) -> Result<bool> {
    let done =
        sqlx::query!("update installation set setup_token_hash = $1 where home_org_id is null", token_hash)
            .execute(connection)
            .await
            .during("note of the setup token")?;
    Ok(done.rows_affected() == 1)
}

/// Makes an organization the home of the installation, with the one token that does; `false` when it is another token, or
/// the installation is set up already.
pub(crate) async fn set_up(connection: &mut PgConnection, token_hash: &[u8], home: OrgId) -> Result<bool> {
    let done = sqlx::query!(
        "update installation set home_org_id = $2, setup_token_hash = null
         where home_org_id is null and setup_token_hash = $1",
        token_hash,
        home.0
    )
    .execute(connection)
    .await
    .during("setup of the installation")?;
    Ok(done.rows_affected() == 1)
}
