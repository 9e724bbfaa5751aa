use jiff::SignedDuration;
use model::id::ControllerId;
use pki::{Authority, DispatchKey, Signer, seal};
use uuid::Uuid;

use super::*;

const DOMAIN: &str = "test.example";
const EPOCH: [u8; 16] = [9; 16];

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn id(byte: u8) -> Uuid {
    Uuid::from_bytes([byte; 16])
}

fn authority() -> Authority {
    Authority::create(DOMAIN, now()).unwrap().authority
}

fn signer(authority: &Authority) -> Signer {
    let key = DispatchKey::generate();
    let until = now() + SignedDuration::from_hours(24);
    let certificate = authority.issue_dispatch(ControllerId::from(id(7)), &key, now(), until).unwrap();
    Signer::new(key, certificate)
}

fn audience(authority: &Authority) -> Audience {
    Audience {
        verifier: Verifier::new(authority.controllers_ca_der(), DOMAIN).unwrap(),
        trust_domain: DOMAIN.to_owned(),
        org_id: OrgId::from(id(1)),
        agent_id: AgentId::from(id(2)),
    }
}

fn good() -> proto::WorkOrder {
    proto::WorkOrder {
        trust_domain: DOMAIN.to_owned(),
        org_id: vec![1; 16],
        agent_id: vec![2; 16],
        journal_epoch: EPOCH.to_vec(),
        execution_id: vec![3; 16],
        run_id: vec![4; 16],
        attempt: 1,
        fence: 10,
        issued_at: now().as_microsecond(),
        start_by: (now() + SignedDuration::from_secs(120)).as_microsecond(),
        nonce: vec![5; NONCE_BYTES],
        command: Some(proto::Command {
            program: Some(proto::command::Program::Shell("true".to_owned())),
            timeout_ms: 1000,
            ..proto::Command::default()
        }),
        ..proto::WorkOrder::default()
    }
}

fn envelope(signer: &Signer, kind: &str, payload: Vec<u8>) -> proto::Envelope {
    proto::Envelope {
        kind: kind.to_owned(),
        signature: signer.sign(kind, &payload),
        certificate: signer.certificate().to_vec(),
        payload,
    }
}

#[test]
fn what_is_not_signed_by_a_controller_is_not_believed() {
    let authority = authority();
    let (audience, signer) = (audience(&authority), signer(&authority));
    let sign = |kind: &str| envelope(&signer, kind, good().encode_to_vec());
    assert_eq!(audience.read(&sign(KIND), now()).unwrap().content, good());

    let read = |envelope: &proto::Envelope| audience.read(envelope, now()).unwrap_err();
    assert!(matches!(read(&sign("manifest")), Unbelievable::Kind(_)));
    let renamed = proto::Envelope { kind: KIND.to_owned(), ..sign("manifest") };
    assert!(matches!(read(&renamed), Unbelievable::Signature(_)));
    let mut changed = sign(KIND);
    changed.payload[40] ^= 1;
    assert!(matches!(read(&changed), Unbelievable::Signature(_)));
    let foreign = envelope(&self::signer(&self::authority()), KIND, good().encode_to_vec());
    assert!(matches!(read(&foreign), Unbelievable::Signature(_)));
    let late = audience.read(&sign(KIND), now() + SignedDuration::from_hours(25)).unwrap_err();
    assert!(matches!(late, Unbelievable::Signature(_)));
    assert!(matches!(read(&envelope(&signer, KIND, vec![0xff; 8])), Unbelievable::Parse(_)));
    let short = proto::WorkOrder { run_id: vec![4; 15], ..good() };
    assert!(matches!(read(&envelope(&signer, KIND, short.encode_to_vec())), Unbelievable::Ids));
    let zeroth = proto::WorkOrder { attempt: 0, ..good() };
    assert!(matches!(read(&envelope(&signer, KIND, zeroth.encode_to_vec())), Unbelievable::Ids));
}

