use jiff::civil::date;
use serde_json::{Value, json};

use super::*;

fn read(value: Value) -> Entry {
    serde_json::from_value(value).unwrap()
}

#[test]
fn each_form_is_read_and_written_again() {
    let day = date(2026, 12, 24);
    let hours = |hours: i64| hours * 3600;
    for (written, when) in [
        (json!({ "date": "2026-12-24" }), When::Days { first: day, last: day }),
        (
            json!({ "from": "2026-12-20", "to": "2027-01-03" }),
            When::Days { first: date(2026, 12, 20), last: date(2027, 1, 3) },
        ),
        (
            json!({ "from": "2026-12-31T18:00", "to": "2027-01-01T06:00:30" }),
            When::Window { from: date(2026, 12, 31).at(18, 0, 0, 0), to: date(2027, 1, 1).at(6, 0, 30, 0) },
        ),
        (
            json!({ "days": ["mon", "tue"], "from": "09:00", "to": "17:00" }),
            When::Weekly { days: vec![Day::Mon, Day::Tue], from: hours(9), to: hours(17) },
        ),
        (
            json!({ "days": ["sun"], "from": "22:00", "to": "06:00" }),
            When::Weekly { days: vec![Day::Sun], from: hours(22), to: hours(30) },
        ),
        (
            json!({ "days": ["sat", "sun"], "from": "00:00", "to": "24:00" }),
            When::Weekly { days: vec![Day::Sat, Day::Sun], from: 0, to: DAY },
        ),
        (
            json!({ "days": ["sat"], "from": "23:59:59", "to": "00:00" }),
            When::Weekly { days: vec![Day::Sat], from: DAY - 1, to: DAY },
        ),
        (json!({ "yearly": "02-29" }), When::Yearly { month: 2, day: 29 }),
    ] {
        let entry = read(written.clone());
        assert_eq!(entry.when().as_ref(), Ok(&when), "{written}");
        let again = Entry::from(when.clone());
        assert_eq!(again.when(), Ok(when), "{written}");
        assert!(again == entry || written["to"] == "00:00", "{written}");
        assert_eq!(serde_json::to_value(&entry).unwrap(), written);
    }
    let midnight = read(json!({ "from": "2026-12-31T18:00", "to": "2026-12-31T24:00" }));
    let to = date(2027, 1, 1).at(0, 0, 0, 0);
    assert_eq!(midnight.when(), Ok(When::Window { from: date(2026, 12, 31).at(18, 0, 0, 0), to }));
}

#[test]
fn what_is_wrong_is_named() {
    const ONE_OF: &str = " has to have exactly one of date, from with to, and yearly";
    for (written, problem) in [
        (json!({}), ONE_OF),
        (json!({ "label": "Christmas" }), ONE_OF),
        (json!({ "date": "2026-12-24", "yearly": "12-24" }), ONE_OF),
        (json!({ "date": "2026-12-24", "from": "2026-12-24", "to": "2026-12-24" }), ONE_OF),
        (json!({ "date": "2026-12-24", "days": ["mon"] }), ONE_OF),
        (json!({ "yearly": "12-24", "days": ["mon"] }), ONE_OF),
        (json!({ "days": ["mon"] }), "from is missing"),
        (json!({ "from": "2026-12-24" }), "to is missing"),
        (json!({ "to": "2026-12-24" }), "from is missing"),
        (json!({ "days": ["mon"], "from": "09:00" }), "to is missing"),
        (json!({ "date": "24.12.2026" }), "date is '24.12.2026', which is no date (such as 2026-12-24)"),
        (json!({ "date": "2026-02-30" }), "date is '2026-02-30', which is no date (such as 2026-12-24)"),
        (json!({ "date": "20261224" }), "date is '20261224', which is no date (such as 2026-12-24)"),
        (json!({ "date": "0000-01-01" }), "date is '0000-01-01', which is no date (such as 2026-12-24)"),
        (
            json!({ "date": format!("\u{1b}{}", "9".repeat(1000)) }),
            "date is '99999999999999999999999999999999', which is no date (such as 2026-12-24)",
        ),
        (json!({ "from": "2026-12-24", "to": "2026-12-23" }), "to is '2026-12-23', which is before from"),
        (
            json!({ "from": "2026-12-24", "to": "2026-12-24T12:00" }),
            "to is not written as from is: both are dates, or both have a time",
        ),
        (json!({ "from": "2026-12-24T12:00", "to": "2026-12-24T12:00" }), "to is not after from"),
        (
            json!({ "from": "2026-12-24T24:00", "to": "2026-12-26T12:00" }),
            "from has '24:00', which is no time (such as 09:00)",
        ),
        (
            json!({ "from": "2026-12-24T12:00Z", "to": "2026-12-26T12:00Z" }),
            "from has '12:00Z', which is no time (such as 09:00)",
        ),
        (
            json!({ "from": "9999-12-31T12:00", "to": "9999-12-31T24:00" }),
            "to is '9999-12-31T24:00', which is after the last day there is",
        ),
        (
            json!({ "days": ["mon"], "from": "9:00", "to": "17:00" }),
            "from has '9:00', which is no time (such as 09:00)",
        ),
        (
            json!({ "days": ["mon"], "from": "09:00", "to": "24:01" }),
            "to has '24:01', which is no time (such as 17:00, or 24:00)",
        ),
        (
            json!({ "days": ["mon"], "from": "09:00", "to": "17:00:60" }),
            "to has '17:00:60', which is no time (such as 17:00, or 24:00)",
        ),
        (
            json!({ "days": ["mon"], "from": "09:00", "to": "09:00" }),
            "to is the same as from; a whole day is 00:00 to 24:00",
        ),
        (json!({ "days": ["mon", "mon"], "from": "09:00", "to": "17:00" }), "days has a day twice"),
        (json!({ "yearly": "02-30" }), "yearly is '02-30', which is no day of a year (such as 12-25)"),
        (json!({ "yearly": "2-3" }), "yearly is '2-3', which is no day of a year (such as 12-25)"),
        (
            json!({ "yearly": "12-25T09:00" }),
            "yearly is '12-25T09:00', which is no day of a year (such as 12-25)",
        ),
        (json!({ "yearly": "12-25", "label": " " }), "label is empty"),
        (json!({ "yearly": "12-25", "label": "a\nb" }), "label contains a control character"),
        (
            json!({ "yearly": "12-25", "label": "ż".repeat(129) }),
            "label is over the limit NAME_CHARS of 128 characters",
        ),
    ] {
        assert_eq!(read(written.clone()).when().unwrap_err().to_string(), problem, "{written}");
    }
}
