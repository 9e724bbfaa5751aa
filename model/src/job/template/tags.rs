//! Splits a template into its text and its tags as the engine does, and refuses what we do not have.

use crate::{Invalid, limits};

/// What opens and closes a comment: `{#` of the engine's own is a part of the shell's `${#name}`.
pub(super) const COMMENT: (&str, &str) = ("{!--", "--!}");

/// What is wrong, and the byte where.
pub(super) type Wrong = (usize, String);

/// One piece of a template; `at` is the byte where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Goes out as it is.
    Text {
        at: usize,
        text: &'t str,
    },
    /// `{{ inner }}`
    Value {
        at: usize,
        inner: &'t str,
    },
    /// `{% inner %}`
    Statement {
        at: usize,
        inner: &'t str,
    },
    Comment {
        at: usize,
    },
}

/// The pieces in their order.
pub(super) fn split(text: &str) -> Result<Vec<Piece<'_>>, Wrong> {
    let mut pieces = Vec::new();
    let mut from = 0;
    while let Some(open) = next_open(text, from) {
        if open > from {
            pieces.push(Piece::Text { at: from, text: &text[from..open] });
        }
        let rest = &text[open..];
        if pieces.len() > 2 * limits::TEMPLATE_TAGS {
            return Err((open, format!("is over the limit TEMPLATE_TAGS of {} tags", limits::TEMPLATE_TAGS)));
        }
        if let Some(body) = rest.strip_prefix(COMMENT.0) {
            let Some(end) = body.find(COMMENT.1) else {
                return Err((open, format!("has a comment without its {}", COMMENT.1)));
            };
            pieces.push(Piece::Comment { at: open });
            from = open + COMMENT.0.len() + end + COMMENT.1.len();
            continue;
        }
        let close = if rest.starts_with("{{") { "}}" } else { "%}" };
        let inner = inside(rest, close).map_err(|(at, problem)| (open + at, problem))?;
        from = open + 2 + inner.len() + 2;
        if close == "}}" {
            pieces.push(Piece::Value { at: open, inner });
        } else if trimmed(inner) == "raw" {
            let (end, after) = end_of_raw(text, from).ok_or_else(|| {
                (open, "has a {% raw %} without its {% endraw %}, which stands without trim marks".to_owned())
            })?;
            pieces.push(Piece::Statement { at: open, inner });
            pieces.push(Piece::Text { at: from, text: &text[from..end] });
            pieces.push(Piece::Statement { at: end, inner: "endraw" });
            from = after;
        } else {
            pieces.push(Piece::Statement { at: open, inner });
        }
    }
    if from < text.len() {
        pieces.push(Piece::Text { at: from, text: &text[from..] });
    }
    Ok(pieces)
}

fn next_open(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    rest.match_indices('{')
        .map(|(at, _)| at)
        .find(|at| {
            let here = &rest[*at..];
            here.starts_with("{{") || here.starts_with("{%") || here.starts_with(COMMENT.0)
        })
        .map(|at| from + at)
}

/// What stands between the two characters that open a tag and `close`, which does not count inside of quotes.
fn inside<'t>(tag: &'t str, close: &str) -> Result<&'t str, Wrong> {
    let body = tag.get(2..).unwrap_or_default();
    let mut quote: Option<char> = None;
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        if at > limits::EXPRESSION_BYTES {
            let limit = limits::EXPRESSION_BYTES;
            return Err((0, format!("has a tag over the limit EXPRESSION_BYTES of {limit} bytes")));
        }
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if body[at..].starts_with(close) => return Ok(&body[..at]),
            (None, '{' | '}') => {
                let problem = "has a brace in a tag; text that only looks like a tag stands between {% raw %} and \
                               {% endraw %}";
                return Err((at + 2, problem.to_owned()));
            }
            (None, '*') => {
                return Err((at + 2, "uses '*', which templates and conditions do not have".to_owned()));
            }
            (None, _) => {}
        }
    }
    let problem = format!(
        "has a tag without its {close}; text that only looks like a tag stands between {{% raw %}} and {{% endraw %}}"
    );
    Err((0, problem))
}

