//! The walk in zones that nobody has, with many changes within some days, against the definitions of the policies.

use std::collections::BTreeSet;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use proptest::prelude::*;

use super::super::{Cron, Fold, Gap, Rule, Timing};

/// All is told in minutes since this.
const BEGIN: i64 = 1_800_000_000 / 60;
const MINUTES: i64 = 9 * 1440;

/// From the minute on, the offset in minutes.
type Changes = Vec<(i64, i32)>;

/// A time zone file (RFC 8536, version 2): the first offset holds before all changes.
fn zone(first: i32, changes: &Changes) -> TimeZone {
    fn block(bytes: &mut Vec<u8>, offsets: &[i32], times: &[i64]) {
        bytes.extend(b"TZif2");
        bytes.extend([0; 15]);
        for count in [0, 0, 0, times.len(), offsets.len(), 2] {
            bytes.extend(u32::try_from(count).expect("few").to_be_bytes());
        }
        times.iter().for_each(|time| bytes.extend(time.to_be_bytes()));
        (1..=times.len()).for_each(|kind| bytes.push(u8::try_from(kind).expect("few")));
        for offset in offsets {
            bytes.extend((offset * 60).to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes.extend(b"X\0");
    }
    let mut bytes = Vec::new();
    block(&mut bytes, &[0], &[]);
    let offsets: Vec<i32> = [first].into_iter().chain(changes.iter().map(|(_, offset)| *offset)).collect();
    let times: Vec<i64> = changes.iter().map(|(minute, _)| (BEGIN + minute) * 60).collect();
    block(&mut bytes, &offsets, &times);
    bytes.extend(b"\n\n");
    TimeZone::tzif("Test/Odd", &bytes).expect("a time zone file")
}

/// The minutes at which it fires, by definition.
fn reference(
    first: i32,
    changes: &Changes,
    matches: impl Fn(DateTime) -> bool,
    gap: Gap,
    fold: Fold,
) -> BTreeSet<i64> {
    let offset =
        |minute| changes.iter().rev().find(|(from, _)| *from <= minute).map_or(first, |(_, offset)| *offset);
    let clock: Vec<i64> = (0..MINUTES).map(|minute| minute + i64::from(offset(minute))).collect();
    let civil = |local: i64| {
        jiff::tz::Offset::UTC.to_datetime(Timestamp::from_second((BEGIN + local) * 60).expect("in range"))
    };
    let mut shown = BTreeSet::new();
    let mut fires = BTreeSet::new();
    for (minute, local) in (0..).zip(&clock) {
        let is_first = shown.insert(*local);
        if matches(civil(*local)) && (is_first || fold == Fold::Twice) {
            fires.insert(minute);
        }
    }
    if gap == Gap::FirstValid {
        for skipped in clock[0]..clock[clock.len() - 1] {
            if !shown.contains(&skipped) && matches(civil(skipped)) {
                fires
                    .extend((0..).zip(&clock).find(|(_, local)| **local > skipped).map(|(minute, _)| minute));
            }
        }
    }
    fires
}

fn changes() -> impl Strategy<Value = Changes> {
    // Some near each other, by as much as a day; all far from both ends.
    let offset = prop_oneof![Just(0), Just(60), Just(120), Just(30), -720..840_i32];
    proptest::collection::btree_map(4 * 1440..5 * 1440_i64, offset, 0..6)
        .prop_map(|changes| changes.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn as_defined(
        first in -720..840_i32,
        changes in changes(),
        minute in 0..60_i8,
        hour in 0..24_i8,
        wild in 0..3,
        skip: bool,
        twice: bool,
    ) {
        let (text, matches): (String, Box<dyn Fn(DateTime) -> bool>) = match wild {
            0 => (format!("{minute} {hour} * * *"), Box::new(move |t| t.minute() == minute && t.hour() == hour)),
            1 => (format!("{minute} * * * *"), Box::new(move |t| t.minute() == minute)),
            _ => (format!("*/7 {hour}-23 * * *"), Box::new(move |t| t.minute() % 7 == 0 && t.hour() >= hour)),
        };
        let gap = if skip { Gap::Skip } else { Gap::FirstValid };
        let fold = if twice { Fold::Twice } else { Fold::Once };
        let want = reference(first, &changes, matches, gap, fold);
        let timing = Timing {
            rule: Rule::Cron(Cron::parse(&text).expect("a cron")),
            zone: zone(first, &changes),
            gap,
            fold,
            starts_at: None,
            ends_at: None,
        };
        let mut got = BTreeSet::new();
        let mut t = Timestamp::from_second(BEGIN * 60 - 1).expect("in range");
        while let Some(firing) = timing.after(t) && firing.due.as_second() < (BEGIN + MINUTES) * 60 {
            prop_assert!(firing.due > t);
            prop_assert_eq!(timing.zone.to_datetime(firing.due), firing.local);
            t = firing.due;
            got.insert(t.as_second() / 60 - BEGIN);
        }
        prop_assert_eq!(got, want, "{} {:?}", text, changes);
    }
}
