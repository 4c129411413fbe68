//! The nodes of a cluster as a client reaches them: addresses, connections, and sessions for questions.
//!
//! Connections are made when they are first needed, shared by all that need them, and made anew when they have ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use varve_protocol::frame::Frame;
use varve_transport::{ClientConnection, ClientEndpoint, TransportError};

use crate::caller::Caller;
use crate::error::ClientError;
use crate::link::{Heard, Link};

/// How long opening a session may take on a connection that stands.
const SESSION_MAX: Duration = Duration::from_millis(500);

/// One address: its connection and its session for questions, each made once by whoever comes first.
#[derive(Default)]
struct Node {
    connection: OnceCell<ClientConnection>,
    caller: OnceCell<Caller>,
    heard: Arc<Heard>,
}

/// Connections by address.
pub(crate) struct Nodes {
    endpoint: ClientEndpoint,
    by_address: Mutex<BTreeMap<String, Arc<Node>>>,
}

fn failed(error: &TransportError) -> ClientError {
    let reason = error.to_string();
    match matches!(error, TransportError::Release { .. }) {
        true => ClientError::Release { reason },
        false => ClientError::Unreachable { reason },
    }
}

impl Nodes {
    pub(crate) fn new(endpoint: ClientEndpoint) -> Self {
        Self { endpoint, by_address: Mutex::default() }
    }

    /// Asks the node at an address and waits for its answer.
    pub(crate) async fn call(
        &self,
        address: &str,
        frame: Frame,
        limit: Duration,
    ) -> Result<Frame, ClientError> {
        let asked = async {
            let node = self.node(address);
            let caller = node.caller.get_or_try_init(|| async {
                let connection = self.connection(&node, address).await?;
                Ok::<_, ClientError>(Caller::new(open(connection, &node).await?))
            });
            let answer = caller.await?.call(frame).await;
            answer.ok_or_else(|| ClientError::Unreachable {
                reason: format!("the connection to {address} broke"),
            })
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(ClientError::Unreachable { reason: format!("{address} did not answer within {limit:?}") })
            }
        }
    }

    /// Opens a session of one's own with the node at an address.
    pub(crate) async fn open(&self, address: &str) -> Result<Link, ClientError> {
        let node = self.node(address);
        open(self.connection(&node, address).await?, &node).await
    }

    /// Whether the node at an address was heard within `limit`, by whatever part of this client.
    pub(crate) fn was_heard(&self, address: &str, limit: Duration) -> bool {
        self.lock().get(address).is_some_and(|node| node.heard.is_within(limit))
    }

    /// Drops what is known of an address, so that the next call connects anew.
    pub(crate) fn forget(&self, address: &str) {
        self.lock().remove(address);
    }

    pub(crate) async fn shutdown(&self) {
        self.endpoint.shutdown().await;
    }

    async fn connection<'a>(
        &self,
        node: &'a Node,
        address: &str,
    ) -> Result<&'a ClientConnection, ClientError> {
        let connecting = node.connection.get_or_try_init(|| self.endpoint.connect(address));
        connecting.await.map_err(|error| failed(&error))
    }

    /// The entry of an address; a new one if the old one's connection has ended.
    fn node(&self, address: &str) -> Arc<Node> {
        let mut by_address = self.lock();
        let node = by_address.entry(address.to_owned()).or_default();
        let is_over = node.connection.get().is_some_and(ClientConnection::is_closed)
            || node.caller.get().is_some_and(Caller::is_closed);
        if is_over {
            *node = Arc::default();
        }
        node.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Node>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(connection: &ClientConnection, node: &Node) -> Result<Link, ClientError> {
    match tokio::time::timeout(SESSION_MAX, Link::open(connection, node.heard.clone())).await {
        Ok(link) => link.map_err(|error| failed(&error)),
        Err(_) => Err(ClientError::Unreachable { reason: format!("no session within {SESSION_MAX:?}") }),
    }
}
