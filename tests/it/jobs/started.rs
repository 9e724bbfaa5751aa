//! Steps that start other jobs.

use model::{Reason, api::execution::Execution, execution::ExecutionState, run::RunState};
use opsconductor_tests::{Api, SOON, World, eventually};
use serde_json::{Value, json};

use super::{agents, execute, results, run, save, states, step, types, written};

/// The executions that this one's steps have started, in the order of the steps.
async fn started(api: &Api, execution: &Execution) -> Vec<Execution> {
    let results = results(api, execution).await;
    let mut all = Vec::new();
    for id in results.controller.iter().flatten().filter_map(|cell| cell.started) {
        all.push(api.get(&format!("/api/v1/executions/{id}")).await.accepted().json());
    }
    all
}

#[tokio::test]
async fn it_begins_in_its_turn_with_its_values_and_its_end_is_the_steps() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let diary = super::diary(&world);
    let inner = format!(
        "name: inner\nparameters:\n  size: {{type: integer, required: true, maximum: 9}}\n  who: {{type: string, default: nobody}}\n\
         steps:\n  - {{name: do, run: 'echo inner $OPSC_PARAM_SIZE \"$OPSC_PARAM_WHO\" >> {}'}}\n",
        diary.display()
    );
    save(&api, &inner).await;
    let outer = format!(
        "name: outer\ntargets: {{all: true}}\nparameters:\n  who: {{type: string, required: true}}\nsteps:\n{}  - name: call\n    template: true\n    \
         job:\n      name: inner\n      parameters: {{size: \"{{{{ steps.first.succeeded }}}}\", who: \"{{{{ params.who }}}}\"}}\n{}  - name: tell\n    template: true\n    \
         run: echo {{{{ steps.call.outputs.state }}}} >> {}\n",
        step(&world, "first", ""),
        step(&world, "last", ""),
        diary.display(),
    );
    let job = save(&api, &outer).await;
    // The plan says what would be started, and where.
    let plan = api
        .post(&format!("/api/v1/jobs/{job}/plan"), &json!({ "parameters": { "who": "x" } }))
        .await
        .accepted()
        .value();
    assert_eq!(plan["steps"][1]["summary"], "job inner v1 on 2 hosts", "{plan}");
    let hostile = "a'; touch /tmp/never #\"";
    let execution = execute(&api, &job, json!({ "parameters": { "who": hostile } })).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{:?}", finished.runs);
    let inner = format!("inner 2 {hostile}");
    let lines = written(&world);
    assert_eq!(lines[..2], ["first", "first"], "{lines:?}");
    assert_eq!(lines[2..4], [inner.as_str(), inner.as_str()], "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == "succeeded").count(), 2, "{lines:?}");
    let children = started(&api, &execution).await;
    assert_eq!(children.len(), 1);
    let child = &children[0];
    assert_eq!((child.parent_id, child.actor.as_str()), (Some(execution.id), execution.actor.as_str()));
    assert_eq!(child.job.as_ref().map(|job| job.parameters["size"].clone()), Some(json!(2)));
    let said = types(&world, &format!("execution show {}", child.id)).await;
    let part_of = format!("Part of  {}", execution.id);
    assert!(said.text().contains(&part_of), "{}", said.text());
    let audit = api.get("/api/v1/audit?verb=execution.create").await.accepted().value();
    let entries = audit["items"].as_array().expect("entries");
    let entry = entries.iter().map(|item| &item["entry"]);
    let mut entry = entry.filter(|entry| entry["object"] == format!("execution/{}", child.id));
    let entry = entry.next().expect("an entry");
    assert_eq!(entry["detail"]["started_by"], json!(execution.id), "{entry}");
}

#[tokio::test]
async fn its_failure_is_the_steps() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    save(&api, "name: bad\ntargets: {hosts: [two]}\nsteps:\n  - {name: do, run: exit 3}\n").await;
    let outer = format!(
        "name: outer\ntargets: {{hosts: [one]}}\nsteps:\n  - {{name: call, job: {{name: bad}}}}\n{}",
        step(&world, "after", "")
    );
    let execution = run(&api, &outer).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Failed);
    let of_step = finished.runs.iter().find(|run| run.step == Some(0)).expect("a run");
    assert_eq!((of_step.state, of_step.reason), (RunState::Failed, Some(Reason::JobFailed)));
    let child = &started(&api, &execution).await[0];
    assert_eq!(of_step.detail.as_deref(), Some(format!("the execution {} is failed", child.id).as_str()));
    assert_eq!(states(&results(&api, &execution).await), ["one: - skipped"]);
    assert_eq!(states(&results(&api, child).await), ["two: failed"]);
    assert!(written(&world).is_empty());
}

