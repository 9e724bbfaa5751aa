//! Matrices: one step of the document, run once for each combination of values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::parameters::normal;
use crate::{Invalid, limits};

/// The values of each name.
pub type Matrix = BTreeMap<String, Vec<Value>>;
/// One combination.
pub type Cell = BTreeMap<String, Value>;

/// Checks names, values and how many combinations there are.
///
/// # Errors
/// The first thing that is wrong, as a path below the step.
pub(super) fn validate(matrix: &Matrix) -> Result<(), Invalid> {
    let mut cells = 1_usize;
    for (name, values) in matrix {
        let field = format!("matrix.{name}");
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase())
            || !name.chars().all(good)
            || name.len() > limits::PARAMETER_NAME_CHARS
        {
            let why = "is not a name (a small letter, then small letters, digits and '_')";
            return Err(Invalid::new(field, why));
        }
        if values.is_empty() {
            return Err(Invalid::new(field, "has no values"));
        }
        for (index, value) in values.iter().enumerate() {
            let at = || format!("{field}[{index}]");
            match value {
                Value::String(text) if text.contains('\0') => {
                    return Err(Invalid::new(at(), "contains a NUL character"));
                }
                Value::String(text) if text.len() > limits::COMMENT_BYTES => {
                    return Err(Invalid::over(at(), "COMMENT_BYTES", limits::COMMENT_BYTES, "bytes"));
                }
                Value::Number(number)
                    if number.as_f64().is_none_or(|n| n.abs() > limits::PARAMETER_NUMBER) =>
                {
                    let why = format!("is beyond {} (PARAMETER_NUMBER)", limits::PARAMETER_NUMBER);
                    return Err(Invalid::new(at(), why));
                }
                Value::String(_) | Value::Number(_) | Value::Bool(_) => {}
                _ => return Err(Invalid::new(at(), "is no text, number, true or false")),
            }
            if values[..index].contains(value) {
                return Err(Invalid::new(at(), "is there twice"));
            }
        }
        cells = cells.saturating_mul(values.len());
    }
    if cells > limits::STEPS {
        let why = format!("makes {cells} steps of one; {} are allowed (STEPS)", limits::STEPS);
        return Err(Invalid::new("matrix", why));
    }
    Ok(())
}

/// Every combination, the last name's values changing first; one without values where there is no matrix.
pub(super) fn cells(matrix: &Matrix) -> Vec<Cell> {
    let mut cells = vec![Cell::new()];
    for (name, values) in matrix {
        cells = cells
            .iter()
            .flat_map(|cell| {
                values.iter().map(move |value| {
                    let mut cell = cell.clone();
                    cell.insert(name.clone(), normal(value));
                    cell
                })
            })
            .collect();
    }
    cells
}

/// The name that the step of a combination has, which are numbered from 1.
pub(super) fn name(step: &str, number: usize) -> String {
    format!("{step}.{number}")
}

/// What a step finds of its combination in its environment: `OPSC_MATRIX_NAME`.
pub(super) fn environment(cell: &Cell) -> impl Iterator<Item = (String, String)> {
    cell.iter().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (format!("OPSC_MATRIX_{}", name.to_ascii_uppercase()), text)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matrix(value: Value) -> Matrix {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_combination_once() {
        let cells = cells(&matrix(json!({ "os": ["a", "b"], "n": [1, true] })));
        let said: Vec<String> = cells.iter().map(|cell| json!(cell).to_string()).collect();
        assert_eq!(
            said,
            [
                r#"{"n":1,"os":"a"}"#,
                r#"{"n":1,"os":"b"}"#,
                r#"{"n":true,"os":"a"}"#,
                r#"{"n":true,"os":"b"}"#
            ]
        );
        assert_eq!(super::cells(&Matrix::new()), [Cell::new()]);
        assert_eq!(
            super::cells(&matrix(json!({ "a": [-0.0] })))[0]["a"].to_string(),
            "0",
            "as a database has it"
        );
    }

    #[test]
    fn one_that_explodes_is_refused() {
        let ten: Vec<u32> = (0..10).collect();
        validate(&matrix(json!({ "a": ten, "b": ten }))).unwrap();
        let bad = [
            (json!({ "a": ten, "b": ten, "c": ten, "d": ten }), "10000 steps"),
            (json!({ "A": [1] }), "not a name"),
            (json!({ "a": [] }), "no values"),
            (json!({ "a": [[1]] }), "no text"),
            (json!({ "a": [1, 1] }), "twice"),
            (json!({ "a": ["\u{0}"] }), "NUL"),
            (json!({ "a": [1e16] }), "PARAMETER_NUMBER"),
        ];
        for (value, what) in bad {
            let invalid = validate(&matrix(value.clone())).unwrap_err();
            assert!(invalid.problem.contains(what), "{value}: {invalid}");
        }
    }
}
