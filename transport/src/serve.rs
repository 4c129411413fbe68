//! Taking connections: peers by certificate, clients without.

use std::sync::Arc;

use quinn::{Endpoint, Incoming};

use crate::identity::{CLIENT_ALPN, NODE_ALPN, alpn_of};
use crate::peer;
use crate::session;
use crate::shared::{Shared, close, code};
use crate::tasks::Tasks;

/// Takes connections until the endpoint closes.
pub(crate) async fn accept(shared: Arc<Shared>, endpoint: Endpoint, tasks: Tasks) {
    while let Some(incoming) = endpoint.accept().await {
        tasks.spawn(serve(shared.clone(), tasks.clone(), incoming));
    }
}

async fn serve(shared: Arc<Shared>, tasks: Tasks, incoming: Incoming) {
    let remote = incoming.remote_address();
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%remote, %error, "handshake failed"),
    };
    match alpn_of(&connection).as_deref() {
        Some(NODE_ALPN) if connection.peer_identity().is_some() => {
            peer::run(shared, tasks, connection, None).await;
        }
        Some(NODE_ALPN) => {
            tracing::warn!(%remote, "peer refused: it shows no certificate");
            close(&connection, code::STRANGER, "a node must show a certificate of the cluster's authority");
        }
        Some(CLIENT_ALPN) => session::run(shared, tasks, connection).await,
        Some(_) | None => close(&connection, code::STRANGER, "the protocol is unknown"),
    }
}
