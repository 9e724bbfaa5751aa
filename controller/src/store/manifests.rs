//! Signatures of manifests whose runs still wait: they are made anew before their certificates end.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use super::executions::SignedManifest;
use crate::error::{During, Result};

/// Executions that are not over and were signed before `before`, each with the signature that it has. They stay locked
/// until the transaction ends; those that somebody else has locked are left out.
pub(crate) async fn signed_before(
    connection: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<(Uuid, SignedManifest)>> {
    let rows = sqlx::query!(
        "select id, manifest, manifest_signature, manifest_certificate from executions
         where ended_at is null and coalesce(manifest_signed_at, created_at) < $1
         order by coalesce(manifest_signed_at, created_at) limit $2 for update skip locked",
        before.to_sqlx(),
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for old signatures")?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let signed = SignedManifest {
                manifest: row.manifest,
                signature: row.manifest_signature,
                certificate: row.manifest_certificate,
            };
            (row.id, signed)
        })
        .collect())
}

/// Replaces the signature. The manifest itself never changes.
pub(crate) async fn replace_signature(
    connection: &mut PgConnection,
    execution: Uuid,
    signed: &SignedManifest,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update executions set manifest_signature = $2, manifest_certificate = $3, manifest_signed_at = $4
         where id = $1 and manifest = $5",
        execution,
        signed.signature,
        signed.certificate,
        now.to_sqlx(),
        signed.manifest
    )
    .execute(connection)
    .await
    .during("replacement of a signature")?;
    Ok(())
}
