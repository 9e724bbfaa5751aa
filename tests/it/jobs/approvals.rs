//! Approvals: a job goes on when as many people as it asks for have said so, and not before, whatever the tables say.

use model::{
    Reason, api::approval::ApprovalRequest, execution::ExecutionState, id::ExecutionId, run::RunState,
};
use opsconductor_tests::{Api, SOON, World, eventually};
use serde_json::{Value, json};

use super::{agents, diary, execute, hosts_are, results, save, states, step, written};

/// A job that asks before its second step.
fn asking(world: &World, approval: &str) -> String {
    format!(
        "name: ask\ntargets: {{all: true}}\nsteps:\n{}  - {{name: sign-off, approval: {approval}}}\n{}{}",
        step(world, "before", ""),
        step(world, "after", ""),
        step(world, "tidy", "\n    always: true"),
    )
}

pub(super) async fn asked(api: &Api, id: ExecutionId) -> ApprovalRequest {
    let path = format!("/api/v1/executions/{id}/approvals");
    eventually(SOON, "somebody is asked", async || {
        let mut asked: Vec<ApprovalRequest> = api.get(&path).await.accepted().json();
        assert_eq!(asked.len(), 1);
        asked.pop().filter(|asked| asked.state != RunState::Blocked)
    })
    .await
}

pub(super) fn decision(asked: &ApprovalRequest, decision: &str) -> (String, Value) {
    let path = format!("/api/v1/executions/{}/approvals/{}", asked.execution_id, asked.step);
    (path, json!({ "decision": decision, "hash": asked.hash, "reason": "it is fine" }))
}

#[tokio::test]
async fn it_goes_on_when_two_others_say_so() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let operator = world.person("olga", Some("author")).await;
    let (ada, bob) =
        (world.person("ada", Some("approver")).await, world.person("bob", Some("approver")).await);
    let document = asking(
        &world,
        "{count: 2, message: 'go on?', input: {ticket: {type: string, required: true, pattern: 'OPS-[0-9]+'}}}",
    );
    save(&operator, &document).await;
    let execution = execute(&operator, "ask", json!({})).await;
    let before = asked(&ada, execution.id).await;
    assert_eq!((before.hosts, before.asks.count(), before.actor.as_str()), (2, 2, "olga"));
    let waiting = ada.get("/api/v1/approvals").await.accepted().value();
    assert_eq!(waiting["items"][0]["execution_id"], json!(execution.id));

    // Who started it has no say, nor who may not; and nothing else is approved than what was looked at.
    let (path, mut yes) = decision(&before, "approve");
    operator.post(&path, &yes).await.refused(403, "forbidden");
    ada.post(&path, &yes).await.refused(400, "invalid");
    yes["input"] = json!({ "ticket": "nonsense" });
    ada.post(&path, &yes).await.refused(400, "invalid");
    yes["input"] = json!({ "ticket": "OPS-7" });
    let mut other = yes.clone();
    other["hash"] = json!("00");
    ada.post(&path, &other).await.refused(409, "conflict");
    let first: ApprovalRequest = ada.post(&path, &yes).await.accepted().json();
    assert_eq!((first.decisions.len(), first.decisions[0].input["ticket"].as_str()), (1, Some("OPS-7")));
    ada.post(&path, &yes).await.refused(409, "conflict");
    assert_eq!(written(&world).iter().filter(|line| line.starts_with("after")).count(), 0);

    bob.post(&path, &yes).await.accepted();
    let finished = ada.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded);
    let after = results(&ada, &execution).await;
    assert_eq!(
        states(&after),
        ["one: succeeded - succeeded succeeded", "two: succeeded - succeeded succeeded"]
    );
    let own = after.controller[1].as_ref().expect("a run");
    assert_eq!((own.state, own.reason), (RunState::Succeeded, Some(Reason::Approved)));
    bob.post(&path, &yes).await.refused(409, "conflict");
    let audit = world.api().get("/api/v1/audit?verb=approval.approve").await.accepted().value();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(2), "{audit}");
    let events = world.api().get("/api/v1/events?kind=approval.*").await.accepted().value();
    let kinds: Vec<&str> = events["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|event| event["kind"].as_str())
        .collect();
    for kind in ["approval.asked", "approval.approved"] {
        assert!(kinds.contains(&kind), "{events}");
    }
}

