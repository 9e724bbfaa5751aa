//! Ten years on every clock of the world: what a schedule gives is what a walk through each minute gives.
//!
//! The walk is the definition, and shares nothing with the scheduler: each rule is stated a second time in plain code over
//! the numbers of a calendar that is counted day by day, the clock is read off the zone's offsets, and of a gap and a
//! fold it knows only which minutes a clock never shows and which it showed before.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use model::schedule::{Fold, Gap, Timing, WrittenTiming};

/// 2026-01-01 and 2036-01-01, 00:00 UTC, in minutes since 1970.
const FROM: i64 = 1_767_225_600 / 60;
const TO: i64 = 2_082_758_400 / 60;
const DAY: i64 = 1440;
/// The walk begins and ends so much outside, for no offset changes by more.
const MARGIN: i64 = 3 * DAY;
/// A local minute is told from here on, and there are so many.
const EPOCH: i64 = FROM - 2 * MARGIN;
const MINUTES: usize = (TO - FROM + 4 * MARGIN) as usize;

/// A day by its numbers.
#[derive(Clone, Copy)]
struct Date {
    year: i64,
    month: i64,
    day: i64,
    /// Days of its month.
    length: i64,
    /// Sunday is 0.
    weekday: i64,
    /// Days since 2026-01-01.
    number: i64,
}

impl Date {
    fn is(&self, weekday: i64) -> bool {
        self.weekday == weekday
    }

    fn is_weekend(&self) -> bool {
        self.is(SUN) || self.is(SAT)
    }

    fn is_last_week(&self) -> bool {
        self.day + 7 > self.length
    }

    /// The next day, or that day a week on.
    fn on(&self, days: i64) -> Self {
        (0..days).fold(*self, |date, _| date.tomorrow())
    }

    fn tomorrow(&self) -> Self {
        let (year, month, day) = match (self.day == self.length, self.month) {
            (false, month) => (self.year, month, self.day + 1),
            (true, 12) => (self.year + 1, 1, 1),
            (true, month) => (self.year, month + 1, 1),
        };
        let weekday = (self.weekday + 1) % 7;
        Self { year, month, day, length: length(year, month), weekday, number: self.number + 1 }
    }
}

