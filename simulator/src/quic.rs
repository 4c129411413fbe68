//! The QUIC world: the server with real QUIC, in a simulated UDP network.

pub mod socket;
