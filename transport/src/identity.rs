//! Who an endpoint is, to TLS, and whom it believes.
//!
//! All certificates of a cluster come from one authority and carry two names: one for the node,
//! `node-<id>.<cluster id>.varve`, and one for any node, `cluster.varve`. A peer must show the first, to dial and to be
//! dialled; a client looks for the second, because it takes whichever node answers.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use varve_protocol::id::{ClusterId, NodeId};

use crate::error::TransportError;
use crate::tuning::Tuning;

/// The protocol between nodes.
pub(crate) const NODE_ALPN: &[u8] = b"varve-node/1";

/// The protocol of clients.
pub(crate) const CLIENT_ALPN: &[u8] = b"varve-client/1";

/// The name that every node's certificate carries.
pub(crate) const ANY_NODE_NAME: &str = "cluster.varve";

/// The name that only this node's certificate carries.
pub(crate) fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{}.{cluster}.varve", node.as_raw())
}

/// A node's certificate and key, and the authority it believes.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

fn refused(what: &'static str, error: &impl std::fmt::Display) -> TransportError {
    TransportError::Certificate { what, reason: error.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca_pem: &[u8]) -> Result<Arc<RootCertStore>, TransportError> {
    const WHAT: &str = "certificate of the authority (ca)";
    let ca = CertificateDer::from_pem_slice(ca_pem).map_err(|error| refused(WHAT, &error))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|error| refused(WHAT, &error))?;
    Ok(Arc::new(roots))
}

impl Identity {
    /// Reads the three files of a node.
    ///
    /// # Errors
    /// When one of them is no PEM of what it should be.
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TransportError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| refused("certificate of the node", &error))?;
        if chain.is_empty() {
            return Err(refused("certificate of the node", &"the file has no certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| refused("key of the node", &error))?;
        Ok(Self { chain, key, roots: roots(ca)? })
    }

    /// Refuses to start with the certificate of somebody else: every peer would turn this node away.
    pub(crate) fn check_is_of(&self, cluster: ClusterId, node: NodeId) -> Result<(), TransportError> {
        if self.chain.first().is_some_and(|certificate| names(certificate, cluster, node)) {
            return Ok(());
        }
        let reason = format!("it is not that of {node} of cluster {cluster}; issue one with `varve cert`");
        Err(TransportError::Certificate { what: "certificate of the node", reason })
    }

    /// Takes nodes that show a certificate of the authority, and clients without one.
    pub(crate) fn server_config(
        &self,
        tuning: &Tuning,
        token_key: &[u8],
    ) -> Result<quinn::ServerConfig, TransportError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| refused("certificate of the authority (ca)", &error))?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refused("TLS version", &error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| refused("certificate or key of the node", &error))?;
        tls.alpn_protocols = vec![NODE_ALPN.to_vec(), CLIENT_ALPN.to_vec()];
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| refused("TLS cipher", &error))?;
        let token_key = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"varve token").extract(token_key);
        let mut config = quinn::ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        config.transport_config(tuning.transport_config()?);
        Ok(config)
    }

    /// Dials nodes, and shows them who is calling.
    pub(crate) fn dialling_config(&self, tuning: &Tuning) -> Result<quinn::ClientConfig, TransportError> {
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refused("TLS version", &error))?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| refused("certificate or key of the node", &error))?;
        tls.alpn_protocols = vec![NODE_ALPN.to_vec()];
        quic_client(tls, tuning)
    }
}

/// Dials nodes as a client, which believes the authority and shows nothing.
pub(crate) fn client_config(ca_pem: &[u8], tuning: &Tuning) -> Result<quinn::ClientConfig, TransportError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| refused("TLS version", &error))?
        .with_root_certificates(roots(ca_pem)?)
        .with_no_client_auth();
    tls.alpn_protocols = vec![CLIENT_ALPN.to_vec()];
    quic_client(tls, tuning)
}

fn quic_client(tls: rustls::ClientConfig, tuning: &Tuning) -> Result<quinn::ClientConfig, TransportError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| refused("TLS cipher", &error))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(tuning.transport_config()?);
    Ok(config)
}

/// Which protocol a connection speaks.
pub(crate) fn alpn_of(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.protocol
}

/// Whether the certificate that the other side has shown is that of a node of this cluster.
pub(crate) fn is_shown_by(connection: &quinn::Connection, cluster: ClusterId, node: NodeId) -> bool {
    let shown =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    shown
        .as_ref()
        .and_then(|chain| chain.first())
        .is_some_and(|certificate| names(certificate, cluster, node))
}

/// Whether a certificate is that of a node of a cluster.
fn names(certificate: &CertificateDer<'_>, cluster: ClusterId, node: NodeId) -> bool {
    let Ok(name) = ServerName::try_from(node_name(cluster, node)) else { return false };
    webpki::EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}
