use jiff::{SignedDuration, civil::DateTime, tz::TimeZone};

use crate::schedule::Rrule;

fn local(text: &str) -> DateTime {
    text.parse().expect(text)
}

fn new_york() -> TimeZone {
    TimeZone::get("America/New_York").expect("a zone")
}

fn matches(rule: &Rrule, count: usize) -> Vec<DateTime> {
    let mut from = rule.start();
    let mut found = Vec::new();
    while found.len() < count
        && let Some(next) = rule.next(from)
    {
        found.push(next);
        from = next.checked_add(SignedDuration::from_secs(1)).expect("in range");
    }
    found
}

/// A rule, its start, and its first matches as `M-D`, `Y-M-D` or with a time; of what is left out the one before holds.
fn check(rule: &str, start: &str, want: &str) {
    let rule = Rrule::parse(rule, local(start), &new_york()).expect(rule);
    let mut so_far = rule.start();
    let (is_all, want) = want.strip_suffix(" end").map_or((false, want), |want| (true, want));
    let want: Vec<DateTime> = want
        .split(' ')
        .map(|text| {
            let (date, time) = match text.split_once('T') {
                Some((date, time)) => (date, Some(time)),
                None if text.contains(':') => ("", Some(text)),
                None => (text, None),
            };
            let numbers: Vec<i16> = date.split('-').filter_map(|number| number.parse().ok()).collect();
            let (year, month, day) = match numbers[..] {
                [year, month, day] => (year, month, day),
                [month, day] => (so_far.year(), month, day),
                [day] => (so_far.year(), so_far.month().into(), day),
                _ => (so_far.year(), so_far.month().into(), so_far.day().into()),
            };
            let date = jiff::civil::Date::new(year, month as i8, day as i8).expect(text);
            so_far = date.to_datetime(time.map_or(so_far.time(), |time| time.parse().expect(time)));
            so_far
        })
        .collect();
    assert_eq!(matches(&rule, want.len() + usize::from(is_all)), want, "{rule}");
}

