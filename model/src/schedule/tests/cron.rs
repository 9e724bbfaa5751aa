use jiff::civil::DateTime;

use crate::schedule::Cron;

fn cron(text: &str) -> Cron {
    Cron::parse(text).expect(text)
}

fn local(text: &str) -> DateTime {
    text.parse().expect(text)
}

/// The first matches from `from` on, each strictly after the one before.
fn matches(text: &str, from: &str, count: usize) -> Vec<String> {
    let cron = cron(text);
    let mut from = local(from);
    let mut found = Vec::new();
    while found.len() < count
        && let Some(next) = cron.next(from)
    {
        found.push(next.strftime("%Y-%m-%d %H:%M:%S %a").to_string());
        from = next.checked_add(jiff::SignedDuration::from_secs(1)).expect("in range");
    }
    found
}

#[test]
fn what_matches() {
    for (text, from, want) in [
        ("30 2 * * *", "2026-03-01T02:30:00", vec!["2026-03-01 02:30:00 Sun", "2026-03-02 02:30:00 Mon"]),
        ("30 2 * * *", "2026-03-01T02:30:00.000000001", vec!["2026-03-02 02:30:00 Mon"]),
        ("*/20 * * * *", "2026-12-31T23:30:00", vec!["2026-12-31 23:40:00 Thu", "2027-01-01 00:00:00 Fri"]),
        ("7/20 5 * * *", "2026-01-01T00:00:00", vec!["2026-01-01 05:07:00 Thu", "2026-01-01 05:27:00 Thu"]),
        (
            "10-50/20 5 * * *",
            "2026-01-01T05:11:00",
            vec!["2026-01-01 05:30:00 Thu", "2026-01-01 05:50:00 Thu"],
        ),
        (
            "59,0 23,0 * * *",
            "2026-01-01T23:59:01",
            vec!["2026-01-02 00:00:00 Fri", "2026-01-02 00:59:00 Fri"],
        ),
        (
            "5,10 30 2 * * *",
            "2026-01-01T02:30:06",
            vec!["2026-01-01 02:30:10 Thu", "2026-01-02 02:30:05 Fri"],
        ),
        (
            "0 9 * * mon-Fri",
            "2026-11-27T10:00:00",
            vec!["2026-11-30 09:00:00 Mon", "2026-12-01 09:00:00 Tue"],
        ),
        ("0 9 * * 7", "2026-11-27T10:00:00", vec!["2026-11-29 09:00:00 Sun", "2026-12-06 09:00:00 Sun"]),
        ("0 9 * * 6-7", "2026-11-27T10:00:00", vec!["2026-11-28 09:00:00 Sat", "2026-11-29 09:00:00 Sun"]),
        (
            "0 9 * * SAT-SUN",
            "2026-11-27T10:00:00",
            vec!["2026-11-28 09:00:00 Sat", "2026-11-29 09:00:00 Sun"],
        ),
        ("0 9 * * 0-1", "2026-11-27T10:00:00", vec!["2026-11-29 09:00:00 Sun", "2026-11-30 09:00:00 Mon"]),
        (
            "0 0 1 jan,JUL ?",
            "2026-01-01T00:00:01",
            vec!["2026-07-01 00:00:00 Wed", "2027-01-01 00:00:00 Fri"],
        ),
        ("0 0 L * *", "2028-02-01T00:00:00", vec!["2028-02-29 00:00:00 Tue", "2028-03-31 00:00:00 Fri"]),
        ("0 0 L-3 2,4 *", "2027-01-01T00:00:00", vec!["2027-02-25 00:00:00 Thu", "2027-04-27 00:00:00 Tue"]),
        ("0 0 15W * *", "2026-08-01T00:00:00", vec!["2026-08-14 00:00:00 Fri", "2026-09-15 00:00:00 Tue"]),
        ("0 0 1W * *", "2026-08-01T00:00:00", vec!["2026-08-03 00:00:00 Mon", "2026-09-01 00:00:00 Tue"]),
        ("0 0 31W * *", "2026-05-01T00:00:00", vec!["2026-05-29 00:00:00 Fri", "2026-07-31 00:00:00 Fri"]),
        ("0 0 LW * *", "2026-02-01T00:00:00", vec!["2026-02-27 00:00:00 Fri", "2026-03-31 00:00:00 Tue"]),
        ("0 0 * * FRI#2", "2026-11-01T00:00:00", vec!["2026-11-13 00:00:00 Fri", "2026-12-11 00:00:00 Fri"]),
        ("0 0 ? * 5#5", "2026-11-01T00:00:00", vec!["2027-01-29 00:00:00 Fri", "2027-04-30 00:00:00 Fri"]),
        ("0 0 * * friL", "2026-11-01T00:00:00", vec!["2026-11-27 00:00:00 Fri", "2026-12-25 00:00:00 Fri"]),
        ("0 0 * * 7L", "2026-11-01T00:00:00", vec!["2026-11-29 00:00:00 Sun", "2026-12-27 00:00:00 Sun"]),
        // Both days restricted: either.
        ("0 0 13 * FRI", "2026-11-01T00:00:00", vec!["2026-11-06 00:00:00 Fri", "2026-11-13 00:00:00 Fri"]),
        ("0 0 12 * FRI", "2026-11-07T00:00:00", vec!["2026-11-12 00:00:00 Thu", "2026-11-13 00:00:00 Fri"]),
        // One begins with a star: both.
        ("0 0 */2 * FRI", "2026-11-01T00:00:00", vec!["2026-11-13 00:00:00 Fri", "2026-11-27 00:00:00 Fri"]),
        ("0 0 29 2 *", "2096-03-01T00:00:00", vec!["2104-02-29 00:00:00 Fri", "2108-02-29 00:00:00 Wed"]),
        ("0 0 * 2 MON#5", "2072-03-01T00:00:00", vec!["2112-02-29 00:00:00 Mon"]),
        ("@hourly", "2026-01-01T00:59:59", vec!["2026-01-01 01:00:00 Thu", "2026-01-01 02:00:00 Thu"]),
        ("@daily", "2026-01-01T00:00:01", vec!["2026-01-02 00:00:00 Fri"]),
        ("@MIDNIGHT", "2026-01-01T00:00:01", vec!["2026-01-02 00:00:00 Fri"]),
        ("@weekly", "2026-01-01T00:00:00", vec!["2026-01-04 00:00:00 Sun"]),
        ("@monthly", "2026-01-01T00:00:01", vec!["2026-02-01 00:00:00 Sun"]),
        (" @yearly ", "2026-01-01T00:00:01", vec!["2027-01-01 00:00:00 Fri"]),
        ("@annually", "2026-01-01T00:00:01", vec!["2027-01-01 00:00:00 Fri"]),
    ] {
        assert_eq!(matches(text, from, want.len()), want, "{text} from {from}");
    }
}

