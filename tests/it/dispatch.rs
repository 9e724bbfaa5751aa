//! Dispatch: rows command no host, queues move, and a request that is repeated starts nothing twice.

use std::path::Path;

use model::{
    Reason,
    execution::ExecutionState,
    label::{Facts, Labels},
    run::RunState,
    selector::Selector,
};
use opsconductor_tests::{Agent, SOON, World, eventually};
use serde_json::json;
use sqlx::{PgConnection, Row};

/// A World with an agent that is not there, and a file that whatever is run would leave.
async fn absent() -> (World, Agent, String) {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    agent.stop();
    agent.is("offline").await;
    let marker = world.folder().join("ran").display().to_string();
    (world, agent, marker)
}

/// Checks that the only run of the execution was refused, audited, and never started.
async fn refused(world: &World, id: impl ToString, marker: &str) {
    let id = id.to_string();
    let finished = world.api().finished(&id).await;
    for run in finished.runs.iter().filter(|run| run.state != RunState::Succeeded) {
        assert_eq!((run.state, run.reason), (RunState::Failed, Some(Reason::ManifestMismatch)), "{run:?}");
        let audited = sqlx::query(
            "select count(*) from audit_entries where verb = 'run.manifest_mismatch' and object = $1",
        )
        .bind(format!("run/{}", run.id))
        .fetch_one(&mut world.sql().await)
        .await
        .expect("the owner may");
        assert_eq!(audited.get::<i64, _>(0), 1);
    }
    assert!(finished.runs.iter().any(|run| run.reason == Some(Reason::ManifestMismatch)), "{finished:?}");
    assert!(!Path::new(marker).exists(), "it was run");
}

async fn execute(connection: &mut PgConnection, sql: &'static str, id: uuid::Uuid) {
    let done = sqlx::query(sql).bind(id).execute(connection).await.expect("the owner may");
    assert_eq!(done.rows_affected(), 1);
}

#[tokio::test]
async fn an_edited_command_is_not_run() {
    let (world, mut agent, marker) = absent().await;
    let execution = world.api().start_shell("one", "true").await;
    sqlx::query("update executions set command = jsonb_set(command, '{program,shell}', to_jsonb($2::text)) where id = $1")
        .bind(execution.id.0)
        .bind(format!("touch '{marker}'"))
        .execute(&mut world.sql().await)
        .await
        .expect("the owner may");
    agent.run();
    refused(&world, execution.id, &marker).await;
}

#[tokio::test]
async fn a_run_that_was_given_to_another_agent_is_not_run() {
    let (world, mut agent, marker) = absent().await;
    let other = world.agent("other").start().await;
    let execution = world.api().start_shell("one", &format!("touch '{marker}'")).await;
    sqlx::query(
        "update runs set agent_id = (select id from agents where name = 'other') where execution_id = $1",
    )
    .bind(execution.id.0)
    .execute(&mut world.sql().await)
    .await
    .expect("the owner may");
    agent.run();
    refused(&world, execution.id, &marker).await;
    drop(other);
}

#[tokio::test]
async fn a_run_that_was_inserted_is_not_run() {
    let (world, mut agent, marker) = absent().await;
    let execution = world.api().start_shell("one", &format!("echo >> '{marker}'")).await;
    let mut sql = world.sql().await;
    execute(
        &mut sql,
        "insert into runs (execution_id, id, org_id, agent_id, target, state, queued_at, due_at, start_before)
         select execution_id, gen_random_uuid(), org_id, agent_id, target, state, queued_at, due_at, start_before
         from runs where execution_id = $1",
        execution.id.0,
    )
    .await;
    execute(&mut sql, "update executions set runs_total = 2, runs_waiting = 2 where id = $1", execution.id.0)
        .await;
    agent.run();
    // With a run more than was authorised, none of them is what was authorised.
    refused(&world, execution.id, &marker).await;
}

