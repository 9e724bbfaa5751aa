//! The agents' door: TLS, who is calling, and one file for each service.
//!
//! Invariants: an agent is who its certificate says; every call is admitted against the agent's row; only Enroll and
//! Join answer without a certificate, and an expired one may do nothing but Renew.

mod connection;
mod enrollment;
mod joining;
mod metrics;
mod output;
mod rate;
mod session;
mod status;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use model::limits;
use pki::identity::AgentIdentity;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, transport::Server};

use self::status::refuse;
use crate::{
    app::{App, sessions},
    clock, store,
};

/// HTTP/2 pings: how often on a quiet connection, and how long their answer may take.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that may be under way on one stream and on one connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes of a call's headers.
const HEADER_BYTES: u32 = 16 * 1024;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    /// Absent for a host that wants to enroll, and for a controller that wants to join.
    pub agent: Option<Arc<AgentIdentity>>,
}

/// Serves agents on `listener` until `shutdown`.
///
/// # Errors
/// When serving fails as a whole; a failing connection concerns nobody else.
pub(crate) async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let connections = connection::accept(Arc::clone(&app), listener, shutdown.clone());
    let message = limits::GRPC_MESSAGE_BYTES;
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits::GRPC_STREAMS)
        .http2_max_header_list_size(HEADER_BYTES)
        .tcp_nodelay(true)
        .add_service(
            proto::enrollment_server::EnrollmentServer::new(enrollment::Door::new(Arc::clone(&app)))
                .max_decoding_message_size(message),
        )
        .add_service(
            proto::joining_server::JoiningServer::new(joining::Door::new(Arc::clone(&app)))
                .max_decoding_message_size(message),
        )
        .add_service(
            proto::session_server::SessionServer::new(session::Door::new(Arc::clone(&app), shutdown.clone()))
                .max_decoding_message_size(message),
        )
        .add_service(
            proto::output_server::OutputServer::new(output::Door::new(Arc::clone(&app), shutdown.clone()))
                .max_decoding_message_size(message),
        )
        .add_service(
            proto::metrics_server::MetricsServer::new(metrics::Door::new(app))
                .max_decoding_message_size(message),
        )
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), shutdown.cancelled_owned())
        .await?;
    Ok(())
}

/// Admits a call: the certificate has to be there, unexpired and of an agent that is neither revoked nor replaced.
async fn admit<T>(
    app: &App,
    request: &Request<T>,
) -> Result<(Arc<AgentIdentity>, store::agents::Standing), Status> {
    let identity = identity(request)?;
    if identity.not_after < clock::now() {
        return Err(Status::unauthenticated("the certificate has expired; renew it"));
    }
    let standing = sessions::admit(app, &identity).await.map_err(refuse)?;
    Ok((identity, standing))
}

/// Who calls, by the certificate of the connection.
fn identity<T>(request: &Request<T>) -> Result<Arc<AgentIdentity>, Status> {
    peer(request)?
        .agent
        .ok_or_else(|| Status::unauthenticated("a client certificate is needed; enroll first"))
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("the connection has no peer"))
}
