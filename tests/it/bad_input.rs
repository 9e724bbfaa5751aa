//! Bad input: each gets a clear error that names what is wrong, and leaves nothing half done.

use std::process::Command;

use model::limits;
use opsconductor_tests::{Stage, World, postgres, scene, stage::Visit};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[("one", &[])]).await
}

/// An execution whose field at `path` (a JSON pointer) is `value`.
fn execution(path: &str, value: Value) -> Value {
    let mut body = json!({
        "targets": { "names": ["one"] },
        "command": { "program": { "shell": "true" }, "timeout_seconds": 60 },
        "start_within_seconds": 60,
    });
    *body.pointer_mut(path).expect("the path is right") = value;
    body
}

async fn executions(world: &World) -> usize {
    let page = world.api().get("/api/v1/executions?limit=1000").await.accepted().value();
    page["items"].as_array().expect("a list").len()
}

/// Where, what, the field that is named, and what is said of it.
type Wrong = (&'static str, Value, &'static str, &'static str);

/// Sandboxes, limits, folders, networks and images that are none.
fn wrong_confinement() -> Vec<Wrong> {
    let with = |field: &str, value: Value| {
        let mut command = json!({ "program": { "shell": "true" } });
        command[field] = value;
        command
    };
    let mut confined = with("sandbox", json!("strict"));
    confined["network"] = json!("loopback");
    let mut root = with("sandbox", json!("strict"));
    root["user"] = json!("root");
    let many = vec!["/srv"; limits::RUN_FOLDERS + 1];
    let image = json!({ "image": "x".repeat(limits::IMAGE_BYTES + 1) });
    [
        (with("sandbox", json!("tight")), "command.sandbox", "tight"),
        (with("sandbox", json!("Strict")), "command.sandbox", "Strict"),
        (with("sandbox", json!(3)), "command.sandbox", "expected"),
        (root, "command.user", "unprivileged"),
        (with("limits", json!({ "memory_bytes": 1 })), "command.limits.memory_bytes", "is 1"),
        (with("limits", json!({ "memory_bytes": "64MiB" })), "command.limits.memory_bytes", "64MiB"),
        (with("limits", json!({ "pids": 0 })), "command.limits.pids", "is 0"),
        (with("limits", json!({ "pids": -1 })), "command.limits.pids", "-1"),
        (with("limits", json!({ "cpu_percent": 0 })), "command.limits.cpu_percent", "is 0"),
        (with("limits", json!({ "io_bytes_per_second": 0 })), "command.limits.io_bytes_per_second", "is 0"),
        (with("limits", json!({ "open_files": 0 })), "command.limits.open_files", "is 0"),
        (with("limits", json!({ "file_bytes": 1.5 })), "command.limits.file_bytes", "1.5"),
        (with("limits", json!({ "memory": 1 })), "command.limits.memory", "unknown"),
        (with("read", json!(["srv"])), "command.read", "absolute"),
        (with("read", json!(many)), "command.read", "RUN_FOLDERS"),
        (with("write", json!(["/srv/../etc"])), "command.write", ".."),
        (with("write", json!(["/"])), "command.write", "root folder"),
        (with("write", json!(["/a\0b"])), "command.write", "NUL"),
        (with("container", json!({ "image": "-v" })), "command.container.image", "image's name"),
        (with("container", json!({})), "command.container.image", "missing"),
        (with("container", image), "command.container.image", "IMAGE_BYTES"),
        (with("network", json!("host")), "command.network", "host"),
        (confined, "command.network", "isolated"),
    ]
    .map(|(command, field, named)| ("/command", command, field, named))
    .into()
}

#[tokio::test]
async fn a_wrong_field_of_an_execution_is_named() {
    let world = World::start().await;
    let api = world.api();
    let long = "x".repeat(300 * 1024);
    for (path, value, field, named) in [
        ("/command/program", json!({ "argv": [] }), "command.program.argv", "empty"),
        ("/command/program", json!({ "argv": ["a\0b"] }), "command.program.argv", "NUL"),
        ("/command/program", json!({ "argv": ["x", long] }), "command.program.argv", "ARGV_BYTES"),
        ("/command/program", json!({ "shell": " " }), "command.program.shell", "empty"),
        ("/command/program", json!({ "shell": long }), "command.program.shell", "ARGV_BYTES"),
        (
            "/command/program",
            json!({ "script": { "content": "x" } }),
            "command.program.script.interpreter",
            "#!",
        ),
        (
            "/command/program",
            json!({ "script": { "content": format!("#!/bin/sh\n{}", "x".repeat(limits::SCRIPT_BYTES)) } }),
            "command.program.script.content",
            "SCRIPT_BYTES",
        ),
        ("/command/program", json!({ "binary": "x" }), "command.program", "binary"),
        ("/command/timeout_seconds", json!(-5), "command.timeout_seconds", "-5"),
        ("/command/timeout_seconds", json!(0), "command.timeout_seconds", "1 to"),
        ("/command/timeout_seconds", json!("5"), "command.timeout_seconds", "string"),
        ("/command/timeout_seconds", json!(10_000_000), "command.timeout_seconds", "2592000"),
        ("/start_within_seconds", json!(-1), "start_within_seconds", "-1"),
        ("/start_within_seconds", json!(1.5), "start_within_seconds", "1.5"),
        ("/targets", json!({ "names": [] }), "targets.names", "empty"),
        ("/targets", json!({ "names": vec!["x"; 1001] }), "targets.names", "NAMED_TARGETS"),
        ("/targets", json!({ "names": "one" }), "targets.names", "sequence"),
        ("/targets", json!({ "all": false }), "targets.all", "false"),
        ("/targets", json!({ "everything": true }), "targets", "everything"),
        ("/command", json!({ "program": { "shell": "true" }, "cwd": "relative" }), "command.cwd", "absolute"),
        ("/command", json!({ "program": { "shell": "true" }, "user": "" }), "command.user", "empty"),
        ("/command", json!({ "program": { "shell": "true" }, "shell": true }), "command.shell", "unknown"),
        (
            "/command",
            json!({ "program": { "shell": "true" }, "env": { "BIG": long } }),
            "command.env",
            "ENVIRONMENT_BYTES",
        ),
        (
            "/command",
            json!({ "program": { "shell": "true" }, "env": { "1X": "" } }),
            "command.env.1X",
            "variable name",
        ),
        (
            "/command",
            json!({ "program": { "shell": "true" }, "env": { "A": "a\0" } }),
            "command.env.A",
            "NUL",
        ),
        (
            "/command",
            json!({ "program": { "shell": "true" }, "env": { "A": 7 } }),
            "command.env.A",
            "integer",
        ),
    ]
    .into_iter()
    .chain(wrong_confinement())
    {
        let problem = api.post("/api/v1/executions", &execution(path, value)).await.refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field), "{problem:?}");
        assert!(problem.detail.contains(named), "{named}: {problem:?}");
        assert!(problem.detail.len() < 1000, "{} characters", problem.detail.len());
    }
    assert_eq!(executions(&world).await, 0);
}