#[test]
fn an_order_for_somebody_else_is_refused() {
    let audience = audience(&authority());
    assert_eq!(audience.check_addressee(&good()), Ok(()));
    let fault = |order| audience.check_addressee(&order).unwrap_err();
    let domain = proto::WorkOrder { trust_domain: "other.example".to_owned(), ..good() };
    assert_eq!(fault(domain), Fault::TrustDomain("other.example".to_owned()));
    assert_eq!(fault(proto::WorkOrder { org_id: vec![8; 16], ..good() }), Fault::Organization);
    assert_eq!(fault(proto::WorkOrder { agent_id: vec![8; 16], ..good() }), Fault::Agent);
}

#[test]
fn an_order_must_fit_journal_clock_and_fence() {
    let check = |order: &proto::WorkOrder, now| {
        check(
            order,
            Memory { epoch: &EPOCH, fence: 10, is_forgotten: false, clock_skew: limits::CLOCK_SKEW },
            now,
        )
    };
    let seconds = SignedDuration::from_secs;
    assert_eq!(check(&good(), now()), Ok(()));
    assert_eq!(check(&good(), now() - seconds(60)), Ok(()));
    assert_eq!(check(&good(), now() + seconds(120)), Ok(()));
    assert_eq!(check(&good(), now() - seconds(61)), Err(Fault::TooEarly { seconds: 61, allowed: 60 }));
    assert_eq!(check(&good(), now() + seconds(123)), Err(Fault::TooLate { seconds: 3 }));

    let fault = |order: proto::WorkOrder| check(&order, now()).unwrap_err();
    assert_eq!(fault(proto::WorkOrder { journal_epoch: vec![1; 16], ..good() }), Fault::Epoch);
    assert_eq!(fault(proto::WorkOrder { fence: 9, ..good() }), Fault::Fence { fence: 9, highest: 10 });
    let is_incomplete = |order| matches!(fault(order), Fault::Incomplete(_));
    assert!(is_incomplete(proto::WorkOrder { nonce: Vec::new(), ..good() }));
    assert!(is_incomplete(proto::WorkOrder { command: None, ..good() }));
    let command = |change: fn(&mut proto::Command)| {
        let mut order = good();
        order.command.as_mut().map(change);
        order
    };
    assert!(is_incomplete(command(|command| command.program = None)));
    assert!(is_incomplete(command(|command| command.timeout_ms = 0)));
}

#[test]
fn an_environment_opens_only_for_its_attempt_and_agent() {
    let key = SealKey::generate();
    let order = |variables: &[(&str, &str)], attempt: u32| {
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let aad = [vec![3; 16], vec![4; 16], 1_u32.to_be_bytes().to_vec()].concat();
        let plain = proto::Environment { variables }.encode_to_vec();
        let sealed = seal(&key.public_key(), ENVIRONMENT_INFO, &aad, &plain).unwrap();
        let mut content = good();
        if let Some(command) = &mut content.command {
            let (encapsulated_key, ciphertext) = (sealed.encapsulated_key, sealed.ciphertext);
            command.environment = Some(proto::Sealed { encapsulated_key, ciphertext });
        }
        let (execution_id, run_id) = (ExecutionId::from(id(3)), RunId::from(id(4)));
        Order { key: AttemptKey { execution_id, run_id, attempt }, content }
    };
    let opened = spec(order(&[("A", "1")], 1), &key).unwrap();
    assert_eq!(opened.environment["A"], "1");
    assert_eq!(spec(order(&[("A", "1")], 2), &key).unwrap_err(), Fault::Sealed);
    assert_eq!(spec(order(&[("A", "1")], 1), &SealKey::generate()).unwrap_err(), Fault::Sealed);
    assert_eq!(spec(order(&[("A=B", "1")], 1), &key).unwrap_err(), Fault::Environment);
    assert_eq!(spec(order(&[("A", "\0")], 1), &key).unwrap_err(), Fault::Environment);
}