/// Where `{% endraw %}` begins, and where it ends.
fn end_of_raw(text: &str, from: usize) -> Option<(usize, usize)> {
    let rest = text.get(from..)?;
    rest.match_indices("{%").find_map(|(at, _)| {
        let body = &rest[at + 2..];
        let after = body.trim_start_matches(['-', '+']).trim_start().strip_prefix("endraw")?;
        let after = after.trim_start().trim_start_matches(['-', '+']).strip_prefix("%}")?;
        Some((from + at, text.len() - after.len()))
    })
}

/// Without the marks that take white space away, and without white space.
fn trimmed(inner: &str) -> &str {
    inner
        .strip_prefix(['-', '+'])
        .unwrap_or(inner)
        .trim()
        .strip_suffix(['-', '+'])
        .map_or(inner.strip_prefix(['-', '+']).unwrap_or(inner).trim(), str::trim)
}

/// Checks the statements: only `if`, `for` and `raw`, within their limits.
pub(super) fn check(pieces: &[Piece<'_>]) -> Result<(), Wrong> {
    let (mut depth, mut branches, mut tags) = (0_usize, 0_usize, 0_usize);
    for piece in pieces {
        let (Piece::Statement { at, .. } | Piece::Value { at, .. } | Piece::Comment { at }) = *piece else {
            continue;
        };
        tags += 1;
        if tags > limits::TEMPLATE_TAGS {
            return Err((at, format!("is over the limit TEMPLATE_TAGS of {} tags", limits::TEMPLATE_TAGS)));
        }
        let Piece::Statement { inner, .. } = *piece else { continue };
        let words: Vec<&str> = trimmed(inner).split_whitespace().collect();
        let first = words.first().copied().unwrap_or_default();
        // `if(x)` is an `if` too.
        let word: &str =
            first.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        match word {
            "if" | "for" => depth += 1,
            "elif" => branches += 1,
            "endif" | "endfor" => depth = depth.saturating_sub(1),
            "else" | "raw" | "endraw" => {}
            _ => {
                let problem = format!(
                    "has the statement '{word}'; there are if, for and raw, and text that only looks like a \
                     statement stands between {{% raw %}} and {{% endraw %}}"
                );
                return Err((at, problem));
            }
        }
        if word == "for" && words.last() == Some(&"recursive") {
            return Err((at, "has a recursive loop".to_owned()));
        }
        if depth > limits::TEMPLATE_DEPTH {
            let problem = format!("is over the limit TEMPLATE_DEPTH of {} blocks", limits::TEMPLATE_DEPTH);
            return Err((at, problem));
        }
        if branches > limits::TEMPLATE_BRANCHES {
            let limit = limits::TEMPLATE_BRANCHES;
            return Err((at, format!("is over the limit TEMPLATE_BRANCHES of {limit} elif")));
        }
    }
    Ok(())
}

/// Checks the form of a condition, which is the inside of a tag.
pub(in crate::job) fn check_expression(field: &str, text: &str) -> Result<(), Invalid> {
    // The line break ends the text before the closing braces, as nothing inside of it can.
    let tag = format!("{{{{{text}\n}}}}");
    match inside(&tag, "}}") {
        Ok(inner) if inner.len() == text.len() + 1 => Ok(()),
        Ok(_) => Err(Invalid::new(field, "has '}}' in it")),
        Err((_, problem)) => Err(Invalid::new(field, problem.replace("a tag", "an expression"))),
    }
}

/// The byte of a tag's first mention of `path`.
pub(super) fn find(text: &str, path: &str) -> Option<usize> {
    let pieces = split(text).ok()?;
    pieces.iter().find_map(|piece| match piece {
        Piece::Value { at, inner } | Piece::Statement { at, inner } => Some(at + 2 + inner.find(path)?),
        _ => None,
    })
}
