//! The error of every check in this crate: which field is wrong, and what would be right.

/// A value that a person or a program gave is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Invalid {
    /// Path of the field, as in the request's JSON.
    pub field: String,
    /// What is wrong with it and what is allowed, as the rest of a sentence that begins with the field.
    pub problem: String,
}

impl Invalid {
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// `field` is larger than the limit called `name`.
    pub fn over(field: impl Into<String>, name: &str, limit: usize, unit: &str) -> Self {
        Self::new(field, format!("is over the limit {name} of {limit} {unit}"))
    }
}