#[tokio::test]
async fn who_cancels_one_cancels_what_it_has_started() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    save(&api, "name: long\ntargets: {all: true}\nsteps:\n  - {name: do, run: sleep 1000}\n").await;
    save(&api, "name: middle\nsteps:\n  - {name: call, job: {name: long}}\n").await;
    let execution = run(&api, "name: outer\nsteps:\n  - {name: call, job: {name: middle}}\n").await;
    let innermost = eventually(SOON, "the innermost is at work", async || {
        let middle = started(&api, &execution).await.pop()?;
        let long = started(&api, &middle).await.pop()?;
        (long.state == ExecutionState::Running).then_some(long)
    })
    .await;
    api.post(&format!("/api/v1/executions/{}/cancel", execution.id), &json!({})).await.accepted();
    assert_eq!(api.finished(innermost.id).await.execution.state, ExecutionState::Cancelled);
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Cancelled);
}

#[tokio::test]
async fn it_goes_on_where_the_controller_died() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let gate = world.folder().join("gate");
    let inner = format!(
        "name: inner\ntargets: {{all: true}}\nsteps:\n  - {{name: do, timeout: 60s, run: \"until test -e {}; do sleep 0.1; done\"}}\n  - {{name: more, run: 'true'}}\n",
        gate.display()
    );
    save(&api, &inner).await;
    let execution = run(&api, "name: outer\nsteps:\n  - {name: call, job: {name: inner}}\n").await;
    eventually(SOON, "the inner one is at work", async || {
        (started(&api, &execution).await.pop()?.state == ExecutionState::Running).then_some(())
    })
    .await;
    world.kill_controller();
    std::fs::write(&gate, "").expect("written");
    world.start_controller().await;
    let api = world.api();
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(started(&api, &execution).await.len(), 1, "started once");
}

#[tokio::test]
async fn what_would_never_end_or_may_not_be_started_begins_nothing() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let refused = api
        .post("/api/v1/jobs", &json!({ "document": "name: a\nsteps:\n  - {name: call, job: {name: a}}\n" }))
        .await
        .value();
    assert!(refused.to_string().contains("the job itself"), "{refused}");
    let calls = |name: &str, other: &str, more: &str| {
        format!("name: {name}\n{more}steps:\n  - {{name: call, job: {{name: {other}}}}}\n")
    };
    let start = async |job: &str| api.post(&format!("/api/v1/jobs/{job}/execute"), &json!({})).await;
    save(&api, &calls("a", "b", "")).await;
    let problem = start("a").await.value();
    assert!(problem.to_string().contains("steps.call.job.name"), "{problem}");
    assert!(problem.to_string().contains("there is no such job"), "{problem}");
    // Whoever closes the ring is told.
    let closed = api.post("/api/v1/jobs", &json!({ "document": calls("b", "a", "") })).await.value();
    assert!(closed.to_string().contains("b → a → b"), "{closed}");
    save(&api, &calls("b", "c", "lock: shared\n")).await;
    save(&api, "name: c\nlock: shared\ntargets: {all: true}\nsteps:\n  - {name: do, run: 'true'}\n").await;
    let problem = start("b").await.value();
    assert!(problem.to_string().contains("holds 'shared' meanwhile"), "{problem}");
    save(&api, "name: asks\nparameters: {n: {type: integer, required: true}}\ntargets: {all: true}\nsteps:\n  - {name: do, run: 'true'}\n")
        .await;
    save(&api, &calls("d", "asks", "")).await;
    let problem = start("d").await.value();
    assert!(problem.to_string().contains("steps.call.job.parameters.n"), "{problem}");
    save(&api, "name: nowhere\nsteps:\n  - {name: do, run: 'true'}\n").await;
    save(&api, &calls("e", "nowhere", "")).await;
    let problem = start("e").await.value();
    assert!(problem.to_string().contains("steps.call.job.targets"), "{problem}");
    let executions = api.get("/api/v1/executions").await.accepted().value();
    assert_eq!(executions["items"], Value::Array(Vec::new()), "nothing was started");
}

#[tokio::test]
async fn a_right_for_one_job_is_none_for_what_it_starts() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    save(
        &api,
        "name: inner\nlabels: {team: db}\ntargets: {all: true}\nsteps:\n  - {name: do, run: 'true'}\n",
    )
    .await;
    save(&api, "name: outer\nlabels: {team: web}\nsteps:\n  - {name: call, job: {name: inner}}\n").await;
    let web = world.person("web", None).await;
    let binding = json!({ "role": "operator", "user": "web", "jobs": "team=web" });
    api.post("/api/v1/role-bindings", &binding).await.accepted();
    let refused = web.post("/api/v1/jobs/outer/execute", &json!({})).await;
    assert!((400..500).contains(&refused.status), "{}", refused.text());
    assert!(refused.text().contains("there is no such job"), "{}", refused.text());
    let executions = api.get("/api/v1/executions").await.accepted().value();
    assert_eq!(executions["items"], Value::Array(Vec::new()), "nothing was started");
}

