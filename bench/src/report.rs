//! What is left of a measurement: `results.json`, the raw samples beside it, and a table for people.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    clock,
    figure::{ALL, Book, Measured},
    plan::Plan,
};

/// The whole result as one document.
pub(crate) fn document(book: &Book, plan: &Plan) -> Value {
    json!({
        "measured_at": clock::now(),
        "quick": plan.quick,
        "bench_build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "machine": machine(),
        "figures": book.figures(plan),
        "floors": book.floors,
        "failures": book.failures.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect::<Vec<_>>(),
    })
}

/// Writes `results.json` and `raw/NAME.json` in `folder`; where the first is.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(folder: &Path, document: &Value, book: &Book) -> anyhow::Result<PathBuf> {
    let raw = folder.join("raw");
    fs::create_dir_all(&raw).with_context(|| format!("cannot make {}", raw.display()))?;
    for measured in &book.measured {
        let content = json!({
            "name": measured.definition.name,
            "unit": measured.definition.unit,
            "note": measured.note,
            "samples": measured.samples,
            "raw": measured.raw,
        });
        write_json(&raw.join(format!("{}.json", measured.definition.name)), &content)?;
    }
    if let Some(floors) = &book.floors {
        write_json(&raw.join("floors.json"), &floors.samples())?;
    }
    let results = folder.join("results.json");
    write_json(&results, document)?;
    Ok(results)
}

fn write_json(path: &Path, content: &Value) -> anyhow::Result<()> {
    fs::write(path, format!("{content:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

/// The table, in Markdown.
pub(crate) fn table(book: &Book, plan: &Plan) -> String {
    let head = ["name", "measured", "target", "", "floor", "x floor", "how"].map(str::to_owned);
    let mut rows = vec![head];
    for definition in ALL {
        let Some(measured) = book.get(definition.name) else { continue };
        rows.push(row(book, measured, plan));
    }
    if let Some(floors) = &book.floors {
        for (name, value, unit, how) in floors.rows() {
            let empty = String::new;
            rows.push([
                name.to_owned(),
                quantity(value, unit),
                empty(),
                empty(),
                empty(),
                empty(),
                how.to_owned(),
            ]);
        }
    }
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            let padding = " ".repeat(width - cell.chars().count());
            // Writing into a string does not fail.
            let _ = write!(text, "| {cell}{padding} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for width in widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

fn row(book: &Book, measured: &Measured, plan: &Plan) -> [String; 7] {
    let definition = measured.definition;
    let shown =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| quantity(value, definition.unit));
    [
        definition.name.to_owned(),
        shown(measured.value()),
        quantity(definition.target, definition.unit),
        verdict(measured, plan).to_owned(),
        shown(book.floor(definition.name, plan)),
        book.ratio(measured, plan).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}")),
        format!("{} x {}", measured.samples.len(), measured.note),
    ]
}

/// Whether the target is reached, which small numbers say nothing about.
fn verdict(measured: &Measured, plan: &Plan) -> &'static str {
    match measured.is_reached() {
        _ if plan.quick => "quick",
        Some(true) => "ok",
        Some(false) => "MISSED",
        None => "?",
    }
}

/// A value with three digits or so.
fn quantity(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$} {unit}")
}

fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    json!({
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": after(&read("/proc/cpuinfo"), "model name"),
        "memory": after(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_what_was_measured_beside_its_target() {
        let mut book = Book::default();
        book.enter("fanout_1000_ms", vec![250.0, 350.0, 400.0], "1,000 simulated agents", Value::Null);
        let plan = Plan::full();
        let table = table(&book, &plan);
        assert!(table.contains("| fanout_1000_ms | 350 ms   | 300 ms | MISSED |"), "{table}");
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &document(&book, &plan), &book).unwrap();
        let results: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(results["figures"]["fanout_1000_ms"]["value"], 350.0);
        let raw = fs::read(folder.path().join("raw/fanout_1000_ms.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&raw).unwrap()["samples"][2], 400.0);
    }

    #[test]
    fn quantities_have_about_three_digits() {
        for (value, text) in
            [(1234.5, "1234 ms"), (12.34, "12.3 ms"), (1.234, "1.23 ms"), (0.1234, "0.123 ms")]
        {
            assert_eq!(quantity(value, "ms"), text);
        }
    }
}
