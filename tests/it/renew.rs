//! Renewal: certificates of a few seconds, and nobody notices.

use std::time::Duration;

use model::{api::output::Stream, execution::ExecutionState};
use opsconductor_tests::{Agent, World, eventually};
use proto::{enrollment_client::EnrollmentClient, metrics_client::MetricsClient};
use tonic::Code;

/// How long a few lives of four seconds may take.
const SOME_LIVES: Duration = Duration::from_secs(40);

async fn expires_at(agent: &Agent) -> jiff::Timestamp {
    agent.shown().await["certificate_expires_at"]
        .as_str()
        .expect("it is shown")
        .parse()
        .expect("it is a time")
}

#[tokio::test]
async fn certificates_are_renewed_while_a_job_runs() {
    let world = World::builder().certificate_life("4s").start().await;
    let agent = world.agent("one").start().await;
    let api = world.api();
    let execution = api.start_shell("one", "for i in $(seq 70); do echo $i; sleep 0.1; done").await;
    let first = opsconductor_tests::door::Puppet::of(&agent);
    let mut seen = expires_at(&agent).await;
    for _ in 0..3 {
        seen = eventually(SOME_LIVES, "the certificate is renewed", async || {
            Some(expires_at(&agent).await).filter(|new| *new > seen)
        })
        .await;
    }
    let told = api.get("/api/v1/audit?verb=agent.renew").await.accepted().value();
    let entry = &told["items"][0]["entry"];
    assert_eq!((&entry["actor"], &entry["source"]), (&entry["object"], &"127.0.0.1".into()), "{told}");
    let finished = api.whole(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    let want: String = (1..=70).map(|i| format!("{i}\n")).collect();
    let output = api.output(execution.id, "one", Stream::Stdout).await;
    assert_eq!(String::from_utf8(output).as_deref(), Ok(want.as_str()));

    // The first certificate counts for nothing any more, not even for a renewal.
    if let Ok(channel) = first.connect(world.door()).await {
        let status = MetricsClient::new(channel.clone())
            .report(tokio_stream::empty())
            .await
            .expect_err("it was replaced");
        assert!(
            matches!(status.code(), Code::Unauthenticated | Code::Unknown | Code::Unavailable),
            "{status}"
        );
        let csr = pki::new_agent_key_and_csr().expect("a key can be made").csr_der;
        EnrollmentClient::new(channel).renew(proto::RenewRequest { csr }).await.expect_err("it was replaced");
    }
    agent.online().await;
}

#[tokio::test]
async fn an_agent_that_was_away_for_too_long_comes_back() {
    let world = World::builder().certificate_life("2s").start().await;
    let mut agent = world.agent("one").start().await;
    agent.kill();
    eventually(SOME_LIVES, "the certificate expires", async || {
        (expires_at(&agent).await < opsconductor_tests::clock::now()).then_some(())
    })
    .await;
    // It still says who it is, but may do nothing but renew.
    let expired = opsconductor_tests::door::Puppet::of(&agent);
    let channel = expired.connect(world.door()).await.expect("an expired certificate may knock");
    let status = MetricsClient::new(channel).report(tokio_stream::empty()).await.expect_err("it has expired");
    assert!(status.code() == Code::Unauthenticated && status.message().contains("expired"), "{status}");
    agent.run();
    agent.online().await;
    let finished = world.api().shell("one", "echo back").await;
    assert_eq!(world.api().stdout(&finished).await, "back\n");
}
