use rcgen::ExtendedKeyUsagePurpose;

use super::*;
use crate::{
    Authority,
    testing::{self, CONTROLLER, DOMAIN, HOUR, SignedBy, authority, forge, now, uri},
};

const KIND: &str = "work-order";
const PAYLOAD: &[u8] = b"uptime";

fn signer(authority: &Authority) -> Signer {
    let key = DispatchKey::generate();
    let certificate = authority.issue_dispatch(CONTROLLER, &key, now() - HOUR, now() + HOUR).unwrap();
    Signer::new(key, certificate)
}

fn verifier(authority: &Authority) -> Verifier {
    Verifier::new(authority.controllers_ca_der(), DOMAIN).unwrap()
}

fn refusal(verifier: &Verifier, signature: &[u8], certificate: &[u8]) -> CertificateFault {
    match verifier.verify(KIND, PAYLOAD, signature, certificate, now()) {
        Err(Error::Certificate(fault)) => fault,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_encoding_is_the_documented_one() {
    assert_eq!(pae("ab", b"xyz"), b"OPSC1\0\0\0\0\0\0\0\x02ab\0\0\0\0\0\0\0\x03xyz");
    assert_ne!(pae("ab", b"c"), pae("a", b"bc"));
}

#[test]
fn a_signature_names_its_controller() {
    let authority = authority();
    let (signer, verifier) = (signer(&authority), verifier(&authority));
    let signature = signer.sign(KIND, PAYLOAD);
    assert_eq!(signature.len(), 64);
    for _ in 0..2 {
        let who = verifier.verify(KIND, PAYLOAD, &signature, signer.certificate(), now()).unwrap();
        assert_eq!(who, CONTROLLER);
    }
    assert_eq!(verifier.remembered.lock().unwrap().len(), 1);
}

#[test]
fn every_changed_part_is_refused() {
    let authority = authority();
    let (signer, verifier) = (signer(&authority), verifier(&authority));
    let signature = signer.sign(KIND, PAYLOAD);
    let certificate = signer.certificate();
    let verify = |kind: &str, payload: &[u8], signature: &[u8], certificate: &[u8]| {
        verifier.verify(kind, payload, signature, certificate, now())
    };
    verify(KIND, PAYLOAD, &signature, certificate).unwrap();
    assert!(matches!(verify("manifest", PAYLOAD, &signature, certificate), Err(Error::Signature { .. })));
    assert!(matches!(verify(KIND, b"reboot", &signature, certificate), Err(Error::Signature { .. })));
    assert!(verify("work-orde", b"ruptime", &signature, certificate).is_err());
    for at in 0..signature.len() {
        let mut changed = signature.clone();
        changed[at] ^= 1;
        assert!(verify(KIND, PAYLOAD, &changed, certificate).is_err(), "byte {at} of the signature");
    }
    // What follows the signed part only says how to check it; the first four bytes are the outer header.
    let signed = certificate::parse(certificate).unwrap().tbs_certificate.as_ref().len();
    for at in 0..4 + signed {
        let mut changed = certificate.to_vec();
        changed[at] ^= 1;
        assert!(verify(KIND, PAYLOAD, &signature, &changed).is_err(), "byte {at} of the certificate");
    }
    assert!(verify(KIND, PAYLOAD, &signature[..63], certificate).is_err());
    assert!(verify(KIND, PAYLOAD, b"", certificate).is_err());
    assert!(verify(KIND, PAYLOAD, &signature, b"").is_err());
}

#[test]
fn a_signature_has_one_form_only() {
    let authority = authority();
    let (signer, verifier) = (signer(&authority), verifier(&authority));
    let mut signature = signer.sign(KIND, PAYLOAD);
    // The order of the group, little-endian: s + L verifies wherever s is not checked to be below L.
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert!(matches!(
        verifier.verify(KIND, PAYLOAD, &signature, signer.certificate(), now()),
        Err(Error::Signature { .. })
    ));
}

#[test]
fn another_key_does_not_sign_under_this_certificate() {
    let authority = authority();
    let (mine, verifier) = (signer(&authority), verifier(&authority));
    let other = signer(&authority);
    let signature = other.sign(KIND, PAYLOAD);
    assert!(matches!(
        verifier.verify(KIND, PAYLOAD, &signature, mine.certificate(), now()),
        Err(Error::Signature { .. })
    ));
}

#[test]
fn only_dispatch_certificates_of_this_authority_count() {
    let here = authority();
    let verifier = verifier(&here);
    let good = signer(&here);
    let signature = good.sign(KIND, PAYLOAD);

    let foreign = signer(&authority());
    assert_eq!(refusal(&verifier, &signature, foreign.certificate()), CertificateFault::Issuer);
    assert_eq!(refusal(&verifier, &signature, &testing::controller(&here).chain[0]), CertificateFault::Usage);
    assert_eq!(refusal(&verifier, &signature, testing::agent(&here).leaf()), CertificateFault::Issuer);
    assert_eq!(refusal(&verifier, &signature, here.controllers_ca_der()), CertificateFault::Issuer);

    let pem = here.to_pem();
    let forged = |signed_by, name: &str| {
        forge(&pem, signed_by, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            params.subject_alt_names = vec![uri(name)];
        })
    };
    let name = Subject::Dispatch(CONTROLLER).uri(DOMAIN);
    for (signed_by, name, fault) in [
        (SignedBy::Agents, name.clone(), CertificateFault::Issuer),
        (SignedBy::Itself, name.clone(), CertificateFault::Issuer),
        (SignedBy::Controllers, Subject::Controller(CONTROLLER).uri(DOMAIN), CertificateFault::Form),
        (
            SignedBy::Controllers,
            Subject::Dispatch(CONTROLLER).uri("other.example"),
            CertificateFault::TrustDomain,
        ),
        // Its key is P-256.
        (SignedBy::Controllers, name, CertificateFault::KeyKind),
    ] {
        assert_eq!(refusal(&verifier, &signature, forged(signed_by, &name).leaf()), fault, "{name}");
    }
    assert!(verifier.remembered.lock().unwrap().is_empty(), "what is refused is not remembered");
}

#[test]
fn a_remembered_certificate_still_expires() {
    let authority = authority();
    let (signer, verifier) = (signer(&authority), verifier(&authority));
    let signature = signer.sign(KIND, PAYLOAD);
    let at = |time| verifier.verify(KIND, PAYLOAD, &signature, signer.certificate(), time);
    at(now() + HOUR).unwrap();
    assert!(matches!(at(now() + HOUR * 2), Err(Error::Certificate(CertificateFault::Expired))));
    assert!(matches!(at(now() - HOUR * 2), Err(Error::Certificate(CertificateFault::NotYetValid))));
    at(now() - HOUR).unwrap();
}

#[test]
fn the_memory_is_bounded() {
    let authority = authority();
    let verifier = verifier(&authority);
    let signers: Vec<_> = (0..REMEMBERED + 5).map(|_| signer(&authority)).collect();
    for signer in signers.iter().chain(&signers) {
        let signature = signer.sign(KIND, PAYLOAD);
        verifier.verify(KIND, PAYLOAD, &signature, signer.certificate(), now()).unwrap();
    }
    assert_eq!(verifier.remembered.lock().unwrap().len(), REMEMBERED);
}

#[test]
fn a_verifier_wants_the_controllers_authority() {
    let authority = authority();
    assert!(Verifier::new(authority.agents_ca_der(), DOMAIN).is_err());
    assert!(Verifier::new(authority.root_der(), DOMAIN).is_err());
    assert!(Verifier::new(b"none", DOMAIN).is_err());
    assert!(Verifier::new(authority.controllers_ca_der(), "No Domain").is_err());
}

#[test]
fn a_key_survives_its_file() {
    let key = DispatchKey::generate();
    let again = DispatchKey::from_pkcs8(&key.to_pkcs8()).unwrap();
    assert_eq!(again.public_key(), key.public_key());
    assert!(DispatchKey::from_pkcs8(b"none").is_err());
    assert_eq!(format!("{key:?}"), "DispatchKey(<redacted>)");
}
