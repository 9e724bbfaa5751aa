//! TLS of the people's door: for browsers and for programs that know nothing of our certificates, so TLS 1.2 beside 1.3,
//! a certificate that names hosts, and nobody asked for one of his own.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{Error, ServerIdentity};

const ALPN: &[u8] = b"http/1.1";

/// The door's side, with a chain that begins with its leaf.
///
/// # Errors
/// When the chain cannot be used, or the key is not that of its leaf.
pub fn door_config(identity: ServerIdentity) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(Error::Tls)?
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .map_err(Error::Tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// A chain and a key as they stand in PEM files: the leaf first, and the key whose certificate it is.
///
/// # Errors
/// When there is no certificate or no key in them, or one cannot be read.
pub fn read_identity(chain_pem: &[u8], key_pem: &[u8]) -> Result<ServerIdentity, Error> {
    let chain = CertificateDer::pem_slice_iter(chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or(Error::Authority { part: "chain of certificates", fault: "cannot be read" })?;
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|_| Error::Authority { part: "key", fault: "cannot be read" })?;
    Ok(ServerIdentity { chain, key })
}
