//! What becomes of a firing, and its row.

use jiff::Timestamp;
use model::{
    api::schedule::{Cause, OccurrenceState, Origin},
    id::{ExecutionId, OccurrenceId},
};

use crate::store::{occurrences::Decided, schedules::Due};

/// Words of a refusal that an occurrence keeps.
const DETAIL_BYTES: usize = 1000;

/// What becomes of a firing.
pub(super) struct Outcome {
    pub(super) state: OccurrenceState,
    pub(super) cause: Option<Cause>,
    pub(super) detail: Option<String>,
    pub(super) execution_id: Option<ExecutionId>,
}

pub(super) const fn skipped(cause: Cause, detail: Option<String>) -> Outcome {
    Outcome { state: OccurrenceState::Skipped, cause: Some(cause), detail, execution_id: None }
}

pub(super) const fn waits(detail: String) -> Outcome {
    Outcome {
        state: OccurrenceState::Waiting,
        cause: Some(Cause::Overlap),
        detail: Some(detail),
        execution_id: None,
    }
}

pub(super) fn decided(
    id: OccurrenceId,
    due: &Due,
    origin: Origin,
    at: Timestamp,
    outcome: Outcome,
) -> Decided {
    let Outcome { state, cause, detail, execution_id } = outcome;
    let detail = detail.map(|mut text| {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES));
        text
    });
    let (schedule_id, org_id) = (due.id, due.org_id);
    Decided { id, schedule_id, org_id, origin, due: at, at_a_time: None, state, cause, detail, execution_id }
}