#[tokio::test]
async fn a_whole_execution_that_was_copied_is_not_run() {
    let (world, mut agent, marker) = absent().await;
    let original = world.api().start_shell("one", &format!("echo >> '{marker}'")).await;
    let mut sql = world.sql().await;
    let copy = model::id::uuid_v7(opsconductor_tests::clock::now(), pki::random());
    for statement in [
        "insert into executions (id, org_id, summary, command, actor, request_id, created_at, start_before, ended_at,
             cancel_requested_at, state, manifest, manifest_signature, manifest_certificate, runs_total, runs_waiting)
             select ($1::uuid), org_id, summary, command, actor, request_id, created_at, start_before,
             ended_at, cancel_requested_at, state, manifest, manifest_signature, manifest_certificate, runs_total,
             runs_waiting from executions limit 1",
        "insert into output_positions values ($1)",
        "insert into runs (execution_id, id, org_id, agent_id, target, state, queued_at, due_at, start_before)
             select $1, id, org_id, agent_id, target, state, queued_at, due_at, start_before from runs limit 1",
    ] {
        execute(&mut sql, statement, copy).await;
    }
    world.api().act(&format!("/api/v1/executions/{}/cancel", original.id)).await.accepted();
    agent.run();
    refused(&world, copy, &marker).await;
}

/// Checks that the only run of the execution was refused and audited, and that the host began `began` runs.
async fn refused_again(world: &World, id: impl ToString, marker: &str, began: usize) {
    let id = id.to_string();
    eventually(SOON, "the run is refused", async || {
        let run = world.api().runs(&id).await.remove(0);
        (run.reason == Some(Reason::ManifestMismatch)).then_some(())
    })
    .await;
    let audited = sqlx::query("select count(*) from audit_entries where verb = 'run.manifest_mismatch'")
        .fetch_one(&mut world.sql().await)
        .await
        .expect("the owner may");
    assert_eq!(audited.get::<i64, _>(0), 1);
    let marks = std::fs::read_to_string(marker).unwrap_or_default();
    assert_eq!(marks.lines().count(), began);
}

#[tokio::test]
async fn a_run_whose_attempts_were_edited_is_not_run() {
    for statement in [
        "update runs set attempt = 5 where execution_id = $1",
        "insert into attempts (execution_id, run_id, number, org_id, agent_id, state, fence, epoch, offered_at, deadline)
         select execution_id, id, 1, org_id, agent_id, 'withdrawn', 1, 1, now(), now() from runs where execution_id = $1",
        "insert into attempts (execution_id, run_id, number, org_id, agent_id, state, fence, epoch, offered_at, deadline)
         select execution_id, id, 1, org_id, agent_id, 'offered', 1, 1, now(), now() from runs where execution_id = $1",
    ] {
        let (world, mut agent, marker) = absent().await;
        let execution = world.api().start_shell("one", &format!("echo >> '{marker}'")).await;
        execute(&mut world.sql().await, statement, execution.id.0).await;
        agent.run();
        refused_again(&world, execution.id, &marker, 0).await;
        // Others are not held up by it.
        assert_eq!(world.api().shell("one", "true").await.run().state, RunState::Succeeded, "{statement}");
    }
}

#[tokio::test]
async fn a_start_that_was_put_off_by_hand_does_not_happen() {
    let (world, mut agent, marker) = absent().await;
    let body = json!({
        "targets": { "names": ["one"] }, "command": { "program": { "shell": format!("echo >> '{marker}'") } },
        "start_within_seconds": 1,
    });
    let id = world.api().post("/api/v1/executions", &body).await.accepted().value()["id"].clone();
    let id: uuid::Uuid = id.as_str().and_then(|id| id.parse().ok()).expect("an id");
    let later = "update runs set start_before = now() + interval '1 day' where execution_id = $1";
    execute(&mut world.sql().await, later, id).await;
    eventually(SOON, "its time is over", async || {
        let over = sqlx::query_scalar::<_, bool>("select start_before < now() from executions where id = $1");
        over.bind(id).fetch_one(&mut world.sql().await).await.expect("the owner may").then_some(())
    })
    .await;
    agent.run();
    refused_again(&world, id, &marker, 0).await;
}

/// A run that has ended is put back into the queue, with whatever else would make that look right.
#[tokio::test]
async fn a_run_that_was_put_back_is_not_run_again() {
    const BACK: &str = "update runs set state = 'queued', ended_at = null, due_at = now(),
        start_before = now() + interval '1 day' where execution_id = $1";
    const RETRY: &str =
        "update executions set command = command || '{\"idempotent\": true, \"retry\": {\"attempts\": 9,
        \"backoff_seconds\": 1, \"max_backoff_seconds\": 1}}' where id = $1";
    for (exit, policy, restart) in [(0, false, false), (1, false, false), (1, true, false), (1, true, true)] {
        let world = World::start().await;
        let _agent = world.agent("one").start().await;
        let marker = world.folder().join("ran").display().to_string();
        let finished = world.api().shell("one", &format!("echo >> '{marker}'; exit {exit}")).await;
        let mut sql = world.sql().await;
        if policy {
            execute(&mut sql, RETRY, finished.execution.id.0).await;
        }
        if restart {
            // What was verified before is not remembered.
            world.kill_controller();
            world.start_controller().await;
        }
        execute(&mut sql, BACK, finished.execution.id.0).await;
        refused_again(&world, finished.id(), &marker, 1).await;
    }
}

