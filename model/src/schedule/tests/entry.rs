use jiff::Timestamp;

use crate::schedule::{Cron, Entry, Rule, WrittenTiming};

fn entry(text: &str) -> Entry {
    Entry::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"))
}

fn written(text: &str) -> WrittenTiming {
    entry(text).timing.into()
}

#[test]
fn days_and_times_become_a_cron() {
    for (text, cron, zone) in [
        ("every day at 02:30", "30 2 * * *", "UTC"),
        ("Daily at 2:30", "30 2 * * *", "UTC"),
        ("daily", "0 0 * * *", "UTC"),
        ("every day", "0 0 * * *", "UTC"),
        ("daily at noon", "0 12 * * *", "UTC"),
        ("daily at 8am and 8pm", "0 8,20 * * *", "UTC"),
        ("daily 8:00, 8:30", "0,30 8 * * *", "UTC"),
        ("weekdays 9:00 Europe/Warsaw", "0 9 * * MON-FRI", "Europe/Warsaw"),
        ("every weekday at 9:00 europe/warsaw", "0 9 * * MON-FRI", "Europe/Warsaw"),
        ("weekends at 10:00", "0 10 * * SAT,SUN", "UTC"),
        ("mondays at 8:15", "15 8 * * MON", "UTC"),
        ("every monday at 8:15 UTC", "15 8 * * MON", "UTC"),
        ("mon,wed 18:00", "0 18 * * MON,WED", "UTC"),
        ("mon, wed and fridays at 18:00 CET", "0 18 * * MON,WED,FRI", "CET"),
        ("tue-thu 6:05pm", "5 18 * * TUE-THU", "UTC"),
        ("on thursdays", "0 0 * * THU", "UTC"),
        ("weekly", "0 0 * * SUN", "UTC"),
        ("weekly on tuesday at 12:00am", "0 0 * * TUE", "UTC"),
        ("monthly on the 1st at 04:00", "0 4 1 * *", "UTC"),
        ("monthly", "0 0 1 * *", "UTC"),
        ("every month on the 1st and 15th at 4:00", "0 4 1,15 * *", "UTC"),
        ("on the 31st of december at 23:59", "59 23 31 DEC *", "UTC"),
        ("last day of the month at 23:00", "0 23 L * *", "UTC"),
        ("last weekday of the month at 17:00", "0 17 LW * *", "UTC"),
        ("last friday of the month at 17:00 America/New_York", "0 17 * * FRIL", "America/New_York"),
        ("first monday of every month at 6:00", "0 6 * * MON#1", "UTC"),
        ("2nd tue of jan, apr at 6:00", "0 6 * JAN,APR TUE#2", "UTC"),
        ("last working day of the month at 17:00", "0 17 LW * *", "UTC"),
        ("first working day of the month", "0 0 1W * *", "UTC"),
        ("working days at 7:30", "30 7 * * MON-FRI", "UTC"),
        ("every second tuesday of the month", "0 0 * * TUE#2", "UTC"),
        ("yearly on the 4th of july", "0 0 4 JUL *", "UTC"),
        ("yearly", "0 0 1 JAN *", "UTC"),
        ("hourly", "0 * * * *", "UTC"),
        ("every hour Asia/Kathmandu", "0 * * * *", "Asia/Kathmandu"),
        ("hourly on weekdays", "0 * * * MON-FRI", "UTC"),
        // A cron is itself.
        ("*/5 * * * *", "*/5 * * * *", "UTC"),
        ("30 2 * * MON-FRI Europe/Warsaw", "30 2 * * MON-FRI", "Europe/Warsaw"),
        ("0 0 * * MON-FRI/2", "0 0 * * MON-FRI/2", "UTC"),
        ("@daily Asia/Tokyo", "@daily", "Asia/Tokyo"),
    ] {
        let entry = entry(text);
        assert_eq!(entry.cron.as_deref(), Some(cron), "{text}");
        assert_eq!(entry.timing.zone.iana_name(), Some(zone), "{text}");
        assert_eq!(entry.timing.rule, Rule::Cron(Cron::parse(cron).expect(cron)), "{text}");
    }
}

