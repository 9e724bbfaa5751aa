//! Who may do what: nothing answers without a credential, and an agent speaks for itself alone.

mod calls;
mod table;

use std::time::Duration;

use model::api::execution::Execution;
use opsconductor_tests::{Answer, Api, SOON, Stage, World, door::Puppet, eventually, stage::Visit};
use proto::{
    AgentFrame, Finished, Hello, OutputFrame, agent_frame, controller_frame,
    enrollment_client::EnrollmentClient, metrics_client::MetricsClient, output_client::OutputClient,
    output_frame, output_reply, report, session_client::SessionClient,
};
use reqwest::Method;
use serde_json::json;
use tokio::sync::{OnceCell, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[]).await
}

/// What answers without a credential, as the issue lists it.
const OPEN: [&str; 5] = ["/health", "/ready", "/version", "/openapi.json", "/docs"];
/// What lets somebody in, or takes deliveries from who has its own secret.
const ENTRANCES: [&str; 12] = [
    "/api/v1/setup",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
    "/api/v1/auth/reset-password",
    "/api/v1/auth/accept-invitation",
    "/api/v1/auth/register",
    "/api/v1/auth/providers",
    "/api/v1/auth/oidc/{provider}/login",
    "/api/v1/auth/oidc/{provider}/callback",
    "/api/v1/auth/oidc/redeem",
    "/api/v1/hooks/{schedule}",
    "/api/v1/hooks/{schedule}/{secret}",
];

/// Every route of the OpenAPI document that is guarded, with an id or name filled in.
async fn guarded(api: &Api) -> Vec<(Method, String)> {
    let document = api.get("/openapi.json").await.accepted().value();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().expect("there are paths") {
        let is_open = OPEN.iter().any(|open| path == open || path.starts_with(&format!("{open}/")));
        if is_open || ENTRANCES.contains(&path.as_str()) {
            continue;
        }
        let id = uuid::Uuid::nil().to_string();
        let path: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { id.as_str() } else { part })
            .collect::<Vec<_>>()
            .join("/");
        for method in item.as_object().expect("a path has methods").keys() {
            if let Ok(method) = method.to_uppercase().parse::<Method>()
                && ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str())
            {
                routes.push((method, path.clone()));
            }
        }
    }
    assert!(routes.len() >= 14, "{routes:?}");
    routes
}

