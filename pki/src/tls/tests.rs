use jiff::SignedDuration;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SerialNumber,
};
use rustls::{
    ClientConnection, HandshakeKind, ProtocolVersion, ServerConnection, Side,
    client::ClientSessionMemoryCache, time_provider::TimeProvider, version::TLS12,
};

use super::*;
use crate::{
    Authority, DispatchKey,
    testing::{
        self, AGENT, CONTROLLER, DOMAIN, HOUR, Held, ORG, SignedBy, authority, forge, now, set_validity, uri,
    },
};

#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.as_second()).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Which side ended a handshake, and why.
#[derive(Debug)]
struct Broken(Side, rustls::Error);

impl Broken {
    fn fault(&self) -> Option<CertificateFault> {
        let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error))) = &self.1 else {
            return None;
        };
        match error.downcast_ref() {
            Some(Error::Certificate(fault)) => Some(*fault),
            _ => None,
        }
    }
}

type Ends = (ClientConnection, ServerConnection);

/// A whole handshake in memory, both clocks at `time`.
fn handshake_at(client: &ClientConfig, server: &ServerConfig, time: Timestamp) -> Result<Ends, Broken> {
    let (mut client, mut server) = (client.clone(), server.clone());
    client.time_provider = Arc::new(At(time));
    server.time_provider = Arc::new(At(time));
    // No certificate is for this name: names do not count.
    let name = ServerName::try_from("203.0.113.7").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(|error| Broken(Side::Server, error))?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(|error| Broken(Side::Client, error))?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn handshake(client: &ClientConfig, server: &ServerConfig) -> Result<Ends, Broken> {
    handshake_at(client, server, now())
}

fn door(authority: &Authority) -> Arc<ServerConfig> {
    server_config(testing::controller(authority), authority.agents_ca_der()).unwrap()
}

fn dial(authority: &Authority, held: Held) -> Arc<ClientConfig> {
    client_config(authority.controllers_ca_der(), DOMAIN, held.chain, held.key).unwrap()
}

/// A server that presents whatever it holds and asks for nothing.
fn bare_server(held: Held) -> ServerConfig {
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(held.chain, held.key)
        .unwrap()
}

fn refused_by_server(authority: &Authority, held: Held) -> Broken {
    let broken = handshake(&dial(authority, held), &door(authority)).unwrap_err();
    assert_eq!(broken.0, Side::Server, "{broken:?}");
    broken
}

fn refused_by_client(authority: &Authority, held: Held) -> Broken {
    let client = dial(authority, testing::agent(authority));
    let broken = handshake(&client, &bare_server(held)).unwrap_err();
    assert_eq!(broken.0, Side::Client, "{broken:?}");
    broken
}

#[test]
fn agent_and_controller_meet() {
    let authority = authority();
    let agent = testing::agent(&authority);
    let (client, server) = handshake(&dial(&authority, agent.clone()), &door(&authority)).unwrap();
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(ALPN));
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    let shown = server.peer_certificates().unwrap();
    assert_eq!(&*shown[0], agent.leaf());
    assert_eq!(AgentIdentity::from_certificate(&shown[0]).unwrap().agent_id, AGENT);
}

#[test]
fn an_agent_may_send_the_whole_chain() {
    let authority = authority();
    let mut agent = testing::agent(&authority);
    agent.chain.push(authority.agents_ca_der().to_vec().into());
    agent.chain.push(authority.root_der().to_vec().into());
    handshake(&dial(&authority, agent), &door(&authority)).unwrap();
}

