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
    check_expression(field, expression)?;
    let engine = engine(field)?;
    let compiled = engine.compile_expression(expression).map_err(|error| translate(field, &error))?;
    let context = Value::from(minijinja::value::Serde(context));
    let undefined = |error: &minijinja::Error| {
        translate_undefined(field, error, &context, || compiled.undeclared_variables(true))
    };
    let value = compiled.eval(context.clone()).map_err(|error| undefined(&error))?;
    match value.kind() {
        ValueKind::Bool => Ok(value.is_true()),
        ValueKind::Undefined => Err(undefined(&minijinja::ErrorKind::UndefinedError.into())),
        kind => {
            let problem =
                format!("is a {kind}, not true or false; compare it, as in `x == 'yes'` or `x != 0`");
            Err(Invalid::new(field, problem))
        }
    }
}

#[cfg(test)]
mod tests;
