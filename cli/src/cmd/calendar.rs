//! `opsctl calendar`: days and windows that schedules heed.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use model::{
    api::calendar::{
        Calendar, CalendarAt, CalendarSummary, ChangeCalendar, CreateCalendar, ImportCalendar,
        ImportedCalendar,
    },
    calendar::{self, Entry, Verdict},
};

use super::job::files;
use crate::{
    args::{CalendarCommand, CreateCalendarArgs},
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Format, Table, human},
};

const CALENDARS: [&str; 3] = ["api", "v1", "calendars"];

/// The path of a calendar, by name or id, and of what is below it.
fn path<'a>(calendar: &'a str, below: &[&'a str]) -> Vec<&'a str> {
    [&CALENDARS, [calendar].as_slice(), below].concat()
}

/// # Errors
/// As the requests, when a file cannot be read, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: CalendarCommand) -> Result<Exit> {
    match command {
        CalendarCommand::Create(args) => create(client, args).await?,
        CalendarCommand::List(shown) => {
            let now = clock::now();
            let header = &["NAME", "KIND", "ZONE", "ENTRIES", "SHARED", "UPDATED", "UPDATED BY"];
            let pages = client.pages(&CALENDARS, Vec::new(), None);
            output::list(pages, shown.output, header, |one: &CalendarSummary| {
                vec![
                    one.name.clone(),
                    one.kind.as_str().to_owned(),
                    one.zone.clone(),
                    one.size.to_string(),
                    if one.shared { "yes" } else { "-" }.to_owned(),
                    human::relative(one.updated_at, now),
                    one.updated_by.clone(),
                ]
            })
            .await?;
        }
        CalendarCommand::Show { calendar: one, document } => {
            let calendar: Calendar = client.get(&path(&one.name, &[]), &[]).await?;
            if document {
                output::show(Format::Yaml, &calendar.calendar, |_| String::new())?;
            } else {
                output::show(one.shown.output, &calendar, |calendar| describe(calendar, clock::now()))?;
            }
        }
        CalendarCommand::Update { calendar: one, file, expected_version } => {
            let request = ChangeCalendar { calendar: read(&file)?, expected_version };
            let calendar: Calendar = client.put(&path(&one.name, &[]), &request).await?;
            output::show(one.shown.output, &calendar, said)?;
        }
        CalendarCommand::Delete { name } => {
            client.delete(&path(&name, &[])).await?;
            output::note(&format!("the calendar {name} is deleted"));
        }
        CalendarCommand::Import { calendar: one, file, replace } => {
            let request = ImportCalendar { text: files::text_of(&file)?, replace, expected_version: None };
            let imported: ImportedCalendar = client.post(&path(&one.name, &["import"]), &request).await?;
            if one.shown.output == Format::Table {
                files::complain(&left_over(&file, &imported));
            }
            output::show(one.shown.output, &imported, tally)?;
        }
        CalendarCommand::At { calendar: one, time } => {
            let query: Vec<_> = time.map(|time| ("time", time.to_string())).into_iter().collect();
            let at: CalendarAt = client.get(&path(&one.name, &["at"]), &query).await?;
            output::show(one.shown.output, &at, |at| told(at, clock::now()))?;
        }
    }
    Ok(Exit::Succeeded)
}

async fn create(client: &Client, args: CreateCalendarArgs) -> Result<()> {
    let mut calendar = match (&args.file, args.kind) {
        (Some(file), _) => read(file)?,
        (None, Some(kind)) => calendar::Calendar {
            name: String::new(),
            description: args.description.unwrap_or_default(),
            kind,
            zone: args.zone.unwrap_or_else(|| "UTC".to_owned()),
            entries: Vec::new(),
        },
        (None, None) => return Err(Usage("say --file or --kind".to_owned()).into()),
    };
    if let Some(name) = args.name {
        calendar.name = name;
    }
    calendar.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let request = CreateCalendar { calendar, shared: args.shared };
    let calendar: Calendar = client.post(&CALENDARS, &request).await?;
    output::show(args.shown.output, &calendar, said)
}

/// A calendar from a file.
fn read(file: &Path) -> Result<calendar::Calendar> {
    let text = files::text_of(file)?;
    calendar::parse(&text).map_err(|bad| Usage(format!("{}: {bad}", files::shown(file))).into())
}

fn entries(number: usize) -> String {
    match number {
        1 => "1 entry".to_owned(),
        number => format!("{number} entries"),
    }
}

fn said(calendar: &Calendar) -> String {
    let (said, entries) = (&calendar.calendar, entries(calendar.calendar.entries.len()));
    format!("the calendar {} has {entries} (version {})\n", said.name, calendar.version)
}

