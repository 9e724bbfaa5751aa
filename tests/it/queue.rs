//! What waits for an agent: in the order of priority, visible, and held back while the agent drains.

use model::{
    api::{
        Page,
        agent::{AgentLoad, AgentRun},
        execution::Execution,
    },
    id::ExecutionId,
    run::RunState,
};
use opsconductor_tests::{Api, SOON, World, eventually};
use serde_json::json;
use sqlx::Row;

async fn start(api: &Api, line: &str, priority: i64) -> ExecutionId {
    let body = json!({
        "targets": { "names": ["one"] }, "command": { "program": { "shell": line } }, "priority": priority,
    });
    api.post("/api/v1/executions", &body).await.accepted().json::<Execution>().id
}

/// A run that holds its slot until the file is there.
async fn hold(world: &World, gate: &str) -> ExecutionId {
    let gate = world.folder().join(gate);
    let line = format!("while [ ! -e '{}' ]; do sleep 0.05; done", gate.display());
    let id = start(&world.api(), &line, 0).await;
    eventually(SOON, "the slot is taken", async || {
        world.api().runs(id).await[0].started_at.is_some().then_some(())
    })
    .await;
    id
}

fn open(world: &World, gate: &str) {
    std::fs::write(world.folder().join(gate), "").expect("the folder can be written");
}

async fn queue(api: &Api, state: &str) -> Vec<AgentRun> {
    let (mut runs, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/agents/one/runs?state={state}&limit=2{cursor}");
        let page: Page<AgentRun> = api.get(&path).await.accepted().json();
        runs.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return runs,
        }
    }
}

async fn load(api: &Api) -> AgentLoad {
    let agent = api.get("/api/v1/agents/one").await.accepted().value();
    serde_json::from_value(agent["load"].clone()).expect("the agent's load")
}

#[tokio::test]
async fn priorities_order_a_full_queue() {
    let world = World::start().await;
    let _agent = world.agent("one").slots(1).start().await;
    let api = world.api();
    let held = hold(&world, "gate").await;
    let order = world.folder().join("order");
    let mut ids = Vec::new();
    for (name, priority) in [("a", 0), ("b", 5), ("c", -100), ("d", 5), ("e", 100)] {
        ids.push(start(&api, &format!("echo {name} >> '{}'", order.display()), priority).await);
    }
    let [a, b, c, d, e] = ids[..] else { panic!("{ids:?}") };
    let waiting = queue(&api, "queued").await;
    let shown: Vec<(ExecutionId, i16)> = waiting.iter().map(|run| (run.execution_id, run.priority)).collect();
    assert_eq!(shown, [(e, 100), (b, 5), (d, 5), (a, 0), (c, -100)]);
    assert!(waiting.iter().all(|run| run.state == RunState::Queued && run.summary.starts_with("echo")));
    let active: Vec<ExecutionId> = queue(&api, "active").await.iter().map(|run| run.execution_id).collect();
    assert_eq!(active, [held]);
    assert_eq!(load(&api).await, AgentLoad { active: 1, queued: 5 });
    let said = world.opsctl(&["agent", "show", "one"]).await.ended(0);
    assert!(said.text().contains("1 active, 5 queued"), "{said}");
    let said = world.opsctl(&["agent", "queue", "one", "--limit", "3"]).await.ended(0);
    assert_eq!(said.text().lines().count(), 4, "{said}");
    let said = world.opsctl(&["execution", "show", &e.to_string()]).await.ended(0);
    assert!(said.text().contains("Priority"), "{said}");

    open(&world, "gate");
    for id in ids {
        api.finished(id).await;
    }
    assert_eq!(std::fs::read_to_string(&order).expect("they ran"), "e\nb\nd\na\nc\n");
    assert_eq!(load(&api).await, AgentLoad { active: 0, queued: 0 });

    for bad in ["", "?state=ended", "?state=queued&limit=0", "?state=queued&cursor=x"] {
        api.get(&format!("/api/v1/agents/one/runs{bad}")).await.refused(400, "invalid");
    }
    api.get("/api/v1/agents/two/runs?state=queued").await.refused(404, "not_found");
    let body =
        json!({ "targets": { "all": true }, "command": { "program": { "shell": "true" } }, "priority": 101 });
    assert_eq!(
        api.post("/api/v1/executions", &body).await.refused(400, "invalid").field.as_deref(),
        Some("priority")
    );
}

