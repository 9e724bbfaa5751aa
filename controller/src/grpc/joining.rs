//! `Join`, for a controller that has a token.

use std::sync::Arc;

use proto::{JoinAnswer, JoinRequest, joining_server::Joining};
use tonic::{Request, Response, Status};

use super::{peer, rate::ByAddress, refuse};
use crate::app::{App, joining};

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
impl Joining for Door {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinAnswer>, Status> {
        let address = peer(&request)?.address.ip().to_canonical();
        self.by_address.limit(address)?;
        let answer = joining::join(&self.app, address, request.into_inner()).await.map_err(refuse)?;
        Ok(Response::new(answer))
    }
}
