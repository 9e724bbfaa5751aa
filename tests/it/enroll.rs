//! Enrollment: who becomes an agent, and what is left when somebody does not.

use std::net::SocketAddr;

use opsconductor_tests::{
    SOON, Stage, World, agent,
    door::{self, Puppet},
    eventually, scene,
    stage::Visit,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use serde_json::{Value, json};
use sqlx::Row;
use tokio::sync::OnceCell;
use tonic::Code;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[]).await
}

/// What the program says when it is refused with this token.
fn refused(world: &World, name: &str, token: &str, code: i32) -> String {
    let data = scene::new_folder("refused").join("data");
    let output = agent::enroll(&data, world.door(), name, token, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains(token), "the token is shown: {said}");
    said
}

async fn has_agent(world: &World, name: &str) -> bool {
    world.api().get(&format!("/api/v1/agents/{name}")).await.status == 200
}

/// How often a token was used.
async fn uses(world: &World, token: &str) -> i32 {
    let id = pki::EnrollToken::parse(token).expect("it is a token").id;
    let row = sqlx::query("select uses from enroll_tokens where id = $1").bind(id.0);
    row.fetch_one(&mut world.sql().await).await.expect("the token is there").get(0)
}

/// A token made by somebody else's installation, well-formed.
fn foreign_token() -> String {
    let id = model::id::EnrollTokenId(uuid::Uuid::from_u128(7));
    pki::EnrollToken { id, secret: pki::random().into(), root_pin: pki::random() }.reveal()
}

#[tokio::test]
async fn an_enrolled_agent_is_online_with_facts_and_labels() {
    let stage = stage().await;
    let agent = stage.world.agent("facts").label("role", "web").label("env", "prod").start().await;
    let shown = agent.shown().await;
    assert_eq!(shown["labels"], json!({ "role": "web", "env": "prod" }));
    assert_eq!(shown["facts"]["os"], "linux");
    for fact in ["arch", "cpus", "kernel", "hostname", "memory_mib", "agent_version"] {
        assert!(shown["facts"][fact].as_str().is_some_and(|value| !value.is_empty()), "{fact}: {shown}");
    }
    let said =
        stage.world.opsctl(&["agent", "list", "-l", "role=web and cpus>=1", "-o", "json"]).await.ended(0);
    assert!(said.text().contains("\"facts\"") && said.text().contains("prod"), "{said}");
    let metrics = eventually(SOON, "host metrics arrive", async || {
        Some(agent.shown().await["metrics"].clone()).filter(Value::is_object)
    })
    .await;
    assert!(metrics["memory_total_bytes"].as_i64() > Some(0), "{metrics}");
    let said = stage.world.opsctl(&["agent", "show", "facts"]).await.ended(0);
    assert!(said.text().contains("role"), "{said}");
}