#[tokio::test]
async fn a_draining_agent_gets_nothing_new() {
    let world = World::start().await;
    let agent = world.agent("one").label("role", "web").start().await;
    let other = world.agent("two").start().await;
    let api = world.api();
    let held = hold(&world, "gate").await;
    let said = world.opsctl(&["agent", "drain", "-l", "role=web"]).await.ended(0);
    assert!(said.text().contains("one is draining with 1 run"), "{said}");
    agent.is("draining").await;
    assert_eq!(other.shown().await["state"], "online");
    // Twice is no error, and told once.
    api.act("/api/v1/agents/one/drain").await.accepted();

    let waits = start(&api, "true", 0).await;
    let expires = json!({
        "targets": { "names": ["one"] }, "command": { "program": { "shell": "true" } }, "start_within_seconds": 1,
    });
    let expires: Execution = api.post("/api/v1/executions", &expires).await.accepted().json();
    let finished = api.finished(expires.id).await;
    assert_eq!((finished.run().state, finished.run().attempt), (RunState::Expired, 0), "{finished:?}");
    // It has been looked at more than once meanwhile.
    let run = api.runs(waits).await.remove(0);
    assert_eq!((run.state, run.attempt), (RunState::Queued, 0), "{run:?}");

    let mut draining =
        world.opsctl_command(&["agent", "drain", "one", "--wait"]).spawn().expect("opsctl starts");
    assert!(!api.execution(held).await.state.is_terminal());
    assert!(draining.try_wait().expect("it is our child").is_none(), "a run is going on");
    open(&world, "gate");
    assert!(draining.wait().await.expect("it is our child").success());
    assert_eq!(load(&api).await.active, 0);
    assert_eq!(api.finished(held).await.run().state, RunState::Succeeded);
    assert_eq!(api.runs(waits).await[0].state, RunState::Queued);

    let said = world.opsctl(&["agent", "resume", "one"]).await.ended(0);
    assert!(said.text().contains("one is online"), "{said}");
    assert_eq!(api.finished(waits).await.run().state, RunState::Succeeded);
    api.act("/api/v1/agents/one/resume").await.accepted();
    for (verb, want) in [("agent.drain", 1), ("agent.resume", 1)] {
        let told = sqlx::query("select count(*) from audit_entries where verb = $1")
            .bind(verb)
            .fetch_one(&mut world.sql().await)
            .await
            .expect("the owner may");
        assert_eq!(told.get::<i64, _>(0), want, "{verb}");
    }
    world.opsctl(&["agent", "drain", "-l", "role=db"]).await.ended(5);
    let id = other.id().await;
    api.act("/api/v1/agents/two/revoke").await.accepted();
    api.act(&format!("/api/v1/agents/{id}/drain")).await.refused(409, "conflict");
}

#[tokio::test]
async fn a_drain_outlives_controller_and_agent() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let api = world.api();
    api.act("/api/v1/agents/one/drain").await.accepted();
    agent.stop();
    world.kill_controller();
    world.start_controller().await;
    agent.run();
    eventually(SOON, "the agent is connected", async || {
        (agent.shown().await["connected"] == true).then_some(())
    })
    .await;
    agent.is("draining").await;
    let id = start(&api, "true", 0).await;
    // A run of another agent passes the dispatcher meanwhile.
    let _other = world.agent("two").start().await;
    assert_eq!(api.shell("two", "true").await.run().state, RunState::Succeeded);
    assert_eq!(api.runs(id).await[0].attempt, 0);
    api.act("/api/v1/agents/one/resume").await.accepted();
    assert_eq!(api.finished(id).await.run().state, RunState::Succeeded);
}
