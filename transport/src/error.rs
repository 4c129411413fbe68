//! What can go wrong between two endpoints.

use std::io;
use std::net::SocketAddr;

use varve_protocol::frame::FrameError;
use varve_protocol::version::{Version, Versions};

/// Why an endpoint cannot be made, or a connection does not stand.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A certificate or key cannot be read or does not fit.
    #[error("the {what} cannot be used: {reason}")]
    Certificate {
        /// Which file or part.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The UDP socket cannot be had.
    #[error("cannot listen on UDP {address}: {source}{}", hint(source))]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The endpoint cannot be started.
    #[error("the QUIC endpoint cannot be started: {0}")]
    Endpoint(io::Error),
    /// A setting is out of its bounds.
    #[error("the transport setting `{setting}` is out of bounds")]
    Setting {
        /// Which one.
        setting: &'static str,
    },
    /// A name leads nowhere.
    #[error("the address `{address}` cannot be resolved: {source}")]
    Resolve {
        /// As written.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody answers, or the other side is not whom it should be.
    #[error("no connection to `{address}`: {reason}")]
    Connect {
        /// As written.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The two have no version in common.
    #[error("the cluster is at version {cluster}, and this client knows {client}: use the client of a {} release", if cluster > &client.newest { "newer" } else { "older" })]
    Release {
        /// The version of the cluster.
        cluster: Version,
        /// What the client knows.
        client: Versions,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The other side sent what cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

fn hint(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        "; another process holds the port: stop it, or choose another port"
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "; this machine has no such address: check the configuration"
    } else if kind == io::ErrorKind::PermissionDenied {
        "; ports below 1024 need privileges: choose a higher one"
    } else {
        ""
    }
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue is full.
    #[error("the queue is full")]
    Busy,
    /// There is no connection.
    #[error("there is no connection")]
    NotConnected,
}
