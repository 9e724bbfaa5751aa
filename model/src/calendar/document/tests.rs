use super::*;
use crate::calendar::{Compiled, Day};

const WHOLE: &str = "\
name: company.freezes
description: When nothing is changed
kind: blackout
zone: Europe/Warsaw
entries:
  - {date: 2026-12-24, label: Christmas Eve}
  - {from: 2026-12-20, to: 2027-01-03}
  - {from: 2026-12-31T18:00, to: 2027-01-01T06:00}
  - days: [mon, tue]
    from: \"09:00\"
    to: 17:00
  - {days: [fri], from: 22:00, to: 06:00, label: Backups}
  - yearly: 12-25
    label: Christmas
";

#[test]
fn a_calendar_is_read_and_written_again() {
    let calendar = parse(WHOLE).unwrap();
    assert_eq!((calendar.kind, calendar.entries.len()), (Kind::Blackout, 6));
    assert_eq!(calendar.entries[3].days, [Day::Mon, Day::Tue]);
    assert_eq!(calendar.entries[5].label.as_deref(), Some("Christmas"));
    let json = serde_json::to_string(&calendar).unwrap();
    assert_eq!(parse(&json).unwrap(), calendar, "JSON is YAML");
    let least = parse("name: always\nkind: allow\nentries: []\n").unwrap();
    assert_eq!(least.zone, "UTC");
    assert_eq!(
        serde_json::to_string(&least).unwrap(),
        r#"{"name":"always","kind":"allow","zone":"UTC","entries":[]}"#
    );
}

#[test]
fn what_is_wrong_has_a_place() {
    const HEAD: &str = "name: x\nkind: allow\nentries:\n";
    for (document, error) in [
        (
            "name: A b\nkind: allow\nentries: []\n".to_owned(),
            "line 1, column 7: name must have 1 to 64 lower-case letters, digits and any of _ . -, a letter or digit first",
        ),
        (
            "name: 019aa5d2-7d4c-7a6e-9f3e-0242ac120002\nkind: allow\nentries: []\n".to_owned(),
            "line 1, column 7: name is an id, which is no name of a calendar",
        ),
        (
            "name: x\nkind: allow\nzone: Europe/Krakow\nentries: []\n".to_owned(),
            "line 3, column 7: zone is 'Europe/Krakow', which is no IANA time zone (such as Europe/Warsaw or UTC)",
        ),
        (
            "name: x\nkind: allow\nzone: Etc/Unknown\nentries: []\n".to_owned(),
            "line 3, column 7: zone is 'Etc/Unknown', which is no IANA time zone (such as Europe/Warsaw or UTC)",
        ),
        (
            format!("{HEAD}  - date: 2026-12-24\n  - {{from: 2026-12-24, to: 2026-12-23}}\n"),
            "line 5, column 28: entries[1].to is '2026-12-23', which is before from",
        ),
        (
            format!("{HEAD}  - label: x\n"),
            "line 4, column 5: entries[0] has to have exactly one of date, from with to, and yearly",
        ),
        (
            "name: x\nkind: closed\nentries: []\n".to_owned(),
            "line 2, column 7: unknown variant `closed`, expected one of blackout, allow",
        ),
        (
            format!("{HEAD}  - {{dates: 2026-12-24}}\n"),
            "line 4, column 6: unknown field `dates`, expected one of date, days, from, to, yearly, label",
        ),
    ] {
        assert_eq!(parse(&document).unwrap_err().to_string(), error, "{document}");
    }
}

#[test]
fn limits_are_named() {
    let entries = "  - {yearly: 12-25, label: Christmas}\n".repeat(limits::CALENDAR_ENTRIES);
    let most = format!("name: x\nkind: allow\nentries:\n{entries}");
    Compiled::of(parse(&most).unwrap()).unwrap();
    let error = parse(&format!("{most}  - yearly: 12-25\n")).unwrap_err();
    assert_eq!(error.problem, "entries is over the limit CALENDAR_ENTRIES of 5000 entries");
    let long = format!("name: x\ndescription: {}\nkind: allow\nentries: []\n", "a".repeat(5000));
    assert!(parse(&long).unwrap_err().problem.contains("DESCRIPTION_BYTES"));
}
