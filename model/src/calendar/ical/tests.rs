use proptest::prelude::*;

use super::*;
use crate::calendar::{Calendar, Compiled, Kind, zone};

/// As a publisher of public holidays and an office would write it, with folded lines, alarms and a zone of its own.
const HOLIDAYS: &str = include_str!("holidays.ics");
const NOW: &str = "2026-11-27T12:00Z";

fn read(text: &str) -> Result<Import, BadIcal> {
    import(text, &zone("Europe/Warsaw").unwrap(), NOW.parse().unwrap())
}

fn within(events: &str) -> String {
    format!("BEGIN:VCALENDAR\n{events}END:VCALENDAR\n")
}

fn event(properties: &str) -> String {
    within(&format!("BEGIN:VEVENT\n{properties}\nEND:VEVENT\n"))
}

/// The entries, each as JSON.
fn written(import: &Import) -> Vec<String> {
    import.entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect()
}

fn compiled(entries: Vec<Entry>) -> Compiled {
    let zone = "Europe/Warsaw".to_owned();
    let name = "imported".to_owned();
    Compiled::of(Calendar { name, description: String::new(), kind: Kind::Blackout, zone, entries }).unwrap()
}

#[test]
fn a_year_of_holidays() {
    let import = read(HOLIDAYS).unwrap();
    let windows_endings = HOLIDAYS.replace('\n', "\r\n");
    assert_eq!(read(&windows_endings).as_ref(), Ok(&import));
    assert_eq!(
        written(&import),
        [
            r#"{"yearly":"01-01","label":"New Year's Day"}"#,
            r#"{"yearly":"11-11","label":"Independence Day; Święto Niepodległości, as it is called in the country itself"}"#,
            r#"{"date":"2027-03-29","label":"Easter Monday"}"#,
            r#"{"from":"2026-12-24","to":"2026-12-26","label":"Christmas"}"#,
            r#"{"from":"2026-12-31T18:00","to":"2027-01-01T06:00","label":"Night of New Year"}"#,
            r#"{"from":"2026-12-19T21:00","to":"2026-12-19T23:30","label":"Maintenance of the data centre"}"#,
            r#"{"days":["mon","tue","wed","thu"],"from":"22:00","to":"04:00","label":"Batch window"}"#,
            r#"{"days":["sat","sun"],"from":"00:00","to":"24:00","label":"Weekend"}"#,
        ]
    );
    let left_over: Vec<String> = import
        .left_over
        .iter()
        .map(|left| format!("{}: {}: {}", left.line, left.title, left.problem))
        .collect();
    assert_eq!(
        left_over,
        [
            "102: Stocktaking: its RRULE is MONTHLY; entries are of each year or each week",
            "109: Sprint: its RRULE has an end (COUNT=10)",
            "113: Release: is cancelled",
            "120: Order more paper: is a VTODO, no event",
        ]
    );
    let calendar = compiled(import.entries);
    let label = |at: &str| calendar.at(at.parse().unwrap()).and_then(|entry| entry.label.clone());
    assert_eq!(label("2026-12-24T12:00Z").as_deref(), Some("Christmas"));
    assert_eq!(label("2026-12-30T02:59Z").as_deref(), Some("Batch window"));
    assert_eq!(label("2026-12-30T03:00Z"), None);
}

