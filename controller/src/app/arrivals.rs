//! What came for a schedule that no clock starts: judged by the schedule's expressions, sealed, and kept as an occurrence until
//! somebody has decided about it.
//!
//! Invariant: nothing starts with values that a controller has not taken out of what came. Who writes rows cannot make the seal.

use jiff::Timestamp;
use model::{
    api::schedule::{Cause, Origin},
    id::{OccurrenceId, OrgId, ScheduleId},
    schedule::{Taken, Trigger},
};
use pki::derived;
use serde_json::Value;

use super::App;
use crate::{
    clock,
    error::{Error, Result},
    store::{
        occurrences::{Came, Waiting},
        triggers::Arrival,
    },
};

/// What the seal is made over, so that it can stand for nothing else.
const KIND: &[u8] = b"arrival";

/// Something that came, before it is judged.
#[derive(Debug)]
pub(super) struct Coming<'a> {
    pub of: (OrgId, ScheduleId),
    pub origin: Origin,
    /// What tells it from others; without that each is another one.
    pub delivery: Option<String>,
    pub at: Timestamp,
    /// Executions that led to it.
    pub chain: i16,
    /// Whence it came, for people.
    pub detail: String,
    pub data: &'a Value,
}

/// Judges what came and seals what is to start with it.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn judge(app: &App, coming: Coming<'_>, trigger: &Trigger) -> Result<Arrival> {
    let Coming { of: (org_id, schedule_id), origin, delivery, at, chain, detail, data } = coming;
    // As the database will tell it.
    let at = Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
    let id = OccurrenceId::new(at, clock::entropy());
    let (taken, skipped) = match trigger.take(data) {
        Ok(Some(taken)) => (taken, None),
        Ok(None) => (Taken::default(), Some((Cause::Condition, "its 'if' does not hold of it".to_owned()))),
        Err(invalid) => (Taken::default(), Some((Cause::Refused, invalid.to_string()))),
    };
    let taken = serde_json::to_string(&taken).map_err(|error| Error::internal("cannot write", error))?;
    let delivery = delivery.unwrap_or_else(|| id.to_string());
    let sealed = sealed((org_id, schedule_id), id, origin, (&delivery, at), &taken, chain)?;
    let seal = derived::seal_stored(app.ca.authority(), KIND, &sealed);
    Ok(Arrival { id, org_id, schedule_id, origin, delivery, at, taken, chain, seal, skipped, detail })
}

/// What was taken out of what came, if a controller of this installation did that.
///
/// # Errors
/// [`Error::Tampered`].
pub(super) fn open(app: &App, org: OrgId, waiting: &Waiting, came: &Came) -> Result<Taken> {
    let of = (org, waiting.schedule_id);
    let of_it = (came.delivery.as_str(), waiting.due);
    let sealed = sealed(of, waiting.id, waiting.origin, of_it, &came.taken, came.chain)?;
    let refused = || Error::Tampered(format!("what came as '{}' is not what was taken in", came.delivery));
    if !derived::is_sealed(app.ca.authority(), KIND, &sealed, &came.seal) {
        return Err(refused());
    }
    serde_json::from_str(&came.taken).map_err(|_| refused())
}

/// The bytes that the seal is made over.
fn sealed(
    of: (OrgId, ScheduleId),
    id: OccurrenceId,
    origin: Origin,
    (delivery, at): (&str, Timestamp),
    taken: &str,
    chain: i16,
) -> Result<Vec<u8>> {
    serde_json::to_vec(&(of, id, origin, delivery, at.as_microsecond(), taken, chain))
        .map_err(|error| Error::internal("cannot write", error))
}
