use std::collections::BTreeMap;

use jiff::{
    SignedDuration, ToSpan as _,
    civil::{Date, DateTime},
};
use proptest::{prelude::*, sample::select};

use super::*;
use crate::calendar::parse;

fn calendar(zone: &str, entries: &[Entry]) -> Calendar {
    Calendar {
        name: "x".to_owned(),
        description: String::new(),
        kind: Kind::Blackout,
        zone: zone.to_owned(),
        entries: entries.to_vec(),
    }
}

fn compiled(zone: &str, entries: &str) -> Compiled {
    let text = format!("name: x\nkind: blackout\nzone: {zone}\nentries: [{entries}]\n");
    Compiled::of(parse(&text).unwrap()).unwrap()
}

#[test]
fn from_is_inside_and_to_is_not() {
    // Zone, entry, and each half-open window of instants that it is.
    for (zone, entry, windows) in [
        ("UTC", "{date: 2026-12-24}", vec![("2026-12-24T00:00Z", "2026-12-25T00:00Z")]),
        (
            "Europe/Warsaw",
            "{from: 2026-12-20, to: 2027-01-03}",
            vec![("2026-12-19T23:00Z", "2027-01-03T23:00Z")],
        ),
        (
            "Europe/Warsaw",
            "{from: 2026-12-31T18:00, to: 2027-01-01T06:00}",
            vec![("2026-12-31T17:00Z", "2027-01-01T05:00Z")],
        ),
        // Over midnight, on Friday 25 and Monday 28.
        (
            "UTC",
            "{days: [fri, mon], from: 22:00, to: 06:00}",
            vec![("2026-12-25T22:00Z", "2026-12-26T06:00Z"), ("2026-12-28T22:00Z", "2026-12-29T06:00Z")],
        ),
        ("UTC", "{days: [sun], from: 22:00, to: 24:00}", vec![("2026-12-27T22:00Z", "2026-12-28T00:00Z")]),
        ("UTC", "{days: [sun], from: 22:00, to: 02:00}", vec![("2026-12-27T22:00Z", "2026-12-28T02:00Z")]),
        (
            "UTC",
            "{yearly: 12-25}",
            vec![("2026-12-25T00:00Z", "2026-12-26T00:00Z"), ("2027-12-25T00:00Z", "2027-12-26T00:00Z")],
        ),
        ("UTC", "{yearly: 02-29}", vec![("2028-02-29T00:00Z", "2028-03-01T00:00Z")]),
        // 23 and 25 hours.
        ("Europe/Warsaw", "{date: 2026-03-29}", vec![("2026-03-28T23:00Z", "2026-03-29T22:00Z")]),
        ("Europe/Warsaw", "{date: 2026-10-25}", vec![("2026-10-24T22:00Z", "2026-10-25T23:00Z")]),
        // An edge in the hour that is skipped is the moment of the skip, one in the hour that comes twice gives all there is.
        (
            "Europe/Warsaw",
            "{from: 2026-03-29T02:30, to: 2026-03-29T04:00}",
            vec![("2026-03-29T01:00Z", "2026-03-29T02:00Z")],
        ),
        (
            "Europe/Warsaw",
            "{from: 2026-10-25T01:00, to: 2026-10-25T02:30}",
            vec![("2026-10-24T23:00Z", "2026-10-25T01:30Z")],
        ),
        (
            "Europe/Warsaw",
            "{days: [sun], from: 02:15, to: 02:30}",
            vec![("2026-10-18T00:15Z", "2026-10-18T00:30Z"), ("2026-10-25T00:15Z", "2026-10-25T01:30Z")],
        ),
        // There is no midnight to begin the day with; the day before comes to its last hour twice.
        ("America/Santiago", "{date: 2026-09-06}", vec![("2026-09-06T04:00Z", "2026-09-07T03:00Z")]),
        ("America/Santiago", "{date: 2026-04-04}", vec![("2026-04-04T03:00Z", "2026-04-05T04:00Z")]),
        ("America/Santiago", "{date: 2026-04-05}", vec![("2026-04-05T04:00Z", "2026-04-06T04:00Z")]),
        (
            "Australia/Lord_Howe",
            "{days: [sun], from: 01:45, to: 02:15}",
            vec![("2026-04-04T14:45Z", "2026-04-04T15:45Z"), ("2026-10-03T15:15Z", "2026-10-03T15:30Z")],
        ),
        // The night of Thursday ends with it, as the clocks go on to Saturday.
        (
            "Pacific/Apia",
            "{days: [thu], from: 22:00, to: 06:00}",
            vec![("2011-12-30T08:00Z", "2011-12-30T10:00Z")],
        ),
        (
            "Pacific/Apia",
            "{from: 2011-12-29, to: 2011-12-31}",
            vec![("2011-12-29T10:00Z", "2011-12-31T10:00Z")],
        ),
    ] {
        let compiled = compiled(zone, entry);
        let second = SignedDuration::from_secs(1);
        for (from, to) in windows {
            let (from, to): (Timestamp, Timestamp) = (from.parse().unwrap(), to.parse().unwrap());
            let inside = [from - second, from, to - SignedDuration::from_nanos(1), to]
                .map(|instant| compiled.at(instant).is_some());
            assert_eq!(inside, [false, true, true, false], "{zone} {entry} {from}");
            assert_eq!(compiled.until(from - second), Some(from), "{zone} {entry}");
            assert_eq!(compiled.until(from), Some(to), "{zone} {entry}");
        }
    }
}