#[tokio::test]
async fn what_is_no_json_or_too_much_of_it_is_refused() {
    let world = World::start().await;
    let api = world.api();
    let post = || api.request(Method::POST, "/api/v1/executions");
    let json = |request: reqwest::RequestBuilder| request.header("Content-Type", "application/json");
    for body in ["", "{", "nonsense", "{\"targets\": }", "\u{1}"] {
        api.send(json(post()).body(body)).await.refused(400, "invalid_json");
    }
    api.send(post().body("{}")).await.refused(415, "unsupported_media_type");
    // A command of 10 MiB.
    let body = execution("/command/program", json!({ "shell": "x".repeat(10 * 1024 * 1024) }));
    let problem = api.post("/api/v1/executions", &body).await.refused(413, "body_too_large");
    assert!(problem.detail.contains("HTTP_BODY_BYTES"), "{problem:?}");
    // What Postgres could not keep.
    let name = json!({ "names": ["\0"] });
    api.post("/api/v1/executions", &execution("/targets", name)).await.refused(400, "invalid");
    let script = json!({ "script": { "content": "#!/bin/sh\n\0" } });
    api.post("/api/v1/executions", &execution("/command/program", script)).await.refused(400, "invalid");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!((400..500).contains(&api.send(json(post()).body(deep)).await.status));
    api.send(api.request(Method::PATCH, "/api/v1/executions")).await.refused(405, "method_not_allowed");
    assert_eq!(executions(&world).await, 0);
}

#[tokio::test]
async fn a_selector_tells_where_it_is_wrong() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    for (text, position) in [("env=prod adn role=web", 10), ("env=", 5), ("(env=prod", 10), ("name~'['", 7)] {
        let list = api.request(Method::GET, "/api/v1/agents").query(&[("selector", text)]);
        let problem = api.send(list).await.refused(400, "invalid_selector");
        assert_eq!(
            (problem.field.as_deref(), problem.position),
            (Some("selector"), Some(position)),
            "{text}"
        );
        assert!(problem.detail.contains(&format!("character {position}")), "{problem:?}");
        let start = api.post("/api/v1/executions", &execution("/targets", json!({ "selector": text }))).await;
        assert_eq!(start.status, 400, "{}", start.text());
        let said = world.opsctl(&["agent", "list", "-l", text]).await.ended(2);
        assert!(said.stderr.contains("character") || said.stderr.contains("position"), "{said}");
    }
    let long = format!("env={}", "x".repeat(5000));
    let list = api.request(Method::GET, "/api/v1/agents").query(&[("selector", &long)]);
    assert_eq!(api.send(list).await.status, 400);
}

