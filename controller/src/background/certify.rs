//! Fresh certificates for the controller itself, daily.

use std::{sync::Arc, time::Duration};

use super::noted;
use crate::{
    app::App,
    clock,
    error::{Error, Result},
};

const PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Rests, for the start made some already, then renews.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    tokio::time::sleep(PERIOD).await;
    noted(app, "certify", Some(PERIOD), async {
        app.ca.renew(clock::now()).map_err(|error| Error::internal("the controller's certificates", error))
    })
    .await
}