#[test]
fn time_ends() {
    assert_eq!(cron("0 0 1 1 *").next(local("9999-01-01T00:00:01")), None);
    assert_eq!(cron("* * * * * *").next(local("9999-12-31T23:59:59.5")), None);
    assert_eq!(matches("0 0 * * *", "-009999-01-01T00:00:00", 1), ["-9999-01-01 00:00:00 Mon"]);
}

/// The bound of the search holds whatever is rare: a day of a leap year on a given weekday.
#[test]
fn the_longest_wait_is_found_from_every_year_of_the_cycle() {
    for weekday in 0..7 {
        let cron = cron(&format!("0 0 * 2 {weekday}#5"));
        for year in 1900..2300 {
            let from = local(&format!("{year}-01-01T00:00:00"));
            assert!(cron.next(from).is_some(), "{cron} from {year}");
        }
    }
}

#[test]
fn what_is_refused() {
    let fields = "write five fields (minute, hour, day of month, month, weekday), such as '30 2 * * MON-FRI', or six \
                  with the seconds first, or @daily";
    let days = "write 1 to 31, L, L-3, 15W or LW";
    let weekdays = "write 0 to 7 (0 and 7 are Sunday), SUN to SAT, FRI#2 or FRIL";
    for (text, want) in [
        ("", format!("is empty; {fields}")),
        ("  \t ", format!("is empty; {fields}")),
        ("* * * *", format!("has 4 fields; {fields}")),
        ("soon", format!("has 1 field; {fields}")),
        ("* * * * * * *", format!("has 7 fields; {fields}")),
        (
            "@reboot",
            "'@reboot' is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually".into(),
        ),
        ("60 * * * *", "minute '60' is out of range; write 0 to 59".into()),
        ("61 0 * * * *", "second '61' is out of range; write 0 to 59".into()),
        ("0 24 * * *", "hour '24' is out of range; write 0 to 23".into()),
        ("0 999999999999 * * *", "hour '999999999999' is out of range; write 0 to 23".into()),
        ("0 0 0 * *", format!("day of month '0' is out of range; {days}")),
        ("0 0 32 * *", format!("day of month '32' is out of range; {days}")),
        ("0 0 32W * *", format!("day of month '32W' is out of range; {days}")),
        ("0 0 * 13 *", "month '13' is out of range; write 1 to 12 or JAN to DEC".into()),
        ("0 0 * FOO *", "month 'FOO' is no month; write 1 to 12 or JAN to DEC".into()),
        ("0 0 * * 8", format!("weekday '8' is out of range; {weekdays}")),
        ("0 0 * * FRI#6", format!("weekday 'FRI#6' is not the first to fifth of a month; {weekdays}")),
        ("0 0 * * FRI#", format!("weekday 'FRI#' is not the first to fifth of a month; {weekdays}")),
        ("0 0 * * L", format!("weekday 'L' is no weekday; {weekdays}")),
        ("0 0 L-31 * *", format!("day of month 'L-31' goes back by no number from 0 to 30; {days}")),
        ("0 0 L- * *", format!("day of month 'L-' goes back by no number from 0 to 30; {days}")),
        ("0 0 W * *", format!("day of month 'W' is no day of month; {days}")),
        ("1,,2 * * * *", "minute '1,,2' has an empty part; write 0 to 59".into()),
        ("1, * * * *", "minute '1,' has an empty part; write 0 to 59".into()),
        ("-1 * * * *", "minute '-1' is no minute; write 0 to 59".into()),
        ("+1 * * * *", "minute '+1' is no minute; write 0 to 59".into()),
        ("? * * * *", "minute '?' is no minute; write 0 to 59".into()),
        ("1-2-3 * * * *", "minute '1-2-3' is no minute; write 0 to 59".into()),
        ("*/0 * * * *", "minute '*/0' has a step of '0'; a step is 1 to 59".into()),
        ("*/90 * * * *", "minute '*/90' has a step of '90'; a step is 1 to 59".into()),
        ("*/ * * * *", "minute '*/' has a step of ''; a step is 1 to 59".into()),
        ("0 22-2 * * *", "hour '22-2' runs backwards; write 22-23,0-2".into()),
        ("0 0 * NOV-FEB *", "month 'NOV-FEB' runs backwards; write NOV-DEC,JAN-FEB".into()),
        ("0 0 * * FRI-MON", "weekday 'FRI-MON' runs backwards; write FRI-SAT,SUN-MON".into()),
        ("0 0 30 2 *", "never comes: 30 February".into()),
        ("0 0 30,31 FEB ?", "never comes: 30 or 31 February".into()),
        ("0 0 31 2,4,JUN *", "never comes: 31 February or April or June".into()),
        ("0 0 L-30 2 *", "never comes: L-30 February".into()),
        ("0 0 */20 2 MON#5", "never comes: a day of February that is */20 and MON#5".into()),
    ] {
        let bad = Cron::parse(text).expect_err(text);
        assert_eq!(bad.to_string(), format!("cron {want}"), "{text}");
    }
    let bad = Cron::parse(&"0,".repeat(300)).expect_err("too long");
    assert_eq!(bad.to_string(), "cron is over the limit CRON_BYTES of 512 bytes");
}
