//! Numbers and times as people read them.

use jiff::Timestamp;

/// Bytes in binary units, with three digits at most before the unit is changed.
pub(crate) fn bytes(count: i64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count.unsigned_abs() < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value.abs() >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `part` of `whole` with its percentage: `1.0 GiB of 4.0 GiB (25%)`.
pub(crate) fn share(part: i64, whole: i64) -> String {
    let percent = if whole > 0 { part as f64 * 100.0 / whole as f64 } else { 0.0 };
    format!("{} of {} ({percent:.0}%)", bytes(part), bytes(whole))
}

/// A duration in its two largest units: `1h 30m`, `3d 4h`, `12s`.
pub(crate) fn duration(seconds: i64) -> String {
    const UNITS: [(i64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "m")];
    let seconds = seconds.max(0);
    let mut smaller = "s";
    let mut parts = vec![format!("{}s", seconds % 60)];
    for (index, (size, name)) in UNITS.iter().enumerate() {
        if seconds >= *size {
            let below = UNITS.get(index + 1).copied().unwrap_or((1, "s"));
            smaller = below.1;
            parts =
                vec![format!("{}{name}", seconds / size), format!("{}{}", seconds % size / below.0, below.1)];
            break;
        }
    }
    // A zero in the smaller unit says nothing.
    if parts.len() == 2 && parts[1] == format!("0{smaller}") {
        parts.pop();
    }
    parts.join(" ")
}

/// How long ago `then` was, or how far away it is.
pub(crate) fn relative(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{} ago", duration(seconds)),
        _ => format!("in {}", duration(-seconds)),
    }
}

/// The time in UTC to the second, and how far from now that is.
pub(crate) fn moment(then: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", then.strftime("%Y-%m-%d %H:%M:%S UTC"), relative(then, now))
}

/// How long something took, to the millisecond while it is short.
pub(crate) fn elapsed(from: Timestamp, to: Timestamp) -> String {
    let millis = to.as_millisecond() - from.as_millisecond();
    if millis < 60_000 { format!("{:.3}s", millis.max(0) as f64 / 1000.0) } else { duration(millis / 1000) }
}

/// Processor time, to the millisecond while it is short.
pub(crate) fn processor_time(micros: i64) -> String {
    let millis = micros.max(0) / 1000;
    if millis < 60_000 { format!("{:.3}s", millis as f64 / 1000.0) } else { duration(millis / 1000) }
}

/// What there may be, or a dash.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Labels and the like, on one line.
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let joined = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    if joined.is_empty() { "-".to_owned() } else { joined }
}

/// Words on one line, or a dash.
pub(crate) fn words<T: ToString>(words: impl IntoIterator<Item = T>) -> String {
    let joined = words.into_iter().map(|word| word.to_string()).collect::<Vec<_>>().join(",");
    if joined.is_empty() { "-".to_owned() } else { joined }
}

/// `1 target`, `2 targets`.
pub(crate) fn count(number: impl Into<i64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (count, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1536 * 1024, "1.5 MiB"),
            (i64::MAX, "8.0 EiB"),
        ] {
            assert_eq!(bytes(count), want);
        }
        assert_eq!(share(1 << 30, 4 << 30), "1.0 GiB of 4.0 GiB (25%)");
        assert_eq!(share(0, 0), "0 B of 0 B (0%)");
    }

    #[test]
    fn times() {
        for (seconds, want) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (90, "1m 30s"),
            (5400, "1h 30m"),
            (86_400, "1d"),
            (273_600, "3d 4h"),
        ] {
            assert_eq!(duration(seconds), want);
        }
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        assert_eq!(relative("2026-01-31T07:59:57Z".parse().unwrap(), now), "3s ago");
        assert_eq!(moment("2026-01-31T09:00:00Z".parse().unwrap(), now), "2026-01-31 09:00:00 UTC (in 1h)");
        assert_eq!(processor_time(1_234_567), "1.234s");
        assert_eq!(processor_time(90_000_000), "1m 30s");
        assert_eq!(elapsed("2026-01-31T07:59:58.5Z".parse().unwrap(), now), "1.500s");
    }
}
