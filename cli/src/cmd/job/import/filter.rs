//! Rundeck's node filters as selectors.
//!
//! A tag becomes a label of its name that is there, an attribute a label of its name with its value; `name` and `hostname` are
//! what they are.

use std::collections::BTreeSet;

use model::{job::JobTargets, label, selector::Selector};

/// Clauses of a filter: attribute and values, those with the same attribute together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    include: Vec<(String, Vec<String>)>,
    exclude: Vec<(String, Vec<String>)>,
}

/// What a filter has become.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selected {
    pub(super) targets: JobTargets,
    /// Labels that hosts need for it.
    pub(super) labels: BTreeSet<String>,
}

impl Filter {
    /// Adds `attribute: value !attribute: value …`; a value by itself is one of the name.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn add_text(&mut self, text: &str) -> Result<(), String> {
        let mut words = words(text)?.into_iter();
        while let Some((word, is_quoted)) = words.next() {
            let attribute = word.strip_suffix(':').filter(|_| !is_quoted);
            match attribute {
                Some(attribute) => {
                    let (value, _) = words.next().ok_or_else(|| format!("'{word}' has no value"))?;
                    match attribute.strip_prefix('!') {
                        Some(attribute) => self.add(false, attribute, &value),
                        None => self.add(true, attribute, &value),
                    }
                }
                None => match word.split_once(':').filter(|(key, _)| !is_quoted && is_attribute(key)) {
                    Some((key, value)) => match key.strip_prefix('!') {
                        Some(key) => self.add(false, key, value),
                        None => self.add(true, key, value),
                    },
                    None => match word.strip_prefix('!').filter(|_| !is_quoted) {
                        Some(name) => self.add(false, "name", name),
                        None => self.add(true, "name", &word),
                    },
                },
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, is_wanted: bool, attribute: &str, value: &str) {
        let attribute = if attribute == "nodename" { "name" } else { attribute };
        let clauses = if is_wanted { &mut self.include } else { &mut self.exclude };
        match clauses.iter_mut().find(|(name, _)| name == attribute) {
            Some((_, values)) => values.push(value.to_owned()),
            None => clauses.push((attribute.to_owned(), vec![value.to_owned()])),
        }
    }

    /// The same as a selector. Where `exclude_wins` is false, a host that is wanted is not left out.
    ///
    /// # Errors
    /// What has no form in a selector.
    pub(super) fn targets(&self, exclude_wins: bool) -> Result<Selected, String> {
        let mut labels = BTreeSet::new();
        let mut parts = Vec::new();
        for (attribute, values) in &self.include {
            parts.extend(clause(attribute, values, &mut labels)?);
        }
        if exclude_wins || self.include.is_empty() {
            for (attribute, values) in &self.exclude {
                match clause(attribute, values, &mut labels)? {
                    Some(clause) => parts.push(format!("not {clause}")),
                    None => {
                        return Err(format!("it leaves out every host: !{attribute}: {}", values.join(",")));
                    }
                }
            }
        }
        if parts.is_empty() {
            return Ok(Selected { targets: JobTargets { all: true, ..JobTargets::default() }, labels });
        }
        let selector = parts.join(" and ");
        Selector::parse(&selector)
            .map_err(|error| format!("as a selector it is '{selector}', and that is none: {error}"))?;
        Ok(Selected { targets: JobTargets { selector: Some(selector), ..JobTargets::default() }, labels })
    }
}

fn is_attribute(text: &str) -> bool {
    let text = text.strip_prefix('!').unwrap_or(text);
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// Words at blanks, with whether a quote began them.
fn words(text: &str) -> Result<Vec<(String, bool)>, String> {
    let mut words = Vec::new();
    let mut word: Option<(String, bool)> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_with(|| (String::new(), true));
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_with(|| (String::new(), false)).0.push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote has no end".to_owned());
    }
    words.extend(word);
    Ok(words)
}

/// One clause; none where every host fits.
fn clause(
    attribute: &str,
    values: &[String],
    labels: &mut BTreeSet<String>,
) -> Result<Option<String>, String> {
    let shown = format!("{attribute}: {}", values.join(","));
    if values.iter().any(|value| value.contains("${")) {
        return Err(format!("it depends on a value that is known at a start only: {shown}"));
    }
    let is_own = matches!(attribute, label::NAME | "hostname");
    let mut need = |key: &str| {
        let is_fact = label::FACT_NAMES.contains(&key);
        if !is_fact {
            label::validate_label(key, "").map_err(|_| format!("'{key}' is no name of a label: {shown}"))?;
            labels.insert(key.to_owned());
        }
        Ok::<(), String>(())
    };
    if attribute == "tags" {
        let mut all = Vec::new();
        for set in values.iter().flat_map(|value| value.split(',')) {
            let tags: Vec<&str> = set.split('+').map(str::trim).collect();
            tags.iter().try_for_each(|tag| need(tag))?;
            all.push(tags.join(" and "));
        }
        return Ok(Some(format!("({})", all.join(" or "))));
    }
    if !is_own {
        need(attribute)?;
    }
    let each: Vec<&str> = values.iter().flat_map(|value| value.split(',')).map(str::trim).collect();
    Ok(match each.as_slice() {
        [".*"] if is_own => None,
        // One alone is a regular expression, several are not.
        [one] if !is_literal(one) => {
            let pattern = one.strip_prefix('/').and_then(|one| one.strip_suffix('/')).unwrap_or(one);
            Some(format!("{attribute}~{}", value(pattern)))
        }
        [one] => Some(format!("{attribute}={}", value(one))),
        several => {
            let all: Vec<String> = several.iter().map(|one| value(one)).collect();
            Some(format!("{attribute} in ({})", all.join(", ")))
        }
    })
}

/// Whether it is meant as it stands: a dot alone makes no pattern of a name.
fn is_literal(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "_-.:@/ ".contains(c)) && !text.starts_with('/')
}

