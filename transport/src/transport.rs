//! A node's endpoint: one socket for peers and clients.
//!
//! Of two nodes the one with the lower id dials, again and again until it is answered; so there is one connection per pair.
//! A newer connection of a peer takes the place of the older: that is how a restarted peer comes back at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Endpoint, Runtime};
use varve_protocol::frame::Frame;
use varve_protocol::id::{ClusterId, Incarnation, NodeId};
use varve_protocol::version::{Version, Versions};

use crate::dial;
use crate::error::{SendError, TransportError};
use crate::event::{self, EventReceiver, SessionId};
use crate::identity::Identity;
use crate::lane::Lane;
use crate::serve;
use crate::shared::{Shared, Who, code};
use crate::socket::Resolve;
use crate::tasks::{AllEnded, Tasks, tasks};
use crate::tuning::{Tuning, seed_or_entropy};

/// Who an endpoint is and whom it knows.
#[derive(Debug)]
pub struct TransportConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// Which of its nodes this is.
    pub node: NodeId,
    /// Which life of its process this is.
    pub incarnation: Incarnation,
    /// What its release knows.
    pub versions: Versions,
    /// Its certificate, and whom it believes.
    pub identity: Identity,
    /// The other nodes, and where they are.
    pub peers: BTreeMap<NodeId, String>,
    /// Settings.
    pub tuning: Tuning,
    /// In simulation, the root of all that is drawn here; otherwise the system's entropy is used.
    pub seed: Option<[u8; 32]>,
    /// A secret that the node keeps over restarts: with it, peers learn from the first packet after a restart that their
    /// connection is gone, instead of waiting for the idle timeout.
    pub reset_key: [u8; 64],
}

/// A node's endpoint.
pub struct Transport {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    all_ended: AllEnded,
}

impl Transport {
    /// Starts an endpoint: listens at once, dials peers at once. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When certificates or settings cannot be used.
    pub fn start(
        config: TransportConfig,
        runtime: Arc<dyn Runtime>,
        socket: Arc<dyn AsyncUdpSocket>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<(Self, EventReceiver), TransportError> {
        let TransportConfig {
            cluster,
            node,
            incarnation,
            versions,
            identity,
            peers,
            tuning,
            seed,
            reset_key,
        } = config;
        identity.check_is_of(cluster, node)?;
        let server = identity.server_config(&tuning, &reset_key)?;
        let endpoint_config = tuning.endpoint_config(&reset_key, seed)?;
        let mut endpoint = Endpoint::new_with_abstract_socket(endpoint_config, Some(server), socket, runtime)
            .map_err(TransportError::Endpoint)?;
        endpoint.set_default_client_config(identity.dialling_config(&tuning)?);

        let (events, receiver) = event::channel();
        let who = Who { cluster, node, incarnation, versions, peers: peers.keys().copied().collect() };
        let shared = Arc::new(Shared::new(who, tuning, events));
        let (tasks, all_ended) = tasks();
        start_tasks(&shared, &endpoint, &tasks, peers, &resolver, seed_or_entropy(seed));
        Ok((Self { shared, endpoint, all_ended }, receiver))
    }

    /// Hands a frame to a lane of a peer. Never waits.
    ///
    /// # Errors
    /// When there is no connection, or the lane is full.
    pub fn send_to_peer(&self, node: NodeId, lane: Lane, frame: Frame) -> Result<(), SendError> {
        match self.shared.links().get(&node) {
            Some(link) => link.send(lane, frame),
            None => Err(SendError::NotConnected),
        }
    }

    /// Hands an answer to a client's stream. Never waits; a client that does not take its answers loses its stream.
    ///
    /// # Errors
    /// When the client is gone, or has let its answers pile up.
    pub fn send_to_client(&self, session: SessionId, frame: Frame) -> Result<(), SendError> {
        let mut sessions = self.shared.sessions();
        let Some(queue) = sessions.get(&session) else { return Err(SendError::NotConnected) };
        let sent = queue.try_send(frame);
        if sent.is_err() {
            sessions.remove(&session);
        }
        sent
    }

    /// Tells the version of the cluster: clients that connect from now on are spoken to in it.
    pub fn set_version(&self, version: Version) {
        self.shared.set_version(version);
    }

    /// The address this endpoint listens on.
    ///
    /// # Errors
    /// When the socket does not tell.
    pub fn local_addr(&self) -> Result<SocketAddr, TransportError> {
        self.endpoint.local_addr().map_err(TransportError::Endpoint)
    }

    /// Frames that could not be read, from peers and clients.
    #[must_use]
    pub fn frames_dropped(&self) -> u64 {
        self.shared.frames_dropped()
    }

    /// Closes all connections and waits until all tasks have ended.
    pub async fn shutdown(mut self) {
        self.shared.begin_shutdown();
        self.endpoint.close(code::SHUTDOWN, b"the node shuts down");
        // Tasks that wait to write or to report end with their queues.
        self.shared.links().clear();
        self.shared.sessions().clear();
        self.all_ended.wait().await;
        self.endpoint.wait_idle().await;
    }
}

fn start_tasks(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    tasks: &Tasks,
    peers: BTreeMap<NodeId, String>,
    resolver: &Arc<dyn Resolve>,
    seed: [u8; 32],
) {
    tasks.spawn(serve::accept(shared.clone(), endpoint.clone(), tasks.clone()));
    for (peer, address) in peers.into_iter().filter(|(peer, _)| *peer > shared.who.node) {
        let mut seed = seed;
        seed[0] ^= peer.as_raw();
        let dialler = dial::Dialler {
            shared: shared.clone(),
            endpoint: endpoint.clone(),
            tasks: tasks.clone(),
            resolver: resolver.clone(),
            peer,
            address,
        };
        tasks.spawn(dialler.run(seed));
    }
}
