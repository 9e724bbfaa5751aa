//! Jobs on real agents: what a step waits for, what a failure means, whose turn it is; versions and who may change them.

mod approvals;
mod canaries;
mod commands;
mod examples;
mod groups;
mod imports;
mod locks;
mod requests;
mod retries;
mod rollouts;
mod scripts;
mod started;
mod target_groups;
mod templates;
mod undo;
mod values;
mod versions;

use std::path::PathBuf;

use model::{
    Reason,
    api::{
        execution::Execution,
        job::{OutputGroup, Results},
    },
    execution::ExecutionState,
    run::RunState,
};
use opsconductor_tests::{Agent, Api, SOON, World, eventually, opsctl::Said};
use serde_json::{Value, json};

/// Agents of these names, all online.
async fn agents(world: &World, names: &[&str]) -> Vec<Agent> {
    let mut agents = Vec::new();
    for name in names {
        agents.push(world.agent(name).start().await);
    }
    agents
}

/// Saves the job, and answers its name.
async fn save(api: &Api, document: &str) -> String {
    let saved = api.post("/api/v1/jobs", &json!({ "document": document })).await.accepted().value();
    saved["name"].as_str().expect("a name").to_owned()
}

async fn execute(api: &Api, job: &str, request: Value) -> Execution {
    api.post(&format!("/api/v1/jobs/{job}/execute"), &request).await.accepted().json()
}

/// Saves the job and starts it.
async fn run(api: &Api, document: &str) -> Execution {
    let job = save(api, document).await;
    execute(api, &job, json!({})).await
}

async fn results(api: &Api, execution: &Execution) -> Results {
    api.get(&format!("/api/v1/executions/{}/results", execution.id)).await.accepted().json()
}

/// The states of each host's steps, as `host: state state …`, in the order of their turns.
fn states(results: &Results) -> Vec<String> {
    let cell = |run: &Option<model::api::job::Cell>| run.as_ref().map_or("-", |cell| cell.state.as_str());
    let rows = results.hosts.iter();
    rows.map(|row| format!("{}: {}", row.target, row.runs.iter().map(cell).collect::<Vec<_>>().join(" ")))
        .collect()
}

/// What `opsctl` says to a line of words.
async fn types(world: &World, line: &str) -> Said {
    let words: Vec<&str> = line.split(' ').collect();
    world.opsctl(&words).await
}

/// Waits until the hosts stand so, in the order of their turns.
async fn hosts_are(api: &Api, execution: &Execution, want: &[&str]) {
    eventually(SOON, &format!("the hosts are {want:?}"), async || {
        let results = results(api, execution).await;
        let now: Vec<&str> = results.hosts.iter().map(|host| host.state.as_str()).collect();
        (now == want).then_some(())
    })
    .await;
}

/// A file of the World into which steps write what they did.
fn diary(world: &World) -> PathBuf {
    world.folder().join("diary")
}

fn written(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(diary(world)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A step that writes its name and its host's into the diary.
fn step(world: &World, name: &str, more: &str) -> String {
    let diary = diary(world);
    format!("  - name: {name}\n    run: echo {name} >> {}{more}\n", diary.display())
}

#[tokio::test]
async fn steps_run_in_their_order_on_each_host() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let steps = ["first", "second", "third"].map(|name| step(&world, name, "")).concat();
    let execution = run(&api, &format!("name: plain\ntargets: {{all: true}}\nsteps:\n{steps}")).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded);
    assert_eq!(
        finished.execution.job.as_ref().map(|job| (job.name.as_str(), job.version)),
        Some(("plain", 1))
    );
    let results = results(&api, &execution).await;
    assert_eq!(
        states(&results),
        ["one: succeeded succeeded succeeded", "two: succeeded succeeded succeeded"]
    );
    let names: Vec<&str> = finished.runs.iter().filter_map(|run| run.step_name.as_deref()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    let written = written(&world);
    assert_eq!(written.len(), 6, "{written:?}");
    assert_eq!(written.iter().filter(|line| *line == "first").count(), 2);
    assert_eq!((written[0].as_str(), written[5].as_str()), ("first", "third"), "{written:?}");
    for row in &results.hosts {
        let cells: Vec<_> = row.runs.iter().flatten().collect();
        assert!(cells.windows(2).all(|pair| pair[0].ended_at <= pair[1].started_at), "{cells:?}");
    }
}

#[tokio::test]
async fn a_plan_shows_who_takes_nothing_new() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    save(&world.api(), "name: p\ntargets: {all: true}\nsteps: [{name: a, run: 'true'}]\n").await;
    world.opsctl(&["agent", "drain", "two"]).await.ended(0);
    let plan = types(&world, "job plan p").await.ended(0).text();
    let connected = |host: &str| {
        let mut rows = plan.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.find(|row| row.get(1) == Some(&host)).and_then(|row| row.get(2).copied().map(str::to_owned))
    };
    assert_eq!(connected("one").as_deref(), Some("yes"), "{plan}");
    assert_eq!(connected("two").as_deref(), Some("draining"), "{plan}");
}

