//! Commands of their own that spread over their hosts as jobs do.

use model::{
    Reason,
    api::execution::{CreateExecution, Execution},
    execution::ExecutionState,
};
use opsconductor_tests::{Api, SOON, World, eventually};
use serde_json::{Value, json};

use super::{agents, diary, hosts_are, results, states, written};

async fn start(api: &Api, shell: &str, rollout: Value) -> Execution {
    let body = json!({
        "targets": { "all": true }, "rollout": rollout,
        "command": { "program": { "shell": shell }, "env": { "SECRET": "word" } },
    });
    api.post("/api/v1/executions", &body).await.accepted().json()
}

async fn newest(api: &Api) -> Execution {
    let page = api.get("/api/v1/executions?limit=1").await.accepted().value();
    serde_json::from_value(page["items"][0].clone()).expect("an execution")
}

#[tokio::test]
async fn a_command_stops_exactly_at_its_budget() {
    let world = World::start().await;
    let _agents = agents(&world, &["a", "b", "c", "d"]).await;
    let api = world.api();
    let line = format!("echo tried >> {}; false", diary(&world).display());
    let said = world
        .opsctl(&["exec", "--all", "--max-parallel", "1", "--max-failures", "1", "--shell", &line])
        .await
        .ended(1);
    assert!(said.stderr.contains("command") && said.stderr.contains("SKIPPED"), "{said}");
    assert_eq!(written(&world), ["tried", "tried"], "one may fail, and the second stops it");
    let execution = newest(&api).await;
    assert!(execution.stopped && execution.job.is_none());
    let results = results(&api, &execution).await;
    assert_eq!(states(&results), ["a: failed", "b: failed", "c: skipped", "d: skipped"]);
    assert_eq!(results.hosts[3].runs[0].as_ref().and_then(|run| run.reason), Some(Reason::RolloutStopped));
}

#[tokio::test]
async fn a_command_has_a_canary() {
    let world = World::start().await;
    let _agents = agents(&world, &["a", "b", "c"]).await;
    let api = world.api();
    let line = format!("echo did >> {}", diary(&world).display());
    let exec = async |probe: &str, code: i32| {
        let words = ["exec", "--all", "--canary", "1", "--soak", "1s", "--probe", probe, "--shell", &line];
        world.opsctl(&words).await.ended(code)
    };
    exec("exit 7", 1).await;
    assert_eq!(written(&world), ["did"], "on the canary alone");
    let bad = newest(&api).await;
    assert_eq!(states(&results(&api, &bad).await), ["a: succeeded failed", "b: skipped -", "c: skipped -"]);
    let shown = world.opsctl(&["execution", "show", &bad.id.to_string()]).await.ended(0).text();
    for words in ["Rollout  canary 1; soak 1s", "a/probe", "the rollout is stopped", "Changed  1 host"] {
        assert!(shown.replace("   ", "  ").contains(words), "{words}: {shown}");
    }
    let probe = format!("test $(wc -l < {}) -eq 2", diary(&world).display());
    exec(&probe, 0).await;
    assert_eq!(written(&world).len(), 4);
    let good = newest(&api).await;
    let want = ["a: succeeded succeeded", "b: succeeded -", "c: succeeded -"];
    assert_eq!(states(&results(&api, &good).await), want);
    world.opsctl(&["exec", "--all", "--probe", "true", "--shell", "true"]).await.ended(2);
    world.opsctl(&["exec", "--all", "--batches", "1,x", "--shell", "true"]).await.ended(2);
}

#[tokio::test]
async fn a_command_is_paused_resumed_and_tried_again() {
    let world = World::start().await;
    let _agents = agents(&world, &["a", "b", "c"]).await;
    let api = world.api();
    let mended = world.folder().join("mended");
    let line = format!("echo \"$SECRET\" >> {}; test -e {}", diary(&world).display(), mended.display());
    let rollout = json!({ "batches": [1, 2, "100%"], "pause": "1h", "max_failures": 1 });
    let first = start(&api, &line, rollout).await;
    let path = |verb: &str| format!("/api/v1/executions/{}/{verb}", first.id);
    hosts_are(&api, &first, &["failed", "waiting", "waiting"]).await;
    api.act(&path("pause")).await.accepted();
    assert!(api.get(path("").trim_end_matches('/')).await.accepted().json::<Execution>().paused);
    api.act(&path("resume")).await.accepted();
    hosts_are(&api, &first, &["failed", "failed", "skipped"]).await;
    let finished = api.finished(first.id).await.execution;
    assert_eq!((finished.state, finished.stopped), (ExecutionState::Failed, true));
    let command = finished.command.expect("its command is shown");
    assert_eq!(command.env["SECRET"], "<hidden>");
    api.act(&path("resume")).await.refused(409, "conflict");
    api.post(&path("retry"), &json!({ "from": "command" })).await.refused(400, "invalid");
    std::fs::write(&mended, "").expect("written");
    let second: Execution =
        api.post(&path("retry"), &json!({ "hosts": "unfinished" })).await.accepted().json();
    assert_eq!(second.retry_of, Some(first.id));
    for done in 1..3 {
        let resumed = format!("/api/v1/executions/{}/resume", second.id);
        eventually(SOON, "the next batch", async || {
            let hosts = results(&api, &second).await.hosts;
            (hosts.iter().filter(|host| host.state == "succeeded").count() == done).then_some(())
        })
        .await;
        api.act(&resumed).await.accepted();
    }
    assert_eq!(api.finished(second.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(written(&world), ["word"; 5], "its environment is that of the first");
    let audit = api.get("/api/v1/audit?verb=execution.create").await.accepted().value();
    assert!(audit.to_string().contains("\"rollout\":{\"batches\":[1,2,\"100%\"]"), "{audit}");
    assert!(!audit.to_string().contains("word"), "{audit}");
}

#[tokio::test]
async fn a_rollout_of_a_command_is_checked() {
    let world = World::start().await;
    let _agents = agents(&world, &["a"]).await;
    let api = world.api();
    for (rollout, field) in [
        (json!({ "batches": [] }), "rollout.batches"),
        (json!({ "canary": { "hosts": 0 } }), "rollout.canary.hosts"),
        (json!({ "canary": { "hosts": 1, "probe": { "wait": 5 } } }), "rollout.canary.probe.wait"),
        (
            json!({ "canary": { "hosts": 1, "probe": { "run": "x {{ params.a }}", "template": true } } }),
            "rollout.canary.probe.run",
        ),
    ] {
        let body = json!({
            "targets": { "all": true }, "command": { "program": { "argv": ["true"] } }, "rollout": rollout,
        });
        serde_json::from_value::<CreateExecution>(body.clone()).expect("a request");
        let refused = api.post("/api/v1/executions", &body).await.refused(400, "invalid");
        assert_eq!(refused.field.as_deref(), Some(field));
    }
    let plain = start(&api, "true", Value::Null).await;
    api.finished(plain.id).await;
    let refused = api.act(&format!("/api/v1/executions/{}/pause", plain.id)).await.refused(409, "conflict");
    assert!(refused.detail.contains("without a rollout"), "{refused:?}");
}
