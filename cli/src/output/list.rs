//! Lists, written page by page as they come.

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};

use super::{Format, Table, document, note, show, yaml};
use crate::pages::Pages;

/// Writes a list: a table, one JSON array, or one YAML sequence.
///
/// # Errors
/// As the requests for its pages, and when stdout is closed or full.
pub(crate) async fn list<T: Serialize + DeserializeOwned>(
    mut pages: Pages<'_, T>,
    format: Format,
    header: &'static [&'static str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<()> {
    let mut table = Table::new(header);
    let mut count = 0_usize;
    while let Some(items) = pages.next().await? {
        let mut text = String::new();
        match format {
            Format::Table => {
                items.iter().for_each(|item| table.row(row(item)));
                if !items.is_empty() {
                    text = table.take();
                }
            }
            Format::Json => {
                for (index, item) in items.iter().enumerate() {
                    text.push_str(if count + index == 0 { "[\n" } else { ",\n" });
                    text.push_str(&serde_json::to_string(item).context("cannot write the list as JSON")?);
                }
            }
            Format::Yaml if items.is_empty() => {}
            Format::Yaml => text = yaml(&items)?,
        }
        count += items.len();
        // The cells of a table are cleaned as they go in.
        document(&text)?;
    }
    match (format, count) {
        (Format::Table, 0) => note("nothing to list"),
        (Format::Table, _) => {}
        (Format::Json | Format::Yaml, 0) => document("[]\n")?,
        (Format::Json, _) => document("\n]\n")?,
        (Format::Yaml, _) => {}
    }
    Ok(())
}

/// Writes a list that came whole.
///
/// # Errors
/// When stdout is closed or full.
pub(crate) fn whole<T: Serialize>(
    items: &[T],
    format: Format,
    header: &'static [&'static str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<()> {
    if items.is_empty() && format == Format::Table {
        note("nothing to list");
        return Ok(());
    }
    show(format, &items, |items| {
        let mut table = Table::new(header);
        items.iter().for_each(|item| table.row(row(item)));
        table.take()
    })
}