#[test]
fn agents_that_are_none_are_refused() {
    let authority = authority();
    let pem = authority.to_pem();
    type Change<'a> = Box<dyn FnOnce(&mut CertificateParams) + 'a>;
    let named =
        |name: String| -> Change<'_> { Box::new(move |params| params.subject_alt_names = vec![uri(&name)]) };
    let cases: Vec<(&str, CertificateFault, Change<'_>)> = vec![
        (
            "two URIs",
            CertificateFault::Names,
            Box::new(|params| params.subject_alt_names.push(uri("spiffe://lab.example/x"))),
        ),
        (
            "foreign trust domain",
            CertificateFault::TrustDomain,
            named(Subject::Agent(ORG, AGENT).uri("other.example")),
        ),
        ("controller's name", CertificateFault::Form, named(Subject::Controller(CONTROLLER).uri(DOMAIN))),
        (
            "CA",
            CertificateFault::IsCa,
            Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        (
            "for servers",
            CertificateFault::Usage,
            Box::new(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        ("without a use", CertificateFault::Usage, Box::new(|params| params.extended_key_usages.clear())),
    ];
    for (what, fault, change) in cases {
        let broken = refused_by_server(&authority, forge(&pem, SignedBy::Agents, change));
        assert_eq!(broken.fault(), Some(fault), "{what}");
    }
    let own_controller = testing::controller(&authority).into();
    assert_eq!(refused_by_server(&authority, own_controller).fault(), Some(CertificateFault::Usage));
}

#[test]
fn agents_of_another_issuer_are_refused() {
    let here = authority();
    let pem = here.to_pem();
    let elsewhere = testing::agent(&authority());
    for (what, held) in [
        ("self-signed", forge(&pem, SignedBy::Itself, |_| {})),
        ("controllers' intermediate", forge(&pem, SignedBy::Controllers, |_| {})),
        ("another installation of the same trust domain", elsewhere),
        ("an agent that plays CA", sub_agent(&here)),
    ] {
        let broken = refused_by_server(&here, held);
        let expected = [CertificateError::UnknownIssuer, CertificateError::BadSignature];
        assert!(
            matches!(&broken.1, rustls::Error::InvalidCertificate(why) if expected.contains(why)),
            "{what}: {broken:?}"
        );
    }
}

/// A certificate that an agent issued with its own key, and the agent's behind it.
fn sub_agent(authority: &Authority) -> Held {
    let agent = testing::agent(authority);
    let key = KeyPair::try_from(&agent.key).unwrap();
    let issuer = Issuer::from_ca_cert_der(&agent.chain[0], key).unwrap();
    let sub_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&[5; 16]));
    set_validity(&mut params, now() - HOUR, now() + HOUR);
    params.subject_alt_names = vec![uri(&Subject::Agent(ORG, AGENT).uri(DOMAIN))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&sub_key, &issuer).unwrap();
    Held {
        chain: vec![certificate.der().clone(), agent.chain[0].clone()],
        key: rustls_pki_types::PrivatePkcs8KeyDer::from(sub_key.serialized_der().to_vec()).into(),
    }
}

#[test]
fn an_expired_certificate_passes_for_ninety_days_and_no_longer() {
    let authority = authority();
    let client = dial(&authority, testing::agent(&authority));
    // The controller's own certificate must be valid all the while.
    let end = now() + HOUR;
    let grace = SignedDuration::try_from(limits::RENEW_AFTER_EXPIRY).unwrap();
    let identity = authority.issue_controller(CONTROLLER, now() - HOUR * 2, end + grace + HOUR).unwrap();
    let server = server_config(identity, authority.agents_ca_der()).unwrap();

    let (_, late) = handshake_at(&client, &server, end + grace).unwrap();
    let identity = AgentIdentity::from_certificate(&late.peer_certificates().unwrap()[0]).unwrap();
    assert!(identity.not_after < end + grace, "the caller can see that it is over");
    handshake_at(&client, &server, end + SignedDuration::from_secs(1)).unwrap();

    let broken = handshake_at(&client, &server, end + grace + SignedDuration::from_secs(1)).unwrap_err();
    assert_eq!(broken.0, Side::Server);
    assert!(format!("{:?}", broken.1).contains("Expired"), "{broken:?}");
    let broken = handshake_at(&client, &server, now() - HOUR - SignedDuration::from_secs(1)).unwrap_err();
    assert!(format!("{:?}", broken.1).contains("NotValidYet"), "{broken:?}");
}

#[test]
fn a_client_without_a_certificate_is_let_in_as_nobody() {
    let authority = authority();
    let (_, server) = handshake(&enroll_config(authority.root_pin()).unwrap(), &door(&authority)).unwrap();
    assert!(server.peer_certificates().is_none());
}

#[test]
fn controllers_that_are_none_are_refused() {
    let here = authority();
    let pem = here.to_pem();
    let own_name = Subject::Controller(CONTROLLER).uri(DOMAIN);
    let forged = |signed_by, name: &str| {
        forge(&pem, signed_by, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![uri(name)];
        })
    };
    for (what, held, fault) in [
        ("an agent", testing::agent(&here), Some(CertificateFault::Usage)),
        (
            "a foreign trust domain",
            forged(SignedBy::Controllers, &own_name.replace(DOMAIN, "other.example")),
            Some(CertificateFault::TrustDomain),
        ),
        (
            "a dispatch name",
            forged(SignedBy::Controllers, &format!("{own_name}/dispatch")),
            Some(CertificateFault::Form),
        ),
        (
            "an agent's name",
            forged(SignedBy::Controllers, &Subject::Agent(ORG, AGENT).uri(DOMAIN)),
            Some(CertificateFault::Form),
        ),
        ("the agents' intermediate", forged(SignedBy::Agents, &own_name), None),
        ("self-signed", forged(SignedBy::Itself, &own_name), None),
        ("another installation", testing::controller(&authority()).into(), None),
        ("a dispatch certificate", dispatch(&here), Some(CertificateFault::Usage)),
    ] {
        let broken = refused_by_client(&here, held);
        assert_eq!(broken.fault(), fault, "{what}: {broken:?}");
        assert!(matches!(broken.1, rustls::Error::InvalidCertificate(_)), "{what}: {broken:?}");
    }
    // The template of these forgeries is accepted where nothing is wrong with it.
    let good = bare_server(forged(SignedBy::Controllers, &own_name));
    handshake(&dial(&here, testing::agent(&here)), &good).unwrap();
}

