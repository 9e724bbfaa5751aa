//! Runs in containers as a person meets them: ordered with `opsctl` or the API, run by a host's engine, refused with a reason.

use opsconductor_tests::{
    SOON, World, eventually,
    podman::{IMAGE, Podman},
};
use serde_json::{Value, json};

use crate::crash_matrix::points;

/// What the names of the fault points begin with that a run in a container comes by.
pub(crate) const POINTS: &str = "shim.container.";

/// What a host allows that has this engine.
fn policy(engine: &str) -> String {
    format!("[sandbox]\ncontainers = true\nengine = '{engine}'\n")
}

async fn exec(world: &World, code: i32, words: &[&str]) -> Value {
    let options = ["exec", "-t", "one", "-o", "json", "--sandbox", "isolated", "--image", IMAGE, "--"];
    let document = world.opsctl(&[&options[..], words].concat()).await.ended(code).json();
    document["runs"][0].clone()
}

#[tokio::test]
async fn a_container_runs_is_shown_and_cancelled_and_leaves_nothing() {
    let Some(engine) = Podman::start() else { return };
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    std::fs::write(agent.policy(), policy(&engine.socket().display().to_string()))
        .expect("it can be written");

    let options = ["exec", "-t", "one", "--sandbox", "isolated", "--image", IMAGE, "--"];
    let words = ["sh", "-c", "echo from inside; ls /; exit 3"];
    let said = world.opsctl(&[&options[..], &words].concat()).await;
    assert!(said.text().contains("from inside") && !said.text().contains("home"), "{said}");
    let line = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3";
    let run = exec(&world, 1, &["sh", "-c", line]).await;
    assert_eq!((run["state"].as_str(), run["exit_code"].as_i64()), (Some("failed"), Some(3)), "{run}");
    assert_eq!(run["sandbox"], "isolated", "{run}");
    assert!(run["usage"]["cpu_user_us"].as_i64() > Some(0), "{run}");
    assert!(run["usage"]["peak_memory_bytes"].as_i64() > Some(0), "{run}");
    assert_eq!(engine.containers(), "");

    let body = json!({
        "targets": { "names": ["one"] },
        "command": {
            "program": { "shell": "echo up; sleep 1000" },
            "sandbox": "isolated",
            "container": { "image": IMAGE },
        },
    });
    let execution = world.api().post("/api/v1/executions", &body).await.accepted().value();
    let id = execution["id"].as_str().expect("it has an id").to_owned();
    eventually(SOON, "the container runs", async || (!engine.containers().is_empty()).then_some(())).await;
    world.opsctl(&["execution", "cancel", &id]).await.ended(0);
    eventually(SOON, "the execution is cancelled", async || {
        let shown = world.api().get(&format!("/api/v1/executions/{id}")).await.accepted().value();
        (shown["state"] == "cancelled").then_some(())
    })
    .await;
    assert_eq!(engine.containers(), "");
    let shown = world.opsctl(&["execution", "show", &id]).await.ended(0).text();
    assert!(shown.contains(&format!("Container  {IMAGE}\n")), "{shown}");

    // A selector finds such a host once its agent has looked for the engine.
    let list = async || {
        world.opsctl(&["agent", "list", "-l", "sandbox.containers=yes", "-o", "json"]).await.ended(0).text()
    };
    assert!(!list().await.contains("\"one\""));
    agent.stop();
    agent.run();
    eventually(SOON, "the agent has found the engine", async || {
        list().await.contains("\"one\"").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_container_tells_what_it_promised() {
    let Some(engine) = Podman::start() else { return };
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    std::fs::write(agent.policy(), policy(&engine.socket().display().to_string()))
        .expect("it can be written");
    let api = world.api();
    for (line, reason) in [("echo '{\"n\": 3}' > $OPSC_OUTPUTS", "exited"), ("true", "bad_outputs")] {
        let body = json!({
            "targets": { "names": ["one"] },
            "command": {
                "program": { "shell": line }, "sandbox": "isolated", "container": { "image": IMAGE }, "outputs": ["n"],
            },
        });
        let execution = api.post("/api/v1/executions", &body).await.accepted().value();
        let id: model::id::ExecutionId =
            execution["id"].as_str().expect("it has an id").parse().expect("an id");
        let finished = api.finished(id).await;
        let run = &finished.runs[0];
        assert_eq!(run.reason.map(model::Reason::as_str), Some(reason), "{run:?}");
        assert_eq!(run.outputs.get("n"), (reason == "exited").then(|| json!(3)).as_ref());
    }
    assert_eq!(engine.containers(), "");
}

#[tokio::test]
async fn without_leave_or_an_engine_a_container_is_refused_and_it_is_said_why() {
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    let run = exec(&world, 1, &["true"]).await;
    assert_eq!(run["reason"], "policy_refused", "{run}");
    assert!(run["detail"].as_str().unwrap_or_default().contains("sandbox.containers"), "{run}");
    std::fs::write(agent.policy(), policy("/no/such/engine.sock")).expect("it can be written");
    let run = exec(&world, 1, &["true"]).await;
    assert_eq!(run["reason"], "sandbox_unavailable", "{run}");
    assert!(run["detail"].as_str().unwrap_or_default().contains("/no/such/engine.sock"), "{run}");
}

/// The process that owns a run dies at each step of its container: the run ends, nobody claims to know how, and nothing is
/// left of it.
#[tokio::test]
async fn a_shim_dies_at_each_step_of_a_container() {
    let Some(engine) = Podman::start() else { return };
    points::check_that_they_are_built();
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    std::fs::write(agent.policy(), policy(&engine.socket().display().to_string()))
        .expect("it can be written");
    let log = world.folder().join("fault.log");
    let points: Vec<String> = points::all().into_iter().filter(|point| point.starts_with(POINTS)).collect();
    assert!(points.len() > 4, "{points:?}");
    let body = json!({
        "targets": { "names": ["one"] },
        "command": {
            "program": { "shell": "echo up" },
            "sandbox": "isolated",
            "container": { "image": IMAGE },
        },
    });
    let run = async || {
        let execution = world.api().post("/api/v1/executions", &body).await.accepted().value();
        let path = format!("/api/v1/executions/{}/runs", execution["id"].as_str().expect("it has an id"));
        eventually(SOON, "the run ends", async || {
            let run = world.api().get(&path).await.accepted().value()["items"][0].clone();
            let state = run["state"].as_str().unwrap_or_default().to_owned();
            ["succeeded", "failed", "unknown"].contains(&state.as_str()).then_some(run)
        })
        .await
    };
    for point in points {
        // A log that is not there is as good as an empty one.
        let _ = std::fs::remove_file(&log);
        agent.kill();
        let log_path = log.to_str().expect("our paths are UTF-8");
        agent.run_armed(&[("OPSC_FAULT", &point), ("OPSC_FAULT_LOG", log_path)]);
        let run = run().await;
        let reached = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(reached.contains(&point), "{point} was not reached: {run}");
        let shown = (run["state"].as_str(), run["reason"].as_str());
        assert_eq!(shown, (Some("unknown"), Some("shim_lost")), "{point}: {run}");
        eventually(SOON, "nothing is left of it", async || engine.containers().is_empty().then_some(()))
            .await;
    }
    agent.kill();
    agent.run();
    let run = run().await;
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(engine.containers(), "");
}
