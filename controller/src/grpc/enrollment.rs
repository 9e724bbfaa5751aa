//! `Enroll`, for whoever has a token, and `Renew`, for whoever has a certificate.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use model::limits;
use proto::{Credentials, EnrollRequest, RenewRequest, enrollment_server::Enrollment};
use tonic::{Request, Response, Status};

use super::{identity, peer, refuse};
use crate::{
    app::{App, enrollment, sessions},
    error::Error,
};

/// Addresses that the limiter remembers before it forgets those that have been quiet.
const REMEMBERED: usize = 10_000;

pub(super) struct Door {
    app: Arc<App>,
    by_address: DefaultKeyedRateLimiter<IpAddr>,
}

impl Door {
    pub(super) fn new(app: Arc<App>) -> Self {
        let rate = NonZeroU32::new(limits::ENROLLMENTS_PER_SECOND).expect("the limit is not zero");
        Self { app, by_address: RateLimiter::keyed(Quota::per_second(rate)) }
    }

    fn limit(&self, address: IpAddr) -> Result<(), Status> {
        if self.by_address.len() > REMEMBERED {
            self.by_address.retain_recent();
        }
        self.by_address.check_key(&address).map_err(|_| refuse(Error::TooMany { retry_after_seconds: 1 }))
    }
}

#[tonic::async_trait]
impl Enrollment for Door {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<Credentials>, Status> {
        let address = peer(&request)?.address.ip().to_canonical();
        self.limit(address)?;
        let credentials =
            enrollment::enroll(&self.app, address, request.into_inner()).await.map_err(refuse)?;
        Ok(Response::new(credentials))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Credentials>, Status> {
        let identity = identity(&request)?;
        let standing = sessions::admit(&self.app, &identity).await.map_err(refuse)?;
        let renewed = enrollment::renew(&self.app, &identity, request.into_inner(), standing.pending).await;
        let credentials = renewed.map_err(refuse)?;
        Ok(Response::new(credentials))
    }
}
