//! What an agent owes and does not give: every run ends, and sessions and tables come to agree.

use model::{Reason, api::execution::Execution, attempt::AttemptState, run::RunState};
use opsconductor_tests::{SOON, World, eventually, player::Player};
use proto::report;
use serde_json::json;

async fn impatient() -> (World, Player) {
    let world = World::builder().impatient().start().await;
    let player = Player::enroll(&world, "played").await;
    (world, player)
}

/// Runs this statement on the execution's rows, as the owner of the tables.
async fn sql(world: &World, statement: &'static str, execution: &Execution) {
    let done = sqlx::query(statement).bind(execution.id.0).execute(&mut world.sql().await).await;
    assert_eq!(done.expect("the owner may").rows_affected(), 1, "{statement}");
}

#[tokio::test]
async fn an_order_that_is_never_answered_is_given_up() {
    let (world, player) = impatient().await;
    let mut playing = player.play(&[]).await;
    let execution = world.api().start_shell("played", "true").await;
    let order = playing.order().await;
    let finished = world.api().finished(execution.id).await;
    let run = finished.run();
    assert_eq!((run.state, run.reason), (RunState::Unknown, Some(Reason::OrderRefused)), "{run:?}");
    // Too late.
    let at = opsconductor_tests::clock::now().as_microsecond();
    let verdict = playing.say(&order, report::Body::Accepted(proto::Accepted { at })).await;
    assert_eq!(verdict, proto::Verdict::Duplicate);
    assert_eq!(world.api().runs(execution.id).await[0].state, RunState::Unknown);
}

/// The controllers were away, and the order is old: whoever comes back has the time to say what became of it.
#[tokio::test]
async fn an_answer_that_waited_for_a_controller_counts() {
    let world = World::builder().watchful().start().await;
    let player = Player::enroll(&world, "played").await;
    let mut playing = player.play(&[]).await;
    let execution = world.api().start_shell("played", "true").await;
    let order = playing.order().await;
    world.kill_controller();
    drop(playing);
    sql(
        &world,
        "update attempts set offered_at = now() - interval '1 hour' where execution_id = $1",
        &execution,
    )
    .await;
    world.start_controller().await;
    let mut playing = player.play(&[&order]).await;
    // Two rounds of the reaper: it has had every opportunity.
    let absent = world.agent("absent").enroll().await;
    for _ in 0..2 {
        let body = json!({
            "targets": { "names": [absent.name] }, "command": { "program": { "shell": "true" } },
            "start_within_seconds": 1,
        });
        let expires: Execution = world.api().post("/api/v1/executions", &body).await.accepted().json();
        world.api().finished(expires.id).await;
    }
    playing.start(&order).await;
    assert_eq!(playing.finish(&order, 0).await, proto::Verdict::Stored);
    let finished = world.api().finished(execution.id).await;
    assert_eq!(finished.run().state, RunState::Succeeded, "{finished:?}");
}

/// An agent that never stays for long enough is not accused of having ignored its order.
#[tokio::test]
async fn an_order_of_an_agent_that_comes_and_goes_is_lost_with_the_agent() {
    let (world, player) = impatient().await;
    let mut playing = player.play(&[]).await;
    // When this is given up the controller has been there for long enough to judge.
    let first = world.api().start_shell("played", "true").await;
    playing.order().await;
    world.api().finished(first.id).await;
    let execution = world.api().start_shell("played", "true").await;
    let order = playing.order().await;
    drop(playing);
    let _playing = player.play(&[&order]).await;
    sql(
        &world,
        "update attempts set offered_at = now() - interval '1 hour' where execution_id = $1",
        &execution,
    )
    .await;
    let finished = world.api().finished(execution.id).await;
    let run = finished.run();
    assert_eq!((run.state, run.reason), (RunState::Unknown, Some(Reason::AgentLost)), "{run:?}");
    assert!(run.detail.as_deref().is_some_and(|detail| detail.contains("again and again")), "{run:?}");
}

#[tokio::test]
async fn an_attempt_whose_end_is_never_told_is_given_up() {
    let (world, player) = impatient().await;
    let mut playing = player.play(&[]).await;
    let api = world.api();
    let execution = api.start_shell("played", "true").await;
    let order = playing.order().await;
    playing.start(&order).await;
    // Its time to be answered is over, but not yet its own.
    let passes_by = api.start_shell("played", "true").await;
    api.finished(passes_by.id).await;
    assert_eq!(api.runs(execution.id).await[0].state, RunState::Active);
    sql(&world, "update attempts set deadline = now() where execution_id = $1", &execution).await;
    let finished = api.finished(execution.id).await;
    let run = finished.run();
    assert_eq!((run.state, run.reason), (RunState::Unknown, Some(Reason::AgentLost)), "{run:?}");
    assert_eq!(run.attempt_state, Some(AttemptState::Lost));
    assert!(run.detail.as_deref().is_some_and(|detail| detail.contains("time limit")), "{run:?}");
}

