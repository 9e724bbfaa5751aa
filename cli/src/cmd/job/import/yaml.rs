//! YAML with the lines of its parts, and each scalar as it is written: `1.10` is not 1.1 where a text is wanted.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{Location, Spanned};

use super::BadSource;

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
    /// Any scalar that is not null.
    Text(String),
    Null,
}

impl Node {
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; of anything else but null the one that it is.
    pub(super) fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            Kind::Null => &[],
            _ => std::slice::from_ref(self),
        }
    }

    pub(super) fn entries(&self) -> &[(String, Self)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find_map(|(name, node)| (name == key).then_some(node))
    }

    /// Nothing is said: null, or an empty text, list or map.
    pub(super) fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Null => true,
            Kind::Text(text) => text.trim().is_empty(),
            Kind::List(items) => items.is_empty(),
            Kind::Map(entries) => entries.is_empty(),
        }
    }

    /// On one line, for people.
    pub(super) fn shown(&self) -> String {
        match &self.kind {
            Kind::Null => String::new(),
            Kind::Text(text) => text.clone(),
            Kind::List(items) => items.iter().map(Self::shown).collect::<Vec<_>>().join(", "),
            Kind::Map(entries) => {
                let each = entries.iter().map(|(key, node)| match node.shown() {
                    text if text.is_empty() => key.clone(),
                    text => format!("{key}: {text}"),
                });
                each.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// # Errors
/// When the text is no YAML.
pub(super) fn read(text: &str) -> Result<Node, BadSource> {
    match serde_saphyr::from_str::<Spanned<Raw>>(text) {
        Ok(raw) => Ok(node(text, raw)),
        Err(error) => {
            let line = error.location().map_or(1, |location| line(&location));
            let why = error.without_snippet().to_string();
            // The place is told apart.
            let why = why.split(" at line ").next().unwrap_or_default().trim_end_matches([':', ' ']);
            Err(BadSource::new(line, format!("this is no YAML: {why}")))
        }
    }
}

fn line(location: &Location) -> usize {
    usize::try_from(location.line()).unwrap_or(0).max(1)
}

fn node(source: &str, raw: Spanned<Raw>) -> Node {
    let kind = match raw.value {
        Raw::Map(entries) => {
            Kind::Map(entries.into_iter().map(|(key, value)| (key, node(source, value))).collect())
        }
        Raw::List(items) => Kind::List(items.into_iter().map(|item| node(source, item)).collect()),
        Raw::Text(text) => Kind::Text(text),
        Raw::Value(text) => Kind::Text(written(source, &raw.defined).unwrap_or(text)),
        Raw::Null => Kind::Null,
    };
    Node { line: line(&raw.referenced), kind }
}

/// What stands in the source for a number, true or false.
fn written(source: &str, location: &Location) -> Option<String> {
    let span = location.span();
    let from = usize::try_from(span.byte_offset()?).ok()?;
    let to = from.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    let text = source.get(from..to)?.trim();
    // A tag or an anchor may stand before it.
    let is_plain =
        !text.is_empty() && !text.contains(char::is_whitespace) && !text.starts_with(['!', '&', '*']);
    is_plain.then(|| text.to_owned())
}

enum Raw {
    Map(Vec<(String, Spanned<Raw>)>),
    List(Vec<Spanned<Raw>>),
    Text(String),
    /// A number, true or false.
    Value(String),
    Null,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Map(entries))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Value(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Value(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Value(value.to_string()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
                Ok(Raw::Value(value.to_string()))
            }

            fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
                Ok(Raw::Value(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Value(value.to_string()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
                Ok(Raw::Text(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_as_they_are_written() {
        let text = "a: 1.10\nb: [yes, 0x10, '007', 1_000]\nc: &x 1.50\nd: *x\ne: ~\nf: !!str 2.0\ng: größe\nh: 3.0\n";
        let node = read(text).unwrap();
        let shown = |key: &str| node.get(key).unwrap().shown();
        assert_eq!(shown("a"), "1.10");
        assert_eq!(shown("b"), "yes, 0x10, 007, 1_000");
        assert_eq!(shown("f"), "2.0");
        assert_eq!(shown("h"), "3.0", "behind letters of two bytes");
        assert_eq!((shown("d"), node.get("d").unwrap().line), (shown("c"), 4));
        assert!(node.get("e").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_yaml_has_a_line() {
        for (text, line) in [("a: 1\n b: 2\n", 2), ("- a\n- [b\n", 3), ("a: 'x\n", 2), ("a: *nothing\n", 1)] {
            let bad = read(text).unwrap_err();
            assert!(bad.line <= line && bad.why.starts_with("this is no YAML: "), "{text}: {bad:?}");
        }
        // Neither depth nor doubling takes all there is.
        assert!(read(&"[".repeat(100_000)).is_err());
        let doubled: String = (1..40).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1)).collect();
        assert!(read(&format!("a0: &a0 x\n{doubled}")).is_err());
    }
}
