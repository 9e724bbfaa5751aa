//! Host metrics: each call brings the samples since the last one.

use std::sync::Arc;

use proto::{HostSample, MetricsReply, metrics_server::Metrics};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::admit;
use crate::app::App;

/// Samples that one call may bring.
const SAMPLES: u32 = 64;

pub(super) struct Door {
    app: Arc<App>,
}

impl Door {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl Metrics for Door {
    async fn report(
        &self,
        request: Request<Streaming<HostSample>>,
    ) -> Result<Response<MetricsReply>, Status> {
        let (identity, standing) = admit(&self.app, &request).await?;
        if standing.pending {
            return Err(Status::permission_denied("pending"));
        }
        let mut samples = request.into_inner();
        let mut stored = 0;
        while let Some(sample) = samples.next().await {
            if stored == SAMPLES {
                return Err(Status::resource_exhausted("too many samples in one call"));
            }
            if self.app.samples.put(identity.org_id, identity.agent_id, sample?) {
                stored += 1;
            }
        }
        Ok(Response::new(MetricsReply { stored }))
    }
}
