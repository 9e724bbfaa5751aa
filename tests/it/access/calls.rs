//! Every call of the agents' door, tried by everybody: `grpc.txt` says what each must be answered. (What an agent may say of
//! others is tried in the tests beside this one.)

use std::{collections::BTreeSet, sync::Arc};

use opsconductor_tests::{
    World,
    door::{self, Puppet, enroll_request},
    world::PASSWORD,
};
use proto::{
    AgentFrame, Hello, JoinRequest, RenewRequest, agent_frame, controller_frame,
    enrollment_client::EnrollmentClient, joining_client::JoiningClient, metrics_client::MetricsClient,
    output_client::OutputClient, session_client::SessionClient,
};
use serde_json::json;
use tonic::{Code, Status, transport::Channel};

const TABLE: &str = include_str!("grpc.txt");
const PROTOCOL: &str = include_str!("../../../proto/proto/opsconductor.proto");
const COLUMNS: [&str; 6] = ["nobody", "pending", "agent", "other", "revoked", "stranger"];

/// `Service/Call` of all that the protocol has.
fn calls() -> BTreeSet<String> {
    let mut service = "";
    let mut calls = BTreeSet::new();
    for line in PROTOCOL.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.split(' ').next().expect("a name");
        } else if let Some(rest) = line.strip_prefix("rpc ") {
            calls.insert(format!("{service}/{}", rest.split('(').next().expect("a name")));
        }
    }
    calls
}

/// Makes the call; how it was answered, in the table's words.
async fn made(call: &str, channel: Channel) -> String {
    let answered: Result<&str, Status> = match call {
        "Enrollment/Enroll" => {
            let (request, _) = enroll_request("oce1_of-nobody", "nobody");
            EnrollmentClient::new(channel).enroll(request).await.map(|_| "ok")
        }
        "Enrollment/Renew" => {
            let csr = pki::new_agent_key_and_csr().expect("a key can be made").csr_der;
            EnrollmentClient::new(channel).renew(RenewRequest { csr }).await.map(|_| "ok")
        }
        "Joining/Join" => {
            let request = JoinRequest { token: "ocj1_of-nobody".to_owned(), ..JoinRequest::default() };
            JoiningClient::new(channel).join(request).await.map(|_| "ok")
        }
        "Session/Open" => {
            let hello = AgentFrame { frame: Some(agent_frame::Frame::Hello(Hello::default())) };
            match SessionClient::new(channel).open(tokio_stream::once(hello)).await {
                Err(status) => Err(status),
                Ok(stream) => match stream.into_inner().message().await {
                    Err(status) => Err(status),
                    Ok(first) => match first.and_then(|frame| frame.frame) {
                        Some(controller_frame::Frame::Goodbye(_)) | None => Ok("none"),
                        Some(_) => Ok("ok"),
                    },
                },
            }
        }
        "Output/Ship" => OutputClient::new(channel).ship(tokio_stream::empty()).await.map(|_| "ok"),
        "Metrics/Report" => MetricsClient::new(channel).report(tokio_stream::empty()).await.map(|_| "ok"),
        other => panic!("nobody knows how {other} is called"),
    };
    match answered {
        Ok(text) => text.to_owned(),
        Err(status) => match status.code() {
            Code::InvalidArgument => "invalid-argument".to_owned(),
            Code::Unauthenticated => "unauthenticated".to_owned(),
            Code::PermissionDenied => "permission-denied".to_owned(),
            Code::Unavailable | Code::Unknown => "tls".to_owned(),
            code => format!("{code:?}"),
        },
    }
}

#[tokio::test]
async fn everybody_is_answered_as_the_table_says() {
    let world = World::start().await;
    let watch = world.watch();
    let listed: BTreeSet<String> = TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            line.split('|').next().map(str::trim).filter(|call| !call.is_empty()).map(str::to_owned)
        })
        .collect();
    assert_eq!(calls(), listed, "calls of the protocol, and calls of the table");

    let admin = world.administrator().await;
    admin.post("/api/v1/organizations", &json!({ "name": "elsewhere" })).await.accepted();
    let elsewhere = world.session(&world.log_in("administrator", PASSWORD, Some("elsewhere")).await);
    let token = elsewhere.post("/api/v1/enroll-tokens", &json!({})).await.accepted().value();
    let other = Puppet::enroll(world.door(), token["token"].as_str().expect("it is shown"), "other").await;
    let agent = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "agent").await;
    let pending =
        Puppet::enroll(world.door(), &world.enroll_token(&json!({ "max_uses": 2 })).await, "pending").await;
    let revoked = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "revoked").await;
    admin.act("/api/v1/agents/revoked/revoke").await.accepted();
    let installation = World::start().await;
    let stranger =
        Puppet::enroll(installation.door(), &installation.enroll_token(&json!({})).await, "stranger").await;
    let pin = pki::EnrollToken::parse(&world.enroll_token(&json!({})).await).expect("it is a token").root_pin;

    let mut wrong = Vec::new();
    for line in TABLE.lines().filter(|line| line.contains('|') && !line.starts_with('#')) {
        let (call, cells) = line.split_once('|').expect("a row has its cells behind a bar");
        let (call, cells) = (call.trim(), cells.split_whitespace().collect::<Vec<_>>());
        assert_eq!(cells.len(), COLUMNS.len(), "{line}");
        for (column, wanted) in COLUMNS.into_iter().zip(cells) {
            let tls = match column {
                "nobody" => pki::tls::enroll_config(pin).expect("the configuration is sound"),
                "pending" => pending.tls(),
                "agent" => agent.tls(),
                "other" => other.tls(),
                "revoked" => revoked.tls(),
                // It believes this controller; what counts is whether it is believed.
                _ => stranger.tls_believing(&agent.credentials),
            };
            let got = match door::connect(world.door(), Arc::clone(&tls)).await {
                Ok(channel) => made(call, channel).await,
                Err(_) => "tls".to_owned(),
            };
            if got != wanted {
                wrong.push(format!("{call} by {column}: {got} instead of {wanted}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(watch);
}
