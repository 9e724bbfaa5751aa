//! Which part of the chain an export has.

use jiff::Timestamp;
use model::id::OrgId;
use pki::audit::{BEGINNING, Place};

use crate::{
    app::App,
    error::{During, Result},
    store::{audit_chain, audit_export},
};

/// Numbers of an export.
#[derive(Debug)]
pub(crate) struct Range {
    /// The entry before the first; its hash is none when it is missing.
    pub before: i64,
    pub before_hash: Option<[u8; 32]>,
    pub to: i64,
    /// Up to which number there are checkpoints in it.
    pub checkpoints_to: i64,
}

/// The part of the chain with the entries from `since` or `from_seq` on until `until`: without a hole, and up to a
/// checkpoint. The chain has caught up.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn range(
    app: &App,
    org: OrgId,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    from_seq: Option<i64>,
) -> Result<Range> {
    let pool = app.db.of(org);
    let mut connection = pool.acquire().await.during("connection")?;
    let head = audit_chain::head(&mut connection, org).await?.unwrap_or(Place::BEGINNING);
    let (mut to, mut checkpoints_to) = (head.seq, i64::MAX);
    if let Some(until) = until {
        let last = audit_export::last_until(&pool, org, until).await?.unwrap_or(0);
        if let Some(covered) = audit_export::checkpoint_from(&pool, org, last).await?
            && covered < head.seq
        {
            (to, checkpoints_to) = (covered, covered);
        }
    }
    let mut from = from_seq.unwrap_or(1);
    if let Some(since) = since {
        let first = audit_export::first_since(&pool, org, since).await?;
        from = from.max(first.unwrap_or(head.seq.saturating_add(1)));
    }
    // Behind the end there is nothing, from there on.
    let before = from.min(to.saturating_add(1)) - 1;
    let before_hash = match before {
        0 => Some(BEGINNING),
        seq => audit_chain::hash_at(&mut connection, org, seq).await?,
    };
    Ok(Range { before, before_hash, to, checkpoints_to })
}
