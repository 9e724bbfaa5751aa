//! Recurrence rules of which the same can be said by yearly and weekly entries.

use crate::calendar::Day;

use super::value::shown;

/// A rule without end, of each year or of each week.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Months and days of the month; where one is absent, that of the begin, or with days alone every month.
    Yearly { months: Option<Vec<i8>>, days: Option<Vec<i8>> },
    /// Days of the week; when there is none, that of the begin.
    Weekly { days: Vec<Day> },
}

impl Rule {
    /// Reads `FREQ=WEEKLY;BYDAY=MO,TU`.
    ///
    /// # Errors
    /// Why it has no entry, as the rest of a sentence that begins with the rule.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut freq, mut months, mut month_days, mut week_days) = (None, None, None, None);
        let mut seen = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let not_known = || format!("has '{}', which is no part of a rule", shown(part));
            let not_said = || format!("has {}, which no entry can say", shown(part));
            let (name, value) = part.split_once('=').ok_or_else(not_known)?;
            let (name, value) = (name.trim().to_ascii_uppercase(), value.trim().to_ascii_uppercase());
            if seen.contains(&name) {
                return Err(format!("has {} twice", shown(&name)));
            }
            match name.as_str() {
                "FREQ" if value == "YEARLY" || value == "WEEKLY" => freq = Some(value),
                "FREQ" => return Err(format!("is {}; entries are of each year or each week", shown(&value))),
                // Where weeks begin says nothing when each of them counts.
                "WKST" => {}
                "INTERVAL" if value == "1" => {}
                "INTERVAL" => return Err(format!("leaves out times (INTERVAL={})", shown(&value))),
                "COUNT" | "UNTIL" => return Err(format!("has an end ({name}={})", shown(&value))),
                "BYMONTH" => months = Some(numbers(&value, 12).ok_or_else(not_said)?),
                "BYMONTHDAY" => month_days = Some(numbers(&value, 31).ok_or_else(not_said)?),
                "BYDAY" => week_days = Some(value),
                "BYSECOND" | "BYMINUTE" | "BYHOUR" | "BYYEARDAY" | "BYWEEKNO" | "BYSETPOS" => {
                    return Err(not_said());
                }
                _ => return Err(not_known()),
            }
            seen.push(name);
        }
        match (freq.as_deref(), months, month_days, week_days) {
            (Some("YEARLY"), months, days, None) => Ok(Self::Yearly { months, days }),
            (Some("YEARLY"), _, _, Some(_)) => Err("has BYDAY in a year, which no entry can say".to_owned()),
            (Some("WEEKLY"), None, None, days) => {
                let days = days.map_or_else(|| Ok(Vec::new()), |text| week(&text));
                Ok(Self::Weekly { days: days? })
            }
            (Some("WEEKLY"), ..) => Err("has days of months in a week, which no entry can say".to_owned()),
            _ => Err("has no FREQ".to_owned()),
        }
    }
}

/// Numbers from 1, sorted and each once; none that count from the end.
fn numbers(text: &str, most: i8) -> Option<Vec<i8>> {
    let numbers = text.split(',').map(|number| number.parse().ok().filter(|n| (1..=most).contains(n)));
    let mut numbers: Vec<i8> = numbers.collect::<Option<_>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

fn week(text: &str) -> Result<Vec<Day>, String> {
    const NAMES: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];
    let day = |name: &str| NAMES.iter().position(|known| *known == name).map(|at| Day::ALL[at]);
    let mut days: Vec<Day> = text
        .split(',')
        .map(|name| day(name).ok_or_else(|| format!("has '{}', which is no day of a week", shown(name))))
        .collect::<Result<_, _>>()?;
    days.sort_unstable();
    days.dedup();
    Ok(days)
}
