//! Words that name days and times of day, made into a cron.

use super::unknown;
use crate::Invalid;

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const ORDINALS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];
/// They say nothing that their neighbours do not.
const FILLERS: [&str; 9] = ["at", "on", "the", "of", "and", "every", "each", "in", "o'clock"];

/// What was said so far.
#[derive(Debug, Default)]
struct Said {
    /// Of the day.
    times: Vec<(u8, u8)>,
    hourly: bool,
    month_days: Vec<String>,
    months: Vec<String>,
    week_days: Vec<String>,
    /// A number whose noun is to come.
    ordinal: Option<Ordinal>,
    /// `every second …`, which is every other one unless a month is said.
    every_nth: bool,
    /// `daily` or `day`: every day, unless others are said.
    days: bool,
    /// `weekly`, `monthly` and `yearly`, of which the first day is meant unless one is said.
    week: bool,
    month: bool,
    year: bool,
}

#[derive(Debug, Clone, Copy)]
enum Ordinal {
    Nth(u8),
    Last,
}

/// The cron of some words in lower case.
///
/// # Errors
/// Of the field `schedule`: the word that is not understood, or what cannot be said by one cron.
pub(super) fn cron(words: &[&str]) -> Result<String, Invalid> {
    let mut said = Said::default();
    let mut before = "";
    for word in words.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()) {
        said.every_nth |= before == "every" && ordinal(word).is_some();
        before = word;
        if !FILLERS.contains(&word) && !said.take(word) {
            return Err(unknown(format!("'{word}' is not understood")));
        }
    }
    said.end_of_ordinal();
    said.check()?;
    said.cron()
}

impl Said {
    /// Whether the word was understood.
    fn take(&mut self, word: &str) -> bool {
        if let Some(ordinal) = ordinal(word) {
            self.end_of_ordinal();
            self.ordinal = Some(ordinal);
            return true;
        }
        if let Some(weekday) = name_of(word, &WEEKDAYS) {
            self.week_days.push(match self.ordinal.take() {
                None => weekday,
                Some(Ordinal::Last) => format!("{weekday}L"),
                Some(Ordinal::Nth(nth)) => format!("{weekday}#{nth}"),
            });
            return true;
        }
        if let Some(days) = range(word) {
            self.week_days.push(days);
            return true;
        }
        if let Some(month) = name_of(word, &MONTHS) {
            self.months.push(month);
            return true;
        }
        if let Some(time) = time(word) {
            self.times.push(time);
            return true;
        }
        match word {
            "hourly" | "hour" => self.hourly = true,
            "day" if self.ordinal.is_some() => self.end_of_ordinal(),
            "daily" | "day" | "days" => self.days = true,
            "weekday" | "weekdays" | "workdays" | "working" => match self.ordinal.take() {
                None => self.week_days.push("MON-FRI".to_owned()),
                Some(Ordinal::Last) => self.month_days.push("LW".to_owned()),
                Some(Ordinal::Nth(1)) => self.month_days.push("1W".to_owned()),
                Some(Ordinal::Nth(_)) => return false,
            },
            "weekend" | "weekends" => self.week_days.push("SAT,SUN".to_owned()),
            "weekly" | "week" => self.week = true,
            "monthly" | "month" => self.month = true,
            "yearly" | "annually" | "year" => self.year = true,
            _ => return false,
        }
        true
    }

    /// A number without another noun is that of a day in the month.
    fn end_of_ordinal(&mut self) {
        match self.ordinal.take() {
            Some(Ordinal::Last) => self.month_days.push("L".to_owned()),
            Some(Ordinal::Nth(day)) => self.month_days.push(day.to_string()),
            None => {}
        }
    }

    /// Whether it is plain what is meant.
    fn check(&self) -> Result<(), Invalid> {
        let has_days = self.has_days();
        let is_told = self.days || self.week || self.month || self.year || self.hourly;
        let which = |day: &String| day.contains('#') || day.ends_with('L');
        let why = if !has_days && !is_told {
            "names no day"
        } else if !self.month_days.is_empty() && (self.week || !self.week_days.is_empty()) {
            "names days of the month and of the week; a cron would fire on either"
        } else if self.every_nth && !self.month && self.months.is_empty() {
            "may mean every other one; say 'second tuesday of the month', or write an rrule with INTERVAL=2"
        } else if self.month && !self.week_days.iter().all(which) {
            "names a weekday and not which one of the month; say 'first monday of the month'"
        } else if self.year && has_days && self.months.is_empty() {
            "names a day of the year without its month"
        } else {
            return Ok(());
        };
        Err(unknown(why))
    }