/// Asks until the door's rate limit for refusals lets the request through.
async fn ask(api: &Api, method: &Method, path: &str) -> Answer {
    eventually(SOON, "the rate limit lets a request through", async || {
        let answer = api.send(api.request(method.clone(), path)).await;
        (answer.status != 429).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn the_open_routes_are_open() {
    let stage = stage().await;
    let api = stage.world.api_as_nobody();
    for path in OPEN {
        let answer = api.get(path).await;
        assert!(matches!(answer.status, 200 | 303 | 307 | 308), "{path}: {}", answer.status);
    }
    assert_eq!(ask(&api, &Method::GET, "/nothing/here").await.status, 404);
}

#[tokio::test]
async fn nothing_else_answers_without_a_good_credential() {
    let stage = stage().await;
    let world = &stage.world;
    let nobody = world.api_as_nobody();
    let token = world.token();
    let damaged = format!("{}{}", &token[..token.len() - 1], if token.ends_with('0') { '1' } else { '0' });
    let unknown =
        pki::ApiToken { id: model::id::ApiTokenId(uuid::Uuid::from_u128(7)), secret: pki::random().into() };
    let mut guessed = pki::ApiToken::parse(&token).expect("it is a token");
    guessed.secret = pki::random().into();
    let revoked = api_token(world, "revoked", &["*"], "revoked_at").await;
    let expired = api_token(world, "expired", &["*"], "expires_at").await;
    for (method, path) in guarded(&nobody).await {
        let problem = ask(&nobody, &method, &path).await.refused(401, "unauthenticated");
        assert!(problem.detail.contains("Bearer"), "{problem:?}");
        for bad in [&damaged, &unknown.reveal(), &guessed.reveal(), &revoked, &expired] {
            ask(&world.api_as(bad), &method, &path).await.refused(401, "bad_credential");
        }
    }
}

/// An API token of the administrator's, narrowed to these permissions; the moment `over`, if it names a column, has passed.
pub(crate) async fn api_token(world: &World, name: &str, permissions: &[&str], over: &str) -> String {
    let token =
        pki::ApiToken { id: model::id::ApiTokenId(uuid::Uuid::now_v7()), secret: pki::random().into() };
    let permissions: Vec<String> = permissions.iter().map(|permission| (*permission).to_owned()).collect();
    let moment =
        |column: &str, else_: &'static str| if over == column { "now() - interval '1 s'" } else { else_ };
    let (revoked, expires) =
        (moment("revoked_at", "null"), moment("expires_at", "now() + interval '1 hour'"));
    let sql = format!(
        "insert into api_tokens (id, org_id, user_id, name, secret_hash, permissions, created_at, revoked_at, expires_at)
         select $1, m.org_id, u.id, $2, $3, $4, now(), {revoked}, {expires}
         from installation i join memberships m on m.org_id = i.home_org_id join users u on u.id = m.user_id
         where u.name = 'administrator'"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(token.id.0)
        .bind(name)
        .bind(&token.hash()[..])
        .bind(permissions)
        .execute(&mut world.sql().await)
        .await
        .expect("the owner may");
    token.reveal()
}

#[tokio::test]
async fn a_token_does_what_it_was_made_for() {
    let stage = stage().await;
    let world = &stage.world;
    let reader = world.api_as(&api_token(world, "reader", &["agent.read"], "").await);
    reader.get("/api/v1/agents").await.accepted();
    reader.get("/api/v1/executions").await.refused(403, "forbidden");
    // Managing agents is not draining them, and the other way round.
    for (name, held, verb, refused) in
        [("manager", "agent.manage", "revoke", "drain"), ("drainer", "agent.drain", "drain", "revoke")]
    {
        let api = world.api_as(&api_token(world, name, &[held, "agent.read"], "").await);
        let path = format!("/api/v1/agents/{}", uuid::Uuid::nil());
        api.act(&format!("{path}/{verb}")).await.refused(404, "not_found");
        api.act(&format!("{path}/{refused}")).await.refused(403, "forbidden");
    }
}

#[tokio::test]
async fn no_token_is_in_the_log() {
    let stage = stage().await;
    assert!(!stage.world.controller_log().contains(&stage.world.token()), "the token is in the log");
}

/// The status with which each call is refused on connections that `connect` makes.
async fn refusals(connect: impl AsyncFn() -> Result<Channel, Status>) -> [Option<Status>; 4] {
    let open = async {
        let hello =
            tokio_stream::once(AgentFrame { frame: Some(agent_frame::Frame::Hello(Hello::default())) });
        SessionClient::new(connect().await?).open(hello).await.map(drop)
    };
    let ship = async { OutputClient::new(connect().await?).ship(tokio_stream::empty()).await.map(drop) };
    let sample = async { MetricsClient::new(connect().await?).report(tokio_stream::empty()).await.map(drop) };
    let renew = async {
        let csr = pki::new_agent_key_and_csr().expect("a key can be made").csr_der;
        EnrollmentClient::new(connect().await?).renew(proto::RenewRequest { csr }).await.map(drop)
    };
    [open.await.err(), ship.await.err(), sample.await.err(), renew.await.err()]
}

#[tokio::test]
async fn no_call_but_enroll_works_without_a_certificate() {
    let stage = stage().await;
    let world = &stage.world;
    let token = world.enroll_token(&json!({})).await;
    let pin = pki::EnrollToken::parse(&token).expect("it is a token").root_pin;
    let refusals = Box::pin(refusals(async || {
        let tls = pki::tls::enroll_config(pin).expect("the configuration is sound");
        opsconductor_tests::door::connect(world.door(), tls)
            .await
            .map_err(|e| Status::unavailable(e.to_string()))
    }))
    .await;
    for status in refusals {
        assert_eq!(status.map(|status| status.code()), Some(Code::Unauthenticated));
    }
}

#[tokio::test]
async fn a_revoked_agents_certificate_counts_for_nothing() {
    let stage = stage().await;
    let world = &stage.world;
    let puppet = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "revoked").await;
    let connect = async || puppet.connect(world.door()).await.map_err(|e| Status::unavailable(e.to_string()));
    let before = connect().await.expect("it is enrolled");
    world.opsctl(&["agent", "revoke", "revoked"]).await.ended(0);
    for status in Box::pin(refusals(connect)).await {
        status.expect("a revoked agent's call was answered");
    }
    // The connection from before is cut as well.
    eventually(Duration::from_secs(2), "the old connection is cut", async || {
        let samples = MetricsClient::new(before.clone()).report(tokio_stream::empty()).await;
        samples.is_err().then_some(())
    })
    .await;
}

/// Opens a session; frames go in where the first says, and come out of the second.
async fn session(channel: Channel) -> (mpsc::Sender<AgentFrame>, tonic::Streaming<proto::ControllerFrame>) {
    let (frames, outbound) = mpsc::channel(16);
    let hello =
        Hello { protocol_min: 1, protocol_max: 1, slots: 4, journal_epoch: vec![7; 16], ..Hello::default() };
    frames.send(AgentFrame { frame: Some(agent_frame::Frame::Hello(hello)) }).await.expect("there is room");
    let answer =
        SessionClient::new(channel).open(ReceiverStream::new(outbound)).await.expect("it is enrolled");
    let mut inbound = answer.into_inner();
    let first = inbound.message().await.expect("the stream holds").and_then(|frame| frame.frame);
    assert!(matches!(first, Some(controller_frame::Frame::Welcome(_))), "{first:?}");
    (frames, inbound)
}

#[tokio::test]
async fn a_fence_that_nobody_gave_opens_no_session_and_harms_nobody() {
    let stage = stage().await;
    let world = &stage.world;
    let boaster = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "boaster").await;
    for fence in [1 << 62, u64::MAX] {
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            slots: 4,
            journal_epoch: vec![7; 16],
            fence,
            ..Hello::default()
        };
        let frame = AgentFrame { frame: Some(agent_frame::Frame::Hello(hello)) };
        let channel = boaster.connect(world.door()).await.expect("it is enrolled");
        let answer =
            SessionClient::new(channel).open(tokio_stream::once(frame)).await.expect("it is enrolled");
        let first =
            answer.into_inner().message().await.expect("the stream holds").and_then(|frame| frame.frame);
        let Some(controller_frame::Frame::Goodbye(goodbye)) = first else { panic!("{first:?}") };
        assert_eq!(goodbye.code, "protocol", "{goodbye:?}");
    }
    let modest = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "modest").await;
    drop(session(modest.connect(world.door()).await.expect("it is enrolled")).await);
    drop(session(boaster.connect(world.door()).await.expect("it is enrolled")).await);
}

