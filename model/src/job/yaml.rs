//! Reads a job's document, YAML or JSON, and says at which line and column it is wrong.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{Location, Spanned};

use super::Job;
use crate::{Invalid, limits};

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
    if text.len() > limits::DOCUMENT_BYTES {
        let problem =
            format!("the document is over the limit DOCUMENT_BYTES of {} bytes", limits::DOCUMENT_BYTES);
        return Err(BadDocument { field: String::new(), problem, line: 0, column: 0 });
    }
    let job: Job = serde_saphyr::from_str(text).map_err(|error| unreadable(&error))?;
    job.validate().map_err(|invalid| located(text, invalid))?;
    Ok(job)
}

fn unreadable(error: &serde_saphyr::Error) -> BadDocument {
    let (line, column) = error.location().map_or((0, 0), |location| at(&location));
    let text = error.without_snippet().to_string();
    // The place is told apart.
    let problem = text.split(" at line ").next().unwrap_or_default().trim_end_matches([':', ' ']).to_owned();
    BadDocument { field: String::new(), problem, line, column }
}

fn at(location: &Location) -> (usize, usize) {
    (usize::try_from(location.line()).unwrap_or(0), usize::try_from(location.column()).unwrap_or(0))
}

/// What is wrong with a field, at its place in the document or at that of what is nearest above it.
pub fn located(text: &str, invalid: Invalid) -> BadDocument {
    let problem = invalid.to_string();
    let (line, column) = match serde_saphyr::from_str::<Spanned<Node>>(text) {
        Ok(root) => nearest(&root, &invalid.field),
        Err(_) => (0, 0),
    };
    BadDocument { field: invalid.field, problem, line, column }
}

fn nearest(root: &Spanned<Node>, path: &str) -> (usize, usize) {
    let (mut here, mut rest) = (root, path);
    loop {
        let next = match &here.value {
            Node::Map(entries) => entries.iter().find_map(|(key, value)| {
                let behind = rest.strip_prefix(key.as_str())?;
                let is_whole = behind.is_empty() || behind.starts_with(['.', '[']);
                is_whole.then(|| (value, behind.strip_prefix('.').unwrap_or(behind)))
            }),
            Node::List(items) => rest.strip_prefix('[').and_then(|inner| {
                let (index, behind) = inner.split_once(']')?;
                let value = items.get(index.parse::<usize>().ok()?)?;
                Some((value, behind.strip_prefix('.').unwrap_or(behind)))
            }),
            Node::Leaf => None,
        };
        match next {
            Some((value, behind)) => (here, rest) = (value, behind),
            None => return at(&here.referenced),
        }
    }
}

/// Any document, for the places of its parts.
enum Node {
    Map(Vec<(String, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Leaf,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
        }

        deserializer.deserialize_any(Visitor)
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
        ] {
            let bad = parse(document).expect_err(document);
            assert_eq!((bad.line, bad.column), (line, column), "{document}{bad}");
            assert!(bad.to_string().contains(words), "{bad}");
        }
    }
}