#[test]
fn lengths_become_an_interval() {
    for (text, seconds) in [
        ("every 15m", 900),
        ("every 2 hours", 7200),
        ("every 1h 30m", 5400),
        ("every 90 seconds Europe/Warsaw", 90),
        ("every 2 days", 172_800),
        ("every minute", 60),
        ("every second", 1),
    ] {
        let entry = entry(text);
        assert_eq!(entry.cron, None, "{text}");
        let Rule::Every(interval) = &entry.timing.rule else { panic!("{text}: {entry:?}") };
        assert_eq!(interval.every().seconds(), seconds, "{text}");
        assert_eq!(interval.anchor(), Timestamp::UNIX_EPOCH);
    }
}

#[test]
fn a_date_becomes_a_moment() {
    for (text, at, zone) in [
        ("at 2026-12-01 10:00 Europe/Berlin", "2026-12-01T10:00:00", "Europe/Berlin"),
        ("2026-12-01T10:00:30", "2026-12-01T10:00:30", "UTC"),
        ("on 2026-12-01", "2026-12-01T00:00:00", "UTC"),
        ("once on 2026-12-01 at 9:05", "2026-12-01T09:05:00", "UTC"),
        ("at 2026-12-01T10:00+01:00", "2026-12-01T09:00:00Z", "UTC"),
    ] {
        let written = written(text);
        assert_eq!((written.at.as_deref(), written.zone.as_deref()), (Some(at), Some(zone)), "{text}");
    }
}

#[test]
fn what_is_refused() {
    let examples = "; write a cron such as '30 2 * * MON-FRI', or 'every 15m', 'daily at 02:30', \
                    'weekdays 9:00 Europe/Warsaw', 'mon,wed 18:00', 'monthly on the 1st at 04:00', \
                    'last day of the month at 23:00', 'at 2026-12-01 10:00 Europe/Berlin'";
    for (text, want) in [
        ("", "schedule is empty…"),
        ("Europe/Warsaw", "schedule is empty…"),
        ("whenever you like", "schedule 'whenever' is not understood…"),
        ("daily at 25:00", "schedule '25:00' is not understood…"),
        ("daily at 13pm", "schedule '13pm' is not understood…"),
        ("on the 32nd", "schedule '32nd' is not understood…"),
        ("at 10:00", "schedule names no day…"),
        (
            "daily at 8:00 and 9:30",
            "schedule names times that differ in hour and minute; make a schedule of each…",
        ),
        ("hourly at 9:00", "schedule is hourly and names a time of day…"),
        (
            "friday the 13th at 8:00",
            "schedule names days of the month and of the week; a cron would fire on either…",
        ),
        (
            "weekly on the 1st",
            "schedule names days of the month and of the week; a cron would fire on either…",
        ),
        (
            "every second tuesday at 9:00",
            "schedule may mean every other one; say 'second tuesday of the month', or write an rrule with INTERVAL=2…",
        ),
        (
            "monthly on mondays",
            "schedule names a weekday and not which one of the month; say 'first monday of the month'…",
        ),
        ("last day of the year", "schedule names a day of the year without its month…"),
        ("second weekday of the month", "schedule 'weekday' is not understood…"),
        ("every 5", "schedule '5' is not understood…"),
        ("every month at 8", "schedule '8' is not understood…"),
        ("every 0s", "every is 0; allowed is 1 to 31622400"),
        ("every 400 days", "every is 34560000; allowed is 1 to 31622400"),
        (
            "weekdays 9:00 Europe/Warszawa",
            "zone 'Europe/Warszawa' is no time zone; write its IANA name, such as \
          Europe/Warsaw, America/New_York or UTC",
        ),
        (
            "at 2026-02-30 10:00",
            "at '2026-02-30T10:00' is no time; write 2026-12-01T10:00:00, with Z or +01:00 for an \
          instant",
        ),
        ("61 * * * *", "cron minute '61' is out of range; write 0 to 59"),
        ("on the 30th of february", "cron never comes: 30 February"),
    ] {
        let wrong = Entry::parse(text).expect_err(text).to_string();
        assert_eq!(wrong, want.replace('…', examples), "{text}");
    }
    let wrong = Entry::parse(&"daily ".repeat(100)).expect_err("too long");
    assert_eq!(wrong.to_string(), "schedule is over the limit CRON_BYTES of 512 bytes");
}
