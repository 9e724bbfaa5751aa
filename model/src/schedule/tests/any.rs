//! What holds for any text and any timing.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use proptest::prelude::*;

use super::super::{Cron, Entry, Fold, Gap, Moment, Rrule, Rule, Timing, WrittenTiming};

/// One field of a cron that has some number from `low` to `high`.
fn field(low: u8, high: u8) -> impl Strategy<Value = String> {
    let number = low..=high;
    prop_oneof![
        4 => Just("*".to_owned()),
        4 => number.clone().prop_map(|number| number.to_string()),
        2 => (number.clone(), number.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (1..=high).prop_map(|step| format!("*/{step}")),
        1 => (number.clone(), 1..=high).prop_map(|(from, step)| format!("{from}/{step}")),
        2 => proptest::collection::vec(number, 1..5)
            .prop_map(|list| list.iter().map(u8::to_string).collect::<Vec<_>>().join(",")),
    ]
}

fn cron() -> impl Strategy<Value = String> {
    let day = prop_oneof![
        4 => field(1, 31),
        1 => prop_oneof!["L", "LW", "L-[1-9]", "1?[1-9]W", "[1-9],L", "\\?"],
    ];
    let weekday = prop_oneof![
        4 => field(0, 7),
        1 => prop_oneof!["(MON|Tue|wed|SUN)#[1-5]", "[0-7]L", "FRI,SUNL", "\\?"],
    ];
    (proptest::option::of(field(0, 59)), field(0, 59), field(0, 23), day, field(1, 12), weekday).prop_map(
        |(second, minute, hour, day, month, weekday)| {
            let five = format!("{minute} {hour} {day} {month} {weekday}");
            second.map_or(five.clone(), |second| format!("{second} {five}"))
        },
    )
}

fn rrule() -> impl Strategy<Value = String> {
    let list = |low: i16, high: i16| {
        proptest::collection::vec((low..=high).prop_filter("0 is none", move |n| low >= 0 || *n != 0), 1..4)
            .prop_map(|list| list.iter().map(i16::to_string).collect::<Vec<_>>().join(","))
    };
    let part = prop_oneof![
        (1..50_i64).prop_map(|number| format!("INTERVAL={number}")),
        list(1, 12).prop_map(|list| format!("BYMONTH={list}")),
        list(-31, 31).prop_map(|list| format!("BYMONTHDAY={list}")),
        list(-366, 366).prop_map(|list| format!("BYYEARDAY={list}")),
        list(-53, 53).prop_map(|list| format!("BYWEEKNO={list}")),
        list(0, 23).prop_map(|list| format!("BYHOUR={list}")),
        list(0, 59).prop_map(|list| format!("BYMINUTE={list}")),
        list(0, 59).prop_map(|list| format!("BYSECOND={list}")),
        list(-9, 9).prop_map(|list| format!("BYSETPOS={list}")),
        "BYDAY=(-?[1-5])?(MO|SU)(,(TU|FR|SA))?",
        "WKST=(SU|MO|WE)",
        (1..300).prop_map(|number| format!("COUNT={number}")),
        "UNTIL=20(27|33)0[1-9]1[0-9]",
    ];
    let frequency = "FREQ=(YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY|MINUTELY)";
    (frequency, proptest::collection::vec(part, 0..4)).prop_map(|(frequency, mut parts)| {
        parts.insert(0, frequency);
        parts.join(";")
    })
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Warsaw",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "Africa/Casablanca",
    "Pacific/Apia",
    "America/Scoresbysund",
];

/// A start that lies well within the table of every zone.
const START: DateTime = DateTime::constant(2011, 12, 1, 2, 30, 0, 0);

/// Any rule that is not refused.
fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        cron().prop_filter_map("it comes", |text| Cron::parse(&text).ok().map(Rule::Cron)),
        rrule().prop_filter_map("it comes", |text| {
            Rrule::parse(&text, START, &TimeZone::UTC).ok().map(Rule::Rrule)
        }),
    ]
}

fn timing() -> impl Strategy<Value = Timing> {
    let gap = prop_oneof![Just(Gap::FirstValid), Just(Gap::Skip)];
    let fold = prop_oneof![Just(Fold::Once), Just(Fold::Twice)];
    (rule(), 0..ZONES.len(), gap, fold).prop_map(|(rule, zone, gap, fold)| {
        let zone = TimeZone::get(ZONES[zone]).expect("a zone");
        Timing { rule, zone, gap, fold, starts_at: None, ends_at: None }
    })
}

