//! What the rules match, what the walk makes of it in zones, and what is refused.

mod any;
mod cron;
mod entry;
mod jitter;
mod odd_zones;
mod rrule;
mod timing;
mod written;

use jiff::Timestamp;

use super::{Timing, WrittenTiming};

fn timing(json: &str) -> Timing {
    serde_json::from_str::<WrittenTiming>(json).expect(json).read().expect(json)
}

fn instant(text: &str) -> Timestamp {
    text.parse().expect(text)
}

/// The first firings after an instant: when, and what the clock shows then.
fn firings(timing: &Timing, after: &str, count: usize) -> Vec<String> {
    let mut t = instant(after);
    let mut found = Vec::new();
    while found.len() < count
        && let Some(firing) = timing.after(t)
    {
        assert!(firing.due > t, "{} is not after {t}", firing.due);
        found.push(format!("{} {}{}", firing.due, firing.local, firing.offset));
        t = firing.due;
    }
    found
}
