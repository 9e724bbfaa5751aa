//! The table of the corpus in `docs/sandbox.md`.

use std::{fmt::Write as _, path::Path};

use super::{PROFILES, corpus::Entry};

const BEGIN: &str = "<!-- corpus: written by `OPSC_WRITE_DOCS=1 cargo test --test it hostile` -->\n";
const END: &str = "<!-- end of the corpus -->\n";

const MAY_BE_ABSENT: &str = "Not every kernel has it. Where it has not, the test says so, and what stands here is what is \
                             expected of one that has.";

/// Compares the table with what was found, or writes it when `OPSC_WRITE_DOCS` is set.
pub(super) fn compare(entries: &[Entry], found: &[[String; PROFILES.len()]]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sandbox.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table has a beginning");
    let (old, after) = rest.split_once(END).expect("the table has an end");
    let new = table(entries, found);
    if std::env::var_os("OPSC_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{new}{END}{after}")).unwrap();
    } else {
        assert_eq!(old, new, "docs/sandbox.md says something else; OPSC_WRITE_DOCS=1 writes it");
    }
}

fn table(entries: &[Entry], found: &[[String; PROFILES.len()]]) -> String {
    let mut text =
        "\n| what is tried | none | standard | strict | isolated |\n|---|---|---|---|---|\n".to_owned();
    let mut notes: Vec<&str> = Vec::new();
    for (entry, row) in entries.iter().zip(found) {
        let mut marks = String::new();
        for note in entry.note.as_deref().into_iter().chain(entry.may_be_absent.then_some(MAY_BE_ABSENT)) {
            let known = notes.iter().position(|one| *one == note).unwrap_or(notes.len());
            if known == notes.len() {
                notes.push(note);
            }
            let _ = write!(marks, " ({})", known + 1);
        }
        let words: Vec<String> = row
            .iter()
            .map(|outcome| match outcome.split(':').next().unwrap_or_default() {
                "denied" => "**denied**".to_owned(),
                word if word.contains('_') => format!("`{word}`"),
                word => word.to_owned(),
            })
            .collect();
        let _ = writeln!(text, "| {}{marks} | {} |", entry.name, words.join(" | "));
    }
    text.push('\n');
    for (index, note) in notes.iter().enumerate() {
        let _ = writeln!(text, "({}) {note}  ", index + 1);
    }
    text.push('\n');
    text
}
