//! The grammar: recursive descent over the tokens, one function a rule.

use super::{
    SelectorError,
    ast::{Check, Expr, Key, Order},
    decimal::Decimal,
    lexer::{Lexer, Quoted, Token},
    pattern::Pattern,
};
use crate::{
    label::{FACT_NAMES, validate_label},
    limits,
};

const TERM: &str = "a key, 'not' or '('";
const VALUE: &str = "a value (a word or a quoted text)";

pub(super) fn parse(text: &str) -> Result<Expr, SelectorError> {
    let mut lexer = Lexer::new(text);
    let (position, token) = lexer.next()?;
    let mut parser = Parser { lexer, position, token, after_key: false, patterns: 0 };
    let expr = parser.or(0)?;
    if parser.token == Token::End { Ok(expr) } else { Err(parser.unjoined("the end")) }
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The token that is looked at, and where it begins.
    position: usize,
    token: Token,
    /// Whether the token before was a key that nothing is asked of: then an operator may follow.
    after_key: bool,
    /// How many patterns there were.
    patterns: usize,
}

/// A value with the position of each of its characters, and one behind them.
struct Value {
    text: String,
    positions: Vec<usize>,
}

impl Parser<'_> {
    fn or(&mut self, depth: usize) -> Result<Expr, SelectorError> {
        let mut terms = Vec::new();
        loop {
            match self.and(depth)? {
                Expr::Or(inner) => terms.extend(inner),
                term => terms.push(term),
            }
            if !self.take(&Token::Or)? {
                return Ok(sole(terms).unwrap_or_else(Expr::Or));
            }
        }
    }

    fn and(&mut self, depth: usize) -> Result<Expr, SelectorError> {
        let mut terms = Vec::new();
        loop {
            match self.not(depth)? {
                Expr::And(inner) => terms.extend(inner),
                term => terms.push(term),
            }
            if !self.take(&Token::And)? {
                return Ok(sole(terms).unwrap_or_else(Expr::And));
            }
        }
    }

    fn not(&mut self, depth: usize) -> Result<Expr, SelectorError> {
        if matches!(self.token, Token::Not | Token::Symbol("(")) && depth == limits::SELECTOR_DEPTH {
            return Err(self.error(format!(
                "brackets and 'not' nest deeper than the limit SELECTOR_DEPTH of {}",
                limits::SELECTOR_DEPTH
            )));
        }
        if self.take(&Token::Not)? {
            return Ok(Expr::Not(Box::new(self.not(depth + 1)?)));
        }
        if !self.take(&Token::Symbol("("))? {
            return self.test();
        }
        let inner = self.or(depth + 1)?;
        if self.take(&Token::Symbol(")"))? { Ok(inner) } else { Err(self.unjoined("')'")) }
    }

    fn test(&mut self) -> Result<Expr, SelectorError> {
        let key = self.key()?;
        let check = match self.token {
            Token::Symbol("=") => {
                self.advance()?;
                Check::Equal(self.value()?)
            }
            Token::Symbol("!=") => {
                self.advance()?;
                Check::NotEqual(self.value()?)
            }
            Token::Symbol("~") => {
                self.advance()?;
                Check::Like(self.pattern()?)
            }
            Token::Symbol("!~") => {
                self.advance()?;
                Check::NotLike(self.pattern()?)
            }
            Token::Symbol("<") => self.number(Order::Less)?,
            Token::Symbol("<=") => self.number(Order::LessOrEqual)?,
            Token::Symbol(">") => self.number(Order::Greater)?,
            Token::Symbol(">=") => self.number(Order::GreaterOrEqual)?,
            Token::In => {
                self.advance()?;
                Check::In(self.values()?)
            }
            Token::Not => {
                self.advance()?;
                if !self.take(&Token::In)? {
                    return Err(self.unexpected("'in'"));
                }
                Check::NotIn(self.values()?)
            }
            _ => {
                self.after_key = true;
                Check::Present
            }
        };
        Ok(Expr::Test(key, check))
    }

    fn key(&mut self) -> Result<Key, SelectorError> {
        let Token::Word(word) = &self.token else { return Err(self.unexpected(TERM)) };
        let key = if word == "name" {
            Key::Name
        } else if let Some(fact) = FACT_NAMES.iter().find(|fact| *fact == word) {
            Key::Fact(fact)
        } else {
            validate_label(word, "")
                .map_err(|invalid| self.error(format!("{} {}", self.token, invalid.problem)))?;
            Key::Label(word.clone())
        };
        self.advance()?;
        Ok(key)
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        let value = self.look_at_value()?;
        self.advance()?;
        Ok(value.text)
    }

    fn look_at_value(&self) -> Result<Value, SelectorError> {
        match &self.token {
            Token::Quoted(Quoted { value, positions }) => {
                Ok(Value { text: value.clone(), positions: positions.clone() })
            }
            Token::Word(word) => {
                let positions = (self.position..=self.position + word.len()).collect();
                Ok(Value { text: word.clone(), positions })
            }
            _ => Err(self.unexpected(VALUE)),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.take(&Token::Symbol("("))? {
            return Err(self.unexpected("'(' and a list of values"));
        }
        let mut values = vec![self.value()?];
        while self.take(&Token::Symbol(","))? {
            values.push(self.value()?);
        }
        if self.take(&Token::Symbol(")"))? { Ok(values) } else { Err(self.unexpected("',' or ')'")) }
    }

    fn number(&mut self, order: Order) -> Result<Check, SelectorError> {
        const NUMBER: &str = "a number (digits, perhaps with '-' before and a fraction behind)";
        self.advance()?;
        let number = match &self.token {
            Token::Word(text) => Decimal::parse(text),
            Token::Quoted(quoted) => Decimal::parse(&quoted.value),
            _ => None,
        };
        let Some(number) = number else { return Err(self.unexpected(NUMBER)) };
        self.advance()?;
        Ok(Check::Number(order, number))
    }

    fn pattern(&mut self) -> Result<Pattern, SelectorError> {
        if self.patterns == limits::SELECTOR_PATTERNS {
            return Err(self.error(format!(
                "there are more patterns than the limit SELECTOR_PATTERNS of {}",
                limits::SELECTOR_PATTERNS
            )));
        }
        self.patterns += 1;
        let value = self.look_at_value()?;
        let pattern = Pattern::parse(&value.text).map_err(|error| SelectorError {
            position: value.positions.get(error.index).copied().unwrap_or(self.position),
            message: format!("the pattern is wrong: {}", error.message),
        })?;
        self.advance()?;
        Ok(pattern)
    }

    fn advance(&mut self) -> Result<(), SelectorError> {
        (self.position, self.token) = self.lexer.next()?;
        self.after_key = false;
        Ok(())
    }

    fn take(&mut self, wanted: &Token) -> Result<bool, SelectorError> {
        let found = self.token == *wanted;
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// A whole predicate is followed neither by another one nor by `close`.
    fn unjoined(&self, close: &str) -> SelectorError {
        let operators = if self.after_key { "an operator (= != ~ !~ < <= > >= in, not in), " } else { "" };
        self.unexpected(&format!("{operators}'and', 'or' or {close}"))
    }

    fn unexpected(&self, expected: &str) -> SelectorError {
        let hint = match self.token {
            Token::Stray('&') => "; write 'and' for '&'",
            Token::Stray('|') => "; write 'or' for '|'",
            Token::Stray('!') => "; write 'not' for '!'",
            Token::Stray(_) => "; a value with this character must be quoted",
            Token::And | Token::Or | Token::Not | Token::In if expected == VALUE => {
                "; as a value this word must be quoted"
            }
            _ => "",
        };
        self.error(format!("found {}, expected {expected}{hint}", self.token))
    }

    fn error(&self, message: String) -> SelectorError {
        SelectorError { position: self.position, message }
    }
}

/// The only term; otherwise the terms again.
fn sole(mut terms: Vec<Expr>) -> Result<Expr, Vec<Expr>> {
    match terms.pop() {
        Some(term) if terms.is_empty() => Ok(term),
        last => {
            terms.extend(last);
            Err(terms)
        }
    }
}