/// A stolen dispatch key that is put before a TLS door.
#[test]
fn nobody_takes_the_peoples_door_for_a_controller() {
    let authority = authority();
    let door = |names: &[&str]| -> Held {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        authority.issue_door(&names, now() - HOUR, now() + HOUR).unwrap().into()
    };
    let sly = Subject::Controller(CONTROLLER).uri(DOMAIN);
    assert!(authority.issue_door(&[sly], now() - HOUR, now() + HOUR).is_ok(), "it is a mere host name");
    let pinned = enroll_config(authority.root_pin()).unwrap();
    for names in
        [&["ops.example"][..], &["controller"], &["192.0.2.7"], &["spiffe://lab.example/controller/x"]]
    {
        let broken = refused_by_client(&authority, door(names));
        assert_eq!(broken.fault(), Some(CertificateFault::Names), "{names:?}");
        let mut whole = door(names);
        whole.chain.push(authority.root_der().to_vec().into());
        let broken = handshake(&pinned, &bare_server(whole)).unwrap_err();
        assert_eq!(broken.fault(), Some(CertificateFault::Names), "{names:?}");
        let identity = authority.issue_door(&[names[0].to_owned()], now() - HOUR, now() + HOUR).unwrap();
        server_config(identity, authority.agents_ca_der()).unwrap_err();
    }
}

#[test]
fn a_browser_meets_the_peoples_door() {
    let authority = authority();
    let names = ["ops.example".to_owned(), "203.0.113.7".to_owned()];
    let identity = authority.issue_door(&names, now() - HOUR, now() + HOUR).unwrap();
    let door = crate::door::door_config(identity).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.root_der().to_vec().into()).unwrap();
    for (version, want) in [(&TLS13, ProtocolVersion::TLSv1_3), (&TLS12, ProtocolVersion::TLSv1_2)] {
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (client, _) = handshake(&client, &door).unwrap();
        assert_eq!(client.protocol_version(), Some(want));
        assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    let foreign = ["other.example".to_owned()];
    let identity = authority.issue_door(&foreign, now() - HOUR, now() + HOUR).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    handshake(&client, &crate::door::door_config(identity).unwrap()).unwrap_err();
    let no_names = authority.issue_door(&[], now() - HOUR, now() + HOUR).unwrap_err();
    assert!(matches!(no_names, Error::Certificate(CertificateFault::Names)), "{no_names:?}");
}

fn dispatch(authority: &Authority) -> Held {
    let key = DispatchKey::generate();
    let leaf = authority.issue_dispatch(CONTROLLER, &key, now() - HOUR, now() + HOUR).unwrap();
    Held {
        chain: vec![leaf.into()],
        key: rustls_pki_types::PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec()).into(),
    }
}

#[test]
fn a_controllers_certificate_has_no_grace() {
    let authority = authority();
    let client = dial(&authority, testing::agent(&authority));
    let server = door(&authority);
    for (time, word) in [(now() + HOUR * 2, "Expired"), (now() - HOUR * 2, "NotValidYet")] {
        let broken = handshake_at(&client, &server, time).unwrap_err();
        assert_eq!(broken.0, Side::Client);
        assert!(format!("{:?}", broken.1).contains(word), "{broken:?}");
    }
}

