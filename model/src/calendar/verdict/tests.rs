use std::sync::Arc;

use super::*;
use crate::calendar::parse;

fn compiled(name: &str, kind: &str, entry: &str) -> Arc<Compiled> {
    let calendar = parse(&format!("name: {name}\nkind: {kind}\nentries:\n  - {entry}\n")).unwrap();
    Arc::new(Compiled::of(calendar).unwrap())
}

#[test]
fn a_blackout_wins_and_one_that_allows_is_enough() {
    let holidays = compiled("holidays", "blackout", "{yearly: 12-25, label: Christmas}");
    let freeze = compiled("freeze", "blackout", "{from: 2026-12-20, to: 2026-12-31}");
    let office = compiled("office", "allow", "{days: [fri], from: 09:00, to: 17:00}");
    let nights = compiled("nights", "allow", "{days: [fri], from: 22:00, to: 06:00}");
    let blackout = |calendar: &str, label: Option<&str>| Verdict::Blackout {
        calendar: calendar.to_owned(),
        label: label.map(str::to_owned),
    };
    let outside = |names: &[&str]| Verdict::OutsideAllowed {
        calendars: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    // The 25 December 2026 is a Friday.
    for (calendars, at, want, reason) in [
        (vec![], "2026-12-25T10:00Z", Verdict::Open, "open"),
        (
            vec![&office, &freeze, &holidays],
            "2026-12-25T10:00Z",
            blackout("freeze", None),
            "in the blackout 'freeze'",
        ),
        (
            vec![&holidays, &freeze],
            "2026-12-25T10:00Z",
            blackout("holidays", Some("Christmas")),
            "in the blackout 'holidays' (Christmas)",
        ),
        (vec![&holidays], "2026-12-26T00:00Z", Verdict::Open, "open"),
        (vec![&office, &nights, &holidays], "2026-12-18T10:00Z", Verdict::Open, "open"),
        (vec![&office, &nights], "2026-12-19T05:00Z", Verdict::Open, "open"),
        (
            vec![&office, &nights, &holidays],
            "2026-12-18T17:00Z",
            outside(&["office", "nights"]),
            "outside of what is allowed by 'office', 'nights'",
        ),
    ] {
        let calendars: Vec<Arc<Compiled>> = calendars.into_iter().cloned().collect();
        let verdict = verdict(&calendars, at.parse().unwrap());
        assert_eq!(verdict.to_string(), reason, "{at}");
        assert_eq!(verdict, want, "{at}");
        let json = serde_json::to_string(&verdict).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
    }
}
