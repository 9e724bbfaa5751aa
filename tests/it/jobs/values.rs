//! Parameters, templates and conditions: values reach the steps, and never become code.

use model::{Reason, execution::ExecutionState};
use opsconductor_tests::{SOON, World, eventually};
use serde_json::{Value, json};

use super::{agents, execute, results, save, states};

const DEPLOY: &str = r#"
name: deploy
parameters:
  version: {type: string, required: true, pattern: "[0-9.]+.*"}
  mode: {type: choice, choices: [fast, safe], default: safe}
  count: {type: integer, minimum: 1, maximum: 9, default: 3}
targets: {all: true}
steps:
  - name: environment
    run: printf '%s|%s|%s' "$OPSC_PARAM_VERSION" "$OPSC_PARAM_MODE" "$OPSC_PARAM_COUNT"
  - name: template
    template: true
    run: printf '%s' {{ params.version }} {{ host.name }} {{ host.labels.role }}
  - name: argv
    template: true
    argv: [printf, "%s", "{{ params.version }}"]
  - {name: only-fast, if: "params.mode == 'fast'", run: "true"}
  - {name: only-web, if: "host.labels.role == 'web' and steps.argv.state == 'succeeded'", run: "true"}
"#;

#[tokio::test]
async fn values_reach_the_steps_and_never_become_code() {
    let world = World::start().await;
    let _web = world.agent("w").label("role", "web").start().await;
    let api = world.api();
    save(&api, DEPLOY).await;
    let marker = world.folder().join("marker");
    let evil = format!(
        "1'; touch {0}; $(touch {0}) `touch {0}` \" && touch {0} #\\ {{{{ host.name }}}}",
        marker.display()
    );
    let execution = execute(&api, "deploy", json!({ "parameters": { "version": evil, "count": 5 } })).await;
    api.finished(execution.id).await;
    let finished = eventually(SOON, "the output of what ran is whole", async || {
        let finished = api.finished(execution.id).await;
        let mut ran = finished.runs.iter().filter(|run| run.attempt > 0);
        ran.all(|run| run.output.complete == Some(true)).then_some(finished)
    })
    .await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{:?}", finished.runs);
    let said = finished.execution.job.as_ref().expect("a job");
    assert_eq!(said.parameters["count"], json!(5));
    assert_eq!(
        states(&results(&api, &execution).await),
        ["w: succeeded succeeded succeeded skipped succeeded"]
    );
    let pieces = api.pieces(execution.id, "", 100).await;
    let text = |step: &str| {
        let run = finished.runs.iter().find(|run| run.step_name.as_deref() == Some(step)).expect("a run");
        let own: Vec<_> = pieces.iter().filter(|piece| piece.run_id == run.id).cloned().collect();
        String::from_utf8(opsconductor_tests::api::bytes(&own)).expect("text")
    };
    assert_eq!(text("environment"), format!("{evil}|safe|5"));
    assert_eq!(text("template"), format!("{evil}wweb"));
    assert_eq!(text("argv"), evil);
    assert!(!marker.exists(), "a value became code");
    let skipped =
        finished.runs.iter().find(|run| run.step_name.as_deref() == Some("only-fast")).expect("a run");
    assert_eq!(skipped.reason, Some(Reason::ConditionFalse));
}

#[tokio::test]
async fn wrong_values_are_refused_by_name() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    save(&api, DEPLOY).await;
    for (parameters, field) in [
        (json!({}), "parameters.version"),
        (json!({ "version": "one" }), "parameters.version"),
        (json!({ "version": 1 }), "parameters.version"),
        (json!({ "version": "1", "mode": "slow" }), "parameters.mode"),
        (json!({ "version": "1", "count": 10 }), "parameters.count"),
        (json!({ "version": "1", "verson": "2" }), "parameters.verson"),
    ] {
        let problem = api
            .post("/api/v1/jobs/deploy/execute", &json!({ "parameters": parameters }))
            .await
            .refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field), "{}", problem.detail);
    }
    let executions: Value = api.get("/api/v1/executions").await.accepted().value();
    assert_eq!(executions["items"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_told_fails_its_host_with_the_reason() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    // The host has no such label.
    let document = "name: asks\ntargets: {all: true}\nsteps:\n  - {name: a, if: \"host.labels.role == 'web'\", run: 'true'}\n  \
                    - {name: b, run: 'true'}\n";
    let job = save(&api, document).await;
    let execution = execute(&api, &job, json!({})).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Failed, "{:?}", finished.runs);
    assert_eq!(states(&results(&api, &execution).await), ["one: failed skipped"]);
    let failed = finished.runs.iter().find(|run| run.step_name.as_deref() == Some("a")).expect("a run");
    assert_eq!(failed.reason, Some(Reason::BadTemplate));
    // Unknown names are found when the job is saved.
    let document = "name: bad\nsteps:\n  - {name: a, if: params.nothing, run: x}\n";
    let problem =
        api.post("/api/v1/jobs", &json!({ "document": document })).await.refused(400, "invalid_document");
    assert!(
        problem.detail.contains("line 3") && problem.detail.contains("params.nothing"),
        "{}",
        problem.detail
    );
}
