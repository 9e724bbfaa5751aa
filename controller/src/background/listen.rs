//! Wake-ups between controllers: `NOTIFY` without a payload, coalesced, and only where there is another controller.
//!
//! Nothing depends on a wake-up that arrives.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgListener;

use crate::{
    app::App,
    error::{During, Result},
    store,
};

/// Wake-ups within this are one.
const COALESCE: Duration = Duration::from_millis(20);

/// Passes wake-ups on, both ways, until the connection breaks.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    let mut listener = PgListener::connect_with(app.db.worker()).await.during("listen")?;
    listener.listen("opsconductor").await.during("listen")?;
    loop {
        app.parts.done("wake_ups", Duration::ZERO, None);
        tokio::select! {
            heard = listener.recv() => {
                heard.during("listen")?;
                app.wake.hear();
                app.live.nudge_all();
            }
            () = app.wake.others.notified() => {
                if !app.wake.is_alone() {
                    store::controllers::notify(app.db.worker()).await?;
                    tokio::time::sleep(COALESCE).await;
                }
            }
        }
    }
}
