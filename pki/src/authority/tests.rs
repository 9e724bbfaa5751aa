use model::limits;
use rcgen::KeyIdMethod;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::*;
use crate::{
    AgentIdentity, CsrFault, new_agent_key_and_csr,
    testing::{AGENT, CONTROLLER, DOMAIN, HOUR, ORG, authority, csr, now, uri},
};

fn issue(authority: &Authority, csr_der: &[u8]) -> Result<Vec<u8>, Error> {
    authority.issue_agent(csr_der, ORG, AGENT, [1; 16], now(), now() + HOUR)
}

fn csr_refusal(authority: &Authority, csr_der: &[u8]) -> CsrFault {
    match issue(authority, csr_der) {
        Err(Error::Csr(fault)) => fault,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_chain_is_as_designed() {
    let made = Authority::create(DOMAIN, now()).unwrap();
    assert!(made.root_key_pem.contains("PRIVATE KEY"));
    let authority = made.authority;
    assert_eq!(authority.trust_domain(), DOMAIN);
    assert_eq!(authority.root_pin(), sha256(authority.root_der()));

    let root = certificate::parse(authority.root_der()).unwrap();
    let constraints = root.basic_constraints().unwrap().unwrap().value;
    assert!(constraints.ca);
    assert_eq!(constraints.path_len_constraint, Some(1));
    let validity = Validity::of(&root).unwrap();
    assert_eq!(validity.not_before, now() - HOUR);
    assert_eq!(validity.not_after, now() + HOUR * (24 * 3650));
    // P-384: an uncompressed point has 97 bytes.
    assert_eq!(root.public_key().subject_public_key.data.len(), 97);

    for ca in [authority.agents_ca_der(), authority.controllers_ca_der()] {
        let ca = certificate::parse(ca).unwrap();
        let constraints = ca.basic_constraints().unwrap().unwrap().value;
        assert_eq!(constraints.path_len_constraint, Some(0));
        assert_eq!(Validity::of(&ca).unwrap().not_after, now() + HOUR * (24 * 1825));
        assert_eq!(ca.public_key().subject_public_key.data.len(), 65);
        certificate::check_issued_by(&ca, &root).unwrap();
    }
    let agents = certificate::parse(authority.agents_ca_der()).unwrap();
    assert!(certificate::check_ca(&agents, Use::Controller).is_err());
    assert!(certificate::check_ca(&agents, Use::Dispatch).is_err());
    let controllers = certificate::parse(authority.controllers_ca_der()).unwrap();
    assert!(certificate::check_ca(&controllers, Use::Agent).is_err());
}

#[test]
fn an_authority_survives_its_files() {
    let authority = authority();
    let again = Authority::from_pem(&authority.to_pem()).unwrap();
    assert_eq!(again.to_pem(), authority.to_pem());
    assert_eq!(again.root_pin(), authority.root_pin());
    let leaf = issue(&again, &new_agent_key_and_csr().unwrap().csr_der).unwrap();
    certificate::check_issued_by(
        &certificate::parse(&leaf).unwrap(),
        &certificate::parse(authority.agents_ca_der()).unwrap(),
    )
    .unwrap();
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let good = authority().to_pem();
    let other = authority().to_pem();
    type Change<'a> = Box<dyn Fn(&mut AuthorityPem) + 'a>;
    let cases: Vec<(&str, &str, Change<'_>)> = vec![
        ("root certificate", "cannot be read", Box::new(|pem| pem.root_cert.truncate(100))),
        ("root certificate", "cannot be read", Box::new(|pem| pem.root_cert.clear())),
        (
            "agents' certificate",
            "was not issued by this root",
            Box::new(|pem| pem.root_cert = other.root_cert.clone()),
        ),
        (
            "agents' certificate",
            "was not issued by this root",
            Box::new(|pem| pem.agents_cert = other.agents_cert.clone()),
        ),
        (
            "controllers' certificate",
            "was not issued by this root",
            Box::new(|pem| pem.controllers_cert = other.controllers_cert.clone()),
        ),
        (
            "agents' certificate",
            "is not made for this role",
            Box::new(|pem| std::mem::swap(&mut pem.agents_cert, &mut pem.controllers_cert)),
        ),
        (
            "root certificate",
            "was not issued by this root",
            Box::new(|pem| pem.root_cert = pem.agents_cert.clone()),
        ),
        (
            "agents' key",
            "is not the key of its certificate",
            Box::new(|pem| pem.agents_key = other.agents_key.clone()),
        ),
        (
            "agents' key",
            "is not the key of its certificate",
            Box::new(|pem| std::mem::swap(&mut pem.agents_key, &mut pem.controllers_key)),
        ),
        (
            "controllers' key",
            "is not the key of its certificate",
            Box::new(|pem| pem.controllers_key = other.controllers_key.clone()),
        ),
        (
            "controllers' key",
            "cannot be read",
            Box::new(|pem| pem.controllers_key = Zeroizing::new("none".to_owned())),
        ),
        (
            "root certificate",
            "belongs to another trust domain",
            Box::new(|pem| pem.trust_domain = "other.example".to_owned()),
        ),
    ];
    for (expected_part, expected_fault, change) in cases {
        let mut pem = good.clone();
        change(&mut pem);
        match Authority::from_pem(&pem) {
            Err(Error::Authority { part, fault }) => {
                assert_eq!((part, fault), (expected_part, expected_fault));
            }
            other => panic!("{expected_part} {expected_fault}: {other:?}"),
        }
    }
}

#[test]
fn keys_are_not_printed() {
    let made = Authority::create(DOMAIN, now()).unwrap();
    let shown = format!("{:?} {:?}", made.authority, made.authority.to_pem());
    assert!(!shown.contains("PRIVATE KEY"));
    assert!(shown.contains("<redacted>"));
}

#[test]
fn a_trust_domain_that_is_none_is_refused() {
    assert!(matches!(Authority::create("Not A Domain", now()), Err(Error::TrustDomain(_))));
}

#[test]
fn of_a_request_only_the_public_key_is_taken() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let request = csr(&key, |params| {
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_identifier_method = KeyIdMethod::Sha512;
    });
    let leaf = issue(&authority, &request).unwrap();
    AgentIdentity::from_certificate(&leaf).unwrap();
    let leaf = certificate::parse(&leaf).unwrap();
    assert_eq!(&*leaf.public_key().subject_public_key.data, key.public_key_raw());
    assert_eq!(leaf.subject().to_string(), format!("CN={AGENT}"));
    assert_eq!(certificate::leaf_uri(&leaf, Use::Agent).unwrap(), Subject::Agent(ORG, AGENT).uri(DOMAIN));
}

#[test]
fn a_request_that_asks_for_more_is_refused() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let san = csr(&key, |params| params.subject_alt_names = vec![uri("spiffe://lab.example/controller/1")]);
    assert_eq!(csr_refusal(&authority, &san), CsrFault::AsksForName);
    // Even for the name that it would get.
    let own =
        csr(&key, |params| params.subject_alt_names = vec![uri(&Subject::Agent(ORG, AGENT).uri(DOMAIN))]);
    assert_eq!(csr_refusal(&authority, &own), CsrFault::AsksForName);
    let ca = csr(&key, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(csr_refusal(&authority, &ca), CsrFault::AsksForCa);
    let signer = csr(&key, |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    assert_eq!(csr_refusal(&authority, &signer), CsrFault::AsksForCa);
    assert_eq!(
        issue(&authority, &ca).unwrap_err().to_string(),
        "the certificate signing request is refused: it asks for a CA certificate"
    );
}

#[test]
fn a_request_that_is_broken_is_refused() {
    let authority = authority();
    let good = new_agent_key_and_csr().unwrap().csr_der;
    issue(&authority, &good).unwrap();

    assert_eq!(csr_refusal(&authority, b""), CsrFault::Unreadable);
    assert_eq!(csr_refusal(&authority, b"-----BEGIN CERTIFICATE REQUEST-----"), CsrFault::Unreadable);
    assert_eq!(csr_refusal(&authority, &[good.as_slice(), b"x"].concat()), CsrFault::Unreadable);
    assert_eq!(csr_refusal(&authority, &vec![0; limits::CSR_BYTES + 1]), CsrFault::TooLong);
    for length in 0..good.len() {
        assert_eq!(csr_refusal(&authority, &good[..length]), CsrFault::Unreadable);
    }
    // What follows the signed part only says how to check it; the first three bytes are the outer header.
    let (_, parsed) = X509CertificationRequest::from_der(&good).unwrap();
    for at in 0..3 + parsed.certification_request_info.raw.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(issue(&authority, &changed).is_err(), "byte {at}");
    }
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let other = csr(&KeyPair::generate_for(algorithm).unwrap(), |_| {});
        assert_eq!(csr_refusal(&authority, &other), CsrFault::KeyKind);
    }
}

