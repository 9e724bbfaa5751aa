//! Simulated agents against the bare server, and their answers to orders.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::id::{ControllerId, OrgId};
use pki::{Authority, DispatchKey, Signer};
use prost::Message as _;
use proto::{Argv, Command, Envelope, ExitRecord, WorkOrder, command::Program, report::Body};

use super::{
    Swarm,
    identity::{Identity, Trust, issue},
    order,
};
use crate::clock;

struct Scene {
    trust: Trust,
    identity: Identity,
    signer: Signer,
    now: Timestamp,
    result_key: Vec<u8>,
}

impl Scene {
    fn set() -> Self {
        let now = clock::now();
        let authority = Authority::create("bench.test", now).unwrap().authority;
        let trust = Trust::of(&authority).unwrap();
        let issued = issue(&authority, &trust, OrgId::new(now, clock::entropy()), 1).unwrap().remove(0);
        let key = DispatchKey::generate();
        let controller = ControllerId::new(now, clock::entropy());
        let hour = SignedDuration::from_hours(1);
        let certificate = authority.issue_dispatch(controller, &key, now, now + hour).unwrap();
        let signer = Signer::new(key, certificate);
        Self { trust, identity: issued.identity, signer, now, result_key: issued.result_key }
    }

    fn order(&self) -> WorkOrder {
        let argv = ["echo", "hello", "world"].map(str::to_owned).to_vec();
        WorkOrder {
            trust_domain: self.trust.trust_domain.clone(),
            org_id: self.identity.org_id.to_bytes(),
            agent_id: self.identity.agent_id.to_bytes(),
            journal_epoch: self.identity.journal_epoch.to_vec(),
            execution_id: vec![1; 16],
            run_id: vec![2; 16],
            attempt: 1,
            issued_at: self.now.as_microsecond(),
            start_by: self.now.as_microsecond() + 1_000_000,
            command: Some(Command { program: Some(Program::Argv(Argv { argv })), ..Command::default() }),
            ..WorkOrder::default()
        }
    }

    fn sealed(&self, order: &WorkOrder) -> Envelope {
        let payload = order.encode_to_vec();
        Envelope {
            kind: "work-order".to_owned(),
            signature: self.signer.sign("work-order", &payload),
            certificate: self.signer.certificate().to_vec(),
            payload,
        }
    }

    fn verify(&self, envelope: &Envelope) -> Result<WorkOrder, &'static str> {
        order::verify(&self.trust, &self.identity, envelope, self.now)
    }
}

#[test]
fn only_orders_that_hold_are_obeyed() {
    let scene = Scene::set();
    let good = scene.order();
    assert_eq!(scene.verify(&scene.sealed(&good)).as_ref(), Ok(&good));

    let mut forged = scene.sealed(&good);
    forged.signature[0] ^= 1;
    assert_eq!(scene.verify(&forged), Err("the signature does not hold"));
    let mut other = scene.sealed(&good);
    other.kind = "manifest".to_owned();
    assert_eq!(scene.verify(&other), Err("the envelope is no order"));
    for (change, want) in [
        (WorkOrder { agent_id: vec![9; 16], ..good.clone() }, "the order is for somebody else"),
        (WorkOrder { journal_epoch: vec![9; 16], ..good.clone() }, "the order was made for another journal"),
        (WorkOrder { start_by: good.issued_at - 1, ..good.clone() }, "the order is outside of its time"),
    ] {
        assert_eq!(scene.verify(&scene.sealed(&change)), Err(want));
    }
}

#[test]
fn an_order_is_answered_with_three_reports_and_a_signed_record() {
    let scene = Scene::set();
    let order = scene.order();
    let line = order::line(&order).unwrap();
    assert_eq!(line, b"hello world\n");
    let [accepted, started, finished] = order::reports(&scene.identity, &order, &line, 7, scene.now);
    assert_eq!([accepted.seq, started.seq, finished.seq], [7, 8, 9]);
    assert!(matches!(accepted.body, Some(Body::Accepted(_))));
    assert!(matches!(started.body, Some(Body::Started(_))));
    let Some(Body::Finished(finished)) = finished.body else { panic!("the last report is the end") };
    pki::verify_result(&scene.result_key, "exit-record", &finished.record, &finished.signature).unwrap();
    let record = ExitRecord::decode(finished.record.as_slice()).unwrap();
    assert_eq!((record.exit_code, record.reason.as_str()), (Some(0), "exited"));
    assert_eq!(record.stdout.unwrap().bytes, 12);
}

#[test]
fn a_swarm_stays_on_this_machine() {
    let scene = Scene::set();
    let error = Swarm::start("192.0.2.1:7443".parse().unwrap(), scene.trust.into(), []).unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
}

#[tokio::test]
async fn agents_connect_and_leave() {
    pki::install_provider();
    let now = clock::now();
    let authority = Authority::create("bench.test", now).unwrap().authority;
    let trust = Arc::new(Trust::of(&authority).unwrap());
    let issued = issue(&authority, &trust, OrgId::new(now, clock::entropy()), 5).unwrap();
    let identities = issued.into_iter().map(|issued| Arc::new(issued.identity));
    let address = crate::bare::open(&authority).await.unwrap();
    let swarm = Swarm::start(address, trust, identities).unwrap();
    swarm.wait_connected(5, Duration::from_secs(20)).await.unwrap();
    swarm.check().unwrap();
    let shared = Arc::clone(&swarm.shared);
    swarm.stop().await;
    assert_eq!(shared.counts.connected.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_went_wrong_is_told() {
    pki::install_provider();
    let scene = Scene::set();
    let nobody =
        Swarm::start("127.0.0.1:1".parse().unwrap(), scene.trust.into(), [scene.identity.into()]).unwrap();
    let error = nobody.wait_connected(1, Duration::from_millis(200)).await.unwrap_err();
    assert!(error.to_string().contains("cannot reach 127.0.0.1:1"), "{error}");
    assert!(nobody.check().is_err());
    nobody.stop().await;
}
