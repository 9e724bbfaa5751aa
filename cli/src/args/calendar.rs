//! What people type about calendars.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;
use model::calendar::Kind;

use super::Shown;
use crate::parse;

const CREATE_EXAMPLES: &str = "\
Examples:
  opsctl calendar create -f freeze.yaml
  opsctl calendar create holidays --kind blackout --zone Europe/Warsaw     (empty: 'calendar import' fills it)

A file has, as YAML or JSON:
  name: year-end-freeze
  kind: blackout                  # nothing begins within it; or allow: only within it
  zone: Europe/Warsaw
  entries:
    - {from: 2026-12-20, to: 2027-01-03, label: Change freeze}
    - {date: 2026-11-11}
    - {yearly: 12-25, label: Christmas}
    - {days: [mon, tue, wed, thu, fri], from: 09:00, to: 17:00}
    - {from: 2026-12-31T18:00, to: 2027-01-01T08:00}";

#[derive(Debug, Subcommand)]
pub(crate) enum CalendarCommand {
    /// Make a calendar, of a file or an empty one
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateCalendarArgs),
    /// List the calendars, one's own and those that all organizations share
    List(Shown),
    /// Show one calendar with its entries
    Show {
        #[command(flatten)]
        calendar: OneCalendar,
        /// Only what stands in its file, as YAML, to be changed and used with 'calendar update'
        #[arg(long, conflicts_with = "output")]
        document: bool,
    },
    /// Put what stands in a file in the place of all of a calendar
    Update {
        #[command(flatten)]
        calendar: OneCalendar,
        /// YAML or JSON, or stdin with '-'
        #[arg(short, long, value_name = "FILE|-")]
        file: PathBuf,
        /// Only if it is still at this version
        #[arg(long, value_name = "N")]
        expected_version: Option<i32>,
    },
    /// Delete a calendar that no schedule names
    Delete {
        /// Name or id of the calendar
        #[arg(value_name = "CALENDAR", value_parser = parse::slug)]
        name: String,
    },
    /// Add the events of an iCalendar file; what cannot be carried over is told on stderr
    Import {
        #[command(flatten)]
        calendar: OneCalendar,
        /// iCalendar (.ics), or stdin with '-'
        #[arg(short, long, value_name = "FILE|-")]
        file: PathBuf,
        /// In place of the entries that the calendar has
        #[arg(long)]
        replace: bool,
    },
    /// Tell what a calendar says of a time
    At {
        #[command(flatten)]
        calendar: OneCalendar,
        /// As 2026-12-24T10:00:00+01:00 [default: now]
        #[arg(value_name = "TIME")]
        time: Option<Timestamp>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneCalendar {
    /// Name or id of the calendar
    #[arg(value_name = "CALENDAR", value_parser = parse::slug)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["file", "kind"]))]
pub(crate) struct CreateCalendarArgs {
    /// Its name [default: the one that stands in the file]
    #[arg(value_name = "CALENDAR", value_parser = parse::slug, required_unless_present = "file")]
    pub(crate) name: Option<String>,
    /// All of it from a YAML or JSON file, or from stdin with '-'
    #[arg(short, long, value_name = "FILE|-", conflicts_with_all = ["zone", "description"])]
    pub(crate) file: Option<PathBuf>,
    /// An empty one of this kind: blackout or allow
    #[arg(long, value_name = "KIND", value_parser = parse::word::<Kind>)]
    pub(crate) kind: Option<Kind>,
    /// The time zone by whose clock its entries are told [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// For all organizations
    #[arg(long)]
    pub(crate) shared: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[cfg(test)]
mod tests {
    use clap::{Parser as _, error::ErrorKind};

    use crate::args::Cli;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(["opsctl"].into_iter().chain(line.split(' '))).map_err(|error| error.kind())
    }

    #[test]
    fn what_people_type_about_calendars() {
        for good in [
            "calendar create -f freeze.yaml",
            "calendar create freeze -f - --shared -o json",
            "calendar create holidays --kind blackout --zone Europe/Warsaw --description why",
            "calendar list",
            "calendar show freeze",
            "calendar show freeze --document",
            "calendar update freeze -f freeze.yaml --expected-version 3",
            "calendar delete freeze",
            "calendar import holidays -f holidays.ics --replace",
            "calendar at holidays",
            "calendar at holidays 2026-12-24T10:00:00+01:00",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for (bad, kind) in [
            ("calendar create freeze", ErrorKind::MissingRequiredArgument),
            ("calendar create --kind blackout", ErrorKind::MissingRequiredArgument),
            ("calendar create freeze -f a --kind allow", ErrorKind::ArgumentConflict),
            ("calendar create freeze --kind never", ErrorKind::ValueValidation),
            ("calendar update freeze", ErrorKind::MissingRequiredArgument),
            ("calendar at freeze tomorrow", ErrorKind::ValueValidation),
            ("calendar show ..", ErrorKind::ValueValidation),
        ] {
            assert_eq!(parse(bad).unwrap_err(), kind, "{bad}");
        }
    }
}