#[test]
fn a_validity_must_lie_inside_the_issuers() {
    let authority = authority();
    let csr = new_agent_key_and_csr().unwrap().csr_der;
    let end = now() + INTERMEDIATE_LIFE;
    let issue = |from, to| authority.issue_agent(&csr, ORG, AGENT, [1; 16], from, to);
    issue(now(), end).unwrap();
    assert!(matches!(issue(now(), end + HOUR), Err(Error::OutlivesIssuer { .. })));
    assert!(matches!(issue(now(), now()), Err(Error::Validity { .. })));
    assert!(matches!(issue(now(), now() - HOUR), Err(Error::Validity { .. })));
    assert!(matches!(issue(Timestamp::MIN, now()), Err(Error::Validity { .. })));
    assert!(authority.issue_controller(CONTROLLER, now(), end + HOUR).is_err());
    assert!(authority.issue_dispatch(CONTROLLER, &DispatchKey::generate(), now(), end + HOUR).is_err());
}

#[test]
fn controllers_get_a_fresh_key_and_the_whole_chain() {
    let authority = authority();
    let identity = authority.issue_controller(CONTROLLER, now(), now() + HOUR).unwrap();
    let [leaf, intermediate, root] = identity.chain.as_slice() else { panic!("{identity:?}") };
    assert_eq!(&**intermediate, authority.controllers_ca_der());
    assert_eq!(&**root, authority.root_der());
    let parsed = certificate::parse(leaf).unwrap();
    let uri = certificate::leaf_uri(&parsed, Use::Controller).unwrap();
    assert_eq!(uri, Subject::Controller(CONTROLLER).uri(DOMAIN));

    let again = authority.issue_controller(CONTROLLER, now(), now() + HOUR).unwrap();
    assert_ne!(again.key.secret_der(), identity.key.secret_der());
    assert_ne!(certificate::parse(&again.chain[0]).unwrap().raw_serial(), parsed.raw_serial());
}