fn next(rule: &Rule, from: DateTime) -> Option<DateTime> {
    match rule {
        Rule::Cron(cron) => cron.next(from),
        Rule::Rrule(rule) => rule.next(from),
        Rule::Every(_) | Rule::At(_) | Rule::On(_) => None,
    }
}

proptest! {
    // Many of these rules never come, and to know that takes a while.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn firings_increase_and_match(timing in timing(), second in 1_322_000_000..2_200_000_000_i64) {
        let mut t = Timestamp::from_second(second).expect("in range");
        for _ in 0..30 {
            let Some(firing) = timing.after(t) else { break };
            prop_assert!(firing.due > t);
            prop_assert_eq!(firing.offset.to_datetime(firing.due), firing.local);
            prop_assert_eq!(timing.zone.to_offset(firing.due), firing.offset);
            // Nothing lies between, from wherever it is asked.
            let between = Timestamp::from_second((t.as_second() + firing.due.as_second()) / 2).expect("in range");
            prop_assert_eq!(timing.after(between), Some(firing));
            let just_before = firing.due - SignedDuration::from_nanos(1);
            prop_assert_eq!(timing.after(just_before), Some(firing));
            if next(&timing.rule, firing.local) != Some(firing.local) {
                // Then it stands for what was skipped just before.
                prop_assert_eq!(timing.gap, Gap::FirstValid);
                let before = timing.zone.to_datetime(firing.due - SignedDuration::from_secs(1));
                let skipped = next(&timing.rule, before + SignedDuration::from_secs(1));
                prop_assert!(skipped.is_some_and(|skipped| skipped < firing.local), "{:?}", skipped);
            }
            t = firing.due;
        }
    }

    #[test]
    fn a_rule_leaps_to_where_it_would_walk(rule in rule(), hours in 0..300_000_i64) {
        let mut local = START;
        let from = START + SignedDuration::from_hours(hours);
        // From the start, one after the other.
        for _ in 0..300 {
            let Some(found) = next(&rule, local) else { return Ok(()) };
            let between = local + (found.duration_since(local)) / 2;
            prop_assert_eq!(next(&rule, between), Some(found));
            prop_assert!(found >= local);
            if found >= from {
                prop_assert_eq!(next(&rule, from), Some(found));
                return Ok(());
            }
            local = found + SignedDuration::from_secs(1);
        }
    }

    #[test]
    fn what_is_written_is_read_again(timing in timing()) {
        let written = WrittenTiming::from(timing.clone());
        prop_assert_eq!(written.read().expect("as written"), timing.clone());
        let json = serde_json::to_string(&timing).expect("plain data");
        prop_assert_eq!(serde_json::from_str::<Timing>(&json).expect("as written"), timing);
    }

}

proptest! {
    #[test]
    fn a_cron_is_a_cron_of_its_text(text in cron()) {
        if let Ok(cron) = Cron::parse(&text) {
            prop_assert_eq!(Cron::parse(&cron.to_string()), Ok(cron));
        }
    }

    #[test]
    fn no_text_is_too_bad(text in "\\PC{0,40}") {
        let _ = Cron::parse(&text);
        let _ = Rrule::parse(&text, START, &TimeZone::UTC);
        let _ = Moment::parse("at", &text);
        let _ = Entry::parse(&text);
        let zone = Some(text.clone());
        let _ = WrittenTiming { cron: Some(text), zone, ..WrittenTiming::default() }.read();
    }

    #[test]
    fn no_text_of_known_words_is_too_bad(
        words in proptest::collection::vec(
            "[0-9*,/LW#?-]{1,4}|every|at|on|the|last|1st|day|mon|weekdays|9:00|15m|of|month|[a-z]{3}|2026-12-01|é",
            0..7,
        ),
    ) {
        let text = words.join(" ");
        let _ = Cron::parse(&text);
        if let Ok(entry) = Entry::parse(&text) {
            prop_assert!(entry.timing.after(Timestamp::UNIX_EPOCH).is_some(), "{}", text);
            prop_assert_eq!(entry.cron.is_some(), matches!(entry.timing.rule, Rule::Cron(_)));
        }
    }

    #[test]
    fn no_rule_of_known_parts_is_too_bad(text in "FREQ=(DAILY|YEARLY)(;[A-Z]{4,10}=[-0-9A-Z,+]{0,6}){0,3}") {
        let _ = Rrule::parse(&text, START, &TimeZone::UTC);
    }
}