fn left_over(file: &Path, imported: &ImportedCalendar) -> Vec<String> {
    let at = files::shown(file);
    let lines = imported.left_over.iter().map(|one| {
        let title = if one.title.is_empty() { "an event without a title" } else { &one.title };
        format!("{at}:{}: {title} {}", one.line, one.problem)
    });
    lines.collect()
}

fn tally(imported: &ImportedCalendar) -> String {
    let made = entries(imported.imported);
    let left = match imported.left_over.len() {
        0 => String::new(),
        left => format!(", and {left} of its events could not be carried over"),
    };
    format!("the text has {made}{left}; {}", said(&imported.calendar))
}

fn told(at: &CalendarAt, now: Timestamp) -> String {
    let until = at.until.map_or_else(
        || "for as long as anybody looks ahead".to_owned(),
        |until| format!("until {}", human::moment(until, now)),
    );
    match (&at.verdict, &at.entry) {
        (Verdict::Open, Some(entry)) => format!("open: in {}, {until}\n", line(entry)),
        (Verdict::Open, None) => format!("open, {until}\n"),
        (closed, _) => format!("{closed}, {until}\n"),
    }
}

/// An entry on one line.
fn line(entry: &Entry) -> String {
    let days: Vec<_> = entry.days.iter().map(|day| format!("{day:?}")).collect();
    let when = match (&entry.date, &entry.yearly, &entry.from, &entry.to) {
        (Some(date), ..) => date.clone(),
        (_, Some(yearly), ..) => format!("each {yearly}"),
        (_, _, Some(from), Some(to)) => format!("{from} to {to}"),
        _ => String::new(),
    };
    let days = if days.is_empty() { String::new() } else { format!("{} ", days.join(",")) };
    let label = entry.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
    format!("{days}{when}{label}")
}

fn describe(one: &Calendar, now: Timestamp) -> String {
    let said = &one.calendar;
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Name", said.name.clone());
    row("Id", one.id.to_string());
    if !said.description.is_empty() {
        row("Description", said.description.clone());
    }
    row("Kind", said.kind.as_str().to_owned());
    row("Zone", said.zone.clone());
    if one.shared {
        row("Shared", "by all organizations".to_owned());
    }
    row("Version", format!("{} by {}", one.version, one.updated_by));
    row("Created", format!("{} by {}", human::moment(one.created_at, now), one.created_by));
    row("Updated", human::moment(one.updated_at, now));
    for (index, entry) in said.entries.iter().enumerate() {
        row(if index == 0 { "Entries" } else { "" }, line(entry));
    }
    table.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_verdicts_are_told() {
        let text = "{name: a, kind: blackout, entries: [{date: 2026-11-11}, {yearly: 12-25, label: Christmas}, \
                    {from: 2026-12-20, to: 2027-01-03}, {days: [mon, fri], from: 09:00, to: 17:00}]}";
        let lines: Vec<String> = calendar::parse(text).unwrap().entries.iter().map(line).collect();
        assert_eq!(
            lines,
            ["2026-11-11", "each 12-25 (Christmas)", "2026-12-20 to 2027-01-03", "Mon,Fri 09:00 to 17:00"]
        );
        let now = "2026-12-24T00:00:00Z".parse().unwrap();
        let at = serde_json::json!({
            "time": "2026-12-25T10:00:00Z", "verdict": "blackout", "calendar": "a", "label": "Christmas",
            "entry": { "yearly": "12-25", "label": "Christmas" }, "until": "2026-12-26T00:00:00Z",
        });
        let at: CalendarAt = serde_json::from_value(at).unwrap();
        assert_eq!(
            told(&at, now),
            "in the blackout 'a' (Christmas), until 2026-12-26 00:00:00 UTC (in 2d)\n"
        );
        let at = CalendarAt { time: now, verdict: Verdict::Open, entry: None, until: None };
        assert_eq!(told(&at, now), "open, for as long as anybody looks ahead\n");
    }

    #[test]
    fn what_is_left_over_has_its_line() {
        let imported = serde_json::json!({
            "calendar": {
                "id": "00000000-0000-7000-8000-000000000001", "shared": false, "name": "a", "kind": "blackout", "zone": "UTC",
                "entries": [{ "date": "2026-11-11" }], "version": 2,
                "created_at": "2026-01-31T08:00:00Z", "created_by": "ada",
                "updated_at": "2026-01-31T08:00:00Z", "updated_by": "bob",
            },
            "imported": 1,
            "left_over": [{ "line": 7, "title": "Stand-up", "problem": "repeats every day" }],
        });
        let imported: ImportedCalendar = serde_json::from_value(imported).unwrap();
        assert_eq!(left_over(Path::new("a.ics"), &imported), ["a.ics:7: Stand-up repeats every day"]);
        assert_eq!(
            tally(&imported),
            "the text has 1 entry, and 1 of its events could not be carried over; the calendar a has 1 entry (version 2)\n"
        );
    }
}
