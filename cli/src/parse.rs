//! Readers of what people type after a flag. Their errors are whole sentences that clap puts behind the flag's name.

use jiff::{SpanRelativeTo, Timestamp, ToSpan as _};
use model::{
    access::{Permission, canonical_user, validate_slug},
    sandbox::Profile,
};

/// Seconds of a duration such as `90s`, `15m`, `1h30m` or `2d` (a day has 24 hours).
///
/// # Errors
/// When it is not a duration, not positive, or not a whole number of seconds.
pub(crate) fn seconds(text: &str) -> Result<i64, String> {
    const LIKE: &str = "a duration is written like 90s, 15m, 1h30m or 2d";
    let text = text.trim();
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("the unit is missing ({LIKE})"));
    }
    let span: jiff::Span = text.parse().map_err(|_| LIKE.to_owned())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| LIKE.to_owned())?;
    if duration.subsec_nanos() != 0 {
        return Err("it must be a whole number of seconds".to_owned());
    }
    if duration.as_secs() <= 0 {
        return Err("it must be longer than nothing".to_owned());
    }
    Ok(duration.as_secs())
}

/// Bytes, as `4096`, `64KiB`, `10MiB` or `1GiB`.
///
/// # Errors
/// When it is not a number of bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    const LIKE: &str = "a number of bytes is written like 4096, 64KiB, 10MiB or 1GiB";
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    let text = text.trim();
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, size)| Some((text.strip_suffix(name)?.trim_end(), *size)))
        .unwrap_or((text, 1));
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return Err(LIKE.to_owned());
    }
    let count: Option<u64> = digits.parse().ok();
    count.and_then(|count| count.checked_mul(unit)).ok_or_else(|| "there are not so many bytes".to_owned())
}

/// A number of things, at least one.
///
/// # Errors
/// When it is none, or not a number.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "it is a whole number from 1".to_owned())
}

/// A sandbox profile.
///
/// # Errors
/// When it is none of them.
pub(crate) fn profile(text: &str) -> Result<Profile, String> {
    Profile::parse(text)
        .ok_or_else(|| format!("the profiles are {}", Profile::ALL.map(Profile::as_str).join(", ")))
}

/// One of the words of an enumeration, as its JSON has them; `-` is as good as `_`.
///
/// # Errors
/// Which words there are.
pub(crate) fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let word = text.replace('-', "_");
    T::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&word))
        .map_err(|error| error.to_string())
}

/// A permission.
///
/// # Errors
/// When it is none of them.
pub(crate) fn permission(text: &str) -> Result<Permission, String> {
    Permission::parse(text)
        .ok_or_else(|| format!("the permissions are {}", Permission::ALL.map(Permission::as_str).join(", ")))
}

/// The name of a person, in its one form.
///
/// # Errors
/// When nobody can be called so.
pub(crate) fn user(text: &str) -> Result<String, String> {
    canonical_user(text).map_err(|invalid| invalid.to_string())
}

/// The name of a role, a group, a service account, an organization or a token.
///
/// # Errors
/// When nothing can be called so.
pub(crate) fn slug(text: &str) -> Result<String, String> {
    validate_slug("name", text).map(|()| text.to_owned()).map_err(|invalid| invalid.to_string())
}

/// A point in time: either RFC 3339, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    At(Timestamp),
    SecondsAgo(i64),
}

impl Since {
    /// # Errors
    /// When it is neither a duration nor an RFC 3339 time.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        seconds(text).map(Self::SecondsAgo).or_else(|_| {
            text.parse().map(Self::At).map_err(|_| {
                "neither how long ago (10m, 2h) nor a time with its offset (2026-01-31T08:00:00Z)".to_owned()
            })
        })
    }

    /// # Errors
    /// When that is before the first time there is.
    pub(crate) fn resolve(self, now: Timestamp) -> Result<Timestamp, String> {
        match self {
            Self::At(at) => Ok(at),
            Self::SecondsAgo(seconds) => 0_i64
                .seconds()
                .try_seconds(seconds)
                .and_then(|span| now.checked_sub(span))
                .map_err(|_| "--since is too long ago".to_owned()),
        }
    }
}

