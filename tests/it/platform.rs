//! The controller as a program: its own Postgres, its status, its metrics, its configuration.

use opsconductor_tests::{Agent, SOON, Stage, World, eventually, process, stage::Visit};
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[("one", &[])]).await
}

/// The postmasters on this World's folder: its servers' processes that no other of them has started.
fn postmasters(world: &World) -> Vec<u32> {
    let folder = std::fs::metadata(world.data().join("postgres/data")).map(|metadata| inode(&metadata)).ok();
    let servers: Vec<u32> = std::fs::read_dir("/proc")
        .expect("there is /proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let at = std::fs::metadata(format!("/proc/{pid}/cwd")).map(|metadata| inode(&metadata)).ok();
            program.trim() == "postgres" && at == folder && process::is_alive(*pid)
        })
        .collect();
    let parent = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()
    };
    servers
        .iter()
        .copied()
        .filter(|pid| parent(*pid).is_some_and(|parent| !servers.contains(&parent)))
        .collect()
}

fn inode(metadata: &std::fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

async fn works(world: &World, agent: &Agent) {
    let api = world.api();
    agent.online().await;
    let finished = api.shell(&agent.name, "echo works").await;
    assert_eq!(api.stdout(&finished).await, "works\n");
}

#[tokio::test]
async fn an_embedded_postgres_survives_its_controller() {
    let world = World::builder().embedded().start().await;
    let agent = world.agent("one").start().await;
    works(&world, &agent).await;
    let token = world.token();
    let before = postmasters(&world);
    assert_eq!(before.len(), 1, "{before:?}");
    for _ in 0..2 {
        world.kill_controller();
        world.start_controller().await;
        assert_eq!(postmasters(&world).len(), 1);
        works(&world, &agent).await;
    }
    assert_eq!(world.token(), token, "the first start happened twice");
    assert!(world.stop_controller().success());
    assert_eq!(postmasters(&world), [] as [u32; 0], "a clean stop leaves no server");
    world.start_controller().await;
    works(&world, &agent).await;
}

#[tokio::test]
async fn an_embedded_postgres_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::builder().embedded().start().await;
    let postmaster = postmasters(&world)[0];
    let status = std::fs::read_to_string(format!("/proc/{postmaster}/status")).expect("it runs");
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("every process has a user");
    assert_ne!(uid.split_whitespace().next(), Some("0"), "it runs as root");
    // It listens on its socket alone.
    let data = world.data().join("postgres/data");
    let lines = std::fs::read_to_string(data.join("postmaster.pid")).expect("it runs");
    assert_eq!(lines.lines().nth(5).map(str::trim), Some(""), "{lines}");
    let mode = std::fs::metadata(data).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[tokio::test]
async fn a_clean_stop_is_quick_and_leaves_agents_at_work() {
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    let api = world.api();
    let execution = api.start_shell("one", "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done").await;
    let begun = std::time::Instant::now();
    assert!(world.stop_controller().success());
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    world.start_controller().await;
    let finished = api.finished(execution.id).await;
    assert_eq!(api.stdout(&finished).await, "1\n2\n3\n4\n5\n");
    drop(agent);
}

#[tokio::test]
async fn one_data_folder_has_one_controller() {
    let stage = stage().await;
    let second = stage.world.controller_command(&["serve"]).output().expect("the controller starts");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another controller"), "{said}");
}

#[tokio::test]
async fn the_status_names_the_parts() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    api.shell("one", "true").await;
    let parts = ["database", "dispatch", "reap", "revoke", "cancel", "lease"];
    let status = eventually(SOON, "every part has had a round", async || {
        let status = api.get("/status").await.accepted().value();
        let named = |part: &&str| {
            status["parts"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == **part))
        };
        parts.iter().all(named).then_some(status)
    })
    .await;
    assert_eq!((&status["state"], &status["agents_connected"]), (&"ok".into(), &1.into()), "{status}");
    for part in status["parts"].as_array().expect("a list") {
        assert!(
            part["latency_ms"].is_number() && part["message"].is_string() && part["state"] == "ok",
            "{part}"
        );
    }
    let said = world.opsctl(&["status"]).await.ended(0);
    assert!(said.text().contains("database") && said.text().contains("dispatch"), "{said}");
    let said = world.opsctl(&["version", "-o", "json"]).await.ended(0);
    assert!(said.text().contains("schema"), "{said}");
}

#[tokio::test]
async fn the_metrics_have_known_names() {
    let stage = stage().await;
    let api = stage.world.api();
    api.shell("one", "true").await;
    let text = api.get("/metrics").await.accepted().text();
    for name in ["opsc_agents_connected", "opsc_attempts_offered_total", "opsc_dispatch_seconds"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.starts_with("opsc_"), "{line}");
    }
}

#[tokio::test]
async fn answers_carry_the_request_id() {
    let stage = stage().await;
    let api = stage.world.api();
    let asked =
        api.request(reqwest::Method::GET, "/api/v1/executions/17").header("X-Request-Id", "from-the-test-1");
    let answer = api.send(asked).await;
    assert_eq!(answer.headers["x-request-id"], "from-the-test-1");
    assert_eq!(answer.refused(400, "invalid").request_id, "from-the-test-1");
    // It goes with what it starts, into the audit.
    let body =
        serde_json::json!({ "targets": { "all": true }, "command": { "program": { "shell": "true" } } });
    let asked =
        api.request(reqwest::Method::POST, "/api/v1/executions").header("X-Request-Id", "from-the-test-2");
    let execution: model::api::execution::Execution = api.send(asked.json(&body)).await.accepted().json();
    assert_eq!(execution.request_id, "from-the-test-2");
    let audited =
        sqlx::query("select 1 from audit_entries where request_id = 'from-the-test-2' and object = $1")
            .bind(format!("execution/{}", execution.id))
            .fetch_all(&mut stage.world.sql().await)
            .await
            .expect("the owner may");
    assert_eq!(audited.len(), 1);
    api.finished(execution.id).await;
    assert!(stage.agents[0].log().contains("from-the-test-2"), "the agent's log does not have it");
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    let folder = opsconductor_tests::scene::new_folder("config");
    let file = folder.join("controller.toml");
    std::fs::write(&file, "[database]\nurl = 'postgres://me:hunter2@db.example/x?sslpassword=hunter3'\n")
        .expect("it can be written");
    let output = std::process::Command::new(opsconductor_tests::scene::binary("opsconductor-controller"))
        .args(["config", "check", "--config"])
        .arg(&file)
        .env_clear()
        .env("OPSC_AGENTS__CERTIFICATE_LIFE", "12h")
        .output()
        .expect("the controller starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("db.example") && said.contains("12h") && !said.contains("hunter"), "{said}");
}

#[tokio::test]
async fn the_document_describes_what_answers() {
    let stage = stage().await;
    let api = stage.world.api_as_nobody();
    let document = api.get("/openapi.json").await.accepted().value();
    assert!(
        document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")),
        "{}",
        document["openapi"]
    );
    for path in [
        "/api/v1/agents",
        "/api/v1/enroll-tokens",
        "/api/v1/executions",
        "/api/v1/executions/{id}/runs",
        "/api/v1/executions/{id}/output",
        "/api/v1/executions/{id}/cancel",
        "/status",
        "/metrics",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    // The page that shows it loads nothing from elsewhere.
    let page = api.get("/docs/").await.text() + &api.get("/docs").await.text();
    assert!(!page.contains("https://"), "{page}");
}