#[test]
fn one_event() {
    for (properties, entry) in [
        ("DTSTART:20261224", r#"{"date":"2026-12-24"}"#),
        ("DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261225", r#"{"date":"2026-12-24"}"#),
        ("DTSTART;VALUE=DATE:20261224\nDURATION:P1W", r#"{"from":"2026-12-24","to":"2026-12-30"}"#),
        (
            "dtstart:20261224T120000\ndtend:20261224T133000",
            r#"{"from":"2026-12-24T12:00","to":"2026-12-24T13:30"}"#,
        ),
        (
            "DTSTART:20261224T120000Z\nDURATION:PT90M",
            r#"{"from":"2026-12-24T13:00","to":"2026-12-24T14:30"}"#,
        ),
        (
            "DTSTART;TZID=\"America/New_York\":20261224T120000\nDURATION:P1DT1H",
            r#"{"from":"2026-12-24T18:00","to":"2026-12-25T19:00"}"#,
        ),
        (
            "DTSTART;TZID=Europe/London:20261224T120000\nDTEND;TZID=Asia/Tokyo:20261225T000030",
            r#"{"from":"2026-12-24T13:00","to":"2026-12-24T16:00:30"}"#,
        ),
        // A day with an hour less: two hours are until 04:00.
        (
            "DTSTART;TZID=Europe/Warsaw:20270328T010000\nDURATION:PT2H",
            r#"{"from":"2027-03-28T01:00","to":"2027-03-28T04:00"}"#,
        ),
        // The second 02:30 of the night that has an hour more.
        (
            "DTSTART;TZID=Europe/Warsaw:20261025T013000\nDURATION:PT2H",
            r#"{"from":"2026-10-25T01:30","to":"2026-10-25T02:30"}"#,
        ),
        // Each night alike, though the first had an hour less.
        (
            "DTSTART;TZID=Europe/Warsaw:20260328T220000\nDURATION:PT8H\nRRULE:FREQ=WEEKLY",
            r#"{"days":["sat"],"from":"22:00","to":"06:00"}"#,
        ),
        // A time that is skipped is read as if it were not.
        (
            "DTSTART;TZID=Europe/Warsaw:20270328T023000\nDTEND;TZID=Europe/Warsaw:20270328T050000",
            r#"{"from":"2027-03-28T03:30","to":"2027-03-28T05:00"}"#,
        ),
        (
            "DTSTART:20261224\nSTATUS:TENTATIVE\nTRANSP:TRANSPARENT\nSUMMARY;LANGUAGE=en: a\\,b\\;\\n c\\\\ ",
            r#"{"date":"2026-12-24","label":"a,b;  c\\"}"#,
        ),
        ("DTSTART:20201224\nRRULE:FREQ=YEARLY", r#"{"yearly":"12-24"}"#),
        ("DTSTART:20200229\nRRULE:FREQ=YEARLY;INTERVAL=1;WKST=SU", r#"{"yearly":"02-29"}"#),
        ("DTSTART:20201224\nRRULE:FREQ=YEARLY;BYMONTH=5;BYMONTHDAY=3", r#"{"yearly":"05-03"}"#),
        (
            "DTSTART:20201224\nRRULE:FREQ=YEARLY;BYMONTHDAY=31;BYMONTH=2,4,5,12",
            r#"{"yearly":"05-31"} {"yearly":"12-31"}"#,
        ),
        ("DTSTART:20201224\nRRULE:FREQ=WEEKLY", r#"{"days":["thu"],"from":"00:00","to":"24:00"}"#),
        (
            "DTSTART;TZID=Europe/Warsaw:20201224T220000\nDURATION:PT8H\nRRULE:FREQ=WEEKLY;BYDAY=TU,MO,TU",
            r#"{"days":["mon","tue"],"from":"22:00","to":"06:00"}"#,
        ),
        (
            "DTSTART:20201224T090000\nDTEND:20201224T170000\nRRULE:freq=weekly;byday=fr",
            r#"{"days":["fri"],"from":"09:00","to":"17:00"}"#,
        ),
    ] {
        let import = read(&event(properties)).unwrap();
        assert_eq!(written(&import).join(" "), entry, "{properties}");
        assert_eq!(import.left_over, [], "{properties}");
        compiled(import.entries);
    }
}

#[test]
fn what_cannot_be_carried_over() {
    for (properties, line, problem) in [
        ("SUMMARY:x", 2, "has no DTSTART"),
        ("DTSTART:20261224\nDTSTART:20261225", 4, "its DTSTART stands there twice"),
        ("DTSTART:2026-12-24", 3, "its DTSTART is '2026-12-24', which is no date or time"),
        ("DTSTART:20261324", 3, "its DTSTART is '20261324', which is no date or time"),
        ("DTSTART:00000101", 3, "its DTSTART is '00000101', which is no date or time"),
        (
            "DTSTART;VALUE=DATE:20261224T120000",
            3,
            "its DTSTART is '20261224T120000', which is no date or time",
        ),
        (
            "DTSTART:20261224T246000\nDURATION:PT1H",
            3,
            "its DTSTART is '20261224T246000', which is no date or time",
        ),
        ("DTSTART:2026ę224", 3, "its DTSTART is '2026ę224', which is no date or time"),
        ("DTSTART:20261224T120000Z", 2, "takes no time: it has neither DTEND nor DURATION"),
        ("DTSTART:20261224\nDTEND:20261224", 4, "its DTEND is not after its DTSTART"),
        ("DTSTART:20261224T120000Z\nDTEND:20261224T120000Z", 4, "its DTEND is not after its DTSTART"),
        (
            "DTSTART:20261224T120000Z\nDTEND;TZID=Europe/Warsaw:20261224T120000",
            4,
            "its DTEND is not after its DTSTART",
        ),
        (
            "DTSTART:20261224\nDTEND:20261224T120000",
            4,
            "its DTEND is not written as its DTSTART is: one is a date, one has a time",
        ),
        ("DTSTART:20261224\nDTEND:20261225\nDURATION:P1D", 5, "its DURATION stands beside a DTEND"),
        (
            "DTSTART:20261224\nDURATION:PT24H",
            4,
            "its DURATION is no number of whole days, which its DTSTART is",
        ),
        (
            "DTSTART:20261224T120000\nDURATION:-PT1H",
            4,
            "its DURATION is '-PT1H', which is no length of time (such as PT8H or P2D)",
        ),
        (
            "DTSTART:20261224T120000\nDURATION:1 hour",
            4,
            "its DURATION is '1 hour', which is no length of time (such as PT8H or P2D)",
        ),
        (
            "DTSTART:20261224T120000\nDURATION:P1M",
            4,
            "its DURATION is 'P1M', which is no length of time (such as PT8H or P2D)",
        ),
        ("DTSTART:20261224T120000\nDURATION:P9999W\nDURATION:P1D", 5, "its DURATION stands there twice"),
        ("DTSTART:99991224T120000\nDURATION:P9W", 4, "its DURATION goes beyond the last day there is"),
        ("DTSTART:99991231", 3, "its DTSTART goes beyond the last day there is"),
        (
            "DTSTART;TZID=W. Europe Standard Time:20261224T120000\nDURATION:PT1H",
            3,
            "its DTSTART is in the zone 'W. Europe Standard Time', which is not one of IANA",
        ),
        (
            "DTSTART:20261025T000000Z\nDTEND:20261025T003000Z",
            2,
            "has an edge in an hour that comes twice in the zone of the calendar, and no entry can say which",
        ),
        (
            "DTSTART;TZID=Europe/Warsaw:20270328T023000\nDTEND;TZID=Europe/Warsaw:20270328T031500",
            2,
            "takes no time: its begin is skipped by the clocks of its zone",
        ),
        ("DTSTART:20261224\nSTATUS:cancelled", 4, "is cancelled"),
        (
            "DTSTART:20261224\nRECURRENCE-ID:20261223",
            4,
            "its RECURRENCE-ID changes an occurrence of a recurring event, which no entry can say",
        ),
        ("DTSTART:20201224\nRRULE:", 4, "its RRULE has no FREQ"),
        ("DTSTART:20201224\nRRULE:FREQ", 4, "its RRULE has 'FREQ', which is no part of a rule"),
        (
            "DTSTART:20201224\nRRULE:FREQ=DAILY",
            4,
            "its RRULE is DAILY; entries are of each year or each week",
        ),
        ("DTSTART:20201224\nRRULE:FREQ=YEARLY\nRRULE:FREQ=YEARLY", 5, "its RRULE stands there twice"),
        ("DTSTART:20201224\nRRULE:FREQ=YEARLY;INTERVAL=2", 4, "its RRULE leaves out times (INTERVAL=2)"),
        ("DTSTART:20201224\nRRULE:FREQ=YEARLY;COUNT=3", 4, "its RRULE has an end (COUNT=3)"),
        ("DTSTART:20201224\nRRULE:FREQ=WEEKLY;UNTIL=20270101", 4, "its RRULE has an end (UNTIL=20270101)"),
        ("DTSTART:20201224\nRRULE:FREQ=YEARLY;FREQ=WEEKLY", 4, "its RRULE has FREQ twice"),
        (
            "DTSTART:20201224\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH",
            4,
            "its RRULE has BYDAY in a year, which no entry can say",
        ),
        (
            "DTSTART:20201224\nRRULE:FREQ=YEARLY;BYMONTHDAY=-1",
            4,
            "its RRULE has BYMONTHDAY=-1, which no entry can say",
        ),
        (
            "DTSTART:20201224\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            4,
            "its RRULE names only days that no year has",
        ),
        (
            "DTSTART:20201224\nRRULE:FREQ=YEARLY;BYYEARDAY=100",
            4,
            "its RRULE has BYYEARDAY=100, which no entry can say",
        ),
        (
            "DTSTART:20201224\nRRULE:FREQ=WEEKLY;BYMONTH=5",
            4,
            "its RRULE has days of months in a week, which no entry can say",
        ),
        (
            "DTSTART:20201224\nRRULE:FREQ=WEEKLY;BYDAY=1MO",
            4,
            "its RRULE has '1MO', which is no day of a week",
        ),
        (
            "DTSTART:20201224\nDURATION:P2D\nRRULE:FREQ=YEARLY",
            5,
            "its RRULE is of each year, for which an entry is one whole day",
        ),
        (
            "DTSTART:20201224T090000\nDURATION:PT24H\nRRULE:FREQ=WEEKLY",
            5,
            "its RRULE is of each week, for which an entry takes less than a day or is a whole one",
        ),
        (
            "DTSTART:20201224T090000Z\nDURATION:PT4H\nRRULE:FREQ=WEEKLY",
            5,
            "its RRULE is of another zone than the calendar's, and an entry has none of its own",
        ),
        (
            "DTSTART:20270501\nRRULE:FREQ=YEARLY",
            4,
            "its RRULE begins only on 2027-05-01, and an entry of each year or week has no begin",
        ),
        (
            "DTSTART:20201224\nRRULE:FREQ=YEARLY\nEXDATE:20261224",
            5,
            "its EXDATE adds or leaves out occurrences, which no entry can say",
        ),
        (
            "DTSTART:20261224\nRDATE:20261231",
            4,
            "its RDATE adds or leaves out occurrences, which no entry can say",
        ),
    ] {
        let import = read(&event(properties)).unwrap();
        assert_eq!(import.entries, [], "{properties}");
        let left: Vec<_> = import.left_over.iter().map(|left| (left.line, left.problem.as_str())).collect();
        assert_eq!(left, [(line, problem)], "{properties}");
    }
}

#[test]
fn a_series_with_a_changed_occurrence_is_left_over_whole() {
    let series = "BEGIN:VEVENT\nUID:a\nDTSTART:20200101\nRRULE:FREQ=YEARLY\nEND:VEVENT\n";
    let change = "BEGIN:VEVENT\nUID:a\nRECURRENCE-ID:20270101\nDTSTART:20270102\nEND:VEVENT\n";
    let other = series.replace("UID:a", "UID:b");
    let import = read(&within(&format!("{series}{other}{change}"))).unwrap();
    assert_eq!(written(&import), [r#"{"yearly":"01-01"}"#]);
    let left: Vec<_> = import.left_over.iter().map(|left| (left.line, left.problem.as_str())).collect();
    assert_eq!(
        left,
        [
            (5, "its RRULE is changed by another event, which no entry can say"),
            (14, "its RECURRENCE-ID changes an occurrence of a recurring event, which no entry can say"),
        ]
    );
}

#[test]
fn what_is_no_icalendar_is_refused() {
    const NAME: &str = "is no line of an iCalendar: it does not begin with a name (letters, digits and '-')";
    for (text, error) in [
        ("", "the text has no VCALENDAR".to_owned()),
        ("\r\n \r\n\n", "the text has no VCALENDAR".to_owned()),
        ("<html>", "line 1: is no line of an iCalendar: it has no ':'".to_owned()),
        ("<html lang=\"a:b\">:", format!("line 1: {NAME}")),
        ("\n:x\n", format!("line 2: {NAME}")),
        (" BEGIN:VCALENDAR\n", format!("line 1: {NAME}")),
        ("VERSION:2.0\n", "line 1: VERSION stands outside of VCALENDAR".to_owned()),
        ("BEGIN:VEVENT\n", "line 1: VEVENT stands outside of VCALENDAR".to_owned()),
        ("END:VCALENDAR\n", "line 1: END:VCALENDAR ends nothing".to_owned()),
        ("\u{feff}BEGIN:VCALENDAR\nVERSION:2.0\n", "line 1: VCALENDAR does not end".to_owned()),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\n", "line 2: VEVENT does not end".to_owned()),
        (
            "BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR\n",
            "line 3: END:VCALENDAR does not end VEVENT of line 2".to_owned(),
        ),
        ("BEGIN:VCALENDAR\nBEGIN:VCALENDAR\n", "line 2: VCALENDAR stands within VCALENDAR".to_owned()),
        ("BEGIN:VCALENDAR\nBEGIN:VTODO\nBEGIN:VEVENT\n", "line 3: VEVENT stands within VTODO".to_owned()),
        (
            "BEGIN:VCALENDAR\nX-A:1\n 2\n\t3\nSUMMARY;X=\"a:b\n",
            "line 5: is no line of an iCalendar: it has no ':'".to_owned(),
        ),
        ("BEGIN:VCALENDAR\nEND:VCALENDAR\nX:1\n", "line 3: X stands outside of VCALENDAR".to_owned()),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), error, "{text:?}");
    }
    assert_eq!(
        read("BEGIN:VCALENDAR\nEND:VCALENDAR\n\nbegin:vcalendar\nend:vcalendar"),
        Ok(Import::default())
    );
}

#[test]
fn limits_are_named() {
    let one = "BEGIN:VEVENT\nDTSTART:20261224\nEND:VEVENT\n";
    let most = read(&within(&one.repeat(limits::ICAL_EVENTS))).unwrap();
    assert_eq!(most.entries.len(), limits::CALENDAR_ENTRIES);
    compiled(most.entries);
    let error = read(&within(&one.repeat(limits::ICAL_EVENTS + 1))).unwrap_err();
    assert_eq!(error.to_string(), "line 15002: this is over the limit ICAL_EVENTS of 5000 components");
    let all_days: Vec<String> = (1..=31).map(|day| day.to_string()).collect();
    let year = format!(
        "BEGIN:VEVENT\nDTSTART:20200101\nRRULE:FREQ=YEARLY;BYMONTHDAY={}\nEND:VEVENT\n",
        all_days.join(",")
    );
    let error = read(&within(&year.repeat(100))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 54: with this event there are entries over the limit CALENDAR_ENTRIES of 5000 entries"
    );
    let error = read(&"x".repeat(limits::ICAL_BYTES + 1)).unwrap_err();
    assert_eq!(error.to_string(), "the text is over the limit ICAL_BYTES of 2097152 bytes");
    let long = read(&event(&format!("DTSTART:20261224\nSUMMARY:{}", "ż".repeat(200)))).unwrap();
    let label = long.entries[0].label.clone().unwrap();
    assert_eq!((label.chars().count(), label.ends_with("ż…")), (limits::NAME_CHARS, true));
}

#[test]
fn a_hostile_text_takes_no_longer() {
    let folded = "\n ".repeat(limits::ICAL_BYTES / 2 - 100);
    let parameters = ";X=\"".repeat(limits::ICAL_BYTES / 4 - 100);
    let rules = "RRULE:FREQ=YEARLY\n".repeat(100_000);
    let nested = "BEGIN:X\n".repeat(250_000);
    let numbers = format!("DTSTART:20200101\nRRULE:FREQ=YEARLY;BYMONTHDAY={}1", "1,".repeat(1_000_000));
    for text in [
        event(&format!("DTSTART{folded}:20261224")),
        event(&format!("DTSTART{parameters}:20261224")),
        event(&format!("DTSTART:20261224\n{rules}")),
        within(&nested),
        event(&numbers),
    ] {
        assert!(text.len() <= limits::ICAL_BYTES);
        drop(read(&text));
    }
}

/// Lines of which texts that almost make sense are put together.
const LINES: [&str; 34] = [
    "BEGIN:VCALENDAR",
    "END:VCALENDAR",
    "BEGIN:VEVENT",
    "END:VEVENT",
    "BEGIN:VALARM",
    "END:VALARM",
    "BEGIN:VTODO",
    "END:VTODO",
    "DTSTART:20261224",
    "DTSTART;VALUE=DATE:20260229",
    "DTSTART:20261025T023000",
    "DTSTART:20200101T090000",
    "DTSTART;TZID=America/Santiago:20200905T233000",
    "DTSTART;TZID=Pacific/Apia:20111230T120000",
    "DTSTART:99991231T235960Z",
    "DTSTART:00010101T000000Z",
    "DTEND:20261226",
    "DTEND:20261025T023000Z",
    "DTEND;TZID=Europe/Warsaw:99991231T235959",
    "DURATION:P1D",
    "DURATION:PT1H",
    "DURATION:PT9999999H",
    "DURATION:P99999999999999999999D",
    "RRULE:FREQ=YEARLY",
    "RRULE:FREQ=WEEKLY;BYDAY=MO,FR",
    "RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29,30,31",
    "RRULE:FREQ=WEEKLY;COUNT=99999999999999999999",
    "SUMMARY:\\",
    "SUMMARY:\u{7f}\\n\u{0}",
    "EXDATE:20261224",
    "RECURRENCE-ID:20261224",
    "UID:a",
    " folded",
    "\t",
];

/// Whatever comes out is good for a calendar.
fn check(text: &str) -> Result<(), TestCaseError> {
    match read(text) {
        Ok(import) => {
            let lines = text.split('\n').count();
            prop_assert!(import.left_over.iter().all(|left| (1..=lines).contains(&left.line)));
            let calendar = compiled(import.entries);
            calendar.until(NOW.parse().unwrap());
        }
        Err(bad) => prop_assert!(bad.line <= text.split('\n').count(), "{}", bad),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_text(text in "\\PC*|[A-Z:;=\",\\r\\n\\t ]*") {
        check(&text)?;
        check(&event(&text))?;
    }

    #[test]
    fn any_property(name in "DTSTART|DTEND|DURATION|RRULE|SUMMARY", text in "(;(TZID|VALUE)=\\PC{0,9})?:[-+0-9TZPDHMW;=,A-Z]{0,20}") {
        check(&event(&format!("DTSTART:20200101\n{name}{text}")))?;
        check(&event(&format!("{name}{text}\nDURATION:P1D")))?;
    }

    #[test]
    fn any_lines(lines in proptest::collection::vec(proptest::sample::select(&LINES[..]), 0..12)) {
        let text = lines.join("\n");
        check(&text)?;
        check(&event(&text))?;
    }
}
