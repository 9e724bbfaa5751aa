//! Conditions: the expression of an `if:`, which is true or false and nothing between.

use minijinja::{Value, value::ValueKind};

use super::{
    context::{Context, Names},
    template::{check_expression, engine, translate, translate_undefined},
};
use crate::Invalid;

/// Checks an expression before it is stored: its form and the names it uses.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(field: &str, expression: &str, names: &Names) -> Result<(), Invalid> {
    used(field, expression)?.iter().try_for_each(|path| names.check(field, path, ""))
}

/// The dotted paths that it reads, sorted.
///
/// # Errors
/// When it cannot be read.
pub fn used(field: &str, expression: &str) -> Result<Vec<String>, Invalid> {
    check_expression(field, expression)?;
    let engine = engine(field)?;
    let compiled = engine.compile_expression(expression).map_err(|error| translate(field, &error))?;
    let mut used: Vec<String> = compiled.undeclared_variables(true).into_iter().collect();
    used.sort();
    Ok(used)
}

/// Whether it holds.
///
/// # Errors
/// It cannot be read, uses what has no value here, takes more than `TEMPLATE_FUEL`, or is neither true nor false.
pub fn evaluate(field: &str, expression: &str, context: &Context) -> Result<bool, Invalid> {
    holds(field, expression, &Value::from(minijinja::value::Serde(context)))
}

/// Whether it holds of this data.
///
/// # Errors
/// As [`evaluate`].
pub(crate) fn holds(field: &str, expression: &str, data: &Value) -> Result<bool, Invalid> {
    let value = value(field, expression, data)?;
    match value.kind() {
        ValueKind::Bool => Ok(value.is_true()),
        kind => {
            let problem =
                format!("is a {kind}, not true or false; compare it, as in `x == 'yes'` or `x != 0`");
            Err(Invalid::new(field, problem))
        }
    }
}

/// What it gives of this data.
///
/// # Errors
/// It cannot be read, uses what has no value here, or takes more than `TEMPLATE_FUEL`.
pub(crate) fn value(field: &str, expression: &str, data: &Value) -> Result<Value, Invalid> {
    check_expression(field, expression)?;
    let engine = engine(field)?;
    let compiled = engine.compile_expression(expression).map_err(|error| translate(field, &error))?;
    let undefined = |error: &minijinja::Error| {
        translate_undefined(field, error, data, || compiled.undeclared_variables(true))
    };
    let value = compiled.eval(data.clone()).map_err(|error| undefined(&error))?;
    match value.kind() {
        ValueKind::Undefined => Err(undefined(&minijinja::ErrorKind::UndefinedError.into())),
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests;
