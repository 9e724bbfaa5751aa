//! How often one address may call who needs no certificate.

use std::{net::IpAddr, num::NonZeroU32};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use model::limits;
use tonic::Status;

use super::refuse;
use crate::{address::counted, error::Error};

/// Addresses that are remembered before those are forgotten that have been quiet.
const REMEMBERED: usize = 10_000;

/// [`limits::ENROLLMENTS_PER_SECOND`] of each address.
pub(super) struct ByAddress(DefaultKeyedRateLimiter<IpAddr>);

impl ByAddress {
    pub(super) fn new() -> Self {
        let rate = NonZeroU32::new(limits::ENROLLMENTS_PER_SECOND).expect("the limit is not zero");
        Self(RateLimiter::keyed(Quota::per_second(rate)))
    }

    pub(super) fn limit(&self, address: IpAddr) -> Result<(), Status> {
        if self.0.len() > REMEMBERED {
            self.0.retain_recent();
        }
        self.0.check_key(&counted(address)).map_err(|_| refuse(Error::TooMany { retry_after_seconds: 1 }))
    }
}
