//! `Enroll`, for whoever has a token, and `Renew`, for whoever has a certificate.

use std::sync::Arc;

use proto::{Credentials, EnrollRequest, RenewRequest, enrollment_server::Enrollment};
use tonic::{Request, Response, Status};

use super::{identity, peer, rate::ByAddress, refuse};
use crate::app::{App, enrollment, sessions};

pub(super) struct Door {
    app: Arc<App>,
    by_address: ByAddress,
}

impl Door {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app, by_address: ByAddress::new() }
    }
}

#[tonic::async_trait]
impl Enrollment for Door {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<Credentials>, Status> {
        let address = peer(&request)?.address.ip().to_canonical();
        self.by_address.limit(address)?;
        let credentials =
            enrollment::enroll(&self.app, address, request.into_inner()).await.map_err(refuse)?;
        Ok(Response::new(credentials))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Credentials>, Status> {
        let identity = identity(&request)?;
        let standing = sessions::admit(&self.app, &identity).await.map_err(refuse)?;
        let from = peer(&request)?.address.ip().to_canonical();
        let renewed =
            enrollment::renew(&self.app, &identity, from, request.into_inner(), standing.pending).await;
        let credentials = renewed.map_err(refuse)?;
        Ok(Response::new(credentials))
    }
}