/// A value of a selector, in quotes where it needs them.
fn value(text: &str) -> String {
    let is_bare = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.:/@+-".contains(c))
        && !label::KEYWORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_bare { text.to_owned() } else { format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String, String> {
        let mut filter = Filter::default();
        filter.add_text(text)?;
        let targets = filter.targets(true)?.targets;
        Ok(targets.selector.unwrap_or_else(|| "all".to_owned()))
    }

    #[test]
    fn filters_as_selectors() {
        for (text, want) in [
            ("tags: web", "(web)"),
            ("tags: web+prod,canary name: web-.*", "(web and prod or canary) and name~\"web-.*\""),
            ("tags: web !os-family: windows", "(web) and not os-family=windows"),
            ("web1 web2", "name in (web1, web2)"),
            ("web1,web2 !nodename: web3", "name in (web1, web2) and not name=web3"),
            (".*", "all"),
            ("name: .* !tags: db", "not (db)"),
            ("hostname:dev1.example.com", "hostname=dev1.example.com"),
            (r"name: web-\d+", r#"name~"web-\\d+""#),
            ("env: 'two words'", "env=\"two words\""),
            ("env: and", "env=\"and\""),
            ("", "all"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(want), "{text}");
            if want != "all" {
                Selector::parse(want).unwrap();
            }
        }
        for text in [
            "tags: ${option.tag}",
            "tags:",
            "name: 'open",
            "9lives: x",
            "name: (?=x)y",
            "!name: .*",
            "tags: a++b",
        ] {
            assert!(of(text).is_err(), "{text}: {:?}", of(text));
        }
    }

    #[test]
    fn what_is_wanted_may_win() {
        let mut filter = Filter::default();
        filter.add_text("tags: web !env: prod").unwrap();
        let selected = filter.targets(false).unwrap();
        assert_eq!(selected.targets.selector.as_deref(), Some("(web)"));
        assert_eq!(selected.labels, BTreeSet::from(["web".to_owned()]));
        let mut filter = Filter::default();
        filter.add(false, "env", "prod");
        assert_eq!(filter.targets(false).unwrap().targets.selector.as_deref(), Some("not env=prod"));
    }
}
