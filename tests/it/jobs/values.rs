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

#[tokio::test]
async fn what_a_step_tells_reaches_later_ones_on_its_host() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    // In every sandbox, in a template, in a variable, and in a condition.
    let document = r#"
name: tell
targets: {all: true}
steps:
  - {name: plain, sandbox: none, outputs: [who], run: "printf '{\"who\": \"%s\"}' \"$OPSC_RUN_ID\" > \"$OPSC_OUTPUTS\""}
  - name: standard
    outputs: [text, list]
    run: |
      cat > "$OPSC_OUTPUTS" <<'END'
      {"text": "a 'b' $(touch /evil) `c`", "list": [1, {"x": null}]}
      END
  - {name: strict, sandbox: strict, outputs: [n], run: "echo '{\"n\": 3}' > $OPSC_OUTPUTS"}
  - name: use
    template: true
    env: {WHO: "{{ steps.plain.outputs.who }}"}
    run: "printf '%s|%s|%s' {{ steps.standard.outputs.text }} {{ steps.strict.outputs.n }} \"$WHO\""
  - {name: asked, if: steps.strict.outputs.n == 3, run: "true"}
  - {name: other, if: steps.strict.outputs.n == 4, run: "true"}
"#;
    save(&api, document).await;
    let execution = execute(&api, "tell", json!({})).await;
    api.finished(execution.id).await;
    let finished = eventually(SOON, "the output of what ran is whole", async || {
        let finished = api.finished(execution.id).await;
        let mut ran = finished.runs.iter().filter(|run| run.attempt > 0);
        ran.all(|run| run.output.complete == Some(true)).then_some(finished)
    })
    .await;
    let cells = "succeeded succeeded succeeded succeeded succeeded skipped";
    assert_eq!(
        states(&results(&api, &execution).await),
        [format!("one: {cells}"), format!("two: {cells}")],
        "{:?}",
        finished.runs
    );
    let pieces = api.pieces(execution.id, "", 100).await;
    for host in ["one", "two"] {
        let of = |step: &str| {
            let mut runs = finished.runs.iter().filter(|run| run.target == host);
            runs.find(|run| run.step_name.as_deref() == Some(step)).expect("a run")
        };
        assert_eq!(of("standard").outputs["list"], json!([1, { "x": null }]));
        let own: Vec<_> = pieces.iter().filter(|piece| piece.run_id == of("use").id).cloned().collect();
        let said = String::from_utf8(opsconductor_tests::api::bytes(&own)).expect("text");
        assert_eq!(said, format!("a 'b' $(touch /evil) `c`|3|{}", of("plain").id));
    }
}

#[tokio::test]
async fn who_does_not_tell_what_he_promised_has_failed() {
    let world = World::start().await;
    let _agent = agents(&world, &["one"]).await;
    let api = world.api();
    let wrongs = [
        ("'true'", "wrote none"),
        ("echo nonsense > $OPSC_OUTPUTS", "no JSON"),
        (r#"echo '{\"b\": 1}' > $OPSC_OUTPUTS"#, "promised the output 'a'"),
        (r#"echo '{\"a\": 1, \"b\": 1}' > $OPSC_OUTPUTS"#, "did not promise"),
        ("rm $OPSC_OUTPUTS; ln -s /etc/hostname $OPSC_OUTPUTS", "another file"),
        ("head -c 100000 /dev/zero > $OPSC_OUTPUTS", "OUTPUTS_BYTES"),
    ];
    let steps: String = wrongs
        .iter()
        .enumerate()
        .map(|(index, (run, _))| {
            let run = if run.starts_with('\'') { run.to_string() } else { format!("\"{run}\"") };
            format!("  - {{name: s{index}, needs: [], outputs: [a], run: {run}}}\n")
        })
        .collect();
    save(&api, &format!("name: lie\ntargets: {{all: true}}\nsteps:\n{steps}")).await;
    let execution = execute(&api, "lie", json!({})).await;
    let finished = api.finished(execution.id).await;
    for (index, (_, why)) in wrongs.iter().enumerate() {
        let step = format!("s{index}");
        let run = finished.runs.iter().find(|run| run.step_name.as_deref() == Some(&step)).expect("a run");
        let detail = run.detail.clone().unwrap_or_default();
        assert_eq!((run.state.as_str(), run.reason), ("failed", Some(Reason::BadOutputs)), "{why}: {detail}");
        assert!(detail.contains(why), "{why}: {detail}");
    }
    let unknown = "name: x\nsteps:\n  - {name: a, outputs: [one], run: x}\n  \
                   - {name: b, if: steps.a.outputs.two == 1, run: x}\n";
    let refused = api.post("/api/v1/jobs", &json!({ "document": unknown })).await;
    refused.refused(400, "invalid_document");
}
