//! One field of a cron: lists, ranges, steps and names, as a set of numbers.

use crate::Invalid;

/// What the field of a cron is called and may hold.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    low: u8,
    high: u8,
    /// Where `*` and an open range end: 7 is Sunday once more.
    end: u8,
    /// Names of the numbers from `low` on.
    names: &'static [&'static str],
    /// What it may hold, in words.
    limits: &'static str,
}

const fn number(name: &'static str, low: u8, high: u8, limits: &'static str) -> Field {
    Field { name, low, high, end: high, names: &[], limits }
}

pub(super) const SECOND: Field = number("second", 0, 59, "0 to 59");
pub(super) const MINUTE: Field = number("minute", 0, 59, "0 to 59");
pub(super) const HOUR: Field = number("hour", 0, 23, "0 to 23");
pub(super) const DAY: Field = number("day of month", 1, 31, "1 to 31, L, L-3, 15W or LW");
pub(super) const MONTH: Field = Field {
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    ..number("month", 1, 12, "1 to 12 or JAN to DEC")
};
pub(super) const WEEKDAY: Field = Field {
    end: 6,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    ..number("weekday", 0, 7, "0 to 7 (0 and 7 are Sunday), SUN to SAT, FRI#2 or FRIL")
};

impl Field {
    /// Reads a list of numbers, ranges and steps: a bit for each number, and Sunday is 0 alone.
    ///
    /// # Errors
    /// The first part that is wrong, with what may stand there.
    pub(super) fn set(&self, text: &str) -> Result<u64, Invalid> {
        let mut set = 0;
        for part in self.parts(text)? {
            set |= self.part(part)?;
        }
        Ok(set)
    }

    /// The parts between the commas.
    ///
    /// # Errors
    /// When one of them is empty.
    pub(super) fn parts<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, Invalid> {
        let parts: Vec<&str> = text.split(',').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(self.wrong(text, "has an empty part"));
        }
        Ok(parts)
    }

    /// Reads one number, range or step.
    ///
    /// # Errors
    /// What is wrong with it, and what may stand there.
    pub(super) fn part(&self, part: &str) -> Result<u64, Invalid> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(self.step(part, step)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.end),
            Some((from, to)) => self.range(part, from, to)?,
            None => {
                let from = self.number(part, range)?;
                (from, if step.is_some() { self.end.max(from) } else { from })
            }
        };
        let numbers = (from..=to).step_by(step.unwrap_or(1).into());
        Ok(numbers.fold(0, |set, number| set | 1 << self.only_sunday(number)))
    }

    /// The number that the text or name `text` stands for.
    ///
    /// # Errors
    /// When it is none, or out of range.
    pub(super) fn number(&self, part: &str, text: &str) -> Result<u8, Invalid> {
        if let Some(place) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.low + u8::try_from(place).expect("at most twelve names"));
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.wrong(part, &format!("is no {}", self.name)));
        }
        match text.parse() {
            Ok(number) if (self.low..=self.high).contains(&number) => Ok(number),
            _ => Err(self.wrong(part, "is out of range")),
        }
    }

    /// 7 is 0 where a week begins with Sunday.
    pub(super) const fn only_sunday(&self, number: u8) -> u8 {
        if number > self.end { self.low } else { number }
    }

    fn range(&self, part: &str, from: &str, to: &str) -> Result<(u8, u8), Invalid> {
        let (first, mut last) = (self.number(part, from)?, self.number(part, to)?);
        if last == self.low && self.high > self.end {
            // A week that is written up to Sunday.
            last = if first == self.low { self.low } else { self.high };
        }
        if first > last {
            let (high, low) = (self.written(self.end), self.written(self.low));
            let why = format!("'{part}' runs backwards; write {from}-{high},{low}-{to}");
            return Err(Invalid::new("cron", format!("{} {why}", self.name)));
        }
        Ok((first, last))
    }

    fn step(&self, part: &str, step: &str) -> Result<u8, Invalid> {
        match step.parse() {
            Ok(step) if (1..=self.high).contains(&step) => Ok(step),
            _ => {
                let why = format!("'{part}' has a step of '{step}'; a step is 1 to {}", self.high);
                Err(Invalid::new("cron", format!("{} {why}", self.name)))
            }
        }
    }

    /// A number as people write it.
    fn written(&self, number: u8) -> String {
        let name = self.names.get(usize::from(number - self.low));
        name.map_or_else(|| number.to_string(), |name| (*name).to_owned())
    }

    pub(super) fn wrong(&self, part: &str, why: &str) -> Invalid {
        Invalid::new("cron", format!("{} '{part}' {why}; write {}", self.name, self.limits))
    }
}