#[tokio::test]
async fn the_last_lines_of_one_step() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let document = "name: lines\ntargets: {all: true}\nsteps:\n  - {name: a, run: 'seq 1 5'}\n  - {name: b, run: 'seq 11 15'}\n";
    let execution = run(&api, document).await;
    api.whole(execution.id).await;
    let id = execution.id.to_string();
    let told = world.opsctl(&["logs", &id, "--step", "a", "-t", "one", "--tail", "2"]).await.ended(0).text();
    let lines: Vec<&str> = told.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(lines, ["4", "5"], "{told}");
    let told = world.opsctl(&["logs", &id, "--group", "--step", "b", "--tail", "1"]).await.ended(0).text();
    assert!(told.contains("15") && !told.contains("14") && !told.contains("5\n4"), "{told}");
    for more in [&[][..], &["--step", "a"], &["--tail", "1"]] {
        let words = [&["logs", id.as_str(), "-t", "nosuch"][..], more].concat();
        let said = world.opsctl(&words).await.ended(5);
        assert!(said.stderr.contains("has no target 'nosuch'"), "{said}");
    }
}

#[tokio::test]
async fn hosts_with_the_same_output_are_one_group() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two", "three"]).await;
    let api = world.api();
    let claim = world.folder().join("claim");
    // One of them alone can make the folder.
    let run_line =
        format!("if mkdir '{}' 2>/dev/null; then echo odd; exit 4; fi; echo same", claim.display());
    let execution =
        run(&api, &format!("name: g\ntargets: {{all: true}}\nsteps: [{{name: a, run: \"{run_line}\"}}]\n"))
            .await;
    api.whole(execution.id).await;
    let groups: Vec<OutputGroup> =
        api.get(&format!("/api/v1/executions/{}/groups", execution.id)).await.accepted().json();
    let shown: Vec<(i64, Option<i32>, usize)> =
        groups.iter().map(|group| (group.hosts, group.exit_code, group.targets.len())).collect();
    assert_eq!(shown, [(2, Some(0), 2), (1, Some(4), 1)], "{groups:?}");
    assert_ne!(groups[0].stdout_sha256, groups[1].stdout_sha256);
    assert_eq!(groups[0].step_name.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_failure_stops_its_host_and_what_runs_always_runs() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let steps = [
        step(&world, "first", ""),
        "  - {name: shrug, run: exit 1, on_failure: continue}\n".to_owned(),
        step(&world, "second", ""),
        "  - {name: breaks, run: exit 3}\n".to_owned(),
        step(&world, "after", ""),
        step(&world, "clean", "\n    always: true"),
    ]
    .concat();
    let execution = run(&api, &format!("name: one\ntargets: {{all: true}}\nsteps:\n{steps}")).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::PartiallySucceeded, "{:?}", finished.runs);
    let results = results(&api, &execution).await;
    assert_eq!(states(&results), ["one: succeeded failed succeeded failed skipped succeeded"]);
    let skipped = results.hosts[0].runs[4].as_ref().expect("a run");
    assert_eq!(skipped.reason, Some(Reason::HostStopped));
    hosts_are(&api, &execution, &["failed"]).await;
    assert_eq!(written(&world), ["first", "second", "clean"]);
}

#[tokio::test]
async fn a_rollback_undoes_and_only_where_it_must() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let undo = format!("rollback:\n{}{}", step(&world, "undo-a", ""), step(&world, "undo-b", ""));
    let breaks = "  - {name: breaks, run: exit 7, on_failure: rollback}\n";
    let job = |name: &str, breaks: &str| {
        format!("name: {name}\ntargets: {{all: true}}\nsteps:\n{}{breaks}{undo}", step(&world, "do", ""))
    };
    let execution = run(&api, &job("undone", breaks)).await;
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::PartiallySucceeded);
    assert_eq!(written(&world), ["do", "undo-a", "undo-b"]);
    std::fs::remove_file(diary(&world)).expect("a diary");
    let execution = run(&api, &job("kept", "  - {name: works, run: 'true', on_failure: rollback}\n")).await;
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(states(&results(&api, &execution).await), ["one: succeeded succeeded skipped skipped"]);
    assert_eq!(written(&world), ["do"]);
}