#[test]
fn what_is_skipped_does_not_happen() {
    let skipped = compiled("Pacific/Apia", "{date: 2011-12-30}");
    let before: Timestamp = "2011-12-29T00:00Z".parse().unwrap();
    assert_eq!(skipped.until(before), None);
    let hours = (0..72).map(|hours| before + SignedDuration::from_hours(hours));
    assert!(hours.into_iter().all(|instant| skipped.at(instant).is_none()));
    let weekly = compiled("Europe/Warsaw", "{days: [sun], from: 02:15, to: 02:45}");
    let week_before: Timestamp = "2026-03-23T00:00Z".parse().unwrap();
    assert_eq!(weekly.until(week_before), Some("2026-04-05T00:15Z".parse().unwrap()));
}

#[test]
fn until_goes_over_what_touches() {
    let christmas = compiled(
        "UTC",
        "{date: 2026-12-24}, {yearly: 12-25}, {from: 2026-12-26T00:00, to: 2026-12-26T18:00}, \
         {days: [sat], from: 18:00, to: 03:00}",
    );
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert_eq!(christmas.until(at("2026-12-24T10:00Z")), Some(at("2026-12-27T03:00Z")));
    assert_eq!(christmas.until(at("2026-12-27T03:00Z")), Some(at("2027-01-02T18:00Z")));
    // A leap day may be eight years away, and what is always so has no end.
    assert_eq!(
        compiled("UTC", "{yearly: 02-29}").until(at("2096-03-01T00:00Z")),
        Some(at("2104-02-29T00:00Z"))
    );
    let week = "{days: [mon, tue, wed, thu, fri, sat, sun], from: 00:00, to: 24:00}";
    assert_eq!(compiled("UTC", week).until(at("2026-12-24T10:00Z")), None);
    assert_eq!(compiled("UTC", "").until(at("2026-12-24T10:00Z")), None);
    assert_eq!(compiled("UTC", "{date: 2050-01-01}").until(at("2026-12-24T10:00Z")), None, "too far away");
    assert_eq!(compiled("UTC", "{from: 2026-01-01, to: 9999-12-31}").until(at("2026-12-24T10:00Z")), None);
    for zone in ["UTC", "Pacific/Apia", "America/Santiago"] {
        for edge in [Timestamp::MIN, Timestamp::MAX] {
            let compiled = compiled(zone, "{yearly: 12-31}, {days: [mon], from: 23:00, to: 01:00}");
            drop((compiled.at(edge).cloned(), compiled.until(edge)));
        }
    }
}

