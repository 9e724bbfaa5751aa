//! A selector as one SQL predicate over an agent's row.
//!
//! The row has the alias `a`, with `a.name text`, `a.labels jsonb` and `a.facts jsonb`, none of them null, and in the
//! last two nothing but strings. Invariants:
//!
//! 1. Every key, value, number and pattern is bound; the text holds nothing that a user wrote.
//! 2. The predicate is never null and never an error: an absent key and a value that is no number count as
//!    [`Selector::matches`] says.
//! 3. Equality and membership are containment (`@>`), which a GIN index over `labels` or `facts` answers.

use model::selector::{Check, Expr, Key, Order, Pattern, Selector};
use sqlx::{Postgres, QueryBuilder};

/// The values that an order looks at, as `model::selector::Decimal` reads them.
const PLAIN_NUMBER: &str = "'^-?[0-9]+([.][0-9]+)?$'";

/// Appends the predicate, one boolean expression in brackets where it needs them.
pub(crate) fn push_predicate(builder: &mut QueryBuilder<Postgres>, selector: &Selector) {
    push_expr(builder, selector.expr());
}

fn push_expr(builder: &mut QueryBuilder<Postgres>, expr: &Expr) {
    match expr {
        Expr::Or(terms) => push_joined(builder, terms, " or ", push_expr),
        Expr::And(terms) => push_joined(builder, terms, " and ", push_expr),
        Expr::Not(term) => {
            builder.push("(not ");
            push_expr(builder, term);
            builder.push(")");
        }
        Expr::Test(key, check) => push_test(builder, key, check),
    }
}

fn push_test(builder: &mut QueryBuilder<Postgres>, key: &Key, check: &Check) {
    match check {
        Check::Present => push_present(builder, key),
        Check::Equal(value) => push_equal(builder, key, value),
        Check::NotEqual(value) => push_negated(builder, |builder| push_equal(builder, key, value)),
        Check::Like(pattern) => push_like(builder, key, pattern),
        Check::NotLike(pattern) => push_negated(builder, |builder| push_like(builder, key, pattern)),
        Check::In(values) => push_in(builder, key, values),
        Check::NotIn(values) => push_negated(builder, |builder| push_in(builder, key, values)),
        Check::Number(order, bound) => push_number(builder, key, *order, &bound.to_string()),
    }
}

fn push_present(builder: &mut QueryBuilder<Postgres>, key: &Key) {
    match key {
        Key::Name => builder.push("true"),
        Key::Fact(fact) => builder.push("(a.facts ? ").push_bind((*fact).to_owned()).push(")"),
        Key::Label(label) => builder.push("(a.labels ? ").push_bind(label.clone()).push(")"),
    };
}

fn push_equal(builder: &mut QueryBuilder<Postgres>, key: &Key, value: &str) {
    let (column, key) = match key {
        Key::Name => {
            builder.push("(a.name = ").push_bind(value.to_owned()).push(")");
            return;
        }
        Key::Fact(fact) => ("a.facts", *fact),
        Key::Label(label) => ("a.labels", label.as_str()),
    };
    let pair = serde_json::Map::from_iter([(key.to_owned(), value.into())]);
    builder.push(format_args!("({column} @> ")).push_bind(serde_json::Value::Object(pair)).push(")");
}

fn push_in(builder: &mut QueryBuilder<Postgres>, key: &Key, values: &[String]) {
    match key {
        Key::Name => {
            builder.push("(a.name = any(").push_bind(values.to_vec()).push("))");
        }
        // A GIN index answers `or` of containments, but not `@> any(…)`.
        Key::Fact(_) | Key::Label(_) => {
            push_joined(builder, values, " or ", |builder, value| push_equal(builder, key, value));
        }
    }
}

fn push_like(builder: &mut QueryBuilder<Postgres>, key: &Key, pattern: &Pattern) {
    builder.push("coalesce(");
    push_value(builder, key);
    builder.push(" ~ ").push_bind(pattern.anchored().to_owned()).push(", false)");
}