#[tokio::test]
async fn a_wrong_field_of_an_enroll_token_is_named() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    for (body, field, named) in [
        (json!({ "labels": { "role": "a\u{7}b" } }), "labels.role", "control character"),
        (json!({ "labels": { "os": "linux" } }), "labels.os", "fact"),
        (json!({ "labels": { "and": "x" } }), "labels.and", "selector"),
        (json!({ "labels": { "a b": "x" } }), "labels.a b", "label key"),
        (json!({ "labels": { "a": "x".repeat(129) } }), "labels.a", "NAME_CHARS"),
        (json!({ "labels": { "a": 7 } }), "labels.a", "integer"),
        (json!({ "ttl_seconds": -1 }), "ttl_seconds", "-1"),
        (json!({ "ttl_seconds": 1_000_000 }), "ttl_seconds", "86400"),
        (json!({ "max_uses": 0 }), "max_uses", "1 to"),
        (json!({ "address_range": "nowhere" }), "address_range", "range"),
        (json!({ "ttl": 5 }), "ttl", "unknown"),
    ] {
        let problem = api.post("/api/v1/enroll-tokens", &body).await.refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field), "{problem:?}");
        assert!(problem.detail.contains(named), "{named}: {problem:?}");
    }
    let said = world.opsctl(&["enroll-token", "create", "--label", "role=a\u{7}"]).await.ended(2);
    assert!(said.stderr.contains("control character"), "{said}");
    world.opsctl(&["enroll-token", "create", "--ttl", "-5m"]).await.ended(2);
}

#[tokio::test]
async fn unknown_ids_and_ids_of_another_kind_are_told() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    let finished = api.shell("one", "true").await;
    let agent = finished.run().agent_id;
    for id in [
        uuid::Uuid::nil().to_string(),
        uuid::Uuid::now_v7().to_string(),
        agent.to_string(),
        finished.run().id.to_string(),
    ] {
        for path in ["", "/runs", "/output"] {
            let problem = api.get(&format!("/api/v1/executions/{id}{path}")).await.refused(404, "not_found");
            assert!(problem.detail.contains(&id), "{problem:?}");
        }
        api.act(&format!("/api/v1/executions/{id}/cancel")).await.refused(404, "not_found");
        world.opsctl(&["logs", &id]).await.ended(5);
    }
    api.get(&format!("/api/v1/agents/{}", finished.id())).await.refused(404, "not_found");
    api.act(&format!("/api/v1/agents/{}/revoke", finished.id())).await.refused(404, "not_found");
    api.delete(&format!("/api/v1/enroll-tokens/{}", finished.id())).await.refused(404, "not_found");
    let problem = api.get("/api/v1/executions/17").await.refused(400, "invalid");
    assert!(problem.detail.contains("'17'") && problem.detail.contains("execution id"), "{problem:?}");
    world.opsctl(&["logs", "17"]).await.ended(2);
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let stage = stage().await;
    let api = stage.world.api();
    let id = api.shell("one", "true").await.id();
    for (path, field) in [
        ("/api/v1/agents?limit=1000000000".to_owned(), "limit"),
        ("/api/v1/agents?limit=0".to_owned(), "limit"),
        ("/api/v1/agents?limit=many".to_owned(), "limit"),
        ("/api/v1/agents?cursor=nonsense".to_owned(), "cursor"),
        ("/api/v1/agents?page=2".to_owned(), "page"),
        ("/api/v1/executions?limit=1000000000".to_owned(), "limit"),
        ("/api/v1/executions?state=gone".to_owned(), "state"),
        ("/api/v1/enroll-tokens?limit=-1".to_owned(), "limit"),
        (format!("/api/v1/executions/{id}/runs?limit=1000000000"), "limit"),
        (format!("/api/v1/executions/{id}/output?limit=1000000000"), "limit"),
        (format!("/api/v1/executions/{id}/output?stream=third"), "stream"),
        (format!("/api/v1/executions/{id}/output?since=yesterday"), "since"),
        (format!("/api/v1/executions/{id}/output?tail=-1"), "tail"),
        (format!("/api/v1/executions/{id}/output?after=x"), "after"),
    ] {
        let problem = api.get(&path).await.refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field), "{path}: {problem:?}");
    }
}

