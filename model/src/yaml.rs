//! YAML as a tree, with the place of each part, and each scalar as it is written: `0644` is not 644 where a text is wanted.

use std::{fmt, ops::Range};

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{Location, Spanned};

/// A part of a document, with its place.
pub(crate) type Part = Spanned<Node>;

#[derive(Debug)]
pub(crate) enum Node {
    Map(Vec<(Spanned<String>, Part)>),
    List(Vec<Part>),
    Text(String),
    /// A number, true or false, in a form of ours: what stands in the source is at its [`span`].
    Value(String),
    Null,
}

/// # Errors
/// When the text is no YAML, or has more depth, parts or aliases than is good.
pub(crate) fn read(text: &str) -> Result<Part, serde_saphyr::Error> {
    serde_saphyr::from_str(text)
}

/// Line and column, from 1; 0 where they are not known.
pub(crate) fn at(location: &Location) -> (usize, usize) {
    (usize::try_from(location.line()).unwrap_or(0), usize::try_from(location.column()).unwrap_or(0))
}

/// The bytes of the source that a part is made of.
pub(crate) fn span(location: &Location) -> Option<Range<usize>> {
    let span = location.span();
    let from = usize::try_from(span.byte_offset()?).ok()?;
    Some(from..from.checked_add(usize::try_from(span.byte_len()?).ok()?)?)
}

impl Node {
    pub(crate) fn entries(&self) -> &[(Spanned<String>, Part)] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Part> {
        self.entries().iter().find_map(|(name, part)| (name.value == key).then_some(part))
    }
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

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Value(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Value(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Value(value.to_string()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
                Ok(Node::Value(value.to_string()))
            }

            fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
                Ok(Node::Value(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Value(value.to_string()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