    fn has_days(&self) -> bool {
        !(self.month_days.is_empty() && self.week_days.is_empty())
    }

    fn cron(mut self) -> Result<String, Invalid> {
        if !self.has_days() {
            match (self.week, self.month || self.year) {
                (true, _) => self.week_days.push("SUN".to_owned()),
                (_, true) => self.month_days.push("1".to_owned()),
                _ => {}
            }
        }
        if self.year && self.months.is_empty() {
            self.months.push("JAN".to_owned());
        }
        let (minute, hour) = self.time()?;
        let [days, months, weekdays] = [&self.month_days, &self.months, &self.week_days]
            .map(|field| if field.is_empty() { "*".to_owned() } else { field.join(",") });
        Ok(format!("{minute} {hour} {days} {months} {weekdays}"))
    }

    /// The first two fields.
    fn time(&self) -> Result<(String, String), Invalid> {
        if self.hourly {
            return match self.times[..] {
                [] => Ok(("0".to_owned(), "*".to_owned())),
                _ => Err(unknown("is hourly and names a time of day")),
            };
        }
        let times = if self.times.is_empty() { &[(0, 0)] } else { &self.times[..] };
        let (hour, minute) = times[0];
        let list = |numbers: Vec<u8>| numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        if times.iter().all(|time| time.1 == minute) {
            return Ok((minute.to_string(), list(times.iter().map(|time| time.0).collect())));
        }
        if times.iter().all(|time| time.0 == hour) {
            return Ok((list(times.iter().map(|time| time.1).collect()), hour.to_string()));
        }
        Err(unknown("names times that differ in hour and minute; make a schedule of each"))
    }
}

/// `1st`, `15th`, `first`, `last`.
fn ordinal(word: &str) -> Option<Ordinal> {
    if word == "last" {
        return Some(Ordinal::Last);
    }
    if let Some(nth) = (1..).zip(ORDINALS).find_map(|(number, name)| (name == word).then_some(number)) {
        return Some(Ordinal::Nth(nth));
    }
    let digits = ["st", "nd", "rd", "th"].into_iter().find_map(|end| word.strip_suffix(end))?;
    let number = digits.parse().ok()?;
    (1..=31).contains(&number).then_some(Ordinal::Nth(number))
}

/// The short name of a weekday or month, whose first three letters or more, or plural, `word` is.
fn name_of(word: &str, names: &[&str]) -> Option<String> {
    let singular = word.strip_suffix('s').unwrap_or(word);
    let begins =
        |name: &&&str| [word, singular].into_iter().any(|word| word.len() >= 3 && name.starts_with(word));
    Some(names.iter().find(begins)?[..3].to_uppercase())
}

/// `mon-fri`
fn range(word: &str) -> Option<String> {
    let (from, to) = word.split_once('-')?;
    Some(format!("{}-{}", name_of(from, &WEEKDAYS)?, name_of(to, &WEEKDAYS)?))
}

/// `9:00`, `23:30`, `8am`, `8:15pm`, `noon`, `midnight`.
fn time(word: &str) -> Option<(u8, u8)> {
    match word {
        "midnight" => return Some((0, 0)),
        "noon" => return Some((12, 0)),
        _ => {}
    }
    let halves = [("am", 0), ("pm", 12)];
    let half = halves.into_iter().find_map(|(end, hours)| Some((word.strip_suffix(end)?, hours)));
    let (clock, half) = half.map_or((word, None), |(clock, hours)| (clock, Some(hours)));
    let (hour, minute) = match clock.split_once(':') {
        Some((hour, minute)) if minute.len() == 2 => (hour, minute),
        None if half.is_some() => (clock, "00"),
        _ => return None,
    };
    let number = |text: &str| {
        let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u8>().ok().filter(|_| is_number)
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let hour = match half {
        Some(hours) => (1..=12).contains(&hour).then_some(hour % 12 + hours)?,
        None => hour,
    };
    (hour < 24 && minute < 60).then_some((hour, minute))
}
