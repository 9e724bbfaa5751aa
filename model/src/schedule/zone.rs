//! Time zones by their IANA names.

use jiff::tz::{self, TimeZone};

use crate::Invalid;

/// Names that a hint has at most.
const HINTS: usize = 3;

/// Finds a zone, whatever the case of its name.
///
/// # Errors
/// Of the field `zone`, with the names that look like it.
pub(super) fn find(name: &str) -> Result<TimeZone, Invalid> {
    match tz::db().get(name) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => Err(Invalid::new("zone", format!("'{name}' is no time zone; {}", hint(name)))),
    }
}

fn hint(name: &str) -> String {
    let wanted = plain(name);
    let names: Vec<String> = tz::db().available().map(|known| known.as_str().to_owned()).collect();
    let last = |name: &str| plain(name.rsplit('/').next().unwrap_or_default());
    let city = |known: &&String| last(known) == last(name);
    let part = |known: &&String| wanted.len() >= 3 && plain(known).contains(&wanted);
    let mut found: Vec<&str> = names.iter().filter(city).map(String::as_str).collect();
    if found.is_empty() {
        found = names.iter().filter(part).map(String::as_str).collect();
    }
    found.truncate(HINTS);
    if found.is_empty() {
        "write its IANA name, such as Europe/Warsaw, America/New_York or UTC".to_owned()
    } else {
        format!("is {} meant?", found.join(" or "))
    }
}

/// Letters and digits alone, in lower case.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