/// The next frame that `pick` wants.
async fn next<T>(
    inbound: &mut tonic::Streaming<proto::ControllerFrame>,
    pick: impl Fn(controller_frame::Frame) -> Option<T>,
) -> T {
    let found = tokio::time::timeout(SOON, async {
        loop {
            let frame = inbound.message().await.expect("the stream holds").expect("the stream goes on");
            if let Some(found) = frame.frame.and_then(&pick) {
                return found;
            }
        }
    });
    found.await.expect("the frame comes")
}

#[tokio::test]
async fn an_agent_cannot_speak_for_another() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    let victim = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "victim").await;
    let villain = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "villain").await;
    let (_frames, mut inbound) = session(victim.connect(world.door()).await.expect("it is enrolled")).await;
    let execution: Execution = api.start_shell("victim", "true").await;
    let order = next(&mut inbound, |frame| match frame {
        controller_frame::Frame::Order(order) => Some(order),
        _ => None,
    })
    .await;
    assert_eq!(order.kind, "work-order");
    let run = api.runs(execution.id).await.remove(0);
    let (execution_id, run_id) = (execution.id.to_bytes(), run.id.to_bytes());

    // Each body that a report can have, about the victim's attempt.
    let channel = villain.connect(world.door()).await.expect("it is enrolled");
    let (frames, mut inbound) = session(channel.clone()).await;
    let record = proto::ExitRecord {
        execution_id: execution_id.clone(),
        run_id: run_id.clone(),
        attempt: 1,
        reason: "exited".to_owned(),
        exit_code: Some(0),
        ..proto::ExitRecord::default()
    };
    let record = prost_bytes(&record);
    for (seq, body) in (1..).zip([
        report::Body::Accepted(proto::Accepted { at: 1 }),
        report::Body::Started(proto::Started { at: 1, pid: 1, boot_id: String::new() }),
        report::Body::Refused(proto::Refused {
            at: 1,
            reason: "policy_refused".to_owned(),
            detail: String::new(),
        }),
        report::Body::Lost(proto::Lost { at: 1, reason: "shim_lost".to_owned(), detail: String::new() }),
        report::Body::Finished(Finished { record, signature: vec![0; 64] }),
    ]) {
        let report = proto::Report {
            seq,
            execution_id: execution_id.clone(),
            run_id: run_id.clone(),
            attempt: 1,
            body: Some(body),
        };
        frames
            .send(AgentFrame { frame: Some(agent_frame::Frame::Report(report)) })
            .await
            .expect("there is room");
        let ack = next(&mut inbound, |frame| match frame {
            controller_frame::Frame::Ack(ack) if ack.seq == seq => Some(ack),
            _ => None,
        })
        .await;
        assert_eq!(ack.verdict(), proto::Verdict::Rejected, "{ack:?}");
    }

    // Nor its output.
    let resume = proto::Resume { execution_id, run_id: run_id.clone(), attempt: 1 };
    let chunk = proto::Chunk {
        run_id,
        execution_id: resume.execution_id.clone(),
        attempt: 1,
        stream: 1,
        length: 3,
        data: b"lie"[..].into(),
        ..proto::Chunk::default()
    };
    let output = tokio_stream::iter([
        OutputFrame { frame: Some(output_frame::Frame::Resume(resume)) },
        OutputFrame { frame: Some(output_frame::Frame::Batch(proto::Batch { chunks: vec![chunk] })) },
    ]);
    let mut replies = OutputClient::new(channel).ship(output).await.expect("it is enrolled").into_inner();
    let mut rejected = 0;
    while let Ok(Some(reply)) = replies.message().await {
        assert!(matches!(reply.reply, Some(output_reply::Reply::Rejected(_))), "{reply:?}");
        rejected += 1;
    }
    assert!(rejected > 0, "the output was not rejected");
    let run = api.runs(execution.id).await.remove(0);
    assert!(
        !run.state.is_terminal() && run.attempt_state.is_some_and(|state| state.as_str() == "offered"),
        "{run:?}"
    );
    assert!(api.pieces(execution.id, "", 10).await.is_empty());
}