#[tokio::test]
async fn a_rejection_ends_it_for_all_hosts() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let ada = world.person("ada", Some("approver")).await;
    save(&world.api(), &asking(&world, "{count: 3}")).await;
    let execution = execute(&world.api(), "ask", json!({})).await;
    let (path, mut no) = decision(&asked(&ada, execution.id).await, "reject");
    no["reason"] = json!(" ");
    ada.post(&path, &no).await.refused(400, "invalid");
    no["reason"] = json!("not today");
    ada.post(&path, &no).await.accepted();
    let finished = ada.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::PartiallySucceeded);
    let after = results(&ada, &execution).await;
    assert_eq!(states(&after), ["one: succeeded - skipped succeeded"], "what runs always does");
    assert_eq!(after.controller[1].as_ref().expect("a run").reason, Some(Reason::Rejected));
    let shown = world.opsctl(&["execution", "show", &execution.id.to_string()]).await.ended(0).text();
    assert!(shown.contains("ada rejected it: not today"), "{shown}");
}

#[tokio::test]
async fn nobody_decides_in_time() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let document = "name: late\ntargets: {all: true}\nsteps:\n  - {name: sign-off, approval: {expires: 1s}}\n  \
                    - {name: b, run: 'true'}\n";
    save(&world.api(), document).await;
    let execution = execute(&world.api(), "late", json!({})).await;
    let finished = world.api().finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::TimedOut);
    let after = results(&world.api(), &execution).await;
    assert_eq!(after.controller[0].as_ref().expect("a run").reason, Some(Reason::ApprovalExpired));
    hosts_are(&world.api(), &execution, &["skipped"]).await;
}

#[tokio::test]
async fn approvers_are_those_of_a_role_or_a_group_and_the_glass_can_be_broken() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let (ada, bob) =
        (world.person("ada", Some("approver")).await, world.person("bob", Some("approver")).await);
    let admin = world.administrator().await;
    admin.post("/api/v1/groups", &json!({ "name": "night-watch" })).await.accepted();
    admin.put("/api/v1/groups/night-watch/members/bob", &json!({})).await.accepted();
    save(&admin, &asking(&world, "{groups: [night-watch], roles: [auditor]}")).await;
    let execution = execute(&admin, "ask", json!({})).await;
    let (path, yes) = decision(&asked(&ada, execution.id).await, "approve");
    ada.post(&path, &yes).await.refused(403, "forbidden");
    bob.post(&path, &yes).await.accepted();
    let finished = ada.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded);

    // The administrator started it, and breaks the glass; an approver may not.
    let execution = execute(&admin, "ask", json!({})).await;
    let (path, broken) = decision(&asked(&ada, execution.id).await, "break_glass");
    ada.post(&path, &broken).await.refused(403, "forbidden");
    let id = execution.id.to_string();
    let shown = world.opsctl(&["approval", "show", &id]).await.ended(0).text();
    assert!(shown.contains("asks for an approval of auditor, night-watch"), "{shown}");
    let listed = world.opsctl(&["approval", "list"]).await.ended(0).text();
    assert!(listed.contains(&id) && listed.contains("0 of 1"), "{listed}");
    let why = "nobody of the night watch is awake";
    let said = world.opsctl(&["approval", "break-glass", &id, "--reason", why]).await.ended(0).text();
    assert!(said.contains("the audit says so"), "{said}");
    let finished = ada.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded);
    let after = results(&ada, &execution).await;
    assert_eq!(after.controller[1].as_ref().expect("a run").reason, Some(Reason::BrokenGlass));
    let audit = admin.get("/api/v1/audit?verb=approval.break_glass").await.accepted().value();
    assert_eq!(
        audit["items"][0]["entry"]["detail"]["reason"],
        json!("nobody of the night watch is awake"),
        "{audit}"
    );
}

