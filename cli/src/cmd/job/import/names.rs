//! Names that are allowed, made of names that need not be.

use std::collections::BTreeSet;

use model::{access::validate_slug, id::JobId, limits};

/// Names that jobs cannot have: they stand for something else where a job's name could stand.
const NO_JOBS: [&str; 2] = ["validate", "schema"];

/// A job's name of the text.
pub(super) fn job(text: &str) -> Option<String> {
    let slug = slug(text)?;
    let is_taken = NO_JOBS.contains(&slug.as_str()) || slug.parse::<JobId>().is_ok();
    Some(if is_taken { format!("{slug}-job") } else { slug })
}

/// Small letters and digits of the text, a dash for what lies between them; none where there are none.
pub(super) fn slug(text: &str) -> Option<String> {
    let mut slug = String::new();
    for c in text.chars() {
        if slug.len() >= limits::SLUG_CHARS {
            break;
        }
        match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => slug.push(c),
            '_' | '.' if !slug.is_empty() => slug.push(c),
            _ if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    slug.truncate(slug.trim_end_matches(['-', '.', '_']).len());
    validate_slug("name", &slug).is_ok().then_some(slug)
}

/// The name, or with a number behind it when it is taken; from now on it is.
pub(super) fn unique(taken: &mut BTreeSet<String>, name: &str) -> String {
    let mut unique = name.to_owned();
    let mut number = 2;
    while taken.contains(&unique) {
        let behind = format!("-{number}");
        let mut short = name.to_owned();
        short.truncate(limits::SLUG_CHARS - behind.len());
        unique = short + &behind;
        number += 1;
    }
    taken.insert(unique.clone());
    unique
}

/// A parameter's name of the text: small letters, digits and `_`, a letter first.
pub(super) fn parameter(text: &str) -> String {
    let mut name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .take(limits::PARAMETER_NAME_CHARS)
        .collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert_str(0, "p_");
        name.truncate(limits::PARAMETER_NAME_CHARS);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_become() {
        for (text, want) in [
            ("Deploy the Web-Shop!", Some("deploy-the-web-shop")),
            ("  Nightly  Backup (v2.1) ", Some("nightly-backup-v2.1")),
            ("Über/größe", Some("ber-gr-e")),
            ("---", None),
            ("", None),
            ("_x_", Some("x")),
        ] {
            assert_eq!(slug(text).as_deref(), want, "{text}");
        }
        assert_eq!(slug(&"a".repeat(200)).map(|slug| slug.len()), Some(64));
        let mut taken = BTreeSet::new();
        assert_eq!(unique(&mut taken, "a"), "a");
        assert_eq!(unique(&mut taken, "a"), "a-2");
        assert_eq!(unique(&mut taken, "a"), "a-3");
        let long = "b".repeat(64);
        unique(&mut taken, &long);
        assert_eq!(unique(&mut taken, &long).len(), 64);
        for (text, want) in
            [("Target.Env", "target_env"), ("9lives", "p_9lives"), ("", "p_"), ("ok_1", "ok_1")]
        {
            assert_eq!(parameter(text), want);
        }
    }
}