/// A message as it goes over the wire.
fn prost_bytes(record: &proto::ExitRecord) -> Vec<u8> {
    prost::Message::encode_to_vec(record)
}

#[tokio::test]
async fn an_exit_record_without_the_executors_signature_proves_nothing() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    let puppet = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "liar").await;
    let (frames, mut inbound) = session(puppet.connect(world.door()).await.expect("it is enrolled")).await;
    let execution = api.start_shell("liar", "true").await;
    next(&mut inbound, |frame| matches!(frame, controller_frame::Frame::Order(_)).then_some(())).await;
    let run = api.runs(execution.id).await.remove(0);
    let record = proto::ExitRecord {
        execution_id: execution.id.to_bytes(),
        run_id: run.id.to_bytes(),
        attempt: 1,
        reason: "exited".to_owned(),
        exit_code: Some(0),
        ..proto::ExitRecord::default()
    };
    // The link has the certificate's key, but not the executor's.
    let record = prost_bytes(&record);
    let signature = pki::ResultKey::generate().sign("exit-record", &record);
    let report = proto::Report {
        seq: 1,
        execution_id: execution.id.to_bytes(),
        run_id: run.id.to_bytes(),
        attempt: 1,
        body: Some(report::Body::Finished(Finished { record, signature })),
    };
    frames.send(AgentFrame { frame: Some(agent_frame::Frame::Report(report)) }).await.expect("there is room");
    let ack = next(&mut inbound, |frame| match frame {
        controller_frame::Frame::Ack(ack) => Some(ack),
        _ => None,
    })
    .await;
    // The agent will say nothing else, so the run ends; how, nobody knows.
    assert_eq!(ack.verdict(), proto::Verdict::Stored, "{ack:?}");
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.run().state, model::run::RunState::Unknown);
    assert!(
        finished.run().detail.as_deref().is_some_and(|detail| detail.contains("bad_signature")),
        "{finished:?}"
    );
    assert_eq!(finished.run().exit_code, None);
}

