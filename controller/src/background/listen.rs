//! Wake-ups between controllers: `NOTIFY`, coalesced, and only where there is another controller. Its payload names the
//! one that calls, so that nobody hears himself. What happened is read from the tables.
//!
//! Nothing depends on a wake-up that arrives.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgListener;
use tokio::sync::Notify;

use crate::{
    app::App,
    error::{During, Result},
    store,
};

/// Something is to be done: runs, cancels, revocations, ends.
const WORK: &str = "opsconductor";
/// There is output, for those who follow.
const OUTPUT: &str = "opsconductor_output";
/// Wake-ups within these are one.
const COALESCE: Duration = Duration::from_millis(20);
const COALESCE_OUTPUT: Duration = Duration::from_millis(50);

/// Hears the other controllers until the connection breaks.
pub(super) async fn hear(app: &Arc<App>) -> Result<()> {
    let mut listener = PgListener::connect_with(app.db.worker()).await.during("listen")?;
    listener.listen_all([WORK, OUTPUT]).await.during("listen")?;
    let me = app.info.controller_id.to_string();
    loop {
        app.parts.done("wake_ups", Duration::ZERO, None);
        let heard = listener.recv().await.during("listen")?;
        if heard.payload() == me {
            continue;
        }
        app.wake.set_company(true);
        if heard.channel() == WORK {
            app.wake.hear();
        }
        app.live.nudge_all();
    }
}

/// Waits for something to do for the other controllers, and wakes them.
pub(super) async fn tell_of_work(app: &Arc<App>) -> Result<()> {
    tell(app, &app.wake.others, WORK, COALESCE).await
}

/// Waits for output, and wakes the other controllers.
pub(super) async fn tell_of_output(app: &Arc<App>) -> Result<()> {
    tell(app, &app.wake.output, OUTPUT, COALESCE_OUTPUT).await
}

async fn tell(app: &App, bell: &Notify, channel: &str, rest: Duration) -> Result<()> {
    bell.notified().await;
    if !app.wake.is_alone() {
        store::controllers::notify(app.db.worker(), channel, app.info.controller_id).await?;
        tokio::time::sleep(rest).await;
    }
    Ok(())
}