/// A label, `key=value`.
///
/// # Errors
/// When the `=` is missing, or the key or value is not what a label may have.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = key_value(text)?;
    model::label::validate_label(&key, &value).map_err(|invalid| invalid.to_string())?;
    Ok((key, value))
}

/// What becomes of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LabelChange {
    Set(String, String),
    Remove(String),
}

/// A label to set, `key=value`, or to take away, `key-`.
///
/// # Errors
/// When it is neither, or the key or value is not what a label may have.
pub(crate) fn label_change(text: &str) -> Result<LabelChange, String> {
    if text.contains('=') {
        return label(text).map(|(key, value)| LabelChange::Set(key, value));
    }
    let key = text.strip_suffix('-').filter(|key| !key.is_empty());
    let key = key.ok_or("it is written KEY=VALUE, or KEY- to take the label away")?;
    model::label::validate_key(&format!("labels.{key}"), key).map_err(|invalid| invalid.to_string())?;
    Ok(LabelChange::Remove(key.to_owned()))
}

/// A variable, `NAME=value`; the value may have any further `=`.
///
/// # Errors
/// When the `=` or the name is missing.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is written KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in
            [("90s", 90), ("15m", 900), ("1h30m", 5400), ("1h 30m", 5400), ("2d", 172_800), ("1w", 604_800)]
        {
            assert_eq!(seconds(text), Ok(want), "{text}");
        }
        for text in
            ["", "x", "90", "-5s", "0s", "500ms", "1.5s", "1mo", "1y", "5s ago", "9999999999999999999s"]
        {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert!(seconds("90").unwrap_err().contains("unit"));
    }

    #[test]
    fn numbers_of_bytes() {
        for (text, want) in
            [("1", 1), ("4096 B", 4096), ("64KiB", 65_536), ("10 MiB", 10 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5MiB", "10MB", "1k", "99999999999999999999", "99999999999GiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_people_and_what_they_may() {
        assert_eq!(user(" Ada@Example.org"), Ok("ada@example.org".into()));
        assert!(user("..").is_err() && user("a/b").is_err() && slug("Ops").is_err());
        assert_eq!(slug("on-call"), Ok("on-call".into()));
        assert_eq!(permission("agent.read"), Ok(Permission::AgentRead));
        assert!(permission("agent").unwrap_err().contains("agent.drain"));
    }

    #[test]
    fn points_in_time() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let at = |text: &str| Since::parse(text).unwrap().resolve(now).unwrap().to_string();
        assert_eq!(at("10m"), "2026-01-31T07:50:00Z");
        assert_eq!(at("2026-01-31T08:00:00+02:00"), "2026-01-31T06:00:00Z");
        assert!(Since::parse("yesterday").is_err());
        assert!(Since::parse("2026-01-31T08:00:00").is_err(), "no offset");
        assert!(Since::SecondsAgo(i64::MAX).resolve(now).is_err());
    }

    #[test]
    fn labels_and_variables() {
        assert_eq!(label("role=web"), Ok(("role".into(), "web".into())));
        assert_eq!(label("role="), Ok(("role".into(), String::new())));
        for text in ["role", "=web", "os=linux", "and=x", "a b=c", "role=a\u{7}"] {
            assert!(label(text).is_err(), "{text:?}");
        }
        let set = |key: &str, value: &str| LabelChange::Set(key.to_owned(), value.to_owned());
        for (text, want) in [
            ("role=web", set("role", "web")),
            ("role=", set("role", "")),
            ("role=a-", set("role", "a-")),
            ("role-", LabelChange::Remove("role".to_owned())),
            ("a-b--", LabelChange::Remove("a-b-".to_owned())),
        ] {
            assert_eq!(label_change(text), Ok(want), "{text}");
        }
        for text in ["role", "-", "=x-", "a b-", "os=linux", ""] {
            assert!(label_change(text).is_err(), "{text:?}");
        }
        assert_eq!(key_value("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert!(key_value("A").is_err());
    }
}
