use jiff::civil::Time;

use super::*;

/// What a clock shows, when it first shows that or later, and when it shows that or later for good.
const MOMENTS: [(&str, &str, &str, &str); 20] = [
    // An hour is skipped at 02:00, and 03:00 is put back to 02:00.
    ("Europe/Warsaw", "2026-03-29T01:59", "2026-03-29T00:59Z", "2026-03-29T00:59Z"),
    ("Europe/Warsaw", "2026-03-29T02:00", "2026-03-29T01:00Z", "2026-03-29T01:00Z"),
    ("Europe/Warsaw", "2026-03-29T02:30", "2026-03-29T01:00Z", "2026-03-29T01:00Z"),
    ("Europe/Warsaw", "2026-03-29T03:00", "2026-03-29T01:00Z", "2026-03-29T01:00Z"),
    ("Europe/Warsaw", "2026-10-25T02:00", "2026-10-25T00:00Z", "2026-10-25T00:00Z"),
    ("Europe/Warsaw", "2026-10-25T02:30", "2026-10-25T00:30Z", "2026-10-25T01:30Z"),
    ("Europe/Warsaw", "2026-10-25T03:00", "2026-10-25T02:00Z", "2026-10-25T02:00Z"),
    // Midnight is skipped, and put back to 23:00.
    ("America/Santiago", "2026-09-06T00:00", "2026-09-06T04:00Z", "2026-09-06T04:00Z"),
    ("America/Santiago", "2026-09-06T00:45", "2026-09-06T04:00Z", "2026-09-06T04:00Z"),
    ("America/Santiago", "2026-04-04T23:00", "2026-04-05T02:00Z", "2026-04-05T02:00Z"),
    ("America/Santiago", "2026-04-04T23:30", "2026-04-05T02:30Z", "2026-04-05T03:30Z"),
    ("America/Santiago", "2026-04-05T00:00", "2026-04-05T04:00Z", "2026-04-05T04:00Z"),
    // Half an hour, at 02:00.
    ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30Z", "2026-10-03T15:30Z"),
    ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45Z", "2026-04-04T15:15Z"),
    // A whole day is skipped.
    ("Pacific/Apia", "2011-12-30T00:00", "2011-12-30T10:00Z", "2011-12-30T10:00Z"),
    ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00Z", "2011-12-30T10:00Z"),
    ("Pacific/Apia", "2011-12-31T00:00", "2011-12-30T10:00Z", "2011-12-30T10:00Z"),
    // 01:00 is put back to midnight: the day begins once.
    ("America/Havana", "2026-11-01T00:00", "2026-11-01T04:00Z", "2026-11-01T04:00Z"),
    // 00:01 is put back to 23:01 of the day before: the day begins twice.
    ("America/St_Johns", "2006-10-29T00:00", "2006-10-29T02:30Z", "2006-10-29T03:30Z"),
    ("America/St_Johns", "2006-10-28T23:01", "2006-10-29T01:31Z", "2006-10-29T01:31Z"),
];

#[test]
fn the_clock_is_put_forward_and_back() {
    for (zone, shown, begins, ends) in MOMENTS {
        let wall = of(shown.parse().unwrap());
        let time_zone = TimeZone::get(zone).unwrap();
        assert_eq!(begin(&time_zone, wall), Some(begins.parse().unwrap()), "{zone} {shown} begins");
        assert_eq!(end(&time_zone, wall), Some(ends.parse().unwrap()), "{zone} {shown} ends");
    }
}

#[test]
fn a_reading_never_goes_back() {
    for (zone, shown, ..) in MOMENTS {
        let time_zone = TimeZone::get(zone).unwrap();
        let first = shown.parse::<DateTime>().unwrap().with().time(Time::midnight()).build().unwrap();
        let first = time_zone.to_timestamp(first).unwrap() - SignedDuration::from_hours(3);
        let mut last = reading(&time_zone, first);
        for minutes in 1..36 * 60 {
            let next = reading(&time_zone, first + SignedDuration::from_mins(minutes));
            let shows = of(time_zone.to_datetime(first + SignedDuration::from_mins(minutes)));
            assert!(next.start() >= last.start() && next.end() >= last.end(), "{zone}: {last:?}, {next:?}");
            assert!(next.contains(&shows), "{zone}: {shows} {next:?}");
            last = next;
        }
    }
}

#[test]
fn fractions_are_rounded_down() {
    for (shown, wall) in
        [("1970-01-01T00:00:00.9", 0), ("1969-12-31T23:59:59.1", -1), ("1970-01-02T00:00", DAY)]
    {
        assert_eq!(of(shown.parse().unwrap()), wall, "{shown}");
    }
}

#[test]
fn there_is_an_end_of_time() {
    let zone = TimeZone::get("America/Santiago").unwrap();
    let last = of(DateTime::MAX);
    assert_eq!((begin(&zone, last), end(&zone, last)), (None, None));
    assert_eq!((begin(&zone, last + 1), end(&zone, i64::MAX)), (None, None));
    for at in [Timestamp::MIN, Timestamp::MAX] {
        let reading = reading(&zone, at);
        assert_eq!(reading.start(), reading.end());
    }
}
