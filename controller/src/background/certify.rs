//! Fresh keys and certificates for the controller itself, and fresh signatures for what waits long.
//!
//! Of the life of a dispatch key's certificate, the key is replaced at a half, and a signature at a quarter: what is in
//! the tables can be verified for an eighth at least, while any controller runs.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;

use super::noted;
use crate::{
    app::{App, manifest},
    clock,
    error::{Error, Result},
};

/// The longest time between two looks.
const LONGEST: Duration = Duration::from_secs(3600);
/// Manifests that one transaction signs anew.
const MANIFESTS: i64 = 500;

/// Does what is due, then rests.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    let life = app.info.dispatch_key_life;
    let rest = (life / 8).min(LONGEST);
    noted(app, "certify", Some(rest), async {
        let part = |of: Duration| SignedDuration::try_from(of).unwrap_or(SignedDuration::MAX);
        let now = clock::now();
        if now.duration_since(app.ca.renewed_at()) + part(rest) > part(life / 2) {
            app.ca.renew(now).map_err(|error| Error::internal("the controller's certificates", error))?;
            tracing::debug!("orders and manifests are signed with a new dispatch key");
        }
        let before = now.saturating_sub(part(life / 4)).unwrap_or(jiff::Timestamp::MIN);
        while i64::try_from(manifest::sign_anew(app, before, MANIFESTS).await?) == Ok(MANIFESTS) {}
        Ok(())
    })
    .await?;
    tokio::time::sleep(rest).await;
    Ok(())
}
