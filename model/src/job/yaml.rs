//! Reads a job's document, YAML or JSON, and says at which line and column it is wrong.

use super::Job;
use crate::{
    Invalid, limits,
    yaml::{self, Node, Part, at},
};

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", place(*line, *column))]
pub struct BadDocument {
    /// The field as a path in the document; empty where it cannot be read at all.
    pub field: String,
    pub problem: String,
    /// From 1; 0 where it is not known.
    pub line: usize,
    pub column: usize,
}

fn place(line: usize, column: usize) -> String {
    if line == 0 { String::new() } else { format!("line {line}, column {column}: ") }
}

/// Reads and validates a job.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(text: &str) -> Result<Job, BadDocument> {
    let job: Job = read(text)?;
    job.validate().map_err(|invalid| located(text, invalid))?;
    Ok(job)
}

/// Reads a document that is not too long.
///
/// # Errors
/// With the place of what cannot be read.
pub(crate) fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, BadDocument> {
    if text.len() > limits::DOCUMENT_BYTES {
        let problem =
            format!("the document is over the limit DOCUMENT_BYTES of {} bytes", limits::DOCUMENT_BYTES);
        return Err(BadDocument { field: String::new(), problem, line: 0, column: 0 });
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |location| at(&location));
        BadDocument { field: String::new(), problem: reason(&error), line, column }
    })
}

/// Why a document cannot be read, without the place: that is told apart.
pub(crate) fn reason(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as E;
    match error.without_snippet() {
        E::Budget { .. } => return "is too large or too deep".to_owned(),
        E::DuplicateMappingKey { key, .. } => {
            let key = key.as_ref().map_or_else(|| "a key".to_owned(), |key| format!("the key '{key}'"));
            return format!("{key} stands twice");
        }
        _ => {}
    }
    let text = error.without_snippet().to_string();
    if text.starts_with("recursion limit") {
        return "is too large or too deep".to_owned();
    }
    text.split(" at line ").next().unwrap_or_default().trim_end_matches([':', ' ']).to_owned()
}

/// What is wrong with a field, at its place in the document or at that of what is nearest above it.
pub fn located(text: &str, invalid: Invalid) -> BadDocument {
    let problem = invalid.to_string();
    let (line, column) = match yaml::read(text) {
        Ok(root) => nearest(&root, &invalid.field),
        Err(_) => (0, 0),
    };
    BadDocument { field: invalid.field, problem, line, column }
}

fn nearest(root: &Part, path: &str) -> (usize, usize) {
    let (mut here, mut rest) = (root, path);
    loop {
        let next = match &here.value {
            Node::Map(entries) => entries.iter().find_map(|(key, value)| {
                let behind = rest.strip_prefix(key.value.as_str())?;
                let is_whole = behind.is_empty() || behind.starts_with(['.', '[']);
                is_whole.then(|| (value, behind.strip_prefix('.').unwrap_or(behind)))
            }),
            Node::List(items) => rest.strip_prefix('[').and_then(|inner| {
                let (index, behind) = inner.split_once(']')?;
                let value = items.get(index.parse::<usize>().ok()?)?;
                Some((value, behind.strip_prefix('.').unwrap_or(behind)))
            }),
            Node::Text(_) | Node::Value(_) | Node::Null => None,
        };
        match next {
            Some((value, behind)) => (here, rest) = (value, behind),
            None => return at(&here.referenced),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name: a\ntargets: {all: true}\nsteps:\n";

    #[test]
    fn a_job_is_read() {
        let job = parse(&format!("{HEAD}  - name: one\n    run: uptime\n    timeout: 5m\n")).expect("a job");
        assert_eq!(job.steps[0].timeout.map(super::super::Length::seconds), Some(300));
        // JSON is YAML.
        parse(r#"{"name": "a", "steps": [{"name": "one", "argv": ["true"]}]}"#).expect("a job");
    }

    #[test]
    fn what_is_too_much_says_so() {
        let deep = format!("name: a\nsteps: {}{}\n", "[".repeat(3000), "]".repeat(3000));
        let bad = parse(&deep).expect_err("it is deep");
        assert!(bad.to_string().ends_with("is too large or too deep"), "{bad}");
        let large = format!("[{}0]\n", "0,".repeat(260_000));
        assert_eq!(reason(&yaml::read(&large).expect_err("it is large")), "is too large or too deep");
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (document, line, column, words) in [
            ("name: a\nsteps:\n  - name: one\n    rnu: uptime\n", 4, 5, "rnu"),
            ("name: a\nstep: []\n", 2, 1, "step"),
            ("name: A b\nsteps:\n  - {name: one, run: x}\n", 1, 7, "name"),
            ("name: a\nsteps:\n  - {name: one, run: x}\n  - name: one\n    run: y\n", 4, 11, "another step"),
            ("name: a\nsteps:\n  - {name: one, run: x, needs: [two]}\n", 3, 33, "no step of that name"),
            (
                "name: a\nsteps:\n  - {name: one, run: x, needs: [two]}\n  - {name: two, run: y}\n",
                3,
                32,
                "circle",
            ),
            ("name: a\nsteps:\n  - {name: one}\n", 3, 5, "one of run"),
            ("name: a\nsteps:\n  - {name: one, run: x, wait: 5s}\n", 3, 31, "one too many"),
            ("name: a\nsteps: []\n", 2, 8, "empty"),
            ("name: a\nsteps:\n  - {name: one, run: x, timeout: 0}\n", 3, 34, "timeout"),
            ("name: a\n  steps: [\n", 2, 8, ""),
            ("name: a\nname: b\nsteps: []\n", 2, 1, "the key 'name' stands twice"),
        ] {
            let bad = parse(document).expect_err(document);
            assert_eq!((bad.line, bad.column), (line, column), "{document}{bad}");
            assert!(bad.to_string().contains(words), "{bad}");
        }
    }
}
