//! What came for a schedule that no clock starts: judged by the schedule's expressions, sealed, and kept as an occurrence until
//! somebody has decided about it.
//!
//! Invariant: nothing starts with values that a controller has not taken out of what came, by the revision of the schedule that starts
//! it. Who writes rows cannot make the seal, and it is gone once it was decided. Expressions are judged by few at a time, and hold up
//! no other work.

use jiff::Timestamp;
use model::{
    api::schedule::{Cause, Origin},
    id::{OccurrenceId, OrgId, ScheduleId},
    schedule::{Taken, Trigger},
};
use pki::derived;
use serde_json::Value;
use sqlx::PgConnection;
use tokio::sync::Semaphore;

use super::App;
use crate::{
    clock,
    error::{Error, Result},
    store::{
        self,
        occurrences::{Came, Waiting},
        triggers::{Arrival, Sealed, Verdict},
    },
};

/// So many judge what came at the same time.
const AT_A_TIME: usize = 4;
/// What the seal is made over, so that it can stand for nothing else.
const KIND: &[u8] = b"arrival";

/// Something that came.
#[derive(Debug)]
pub(super) struct Coming {
    pub of: (OrgId, ScheduleId),
    /// The revision of the schedule that judges it.
    pub revision: i32,
    pub origin: Origin,
    /// What tells it from others; without that each is another one.
    pub delivery: Option<String>,
    pub at: Timestamp,
    /// Executions that led to it.
    pub chain: i16,
    /// Whence it came, for people.
    pub detail: String,
}

/// What is to start with what came, or why nothing is.
pub(super) type Judged = std::result::Result<Taken, (Cause, String)>;

/// Does work that judges what came, beside what else there is to do.
///
/// # Errors
/// When it panicked.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    static PLACES: Semaphore = Semaphore::const_new(AT_A_TIME);
    let _place = PLACES.acquire().await.expect("nobody closes it");
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("what came could not be judged", error))
}

/// What a trigger says of what came.
pub(super) fn judge(trigger: &Trigger, data: &Value) -> Judged {
    match trigger.take(data) {
        Ok(Some(taken)) => Ok(taken),
        Ok(None) => Err((Cause::Condition, "its 'if' does not hold of it".to_owned())),
        Err(invalid) => Err((Cause::Refused, invalid.to_string())),
    }
}

/// The row of what came, sealed where something is to start.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn seal(app: &App, coming: Coming, judged: Judged) -> Result<Arrival> {
    let Coming { of: (org_id, schedule_id), revision, origin, delivery, at, chain, detail } = coming;
    // As the database will tell it.
    let at = Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
    let id = OccurrenceId::new(at, clock::entropy());
    let delivery = delivery.unwrap_or_else(|| id.to_string());
    let verdict = match judged {
        Err((cause, why)) => Verdict::Skip(cause, why),
        Ok(taken) => {
            let taken =
                serde_json::to_string(&taken).map_err(|error| Error::internal("cannot write", error))?;
            let bytes =
                sealed((org_id, schedule_id, revision), (id, origin, at), (&delivery, chain), &taken)?;
            Verdict::Start { seal: derived::seal_stored(app.ca.authority(), KIND, &bytes), taken }
        }
    };
    Ok(Arrival { id, org_id, schedule_id, origin, delivery, at, revision, chain, verdict, detail })
}

/// What was taken out of what came, if a controller of this installation did that.
///
/// # Errors
/// [`Error::Tampered`].
pub(super) fn open(
    app: &App,
    org: OrgId,
    waiting: &Waiting,
    came: &Came,
    stored: Option<&Sealed>,
) -> Result<Taken> {
    let refused = || Error::Tampered(format!("what came as '{}' is not what was taken in", came.delivery));
    let stored = stored.ok_or_else(refused)?;
    let of = (org, waiting.schedule_id, came.revision);
    let which = (waiting.id, waiting.origin, waiting.due);
    let bytes = sealed(of, which, (&came.delivery, came.chain), &stored.taken)?;
    if !derived::is_sealed(app.ca.authority(), KIND, &bytes, &stored.seal) {
        return Err(refused());
    }
    serde_json::from_str(&stored.taken).map_err(|_| refused())
}

/// Lets what waits for a schedule go on under its next revision, which means the same: it is sealed anew.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn carry_over(
    app: &App,
    connection: &mut PgConnection,
    (org, schedule): (OrgId, ScheduleId),
    revision: i32,
) -> Result<()> {
    let mut seals = Vec::new();
    for (waiting, came, stored) in store::triggers::unsettled(connection, (org, schedule)).await? {
        // What is none of ours stays as it is, and starts nothing.
        if open(app, org, &waiting, &came, Some(&stored)).is_err() {
            continue;
        }
        let of = (org, schedule, revision);
        let which = (waiting.id, waiting.origin, waiting.due);
        let bytes = sealed(of, which, (&came.delivery, came.chain), &stored.taken)?;
        seals.push((waiting.id, derived::seal_stored(app.ca.authority(), KIND, &bytes)));
    }
    store::triggers::reseal(connection, org, revision, &seals).await
}

/// The bytes that the seal is made over.
fn sealed(
    of: (OrgId, ScheduleId, i32),
    (id, origin, at): (OccurrenceId, Origin, Timestamp),
    (delivery, chain): (&str, i16),
    taken: &str,
) -> Result<Vec<u8>> {
    serde_json::to_vec(&(of, id, origin, at.as_microsecond(), delivery, chain, taken))
        .map_err(|error| Error::internal("cannot write", error))
}
