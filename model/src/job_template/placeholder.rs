//! `${{ name }}` in a text: the place of a parameter's value. `$${{` stands for the characters themselves.

use crate::limits;

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    /// The name of a parameter whose value stands here.
    Name(&'a str),
}

/// Whether there is anything in the text but text.
pub(super) fn is_in(text: &str) -> bool {
    text.contains(OPEN)
}

/// The text with its own characters kept from being placeholders.
pub(super) fn escaped(text: &str) -> String {
    text.replace(OPEN, "$${{")
}

/// The pieces of a text, in their order.
///
/// # Errors
/// What is wrong with a placeholder, as the rest of a sentence.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        let (before, behind) = (&rest[..at], &rest[at + OPEN.len()..]);
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([Piece::Text(before), Piece::Text(OPEN)]);
            rest = behind;
            continue;
        }
        let Some((inner, behind)) = behind.split_once(CLOSE) else {
            return Err(
                "has '${{' and no '}}' behind it; '$${{' stands for the characters themselves".to_owned()
            );
        };
        let name = inner.trim();
        if !is_name(name) {
            let shown: String =
                name.chars().filter(|c| !c.is_control()).take(limits::PARAMETER_NAME_CHARS).collect();
            return Err(format!(
                "has '{shown}' between '${{{{' and '}}}}', where only the name of a parameter stands; '$${{{{' stands for the \
                 characters themselves"
            ));
        }
        pieces.extend([Piece::Text(before), Piece::Name(name)]);
        rest = behind;
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| *piece != Piece::Text(""));
    Ok(pieces)
}

fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::{Piece::*, *};

    #[test]
    fn a_text_is_taken_apart() {
        for (text, wanted) in [
            ("", vec![]),
            ("a {{ b }} ${c} $((1))", vec![Text("a {{ b }} ${c} $((1))")]),
            ("${{ a }}", vec![Name("a")]),
            ("${{a}}${{\tb_1 }}", vec![Name("a"), Name("b_1")]),
            ("x ${{ a }} y", vec![Text("x "), Name("a"), Text(" y")]),
            ("$${{ a }}", vec![Text("${{"), Text(" a }}")]),
            ("$$${{ a }}", vec![Text("$"), Text("${{"), Text(" a }}")]),
            ("${{ a }}}}", vec![Name("a"), Text("}}")]),
        ] {
            assert_eq!(pieces(text), Ok(wanted), "{text}");
        }
        for text in ["${{", "${{ }}", "${{ A }}", "${{ a.b }}", "${{ a + 1 }}", "${{ a }", "${{ ${{ a }} }}"]
        {
            assert!(pieces(text).is_err(), "{text}");
        }
        assert_eq!(pieces(&escaped("${{ a }} ${{")).map(|pieces| pieces.len()), Ok(3));
    }
}
