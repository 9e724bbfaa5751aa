//! Agents remember: a database that went back, or was written anew, contradicts its hosts.

use model::api::audit::ExportRecord;
use opsconductor_tests::{Agent, SOON, World, agent, eventually, postgres};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{act, export, records, text};

/// The number of the last checkpoint of an export, which signs one.
async fn sign(world: &World) -> i64 {
    let exported = records(&export(world, &[]).await);
    let last = exported.into_iter().rev().find_map(|record| match record {
        ExportRecord::Checkpoint(checkpoint) => Some(checkpoint.seq),
        _ => None,
    });
    last.expect("an export ends with a checkpoint")
}

fn status(agent: &Agent) -> Value {
    let said = agent::command(&agent.data, &["status", "--output", "json"]).output();
    serde_json::from_slice(&said.expect("the agent's program starts").stdout).expect("it is JSON")
}

async fn remembers(agent: &Agent, seq: i64) {
    eventually(SOON, "the agent remembers the checkpoint", async || {
        (status(agent)["audit"]["newest_seq"] == seq).then_some(())
    })
    .await;
}

/// The part of `/status` that tells of witnesses.
async fn witnesses(world: &World) -> Value {
    let status = world.api().get("/status").await.accepted().value();
    let parts = status["parts"].as_array().expect("a list");
    parts.iter().find(|part| part["name"] == "witnesses").cloned().unwrap_or_default()
}

/// Waits for the alarm everywhere, and has a person forget it.
async fn alarms(world: &World, agent: &Agent) {
    eventually(SOON, "the agent raises an alarm", async || {
        status(agent)["audit"]["alarm"].is_object().then_some(())
    })
    .await;
    let entry = eventually(SOON, "the alarm is in the audit", async || {
        let list = world.api().get("/api/v1/audit?verb=audit.rollback_seen").await.accepted().value();
        list["items"][0]["entry"].is_object().then(|| list["items"][0]["entry"].clone())
    })
    .await;
    assert_eq!(entry["outcome"], "alarm", "{entry}");
    assert!(entry["detail"]["remembered"]["seq"].is_i64(), "{entry}");
    assert_eq!(entry["detail"]["alarm"], status(agent)["audit"]["alarm"]["id"]);
    eventually(SOON, "the status tells of it", async || {
        (witnesses(world).await["state"] == "degraded").then_some(())
    })
    .await;
    assert!(agent.log().contains("was rolled back or written anew"), "{}", agent.log());
    let shown = agent::command(&agent.data, &["status"]).output().expect("it starts").stdout;
    assert!(String::from_utf8_lossy(&shown).contains("ALARM since"));

    let said = agent::command(&agent.data, &["forget-alarm"]).output().expect("it starts");
    assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).starts_with("Forgotten: "));
    eventually(SOON, "the status is well again", async || {
        (witnesses(world).await["state"] == "ok").then_some(())
    })
    .await;
    assert!(status(agent)["audit"]["alarm"].is_null());
    // What comes now is believed.
    act(world, 1).await;
    let seq = sign(world).await;
    remembers(agent, seq).await;
}

#[tokio::test]
async fn a_database_that_was_rolled_back_is_noticed_by_its_agents() {
    let world = World::builder().with_an_empty_audit().impatient_but_for_absence().start().await;
    let mut agent = world.agent("one").start().await;
    act(&world, 3).await;
    let early = sign(&world).await;
    remembers(&agent, early).await;
    assert!(world.stop_controller().success());
    let copy = postgres::copied_database(world.database());
    world.start_controller().await;
    agent.online().await;
    act(&world, 3).await;
    let late = sign(&world).await;
    assert!(late > early);
    remembers(&agent, late).await;
    // Nothing is wrong yet, also with a new session.
    agent.stop();
    agent.run();
    agent.online().await;
    assert!(status(&agent)["audit"]["alarm"].is_null());
    assert!(world.stop_controller().success());

    let world = world.restored(copy).await;
    agent.online().await;
    // More than there was before: that the numbers have grown helps nobody.
    act(&world, 10).await;
    assert!(sign(&world).await > late);
    alarms(&world, &agent).await;
}

#[tokio::test]
async fn what_was_written_anew_while_an_agent_was_away_is_noticed() {
    let world = World::builder().with_an_empty_audit().impatient_but_for_absence().start().await;
    let mut agent = world.agent("one").start().await;
    act(&world, 3).await;
    let seq = sign(&world).await;
    remembers(&agent, seq).await;
    // It misses some, and nothing is wrong.
    agent.stop();
    act(&world, 1).await;
    sign(&world).await;
    act(&world, 1).await;
    let seq = sign(&world).await;
    agent.run();
    remembers(&agent, seq).await;
    assert!(status(&agent)["audit"]["alarm"].is_null());

    agent.stop();
    let mut sql = world.sql().await;
    let anew = "delete from audit_checkpoints; update audit_chain set hash = sha256(hash)";
    sql.execute(sqlx::raw_sql(AssertSqlSafe(anew.to_owned()))).await.expect("the owner may");
    // So many that the newest does not name what the agent remembers.
    for _ in 0..3 {
        act(&world, 1).await;
        sign(&world).await;
    }
    agent.run();
    alarms(&world, &agent).await;
    let gaps = world.api().get("/api/v1/audit?verb=audit.gap_seen").await.accepted().value();
    assert_eq!(gaps["items"], serde_json::json!([]));
}

#[tokio::test]
async fn an_alarm_is_told_again_and_has_one_entry() {
    let world = World::builder().with_an_empty_audit().impatient_but_for_absence().start().await;
    let mut agent = world.agent("one").start().await;
    let seq = sign(&world).await;
    remembers(&agent, seq).await;
    // Written anew behind the back of all, with a checkpoint that is gone.
    let mut sql = world.sql().await;
    let anew = "delete from audit_checkpoints; update audit_chain set hash = sha256(hash)";
    sql.execute(sqlx::raw_sql(AssertSqlSafe(anew.to_owned()))).await.expect("the owner may");
    act(&world, 2).await;
    sign(&world).await;
    eventually(SOON, "the status tells of it", async || {
        (witnesses(&world).await["state"] == "degraded").then_some(())
    })
    .await;
    agent.stop();
    eventually(SOON, "nobody tells of it", async || (witnesses(&world).await["state"] == "ok").then_some(()))
        .await;
    agent.run();
    eventually(SOON, "it is told again", async || {
        (witnesses(&world).await["state"] == "degraded").then_some(())
    })
    .await;
    let list = world.api().get("/api/v1/audit?verb=audit.rollback_seen").await.accepted().value();
    assert_eq!(list["items"].as_array().expect("a list").len(), 1, "{list}");
    assert!(text(&list["items"][0]["entry"]["object"]).starts_with("agent/"), "{list}");
    alarms(&world, &agent).await;
}
