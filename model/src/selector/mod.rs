//! The selector language: a predicate over an agent's name, labels and facts.
//!
//! ```text
//! selector = and { "or" and }          and  = not { "and" not }          not = { "not" } atom
//! atom     = "(" selector ")" | key | key test
//! test     = ("=" | "!=" | "~" | "!~") value | ("<" | "<=" | ">" | ">=") number
//!          | ["not"] "in" "(" value { "," value } ")"
//! ```
//!
//! A key is `name`, the name of a fact, or else a label. A value is a bare word (letters, digits and any of
//! `_ . : / @ + -`) or stands in double or single quotes, where a backslash makes a quote or a backslash literal and
//! is itself kept before anything else, so that patterns need no doubling. Keywords are case-insensitive; as values
//! they must be quoted.
//!
//! Invariants:
//!
//! 1. The logic has two values. Of a key that is absent `=`, `in`, `~`, the orders and the bare key are false, and
//!    `!=`, `not in`, `!~` are true: each is exactly the `not` of its positive form.
//! 2. An order holds only for a value that is a plain decimal number, and compares it exactly.
//! 3. A pattern must match the whole value, and means the same here and in Postgres (see [`Pattern`]).
//! 4. Neither the parser nor the printer recurses deeper than `SELECTOR_DEPTH`, whatever the text.
//!
//! The controller compiles the tree to SQL; [`Selector::matches`] is what that SQL must agree with.

mod ast;
mod decimal;
mod lexer;
mod parser;
mod pattern;
#[cfg(test)]
mod tests;

use std::fmt;

pub use ast::{Check, Expr, Key, Order};
pub use decimal::Decimal;
pub use pattern::Pattern;

use crate::label::{Facts, Labels};

/// A parsed selector. Its `Display` is the canonical text, which parses to the same tree as long as the spaces and
/// escapes that it adds do not take it over `SELECTOR_BYTES`.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    expr: Expr,
}

/// A text that is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {message}")]
pub struct SelectorError {
    /// Where, in characters from 1; one behind the last when something is missing at the end.
    pub position: usize,
    /// What was found there, and what is expected.
    pub message: String,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// The first place where the text leaves the language or exceeds one of the limits `SELECTOR_BYTES`,
    /// `SELECTOR_DEPTH`, `SELECTOR_PATTERNS`, `PATTERN_BYTES`, `PATTERN_LENGTH`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parser::parse(text).map(|expr| Self { expr })
    }

    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// Holds where one of them does; nowhere when there are none.
    pub fn any_of(selectors: impl IntoIterator<Item = Self>) -> Self {
        let mut terms: Vec<Expr> = Vec::new();
        for selector in selectors {
            match selector.expr {
                Expr::Or(inner) => terms.extend(inner),
                expr => terms.push(expr),
            }
        }
        match terms.len() {
            // The name is always there.
            0 => Self { expr: Expr::Not(Box::new(Expr::Test(Key::Name, Check::Present))) },
            1 => Self { expr: terms.remove(0) },
            _ => Self { expr: Expr::Or(terms) },
        }
    }

    /// Holds where both do.
    pub fn both(self, other: Self) -> Self {
        let mut terms = Vec::new();
        for expr in [self.expr, other.expr] {
            match expr {
                Expr::And(inner) => terms.extend(inner),
                expr => terms.push(expr),
            }
        }
        Self { expr: Expr::And(terms) }
    }

    /// Whether the predicate holds for an agent.
    pub fn matches(&self, name: &str, labels: &Labels, facts: &Facts) -> bool {
        holds(&self.expr, &|key| match key {
            Key::Name => Some(name),
            Key::Fact(fact) => facts.get(*fact).map(String::as_str),
            Key::Label(label) => labels.get(label).map(String::as_str),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)
    }
}

fn holds<'v>(expr: &Expr, value_of: &impl Fn(&Key) -> Option<&'v str>) -> bool {
    match expr {
        Expr::Or(terms) => terms.iter().any(|term| holds(term, value_of)),
        Expr::And(terms) => terms.iter().all(|term| holds(term, value_of)),
        Expr::Not(term) => !holds(term, value_of),
        Expr::Test(key, check) => passes(check, value_of(key)),
    }
}

fn passes(check: &Check, value: Option<&str>) -> bool {
    let is = |wanted: &String| value == Some(wanted.as_str());
    let like = |pattern: &Pattern| value.is_some_and(|value| pattern.matches(value));
    match check {
        Check::Present => value.is_some(),
        Check::Equal(wanted) => is(wanted),
        Check::NotEqual(wanted) => !is(wanted),
        Check::Like(pattern) => like(pattern),
        Check::NotLike(pattern) => !like(pattern),
        Check::In(wanted) => wanted.iter().any(is),
        Check::NotIn(wanted) => !wanted.iter().any(is),
        Check::Number(order, bound) => {
            value.and_then(Decimal::parse).is_some_and(|number| order.holds(number.cmp(bound)))
        }
    }
}