#[tokio::test]
async fn an_abort_ends_what_waits_before_all_hosts() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let document = "name: first\ntargets: {all: true}\nsteps:\n  - {name: sign-off, approval: {}}\n  \
                    - {name: b, run: 'true'}\n";
    save(&api, document).await;
    let execution = execute(&api, "first", json!({})).await;
    asked(&api, execution.id).await;
    api.act(&format!("/api/v1/executions/{}/abort", execution.id)).await.accepted();
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Cancelled);
    hosts_are(&api, &execution, &["skipped"]).await;
}

#[tokio::test]
async fn an_approval_that_asks_nobody_leaves_the_next_one_to_be_asked() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let document = "name: two\ntargets: {all: true}\nparameters: {vip: {type: boolean, default: false}}\nsteps:\n  \
                    - {name: vip, approval: {}, if: params.vip}\n  - {name: ok, approval: {}}\n  \
                    - {name: b, run: 'true'}\n";
    save(&api, document).await;
    let execution = execute(&api, "two", json!({})).await;
    let ada = world.person("ada", Some("approver")).await;
    let path = format!("/api/v1/executions/{}/approvals", execution.id);
    let waits = eventually(SOON, "the second one is asked", async || {
        let asked: Vec<ApprovalRequest> = ada.get(&path).await.accepted().json();
        asked.into_iter().find(|asked| asked.step == "ok" && asked.state == RunState::Active)
    })
    .await;
    let (path, yes) = decision(&waits, "approve");
    ada.post(&path, &yes).await.accepted();
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(states(&results(&api, &execution).await), ["one: - - succeeded"]);
}

#[tokio::test]
async fn one_decision_counts_once_however_often_it_stands_in_the_tables() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    save(&api, &asking(&world, "{count: 2}")).await;
    let execution = execute(&api, "ask", json!({})).await;
    let ada = world.person("ada", Some("approver")).await;
    let (path, yes) = decision(&asked(&ada, execution.id).await, "approve");
    ada.post(&path, &yes).await.accepted();
    let mut database = world.sql().await;
    sqlx::query(
        "insert into approval_decisions select execution_id, step, 'user/another', org_id, decided_at, signed, signature, \
         certificate from approval_decisions",
    )
    .execute(&mut database)
    .await
    .expect("the owner may");
    let again = asked(&ada, execution.id).await;
    assert_eq!((again.state, again.decisions.len()), (RunState::Active, 1));
    let bob = world.person("bob", Some("approver")).await;
    bob.post(&path, &yes).await.accepted();
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
}

#[tokio::test]
async fn who_writes_the_tables_does_not_get_around_it() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    save(&world.api(), &asking(&world, "{}")).await;
    let execution = execute(&world.api(), "ask", json!({})).await;
    asked(&world.api(), execution.id).await;
    let mut database = world.sql().await;
    let id = execution.id.to_string();
    // Its run and the one behind it as if all had been approved.
    for (step, state) in [(1, "succeeded"), (2, "queued")] {
        let statement = format!(
            "update runs set state = '{state}', due_at = now(), start_before = now() + interval '1 hour', reason = 'approved' \
             where execution_id = '{id}' and step = {step}"
        );
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut database).await.expect("the owner may");
    }
    let run = eventually(SOON, "the run is refused", async || {
        let runs = world.api().runs(&id).await;
        runs.into_iter().find(|run| run.step_name.as_deref() == Some("after") && run.state.is_terminal())
    })
    .await;
    assert_eq!((run.state, run.reason), (RunState::Failed, Some(Reason::ManifestMismatch)));
    assert!(!written(&world).iter().any(|line| line.starts_with("after")), "{:?}", diary(&world));
}