#[test]
fn the_first_written_gives_the_reason() {
    let calendar = compiled(
        "UTC",
        "{yearly: 12-25, label: Christmas}, {from: 2026-12-20, to: 2027-01-03, label: Freeze}, \
         {days: [fri], from: 00:00, to: 24:00, label: Friday}",
    );
    for (at, label) in [
        ("2026-12-25T12:00Z", Some("Christmas")),
        ("2027-01-01T12:00Z", Some("Freeze")),
        ("2027-01-08T12:00Z", Some("Friday")),
        ("2027-01-09T12:00Z", None),
    ] {
        let entry = calendar.at(at.parse().unwrap());
        assert_eq!(entry.and_then(|entry| entry.label.as_deref()), label, "{at}");
    }
}

/// Zones, and instants at which their clocks are changed, each a whole minute.
const CHANGES: [(&str, &str); 11] = [
    ("Europe/Warsaw", "2026-03-29T01:00Z"),
    ("Europe/Warsaw", "2026-10-25T01:00Z"),
    ("America/Santiago", "2026-09-06T04:00Z"),
    ("America/Santiago", "2026-04-05T03:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00Z"),
    ("Pacific/Kwajalein", "1969-09-30T13:00Z"),
    ("America/Havana", "2026-11-01T05:00Z"),
    ("America/St_Johns", "2006-10-29T02:31Z"),
    ("UTC", "2028-02-29T12:00Z"),
];

/// What the clock shows in each minute of the days around a change: the definition is looked up in it.
struct Scan {
    first: Timestamp,
    shown: Vec<DateTime>,
}

impl Scan {
    const MINUTES: i64 = 6 * 24 * 60;

    fn around(zone: &str, change: Timestamp) -> Self {
        let zone = TimeZone::get(zone).unwrap();
        let first = change - SignedDuration::from_mins(Self::MINUTES / 2);
        let minutes = (0..Self::MINUTES).map(|minutes| first + SignedDuration::from_mins(minutes));
        Self { first, shown: minutes.map(|minute| zone.to_datetime(minute)).collect() }
    }

    fn contains(&self, minute: usize, from: DateTime, to: DateTime) -> bool {
        let begins = self.shown.iter().position(|shown| *shown >= from);
        let ends = self.shown.iter().rposition(|shown| *shown < to);
        begins.is_some_and(|begins| begins <= minute) && ends.is_some_and(|last| minute <= last)
    }

    fn windows(&self, entry: &Entry) -> Vec<(DateTime, DateTime)> {
        let midnight = |date: Date| date.to_datetime(Default::default());
        let first = self.shown[0].date();
        let days = (-2..12).map(|days| first + i64::from(days).days());
        match entry.when().unwrap() {
            When::Days { first, last } => vec![(midnight(first), midnight(last.tomorrow().unwrap()))],
            When::Window { from, to } => vec![(from, to)],
            When::Weekly { days: of_week, from, to } => days
                .filter(|day| of_week.contains(&Day::from(day.weekday())))
                .map(|day| (midnight(day) + from.seconds(), midnight(day) + to.seconds()))
                .collect(),
            When::Yearly { month, day } => days
                .filter(|date| (date.month(), date.day()) == (month, day))
                .map(|date| (midnight(date), midnight(date.tomorrow().unwrap())))
                .collect(),
        }
    }

    /// The first written entry in each minute.
    fn entries(&self, entries: &[Entry]) -> Vec<Option<usize>> {
        let mut of_minutes = vec![None; self.shown.len()];
        for (index, entry) in entries.iter().enumerate().rev() {
            for (from, to) in self.windows(entry) {
                let begins = self.shown.iter().position(|shown| *shown >= from);
                let ends = self.shown.iter().rposition(|shown| *shown < to);
                if let Some((begins, last)) = begins.zip(ends)
                    && begins <= last
                {
                    of_minutes[begins..=last].fill(Some(index));
                }
            }
        }
        of_minutes
    }
}

