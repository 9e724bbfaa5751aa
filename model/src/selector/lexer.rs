//! The text of a selector cut into tokens, one at a time, each with its position.

use std::{fmt, iter::Peekable, str::CharIndices};

use super::SelectorError;
use crate::limits;

const KEYWORDS: [&str; 4] = ["and", "or", "not", "in"];

/// Characters of a token that an error message repeats.
const SHOWN_CHARS: usize = 40;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    And,
    Or,
    Not,
    In,
    Word(String),
    Quoted(Quoted),
    /// `= != ~ !~ < <= > >= ( ) ,`
    Symbol(&'static str),
    /// A character with which no token begins.
    Stray(char),
    End,
}

/// A quoted text without its quotes and escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quoted {
    pub(super) value: String,
    /// Where in the selector each of its characters stands, and behind them the closing quote.
    pub(super) positions: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    chars: Peekable<CharIndices<'t>>,
    /// Of the next character, from 1.
    position: usize,
}

pub(super) fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.:/@+-".contains(c)
}

pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, chars: text.char_indices().peekable(), position: 1 }
    }

    /// The next token and its position; `End` again and again behind the last one.
    ///
    /// # Errors
    /// A quoted text without its end or with a control character, and a token that does not lie wholly within
    /// `SELECTOR_BYTES`.
    pub(super) fn next(&mut self) -> Result<(usize, Token), SelectorError> {
        while self.take_if(char::is_whitespace).is_some() {}
        let start = self.position;
        let token = self.token()?;
        if self.offset() > limits::SELECTOR_BYTES {
            let message = format!(
                "the selector is over the limit SELECTOR_BYTES of {} bytes: it has {}",
                limits::SELECTOR_BYTES,
                self.text.len()
            );
            return Err(SelectorError { position: start, message });
        }
        Ok((start, token))
    }

    fn token(&mut self) -> Result<Token, SelectorError> {
        let start = self.offset();
        let Some(c) = self.take_if(|_| true) else { return Ok(Token::End) };
        Ok(match c {
            '=' => Token::Symbol("="),
            '~' => Token::Symbol("~"),
            '(' => Token::Symbol("("),
            ')' => Token::Symbol(")"),
            ',' => Token::Symbol(","),
            '!' if self.take('=') => Token::Symbol("!="),
            '!' if self.take('~') => Token::Symbol("!~"),
            '<' if self.take('=') => Token::Symbol("<="),
            '<' => Token::Symbol("<"),
            '>' if self.take('=') => Token::Symbol(">="),
            '>' => Token::Symbol(">"),
            '"' | '\'' => Token::Quoted(self.quoted(c)?),
            c if is_word_char(c) => {
                while self.take_if(is_word_char).is_some() {}
                word(&self.text[start..self.offset()])
            }
            c => Token::Stray(c),
        })
    }

    /// The rest of a text whose opening quote has been taken.
    fn quoted(&mut self, quote: char) -> Result<Quoted, SelectorError> {
        let opening = self.position - 1;
        let mut quoted = Quoted { value: String::new(), positions: Vec::new() };
        loop {
            let position = self.position;
            let Some(mut c) = self.take_if(|_| true) else {
                let message = format!("the text that begins here has no closing {quote}");
                return Err(SelectorError { position: opening, message });
            };
            if c.is_control() {
                let message =
                    format!("found the control character {}, which no value has", c.escape_unicode());
                return Err(SelectorError { position, message });
            }
            quoted.positions.push(position);
            if c == quote {
                return Ok(quoted);
            }
            if c == '\\' {
                c = self.take_if(|next| matches!(next, '\\' | '"' | '\'')).unwrap_or(c);
            }
            quoted.value.push(c);
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        self.take_if(|c| c == wanted).is_some()
    }

    fn take_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let (_, c) = self.chars.next_if(|(_, c)| wanted(*c))?;
        self.position += 1;
        Some(c)
    }

    /// Bytes before the next character.
    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(offset, _)| *offset)
    }
}

fn word(text: &str) -> Token {
    match text.to_ascii_lowercase().as_str() {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        "in" => Token::In,
        _ => Token::Word(text.to_owned()),
    }
}

/// As error messages name what they found.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn shown(text: &str) -> String {
            let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            shown
        }
        match self {
            Self::And => f.write_str("'and'"),
            Self::Or => f.write_str("'or'"),
            Self::Not => f.write_str("'not'"),
            Self::In => f.write_str("'in'"),
            Self::Word(word) => write!(f, "'{}'", shown(word)),
            Self::Quoted(quoted) => write!(f, "the text \"{}\"", shown(&quoted.value)),
            Self::Symbol(symbol) => write!(f, "'{symbol}'"),
            Self::Stray(c) => write!(f, "'{}'", c.escape_debug()),
            Self::End => f.write_str("the end"),
        }
    }
}