/// A refusal after the yes, when nothing was begun: the run goes back to the queue and is offered again.
#[tokio::test]
async fn a_run_that_never_began_is_offered_again() {
    let (world, player) = impatient().await;
    let mut playing = player.play(&[]).await;
    let execution = world.api().start_shell("played", "true").await;
    for attempt in 1..=3 {
        let order = playing.order().await;
        assert_eq!((order.attempt, order.superseded_attempt), (attempt, 0));
        let reason = if attempt == 3 { Reason::PolicyRefused } else { Reason::NotStarted };
        let refused = proto::Refused { at: 0, reason: reason.as_str().to_owned(), detail: String::new() };
        assert_eq!(playing.say(&order, report::Body::Refused(refused)).await, proto::Verdict::Stored);
    }
    let finished = world.api().finished(execution.id).await;
    let run = finished.run();
    assert_eq!(
        (run.state, run.reason, run.attempt),
        (RunState::Failed, Some(Reason::PolicyRefused), 3),
        "{run:?}"
    );
}

#[tokio::test]
async fn cancels_race_dispatches_and_each_run_ends_once() {
    const RUNS: usize = 24;
    let world = World::start().await;
    let _agent = world.agent("one").slots(4).start().await;
    let api = world.api();
    let folder = world.folder().join("started");
    std::fs::create_dir(&folder).expect("the folder can be written");
    let racing = (0..RUNS).map(|number| {
        let (api, folder) = (api.clone(), folder.display().to_string());
        async move {
            let execution = api.start_shell("one", &format!("mkdir '{folder}/{number}'")).await;
            if number % 3 > 0 {
                api.act(&format!("/api/v1/executions/{}/cancel", execution.id)).await.accepted();
            }
            (number, api.finished(execution.id).await)
        }
    });
    for (number, finished) in futures_util::future::join_all(racing).await {
        let run = finished.run();
        let began = folder.join(number.to_string()).exists();
        match run.state {
            RunState::Succeeded => assert!(began, "{run:?}"),
            RunState::Cancelled => assert!(number % 3 > 0 && (run.attempt > 0 || !began), "{run:?}"),
            // Made twice, it would have failed.
            _ => panic!("{run:?}"),
        }
        assert!(run.attempt <= 1, "{run:?}");
    }
}

/// A controller that does not know yet that its session is superseded must not offer through it.
#[tokio::test]
async fn nothing_is_offered_under_a_superseded_session() {
    let (world, player) = impatient().await;
    let api = world.api();
    let mut older = player.play(&[]).await;
    // As another controller would have written it.
    let done = sqlx::query("update sessions set epoch = epoch + 1").execute(&mut world.sql().await).await;
    assert_eq!(done.expect("the owner may").rows_affected(), 1);
    let execution = api.start_shell("played", "true").await;
    // The controller finds out and ends the session; nothing came over it.
    let offered =
        older.next(|frame| matches!(frame, proto::controller_frame::Frame::Order(_)).then_some(())).await;
    assert!(offered.is_none(), "an order came over a superseded session");
    let run = api.runs(execution.id).await.remove(0);
    assert_eq!((run.state, run.attempt), (RunState::Queued, 0), "{run:?}");
    let mut newer = player.play(&[]).await;
    let order = newer.order().await;
    assert_eq!(newer.finish(&order, 0).await, proto::Verdict::Stored);
    assert_eq!(api.finished(execution.id).await.run().state, RunState::Succeeded);
}

#[tokio::test]
async fn a_newer_session_ends_the_older_and_gets_the_orders() {
    let (world, player) = impatient().await;
    let mut older = player.play(&[]).await;
    let mut newer = player.play(&[]).await;
    let execution = world.api().start_shell("played", "true").await;
    let order = newer.order().await;
    let ended =
        older.next(|frame| matches!(frame, proto::controller_frame::Frame::Order(_)).then_some(())).await;
    assert!(ended.is_none(), "the older session got an order");
    newer.start(&order).await;
    assert_eq!(newer.finish(&order, 0).await, proto::Verdict::Stored);
    assert_eq!(world.api().finished(execution.id).await.run().state, RunState::Succeeded);
}

/// A database that was away may have missed how a session began or ended.
#[tokio::test]
async fn sessions_and_tables_come_to_agree() {
    let world = World::builder().impatient().start().await;
    let mut agent = world.agent("one").start().await;
    let epoch = async || {
        let mut sql = world.sql().await;
        let epoch = sqlx::query_scalar::<_, i64>("select epoch from sessions").fetch_one(&mut sql).await;
        epoch.expect("the owner may")
    };
    // The table says that it is closed, the controller serves it: it opens anew.
    let before = epoch().await;
    let closed = "update sessions set connected = false, closed_at = now()";
    sqlx::query(closed).execute(&mut world.sql().await).await.expect("the owner may");
    eventually(SOON, "the agent opens its session anew", async || (epoch().await > before).then_some(()))
        .await;
    agent.online().await;
    assert_eq!(world.api().shell("one", "true").await.run().state, RunState::Succeeded);
    // The table says that it is open, and nobody serves it: it closes.
    agent.stop();
    agent.is("offline").await;
    let opened = "update sessions set connected = true, closed_at = null";
    sqlx::query(opened).execute(&mut world.sql().await).await.expect("the owner may");
    assert_eq!(agent.shown().await["state"], "online");
    agent.is("offline").await;
}
