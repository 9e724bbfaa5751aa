//! What the executor does with what it is told, by what its journal knows. Pure: the manager acts on the answers, and the
//! simulation of its conversation with the controller goes through the same functions.

use std::time::Duration;

use jiff::Timestamp;
use model::{Reason, limits};

use super::{
    journal::{Entry, State},
    order::{self, Fault, Memory},
    report,
};
use crate::messages::AttemptKey;

/// What becomes of an order that is meant for this agent.
#[derive(Debug)]
pub(super) enum OnOrder {
    /// It is known: what is recorded is said again.
    Again,
    /// It may have been started and is not remembered, or was made for a journal that is gone: its outcome is unknown.
    Lost(Fault),
    /// It never begins; that is remembered, and then said.
    Refuse(Fault),
    /// It begins, if this host has room for it.
    Begin,
}

pub(super) fn on_order(
    known: Option<&Entry>,
    order: &proto::WorkOrder,
    memory: Memory<'_>,
    now: Timestamp,
) -> OnOrder {
    if known.is_some() {
        return OnOrder::Again;
    }
    match order::check(order, memory, now) {
        Ok(()) => OnOrder::Begin,
        Err(fault @ (Fault::Epoch | Fault::Forgotten)) => OnOrder::Lost(fault),
        Err(fault) => OnOrder::Refuse(fault),
    }
}

/// What becomes of a cancel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnCancel {
    /// What runs is ended.
    Stop,
    Again,
    /// Its order has not come: the journal remembers that it must never begin.
    Tombstone,
    /// It may have run, and is forgotten.
    Lost,
    /// Its execution is yet to be made by this host's clock, and nobody has signed that it is wanted: it is not believed.
    Ahead,
}

pub(super) fn on_cancel(
    is_running: bool,
    known: Option<&Entry>,
    is_forgotten: bool,
    is_ahead: bool,
) -> OnCancel {
    match known {
        _ if is_running => OnCancel::Stop,
        Some(_) => OnCancel::Again,
        None if is_forgotten => OnCancel::Lost,
        None if is_ahead => OnCancel::Ahead,
        None => OnCancel::Tombstone,
    }
}

/// Whether an attempt's execution was made later than the two clocks may be apart.
pub(super) fn is_ahead(key: AttemptKey, clock_skew: Duration, now: Timestamp) -> bool {
    let latest = now.as_millisecond().saturating_add(micros(clock_skew) / 1000);
    key.execution_id.millis() > u64::try_from(latest).unwrap_or(0)
}

/// Whether an attempt is forgotten but for its key when the controller says that it holds all of it.
pub(super) fn is_over(known: Option<&Entry>) -> bool {
    known.is_some_and(|entry| entry.state() == State::Ended)
}

/// Whether the controller may have to hear more of an attempt.
pub(super) fn is_unsettled(entry: &Entry) -> bool {
    !matches!(entry.state(), State::Refused | State::Settled)
}

/// Whether a session is told at its opening that the agent holds this attempt. What the agent does not hold it never had,
/// so the controller takes it; so it holds too what it refused as long as that `is_unanswered`.
pub(super) fn is_held(entry: &Entry, is_unanswered: bool) -> bool {
    is_unsettled(entry) || (is_unanswered && entry.state() == State::Refused)
}

/// Whether the time to start was over at `now`, both in microseconds since 1970 UTC.
pub(super) const fn is_too_late(start_by: i64, now: i64) -> bool {
    now > start_by
}

/// The newest word on an attempt.
#[derive(Debug)]
pub(super) enum Newest {
    /// It is about to be reported for the first time.
    Nothing,
    Report(proto::Report),
    /// It runs, and may have output.
    Running(proto::Report),
    Ended(proto::Report),
}

pub(super) fn newest(key: AttemptKey, entry: &Entry) -> Newest {
    match (entry.state(), entry.report.clone()) {
        (State::Ended, Some(report)) => Newest::Ended(report),
        (State::Settled, _) => {
            // Not a refusal: that would say that it never began.
            let detail = "it ran and was settled; its result was handed over";
            Newest::Report(report::lost(key, Reason::JournalLost, detail))
        }
        (State::Started, Some(report)) => Newest::Running(report),
        (_, Some(report)) => Newest::Report(report),
        (State::Refused, None) => {
            let detail = "it was refused, and is too long ago for its reason to be remembered";
            Newest::Report(report::refused(key, Reason::NotStarted, detail))
        }
        (_, None) => Newest::Nothing,
    }
}

/// What a new agent process does about an attempt of an earlier one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnAdopt {
    /// It is followed to its end.
    Follow,
    Again,
    Nothing,
}

/// `now` is in microseconds since 1970 UTC.
pub(super) fn on_adopt(entry: &Entry, now: i64) -> OnAdopt {
    match entry.state() {
        State::Ended => OnAdopt::Again,
        // It may not have reached the link's spool.
        State::Refused if entry.at > now - micros(limits::LOST_AFTER) => OnAdopt::Again,
        State::Refused | State::Settled => OnAdopt::Nothing,
        State::Unspecified | State::Starting | State::Started => OnAdopt::Follow,
    }
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
