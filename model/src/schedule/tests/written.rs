use serde_json::{Value, json};

use crate::schedule::{Timing, WrittenTiming};

#[test]
fn what_is_said_is_written_out_whole() {
    for (said, want) in [
        (
            json!({"cron": " 30  2 * * * ", "zone": "europe/warsaw"}),
            json!({"cron": "30 2 * * *", "zone": "Europe/Warsaw", "gap": "first_valid", "fold": "once"}),
        ),
        (
            json!({"cron": "*/5 * * * *"}),
            json!({"cron": "*/5 * * * *", "zone": "UTC", "gap": "skip", "fold": "twice"}),
        ),
        (
            json!({"cron": "@hourly", "fold": "once"}),
            json!({"cron": "@hourly", "zone": "UTC", "gap": "skip", "fold": "once"}),
        ),
        (json!({"every": "15m"}), json!({"every": 900, "anchor": "1970-01-01T00:00:00Z", "zone": "UTC"})),
        (
            json!({"every": "1h", "anchor": "2026-12-01T10:00:00", "zone": "Europe/Warsaw"}),
            json!({"every": 3600, "anchor": "2026-12-01T09:00:00Z", "zone": "Europe/Warsaw"}),
        ),
        (
            json!({"at": "2026-12-01T10:00", "ends_at": "2027-01-01T00:00:00+01:00"}),
            json!({"at": "2026-12-01T10:00:00", "zone": "UTC", "gap": "first_valid", "fold": "once",
                "ends_at": "2026-12-31T23:00:00Z"}),
        ),
        (
            json!({"rrule": "freq=monthly;byday=-1fr", "dtstart": "2026-12-01T10:00", "zone": "Asia/Tokyo"}),
            json!({"rrule": "FREQ=MONTHLY;BYDAY=-1FR", "dtstart": "2026-12-01T10:00:00", "zone": "Asia/Tokyo",
                "gap": "first_valid", "fold": "once"}),
        ),
        (
            json!({"rrule": "RRULE:FREQ=HOURLY;", "dtstart": "2026-12-01T10:00"}),
            json!({"rrule": "FREQ=HOURLY", "dtstart": "2026-12-01T10:00:00", "zone": "UTC",
                "gap": "skip", "fold": "twice"}),
        ),
        (json!({"at": "2026-12-01T10:00+01:00"}), json!({"at": "2026-12-01T09:00:00Z", "zone": "UTC"})),
    ] {
        let timing: Timing = serde_json::from_value(said.clone()).expect("a timing");
        let written = serde_json::to_value(&timing).expect("plain data");
        assert_eq!(written, want, "{said}");
        let again: Timing = serde_json::from_value(written).expect("a timing");
        assert_eq!(again, timing);
    }
}

#[test]
fn yaml_reads_alike() {
    let timing: Timing = serde_saphyr::from_str(
        "at: 2026-12-01T10:00:00\nzone: Europe/Warsaw\nstarts_at: 2026-11-01T00:00:00Z\n",
    )
    .expect("a timing");
    let want =
        json!({"at": "2026-12-01T10:00:00", "zone": "Europe/Warsaw", "starts_at": "2026-11-01T00:00:00Z"});
    assert_eq!(timing, serde_json::from_value(want).expect("a timing"));
}

fn refused(said: Value) -> String {
    let written: WrittenTiming = match serde_json::from_value(said) {
        Ok(written) => written,
        Err(error) => return error.to_string(),
    };
    written.read().expect_err("refused").to_string()
}

#[test]
fn what_is_refused() {
    let time = "write 2026-12-01T10:00:00, with Z or +01:00 for an instant";
    for (said, want) in [
        (json!({}), "cron is missing: a schedule has one of cron, every, at, rrule, webhook and event".to_owned()),
        (
            json!({"cron": "@daily", "every": "1h"}),
            "every is one too many: a schedule has one rule, and this one cron and every".into(),
        ),
        (json!({"cron": "0 0 30 2 *"}), "cron never comes: 30 February".into()),
        (json!({"every": 0}), "every is 0; allowed is 1 to 31622400".into()),
        (json!({"every": "367 days"}), "every is 31708800; allowed is 1 to 31622400".into()),
        (json!({"every": "1.5s"}), "'1.5s' is not a whole number of seconds from 0".into()),
        (json!({"every": 60, "anchor": "noon"}), format!("anchor 'noon' is no time; {time}")),
        (
            json!({"every": 60, "anchor": "2026-01-01T00:00:00.5Z"}),
            "anchor '2026-01-01T00:00:00.5Z' is not a whole second".into(),
        ),
        (
            json!({"every": 60, "starts_at": "2026-01-01T00:00:00.5Z"}),
            "starts_at is not a whole second, and the interval counts from it".into(),
        ),
        (
            json!({"cron": "@daily", "anchor": "2026-01-01T00:00"}),
            "anchor is for every alone, and this is cron".into(),
        ),
        (json!({"rrule": "FREQ=DAILY"}), "dtstart is missing: it is where an rrule begins to count".into()),
        (
            json!({"rrule": "FREQ=DAILY", "dtstart": "2026-12-01T10:00Z"}),
            "dtstart has an offset; write what the clock of zone shows".into(),
        ),
        (
            json!({"cron": "@daily", "dtstart": "2026-12-01T10:00"}),
            "dtstart is for rrule alone, and this is cron".into(),
        ),
        (
            json!({"every": 60, "gap": "skip"}),
            "gap is for times of a clock, and no clock skips or repeats an instant".into(),
        ),
        (
            json!({"at": "2026-01-01T00:00Z", "fold": "once"}),
            "fold is for times of a clock, and no clock skips or repeats an instant".into(),
        ),
        (json!({"at": "tomorrow"}), format!("at 'tomorrow' is no time; {time}")),
        (json!({"at": "2026-02-30T10:00"}), format!("at '2026-02-30T10:00' is no time; {time}")),
        (
            json!({"at": "2026-01-01T10:00[Europe/Warsaw]"}),
            format!("at '2026-01-01T10:00[Europe/Warsaw]' is no time; {time}"),
        ),
        (json!({"at": "2026-01-01T10:00:00.5"}), "at '2026-01-01T10:00:00.5' is not a whole second".into()),
        (
            json!({"cron": "@daily", "zone": "Warsaw"}),
            "zone 'Warsaw' is no time zone; is Europe/Warsaw meant?".into(),
        ),
        (
            json!({"cron": "@daily", "zone": "Europe/New York"}),
            "zone 'Europe/New York' is no time zone; is America/New_York meant?".into(),
        ),
        (
            json!({"cron": "@daily", "zone": "CEST"}),
            "zone 'CEST' is no time zone; write its IANA name, such as Europe/Warsaw, America/New_York or UTC".into(),
        ),
        (
            json!({"cron": "@daily", "zone": "Etc/Unknown"}),
            "zone 'Etc/Unknown' is no time zone; write its IANA name, such as Europe/Warsaw, America/New_York or UTC"
                .into(),
        ),
        (
            json!({"cron": "@daily", "starts_at": "2026-01-02T00:00:00Z", "ends_at": "2026-01-01T00:00:00Z"}),
            "ends_at is before starts_at, which is 2026-01-02T00:00:00Z".into(),
        ),
        (json!({"cron": "@daily", "gap": "fire"}), "unknown variant `fire`, expected `first_valid` or `skip`".into()),
    ] {
        assert_eq!(refused(said.clone()), want, "{said}");
    }
    assert!(refused(json!({"cron": "@daily", "timezone": "UTC"})).starts_with("unknown field `timezone`"));
}