/// A policy that was written into the rows while the run was going on is none.
#[tokio::test]
async fn a_policy_that_nobody_signed_tries_nothing_again() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let marker = world.folder().join("ran").display().to_string();
    let gate = world.folder().join("gate");
    let line =
        format!("echo >> '{marker}'; while [ ! -e '{}' ]; do sleep 0.05; done; exit 1", gate.display());
    let execution = world.api().start_shell("one", &line).await;
    eventually(SOON, "it begins", async || Path::new(&marker).exists().then_some(())).await;
    let retry =
        "update executions set command = command || '{\"retry\": {\"attempts\": 9, \"backoff_seconds\": 1,
        \"max_backoff_seconds\": 1}}' where id = $1";
    execute(&mut world.sql().await, retry, execution.id.0).await;
    world.kill_controller();
    world.start_controller().await;
    std::fs::write(&gate, "").expect("the folder can be written");
    let finished = world.api().finished(execution.id).await;
    assert_eq!((finished.run().state, finished.run().attempt), (RunState::Failed, 1), "{finished:?}");
    assert_eq!(std::fs::read_to_string(&marker).expect("it ran").lines().count(), 1);
    agent.stop();
}

#[tokio::test]
async fn more_runs_than_slots_wait_and_all_finish() {
    let world = World::start().await;
    let _agent = world.agent("one").slots(2).start().await;
    let api = world.api();
    let busy = world.folder().join("busy");
    std::fs::create_dir(&busy).expect("the folder can be written");
    // Each tells how many run beside it.
    let line = format!("cd '{}'; mkdir $$; ls | wc -l; sleep 0.2; rmdir $$", busy.display());
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(api.start_shell("one", &line).await.id);
    }
    let mut most = 0;
    for id in ids {
        let finished = api.finished(id).await;
        assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
        most = most.max(api.stdout(&finished).await.trim().parse::<u32>().expect("a number"));
    }
    assert_eq!(most, 2, "runs at a time");
}

#[tokio::test]
async fn a_repeated_request_starts_nothing_twice() {
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let api = world.api();
    let marker = world.folder().join("ran").display().to_string();
    let body =
        |line: &str| json!({ "targets": { "names": ["one"] }, "command": { "program": { "shell": line } } });
    let line = format!("echo >> '{marker}'");
    let post = async |key: &str, body: &serde_json::Value| {
        let request = api.request(reqwest::Method::POST, "/api/v1/executions").header("Idempotency-Key", key);
        api.send(request.json(body)).await
    };
    // All at once, then once more.
    let bodies: Vec<_> = (0..8).map(|_| body(&line)).collect();
    let mut answers =
        futures_util::future::join_all(bodies.iter().map(|body| post("the-same-key", body))).await;
    answers.push(post("the-same-key", &body(&line)).await);
    let mut ids = std::collections::BTreeSet::new();
    for answer in answers {
        if answer.status != 409 {
            ids.insert(answer.accepted().value()["id"].as_str().expect("an id").to_owned());
        }
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    api.finished(ids.first().expect("there is one")).await;
    assert_eq!(std::fs::read_to_string(&marker).expect("it was run").lines().count(), 1);
    post("the-same-key", &body("false")).await.refused(422, "idempotency_key_reused");
    let problem = post("a key with spaces", &body("true")).await.refused(400, "invalid");
    assert_eq!(problem.field.as_deref(), Some("Idempotency-Key"));
    // A refused request does not use its key up.
    let nobody = json!({ "targets": { "names": ["nobody"] }, "command": { "program": { "shell": "true" } } });
    post("another-key", &nobody).await.refused(422, "no_targets");
    post("another-key", &body("true")).await.accepted();
}

/// What a repetition answers is what the first request did, whatever has become of the targets since.
#[tokio::test]
async fn a_repetition_does_not_depend_on_todays_targets() {
    let world = World::start().await;
    let api = world.api();
    let agent = world.agent("gone-soon").start().await;
    let body =
        json!({ "targets": { "names": ["gone-soon"] }, "command": { "program": { "shell": "true" } } });
    let post = async || {
        let request =
            api.request(reqwest::Method::POST, "/api/v1/executions").header("Idempotency-Key", "once");
        api.send(request.json(&body)).await.accepted().value()["id"].clone()
    };
    let first = post().await;
    api.finished(first.as_str().expect("an id")).await;
    let id = api.get("/api/v1/agents/gone-soon").await.accepted().value()["id"].clone();
    api.act(&format!("/api/v1/agents/{}/revoke", id.as_str().expect("an id"))).await.accepted();
    assert_eq!(post().await, first);
    drop(agent);
}

/// Numbers that are the same in every run of the test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("it fits") % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// A selector of at most `depth` levels.
    fn selector(&mut self, depth: usize) -> String {
        const KEYS: [&str; 6] = ["env", "role", "rank", "cpus", "os", "name"];
        const VALUES: [&str; 10] = ["prod", "dev", "web", "db", "4", "8", "-1.5", "linux", "'a b'", "''"];
        const PATTERNS: [&str; 6] = ["'.*'", "'pro?d'", "'(web|db)'", "'[0-9]+'", "'agent1.*'", "'a\\\\.b'"];
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => self.pick(&KEYS[..5]).to_owned(),
            1 => format!("{}{}{}", self.pick(&KEYS), self.pick(&["=", "!="]), self.pick(&VALUES)),
            2 => format!("{}{}{}", self.pick(&KEYS), self.pick(&["~", "!~"]), self.pick(&PATTERNS)),
            3 => format!(
                "{}{}{}",
                self.pick(&KEYS),
                self.pick(&["<", "<=", ">", ">="]),
                self.pick(&["4", "7.5", "-1"])
            ),
            4 => {
                let list = [self.pick(&VALUES), self.pick(&VALUES)].join(", ");
                format!("{} {} ({list})", self.pick(&KEYS), self.pick(&["in", "not in"]))
            }
            5 => format!("not ({})", self.selector(depth - 1)),
            6 => format!("({}) and ({})", self.selector(depth - 1), self.selector(depth - 1)),
            _ => format!("({}) or ({})", self.selector(depth - 1), self.selector(depth - 1)),
        }
    }
}

