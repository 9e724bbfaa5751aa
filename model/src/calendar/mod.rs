//! Calendars: named sets of days and windows that schedules refer to, such as public holidays, business hours and change
//! freezes. A [`Calendar`] is what people write; [`Compiled`] answers whether an instant lies in it; [`verdict`] joins
//! several.
//!
//! Invariants:
//!
//! 1. Everything in a calendar is told by the clock on the wall of its zone. A window begins when that clock first shows its
//!    `from` or later. It ends when the clock shows its `to` or later and will not go back before it. So what lies in an hour
//!    that is skipped does not happen, an edge in a skipped hour is the moment of the skip, and a window with an edge in an
//!    hour that comes twice has all of it that it can have: from the first coming of `from` to the second of `to`.
//! 2. A window begins inclusive and ends exclusive; of days both ends are included. Edges are whole seconds.
//! 3. Where entries overlap, the one that was written first is the one that is named.
//!
//! Absent on purpose: recurrence rules. What is not weekly or yearly is written out, or is a schedule.

mod compiled;
mod document;
mod entry;
pub mod ical;
mod timeline;
mod verdict;
mod wall;
mod yearly;

pub use self::{
    compiled::Compiled,
    document::{Calendar, Kind, parse, zone},
    entry::{Day, Entry, When},
    verdict::{Verdict, verdict},
};
