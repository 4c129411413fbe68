//! quinn's settings, measured on loopback and set for a LAN.

use std::sync::Arc;
use std::time::Duration;

use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, VarInt};
use rand::TryRngCore;
use rand::rngs::OsRng;
use varve_protocol::limits::{GROUPS_PER_NODE_MAX, PARTITIONS_PER_TOPIC_MAX, PREPARES_IN_FLIGHT_BYTES_MAX};

use crate::error::TransportError;
use crate::lane::{DATA_LANES, Lane};

/// Above this MTU, segmentation offload makes the kernel refuse and quinn fall back to 1200 bytes.
const OFFLOAD_MTU_MAX: u16 = 6500;

/// The MTU that a connection starts with, before it has found out more.
const INITIAL_MTU: u16 = 1452;

/// Streams a client may have open at once on one connection: one for each partition of a large topic that it appends to, and
/// some for its questions.
const CLIENT_STREAMS_MAX: u32 = PARTITIONS_PER_TOPIC_MAX + 64;

/// Streams a peer opens: its lanes, and room for none beside.
const PEER_STREAMS_MAX: u32 = 8;

/// Streams' worth of bytes that fit a connection: more than all lanes but one can hold, so that whatever they hold, control
/// still gets through.
const LANES_FULL: u32 = DATA_LANES as u32 + 4;

/// How an endpoint is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Largest UDP payload to try: 1452 on a network of common frames, 65527 on loopback. At least 1200.
    pub path_mtu_max: u16,
    /// Bytes of the socket's buffers each way. The system's default loses datagrams under load.
    pub socket_buffer_bytes: usize,
    /// Bytes in flight on one stream. More only makes the queue longer.
    pub window_bytes: u32,
    /// Silence after which a connection is given up.
    pub idle_timeout: Duration,
    /// Silence after which a sign of life is sent.
    pub keep_alive: Duration,
    /// Round trip to assume before one is measured. quinn's default of 333 ms makes a lost first packet cost a second.
    pub initial_rtt: Duration,
    /// Frames that may wait for the control lane to a peer. They are small, and when a node dies every group that it led has
    /// something to say at once, in each step of its view change; what is dropped is said again, but later.
    pub control_frames_max: usize,
    /// Frames that may wait for any other lane to a peer.
    pub lane_frames_max: usize,
    /// Bytes that may wait for a lane of data or of repair. More than a group has uncommitted, so what is dropped would have come too
    /// late to be waited for: the peer is slower than a quorum, and asks for it when it has caught up.
    pub lane_bytes_max: usize,
    /// Answers that may wait for one client's stream.
    pub session_frames_max: usize,
    /// Bytes of them.
    pub session_bytes_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            path_mtu_max: INITIAL_MTU,
            socket_buffer_bytes: 4 << 20,
            window_bytes: 8 << 20,
            idle_timeout: Duration::from_secs(3),
            keep_alive: Duration::from_secs(1),
            initial_rtt: Duration::from_millis(10),
            control_frames_max: 4 * GROUPS_PER_NODE_MAX,
            lane_frames_max: 1024,
            lane_bytes_max: 2 * PREPARES_IN_FLIGHT_BYTES_MAX,
            session_frames_max: 1024,
            session_bytes_max: 1 << 30,
        }
    }
}

impl Tuning {
    /// The defaults for a network that carries UDP payloads of up to `path_mtu_max` bytes.
    #[must_use]
    pub fn for_path_mtu(path_mtu_max: u16) -> Self {
        Self { path_mtu_max, ..Self::default() }
    }

    /// Frames that may wait for a lane to a peer.
    pub(crate) fn frames_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Control => self.control_frames_max,
            Lane::Pulse | Lane::Data(_) | Lane::Bulk => self.lane_frames_max,
        }
    }

    /// Bytes that may wait for a lane to a peer.
    pub(crate) fn bytes_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Data(_) | Lane::Bulk => self.lane_bytes_max,
            // What is small is counted by frames.
            Lane::Pulse | Lane::Control => usize::MAX,
        }
    }

    pub(crate) fn transport_config(&self) -> Result<Arc<quinn::TransportConfig>, TransportError> {
        let idle = IdleTimeout::try_from(self.idle_timeout)
            .map_err(|_| TransportError::Setting { setting: "idle_timeout" })?;
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.path_mtu_max);
        let mut config = quinn::TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(CLIENT_STREAMS_MAX))
            .max_concurrent_uni_streams(VarInt::from_u32(PEER_STREAMS_MAX))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            .initial_rtt(self.initial_rtt)
            .stream_receive_window(VarInt::from_u32(self.window_bytes))
            .receive_window(VarInt::from_u32(self.window_bytes.saturating_mul(LANES_FULL)))
            .send_window(u64::from(self.window_bytes) * u64::from(LANES_FULL))
            .initial_mtu(INITIAL_MTU.min(self.path_mtu_max))
            .mtu_discovery_config(Some(discovery))
            .enable_segmentation_offload(self.path_mtu_max <= OFFLOAD_MTU_MAX)
            .datagram_receive_buffer_size(None);
        Ok(Arc::new(config))
    }

    /// The endpoint's own settings. With a seed, connection ids and all draws of the endpoint come from it; the reset key is
    /// the node's for ever, so that peers notice at once that it has restarted.
    pub(crate) fn endpoint_config(
        &self,
        reset_key: &[u8; 64],
        seed: Option<[u8; 32]>,
    ) -> Result<EndpointConfig, TransportError> {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
        let mut config = EndpointConfig::new(Arc::new(key));
        let cid_key = u64::from_le_bytes(*reset_key.first_chunk().expect("the key has 64 bytes"));
        config
            .cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(cid_key)))
            .rng_seed(seed)
            .max_udp_payload_size(self.path_mtu_max)
            .map_err(|_| TransportError::Setting { setting: "path_mtu_max" })?;
        Ok(config)
    }
}

/// 32 bytes for draws that need be neither secret nor repeatable, or the seed if there is one.
pub(crate) fn seed_or_entropy(seed: Option<[u8; 32]>) -> [u8; 32] {
    seed.unwrap_or_else(|| {
        let mut bytes = [0; 32];
        OsRng.try_fill_bytes(&mut bytes).expect("the system gives random bytes, as TLS needs them too");
        bytes
    })
}
