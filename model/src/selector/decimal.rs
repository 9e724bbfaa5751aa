//! Exact decimal numbers, compared as Postgres compares `numeric`.

use std::{cmp::Ordering, fmt};

/// A plain decimal number of any length: an optional `-`, digits, and optionally a point and digits. No exponent, no
/// infinity. Kept in normal form, so that equal numbers are equal values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    /// Never of zero.
    negative: bool,
    /// Digits before the point without leading zeros; empty for zero.
    whole: String,
    /// Digits behind the point without trailing zeros.
    fraction: String,
}

impl Decimal {
    /// Reads a number; `None` if the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let zero = whole.is_empty() && fraction.is_empty();
        Some(Self { negative: negative && !zero, whole: whole.to_owned(), fraction: fraction.to_owned() })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        fn magnitude(number: &Decimal) -> (usize, &str, &str) {
            (number.whole.len(), &number.whole, &number.fraction)
        }
        match (self.negative, other.negative) {
            (false, false) => magnitude(self).cmp(&magnitude(other)),
            (true, true) => magnitude(other).cmp(&magnitude(self)),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        let whole = if self.whole.is_empty() { "0" } else { &self.whole };
        let point = if self.fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{}", self.fraction)
    }
}