#[tokio::test]
async fn who_may_not_touch_the_inner_hosts_touches_nothing_of_it() {
    let world = World::start().await;
    let _dev = world.agent("one").label("env", "dev").start().await;
    let _prod = world.agent("two").label("env", "prod").start().await;
    let api = world.api();
    save(&api, "name: inner\ntargets: {hosts: [two]}\nsteps:\n  - {name: do, run: sleep 1000}\n").await;
    let outer = "name: outer\ntargets: {hosts: [one]}\nsteps:\n  - {name: call, job: {name: inner}}\n  - {name: after, run: 'true'}\n";
    let execution = run(&api, outer).await;
    eventually(SOON, "the inner one is at work", async || {
        (started(&api, &execution).await.pop()?.state == ExecutionState::Running).then_some(())
    })
    .await;
    let eve = world.person("eve", None).await;
    let binding = json!({ "role": "operator", "user": "eve", "hosts": "env=dev" });
    api.post("/api/v1/role-bindings", &binding).await.accepted();
    let path = format!("/api/v1/executions/{}", execution.id);
    eve.get(&path).await.refused(404, "not_found");
    for verb in ["cancel", "pause", "abort"] {
        eve.post(&format!("{path}/{verb}"), &json!({})).await.refused(404, "not_found");
    }
    // What has no hosts is for those whose right holds for all.
    save(&api, "name: hostless\nsteps:\n  - {name: rest, wait: 1s}\n").await;
    eve.post("/api/v1/jobs/hostless/execute", &json!({})).await.refused(403, "forbidden");
    api.post(&format!("{path}/cancel"), &json!({})).await.accepted();
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Cancelled);
}

#[tokio::test]
async fn who_stops_one_stops_what_it_has_started() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let gate = world.folder().join("gate");
    let inner = format!(
        "name: inner\ntargets: {{all: true}}\nrollout: {{batches: [1]}}\nsteps:\n  - {{name: do, timeout: 60s, run: \"until test -e {}; do sleep 0.1; done\"}}\n  - {{name: more, run: 'true'}}\n",
        gate.display()
    );
    save(&api, &inner).await;
    let outer = "name: outer\nsteps:\n  - {name: call, job: {name: inner}}\n  - {name: rest, wait: 1h}\n";
    let execution = run(&api, outer).await;
    let child = eventually(SOON, "the inner one is at work", async || {
        started(&api, &execution).await.pop().filter(|child| child.state == ExecutionState::Running)
    })
    .await;
    super::hosts_are(&api, &child, &["active", "waiting"]).await;
    api.post(&format!("/api/v1/executions/{}/abort", execution.id), &json!({})).await.accepted();
    super::hosts_are(&api, &child, &["active", "skipped"]).await;
    std::fs::write(&gate, "").expect("written");
    super::hosts_are(&api, &child, &["failed", "skipped"]).await;
    assert_eq!(states(&results(&api, &child).await), ["one: succeeded skipped", "two: skipped skipped"]);
    let finished = api.finished(execution.id).await;
    let rest = finished.runs.iter().find(|run| run.step_name.as_deref() == Some("rest")).expect("a run");
    assert_eq!(rest.state, RunState::Skipped, "nothing goes on behind it");
}

#[tokio::test]
async fn an_approval_asks_whatever_is_filled_in() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let inner = "name: inner\nparameters: {env: {type: string, required: true}}\ntargets: {all: true}\nsteps:\n  - {name: ok, approval: {}, if: params.env == 'prod'}\n  - {name: do, run: 'true'}\n";
    save(&api, inner).await;
    let outer = "name: outer\ntargets: {all: true}\nsteps:\n  - {name: look, run: 'echo {\\\"env\\\":\\\"dev\\\"} > $OPSC_OUTPUTS', outputs: [env]}\n  - name: call\n    template: true\n    job: {name: inner, parameters: {env: \"{{ steps.look.hosts[0].outputs.env }}\"}}\n";
    save(&api, outer).await;
    let refused = api.post("/api/v1/jobs/outer/execute", &json!({})).await;
    assert!(refused.text().contains("the approval 'ok'"), "{}", refused.text());
    let plain = "name: plain\nsteps:\n  - {name: call, job: {name: inner, parameters: {env: dev}}}\n";
    let execution = run(&api, plain).await;
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
}
