use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber,
};

use super::*;
use crate::testing::{self, AGENT, CONTROLLER, DOMAIN, HOUR, ORG, SignedBy, authority, forge, now, uri};

fn refusal(der: &[u8]) -> CertificateFault {
    match AgentIdentity::from_certificate(der) {
        Err(Error::Certificate(fault)) => fault,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_issued_certificate_says_who_it_is() {
    let identity = AgentIdentity::from_certificate(testing::agent(&authority()).leaf()).unwrap();
    assert_eq!(
        identity,
        AgentIdentity {
            trust_domain: DOMAIN.to_owned(),
            org_id: ORG,
            agent_id: AGENT,
            serial: vec![9; 16],
            not_before: now() - HOUR,
            not_after: now() + HOUR,
        }
    );
}

#[test]
fn what_is_not_exactly_an_agent_is_refused() {
    let authority = authority();
    let pem = authority.to_pem();
    let agent_uri = Subject::Agent(ORG, AGENT).uri(DOMAIN);
    let other_uri = agent_uri.replace("00a2", "00b2");
    type Change<'a> = Box<dyn FnOnce(&mut CertificateParams) + 'a>;
    let named =
        |name: String| -> Change<'_> { Box::new(move |params| params.subject_alt_names = vec![uri(&name)]) };
    let cases: Vec<(&str, CertificateFault, Change<'_>)> = vec![
        (
            "two URIs",
            CertificateFault::Names,
            Box::new(|params| params.subject_alt_names.push(uri(&other_uri))),
        ),
        (
            "the same URI twice",
            CertificateFault::Names,
            Box::new(|params| params.subject_alt_names.push(uri(&agent_uri))),
        ),
        (
            "a DNS name beside it",
            CertificateFault::Names,
            Box::new(|params| {
                params.subject_alt_names.push(SanType::DnsName("controller".try_into().unwrap()));
            }),
        ),
        ("no name", CertificateFault::Names, Box::new(|params| params.subject_alt_names.clear())),
        (
            "only a DNS name",
            CertificateFault::Names,
            Box::new(|params| {
                params.subject_alt_names = vec![SanType::DnsName("agent".try_into().unwrap())];
            }),
        ),
        (
            "a CA",
            CertificateFault::IsCa,
            Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        (
            "may sign certificates",
            CertificateFault::IsCa,
            Box::new(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ),
        (
            "may not sign",
            CertificateFault::Usage,
            Box::new(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        ),
        (
            "for servers",
            CertificateFault::Usage,
            Box::new(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        (
            "for servers too",
            CertificateFault::Usage,
            Box::new(|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)),
        ),
        (
            "for anything",
            CertificateFault::Usage,
            Box::new(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
        ),
        ("without a use", CertificateFault::Usage, Box::new(|params| params.extended_key_usages.clear())),
        (
            "unknown critical extension",
            CertificateFault::UnknownExtension,
            Box::new(|params| {
                let mut extension =
                    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
                extension.set_criticality(true);
                params.custom_extensions.push(extension);
            }),
        ),
        (
            "a serial of 20 bytes",
            CertificateFault::Serial,
            Box::new(|params| params.serial_number = Some(SerialNumber::from_slice(&[1; 20]))),
        ),
        ("a controller", CertificateFault::Form, named(Subject::Controller(CONTROLLER).uri(DOMAIN))),
        ("a dispatch key", CertificateFault::Form, named(Subject::Dispatch(CONTROLLER).uri(DOMAIN))),
        ("upper-case id", CertificateFault::Form, named(agent_uri.replace("00a2", "00A2"))),
        ("something behind", CertificateFault::Form, named(format!("{agent_uri}/"))),
        ("something in front", CertificateFault::Form, named(agent_uri.replace("/org/", "//org/"))),
        ("a query", CertificateFault::Form, named(format!("{agent_uri}?admin"))),
        ("another scheme", CertificateFault::Form, named(agent_uri.replace("spiffe", "https"))),
        ("upper-case scheme", CertificateFault::Form, named(agent_uri.replace("spiffe", "SPIFFE"))),
        ("no trust domain", CertificateFault::Form, named(agent_uri.replace(DOMAIN, ""))),
        ("a port", CertificateFault::Form, named(agent_uri.replace(DOMAIN, "lab.example:1"))),
    ];
    for (what, fault, change) in cases {
        let forged = forge(&pem, SignedBy::Agents, change);
        assert_eq!(refusal(forged.leaf()), fault, "{what}");
    }
    assert_eq!(refusal(&testing::controller(&authority).chain[0]), CertificateFault::Usage);
    assert_eq!(refusal(authority.agents_ca_der()), CertificateFault::IsCa);
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    let held = testing::agent(&authority());
    assert_eq!(refusal(b""), CertificateFault::Unreadable);
    assert_eq!(refusal(b"hello"), CertificateFault::Unreadable);
    let mut longer = held.leaf().to_vec();
    longer.push(0);
    assert_eq!(refusal(&longer), CertificateFault::Unreadable);
    for length in 0..held.leaf().len() {
        assert_eq!(refusal(&held.leaf()[..length]), CertificateFault::Unreadable);
    }
}

#[test]
fn a_serial_keeps_its_sixteen_bytes() {
    let authority = authority();
    let csr = new_agent_key_and_csr().unwrap().csr_der;
    let mut high = [0xff; 16];
    for (given, kept) in [
        ([0x7f; 16], [0x7f; 16]),
        (high, {
            high[0] = 0x7f;
            high
        }),
        ([[0; 8], [0x80; 8]].concat().try_into().unwrap(), [[0; 8], [0x80; 8]].concat().try_into().unwrap()),
        ([[0x80; 1], [0; 1]].concat().repeat(8).try_into().unwrap(), {
            let mut kept: [u8; 16] = [[0x80; 1], [0; 1]].concat().repeat(8).try_into().unwrap();
            kept[0] = 0;
            kept
        }),
    ] {
        let leaf = authority.issue_agent(&csr, ORG, AGENT, given, now(), now() + HOUR).unwrap();
        assert_eq!(AgentIdentity::from_certificate(&leaf).unwrap().serial, kept);
    }
}

#[test]
fn trust_domains() {
    for good in ["a", "lab.example", "team-1_x.internal", &"a".repeat(255)] {
        check_trust_domain(good).unwrap();
    }
    for bad in ["", "Lab.example", "lab/example", "lab example", "lab:8080", "läb", "lab\n", &"a".repeat(256)]
    {
        assert!(matches!(check_trust_domain(bad), Err(Error::TrustDomain(_))), "{bad}");
    }
}

#[test]
fn an_agents_key_is_not_printed() {
    assert_eq!(format!("{:?}", new_agent_key_and_csr().unwrap()), "AgentKey(<redacted>)");
}
