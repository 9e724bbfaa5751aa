//! From local times to instants: a walk over the spans of a zone in which its offset is constant.
//!
//! Within a span the clock runs plainly, so a rule on local times is asked there directly. All that is odd about time zones
//! happens between two spans: where the offset grows local times are skipped, and where it shrinks they are shown again. By
//! definition, and for whatever table a zone has:
//!
//! - A local time is *skipped* when the clock never shows it. It belongs to the first instant at which the clock shows a
//!   later one.
//! - An instant is a *repeat* when the clock showed the same local time at an instant before.

use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    tz::{Offset, TimeZone},
};

use super::{Fold, Gap};
use crate::limits;

/// No offset is larger, either way: jiff's are below 26 hours. Two spans that show the same local time are less than
/// twice that apart.
const OFFSET: SignedDuration = SignedDuration::from_hours(26);
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// A rule on local times, in a zone. `next` gives the first local time that matches and is not before the given one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a, N> {
    pub(super) zone: &'a TimeZone,
    pub(super) gap: Gap,
    pub(super) fold: Fold,
    pub(super) next: N,
}

/// The instants from `start` up to and without `end`, between which the offset does not change.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: Timestamp,
    end: Timestamp,
    offset: Offset,
}

impl Span {
    /// The one that `instant`, a whole second, lies in.
    fn at(zone: &TimeZone, instant: Timestamp) -> Self {
        let just_after = instant.checked_add(SECOND).unwrap_or(Timestamp::MAX);
        let start = zone.preceding(just_after).next().map_or(Timestamp::MIN, |change| change.timestamp());
        // Behind the last change of a table without a rule for what follows, jiff gives that change again.
        let following = zone.following(instant).next().filter(|change| change.timestamp() > instant);
        let end = following.map_or(Timestamp::MAX, |change| change.timestamp());
        Self { start, end, offset: zone.to_offset(instant) }
    }

    fn before(self, zone: &TimeZone) -> Option<Self> {
        Some(Self::at(zone, self.start.checked_sub(SECOND).ok()?))
    }

    fn after(self, zone: &TimeZone) -> Option<Self> {
        (self.end < Timestamp::MAX).then(|| Self::at(zone, self.end))
    }

    /// The first local time that it shows.
    fn first(self) -> DateTime {
        self.offset.to_datetime(self.start)
    }

    /// The first local time behind it.
    fn behind(self) -> DateTime {
        self.offset.to_datetime(self.end)
    }

    fn shows(self, local: DateTime) -> bool {
        self.first() <= local && local < self.behind()
    }
}

impl<N: Fn(DateTime) -> Option<DateTime>> Walk<'_, N> {
    /// The first firing that is not before `from`, a whole second; none when the rule has no further match, or when
    /// none of its next matches near `OFFSETS_WALKED` spans fires.
    pub(super) fn first(&self, mut from: Timestamp) -> Option<Timestamp> {
        for _ in 0..limits::OFFSETS_WALKED {
            let span = Span::at(self.zone, from);
            if let Some(due) = self.first_in(span, from) {
                return Some(due);
            }
            if span.end == Timestamp::MAX {
                return None;
            }
            // Nothing fires long before the next match: rules that match once in years leap over all between.
            let reachable = Offset::UTC.to_datetime(span.end).saturating_sub(OFFSET);
            let soonest = utc((self.next)(reachable)?)?.checked_sub(OFFSET).ok()?;
            from = span.end.max(soonest);
        }
        None
    }

    /// The first firing from `from` on that lies in `span`, as `from` does.
    fn first_in(&self, span: Span, from: Timestamp) -> Option<Timestamp> {
        if from == span.start && self.gap == Gap::FirstValid && self.skips_a_match(span) {
            return Some(from);
        }
        let mut local = span.offset.to_datetime(from);
        loop {
            local = (self.next)(local)?;
            let due = span.offset.to_timestamp(local).ok().filter(|due| *due < span.end)?;
            match self.fold {
                Fold::Twice => return Some(due),
                Fold::Once => match self.shown_before(span, local) {
                    None => return Some(due),
                    // All that the earlier one showed from here on is shown again.
                    Some(earlier) => local = earlier.behind(),
                },
            }
        }
    }

    /// An earlier span that shows `local` too.
    fn shown_before(&self, span: Span, local: DateTime) -> Option<Span> {
        let earliest = utc(local)?.checked_sub(OFFSET).ok()?;
        let mut at = span;
        while at.start > earliest {
            at = at.before(self.zone)?;
            if at.shows(local) {
                return Some(at);
            }
        }
        None
    }

    /// A later span that shows `local`.
    fn shown_after(&self, span: Span, local: DateTime) -> Option<Span> {
        let latest = utc(local)?.checked_add(OFFSET).ok()?;
        let mut at = span;
        while at.end < latest {
            at = at.after(self.zone)?;
            if at.shows(local) {
                return Some(at);
            }
        }
        None
    }

    /// Whether a local time matches that is skipped and belongs to the beginning of `span`.
    fn skips_a_match(&self, span: Span) -> bool {
        let Some(mut local) = self.latest_before(span) else { return false };
        while let Some(skipped) = (self.next)(local).filter(|skipped| *skipped < span.first()) {
            match self.shown_after(span, skipped) {
                None => return true,
                Some(later) => local = later.behind(),
            }
        }
        false
    }

    /// The first local time that is behind all that the clock showed before `span`.
    fn latest_before(&self, span: Span) -> Option<DateTime> {
        let earliest = span.start.checked_sub(OFFSET * 2).unwrap_or(Timestamp::MIN);
        let mut at = span.before(self.zone)?;
        let mut latest = at.behind();
        while at.start > earliest {
            at = at.before(self.zone)?;
            latest = latest.max(at.behind());
        }
        Some(latest)
    }
}

fn utc(local: DateTime) -> Option<Timestamp> {
    Offset::UTC.to_timestamp(local).ok()
}