fn length(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const SUN: i64 = 0;
const FRI: i64 = 5;
const SAT: i64 = 6;

/// A rule, and the same once more: on which days, and at which hour and minute.
struct Case {
    rule: &'static str,
    day: fn(&Date) -> bool,
    time: fn(i64, i64) -> bool,
    /// The second of its times.
    second: i64,
}

const fn case(rule: &'static str, day: fn(&Date) -> bool, time: fn(i64, i64) -> bool) -> Case {
    Case { rule, day, time, second: 0 }
}

fn cases() -> Vec<Case> {
    vec![
        // Around the hours at which clocks change.
        case("cron: 30 2 * * *", |_| true, |h, m| h == 2 && m == 30),
        case("cron: 0 2 * * *", |_| true, |h, m| h == 2 && m == 0),
        case("cron: 0 3 * * *", |_| true, |h, m| h == 3 && m == 0),
        case("cron: 59 1 * * *", |_| true, |h, m| h == 1 && m == 59),
        case("cron: '@daily'", |_| true, |h, m| h == 0 && m == 0),
        case("cron: 45 0 * * *", |_| true, |h, m| h == 0 && m == 45),
        case("cron: 30 23 * * *", |_| true, |h, m| h == 23 && m == 30),
        Case { second: 30, ..case("cron: 30 15 2 * * *", |_| true, |h, m| h == 2 && m == 15) },
        // Wild ones.
        case(
            "cron: 15 * ? 3,10,11 SAT-SUN",
            |d| d.is_weekend() && matches!(d.month, 3 | 10 | 11),
            |_, m| m == 15,
        ),
        case(
            "cron: '*/30 1-3 * 2-4,9-11 *'",
            |d| matches!(d.month, 2..=4 | 9..=11),
            |h, m| (1..=3).contains(&h) && m % 30 == 0,
        ),
        case(
            "cron: '*/20 * ? 3,10,11 SUN'",
            |d| d.is(SUN) && matches!(d.month, 3 | 10 | 11),
            |_, m| m % 20 == 0,
        ),
        case(
            "cron: 7-29/11 2 * OCT-NOV 7",
            |d| d.is(SUN) && matches!(d.month, 10 | 11),
            |h, m| h == 2 && (m == 7 || m == 18 || m == 29),
        ),
        case(
            "cron: 45 1,2 * 3,10,11 SAT-SUN",
            |d| d.is_weekend() && matches!(d.month, 3 | 10 | 11),
            |h, m| (h == 1 || h == 2) && m == 45,
        ),
        // Days of the month and of the week.
        case("cron: 0 12 L * *", |d| d.day == d.length, |h, m| h == 12 && m == 0),
        case("cron: 30 1 L-3 * *", |d| d.day == d.length - 3, |h, m| h == 1 && m == 30),
        case(
            "cron: 0 2 29W 3,9,10 *",
            |d| matches!(d.month, 3 | 9 | 10) && is_near(d, 29),
            |h, m| h == 2 && m == 0,
        ),
        case("cron: 0 0 1W * *", |d| is_near(d, 1), |h, m| h == 0 && m == 0),
        case(
            "cron: 30 23 LW * *",
            |d| !d.is_weekend() && (1..=d.length - d.day).all(|days| d.on(days).is_weekend()),
            |h, m| h == 23 && m == 30,
        ),
        case("cron: 0 2 * * SUN#2", |d| d.is(SUN) && (8..=14).contains(&d.day), |h, m| h == 2 && m == 0),
        case("cron: 30 2 * * SUNL", |d| d.is(SUN) && d.is_last_week(), |h, m| h == 2 && m == 30),
        case("cron: 0 0 13 * FRI", |d| d.day == 13 || d.is(FRI), |h, m| h == 0 && m == 0),
        case("cron: 0 1 */2 * SUN", |d| d.day % 2 == 1 && d.is(SUN), |h, m| h == 1 && m == 0),
        case("cron: 15 2 29 2 *", |d| d.month == 2 && d.day == 29, |h, m| h == 2 && m == 15),
        // Recurrence rules.
        case(
            "{rrule: 'FREQ=DAILY;INTERVAL=3;BYHOUR=2;BYMINUTE=15', dtstart: 2026-01-02T02:00:00}",
            |d| d.number >= 1 && (d.number - 1) % 3 == 0,
            |h, m| h == 2 && m == 15,
        ),
        case(
            "{rrule: 'FREQ=WEEKLY;INTERVAL=2;BYDAY=SA,SU;WKST=SU', dtstart: 2026-01-03T02:30:00}",
            |d| {
                // Counted from the Sunday before it begins, 2025-12-28.
                d.number >= 2 && d.is_weekend() && (d.number + 4) / 7 % 2 == 0
            },
            |h, m| h == 2 && m == 30,
        ),
        case(
            "{rrule: 'FREQ=MONTHLY;BYDAY=-1SU;BYHOUR=0,1,2;BYMINUTE=0,30', dtstart: 2026-01-01T00:00:00}",
            |d| d.number >= 0 && d.is(SUN) && d.is_last_week(),
            |h, m| h <= 2 && m % 30 == 0,
        ),
        case(
            "{rrule: 'FREQ=YEARLY;BYMONTH=3,10;BYDAY=SU;BYSETPOS=-1', dtstart: 2026-01-01T02:10:00}",
            |d| d.month == 10 && d.is(SUN) && d.is_last_week(),
            |h, m| h == 2 && m == 10,
        ),
        case(
            "{rrule: 'FREQ=HOURLY;INTERVAL=12', dtstart: 2026-01-01T02:10:00}",
            |d| d.number >= 0,
            |h, m| h % 12 == 2 && m == 10,
        ),
        case(
            "{rrule: 'FREQ=MINUTELY;INTERVAL=40;BYMONTH=3,4;BYDAY=FR,SU', dtstart: 2026-01-01T00:20:00}",
            |d| d.number >= 0 && matches!(d.month, 3 | 4) && (d.is(FRI) || d.is(SUN)),
            |h, m| (h * 60 + m) % 40 == 20,
        ),
        case(
            "{rrule: 'FREQ=MONTHLY;BYMONTHDAY=-1;COUNT=60', dtstart: 2026-01-31T23:45:00}",
            |d| d.number >= 0 && d.day == d.length && d.year < 2031,
            |h, m| h == 23 && m == 45,
        ),
        // Once.
        case(
            "at: 2026-03-29T02:30:00",
            |d| (d.year, d.month, d.day) == (2026, 3, 29),
            |h, m| h == 2 && m == 30,
        ),
        case(
            "at: 2030-10-27T01:40:00",
            |d| (d.year, d.month, d.day) == (2030, 10, 27),
            |h, m| h == 1 && m == 40,
        ),
    ]
}

/// A working day than which none is nearer, in its month, to the day `wanted`.
fn is_near(date: &Date, wanted: i64) -> bool {
    let first = Date { day: 1, weekday: (date.weekday - date.day + 1).rem_euclid(7), ..*date };
    let working = (0..date.length).map(|days| first.on(days)).filter(|day| !day.is_weekend());
    let nearest = working.min_by_key(|day| (day.day - wanted).abs()).expect("every month has one");
    wanted <= date.length && nearest.day == date.day
}

/// For each local minute from `EPOCH` on a bit for each case that it belongs to.
fn belongs(cases: &[Case]) -> Vec<u32> {
    let mut belongs = vec![0; MINUTES];
    // 2026-01-01 was a Thursday.
    let mut date = Date { year: 2025, month: 12, day: 26, length: 31, weekday: 5, number: -6 };
    for day in belongs.chunks_mut(DAY as usize) {
        let today: Vec<(u32, &Case)> = (0..).zip(cases).filter(|(_, case)| (case.day)(&date)).collect();
        for (minute, set) in (0..).zip(day) {
            for (bit, case) in &today {
                if (case.time)(minute / 60, minute % 60) {
                    *set |= 1 << bit;
                }
            }
        }
        date = date.tomorrow();
    }
    belongs
}

/// The offset in minutes at a minute since 1970.
fn offset(zone: &TimeZone, minute: i64) -> i64 {
    let seconds = zone.to_offset(Timestamp::from_second(minute * 60).expect("in range")).seconds();
    assert_eq!(seconds % 60, 0, "{zone:?} is walked by minutes");
    i64::from(seconds) / 60
}

/// From which minute on which offset holds: looked up each hour, and each minute between two that differ.
fn offsets(zone: &TimeZone) -> Vec<(i64, i64)> {
    let mut offsets = vec![(FROM - MARGIN, offset(zone, FROM - MARGIN))];
    for hour in (FROM - MARGIN..TO + MARGIN).step_by(60) {
        if offset(zone, hour + 60) == offsets[offsets.len() - 1].1 {
            continue;
        }
        for minute in hour..=hour + 60 {
            let now = offset(zone, minute);
            if now != offsets[offsets.len() - 1].1 {
                offsets.push((minute, now));
            }
        }
    }
    offsets
}

/// What a walk through each minute finds of one case.
#[derive(Default, Clone)]
struct Walked {
    /// Minutes at which the clock shows a time of it, and whether it showed that before.
    shown: Vec<(i64, bool)>,
    /// Minutes at which the clock first shows more than a time of it that it never shows.
    passed: Vec<i64>,
}

fn walk(offsets: &[(i64, i64)], belongs: &[u32], cases: usize) -> Vec<Walked> {
    let mut walked = vec![Walked::default(); cases];
    let mut seen = vec![false; MINUTES];
    let ends = offsets[1..].iter().map(|(from, _)| *from).chain([TO + MARGIN]);
    for ((from, offset), end) in offsets.iter().zip(ends) {
        // Here the clock goes plainly, and shows each minute once.
        let shown = (from + offset - EPOCH) as usize..(end + offset - EPOCH) as usize;
        for (minute, local) in (*from..).zip(shown.clone()) {
            for case in members(belongs[local]) {
                walked[case].shown.push((minute, seen[local]));
            }
        }
        seen[shown].fill(true);
    }
    let clock = |minute: i64| {
        let (_, offset) =
            offsets.iter().rev().find(|(from, _)| *from <= minute).expect("from the beginning on");
        (minute + offset - EPOCH) as usize
    };
    for local in clock(FROM - MARGIN)..clock(TO + MARGIN - 1) {
        if !seen[local] && belongs[local] != 0 {
            // No clock is further from UTC than a day and some.
            let near = (local as i64 + EPOCH - 2 * DAY).max(FROM - MARGIN);
            let minute = (near..).find(|minute| clock(*minute) > local).expect("it goes on");
            for case in members(belongs[local]) {
                walked[case].passed.push(minute);
            }
        }
    }
    walked
}

/// The places of the bits of a set.
fn members(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros() as usize;
        set &= set.checked_sub(1)?;
        Some(place)
    })
}

