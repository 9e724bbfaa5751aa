//! The wall clock, for what a test must compare with it.

/// This moment.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
