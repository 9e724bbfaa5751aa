//! The end of what would otherwise wait for ever: runs whose time to start is over, attempts of agents that are gone.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use model::Reason;

use super::noted;
use crate::{
    app::{
        App,
        runs::{self, Happening},
    },
    clock,
    error::{During, Result},
    store,
};

const PERIOD: Duration = Duration::from_secs(1);
/// Runs that one transaction ends.
const RUNS: i64 = 5000;
/// Ends what is due, then rests.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    noted(app, "reap", Some(PERIOD), async {
        expire(app).await?;
        store::sessions::close_leaseless(app.db.worker(), app.info.controller_id, clock::now()).await?;
        lose(app).await
    })
    .await?;
    tokio::time::sleep(PERIOD).await;
    Ok(())
}

async fn expire(app: &App) -> Result<()> {
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let waiting = store::runs::lock_start_expired(&mut tx, now, RUNS).await?;
    let settled = runs::end_waiting(&mut tx, &waiting, runs::Why::StartExpired, now).await?;
    tx.commit().await.during("commit")?;
    settled.announce(app);
    Ok(())
}

/// Attempts whose outcome nobody will ever tell: their agent has been away for longer than `lost_after`, or was revoked,
/// or is there and has not answered an order that it may not start any more, or not reported an end that is overdue.
async fn lose(app: &App) -> Result<()> {
    let now = clock::now();
    let patience = SignedDuration::try_from(app.info.timing.lost_after).unwrap_or(SignedDuration::MAX);
    let before = now.checked_sub(patience).unwrap_or(jiff::Timestamp::MIN);
    let offered_before =
        now.saturating_sub(app.info.timing.answer_heard_within()).unwrap_or(jiff::Timestamp::MIN);
    // While this controller was away nobody could come back to it, nor tell it anything: the agents' absence counts from
    // its start, and nothing is overdue that they may be about to report.
    let is_settled = now.duration_since(app.info.started_at) > patience;
    let unless_fresh = |moment| if is_settled { moment } else { jiff::Timestamp::UNIX_EPOCH };
    let absent_since = unless_fresh(before);
    let long_before =
        offered_before.saturating_sub(app.info.timing.lost_after).unwrap_or(jiff::Timestamp::MIN);
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let absent = store::attempts::of_absent(&mut tx, absent_since, RUNS).await?;
    let unanswered =
        store::attempts::unanswered(&mut tx, offered_before, unless_fresh(long_before), RUNS).await?;
    let overdue = store::attempts::overdue(&mut tx, now, absent_since, RUNS).await?;
    let reports: Vec<runs::Report> = absent
        .into_iter()
        .map(|(key, agent_id, is_revoked)| {
            let (reason, detail) = if is_revoked {
                (Reason::AgentRevoked, "its agent was revoked while it ran".to_owned())
            } else {
                (Reason::AgentLost, format!("its agent has been away for more than {patience:#}"))
            };
            runs::Report { key, agent_id, happening: Happening::Lost { reason, detail } }
        })
        .chain(unanswered.into_iter().map(|(key, agent_id, had_time)| {
            let (reason, detail) = if had_time {
                let detail = "its agent is connected and never answered the order; the agent's log tells why";
                (Reason::OrderRefused, detail)
            } else {
                let detail = "its agent was away again and again, and never stayed for long enough to answer the order";
                (Reason::AgentLost, detail)
            };
            let happening = Happening::Lost { reason, detail: detail.to_owned() };
            runs::Report { key, agent_id, happening }
        }))
        .chain(overdue.into_iter().map(|(key, agent_id)| {
            let detail =
                "its agent is connected and has not reported its end, long after its time limit".to_owned();
            let happening = Happening::Lost { reason: Reason::AgentLost, detail };
            runs::Report { key, agent_id, happening }
        }))
        .collect();
    if reports.is_empty() {
        return tx.rollback().await.during("rollback");
    }
    let settled = runs::settle(app, &mut tx, reports, now).await?;
    tx.commit().await.during("commit")?;
    settled.announce(app);
    Ok(())
}
