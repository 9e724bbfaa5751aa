//! When a schedule is due: pure planning, with the time handed in.
//!
//! A [`Timing`] is one rule (a [`Cron`], an [`Rrule`], an [`Interval`] or a [`Moment`]) on the clock of one time zone, and
//! what becomes of the local times that this clock skips ([`Gap`]) or shows twice ([`Fold`]).
//! [`Timing::after`] gives the firing that follows an instant.
//!
//! Invariants:
//!
//! 1. The answer depends on the timing, the instant and the time zone database alone, never on what was asked before.
//! 2. Firings are whole seconds and strictly increase.
//! 3. A rule on local times ([`Cron`], [`Rrule`]) knows nothing of zones: it says which local time matches next. The
//!    walk over the zone's offsets alone knows of instants.
//! 4. Every question is answered within a bound: see `CRON_YEARS`, `RRULE_YEARS` and `OFFSETS_WALKED` of [`crate::limits`].
//!
//! A [`Trigger`] stands in the place of a rule where no clock starts the job: it has no firings of its own.
//!
//! A [`Schedule`] is the document that people save: a timing, what starts, and the policies of what becomes of a firing that is
//! late or overlaps another. Calendars are [`crate::calendar`]'s.

mod cron;
mod document;
mod entry;
mod interval;
mod jitter;
mod moment;
mod policies;
mod rrule;
#[cfg(test)]
mod tests;
mod times;
mod timing;
mod trigger;
mod walk;
mod written;
mod zone;

pub use cron::Cron;
pub use document::{Schedule, read};
pub use entry::Entry;
pub use interval::Interval;
pub use jitter::jitter;
pub use moment::Moment;
pub use policies::{
    Misfire, Overlap, Timeliness, WhenOffline, is_enough, longest_window, starts_at_once, timeliness,
};
pub use rrule::Rrule;
pub use timing::{Firing, Fold, Gap, Rule, Timing};
pub use trigger::{Proof, Source, Taken, Trigger, Webhook};
pub use written::WrittenTiming;