/// Entries around what the clock shows at a change, often within the hours of it.
fn entries(around: DateTime) -> impl Strategy<Value = Vec<Entry>> {
    let day = move |days: i64| around.date() + days.days();
    let minutes = prop_oneof![-150_i64..150, -2880_i64..2880];
    let length = prop_oneof![1_i64..120, 1_i64..3000];
    let midnight = around.date().to_datetime(Default::default());
    let hour = around.duration_since(midnight).as_mins();
    let time = prop_oneof![0_i64..1440, (-100_i64..100).prop_map(move |more| (hour + more).rem_euclid(1440))];
    let days = proptest::sample::subsequence(Day::ALL.to_vec(), 1..4);
    let when = prop_oneof![
        (-3_i64..3, 0_i64..2)
            .prop_map(move |(from, more)| When::Days { first: day(from), last: day(from + more) }),
        (minutes, length).prop_map(move |(from, length)| {
            let from = around.with().second(0).subsec_nanosecond(0).build().unwrap() + from.minutes();
            When::Window { from, to: from + length.minutes() }
        }),
        (days, time, 1_i64..1440).prop_map(|(days, from, length)| {
            When::Weekly { days, from: from * 60, to: (from + length) * 60 }
        }),
        (-3_i64..3).prop_map(move |days| When::Yearly { month: day(days).month(), day: day(days).day() }),
    ];
    proptest::collection::vec(when.prop_map(Entry::from), 0..5)
}

fn around_a_change() -> impl Strategy<Value = (&'static str, Timestamp, Vec<Entry>)> {
    select(&CHANGES[..]).prop_flat_map(|(zone, change)| {
        let change: Timestamp = change.parse().unwrap();
        let shown = TimeZone::get(zone).unwrap().to_datetime(change);
        (Just(zone), Just(change), entries(shown))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn as_a_scan_by_the_definition((zone, change, entries) in around_a_change()) {
        let compiled = Compiled::of(calendar(zone, &entries)).unwrap();
        let scan = Scan::around(zone, change);
        let want = scan.entries(&entries);
        let edges = |minute: usize| want[minute].is_some() != want[minute - 1].is_some();
        let mut next = None;
        // Without the first and the last day: what is skipped just before is not in the scan.
        for minute in (1440..want.len()).rev() {
            let instant = scan.first + SignedDuration::from_mins(i64::try_from(minute).unwrap());
            if minute < want.len() - 1440 {
                let got = compiled.at(instant + SignedDuration::from_millis(59_999));
                prop_assert_eq!(got, want[minute].map(|index| &entries[index]), "{} {}", zone, instant);
                if minute % 7 == 0 || next.is_some_and(|next: Timestamp| next.duration_since(instant).as_mins() < 3) {
                    let until = compiled.until(instant);
                    match next {
                        Some(next) => prop_assert_eq!(until, Some(next), "{} {}", zone, instant),
                        None => prop_assert!(until.is_none_or(|until| until > instant), "{} {}", zone, instant),
                    }
                }
            }
            if edges(minute) {
                next = Some(instant);
            }
        }
    }
}

#[test]
fn as_many_as_there_may_be() {
    let day = jiff::civil::date(2026, 1, 1);
    let entries: Vec<Entry> = (0..5000_i64)
        .map(|n| {
            let from = day.to_datetime(Default::default()) + (n * 97).minutes();
            match n % 3 {
                0 => When::Window { from, to: from + (n % 50 + 1).minutes() },
                1 => When::Weekly { days: Day::ALL.to_vec(), from: n, to: n + 1 },
                _ => When::Days { first: from.date(), last: from.date() },
            }
        })
        .map(Entry::from)
        .collect();
    let compiled = Compiled::of(calendar("Europe/Warsaw", &entries)).unwrap();
    let scan = Scan::around("Europe/Warsaw", "2026-03-29T01:00Z".parse().unwrap());
    let of_entries: BTreeMap<usize, Vec<_>> =
        entries.iter().map(|entry| scan.windows(entry)).enumerate().collect();
    for minute in (1500..6000).step_by(997) {
        let instant = scan.first + SignedDuration::from_mins(i64::try_from(minute).unwrap());
        let holds = |windows: &Vec<(DateTime, DateTime)>| {
            windows.iter().any(|(from, to)| scan.contains(minute, *from, *to))
        };
        let want = of_entries.iter().find(|(_, windows)| holds(windows)).map(|(index, _)| &entries[*index]);
        assert_eq!(compiled.at(instant), want, "{instant}");
    }
}
