//! A small cluster on loopback, and waiting with a limit.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{AsyncUdpSocket, TokioRuntime};
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{ClusterId, GroupId, Incarnation, NodeId, Op};
use varve_protocol::version::Versions;
use varve_transport::authority::Authority;
use varve_transport::{
    ClientConfig, ClientConnection, ClientEndpoint, Event, EventReceiver, Identity, SystemResolver,
    Transport, TransportConfig, Tuning, bind_udp,
};

pub(crate) const CLUSTER: ClusterId = ClusterId::new(0xc1);
pub(crate) const OTHER_CLUSTER: ClusterId = ClusterId::new(0xc2);
pub(crate) const ONE: NodeId = NodeId::new(1);
pub(crate) const TWO: NodeId = NodeId::new(2);
pub(crate) const SEED: [u8; 32] = [7; 32];

/// Waits for what must happen; far longer than it takes, so that only its absence fails.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it happens in time")
}

pub(crate) fn authority() -> Authority {
    Authority::from_seed(CLUSTER, SEED).unwrap()
}

pub(crate) fn identity(node: NodeId) -> Identity {
    identity_of(&authority(), node)
}

/// What an authority gives a node.
pub(crate) fn identity_of(authority: &Authority, node: NodeId) -> Identity {
    let issued = authority.issue(node, [node.as_raw(); 32]).unwrap();
    let ca = authority.certificate_pem().unwrap();
    Identity::from_pem(ca.as_bytes(), issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Two bound sockets and what a node needs beside its own.
pub(crate) struct Pair {
    pub(crate) addresses: BTreeMap<NodeId, SocketAddr>,
    sockets: BTreeMap<NodeId, Arc<dyn AsyncUdpSocket>>,
    pub(crate) tuning: Tuning,
}

/// One running node.
pub(crate) struct Running {
    pub(crate) transport: Transport,
    pub(crate) events: EventReceiver,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::tuned(Tuning::default())
    }

    pub(crate) fn tuned(tuning: Tuning) -> Self {
        let sockets: BTreeMap<_, _> =
            [ONE, TWO].map(|node| (node, bind_udp(loopback(), &tuning).unwrap())).into_iter().collect();
        let addresses = sockets.iter().map(|(node, socket)| (*node, socket.local_addr().unwrap())).collect();
        Self { addresses, sockets, tuning }
    }

    pub(crate) fn config(&self, node: NodeId) -> TransportConfig {
        TransportConfig {
            cluster: CLUSTER,
            node,
            incarnation: Incarnation::new(100),
            versions: Versions::OF_THIS_RELEASE,
            identity: identity(node),
            peers: self.addresses.iter().map(|(node, address)| (*node, address.to_string())).collect(),
            tuning: self.tuning.clone(),
            seed: None,
            reset_key: [node.as_raw(); 64],
        }
    }

    /// Starts a node on its socket, which is bound anew if it was used before.
    pub(crate) fn start(&mut self, config: TransportConfig) -> Running {
        let socket = self
            .sockets
            .remove(&config.node)
            .unwrap_or_else(|| bind_udp(self.addresses[&config.node], &self.tuning).unwrap());
        let started =
            Transport::start(config, Arc::new(TokioRuntime), socket, Arc::new(SystemResolver)).unwrap();
        Running { transport: started.0, events: started.1 }
    }

    pub(crate) fn start_plain(&mut self, node: NodeId) -> Running {
        self.start(self.config(node))
    }

    /// Both nodes, connected.
    pub(crate) async fn start_both(&mut self) -> (Running, Running) {
        let mut one = self.start_plain(ONE);
        let mut two = self.start_plain(TWO);
        assert!(is_up(&one.next().await, TWO, 100));
        assert!(is_up(&two.next().await, ONE, 100));
        (one, two)
    }
}

pub(crate) fn is_up(event: &Event, peer: NodeId, life: u64) -> bool {
    matches!(event, Event::PeerUp { node, incarnation } if *node == peer && incarnation.as_raw() == life)
}

impl Running {
    pub(crate) async fn next(&mut self) -> Event {
        soon(self.events.recv()).await.expect("the transport is running")
    }
}

/// A frame between nodes that can be told from others.
pub(crate) fn peer_frame(group: u64, op: u64, body: usize) -> Frame {
    let mut header = FrameHeader::new(Command::Prepare, CLUSTER);
    header.group = GroupId::new(group);
    header.op = Op::new(op);
    Frame { header, body: Bytes::from(vec![op.to_le_bytes()[0]; body]).into() }
}

/// A frame from a client that can be told from others.
pub(crate) fn client_frame(correlation: u64, body: usize) -> Frame {
    let mut header = FrameHeader::new(Command::Append, CLUSTER);
    header.correlation = correlation;
    Frame { header, body: Bytes::from(vec![7; body]).into() }
}

pub(crate) fn client_endpoint(authority: &Authority) -> ClientEndpoint {
    client_endpoint_of(authority, Versions::OF_THIS_RELEASE)
}

pub(crate) fn client_endpoint_of(authority: &Authority, versions: Versions) -> ClientEndpoint {
    let tuning = Tuning::default();
    let socket = bind_udp(loopback(), &tuning).unwrap();
    let ca_pem = authority.certificate_pem().unwrap().into_bytes();
    let config = ClientConfig { ca_pem, tuning, versions, seed: None };
    ClientEndpoint::new(&config, Arc::new(TokioRuntime), socket, Arc::new(SystemResolver)).unwrap()
}

pub(crate) async fn connect(endpoint: &ClientEndpoint, address: SocketAddr) -> ClientConnection {
    soon(endpoint.connect(&address.to_string())).await.unwrap()
}