/// The examples of RFC 5545, 3.8.5.3.
#[test]
fn examples_of_the_rfc() {
    let start = "1997-09-02T09:00:00";
    check("RRULE:FREQ=DAILY;COUNT=10", start, "2 3 4 5 6 7 8 9 10 11 end");
    check("FREQ=DAILY;INTERVAL=2", start, "2 4 6 8");
    check("FREQ=DAILY;INTERVAL=10;COUNT=5", start, "2 12 22 10-2 10-12 end");
    check("FREQ=WEEKLY;COUNT=10", start, "2 9 16 23 30 10-7 14 21 28 11-4 end");
    check("FREQ=WEEKLY;INTERVAL=2;WKST=SU", start, "2 16 30 10-14 28 11-11");
    check(
        "FREQ=WEEKLY;UNTIL=19971007T000000Z;WKST=SU;BYDAY=TU,TH",
        start,
        "2 4 9 11 16 18 23 25 30 10-2 end",
    );
    check(
        "FREQ=WEEKLY;INTERVAL=2;UNTIL=19971224T000000Z;WKST=SU;BYDAY=MO,WE,FR",
        "1997-09-01T09:00:00",
        "1 3 5 15 17 19 29 10-1 3 13 15 17 27 29 31 11-10 12 14 24 26 28 12-8 10 12 22 end",
    );
    check("FREQ=WEEKLY;INTERVAL=2;COUNT=8;WKST=SU;BYDAY=TU,TH", start, "2 4 16 18 30 10-2 14 16 end");
    check(
        "FREQ=MONTHLY;COUNT=10;BYDAY=1FR",
        "1997-09-05T09:00:00",
        "9-5 10-3 11-7 12-5 1998-1-2 2-6 3-6 4-3 5-1 6-5 end",
    );
    check(
        "FREQ=MONTHLY;INTERVAL=2;COUNT=10;BYDAY=1SU,-1SU",
        "1997-09-07T09:00:00",
        "9-7 28 11-2 30 1998-1-4 25 3-1 29 5-3 31 end",
    );
    check(
        "FREQ=MONTHLY;COUNT=6;BYDAY=-2MO",
        "1997-09-22T09:00:00",
        "22 10-20 11-17 12-22 1998-1-19 2-16 end",
    );
    check("FREQ=MONTHLY;BYMONTHDAY=-3", "1997-09-28T09:00:00", "28 10-29 11-28 12-29 1998-1-29 2-26");
    check("FREQ=MONTHLY;COUNT=5;BYMONTHDAY=2,15", start, "2 15 10-2 15 11-2 end");
    check(
        "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=1,-1",
        "1997-09-30T09:00:00",
        "30 10-1 31 11-1 30 12-1 31 1998-1-1 31 2-1 end",
    );
    check(
        "FREQ=MONTHLY;INTERVAL=18;COUNT=10;BYMONTHDAY=10,11,12,13,14,15",
        "1997-09-10T09:00:00",
        "10 11 12 13 14 15 1999-3-10 11 12 13 end",
    );
    check("FREQ=MONTHLY;INTERVAL=2;BYDAY=TU", start, "2 9 16 23 30 11-4 11 18 25 1998-1-6");
    check("FREQ=YEARLY;COUNT=4;BYMONTH=6,7", "1997-06-10T09:00:00", "6-10 7-10 1998-6-10 7-10 end");
    check(
        "FREQ=YEARLY;INTERVAL=2;COUNT=5;BYMONTH=1,2,3",
        "1997-03-10T09:00:00",
        "3-10 1999-1-10 2-10 3-10 2001-1-10 end",
    );
    check(
        "FREQ=YEARLY;INTERVAL=3;COUNT=10;BYYEARDAY=1,100,200",
        "1997-01-01T09:00:00",
        "1-1 4-10 7-19 2000-1-1 4-9 7-18 2003-1-1 4-10 7-19 2006-1-1 end",
    );
    check("FREQ=YEARLY;BYDAY=20MO", "1997-05-19T09:00:00", "19 1998-5-18 1999-5-17");
    check("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "1997-05-12T09:00:00", "12 1998-5-11 1999-5-17");
    check("FREQ=YEARLY;BYMONTH=3;BYDAY=TH", "1997-03-13T09:00:00", "13 20 27 1998-3-5 12 19 26 1999-3-4");
    check("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", start, "1998-2-13 3-13 11-13 1999-8-13 2000-10-13");
    check(
        "FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13",
        "1997-09-13T09:00:00",
        "13 10-11 11-8 12-13 1998-1-10 2-7",
    );
    check(
        "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
        "1996-11-05T09:00:00",
        "5 2000-11-7 2004-11-2",
    );
    check("FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3", "1997-09-04T09:00:00", "4 10-7 11-6 end");
    check(
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2",
        "1997-09-29T09:00:00",
        "29 10-30 11-27 12-30 1998-1-29 2-26 3-30",
    );
    check("FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T170000", start, "09:00 12:00 15:00 end");
    check("FREQ=MINUTELY;INTERVAL=15;COUNT=6", start, "09:00 09:15 09:30 09:45 10:00 10:15 end");
    check("FREQ=MINUTELY;INTERVAL=90;COUNT=4", start, "09:00 10:30 12:00 13:30 end");
    for rule in ["FREQ=DAILY;BYHOUR=9,10;BYMINUTE=0,20,40", "FREQ=MINUTELY;INTERVAL=20;BYHOUR=9,10"] {
        check(rule, start, "09:00 09:20 09:40 10:00 10:20 10:40 3T09:00 09:20");
    }
    check("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO", "1997-08-05T09:00:00", "5 10 19 24 end");
    check("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU", "1997-08-05T09:00:00", "5 17 19 31 end");
    check("FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=5", "2007-01-15T09:00:00", "15 30 2-15 3-15 30 end");
}

#[test]
fn what_the_rfc_does_not_show() {
    let start = "2026-11-30T09:30:15";
    check("freq=yearly", "2024-02-29T09:00:00", "2024-2-29 2028-2-29 2032-2-29");
    check("FREQ=MONTHLY", "2026-01-31T09:00:00", "31 3-31 5-31");
    check("FREQ=YEARLY;BYMONTHDAY=13", start, "12-13 2027-1-13 2-13");
    check("FREQ=YEARLY;BYMONTH=2", "2026-01-29T09:00:00", "2028-2-29 2032-2-29");
    check("FREQ=YEARLY;BYWEEKNO=53", "2020-12-28T09:00:00", "2020-12-28 2026-12-28 2032-12-27");
    check("FREQ=YEARLY;BYWEEKNO=1;BYDAY=MO", "2024-01-01T09:00:00", "1-1 12-30 2025-12-29 2027-1-4");
    check("FREQ=YEARLY;BYWEEKNO=-1;BYDAY=SU", "2024-01-01T09:00:00", "12-29 2025-12-28 2027-1-3 2028-1-2");
    check("FREQ=YEARLY;BYYEARDAY=-1", start, "12-31 2027-12-31");
    check("FREQ=YEARLY;BYDAY=-1MO", start, "12-28 2027-12-27");
    check("FREQ=HOURLY;INTERVAL=36", start, "09:30:15 12-1T21:30:15 12-3T09:30:15");
    check("FREQ=MINUTELY;INTERVAL=10000", start, "09:30:15 12-7T08:10:15 12-14T06:50:15");
    check("FREQ=HOURLY;BYHOUR=10,12;BYMINUTE=5,10;BYSETPOS=-1", start, "10:10:15 12:10:15 12-1T10:10:15");
    check("FREQ=MINUTELY;BYSECOND=5,20,50;BYSETPOS=2,-1", start, "09:30:20 09:30:50 09:31:20");
    check("FREQ=DAILY;BYHOUR=8,17;BYMINUTE=0,45;BYSETPOS=1,-1", start, "17:45:15 12-1T08:00:15 17:45:15");
    check("FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=8,17;BYSETPOS=-1,1", start, "12-2T17:30:15 7T08:30:15 9T17:30:15");
    check("FREQ=YEARLY;BYDAY=MO,TU;BYHOUR=1,2;BYSETPOS=2,-2", start, "12-29T01:30:15 2027-1-4T02:30:15");
    check("FREQ=DAILY;UNTIL=20261202", start, "30 12-1 2 end");
    check("FREQ=DAILY;UNTIL=20261202T143015Z", start, "30 12-1 2 end");
    check("FREQ=DAILY;UNTIL=20261202T143014Z", start, "30 12-1 end");
    check("FREQ=YEARLY;INTERVAL=100;BYMONTH=2;BYMONTHDAY=29", "2000-01-01T00:00:00", "2-29 2400-2-29");
    check(
        "FREQ=DAILY;INTERVAL=7;BYMONTH=2;BYMONTHDAY=29;BYDAY=TU",
        "2026-12-01T00:00:00",
        "2028-2-29 2056-2-29",
    );
    check("FREQ=DAILY;COUNT=10", "9999-12-30T09:00:00", "30 31 end");
}

#[test]
fn a_rule_is_asked_anywhere() {
    let rule =
        Rrule::parse("FREQ=DAILY;COUNT=100000", local("2026-11-30T09:00:00"), &new_york()).expect("a rule");
    assert_eq!(rule.next(local("2300-09-14T09:00:01")), None);
    assert_eq!(rule.next(local("2300-09-14T09:00:00")), Some(local("2300-09-14T09:00:00")));
    assert_eq!(rule.next(local("1000-01-01T00:00:00")), Some(local("2026-11-30T09:00:00")));
    assert_eq!(rule.next(local("2030-01-01T09:00:00.000000001")), Some(local("2030-01-02T09:00:00")));
}

#[test]
fn what_is_refused() {
    for (text, want) in [
        ("", "'' is no part; write FREQ=DAILY;BYHOUR=9 and the like"),
        ("DAILY", "'DAILY' is no part; write FREQ=DAILY;BYHOUR=9 and the like"),
        ("FREQ=DAILY;;COUNT=1", "'' is no part; write FREQ=DAILY;BYHOUR=9 and the like"),
        (
            "BYHOUR=9",
            "has no FREQ; write FREQ= and one of MINUTELY, HOURLY, DAILY, WEEKLY, MONTHLY or YEARLY",
        ),
        ("FREQ=OFTEN", "has FREQ=OFTEN; write one of MINUTELY, HOURLY, DAILY, WEEKLY, MONTHLY or YEARLY"),
        ("FREQ=SECONDLY", "has FREQ=SECONDLY; write every: 10s for what comes each few seconds"),
        ("FREQ=DAILY;FREQ=DAILY", "has FREQ twice"),
        ("FREQ=DAILY;BYEASTER=1", "has 'BYEASTER', which is no part of a rule"),
        ("FREQ=DAILY;INTERVAL=0", "has INTERVAL=0; write 1 to 10000"),
        ("FREQ=DAILY;INTERVAL=10001", "has INTERVAL=10001; write 1 to 10000"),
        ("FREQ=DAILY;INTERVAL=99999999999999999999", "has INTERVAL=99999999999999999999; write 1 to 10000"),
        ("FREQ=DAILY;COUNT=100001", "has COUNT=100001; write 1 to 100000"),
        ("FREQ=DAILY;COUNT=-1", "has COUNT=-1; write 1 to 100000"),
        ("FREQ=DAILY;BYHOUR=24", "has BYHOUR=24; write 0 to 23"),
        ("FREQ=DAILY;BYHOUR=", "has BYHOUR=; write 0 to 23"),
        ("FREQ=DAILY;BYHOUR=1,,2", "has BYHOUR=; write 0 to 23"),
        ("FREQ=DAILY;BYMINUTE=60", "has BYMINUTE=60; write 0 to 59"),
        ("FREQ=DAILY;BYSECOND=60", "has BYSECOND=60; write 0 to 59"),
        ("FREQ=DAILY;BYMONTH=0", "has BYMONTH=0; write 1 to 12"),
        ("FREQ=DAILY;BYMONTHDAY=0", "has 0 in BYMONTHDAY; write 1 to 31, or -1 to -31 from the end"),
        ("FREQ=DAILY;BYMONTHDAY=32", "has BYMONTHDAY=32; write -31 to 31"),
        (
            "FREQ=DAILY;BYDAY=XX",
            "has BYDAY=XX; write MO, TU, WE, TH, FR, SA or SU, with a number as in 2FR and -1MO",
        ),
        (
            "FREQ=DAILY;BYDAY=M",
            "has BYDAY=M; write MO, TU, WE, TH, FR, SA or SU, with a number as in 2FR and -1MO",
        ),
        (
            "FREQ=MONTHLY;BYDAY=é",
            "has BYDAY=é; write MO, TU, WE, TH, FR, SA or SU, with a number as in 2FR and -1MO",
        ),
        ("FREQ=MONTHLY;BYDAY=0MO", "has 0 in BYDAY; write 1 to 53, or -1 to -53 from the end"),
        ("FREQ=DAILY;WKST=1", "has WKST=1; write MO, TU, WE, TH, FR, SA or SU"),
        ("FREQ=DAILY;UNTIL=2026", "has UNTIL=2026; write 20261231, 20261231T235959 or 20261231T225959Z"),
        (
            "FREQ=DAILY;UNTIL=20261301T000000Z",
            "has UNTIL=20261301T000000Z; write 20261231, 20261231T235959 or 20261231T225959Z",
        ),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "has COUNT and UNTIL; write one of them"),
        ("FREQ=MONTHLY;BYWEEKNO=1", "has BYWEEKNO, which is for FREQ=YEARLY"),
        ("FREQ=MONTHLY;BYYEARDAY=1", "has BYYEARDAY, which is not for FREQ=DAILY, WEEKLY or MONTHLY"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "has BYMONTHDAY, which is not for FREQ=WEEKLY"),
        ("FREQ=WEEKLY;BYDAY=1MO", "has a number in BYDAY, which is for FREQ=MONTHLY and YEARLY"),
        ("FREQ=YEARLY;BYWEEKNO=1;BYDAY=1MO", "has a number in BYDAY, which is not for BYWEEKNO"),
        ("FREQ=DAILY;BYSETPOS=1", "has BYSETPOS, which needs another BY part to choose from"),
        ("FREQ=DAILY;UNTIL=20251231", "never comes: its first time, 2026-12-01T10:00:00, is after UNTIL"),
        (
            "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "never comes: no date within 400 years of dtstart has all that it says",
        ),
        (
            "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=31",
            "never comes: no date within 400 years of dtstart has all that it says",
        ),
        ("FREQ=MONTHLY;BYDAY=6MO", "never comes: no date within 400 years of dtstart has all that it says"),
        (
            "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=6",
            "never comes: no date within 400 years of dtstart has all that it says",
        ),
        (
            "FREQ=YEARLY;INTERVAL=4;BYMONTH=2;BYMONTHDAY=29",
            "never comes: no date within 400 years of dtstart has all that it says",
        ),
        (
            "FREQ=DAILY;INTERVAL=7;BYDAY=WE",
            "never comes: no date within 400 years of dtstart has all that it says",
        ),
        (
            "FREQ=HOURLY;INTERVAL=168;BYDAY=WE",
            "never comes: no date within 400 years of dtstart has all that it says",
        ),
        (
            "FREQ=MINUTELY;INTERVAL=1440;BYMONTH=2;BYMONTHDAY=30",
            "never comes: no date within 400 years of dtstart has all that it says",
        ),
        (
            "FREQ=MINUTELY;INTERVAL=7;BYSECOND=1,2;BYSETPOS=3,-3",
            "never comes: its BYSETPOS is beyond the times of each period",
        ),
        ("FREQ=DAILY;BYHOUR=1,2;BYSETPOS=-3", "never comes: its BYSETPOS is beyond the times of each period"),
        (
            "FREQ=HOURLY;INTERVAL=2;BYHOUR=9,11",
            "never comes: its INTERVAL from dtstart leads to none of its hours and minutes",
        ),
        (
            "FREQ=MINUTELY;INTERVAL=2;BYMINUTE=1,59",
            "never comes: its INTERVAL from dtstart leads to none of its hours and minutes",
        ),
        (
            "FREQ=MINUTELY;INTERVAL=120;BYHOUR=9",
            "never comes: its INTERVAL from dtstart leads to none of its hours and minutes",
        ),
    ] {
        let bad = Rrule::parse(text, local("2026-12-01T10:00:00"), &new_york()).expect_err(text);
        assert_eq!(bad.to_string(), format!("rrule {want}"), "{text}");
    }
    let long = format!("FREQ=DAILY;BYHOUR={}1", "1,".repeat(600));
    let bad = Rrule::parse(&long, local("2026-12-01T10:00:00"), &new_york()).expect_err("too long");
    assert_eq!(bad.to_string(), "rrule is over the limit RRULE_BYTES of 1024 bytes");
}
