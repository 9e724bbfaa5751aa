//! What an `Idempotency-Key` may look like.

use model::{Invalid, limits};

/// # Errors
/// When it is empty, too long, or not of visible ASCII characters.
pub(crate) fn check_key(key: &str) -> Result<(), Invalid> {
    if key.is_empty()
        || key.len() > limits::IDEMPOTENCY_KEY_BYTES
        || !key.bytes().all(|b| b.is_ascii_graphic())
    {
        let allowed = format!("must be 1 to {} visible ASCII characters", limits::IDEMPOTENCY_KEY_BYTES);
        return Err(Invalid::new("Idempotency-Key", allowed));
    }
    Ok(())
}