impl Walked {
    /// In seconds since 1970, in order.
    fn occurrences(&self, second: i64, gap: Gap, fold: Fold) -> Vec<i64> {
        let shown = self.shown.iter().filter(|(_, again)| fold == Fold::Twice || !again);
        let mut all: Vec<i64> = shown.map(|(minute, _)| minute * 60 + second).collect();
        if gap == Gap::FirstValid && !self.passed.is_empty() {
            all.extend(self.passed.iter().map(|minute| minute * 60));
            all.sort_unstable();
            all.dedup();
        }
        all.retain(|at| (FROM * 60..TO * 60).contains(at));
        all
    }
}

/// What the scheduler gives.
fn scheduled(timing: &Timing) -> Vec<i64> {
    let mut t = Timestamp::from_second(FROM * 60 - 1).expect("in range");
    let mut all = Vec::new();
    while let Some(firing) = timing.after(t)
        && firing.due.as_second() < TO * 60
    {
        assert!(firing.due > t);
        all.push(firing.due.as_second());
        t = firing.due;
    }
    all
}

#[test]
fn ten_years_of_every_zone() {
    let cases = cases();
    let belongs = belongs(&cases);
    let mut zones = 0;
    let mut tables: BTreeMap<Vec<(i64, i64)>, TimeZone> = BTreeMap::new();
    for name in jiff::tz::db().available() {
        let Ok(zone) = TimeZone::get(name.as_str()) else { continue };
        zones += 1;
        let from = Timestamp::from_second(FROM * 60).expect("in range");
        let to = Timestamp::from_second(TO * 60).expect("in range");
        let mut table = vec![(0, i64::from(zone.to_offset(from).seconds()))];
        for change in zone.following(from).take_while(|change| change.timestamp() < to) {
            table.push((change.timestamp().as_second(), i64::from(change.offset().seconds())));
        }
        table.dedup_by_key(|(_, offset)| *offset);
        tables.entry(table).or_insert(zone);
    }
    let mut compared = 0;
    for (table, zone) in &tables {
        let name = zone.iana_name().expect("it has a name");
        let walked = walk(&offsets(zone), &belongs, cases.len());
        for (case, walked) in cases.iter().zip(&walked) {
            let written: WrittenTiming = serde_saphyr::from_str(case.rule).expect(case.rule);
            for (gap, fold) in [
                (Gap::FirstValid, Fold::Once),
                (Gap::FirstValid, Fold::Twice),
                (Gap::Skip, Fold::Once),
                (Gap::Skip, Fold::Twice),
            ] {
                let zone = Some(name.to_owned());
                let written = WrittenTiming { zone, gap: Some(gap), fold: Some(fold), ..written.clone() };
                let got = scheduled(&written.read().expect(case.rule));
                let want = walked.occurrences(case.second, gap, fold);
                if let Some(place) =
                    (0..got.len().max(want.len())).find(|place| got.get(*place) != want.get(*place))
                {
                    let at =
                        |all: &[i64]| all.get(place).map(|at| Timestamp::from_second(*at).expect("in range"));
                    panic!(
                        "{} in {name}, {gap:?} and {fold:?}: {:?} is scheduled, {:?} is walked",
                        case.rule,
                        at(&got),
                        at(&want)
                    );
                }
                compared += got.len();
                if table.len() == 1 {
                    // Without a change all policies are one.
                    break;
                }
            }
        }
    }
    println!(
        "{zones} zones, {} tables, {} of them with changes, {} rules: {compared} occurrences are the same",
        tables.len(),
        tables.keys().filter(|table| table.len() > 1).count(),
        cases.len()
    );
    assert!(tables.len() > 50, "only {} tables are known", tables.len());
}
