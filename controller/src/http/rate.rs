//! How often somebody may ask: each actor by its credential, and each address for what it asks without a valid one.
//!
//! The state is this process's own: two controllers allow twice as much.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use model::limits;
use uuid::Uuid;

use super::Door;
use crate::{
    address::counted,
    error::{Error, Result},
};

/// How often those who have been quiet are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Limits {
    requests: DefaultKeyedRateLimiter<Uuid>,
    denials: DefaultKeyedRateLimiter<IpAddr>,
    denied: DefaultKeyedRateLimiter<Uuid>,
    logins: DefaultKeyedRateLimiter<IpAddr>,
    deliveries: DefaultKeyedRateLimiter<Uuid>,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self {
            requests: RateLimiter::keyed(quota(limits::API_REQUESTS_PER_SECOND)),
            denials: RateLimiter::keyed(quota(limits::API_DENIALS_PER_SECOND)),
            denied: RateLimiter::keyed(by_minute(limits::DENIALS_PER_MINUTE)),
            logins: RateLimiter::keyed(by_minute(limits::LOGINS_PER_MINUTE)),
            deliveries: RateLimiter::keyed(by_minute(limits::DELIVERIES_PER_MINUTE)),
        }
    }

    /// Counts a request of a known actor.
    ///
    /// # Errors
    /// [`Error::TooMany`] over `API_REQUESTS_PER_SECOND`.
    pub(super) fn request(&self, credential: Uuid) -> Result<()> {
        check(&self.requests, &credential)
    }

    /// Counts a request without a valid credential. Valid ones from the same address are never held up by it.
    ///
    /// # Errors
    /// [`Error::TooMany`] over `API_DENIALS_PER_SECOND`.
    pub(super) fn denial(&self, address: IpAddr) -> Result<()> {
        check(&self.denials, &counted(address))
    }

    /// Counts what a known actor is refused for want of a right.
    ///
    /// # Errors
    /// [`Error::TooMany`] over `DENIALS_PER_MINUTE`.
    pub(super) fn denied(&self, credential: Uuid) -> Result<()> {
        check(&self.denied, &credential)
    }

    /// Counts a try to log in, good or bad, before its password is looked at: that is what costs.
    ///
    /// # Errors
    /// [`Error::TooMany`] over `LOGINS_PER_MINUTE`.
    pub(super) fn login(&self, address: IpAddr) -> Result<()> {
        check(&self.logins, &counted(address))
    }

    /// Counts a delivery for a schedule, of a sender that knows its secret.
    ///
    /// # Errors
    /// [`Error::TooMany`] over `DELIVERIES_PER_MINUTE`.
    pub(super) fn delivery(&self, schedule: Uuid) -> Result<()> {
        check(&self.deliveries, &schedule)
    }
}

fn by_minute(most: u32) -> Quota {
    Quota::per_minute(NonZeroU32::new(most).expect("limits are above zero"))
}

fn quota(per_second: u32) -> Quota {
    Quota::per_second(NonZeroU32::new(per_second).expect("limits are above zero"))
}

fn check<K: Clone + Eq + std::hash::Hash>(limiter: &DefaultKeyedRateLimiter<K>, key: &K) -> Result<()> {
    limiter.check_key(key).map_err(|refused| {
        let wait = refused.wait_time_from(DefaultClock::default().now());
        Error::TooMany { retry_after_seconds: wait.as_secs() + 1 }
    })
}

/// Keeps the state as small as the number of those who ask now.
pub(super) async fn forget_the_quiet(door: Arc<Door>) {
    let mut every = tokio::time::interval(FORGET_EVERY);
    loop {
        tokio::select! {
            () = door.stop.cancelled() => return,
            _ = every.tick() => {
                door.limits.requests.retain_recent();
                door.limits.denials.retain_recent();
                door.limits.denied.retain_recent();
                door.noted.forget();
                door.limits.logins.retain_recent();
                door.limits.deliveries.retain_recent();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_hold_up_another() {
        let door = Limits::new();
        let [bad, good] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        let refused = (0..1000).find_map(|_| door.denial(bad).err()).expect("over the limit");
        assert!(matches!(refused, Error::TooMany { retry_after_seconds: 1 }), "{refused}");
        door.denial(good).expect("another address");
        for _ in 0..limits::LOGINS_PER_MINUTE {
            door.login(bad).expect("within the limit");
        }
        let refused = door.login(bad).expect_err("over the limit");
        assert!(matches!(refused, Error::TooMany { retry_after_seconds: 1..=4 }), "{refused}");
        door.login(good).expect("another address");
    }
}
