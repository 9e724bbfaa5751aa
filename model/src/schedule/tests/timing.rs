use jiff::Timestamp;

use super::{firings, instant, timing};

/// A timing, an instant, and the firings after it.
fn check(json: &str, after: &str, want: &[&str]) {
    assert_eq!(firings(&timing(json), after, want.len()), want, "{json} after {after}");
}

#[test]
fn summer_time_begins_in_warsaw() {
    let daily = r#"{"cron": "30 2 * * *", "zone": "Europe/Warsaw""#;
    for policy in ["}", r#", "gap": "first_valid"}"#] {
        check(
            &format!("{daily}{policy}"),
            "2026-03-28T00:00:00Z",
            &[
                "2026-03-28T01:30:00Z 2026-03-28T02:30:00+01",
                "2026-03-29T01:00:00Z 2026-03-29T03:00:00+02",
                "2026-03-30T00:30:00Z 2026-03-30T02:30:00+02",
            ],
        );
    }
    check(
        &format!(r#"{daily}, "gap": "skip"}}"#),
        "2026-03-28T00:00:00Z",
        &["2026-03-28T01:30:00Z 2026-03-28T02:30:00+01", "2026-03-30T00:30:00Z 2026-03-30T02:30:00+02"],
    );
    // Two matches in the gap and one at its end are one firing.
    check(
        r#"{"cron": "0,30 2-3 * * *", "zone": "Europe/Warsaw"}"#,
        "2026-03-29T00:00:00Z",
        &["2026-03-29T01:00:00Z 2026-03-29T03:00:00+02", "2026-03-29T01:30:00Z 2026-03-29T03:30:00+02"],
    );
    // Every hour follows the time that passes.
    check(
        r#"{"cron": "*/30 * * * *", "zone": "Europe/Warsaw"}"#,
        "2026-03-29T00:00:00Z",
        &[
            "2026-03-29T00:30:00Z 2026-03-29T01:30:00+01",
            "2026-03-29T01:00:00Z 2026-03-29T03:00:00+02",
            "2026-03-29T01:30:00Z 2026-03-29T03:30:00+02",
        ],
    );
    check(
        r#"{"cron": "15 * * * *", "zone": "Europe/Warsaw"}"#,
        "2026-03-29T00:15:00Z",
        &["2026-03-29T01:15:00Z 2026-03-29T03:15:00+02"],
    );
}

#[test]
fn summer_time_ends_in_warsaw() {
    let daily = r#"{"cron": "30 2 * * *", "zone": "Europe/Warsaw""#;
    for policy in ["}", r#", "fold": "once"}"#] {
        check(
            &format!("{daily}{policy}"),
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30:00Z 2026-10-25T02:30:00+02", "2026-10-26T01:30:00Z 2026-10-26T02:30:00+01"],
        );
    }
    check(
        &format!(r#"{daily}, "fold": "twice"}}"#),
        "2026-10-24T12:00:00Z",
        &[
            "2026-10-25T00:30:00Z 2026-10-25T02:30:00+02",
            "2026-10-25T01:30:00Z 2026-10-25T02:30:00+01",
            "2026-10-26T01:30:00Z 2026-10-26T02:30:00+01",
        ],
    );
    let half_hours = r#"{"cron": "*/30 * * * *", "zone": "Europe/Warsaw""#;
    check(
        &format!("{half_hours}}}"),
        "2026-10-25T00:00:00Z",
        &[
            "2026-10-25T00:30:00Z 2026-10-25T02:30:00+02",
            "2026-10-25T01:00:00Z 2026-10-25T02:00:00+01",
            "2026-10-25T01:30:00Z 2026-10-25T02:30:00+01",
        ],
    );
    check(
        &format!(r#"{half_hours}, "fold": "once"}}"#),
        "2026-10-25T00:00:00Z",
        &["2026-10-25T00:30:00Z 2026-10-25T02:30:00+02", "2026-10-25T02:00:00Z 2026-10-25T03:00:00+01"],
    );
}

#[test]
fn odd_zones() {
    // Half an hour on Lord Howe.
    check(
        r#"{"cron": "15 2 * * *", "zone": "Australia/Lord_Howe"}"#,
        "2026-10-03T00:00:00Z",
        &["2026-10-03T15:30:00Z 2026-10-04T02:30:00+11", "2026-10-04T15:15:00Z 2026-10-05T02:15:00+11"],
    );
    check(
        r#"{"cron": "45 1 * * *", "zone": "Australia/Lord_Howe", "fold": "twice"}"#,
        "2026-04-04T00:00:00Z",
        &["2026-04-04T14:45:00Z 2026-04-05T01:45:00+11", "2026-04-04T15:15:00Z 2026-04-05T01:45:00+10:30"],
    );
    // No midnight in Beirut.
    check(
        r#"{"cron": "@daily", "zone": "Asia/Beirut"}"#,
        "2026-03-28T00:00:00Z",
        &["2026-03-28T22:00:00Z 2026-03-29T01:00:00+03", "2026-03-29T21:00:00Z 2026-03-30T00:00:00+03"],
    );
    // No 30 December 2011 on Samoa.
    check(
        r#"{"cron": "0 12 * * *", "zone": "Pacific/Apia"}"#,
        "2011-12-29T12:00:00Z",
        &[
            "2011-12-29T22:00:00Z 2011-12-29T12:00:00-10",
            "2011-12-30T10:00:00Z 2011-12-31T00:00:00+14",
            "2011-12-30T22:00:00Z 2011-12-31T12:00:00+14",
        ],
    );
    // The day that Kwajalein had only in part, and local mean time before 1900.
    check(
        r#"{"cron": "0 12 21 8 *", "zone": "Pacific/Kwajalein"}"#,
        "1993-01-01T00:00:00Z",
        &["1993-08-21T12:00:00Z 1993-08-22T00:00:00+12", "1994-08-21T00:00:00Z 1994-08-21T12:00:00+12"],
    );
    check(
        r#"{"cron": "0 0 1 1 *", "zone": "Europe/Paris"}"#,
        "1800-06-01T00:00:00Z",
        &["1800-12-31T23:50:39Z 1801-01-01T00:00:00+00:09:21"],
    );
}

#[test]
fn once() {
    let local = |more: &str| format!(r#"{{"at": "2026-03-29T02:30:00", "zone": "Europe/Warsaw"{more}}}"#);
    check(&local(""), "2000-01-01T00:00:00Z", &["2026-03-29T01:00:00Z 2026-03-29T03:00:00+02"]);
    assert_eq!(timing(&local("")).after(instant("2026-03-29T01:00:00Z")), None);
    assert_eq!(timing(&local(r#", "gap": "skip""#)).after(instant("2000-01-01T00:00:00Z")), None);
    let repeated =
        |fold| format!(r#"{{"at": "2026-10-25T02:30:00", "zone": "Europe/Warsaw", "fold": "{fold}"}}"#);
    check(&repeated("once"), "2000-01-01T00:00:00Z", &["2026-10-25T00:30:00Z 2026-10-25T02:30:00+02"]);
    assert_eq!(timing(&repeated("once")).after(instant("2026-10-25T00:30:00Z")), None);
    check(&repeated("twice"), "2026-10-25T00:30:00Z", &["2026-10-25T01:30:00Z 2026-10-25T02:30:00+01"]);
    check(
        r#"{"at": "2026-12-01T10:00:00+05:30", "zone": "Europe/Warsaw"}"#,
        "2026-01-01T00:00:00Z",
        &["2026-12-01T04:30:00Z 2026-12-01T05:30:00+01"],
    );
    check(
        r#"{"at": "9000-07-01T10:00", "zone": "Europe/Warsaw"}"#,
        "2026-01-01T00:00:00Z",
        &["9000-07-01T08:00:00Z 9000-07-01T10:00:00+02"],
    );
}

#[test]
fn elapsed_time() {
    check(
        r#"{"every": "15m", "anchor": "2026-03-29T00:50:10Z", "zone": "Europe/Warsaw"}"#,
        "2026-03-29T00:00:00Z",
        &["2026-03-29T00:50:10Z 2026-03-29T01:50:10+01", "2026-03-29T01:05:10Z 2026-03-29T03:05:10+02"],
    );
    // Of a local anchor, and of the start.
    check(
        r#"{"every": "2 days", "anchor": "2026-03-28T02:00", "zone": "Europe/Warsaw"}"#,
        "2026-03-28T01:00:00Z",
        &["2026-03-30T01:00:00Z 2026-03-30T03:00:00+02"],
    );
    check(
        r#"{"every": 3600, "starts_at": "2026-03-28T00:10:00Z"}"#,
        "2026-03-28T00:00:00Z",
        &["2026-03-28T00:10:00Z 2026-03-28T00:10:00+00", "2026-03-28T01:10:00Z 2026-03-28T01:10:00+00"],
    );
    // Without an anchor it is as full as the clock of UTC.
    check(r#"{"every": "15m"}"#, "2026-03-28T00:00:00.5Z", &["2026-03-28T00:15:00Z 2026-03-28T00:15:00+00"]);
    check(r#"{"every": 1}"#, "1960-03-28T00:00:00.5Z", &["1970-01-01T00:00:00Z 1970-01-01T00:00:00+00"]);
    assert_eq!(timing(r#"{"every": 1}"#).after(Timestamp::MAX), None);
}

#[test]
fn nothing_fires_outside_its_time() {
    let timing = timing(
        r#"{"cron": "0 0 * * *", "starts_at": "2026-03-02T00:00:00.25Z", "ends_at": "2026-03-04T00:00:00Z"}"#,
    );
    assert_eq!(
        firings(&timing, "2000-01-01T00:00:00Z", 9),
        ["2026-03-03T00:00:00Z 2026-03-03T00:00:00+00", "2026-03-04T00:00:00Z 2026-03-04T00:00:00+00"]
    );
}

#[test]
fn every_question_has_an_answer() {
    let always_skipped = r#"{"cron": "30 2 * 3 SUNL", "zone": "Europe/Warsaw", "gap": "skip"}"#;
    assert_eq!(timing(always_skipped).after(instant("2026-01-01T00:00:00Z")), None);
    for json in [
        r#"{"cron": "* * * * * *", "zone": "America/New_York"}"#,
        r#"{"cron": "30 2 * * *", "zone": "Africa/Casablanca"}"#,
        r#"{"cron": "0 0 29 2 *", "zone": "Asia/Kathmandu"}"#,
        r#"{"cron": "0 0 * 2 MON#5", "zone": "Europe/Dublin"}"#,
        always_skipped,
    ] {
        let timing = timing(json);
        assert_eq!(timing.after(Timestamp::MAX), None, "{json}");
        let mut t = Timestamp::MIN;
        for _ in 0..50 {
            let Some(firing) = timing.after(t) else { break };
            assert!(firing.due > t);
            t = firing.due;
        }
        for second in [-99_999_999_999, -4_000_000_000, 0, 4_000_000_000, 250_000_000_000] {
            let t = Timestamp::from_second(second).expect("in range");
            assert!(timing.after(t).is_none_or(|firing| firing.due > t), "{json} after {t}");
        }
    }
}

#[test]
fn another_rule_stays_on_its_clock() {
    let before = timing(
        r#"{"cron": "30 2 * * *", "zone": "Europe/Warsaw", "gap": "skip", "starts_at": "2026-01-01T00:00:00Z"}"#,
    );
    let new = timing(r#"{"cron": "0 3 * * *"}"#);
    let here = new.clone().in_place_of(&before, false);
    assert_eq!(here.to_string(), "0 3 * * * Europe/Warsaw");
    assert_eq!((here.gap, here.fold, here.starts_at), (before.gap, before.fold, before.starts_at));
    assert_eq!(new.clone().in_place_of(&before, true).to_string(), "0 3 * * * UTC");
    // What was the default of its rule is the default of the new one.
    let plain = timing(r#"{"cron": "30 2 * * *", "zone": "Europe/Warsaw"}"#);
    let hourly = timing(r#"{"cron": "0 * * * *"}"#);
    assert_eq!(hourly.clone().in_place_of(&plain, false).gap, hourly.gap);
    let every = timing(r#"{"every": "15m"}"#);
    assert_eq!(every.clone().in_place_of(&plain, false).zone, every.zone);
}
