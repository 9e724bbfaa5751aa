//! The days that a recurrence rule allows, a month at a time.

use jiff::civil::Date;

/// What must hold for a day, all at once. Of the lists an empty one allows all. A negative number counts from the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Days {
    /// A bit for each month from 1.
    pub(super) months: u64,
    pub(super) month_days: Vec<i16>,
    pub(super) year_days: Vec<i16>,
    pub(super) weeks: Vec<i16>,
    /// Which one, 0 being each, and the weekday, Sunday being 0.
    pub(super) weekdays: Vec<(i16, u8)>,
    /// Which one is told in the year, not in the month.
    pub(super) nth_of_year: bool,
    /// The weekday on which weeks begin, Sunday being 0.
    pub(super) week_start: u8,
}

/// One day by all the numbers that it has; each from 1.
struct Day {
    month_day: i16,
    month_length: i16,
    year_day: i16,
    year_length: i16,
    weekday: u8,
    week: i16,
    /// Weeks of the year that the week belongs to.
    weeks: i16,
}

impl Days {
    /// Those of a month, a bit for each from 1; none of a month that does not exist.
    pub(super) fn of(&self, year: i16, month: i8) -> u64 {
        if self.months >> month & 1 == 0 {
            return 0;
        }
        let Ok(first) = Date::new(year, month, 1) else { return 0 };
        let first_weekday = i16::from(first.weekday().to_sunday_zero_offset());
        let mut day = Day {
            month_day: 0,
            month_length: first.days_in_month().into(),
            year_day: first.day_of_year() - 1,
            year_length: first.days_in_year(),
            weekday: 0,
            week: 0,
            weeks: 0,
        };
        let mut set = 0;
        while day.month_day < day.month_length {
            day.month_day += 1;
            day.year_day += 1;
            day.weekday = ((first_weekday + day.month_day - 1) % 7) as u8;
            if !self.weeks.is_empty() {
                (day.week, day.weeks) = self.week(year, &day);
            }
            if self.allow(&day) {
                set |= 1 << day.month_day;
            }
        }
        set
    }

    fn allow(&self, day: &Day) -> bool {
        any(&self.month_days, day.month_day, day.month_length)
            && any(&self.year_days, day.year_day, day.year_length)
            && any(&self.weeks, day.week, day.weeks)
            && (self.weekdays.is_empty() || self.weekdays.iter().any(|wanted| self.is_nth(*wanted, day)))
    }

    fn is_nth(&self, (nth, weekday): (i16, u8), day: &Day) -> bool {
        if weekday != day.weekday {
            return false;
        }
        let (number, length) = if self.nth_of_year {
            (day.year_day, day.year_length)
        } else {
            (day.month_day, day.month_length)
        };
        match nth {
            0 => true,
            1.. => (number - 1) / 7 + 1 == nth,
            _ => (length - number) / 7 + 1 == -nth,
        }
    }

    /// The number of the week that a day lies in, and how many there are in that week's year: the first one of a year is
    /// the first that has four days in it, as in ISO 8601.
    fn week(&self, year: i16, day: &Day) -> (i16, i16) {
        let in_week = i16::from((day.weekday + 7 - self.week_start) % 7);
        // Behind the Thursday, as it were, of its week: the year that this lies in is the week's.
        let middle = day.year_day - in_week + 3;
        if middle < 1 {
            let before = length(year - 1);
            ((middle + before - 1) / 7 + 1, weeks(middle + before, before))
        } else if middle > day.year_length {
            let after = length(year + 1);
            ((middle - day.year_length - 1) / 7 + 1, weeks(middle - day.year_length, after))
        } else {
            ((middle - 1) / 7 + 1, weeks(middle, day.year_length))
        }
    }
}

/// The weeks of a year of `length` days, of which the day `middle` is the middle of a week.
const fn weeks(middle: i16, length: i16) -> i16 {
    let last = middle + (length - middle) / 7 * 7;
    (last - 1) / 7 + 1
}

fn length(year: i16) -> i16 {
    Date::new(year, 1, 1).map_or(365, Date::days_in_year)
}

/// Whether the list has the number, from the beginning or from the end, or allows all.
fn any(wanted: &[i16], number: i16, length: i16) -> bool {
    wanted.is_empty() || wanted.contains(&number) || wanted.contains(&(number - length - 1))
}
