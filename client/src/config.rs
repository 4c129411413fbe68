//! How a client is set up, and the seam to the network.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use varve_protocol::version::Versions;
use varve_transport::{Resolve, SystemResolver, Tuning, bind_udp};

use crate::connection_string::ConnectionString;
use crate::error::ClientError;

/// UDP payloads on loopback may be as large as UDP allows.
const LOOPBACK_MTU: u16 = 65_527;

/// Socket, names, runtime and release of a client. The simulator brings its own.
#[derive(Clone)]
pub struct Seams {
    /// What quinn runs on.
    pub runtime: Arc<dyn Runtime>,
    /// The socket that all connections share.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Turns names into addresses.
    pub resolver: Arc<dyn Resolve>,
    /// What the release of the client knows.
    pub versions: Versions,
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seams").finish_non_exhaustive()
    }
}

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Nodes to begin with, each `host:port`.
    pub servers: Vec<String>,
    /// The certificate of the cluster's authority.
    pub ca_pem: Vec<u8>,
    /// Settings of the transport.
    pub tuning: Tuning,
    /// In simulation, the root of all that is drawn here.
    pub seed: Option<[u8; 32]>,
    /// Socket, names, runtime and release.
    pub seams: Seams,
}

impl ClientConfig {
    /// The setup that a connection string describes, on a socket of the system. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the authority's certificate cannot be read, or there is no socket to be had.
    pub fn for_system(connection: &ConnectionString) -> Result<Self, ClientError> {
        let ca_pem = std::fs::read(&connection.ca)
            .map_err(|error| ClientError::File { path: connection.ca.clone(), reason: error.to_string() })?;
        let tuning = if connection.servers.iter().all(|server| is_loopback(server)) {
            Tuning::for_path_mtu(LOOPBACK_MTU)
        } else {
            Tuning::default()
        };
        let any = match connection.servers.first().and_then(|server| server.parse().ok()) {
            Some(SocketAddr::V6(_)) => SocketAddr::from(([0_u16; 8], 0)),
            Some(SocketAddr::V4(_)) | None => SocketAddr::from(([0_u8; 4], 0)),
        };
        let socket =
            bind_udp(any, &tuning).map_err(|error| ClientError::Setup { reason: error.to_string() })?;
        let seams = Seams {
            runtime: Arc::new(TokioRuntime),
            socket,
            resolver: Arc::new(SystemResolver),
            versions: Versions::OF_THIS_RELEASE,
        };
        Ok(Self { servers: connection.servers.clone(), ca_pem, tuning, seed: None, seams })
    }
}

fn is_loopback(server: &str) -> bool {
    server.parse::<SocketAddr>().map_or_else(|_| server.starts_with("localhost:"), |at| at.ip().is_loopback())
}
