//! Query parameters: each is known, and a wrong one is named.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{Door, body, problem::Failure};

/// The second in which the year 9999 begins.
const YEAR_9999: i64 = 253_370_764_800;

/// The parameters behind the `?`.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Door>> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Door>) -> Result<Self, Failure> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// A point in time that can be looked for.
///
/// # Errors
/// Names the field, when it is outside of the years 1970 to 9998.
pub(super) fn time(field: &'static str, at: Option<Timestamp>) -> Result<Option<Timestamp>, Failure> {
    match at {
        Some(at) if at < Timestamp::UNIX_EPOCH || at.as_second() >= YEAR_9999 => {
            Err(Failure::invalid(field, "must be of the years 1970 to 9998"))
        }
        at => Ok(at),
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(text.as_bytes()));
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let message = error.inner().to_string();
        body::wrong_field(&error.path().to_string(), &message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        limit: Option<i64>,
        stream: Option<model::api::output::Stream>,
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = parse::<Parameters>("limit=7&stream=stderr").expect("valid");
        assert_eq!((good.limit, good.stream), (Some(7), Some(model::api::output::Stream::Stderr)));
        for (text, field) in [
            ("limt=7", "limt"),
            ("limit=many", "limit"),
            ("limit=", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("limit=1&limit=2", "limit"),
            ("stream=both", "stream"),
        ] {
            let problem = parse::<Parameters>(text).expect_err(text).problem("r1");
            assert_eq!(
                (problem.status, problem.field.as_deref()),
                (400, Some(field)),
                "{text}: {}",
                problem.detail
            );
        }
    }
}
