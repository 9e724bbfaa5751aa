//! Certificate signing requests: the public key is taken out, everything else is left behind.

use model::limits;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{ParsedExtension, X509Extension},
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME,
    },
    prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

use crate::CsrFault;

/// Bytes of an uncompressed point on P-256.
const POINT_BYTES: usize = 65;

/// The public key of a request, as an uncompressed point on P-256. The request's own signature proves that the sender
/// holds the private key; a request for a name or a CA is refused rather than ignored, so that nobody believes
/// to have been given one.
pub(crate) fn public_key(der: &[u8]) -> Result<Vec<u8>, CsrFault> {
    if der.len() > limits::CSR_BYTES {
        return Err(CsrFault::TooLong);
    }
    let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrFault::Unreadable)?;
    if !rest.is_empty() {
        return Err(CsrFault::Unreadable);
    }
    let info = &csr.certification_request_info;
    let key = p256_point(&info.subject_pki)?;
    csr.verify_signature().map_err(|_| CsrFault::Signature)?;
    for attribute in info.iter_attributes() {
        if let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() {
            request.extensions.iter().try_for_each(check_extension)?;
        }
    }
    Ok(key)
}

fn p256_point(key: &SubjectPublicKeyInfo<'_>) -> Result<Vec<u8>, CsrFault> {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let point = &key.subject_public_key.data;
    let fits = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == Some(OID_EC_P256)
        && point.len() == POINT_BYTES
        && point.first() == Some(&4);
    if fits { Ok(point.to_vec()) } else { Err(CsrFault::KeyKind) }
}

/// An extension that cannot be read counts as what it may hide.
fn check_extension(extension: &X509Extension<'_>) -> Result<(), CsrFault> {
    let asks_for_ca = match extension.parsed_extension() {
        _ if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME => return Err(CsrFault::AsksForName),
        ParsedExtension::BasicConstraints(constraints) => constraints.ca,
        ParsedExtension::KeyUsage(usage) => usage.key_cert_sign() || usage.crl_sign(),
        _ => extension.oid == OID_X509_EXT_BASIC_CONSTRAINTS || extension.oid == OID_X509_EXT_KEY_USAGE,
    };
    if asks_for_ca { Err(CsrFault::AsksForCa) } else { Ok(()) }
}
