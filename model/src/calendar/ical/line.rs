//! Content lines: `NAME;PARAM=value;PARAM="value":the rest`, long ones folded at a line's end and one blank.

use std::borrow::Cow;

use super::BadIcal;

/// One content line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Where it begins in the text, from 1.
    pub(super) number: usize,
    /// In upper case.
    pub(super) name: String,
    /// The name of the property with its parameters and its value.
    text: Cow<'a, str>,
    /// Where in that the parameters end and the value begins.
    colon: usize,
}

/// The content lines of a text; empty lines are passed over.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Result<Line<'_>, BadIcal>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    unfolded(text).filter(|(_, line)| !line.trim().is_empty()).map(|(number, line)| Line::of(number, line))
}

/// Each line with its number, and with those that go on with it.
fn unfolded(text: &str) -> impl Iterator<Item = (usize, Cow<'_, str>)> {
    let mut physical =
        (1..).zip(text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line))).peekable();
    std::iter::from_fn(move || {
        let (number, first) = physical.next()?;
        let mut line = Cow::Borrowed(first);
        while let Some((_, more)) = physical.next_if(|(_, line)| line.starts_with([' ', '\t'])) {
            line.to_mut().push_str(&more[1..]);
        }
        Some((number, line))
    })
}

impl<'a> Line<'a> {
    fn of(number: usize, text: Cow<'a, str>) -> Result<Self, BadIcal> {
        let mut is_quoted = false;
        let colon = text.bytes().position(|byte| {
            is_quoted ^= byte == b'"';
            byte == b':' && !is_quoted
        });
        let colon = colon.ok_or_else(|| BadIcal::new(number, "is no line of an iCalendar: it has no ':'"))?;
        let name = text[..colon].split(';').next().unwrap_or_default();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let why = "is no line of an iCalendar: it does not begin with a name (letters, digits and '-')";
            return Err(BadIcal::new(number, why));
        }
        Ok(Self { number, name: name.to_ascii_uppercase(), text, colon })
    }

    pub(super) fn value(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// The value as a word of the format: without blanks, in upper case, and short enough to be shown.
    pub(super) fn word(&self) -> String {
        let word = self.value().trim().chars().filter(|c| !c.is_control());
        word.take(64).map(|c| c.to_ascii_uppercase()).collect()
    }

    /// The value of a parameter, without its quotes; the name in upper case.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut rest = &self.text[self.name.len()..self.colon];
        while let Some(parameter) = rest.strip_prefix(';') {
            let mut is_quoted = false;
            let end = parameter.bytes().position(|byte| {
                is_quoted ^= byte == b'"';
                byte == b';' && !is_quoted
            });
            let (this, others) = parameter.split_at(end.unwrap_or(parameter.len()));
            if let Some((key, value)) = this.split_once('=')
                && key.eq_ignore_ascii_case(name)
            {
                return Some(value.trim_matches('"'));
            }
            rest = others;
        }
        None
    }
}
