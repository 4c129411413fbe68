//! QUIC between nodes and to clients: endpoints, connections, lanes and TLS identities.
//!
//! * [`Transport`] is a node's endpoint: one connection to each peer, sessions of clients, one stream of [`Event`]s out.
//! * [`ClientEndpoint`] is the other side: connections of a client to nodes.
//! * [`authority`] issues the certificates that nodes and clients know each other by.
//!
//! The seams are quinn's [`quinn::Runtime`] and [`quinn::AsyncUdpSocket`], and [`Resolve`] for names: production brings the
//! system's, the simulator its own. Time is tokio's. With a seed given, nothing here draws entropy that moves a byte count
//! or a moment.
//!
//! Every queue is bounded, and a full one says [`SendError::Busy`] at once. What cannot be read is counted and its
//! connection closed; the endpoint serves on.

pub mod authority;
mod client;
mod dial;
mod error;
mod event;
mod framing;
mod identity;
mod lane;
mod peer;
mod queue;
mod serve;
mod session;
mod shared;
mod socket;
mod tasks;
mod transport;
mod tuning;

pub use client::{ClientConfig, ClientConnection, ClientEndpoint, SessionReceiver, SessionSender};
pub use error::{SendError, TransportError};
pub use event::{Event, EventReceiver, SessionId};
pub use identity::Identity;
pub use lane::Lane;
pub use socket::{Resolve, Resolving, SystemResolver, bind_udp};
pub use transport::{Transport, TransportConfig};
pub use tuning::Tuning;
