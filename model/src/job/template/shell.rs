//! Where a shell's text is in no quotes, so that a quoted word may be put there.
//!
//! The scanner follows single and double quotes, escapes, comments and simple `${…}`, `$(…)` and `$((…))`. All else
//! that changes how a shell reads what follows (backticks, here-documents, `$'…'`, nested forms) it does not follow:
//! behind it no tag is allowed at all, and the message says what to write instead.

use super::tags::{Piece, Wrong};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Plain,
    Single,
    Double,
    Comment,
    /// Behind something that is not followed.
    Unknown(&'static str),
}

/// Checks that every tag stands in plain text.
pub(super) fn check(pieces: &[Piece<'_>]) -> Result<(), Wrong> {
    let mut place = Place::Plain;
    let mut behind_tag = false;
    let mut last = None;
    for piece in pieces {
        match *piece {
            Piece::Text { text, .. } => {
                place = scan(text, place, behind_tag, last);
                last = text.chars().last();
                behind_tag = false;
            }
            Piece::Value { at, inner } | Piece::Statement { at, inner } => {
                if inner.starts_with('-') || inner.ends_with('-') {
                    let problem =
                        "takes white space away with '-', which could join words or end a comment late";
                    return Err((at, problem.to_owned()));
                }
                allowed(at, place, last, behind_tag)?;
                behind_tag = true;
            }
            Piece::Comment { at } => {
                allowed(at, place, last, behind_tag)?;
                behind_tag = true;
            }
        }
    }
    Ok(())
}

fn allowed(at: usize, place: Place, last: Option<char>, behind_tag: bool) -> Result<(), Wrong> {
    let why = match place {
        Place::Plain => match last {
            Some('$' | '\\' | '<' | '(') if !behind_tag => {
                "stands right behind one of $ \\ < (; put a space between, or write ${OPSC_PARAM_NAME}"
                    .to_owned()
            }
            _ => return Ok(()),
        },
        Place::Single | Place::Double => {
            "stands inside quotes, and a value brings its own; end yours before it and \
                                          begin them again behind it, as in \"to \"{{ params.x }}\" now\""
                .to_owned()
        }
        Place::Comment => {
            "stands inside a comment of the shell, which a value with a line break would end; use \
                           {!-- a template's comment --!}"
                .to_owned()
        }
        Place::Unknown(what) => format!(
            "stands in or behind {what}, where it is not sure how the shell reads it; use the variable \
             \"$OPSC_PARAM_NAME\" there, or set a variable in a line at the top: x={{{{ params.x }}}}"
        ),
    };
    Err((at, format!("has a tag that {why}")))
}

/// The place behind `text` when it begins in `place`.
fn scan(text: &str, mut place: Place, behind_tag: bool, before: Option<char>) -> Place {
    let mut previous = if behind_tag { None } else { before };
    let mut word_starts = !behind_tag && before.is_none_or(separates);
    let mut first = behind_tag;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        // The shell takes a continued line's end out before it reads anything.
        if let (Place::Plain | Place::Double, Some(joined)) = (place, rest.strip_prefix("\\\n")) {
            rest = joined;
            continue;
        }
        match place {
            Place::Unknown(_) => return place,
            Place::Single if c == '\'' => place = Place::Plain,
            Place::Comment if c == '\n' => place = Place::Plain,
            Place::Single | Place::Comment => {}
            Place::Plain | Place::Double => match c {
                '\\' => {
                    length += rest[length..].chars().next().map_or(0, char::len_utf8);
                }
                '`' => return Place::Unknown("backticks (write $(…))"),
                '$' => match dollar(rest) {
                    Ok(taken) => length = taken,
                    Err(what) => return Place::Unknown(what),
                },
                '"' if place == Place::Double => place = Place::Plain,
                _ if place == Place::Double => {}
                '"' => place = Place::Double,
                '\'' => place = Place::Single,
                '#' | '<' | '(' if first => return Place::Unknown("a '#', '<' or '(' right behind a tag"),
                '#' if word_starts => place = Place::Comment,
                '<' if previous == Some('<') => return Place::Unknown("a here-document (<<)"),
                '(' if previous == Some('(') => return Place::Unknown("arithmetic ((…))"),
                _ => {}
            },
        }
        word_starts = place == Place::Plain && separates(c);
        previous = Some(c);
        first = false;
        rest = rest.get(length..).unwrap_or_default();
    }
    place
}

/// A `#` behind it begins a comment.
fn separates(c: char) -> bool {
    " \t\n;|&()<>".contains(c)
}

/// Bytes of what begins with `$`: a whole simple expansion, or the dollar alone.
fn dollar(rest: &str) -> Result<usize, &'static str> {
    let simple = |body: &str, close: &str, good: &str| {
        let end = body.find(close)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || good.contains(c);
        body[..end].chars().all(plain).then_some(end + close.len())
    };
    if let Some(body) = rest.strip_prefix("${") {
        let taken = simple(body, "}", "_#@*?!:%./-+=,^[]");
        return taken.map(|taken| 2 + taken).ok_or("a ${…} with more than a name and a plain pattern in it");
    }
    if let Some(body) = rest.strip_prefix("$((") {
        let taken = simple(body, "))", " _+-*/%=!?:,&|^~");
        return taken
            .map(|taken| 3 + taken)
            .ok_or("arithmetic $((…)) with more than names and numbers in it");
    }
    if let Some(body) = rest.strip_prefix("$(") {
        return match simple(body, ")", " _+-*/%=!?:,.@^~|;&\t") {
            Some(taken) => Ok(2 + taken),
            None => Err("a $(…) with quotes, brackets or variables in it"),
        };
    }
    if ["$'", "$[", "$\\\n"].iter().any(|start| rest.starts_with(start)) {
        return Err("$'…', $[…] or a line continued behind $");
    }
    // `$#`, `$$` and the like are whole: their second character begins nothing.
    Ok(1 + usize::from(rest[1..].starts_with(['#', '$', '?', '!', '-', '*', '@'])))
}
