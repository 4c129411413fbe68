//! The client's side: connections to nodes, and sessions on them.

use std::sync::Arc;
use std::time::Duration;

use quinn::{AsyncUdpSocket, Connection, Endpoint, RecvStream, Runtime, SendStream};
use varve_protocol::frame::{Command, Frame, FrameError, FrameHeader};
use varve_protocol::id::{ClusterId, NodeId};
use varve_protocol::version::{Version, Versions};

use crate::error::TransportError;
use crate::framing::{read_frame, write_frame};
use crate::identity::{ANY_NODE_NAME, client_config};
use crate::shared::{close, code};
use crate::socket::Resolve;
use crate::tuning::{Tuning, seed_or_entropy};

/// How long a handshake may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The certificate of the cluster's authority.
    pub ca_pem: Vec<u8>,
    /// Settings.
    pub tuning: Tuning,
    /// What the release of this client knows.
    pub versions: Versions,
    /// In simulation, the root of all that is drawn here.
    pub seed: Option<[u8; 32]>,
}

/// A client's socket.
pub struct ClientEndpoint {
    endpoint: Endpoint,
    resolver: Arc<dyn Resolve>,
    versions: Versions,
}

impl ClientEndpoint {
    /// Makes an endpoint on a socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the authority's certificate or a setting cannot be used.
    pub fn new(
        config: &ClientConfig,
        runtime: Arc<dyn Runtime>,
        socket: Arc<dyn AsyncUdpSocket>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, TransportError> {
        // A client has no restarts that anybody waits for, so its keys may be new each time.
        let seed = seed_or_entropy(config.seed);
        let mut reset_key = [0; 64];
        reset_key[..32].copy_from_slice(&seed);
        let endpoint_config = config.tuning.endpoint_config(&reset_key, config.seed)?;
        let mut endpoint = Endpoint::new_with_abstract_socket(endpoint_config, None, socket, runtime)
            .map_err(TransportError::Endpoint)?;
        endpoint.set_default_client_config(client_config(&config.ca_pem, &config.tuning)?);
        Ok(Self { endpoint, resolver, versions: config.versions })
    }

    /// Connects to a node at `host:port`.
    ///
    /// # Errors
    /// When nobody answers there in time, or somebody whom the authority does not vouch for.
    pub async fn connect(&self, address: &str) -> Result<ClientConnection, TransportError> {
        let refused = |reason: String| TransportError::Connect { address: address.to_owned(), reason };
        let resolved = self.resolver.resolve(address).await;
        let remote =
            resolved.map_err(|source| TransportError::Resolve { address: address.to_owned(), source })?;
        let connecting =
            self.endpoint.connect(remote, ANY_NODE_NAME).map_err(|error| refused(error.to_string()))?;
        match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(connection)) => Ok(ClientConnection { connection, versions: self.versions }),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => Err(refused(format!("no answer within {CONNECT_MAX:?}; is the node running?"))),
        }
    }

    /// Closes all connections and waits until the nodes have been told.
    pub async fn shutdown(&self) {
        self.endpoint.close(code::SHUTDOWN, b"the client is done");
        self.endpoint.wait_idle().await;
    }
}

/// A connection to a node.
#[derive(Clone)]
pub struct ClientConnection {
    connection: Connection,
    versions: Versions,
}

impl ClientConnection {
    /// Opens a stream and exchanges hellos on it.
    ///
    /// # Errors
    /// When the connection breaks, or the other side is no node.
    pub async fn open_session(&self) -> Result<(SessionSender, SessionReceiver), TransportError> {
        let broken = |error: quinn::ConnectionError| TransportError::Broken(error.to_string());
        let (mut send, mut recv) = self.connection.open_bi().await.map_err(broken)?;
        let mut hello = FrameHeader::new(Command::Hello, ClusterId::default());
        hello.version = self.versions.oldest;
        hello.commit = self.versions.newest.as_raw().into();
        let hello = Frame::bare(hello);
        write_frame(&mut send, &hello).await?;
        let answer = read_frame(&mut recv).await?;
        let header = answer.ok_or_else(|| TransportError::Broken("the node said nothing".to_owned()))?.header;
        if header.command != Command::Hello {
            let reason = "the first frame of a node is a hello";
            return Err(FrameError::Body { command: header.command, reason }.into());
        }
        let node = NodeId::new(u8::try_from(header.op.as_raw()).unwrap_or(0));
        let version = Version::new(u8::try_from(header.commit).unwrap_or(u8::MAX));
        if !self.versions.contains(version) {
            return Err(TransportError::Release { cluster: version, client: self.versions });
        }
        let sender = SessionSender { stream: send, cluster: header.cluster, node, version };
        Ok((sender, SessionReceiver { stream: recv }))
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Ends the connection.
    pub fn close(&self) {
        close(&self.connection, code::SHUTDOWN, "the client is done");
    }
}

/// The sending half of a session.
pub struct SessionSender {
    stream: SendStream,
    cluster: ClusterId,
    node: NodeId,
    version: Version,
}

impl SessionSender {
    /// The cluster the node belongs to, to be put into every frame.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The node at the other end.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Sends a frame; waits while the node does not take more.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn send(&mut self, mut frame: Frame) -> Result<(), TransportError> {
        frame.header.version = self.version;
        write_frame(&mut self.stream, &frame).await
    }
}

/// The receiving half of a session.
pub struct SessionReceiver {
    stream: RecvStream,
}

impl SessionReceiver {
    /// Waits for the next frame; `None` when the node has ended the session.
    ///
    /// # Errors
    /// When the connection breaks, or a frame cannot be read.
    pub async fn recv(&mut self) -> Result<Option<Frame>, TransportError> {
        read_frame(&mut self.stream).await
    }
}