fn push_number(builder: &mut QueryBuilder<Postgres>, key: &Key, order: Order, bound: &str) {
    // `case` is what keeps Postgres from casting a value before it is known to be a number.
    builder.push("(case when ");
    push_value(builder, key);
    builder.push(format_args!(" ~ {PLAIN_NUMBER} then "));
    push_value(builder, key);
    builder.push(format_args!("::numeric {} ", order.symbol())).push_bind(bound.to_owned());
    builder.push("::numeric else false end)");
}

/// The value as text, null where the key is absent.
fn push_value(builder: &mut QueryBuilder<Postgres>, key: &Key) {
    match key {
        Key::Name => builder.push("a.name"),
        Key::Fact(fact) => builder.push("(a.facts ->> ").push_bind((*fact).to_owned()).push(")"),
        Key::Label(label) => builder.push("(a.labels ->> ").push_bind(label.clone()).push(")"),
    };
}

fn push_negated(builder: &mut QueryBuilder<Postgres>, push: impl FnOnce(&mut QueryBuilder<Postgres>)) {
    builder.push("(not ");
    push(builder);
    builder.push(")");
}

fn push_joined<T>(
    builder: &mut QueryBuilder<Postgres>,
    items: &[T],
    separator: &str,
    push: impl Fn(&mut QueryBuilder<Postgres>, &T),
) {
    builder.push("(");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            builder.push(separator);
        }
        push(builder, item);
    }
    builder.push(")");
}

#[cfg(test)]
mod tests {
    use sqlx::{Arguments, Execute};

    use super::*;

    /// The SQL text of a selector, and how many values are bound.
    fn compiled(text: &str) -> (String, usize) {
        let selector = Selector::parse(text).expect("the selector is good");
        let mut builder = QueryBuilder::new("");
        push_predicate(&mut builder, &selector);
        let bound =
            builder.build().take_arguments().expect("the values encode").map_or(0, |values| values.len());
        (builder.into_string(), bound)
    }

    #[test]
    fn every_operator_has_its_sql() {
        let table = [
            ("env", "(a.labels ? $1)", 1),
            ("os", "(a.facts ? $1)", 1),
            ("name", "true", 0),
            ("env=prod", "(a.labels @> $1)", 1),
            ("os=linux", "(a.facts @> $1)", 1),
            ("name=web", "(a.name = $1)", 1),
            ("env!=prod", "(not (a.labels @> $1))", 1),
            ("name!=web", "(not (a.name = $1))", 1),
            ("env in (dev)", "((a.labels @> $1))", 1),
            ("os in (linux, macos)", "((a.facts @> $1) or (a.facts @> $2))", 2),
            ("name in (a, b)", "(a.name = any($1))", 1),
            ("env not in (a, b)", "(not ((a.labels @> $1) or (a.labels @> $2)))", 2),
            ("env~'p.*'", "coalesce((a.labels ->> $1) ~ $2, false)", 2),
            ("os!~linux", "(not coalesce((a.facts ->> $1) ~ $2, false))", 2),
            ("name~'db.*'", "coalesce(a.name ~ $1, false)", 1),
            (
                "cpus>=4",
                "(case when (a.facts ->> $1) ~ '^-?[0-9]+([.][0-9]+)?$' then (a.facts ->> $2)::numeric >= $3::numeric \
                 else false end)",
                3,
            ),
            (
                "name<4",
                "(case when a.name ~ '^-?[0-9]+([.][0-9]+)?$' then a.name::numeric < $1::numeric else false end)",
                1,
            ),
            ("a and not (b or name)", "((a.labels ? $1) and (not ((a.labels ? $2) or true)))", 2),
        ];
        for (text, sql, bound) in table {
            assert_eq!(compiled(text), (sql.to_owned(), bound), "{text}");
        }
    }

    #[test]
    fn nothing_that_a_user_wrote_is_in_the_text() {
        let (sql, bound) = compiled(
            r#"x1-- = "x1'; drop" or x1/y in ("x1'", x1) or x1 or x1~"x1'" or not x1!~x1 or name!="x1'" or x1>11111"#,
        );
        assert!(!sql.contains("x1") && !sql.contains("drop") && !sql.contains("11111"), "{sql}");
        assert_eq!(bound, 1 + 2 + 1 + 2 + 2 + 1 + 3);
    }
}
