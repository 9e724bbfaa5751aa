//! Reading certificates: the checks that every accepted leaf passes, whoever issued it.
//!
//! A path to a trust anchor says who signed; it does not say what for. A leaf counts only if it is version 3, no CA,
//! made for exactly one use that is written in it (webpki takes an absent list of uses for "any"), and named by
//! exactly one URI.

use jiff::Timestamp;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension},
    oid_registry::{
        OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME,
    },
    prelude::FromDer,
    x509::X509Version,
};

use crate::CertificateFault;

/// What a leaf is for; each has its own extended key usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// An agent at a controller: clientAuth.
    Agent,
    /// A controller's TLS door: serverAuth, and a DNS name may stand beside the URI.
    Controller,
    /// A controller's signing of orders: codeSigning, so that no TLS stack takes it.
    Dispatch,
}

impl Use {
    fn is_only(self, usage: &ExtendedKeyUsage<'_>) -> bool {
        let others = usage.any
            || usage.email_protection
            || usage.time_stamping
            || usage.ocsp_signing
            || !usage.other.is_empty();
        let expected = match self {
            Self::Agent => (true, false, false),
            Self::Controller => (false, true, false),
            Self::Dispatch => (false, false, true),
        };
        !others && (usage.client_auth, usage.server_auth, usage.code_signing) == expected
    }

    /// Whether a CA whose certificate says `usage` may issue for this use.
    fn may_be_issued_under(self, usage: &ExtendedKeyUsage<'_>) -> bool {
        match self {
            Self::Agent => usage.client_auth,
            Self::Controller => usage.server_auth,
            Self::Dispatch => usage.code_signing,
        }
    }
}

/// Reads one certificate and nothing after it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateFault> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateFault::Unreadable)?;
    let readable = rest.is_empty()
        && certificate.version() == X509Version::V3
        && certificate.signature_algorithm == certificate.tbs_certificate.signature
        && certificate
            .iter_extensions()
            .all(|extension| !matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. }));
    if readable { Ok(certificate) } else { Err(CertificateFault::Unreadable) }
}

/// Checks all but issuer and time of a leaf made for `use_`, and hands out its URI.
pub(crate) fn leaf_uri<'a>(
    certificate: &'a X509Certificate<'_>,
    use_: Use,
) -> Result<&'a str, CertificateFault> {
    let unreadable = |_| CertificateFault::Unreadable;
    let known = [
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME,
    ];
    if certificate.iter_extensions().any(|extension| extension.critical && !known.contains(&extension.oid)) {
        return Err(CertificateFault::UnknownExtension);
    }
    if certificate.basic_constraints().map_err(unreadable)?.is_some_and(|constraints| constraints.value.ca) {
        return Err(CertificateFault::IsCa);
    }
    if let Some(usage) = certificate.key_usage().map_err(unreadable)? {
        if usage.value.key_cert_sign() || usage.value.crl_sign() {
            return Err(CertificateFault::IsCa);
        }
        if !usage.value.digital_signature() {
            return Err(CertificateFault::Usage);
        }
    }
    if !certificate.extended_key_usage().map_err(unreadable)?.is_some_and(|usage| use_.is_only(usage.value)) {
        return Err(CertificateFault::Usage);
    }
    let names = certificate.subject_alternative_name().map_err(unreadable)?.ok_or(CertificateFault::Names)?;
    let mut uri = None;
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(text) if uri.is_none() => uri = Some(*text),
            GeneralName::DNSName(_) if use_ == Use::Controller => {}
            _ => return Err(CertificateFault::Names),
        }
    }
    uri.ok_or(CertificateFault::Names)
}

/// Checks that this is a CA that may issue for `use_`.
pub(crate) fn check_ca(certificate: &X509Certificate<'_>, use_: Use) -> Result<(), CertificateFault> {
    let unreadable = |_| CertificateFault::Unreadable;
    let is_ca =
        certificate.basic_constraints().map_err(unreadable)?.is_some_and(|constraints| constraints.value.ca);
    let may_sign =
        certificate.key_usage().map_err(unreadable)?.is_some_and(|usage| usage.value.key_cert_sign());
    let for_use = certificate
        .extended_key_usage()
        .map_err(unreadable)?
        .is_some_and(|usage| use_.may_be_issued_under(usage.value));
    if is_ca && may_sign && for_use { Ok(()) } else { Err(CertificateFault::Usage) }
}

/// Checks that `issuer` signed `certificate`; says nothing about what either may do.
pub(crate) fn check_issued_by(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> Result<(), CertificateFault> {
    let named = certificate.issuer().as_raw() == issuer.subject().as_raw();
    if named && certificate.verify_signature(Some(issuer.public_key())).is_ok() {
        Ok(())
    } else {
        Err(CertificateFault::Issuer)
    }
}

/// From when to when a certificate is valid, both inclusive, in whole seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validity {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Validity {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Self, CertificateFault> {
        let at = |second| Timestamp::from_second(second).map_err(|_| CertificateFault::Unreadable);
        let validity = certificate.validity();
        Ok(Self {
            not_before: at(validity.not_before.timestamp())?,
            not_after: at(validity.not_after.timestamp())?,
        })
    }

    pub(crate) fn check(&self, now: Timestamp) -> Result<(), CertificateFault> {
        if now < self.not_before {
            Err(CertificateFault::NotYetValid)
        } else if now.as_second() > self.not_after.as_second() {
            Err(CertificateFault::Expired)
        } else {
            Ok(())
        }
    }
}