#[tokio::test]
async fn the_database_selects_as_the_model_does() {
    let world = World::start().await;
    let mut dice = Dice(1);
    let mut agents: Vec<(String, Labels, Facts)> = Vec::new();
    let mut sql = world.sql().await;
    for number in 0..40_u8 {
        let mut labels = Labels::new();
        for key in ["env", "role", "rank"] {
            if dice.below(4) > 0 {
                let value =
                    dice.pick(&["prod", "dev", "web", "db", "4", "8", "-1.5", "a b", "", "a.b", "1e3"]);
                labels.insert(key.to_owned(), value.to_owned());
            }
        }
        let mut facts = Facts::from([("os".to_owned(), "linux".to_owned())]);
        if dice.below(5) > 0 {
            facts.insert("cpus".to_owned(), dice.pick(&["1", "4", "8", "16", "many"]).to_owned());
        }
        let name = format!("agent{number}");
        sqlx::query(
            "insert into agents (id, org_id, name, labels, facts, enrolled_at, serial_current, certificate_expires_at,
                 result_key, seal_key)
             select $1, id, $2, $3, $4, now(), $5, now(), '', '' from organizations",
        )
        .bind(uuid::Uuid::now_v7())
        .bind(&name)
        .bind(serde_json::to_value(&labels).expect("plain data"))
        .bind(serde_json::to_value(&facts).expect("plain data"))
        .bind(vec![number; 16])
        .execute(&mut sql)
        .await
        .expect("the owner may");
        agents.push((name, labels, facts));
    }
    let api = world.api();
    let (mut tried, mut hits) = (0, 0);
    while tried < 300 {
        let text = dice.selector(3);
        let Ok(selector) = Selector::parse(&text) else { continue };
        let path = api
            .request(reqwest::Method::GET, "/api/v1/agents")
            .query(&[("selector", &text[..]), ("limit", "1000")]);
        let page = api.send(path).await.accepted().value();
        let mut got: Vec<&str> = page["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|agent| agent["name"].as_str())
            .collect();
        let mut want: Vec<&str> = agents
            .iter()
            .filter(|(name, labels, facts)| selector.matches(name, labels, facts))
            .map(|(name, ..)| name.as_str())
            .collect();
        got.sort_unstable();
        want.sort_unstable();
        assert_eq!(got, want, "{text}");
        (tried, hits) = (tried + 1, hits + want.len());
    }
    assert!(hits > 300, "{hits}");
}
