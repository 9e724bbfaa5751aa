//! The tree of a selector, and its canonical text.

use std::{cmp::Ordering, fmt};

use super::{
    decimal::Decimal,
    lexer::{is_keyword, is_word_char},
    pattern::Pattern,
};

/// A predicate. The parser makes `Or` and `And` with at least two terms, none of which is of the same kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Or(Vec<Expr>),
    And(Vec<Expr>),
    Not(Box<Expr>),
    Test(Key, Check),
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The agent's name.
    Name,
    /// One of `label::FACT_NAMES`.
    Fact(&'static str),
    /// Any other valid label key.
    Label(String),
}

/// What must be so.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// The key is there.
    Present,
    Equal(String),
    NotEqual(String),
    Like(Pattern),
    NotLike(Pattern),
    /// At least one value.
    In(Vec<String>),
    /// At least one value.
    NotIn(Vec<String>),
    /// The value is a number that stands so to this one.
    Number(Order, Decimal),
}

/// How two numbers stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    /// The operator, which is the same here and in SQL.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    pub(super) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Or(terms) => write_joined(f, terms, " or ", fmt::Display::fmt),
            Self::And(terms) => write_joined(f, terms, " and ", |term, f| match term {
                Self::Or(_) => write!(f, "({term})"),
                _ => term.fmt(f),
            }),
            Self::Not(term) => match **term {
                Self::Or(_) | Self::And(_) => write!(f, "not ({term})"),
                Self::Not(_) | Self::Test(..) => write!(f, "not {term}"),
            },
            Self::Test(key, check) => write!(f, "{key}{check}"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Fact(name) => name,
            Self::Label(key) => key,
        })
    }
}

/// The text that follows the key.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, values: &[String]| {
            f.write_str("(")?;
            write_joined(f, values, ", ", |value, f| write_value(f, value))?;
            f.write_str(")")
        };
        match self {
            Self::Present => Ok(()),
            Self::Equal(value) => {
                f.write_str("=")?;
                write_value(f, value)
            }
            Self::NotEqual(value) => {
                f.write_str("!=")?;
                write_value(f, value)
            }
            Self::Like(pattern) => {
                f.write_str("~")?;
                write_quoted(f, pattern.source())
            }
            Self::NotLike(pattern) => {
                f.write_str("!~")?;
                write_quoted(f, pattern.source())
            }
            Self::In(values) => {
                f.write_str(" in ")?;
                list(f, values)
            }
            Self::NotIn(values) => {
                f.write_str(" not in ")?;
                list(f, values)
            }
            Self::Number(order, number) => write!(f, "{}{number}", order.symbol()),
        }
    }
}

fn write_joined<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    separator: &str,
    write: impl Fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        write(item, f)?;
    }
    Ok(())
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    if !value.is_empty() && value.chars().all(is_word_char) && !is_keyword(value) {
        f.write_str(value)
    } else {
        write_quoted(f, value)
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    write!(f, "\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}