#[tokio::test]
async fn the_line_that_opsctl_prints_enrolls() {
    let stage = stage().await;
    let world = &stage.world;
    let said = world
        .opsctl(&["enroll-token", "create", "--ttl", "15m", "--label", "role=db", "-o", "json"])
        .await
        .ended(0);
    let text = said.json().to_string();
    let start = text.find("oce1_").expect("the token is shown");
    let token: String =
        text[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect();
    let data = scene::new_folder("typed").join("data");
    let output = agent::enroll(&data, world.door(), "typed", &token, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.api().get("/api/v1/agents/typed").await.accepted().value()["labels"]["role"], "db");
    let said = world.opsctl(&["enroll-token", "list"]).await.ended(0);
    assert!(!said.text().contains(&token), "the secret is shown again");
}

#[tokio::test]
async fn a_used_token_is_refused() {
    let stage = stage().await;
    let world = &stage.world;
    let token = world.enroll_token(&json!({})).await;
    Puppet::enroll(world.door(), &token, "first").await;
    assert!(refused(world, "second", &token, 4).contains("used already"));
    assert!(!has_agent(world, "second").await);
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let stage = stage().await;
    let world = &stage.world;
    let token = world.enroll_token(&json!({ "ttl_seconds": 10 })).await;
    let id = pki::EnrollToken::parse(&token).expect("it is a token").id;
    sqlx::query("update enroll_tokens set expires_at = now() - interval '1 second' where id = $1")
        .bind(id.0)
        .execute(&mut world.sql().await)
        .await
        .expect("the owner may");
    assert!(refused(world, "late", &token, 4).contains("expired"));
    assert!(!has_agent(world, "late").await);
}

#[tokio::test]
async fn a_deleted_token_is_refused() {
    let stage = stage().await;
    let world = &stage.world;
    let answer = world.api().post("/api/v1/enroll-tokens", &json!({})).await.accepted().value();
    let (id, token) = (answer["id"].as_str().expect("an id"), answer["token"].as_str().expect("a token"));
    world.opsctl(&["enroll-token", "delete", id]).await.ended(0);
    assert!(refused(world, "deleted", token, 4).contains("not known"));
    world.opsctl(&["enroll-token", "delete", id]).await.ended(5);
}

#[tokio::test]
async fn damaged_wrong_and_foreign_tokens_are_refused() {
    let stage = stage().await;
    let world = &stage.world;
    let token = world.enroll_token(&json!({})).await;
    let damaged = token.replace("oce1_", "oce1_0");
    assert!(refused(world, "damaged", &damaged, 2).contains("damaged"));
    assert!(refused(world, "wrong", "not a token at all", 2).contains("oce1_"));
    // Another installation's token pins another root: the host does not believe this controller.
    refused(world, "foreign", &foreign_token(), 4);
    // And if it did, the controller would not take the token.
    let pin = pki::EnrollToken::parse(&token).expect("it is a token").root_pin;
    let (request, _) = door::enroll_request(&foreign_token(), "foreign");
    let status = door::enroll_at(world.door(), pin, request).await.expect_err("it is another installation's");
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    // The right id and pin with another secret.
    let mut guessed = pki::EnrollToken::parse(&token).expect("it is a token");
    guessed.secret = pki::random().into();
    let (request, _) = door::enroll_request(&guessed.reveal(), "guessed");
    let status = door::enroll(world.door(), request).await.expect_err("the secret is wrong");
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert_eq!(uses(world, &token).await, 0);
    for name in ["damaged", "wrong", "foreign", "guessed"] {
        assert!(!has_agent(world, name).await, "{name}");
    }
}

/// A request for `key` that asks for more than a certificate.
fn csr(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let key = KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(&key).expect("it can be signed").der().to_vec()
}

#[tokio::test]
async fn a_csr_that_asks_for_more_is_refused_and_spends_nothing() {
    let stage = stage().await;
    let world = &stage.world;
    let token = world.enroll_token(&json!({})).await;
    let san =
        "spiffe://x/org/00000000-0000-0000-0000-000000000001/agent/00000000-0000-0000-0000-000000000002";
    for (csr, named) in [
        (csr(|params| params.subject_alt_names = vec![SanType::URI(san.try_into().expect("ASCII"))]), "name"),
        (csr(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "CA"),
        (b"nonsense".to_vec(), "csr"),
        (vec![0; 9000], "csr"),
    ] {
        let (mut request, _) = door::enroll_request(&token, "greedy");
        request.csr = csr;
        let status = door::enroll(world.door(), request).await.expect_err("the CSR is wrong");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("csr") && status.message().contains(named), "{status}");
    }
    for (name, named) in [("", "name"), ("a b", "name"), ("-x", "name"), (&"x".repeat(129)[..], "name")] {
        let (request, _) = door::enroll_request(&token, name);
        let status = door::enroll(world.door(), request).await.expect_err("the name is wrong");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(named), "{status}");
    }
    let (mut request, _) = door::enroll_request(&token, "greedy");
    request.seal_key.pop();
    let status = door::enroll(world.door(), request).await.expect_err("the key is short");
    assert!(status.message().contains("seal_key"), "{status}");
    assert_eq!(uses(world, &token).await, 0);
    assert!(!has_agent(world, "greedy").await);
    Puppet::enroll(world.door(), &token, "modest").await;
}

#[tokio::test]
async fn a_name_is_given_once() {
    let stage = stage().await;
    let world = &stage.world;
    Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "twin").await;
    let token = world.enroll_token(&json!({})).await;
    assert!(refused(world, "twin", &token, 4).contains("'twin' exists"));
    assert_eq!(uses(world, &token).await, 0);
    // A revoked agent's name is free again.
    world.opsctl(&["agent", "revoke", "twin"]).await.ended(0);
    Puppet::enroll(world.door(), &token, "twin").await;
}

