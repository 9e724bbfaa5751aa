//! Labels (set by people) and facts (found by the agent): two sets of `key=value` whose keys never overlap, because
//! the names of facts are a closed list that labels may not use. Permissions and scopes use labels only.

use std::collections::BTreeMap;

use crate::{Invalid, limits, sandbox::Profile};

pub type Labels = BTreeMap<String, String>;
pub type Facts = BTreeMap<String, String>;

/// The facts that an agent may report; everything else that it sends is dropped.
pub const FACT_NAMES: [&str; 19] = [
    "os",
    "os_version",
    "distro",
    "arch",
    "kernel",
    "cpus",
    "memory_mib",
    "hostname",
    "ip",
    "agent_version",
    "boot_id",
    "virtualization",
    "cgroup",
    "machine_id",
    "sandbox.standard",
    "sandbox.strict",
    "sandbox.isolated",
    "sandbox.limits",
    CONTAINERS_FACT,
];

/// The fact that says whether a host can run containers, and its policy allows them: `yes` or `no`.
pub const CONTAINERS_FACT: &str = "sandbox.containers";

/// The facts that say whether a host can give a sandbox, `yes` or `no`.
pub const SANDBOX_FACTS: [(Profile, &str); 3] = [
    (Profile::Standard, "sandbox.standard"),
    (Profile::Strict, "sandbox.strict"),
    (Profile::Isolated, "sandbox.isolated"),
];

/// Words with a meaning of their own in a selector: the key of an agent's name, and the keywords in any case.
pub const NAME: &str = "name";
pub const KEYWORDS: [&str; 4] = ["and", "or", "not", "in"];

/// Checks how the key of a label is written, whatever it means.
///
/// # Errors
/// Names `field` and what is allowed.
pub fn validate_key(field: &str, key: &str) -> Result<(), Invalid> {
    let mut chars = key.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    if !starts_well || !chars.all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c)) {
        return Err(Invalid::new(
            field,
            "is not a label key (a letter, then letters, digits and any of _ . - /)",
        ));
    }
    if key.len() > limits::NAME_CHARS {
        return Err(Invalid::over(field, "NAME_CHARS", limits::NAME_CHARS, "characters"));
    }
    Ok(())
}

/// Checks one label.
///
/// # Errors
/// Names the field `labels.KEY` and what is allowed.
pub fn validate_label(key: &str, value: &str) -> Result<(), Invalid> {
    validate_label_in("labels", key, value)
}

fn validate_label_in(labels: &str, key: &str, value: &str) -> Result<(), Invalid> {
    let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
    let field = format!("{labels}.{shown}");
    validate_key(&field, key)?;
    if FACT_NAMES.contains(&key) {
        return Err(Invalid::new(field, "is the name of a fact, which only the agent reports"));
    }
    if key == NAME || KEYWORDS.iter().any(|word| word.eq_ignore_ascii_case(key)) {
        return Err(Invalid::new(field, "is a word of the selector language"));
    }
    if value.chars().count() > limits::NAME_CHARS {
        return Err(Invalid::over(field, "NAME_CHARS", limits::NAME_CHARS, "characters"));
    }
    if value.chars().any(char::is_control) {
        return Err(Invalid::new(field, "has a control character in its value"));
    }
    Ok(())
}

/// Checks a whole set of labels.
///
/// # Errors
/// The first label that is wrong, or that there are too many.
pub fn validate_labels(labels: &Labels) -> Result<(), Invalid> {
    validate_labels_in("labels", labels)
}

/// As [`validate_labels`], of a set that the request calls `field`.
///
/// # Errors
/// The first label that is wrong, as `field.KEY`, or that there are too many.
pub fn validate_labels_in(field: &str, labels: &Labels) -> Result<(), Invalid> {
    if labels.len() > limits::LABELS {
        return Err(Invalid::over(field, "LABELS", limits::LABELS, "labels"));
    }
    labels.iter().try_for_each(|(key, value)| validate_label_in(field, key, value))
}

/// Keeps of what an agent reported the facts that have a known name and a value within its limit.
pub fn accept_facts(reported: impl IntoIterator<Item = (String, String)>) -> Facts {
    reported
        .into_iter()
        .filter(|(name, value)| {
            FACT_NAMES.contains(&name.as_str())
                && value.len() <= limits::FACT_BYTES
                && !value.chars().any(char::is_control)
        })
        .take(limits::FACTS)
        .collect()
}

/// Checks the name of an agent: as host names are, dots and underscores allowed.
///
/// # Errors
/// Names the field `name` and what is allowed.
pub fn validate_name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() || name.len() > limits::NAME_CHARS {
        return Err(Invalid::new("name", format!("must have 1 to {} characters", limits::NAME_CHARS)));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !name.chars().all(good) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(Invalid::new(
            "name",
            "is not a host name (a letter or digit, then letters, digits and any of _ . -)",
        ));
    }
    Ok(())
}
