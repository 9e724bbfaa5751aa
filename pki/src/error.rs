//! What can go wrong with a certificate, a key, a signature or a token.

/// An operation of this crate that failed. No variant carries secret material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "'{0}' is not a trust domain (1 to 255 of the characters a-z, 0-9, '.', '-' and '_' are expected)"
    )]
    TrustDomain(String),
    #[error("cannot issue {what}")]
    Issue { what: &'static str, source: rcgen::Error },
    /// The asked validity is empty or does not fit into a certificate.
    #[error("cannot issue a certificate that is valid from {not_before} to {not_after}")]
    Validity { not_before: jiff::Timestamp, not_after: jiff::Timestamp },
    #[error("cannot issue a certificate until {not_after}: its issuer expires before, at {issuer}")]
    OutlivesIssuer { not_after: jiff::Timestamp, issuer: jiff::Timestamp },
    #[error("the certificate signing request is refused: {0}")]
    Csr(CsrFault),
    #[error("the certificate is refused: {0}")]
    Certificate(CertificateFault),
    #[error("the certificate authority cannot be used: its {part} {fault}")]
    Authority { part: &'static str, fault: &'static str },
    #[error("the {0} is not valid")]
    Key(&'static str),
    #[error("the signature of this {kind} does not match")]
    Signature { kind: String },
    #[error("the access token {0}")]
    AccessToken(&'static str),
    #[error("the provider's ID token {0}")]
    IdToken(&'static str),
    #[error("what is signed does not say when that was")]
    Undated,
    #[error("cannot seal a message")]
    Seal(#[source] rustls::Error),
    /// The key, the context or the bytes are not those of the sealing; which one cannot be known.
    #[error("cannot open a sealed message")]
    Open(#[source] rustls::Error),
    #[error("cannot build the TLS configuration")]
    Tls(#[source] rustls::Error),
    #[error("this is not {expected} ({expected} begins with '{prefix}')")]
    NotAToken { expected: &'static str, prefix: &'static str },
    #[error("the {0} is damaged or incomplete; copy it again")]
    DamagedToken(&'static str),
}

/// Why a certificate signing request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrFault {
    #[error("it has more than {} bytes (limit CSR_BYTES)", model::limits::CSR_BYTES)]
    TooLong,
    #[error("it is not a PKCS#10 request in DER")]
    Unreadable,
    #[error("its signature does not match its public key")]
    Signature,
    #[error("its public key is not an ECDSA key on the curve P-256")]
    KeyKind,
    #[error("it asks for a subject alternative name; names are given by the controller")]
    AsksForName,
    #[error("it asks for a CA certificate")]
    AsksForCa,
}

/// Why a certificate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    #[error("it is not an X.509 version 3 certificate in DER")]
    Unreadable,
    #[error("it has a critical extension that is not known here")]
    UnknownExtension,
    #[error("it is a CA certificate")]
    IsCa,
    #[error("it is not made for this use")]
    Usage,
    #[error("it has not exactly one URI as its name")]
    Names,
    #[error("its URI is not of the expected form")]
    Form,
    #[error("it belongs to another trust domain")]
    TrustDomain,
    #[error("its key is of another kind than expected")]
    KeyKind,
    #[error("its serial number has more than 16 bytes or is negative")]
    Serial,
    #[error("it was not issued by the expected authority")]
    Issuer,
    #[error("it is not valid yet")]
    NotYetValid,
    #[error("it has expired")]
    Expired,
    #[error("the chain that comes with it is not leaf, intermediate, root")]
    Chain,
    #[error("the root that comes with it is not the pinned one")]
    RootPin,
}