#[tokio::test]
async fn the_controller_waits_between_steps_and_orders_them() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two", "three"]).await;
    let api = world.api();
    let wait = "  - {name: rest, wait: 2s}\n";
    let document = |order: &str, name: &str| {
        format!(
            "name: {name}\norder: {order}\ntargets: {{all: true}}\nsteps:\n{}{wait}{}",
            step(&world, "before", ""),
            step(&world, "behind", "")
        )
    };
    for (order, name) in [("host", "by-host"), ("step", "by-step")] {
        let _ = std::fs::remove_file(diary(&world));
        let execution = run(&api, &document(order, name)).await;
        let finished = api.finished(execution.id).await;
        assert_eq!(finished.execution.state, ExecutionState::Succeeded);
        let written = written(&world);
        assert_eq!(written, ["before", "before", "before", "behind", "behind", "behind"], "{order}");
        let results = results(&api, &execution).await;
        let rest = results.controller[1].as_ref().expect("the wait");
        assert_eq!((rest.state, rest.reason), (RunState::Succeeded, Some(Reason::Done)));
        let (begun, ended) = (rest.started_at.expect("begun"), rest.ended_at.expect("ended"));
        assert!(ended.duration_since(begun).as_secs() >= 2, "{rest:?}");
        for row in &results.hosts {
            let [Some(before), None, Some(behind)] = row.runs.as_slice() else { panic!("{row:?}") };
            assert!(before.ended_at <= Some(begun) && behind.started_at >= Some(ended), "{row:?}");
        }
    }
}

#[tokio::test]
async fn a_cancel_ends_what_runs_and_what_waits() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let steps = format!(
        "{}  - {{name: long, run: sleep 600}}\n{}",
        step(&world, "first", ""),
        step(&world, "never", "")
    );
    let execution = run(&api, &format!("name: long\ntargets: {{all: true}}\nsteps:\n{steps}")).await;
    eventually(SOON, "the long step runs", async || {
        let results = results(&api, &execution).await;
        let cell = results.hosts.first()?.runs[1].clone()?;
        (cell.state == RunState::Active && cell.started_at.is_some()).then_some(())
    })
    .await;
    api.act(&format!("/api/v1/executions/{}/cancel", execution.id)).await.accepted();
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::PartiallySucceeded);
    assert_eq!(states(&results(&api, &execution).await), ["one: succeeded cancelled cancelled"]);
    // So does a wait of the controller's own.
    let execution = run(
        &api,
        "name: waits\ntargets: {all: true}\nsteps:\n  - {name: rest, wait: 1h}\n  - {name: a, run: 'true'}\n",
    )
    .await;
    eventually(SOON, "the wait has begun", async || {
        let results = results(&api, &execution).await;
        (results.controller[0].as_ref()?.state == RunState::Active).then_some(())
    })
    .await;
    api.act(&format!("/api/v1/executions/{}/cancel", execution.id)).await.accepted();
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Cancelled);
}

#[tokio::test]
async fn a_controller_that_is_killed_goes_on_where_it_was() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let steps: String = (0..12).map(|n| step(&world, &format!("s{n}"), "; sleep 0.2")).collect();
    let execution = run(&api, &format!("name: many\ntargets: {{all: true}}\nsteps:\n{steps}")).await;
    for reached in [3, 9, 15] {
        eventually(SOON, "the job goes on", async || (written(&world).len() >= reached).then_some(())).await;
        world.kill_controller();
        world.start_controller().await;
    }
    let finished = api.finished(execution.id).await;
    assert_eq!(
        finished.execution.state,
        ExecutionState::Succeeded,
        "{:?}",
        states(&results(&api, &execution).await)
    );
    let mut written = written(&world);
    written.sort();
    let mut want: Vec<String> = (0..12).flat_map(|n| [format!("s{n}"), format!("s{n}")]).collect();
    want.sort();
    assert_eq!(written, want, "each step once on each host");
}

#[tokio::test]
async fn a_plan_that_somebody_edits_starts_nothing() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let steps = format!("  - {{name: rest, wait: 3s}}\n{}", step(&world, "do", ""));
    let execution = run(&api, &format!("name: edited\ntargets: {{all: true}}\nsteps:\n{steps}")).await;
    let mut database = world.sql().await;
    let evil = json!({ "shell": format!("echo evil >> {}", diary(&world).display()) });
    sqlx::query(
        "update executions set plan = jsonb_set(plan, '{steps,1,work,command,program}', $2) where id = $1",
    )
    .bind(execution.id.0)
    .bind(evil)
    .execute(&mut database)
    .await
    .expect("the plan is edited");
    // Who has verified it already goes by what was signed; who comes anew refuses it.
    world.kill_controller();
    world.start_controller().await;
    let finished = api.finished(execution.id).await;
    assert_ne!(finished.execution.state, ExecutionState::Succeeded);
    assert!(written(&world).is_empty(), "{:?}", written(&world));
    assert!(finished.runs.iter().any(|run| run.reason == Some(Reason::ManifestMismatch)), "{finished:?}");
}
