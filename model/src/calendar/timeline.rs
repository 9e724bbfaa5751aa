//! Spans along a line of seconds, sorted once, so that the first written of those at a place is found by bisection.

use std::{
    collections::BTreeSet,
    ops::{Range, RangeInclusive},
};

use super::wall::DAY;

const WEEK: i64 = 7 * DAY;
/// From the Thursday on which the clock starts to the first Monday.
const MONDAY: i64 = 4 * DAY;

/// Spans of some entries: `from` inclusive, `to` exclusive.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Where another entry is the first of those that hold, and which; none before the first edge.
    edges: Vec<(i64, Option<usize>)>,
    /// What is held by any entry: sorted, neither overlapping nor touching.
    held: Vec<Range<i64>>,
}

impl Timeline {
    /// Of spans with the index of their entry. Spans of one entry do not overlap.
    pub(super) fn of(spans: impl IntoIterator<Item = (Range<i64>, usize)>) -> Self {
        let mut ends = Vec::new();
        for (span, entry) in spans {
            ends.push((span.start, true, entry));
            ends.push((span.end, false, entry));
        }
        // At one place what ends comes before what begins: the same entry may do both.
        ends.sort_unstable();
        let (mut holding, mut timeline) = (BTreeSet::new(), Self::default());
        for of_place in ends.chunk_by(|a, b| a.0 == b.0) {
            for (_, begins, entry) in of_place {
                if *begins {
                    holding.insert(*entry);
                } else {
                    holding.remove(entry);
                }
            }
            timeline.push(of_place[0].0, holding.first().copied());
        }
        timeline
    }

    fn push(&mut self, at: i64, entry: Option<usize>) {
        let last = self.edges.last().and_then(|(_, entry)| *entry);
        if entry == last {
            return;
        }
        self.edges.push((at, entry));
        match (last, entry, self.held.last_mut()) {
            (None, Some(_), _) => self.held.push(at..at),
            (Some(_), None, Some(run)) => run.end = at,
            _ => {}
        }
    }

    /// The first written entry that holds anywhere in the range.
    pub(super) fn first(&self, range: &RangeInclusive<i64>) -> Option<usize> {
        let from = self.edges.partition_point(|(at, _)| at <= range.start()).saturating_sub(1);
        let within = self.edges[from..].iter().take_while(|(at, _)| at <= range.end());
        within.filter_map(|(_, entry)| *entry).min()
    }

    /// Where it is no more held, if it is held at this place.
    pub(super) fn leaves(&self, wall: i64) -> Option<i64> {
        let run = self.held.get(self.held.partition_point(|run| run.end <= wall))?;
        run.contains(&wall).then_some(run.end)
    }

    /// The next place behind this one from which on it is held.
    pub(super) fn enters(&self, wall: i64) -> Option<i64> {
        self.held.get(self.held.partition_point(|run| run.start <= wall)).map(|run| run.start)
    }
}

/// Spans that are the same each week.
#[derive(Debug, Default)]
pub(super) struct Weekly(Timeline);

impl Weekly {
    /// Of spans within a week from its Monday; what goes beyond its end goes on at its begin.
    pub(super) fn of(spans: impl IntoIterator<Item = (Range<i64>, usize)>) -> Self {
        Self(Timeline::of(spans.into_iter().flat_map(|(span, entry)| {
            let beyond = (span.end > WEEK).then(|| (0..span.end - WEEK, entry));
            [Some((span.start..span.end.min(WEEK), entry)), beyond].into_iter().flatten()
        })))
    }

    /// As [`Timeline::first`].
    pub(super) fn first(&self, range: &RangeInclusive<i64>) -> Option<usize> {
        let from = place(*range.start());
        let to = from + (range.end() - range.start()).min(WEEK - 1);
        let here = self.0.first(&(from..=to.min(WEEK - 1)));
        let beyond = (to >= WEEK).then(|| self.0.first(&(0..=to - WEEK))).flatten();
        here.into_iter().chain(beyond).min()
    }

    /// As [`Timeline::leaves`]; `i64::MAX` where it is always held.
    pub(super) fn leaves(&self, wall: i64) -> Option<i64> {
        let place = place(wall);
        let end = match (self.0.leaves(place)?, self.0.leaves(0)) {
            (WEEK, Some(WEEK)) => return Some(i64::MAX),
            (WEEK, Some(end)) => WEEK + end,
            (end, _) => end,
        };
        Some(wall + end - place)
    }

    /// As [`Timeline::enters`].
    pub(super) fn enters(&self, wall: i64) -> Option<i64> {
        let place = place(wall);
        let next = self.0.enters(place).or_else(|| self.0.enters(-1).map(|first| WEEK + first))?;
        Some(wall + next - place)
    }
}

/// Seconds since the begin of the week.
fn place(wall: i64) -> i64 {
    (wall - MONDAY).rem_euclid(WEEK)
}

#[cfg(test)]
mod tests;