#[tokio::test]
async fn an_address_range_holds() {
    let stage = stage().await;
    let world = &stage.world;
    let elsewhere = world.enroll_token(&json!({ "address_range": "10.0.0.0/8" })).await;
    let said = refused(world, "elsewhere", &elsewhere, 4);
    assert!(said.contains("127.0.0.1"), "{said}");
    assert_eq!(uses(world, &elsewhere).await, 0);
    let here = world.enroll_token(&json!({ "address_range": "127.0.0.0/8" })).await;
    Puppet::enroll(world.door(), &here, "here").await;
    let problem = world.api().post("/api/v1/enroll-tokens", &json!({ "address_range": "10.0.0.1/8" })).await;
    assert_eq!(problem.refused(400, "invalid").field.as_deref(), Some("address_range"));
}

#[tokio::test]
async fn with_a_token_for_many_each_waits_for_approval() {
    let stage = stage().await;
    let world = &stage.world;
    let token = world.enroll_token(&json!({ "max_uses": 2, "labels": { "fleet": "yes" } })).await;
    let mut agents = Vec::new();
    for name in ["fleet1", "fleet2"] {
        let mut agent = world.agent(name).enroll_later();
        let output = agent.enroll_with(&token, &[]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("approves"), "{said} {output:?}");
        agent.run();
        agent.is("pending").await;
        agents.push(agent);
    }
    assert!(refused(world, "fleet3", &token, 4).contains("used already"));
    // Nothing is run on a host that nobody approved.
    world.opsctl(&["exec", "-l", "fleet=yes", "--", "true"]).await.ended(5);
    world.opsctl(&["agent", "approve", "fleet1"]).await.ended(0);
    agents[0].online().await;
    agents[1].is("pending").await;
    world.opsctl(&["exec", "-l", "fleet=yes", "--", "true"]).await.ended(0);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let stage = stage().await;
    let world = &stage.world;
    let token = world.enroll_token(&json!({})).await;
    let puppet = Puppet::enroll(world.door(), &token, "genuine").await;
    let real =
        pki::AgentIdentity::from_certificate(&puppet.credentials.certificate).expect("it is an agent's");
    // The same trust domain, organization and agent, signed by somebody else.
    let now = opsconductor_tests::clock::now();
    let other = pki::Authority::create(&real.trust_domain, now).expect("an authority can be made").authority;
    let key = pki::new_agent_key_and_csr().expect("a key can be made");
    let serial = real.serial.clone().try_into().expect("sixteen bytes");
    let expires = now + jiff::SignedDuration::from_hours(1);
    let certificate = other
        .issue_agent(
            &key.csr_der,
            real.org_id,
            real.agent_id,
            serial,
            now - jiff::SignedDuration::from_mins(1),
            expires,
        )
        .expect("it can be issued");
    let forged = proto::Credentials {
        certificate,
        issuer: other.agents_ca_der().to_vec(),
        ..puppet.credentials.clone()
    };
    let forger = Puppet::new(forged, key);
    // TLS 1.3: the refusal may come with the first call.
    if let Ok(channel) = forger.connect(world.door()).await {
        let request =
            proto::RenewRequest { csr: pki::new_agent_key_and_csr().expect("a key can be made").csr_der };
        let answer = proto::enrollment_client::EnrollmentClient::new(channel).renew(request).await;
        answer.expect_err("another authority's certificate counts");
    }
}

#[tokio::test]
async fn enrolling_again_needs_force() {
    let stage = stage().await;
    let world = &stage.world;
    let agent = world.agent("again").enroll().await;
    let token = world.enroll_token(&json!({})).await;
    let output = agent.enroll_with(&token, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--force"), "{said}");
    assert_eq!(uses(world, &token).await, 0);
    // A controller that is not there costs no token, either.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let data = scene::new_folder("nowhere").join("data");
    let output = agent::enroll(&data, nowhere, "nowhere", &token, &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(uses(world, &token).await, 0);
}
