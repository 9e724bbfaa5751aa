//! Sandboxes and limits as a person meets them: asked for with `opsctl`, given by a host, shown with what the run took.

use opsconductor_tests::{SOON, World, eventually, opsctl::Said, scene};

/// What the packages install.
const PACKAGED_POLICY: &str = include_str!("../../packaging/policy.toml");

/// `opsctl exec` on the agent `one`, as JSON.
async fn exec(world: &World, options: &[&str], words: &[&str]) -> Said {
    let arguments = [&["exec", "-t", "one", "-o", "json"][..], options, &["--"], words].concat();
    world.opsctl(&arguments).await
}

/// What `opsctl execution show` says of it: the whole, and the words of the run's line.
async fn shown(world: &World, document: &serde_json::Value) -> (String, Vec<String>) {
    let id = document["execution"]["id"].as_str().expect("it has an id");
    let text = world.opsctl(&["execution", "show", id]).await.ended(0).text();
    let line = text.lines().find(|line| line.starts_with("one ")).expect("the run is there");
    let words = line.split_whitespace().map(str::to_owned).collect();
    (text, words)
}

#[tokio::test]
async fn a_strict_run_is_shown_with_its_sandbox_and_what_it_took() {
    if !scene::is_root() {
        scene::skipped("only root makes control groups here");
        return;
    }
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let options = ["--sandbox", "strict", "--memory", "64MiB", "--pids", "50", "--write", "/var/tmp"];
    let line = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done";
    let document = exec(&world, &options, &["sh", "-c", line]).await.ended(0).json();
    let run = &document["runs"][0];
    assert_eq!(
        (run["state"].as_str(), run["sandbox"].as_str()),
        (Some("succeeded"), Some("strict")),
        "{run}"
    );
    let usage = |name: &str| run["usage"][name].as_i64().unwrap_or_else(|| panic!("no {name} in {run}"));
    assert!(usage("cpu_user_us") + usage("cpu_system_us") > 0, "{run}");
    assert!((1..=64 << 20).contains(&usage("peak_memory_bytes")), "{run}");
    assert!((1..=50).contains(&usage("peak_pids")), "{run}");
    assert_eq!(run["usage"]["out_of_memory"], false, "{run}");

    let (text, words) = shown(&world, &document).await;
    for line in ["Sandbox  strict\n", "Writes   /var/tmp\n", "Limits   memory 64.0 MiB, 50 processes\n"] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    assert_eq!((words[1].as_str(), words[4].as_str()), ("succeeded", "strict"), "{text}");
    assert!(words[5].ends_with('s') && words[5] != "-", "{text}");
    assert!(["KiB", "MiB"].contains(&words[7].as_str()), "{text}");

    // The attempt says the same.
    let (id, run_id) = (document["execution"]["id"].as_str(), run["id"].as_str());
    let path = format!("/api/v1/executions/{}/runs/{}/attempts", id.unwrap(), run_id.unwrap());
    let attempts = world.api().get(&path).await.accepted().value();
    assert_eq!(attempts["items"][0]["usage"], run["usage"], "{attempts}");
    assert_eq!(attempts["items"][0]["sandbox"], "strict", "{attempts}");
}

#[tokio::test]
async fn a_memory_bomb_ends_at_its_limit_and_says_so() {
    if !scene::is_root() {
        scene::skipped("only root makes control groups here");
        return;
    }
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let bomb = ["python3", "-c", "x = bytearray(200 << 20)"];
    let document = exec(&world, &["--sandbox", "strict", "--memory", "32MiB"], &bomb).await.ended(1).json();
    let run = &document["runs"][0];
    assert_eq!(
        (run["state"].as_str(), run["reason"].as_str()),
        (Some("failed"), Some("memory_limit")),
        "{run}"
    );
    assert_eq!(run["usage"]["out_of_memory"], true, "{run}");
    let (text, words) = shown(&world, &document).await;
    assert!(words.contains(&"memory_limit".to_owned()), "{text}");
    // Its control: with room enough the same program ends well.
    let document = exec(&world, &["--sandbox", "strict", "--memory", "512MiB"], &bomb).await.ended(0).json();
    assert!(document["runs"][0]["usage"]["peak_memory_bytes"].as_i64() > Some(200 << 20), "{document}");
}

#[tokio::test]
async fn root_is_for_runs_without_confinement() {
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let said = exec(&world, &["--sandbox", "strict", "--user", "root"], &["true"]).await.ended(2);
    assert!(said.stderr.contains("unprivileged user") && said.stderr.contains("'none'"), "{said}");
    let said = exec(&world, &["--sandbox", "tight"], &["true"]).await.ended(2);
    assert!(said.stderr.contains("none, standard, strict, isolated"), "{said}");
    let said = exec(&world, &["--memory", "1"], &["true"]).await.ended(2);
    assert!(said.stderr.contains("command.limits.memory_bytes"), "{said}");
    let page = world.api().get("/api/v1/executions").await.accepted().value();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(0), "{page}");
}

#[tokio::test]
async fn the_packaged_policy_lets_nothing_that_is_typed_run_unconfined() {
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    let options = ["--sandbox", "none"];
    exec(&world, &options, &["true"]).await.ended(0);
    std::fs::write(agent.policy(), PACKAGED_POLICY).expect("the policy can be written");
    let document = exec(&world, &options, &["true"]).await.ended(1).json();
    let run = &document["runs"][0];
    assert_eq!(run["reason"], "policy_refused", "{run}");
    assert!(run["detail"].as_str().unwrap_or_default().contains("sandbox.unconfined"), "{run}");
    assert!(run.get("usage").is_none() && run.get("sandbox").is_none(), "{run}");
    if scene::is_root() {
        let document = exec(&world, &[], &["true"]).await.ended(0).json();
        assert_eq!(document["runs"][0]["sandbox"], "standard", "{document}");
    }
}

#[tokio::test]
async fn a_selector_asks_for_hosts_that_can_give_a_sandbox() {
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    let facts = eventually(SOON, "the agent has looked what its host can do", async || {
        let facts = agent.shown().await["facts"].clone();
        facts.get("sandbox.strict").is_some().then_some(facts)
    })
    .await;
    let can = facts["sandbox.strict"].as_str().expect("it is a text");
    let other = if can == "yes" { "no" } else { "yes" };
    let list = async |selector: String| {
        world.opsctl(&["agent", "list", "-l", &selector, "-o", "json"]).await.ended(0).text()
    };
    assert!(list(format!("sandbox.strict={can}")).await.contains("\"one\""));
    assert!(list(format!("sandbox.standard and not sandbox.strict={other}")).await.contains("\"one\""));
    assert!(!list(format!("sandbox.strict={other}")).await.contains("\"one\""));
    let shown = world.opsctl(&["agent", "show", "one"]).await.ended(0).text();
    for fact in ["sandbox.standard", "sandbox.strict", "sandbox.isolated", "sandbox.limits"] {
        assert!(shown.contains(fact), "{fact} in\n{shown}");
    }
}
