//! What a step tells later ones: a JSON object that it writes into the file `OPSC_OUTPUTS`, with the names that it promised.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{Invalid, limits};

/// The values, by name.
pub type Outputs = Map<String, Value>;

/// Checks the names that a command promises.
///
/// # Errors
/// When there are too many, one is there twice, or is no name.
pub fn validate_names(field: &str, names: &[String]) -> Result<(), Invalid> {
    if names.len() > limits::OUTPUTS {
        return Err(Invalid::over(field, "OUTPUTS", limits::OUTPUTS, "names"));
    }
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        let at = || format!("{field}[{index}]");
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !starts_well || !name.chars().all(good) || name.len() > limits::SLUG_CHARS {
            let allowed = format!(
                "is '{name}'; it has 1 to {} lower-case letters, digits and _, a letter first",
                limits::SLUG_CHARS
            );
            return Err(Invalid::new(at(), allowed));
        }
        if !seen.insert(name) {
            return Err(Invalid::new(at(), format!("is '{name}', which is there twice")));
        }
    }
    Ok(())
}

/// Reads what a step wrote: one JSON object with exactly the promised names.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence about the step.
pub fn read(names: &[String], bytes: &[u8]) -> Result<Outputs, String> {
    let values = read_any(bytes)?;
    if let Some(missing) = names.iter().find(|name| !values.contains_key(*name)) {
        return Err(format!("promised the output '{missing}' and did not tell it"));
    }
    match values.keys().find(|name| !names.contains(name)) {
        Some(other) => Err(format!("told the output '{other}', which it did not promise")),
        None => Ok(values),
    }
}

/// The same, whatever the names.
///
/// # Errors
/// As [`read`].
pub fn read_any(bytes: &[u8]) -> Result<Outputs, String> {
    if bytes.len() > limits::OUTPUTS_BYTES {
        let most = limits::OUTPUTS_BYTES;
        return Err(format!("wrote more than {most} bytes (OUTPUTS_BYTES) of outputs"));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("promised outputs and wrote none into the file OPSC_OUTPUTS".to_owned());
    }
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("wrote outputs that are no JSON: {error}"))?;
    let Value::Object(values) = value else {
        return Err("wrote outputs that are no JSON object, as in {\"name\": 1}".to_owned());
    };
    if values.values().any(|value| depth(value) > limits::OUTPUTS_DEPTH) {
        let most = limits::OUTPUTS_DEPTH;
        return Err(format!("wrote outputs that are more than {most} levels deep (OUTPUTS_DEPTH)"));
    }
    // A database keeps no text with it, and no shell a word.
    if values.iter().any(|(name, value)| name.contains('\0') || has_nul(value)) {
        return Err("wrote outputs with a NUL character".to_owned());
    }
    Ok(values)
}

fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => return 0,
    };
    1 + below.unwrap_or(0)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn exactly_what_was_promised() {
        let promised = names(&["version", "hosts"]);
        let read = |text: &str| read(&promised, text.as_bytes());
        let good = read(" {\"version\": \"1.2\", \"hosts\": [1, null]}\n").unwrap();
        assert_eq!(good["version"], "1.2");
        for (text, what) in [
            ("", "wrote none"),
            ("\n", "wrote none"),
            ("nonsense", "no JSON"),
            ("[1]", "no JSON object"),
            ("{\"version\": 1}", "'hosts'"),
            ("{\"version\": 1, \"hosts\": 2, \"more\": 3}", "'more'"),
            ("{\"version\": \"\\u0000\", \"hosts\": 2}", "NUL"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(what), "{text}: {why}");
        }
        let long = format!("{{\"version\": \"{}\", \"hosts\": 1}}", "x".repeat(limits::OUTPUTS_BYTES));
        assert!(read(&long).unwrap_err().contains("OUTPUTS_BYTES"));
        let deep = format!("{{\"version\": {}{}, \"hosts\": 1}}", "[".repeat(20), "]".repeat(20));
        assert!(read(&deep).unwrap_err().contains("OUTPUTS_DEPTH"));
    }

    #[test]
    fn names_are_names() {
        validate_names("outputs", &names(&["a", "b_2"])).unwrap();
        for bad in [&["A"][..], &["2"], &[""], &["a-b"], &["a", "a"]] {
            assert!(validate_names("outputs", &names(bad)).is_err(), "{bad:?}");
        }
    }
}
