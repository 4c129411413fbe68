//! QUIC endpoints, connections, lanes and TLS identities.