#[test]
fn enrollment_believes_the_pinned_root_alone() {
    let here = authority();
    let there = authority();
    let client = enroll_config(here.root_pin()).unwrap();
    handshake(&client, &door(&here)).unwrap();

    let refused = |held: Held| {
        let broken = handshake(&client, &bare_server(held)).unwrap_err();
        assert_eq!(broken.0, Side::Client);
        broken
    };
    assert_eq!(refused(testing::controller(&there).into()).fault(), Some(CertificateFault::RootPin));

    let genuine: Held = testing::controller(&here).into();
    let mut cut = genuine.clone();
    cut.chain.pop();
    assert_eq!(refused(cut).fault(), Some(CertificateFault::Chain));
    let mut longer = genuine.clone();
    longer.chain.push(here.root_der().to_vec().into());
    assert_eq!(refused(longer).fault(), Some(CertificateFault::Chain));

    // The pinned root is public: showing it proves nothing.
    let mut borrowed: Held = testing::controller(&there).into();
    borrowed.chain[2] = here.root_der().to_vec().into();
    assert!(matches!(refused(borrowed).1, rustls::Error::InvalidCertificate(_)));

    // Whoever stole the agents' intermediate still makes no controller.
    let mut stolen = forge(&here.to_pem(), SignedBy::Agents, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![uri(&Subject::Controller(CONTROLLER).uri(DOMAIN))];
    });
    stolen.chain.push(here.agents_ca_der().to_vec().into());
    stolen.chain.push(here.root_der().to_vec().into());
    assert_eq!(refused(stolen).fault(), Some(CertificateFault::Usage));

    let mut agent = testing::agent(&here);
    agent.chain.push(here.agents_ca_der().to_vec().into());
    agent.chain.push(here.root_der().to_vec().into());
    assert_eq!(refused(agent).fault(), Some(CertificateFault::Usage));

    let broken = handshake_at(&client, &door(&here), now() + HOUR * 2).unwrap_err();
    assert!(format!("{:?}", broken.1).contains("Expired"), "{broken:?}");
}

#[test]
fn there_is_no_resumption() {
    let authority = authority();
    let mut client = (*dial(&authority, testing::agent(&authority))).clone();
    client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    let server = door(&authority);
    for _ in 0..3 {
        let (client, server) = handshake(&client, &server).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn tls_1_2_is_refused() {
    let authority = authority();
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(anchor(authority.controllers_ca_der(), Use::Controller).unwrap())
        .with_no_client_auth();
    let broken = handshake(&old, &door(&authority)).unwrap_err();
    assert!(matches!(broken.1, rustls::Error::PeerIncompatible(_)), "{broken:?}");
}

#[test]
fn configurations_want_the_right_parts() {
    let here = authority();
    let other = testing::controller(&here);
    assert!(server_config(testing::controller(&here), here.controllers_ca_der()).is_err());
    assert!(server_config(testing::controller(&here), here.root_der()).is_err());
    assert!(server_config(testing::controller(&here), b"none").is_err());
    let mixed = ServerIdentity { chain: testing::controller(&here).chain, key: other.key };
    assert!(matches!(server_config(mixed, here.agents_ca_der()), Err(Error::Tls(_))));
    let empty = ServerIdentity { chain: Vec::new(), key: testing::agent(&here).key };
    assert!(server_config(empty, here.agents_ca_der()).is_err());
    let agent = testing::agent(&here);
    let as_server = ServerIdentity { chain: agent.chain.clone(), key: agent.key.clone_key() };
    assert!(server_config(as_server, here.agents_ca_der()).is_err());

    let client = |ca: &[u8], domain: &str, key: PrivateKeyDer<'static>| {
        client_config(ca, domain, agent.chain.clone(), key)
    };
    assert!(client(here.controllers_ca_der(), DOMAIN, agent.key.clone_key()).is_ok());
    assert!(client(here.agents_ca_der(), DOMAIN, agent.key.clone_key()).is_err());
    assert!(client(here.controllers_ca_der(), "No Domain", agent.key.clone_key()).is_err());
    assert!(client(here.controllers_ca_der(), DOMAIN, testing::agent(&here).key).is_err());
}
