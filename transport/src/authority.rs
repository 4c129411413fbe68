//! The authority of a cluster: issues the certificates by which its nodes know each other.
//!
//! Keys are Ed25519, whose signatures have one length and no randomness. The authority's own certificate follows from the
//! cluster id and its key, so the key alone is enough to issue more.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SerialNumber,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use varve_protocol::id::{ClusterId, NodeId};

use crate::error::TransportError;
use crate::identity::{ANY_NODE_NAME, node_name};

/// What PKCS#8 (RFC 8410) puts before the 32 bytes of an Ed25519 seed.
const ED25519_PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Issues certificates for one cluster.
pub struct Authority {
    cluster: ClusterId,
    key: KeyPair,
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The key; whoever has it is that node.
    pub key_pem: String,
}

fn refused(what: &'static str, error: &rcgen::Error) -> TransportError {
    TransportError::Certificate { what, reason: error.to_string() }
}

/// A key made from 32 bytes: the same bytes, the same key.
fn key_from_seed(seed: [u8; 32]) -> Result<KeyPair, TransportError> {
    let der = [&ED25519_PKCS8_PREFIX[..], &seed].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
        .map_err(|error| refused("seed of a key", &error))
}

impl Authority {
    /// A new authority; `seed` is its secret.
    ///
    /// # Errors
    /// When no key can be made of the seed.
    pub fn from_seed(cluster: ClusterId, seed: [u8; 32]) -> Result<Self, TransportError> {
        Ok(Self { cluster, key: key_from_seed(seed)? })
    }

    /// An authority from its key, as [`Self::key_pem`] gave it.
    ///
    /// # Errors
    /// When the text is no such key.
    pub fn from_key_pem(cluster: ClusterId, key_pem: &str) -> Result<Self, TransportError> {
        let key = KeyPair::from_pem(key_pem).map_err(|error| refused("key of the authority", &error))?;
        Ok(Self { cluster, key })
    }

    /// The key; keep it away from the nodes.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The certificate that nodes and clients are to believe.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn certificate_pem(&self) -> Result<String, TransportError> {
        let certificate = self.params().self_signed(&self.key);
        Ok(certificate.map_err(|error| refused("certificate of the authority", &error))?.pem())
    }

    /// A certificate for a node with a new key made from `seed`.
    ///
    /// # Errors
    /// When no key can be made of the seed, or the certificate cannot be signed.
    pub fn issue(&self, node: NodeId, seed: [u8; 32]) -> Result<Issued, TransportError> {
        let key = key_from_seed(seed)?;
        let names = vec![node_name(self.cluster, node), ANY_NODE_NAME.to_owned()];
        let mut params = CertificateParams::new(names).map_err(|error| refused("name of a node", &error))?;
        params.distinguished_name = name(&node_name(self.cluster, node));
        params.serial_number = Some(SerialNumber::from(u64::from(node.as_raw())));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let authority = self.params();
        let issuer = Issuer::from_params(&authority, &self.key);
        let certificate =
            params.signed_by(&key, &issuer).map_err(|error| refused("certificate of a node", &error))?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("varve cluster {}", self.cluster));
        params.serial_number = Some(SerialNumber::from(0_u64));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