/// One agent's nonsense must not stop what the others report in the same transaction.
#[tokio::test]
async fn a_report_from_before_the_calendar_harms_nobody() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    let puppet = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "ancient").await;
    let (frames, mut inbound) = session(puppet.connect(world.door()).await.expect("it is enrolled")).await;
    let execution = api.start_shell("ancient", "true").await;
    next(&mut inbound, |frame| matches!(frame, controller_frame::Frame::Order(_)).then_some(())).await;
    let run = api.runs(execution.id).await.remove(0);
    let of_run = |seq, body| proto::Report {
        seq,
        execution_id: execution.id.to_bytes(),
        run_id: run.id.to_bytes(),
        attempt: 1,
        body: Some(body),
    };
    let at = -377_705_023_201_000_000;
    let accepted = of_run(1, report::Body::Accepted(proto::Accepted { at }));
    let started = proto::Started { at, pid: u32::MAX, boot_id: "\0".to_owned() };
    for report in [accepted, of_run(2, report::Body::Started(started))] {
        frames
            .send(AgentFrame { frame: Some(agent_frame::Frame::Report(report)) })
            .await
            .expect("there is room");
        let ack = next(&mut inbound, |frame| match frame {
            controller_frame::Frame::Ack(ack) => Some(ack),
            _ => None,
        })
        .await;
        assert_eq!(ack.verdict(), proto::Verdict::Stored, "{ack:?}");
    }
    assert!(api.runs(execution.id).await[0].started_at.is_some());
}

#[tokio::test]
async fn an_agent_that_is_too_old_is_told() {
    let stage = stage().await;
    let world = &stage.world;
    let puppet = Puppet::enroll(world.door(), &world.enroll_token(&json!({})).await, "old").await;
    let channel = puppet.connect(world.door()).await.expect("it is enrolled");
    let hello = AgentFrame { frame: Some(agent_frame::Frame::Hello(Hello::default())) };
    let answer = SessionClient::new(channel).open(tokio_stream::once(hello)).await.expect("it is enrolled");
    let goodbye = next(&mut answer.into_inner(), |frame| match frame {
        controller_frame::Frame::Goodbye(goodbye) => Some(goodbye),
        other => panic!("{other:?}"),
    })
    .await;
    assert_eq!(goodbye.code, "protocol_too_old");
    assert!(goodbye.detail.contains("upgrade"), "{goodbye:?}");
    assert_ne!(world.api().get("/api/v1/agents/old").await.accepted().value()["state"], "online");
}