#[tokio::test]
async fn what_is_dangerous_needs_one_or_is_refused_where_the_policy_says_so() {
    let world = World::builder().prepare();
    world.configure("\n[safety]\ndanger = 'approval'\ncatastrophe = 'refuse'\n");
    world.start_controller().await;
    world.set_up().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let erase = "name: erase\ntargets: {all: true}\nsteps: [{name: a, run: 'rm -rf /'}]\n";
    api.post("/api/v1/jobs", &json!({ "document": erase })).await.refused(409, "conflict");
    let exec =
        |line: &str| json!({ "targets": { "all": true }, "command": { "program": { "shell": line } } });
    api.post("/api/v1/executions", &exec("rm -rf /")).await.refused(409, "conflict");
    let marker = world.folder().join("marker");
    let dangerous = format!("touch {}; false && chmod 777 /root", marker.display());
    api.post("/api/v1/executions", &exec(&dangerous)).await.refused(409, "conflict");
    let document = |more: &str| {
        format!("name: risky\ntargets: {{all: true}}\nsteps:\n{more}  - {{name: a, run: '{dangerous}'}}\n")
    };
    save(&api, &document("")).await;
    let execution = execute(&api, "risky", json!({})).await;
    let ada = world.person("ada", Some("approver")).await;
    let waits = asked(&ada, execution.id).await;
    assert!(waits.step == "approval" && waits.asks.message.contains("dangerous"), "{:?}", waits.asks);
    assert!(!marker.exists());
    let (path, yes) = decision(&waits, "approve");
    ada.post(&path, &yes).await.accepted();
    ada.finished(execution.id).await;
    assert!(marker.exists());
    // One that asks already asks once.
    api.put("/api/v1/jobs/risky", &json!({ "document": document("  - {name: own, approval: {}}\n") }))
        .await
        .accepted();
    let execution = execute(&api, "risky", json!({})).await;
    assert_eq!(asked(&ada, execution.id).await.step, "own");
}

#[tokio::test]
async fn who_breaks_the_glass_says_what_is_asked_for() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let ada = world.person("ada", Some("administrator")).await;
    save(
        &world.api(),
        &asking(&world, "{input: {ticket: {type: string, required: true}, n: {type: integer}}}"),
    )
    .await;
    let execution = execute(&world.api(), "ask", json!({})).await;
    let (path, mut broken) = decision(&asked(&ada, execution.id).await, "break_glass");
    ada.post(&path, &broken).await.refused(400, "invalid");
    broken["input"] = json!({ "ticket": "OPS-7", "other": "x" });
    ada.post(&path, &broken).await.refused(400, "invalid");
    let id = execution.id.to_string();
    let said = world
        .opsctl(&["approval", "break-glass", &id, "--reason", "now", "-i", "ticket=OPS-7", "-i", "n=3"])
        .await;
    said.ended(0);
    let finished = ada.finished(execution.id).await;
    let run = finished.runs.iter().find(|run| run.step_name.as_deref() == Some("sign-off")).expect("a run");
    assert_eq!((&run.outputs["ticket"], &run.outputs["n"]), (&json!("OPS-7"), &json!(3)));
}

#[tokio::test]
async fn a_role_that_is_not_there_is_told_and_refused() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let inner = asking(&world, "{roles: [approver, night-watch]}");
    save(&api, &inner).await;
    save(&api, "name: outer\ntargets: {all: true}\nsteps:\n  - {name: call, job: {name: ask}}\n").await;
    for job in ["ask", "outer"] {
        let told = world.opsctl(&["job", "plan", job]).await.ended(0).text();
        let want = "warning: the approval 'sign-off' of the job 'ask' is for the role 'night-watch', and there is no such role";
        assert!(told.contains(want), "{told}");
        api.post(&format!("/api/v1/jobs/{job}/execute"), &json!({})).await.refused(409, "conflict");
    }
    api.put("/api/v1/roles/night-watch", &json!({ "permissions": ["approval.decide"] })).await.accepted();
    let told = world.opsctl(&["job", "plan", "outer"]).await.ended(0).text();
    assert!(!told.contains("warning"), "{told}");
    execute(&api, "outer", json!({})).await;
}
