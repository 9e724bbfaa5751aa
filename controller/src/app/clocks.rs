//! The clocks of several controllers on one database.
//!
//! They write times that the others read: when an agent left, when an order's window is over. So each holds its own clock
//! against the database's, and none works beside others with one that is wrong. One that is alone has nobody to confuse.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use model::id::ControllerId;
use sqlx::PgPool;

use crate::{
    clock,
    error::{Error, Result},
    store,
};

/// The part of a lease by which a controller's clock may differ from the database's.
const PART_OF_LEASE: u32 = 4;

/// Compares this controller's clock with the database's.
///
/// # Errors
/// [`Error::Fatal`] when they are too far apart and another controller holds a lease.
pub(crate) async fn agree(pool: &PgPool, me: ControllerId, lease: Duration) -> Result<()> {
    let before = clock::now();
    let (theirs, others) = store::controllers::clock(pool, me).await?;
    let apart = apart(before, theirs, clock::now());
    let bound = lease / PART_OF_LEASE;
    if apart.unsigned_abs() <= bound {
        return Ok(());
    }
    let (apart, direction) = (apart.unsigned_abs(), if apart.is_positive() { "ahead of" } else { "behind" });
    if others == 0 {
        tracing::warn!(
            clock.apart_s = apart.as_secs_f64(),
            "this host's clock is {direction} the database's; another controller could not work beside it"
        );
        return Ok(());
    }
    Err(Error::Fatal(format!(
        "this host's clock is {:.1} s {direction} the database's, and other controllers work on it: set it right (up to \
         {:.1} s are allowed, a quarter of [timing] lease)",
        apart.as_secs_f64(),
        bound.as_secs_f64()
    )))
}

/// How far ahead the own clock is at least, given what it showed before and after the other one was read.
fn apart(before: Timestamp, theirs: Timestamp, after: Timestamp) -> SignedDuration {
    if theirs < before {
        before.duration_since(theirs)
    } else if theirs > after {
        after.duration_since(theirs)
    } else {
        SignedDuration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_difference() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(apart(at(10), at(10), at(10)), SignedDuration::ZERO);
        assert_eq!(apart(at(10), at(15), at(40)), SignedDuration::ZERO);
        assert_eq!(apart(at(10), at(7), at(40)), SignedDuration::from_secs(3));
        assert_eq!(apart(at(10), at(50), at(40)), SignedDuration::from_secs(-10));
    }
}