#[tokio::test]
async fn what_opsctl_is_told_wrong_is_named() {
    let stage = stage().await;
    let world = &stage.world;
    for (arguments, named) in [
        (&["exec", "-t", "one", "--timeout", "-5s", "--", "true"][..], "--timeout"),
        (&["exec", "-t", "one", "--timeout", "5", "--", "true"], "unit"),
        (&["exec", "-t", "one", "--env", "NOVALUE", "--", "true"], "KEY=VALUE"),
        (&["exec", "-t", "one", "--cwd", "relative", "--", "true"], "absolute"),
        (&["exec", "-t", "one", "--script", "/no/such/script"], "/no/such/script"),
        (&["exec", "-t", "one", "--all", "--", "true"], "--all"),
        (&["nonsense"], "nonsense"),
        (&["execution", "list", "--limit", "0"], "--limit"),
    ] {
        let said = world.opsctl(arguments).await.ended(2);
        assert!(said.stderr.contains(named), "{said}");
    }
    let big = vec![b'x'; 10 * 1024 * 1024];
    let said = world
        .opsctl_with_input(&["exec", "-t", "one", "--script", "-", "--interpreter", "sh"], &big)
        .await
        .ended(2);
    assert!(said.stderr.contains("limit"), "{said}");
}

/// How the controller ends with this configuration, and what it says.
fn controller(verb: &str, config: &str) -> (Option<i32>, String) {
    let folder = scene::new_folder("refused");
    let file = folder.join("controller.toml");
    let data = format!("data = '{}'\n", folder.join("data").display());
    std::fs::write(&file, data + config).expect("the folder can be written");
    let output = Command::new(scene::binary("opsconductor-controller"))
        .arg(verb)
        .arg("--config")
        .arg(&file)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("the controller starts");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[tokio::test]
async fn a_controller_that_cannot_start_says_why() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the kernel has a port");
    let taken = listener.local_addr().expect("it is bound");
    let listen =
        |http: &str, agents: &str| format!("[http]\nlisten = '{http}'\n[agents]\nlisten = '{agents}'\n");
    let free = || format!("127.0.0.1:{}", scene::free_port());
    let busy = listen(&taken.to_string(), &free());
    let busy_door = listen(&free(), &taken.to_string());
    let unreachable = listen(&free(), &free()) + "[database]\nurl = 'postgres://me:hunter2@127.0.0.1:1/x'\n";
    for (config, code, named) in [
        ("[http]\nlistne = '127.0.0.1:1'\n", 2, "listne"),
        ("[htpp]\n", 2, "htpp"),
        ("[http]\nlisten = 'nowhere'\n", 2, "[http] listen"),
        ("[http]\nlisten = '0.0.0.0:8080'\n", 2, "TLS"),
        ("[agents]\ncertificate_life = '1s'\n", 2, "certificate_life"),
        ("[timing]\nlost_after = '5 apples'\n", 2, "lost_after"),
        ("[database]\nurl = 'mysql://x'\n", 2, "[database] url"),
        ("[log]\nlevel = '=='\n", 2, "[log] level"),
        (&busy, 1, "[http] listen"),
        (&busy_door, 1, "[agents] listen"),
        (&unreachable, 3, "127.0.0.1:1"),
    ] {
        let (got, said) = controller("serve", config);
        assert_eq!(got, Some(code), "{config}: {said}");
        assert!(said.contains(named), "{named}: {said}");
        assert!(!said.contains("hunter2"), "the password is shown: {said}");
    }
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    use sqlx::Connection;
    let url = postgres::migrated_database();
    let mut sql = sqlx::PgConnection::connect(&url).await.expect("the database answers");
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'from the future', true, '', 0)",
    )
    .execute(&mut sql)
    .await
    .expect("the owner may");
    let config = format!(
        "[http]\nlisten = '127.0.0.1:{}'\n[agents]\nlisten = '127.0.0.1:{}'\n[database]\nurl = '{url}'\n",
        scene::free_port(),
        scene::free_port()
    );
    for verb in ["migrate", "serve"] {
        let (code, said) = controller(verb, &config);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("9999") && said.contains("newer"), "{said}");
    }
    // And an older one is told how to be brought up to date.
    let config = config.replace(&url, &postgres::empty_database());
    let (code, said) = controller("serve", &config);
    assert!(code == Some(1) && said.contains("migrate"), "{code:?} {said}");
    let (code, said) = controller("migrate", &config);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn an_agent_that_cannot_start_says_why() {
    let data = scene::new_folder("not-enrolled").join("data");
    let run = |change: &dyn Fn(&mut Command)| {
        let mut command = opsconductor_tests::agent::command(&data, &["run"]);
        change(&mut command);
        let output = command.output().expect("the agent's program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&|_| {});
    assert!(code == Some(1) && said.contains("not enrolled"), "{code:?} {said}");
    for (name, value) in [("OPSC_AGENT_SLOTS", "0"), ("OPSC_AGENT_SLOTS", "x"), ("OPSC_AGENT_SLOT", "1")] {
        let (code, said) = run(&|command| {
            command.env(name, value);
        });
        assert!(code == Some(2) && said.to_lowercase().contains("slot"), "{code:?} {said}");
    }
}
