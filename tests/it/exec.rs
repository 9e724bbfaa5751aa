//! Commands on hosts: what is run, as whom, where, and how its end is told.

use model::{Reason, api::output::Stream, execution::ExecutionState, run::RunState};
use opsconductor_tests::{SOON, Stage, World, eventually, process, scene, stage::Visit};
use serde_json::json;
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(
        &STAGE,
        &[("web1", &[("role", "web")]), ("web2", &[("role", "web")]), ("db1", &[("role", "db")])],
    )
    .await
}

#[tokio::test]
async fn argv_is_not_read_by_a_shell() {
    let stage = stage().await;
    let api = stage.world.api();
    let finished = api.exec("web1", json!({ "program": { "argv": ["echo", "$HOME", "a  b", "*"] } })).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!((finished.run().exit_code, finished.run().reason), (Some(0), Some(Reason::Exited)));
    assert_eq!(api.stdout(&finished).await, "$HOME a  b *\n");
}

#[tokio::test]
async fn opsctl_shows_lines_behind_the_hosts_name() {
    let stage = stage().await;
    let said = stage.world.opsctl(&["exec", "-t", "web1", "--", "echo", "hello"]).await.ended(0);
    assert_eq!(
        said.text().trim_end().split_once("hello").map(|(name, _)| name.contains("web1")),
        Some(true),
        "{said}"
    );
}

#[tokio::test]
async fn a_shell_line_may_have_pipes_and_variables() {
    let stage = stage().await;
    let api = stage.world.api();
    let command = json!({
        "program": { "shell": "printf '%s\\n' \"$A\" \"$B\" | tr a-z A-Z; pwd" },
        "env": { "A": "one two", "B": "it's \"q\" $x" },
        "cwd": "/usr/bin",
    });
    let finished = api.exec("web1", command).await;
    assert_eq!(api.stdout(&finished).await, "ONE TWO\nIT'S \"Q\" $X\n/usr/bin\n");
}

#[tokio::test]
async fn scripts_run_by_shebang_interpreter_and_from_stdin() {
    let stage = stage().await;
    let world = &stage.world;
    let script = b"#!/bin/sh\necho \"args: $*\"\nexit 7\n";
    let said = world
        .opsctl_with_input(&["exec", "-t", "web1", "--script", "-", "--", "x", "--y"], script)
        .await
        .ended(1);
    assert!(said.text().contains("args: x --y"), "{said}");
    assert!(said.stderr.contains('7'), "{said}");

    let file = world.folder().join("script");
    std::fs::write(&file, "echo from ${0##*/}").expect("the folder can be written");
    let file = file.to_str().expect("our paths are UTF-8");
    let said =
        world.opsctl(&["exec", "-t", "web1", "--script", file, "--interpreter", "/bin/sh -e"]).await.ended(0);
    assert!(said.text().contains("from "), "{said}");

    let said = world.opsctl(&["exec", "-t", "web1", "--script", file]).await.ended(2);
    assert!(said.stderr.contains("interpreter"), "{said}");
}

#[tokio::test]
async fn a_run_has_the_user_that_was_asked_for() {
    if !scene::is_root() {
        scene::skipped("only root may become another user");
        return;
    }
    let stage = stage().await;
    let api = stage.world.api();
    let command =
        json!({ "program": { "shell": "id -un; id -Gn; echo $HOME $USER" }, "user": "nobody", "cwd": "/" });
    let finished = api.exec("web1", command).await;
    assert_eq!(api.stdout(&finished).await.lines().next(), Some("nobody"), "{finished:?}");
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    let stage = stage().await;
    let api = stage.world.api();
    let finished = api.shell("web1", "exit 42").await;
    assert_eq!((finished.run().state, finished.run().exit_code), (RunState::Failed, Some(42)));
    assert_eq!((finished.run().reason, finished.run().signal), (Some(Reason::Exited), None));
    let finished = api.shell("web1", "kill -SEGV $$").await;
    assert_eq!((finished.run().state, finished.run().signal), (RunState::Failed, Some(11)));
    assert_eq!((finished.run().reason, finished.run().exit_code), (Some(Reason::Signaled), None));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let stage = stage().await;
    let api = stage.world.api();
    // Another agent than root's refuses every other user, whether it is there or not.
    let no_user = if scene::is_root() { Reason::UnknownUser } else { Reason::PolicyRefused };
    for (command, reason, named) in [
        (json!({ "program": { "argv": ["no-such-program"] } }), Reason::ProgramNotFound, "no-such-program"),
        (
            json!({ "program": { "shell": "true" }, "cwd": "/no/such/place" }),
            Reason::BadWorkingDirectory,
            "/no/such/place",
        ),
        (json!({ "program": { "shell": "true" }, "user": "no-such-user" }), no_user, "no-such-user"),
        (
            json!({ "program": { "script": { "content": "#!/no/such/interpreter\nx" } } }),
            Reason::ProgramNotFound,
            "/no/such/interpreter",
        ),
    ] {
        let finished = api.exec("web1", command).await;
        let run = finished.run();
        assert_eq!((run.state, run.reason), (RunState::Failed, Some(reason)), "{run:?}");
        assert!(run.detail.as_deref().unwrap_or_default().contains(named), "{run:?}");
    }
}

/// A process that left its session and ignores SIGTERM, and prints its id.
const STUBBORN: &str = "setsid sh -c 'trap \"\" TERM HUP INT; (trap \"\" TERM; echo $$; while :; do sleep 0.1; done) & wait' & wait";

/// The id that a run prints as its first line.
async fn printed_pid(world: &World, id: impl ToString) -> u32 {
    let (api, id) = (world.api(), id.to_string());
    eventually(SOON, "the run prints a process id", async || {
        let output = api.output(&id, "web1", Stream::Stdout).await;
        String::from_utf8(output).ok()?.lines().next()?.parse().ok()
    })
    .await
}

#[tokio::test]
async fn a_timeout_ends_all_processes() {
    let stage = stage().await;
    let api = stage.world.api();
    let command = json!({ "program": { "shell": "echo $$; sleep 1000 & sleep 1000" }, "timeout_seconds": 1 });
    let finished = api.exec("web1", command).await;
    assert_eq!(finished.execution.state, ExecutionState::TimedOut, "{finished:?}");
    assert_eq!(finished.run().reason, Some(Reason::TimeLimit));
    let pid = printed_pid(&stage.world, finished.id()).await;
    assert!(!process::is_alive(pid), "{pid} is left");
}

#[tokio::test]
async fn cancelled_means_that_no_process_is_left() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    let execution = api.start_shell("web1", STUBBORN).await;
    let pid = printed_pid(world, execution.id).await;
    assert!(process::is_alive(pid));
    world.opsctl(&["execution", "cancel", &execution.id.to_string()]).await.ended(0);
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Cancelled, "{finished:?}");
    assert_eq!(finished.run().reason, Some(Reason::Cancelled));
    assert!(!process::is_alive(pid), "{pid} is left");
    // Cancelling what has ended changes nothing.
    let again = api.act(&format!("/api/v1/executions/{}/cancel", execution.id)).await.accepted();
    assert_eq!(again.value()["state"], "cancelled");
}

#[tokio::test]
async fn targets_by_selector_by_name_and_all() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    for (targets, want) in [
        (json!({ "selector": "role=web" }), &["web1", "web2"][..]),
        (json!({ "selector": "os=linux and not name~'web.*'" }), &["db1"]),
        (json!({ "names": ["db1", "web2"] }), &["db1", "web2"]),
        (json!({ "all": true }), &["db1", "web1", "web2"]),
    ] {
        let execution = api.start(targets, json!({ "program": { "argv": ["true"] } })).await;
        let finished = api.finished(execution.id).await;
        assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
        assert_eq!(finished.runs.iter().map(|run| run.target.as_str()).collect::<Vec<_>>(), want);
    }
    let said =
        world.opsctl(&["exec", "-l", "role=web", "--shell", "exit $(( $(echo $PPID) > 0 ? 0 : 1 ))"]).await;
    assert_eq!(said.code, 0, "{said}");
}

#[tokio::test]
async fn some_success_is_partial_success() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    let marker = world.folder().join("once");
    let line = format!("mkdir '{}'", marker.display());
    let execution =
        api.start(json!({ "selector": "role=web" }), json!({ "program": { "shell": line } })).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::PartiallySucceeded, "{finished:?}");
    assert_eq!((finished.execution.runs.succeeded, finished.execution.runs.failed), (1, 1));
}

#[tokio::test]
async fn detached_is_an_id_and_json_is_one_document() {
    let stage = stage().await;
    let world = &stage.world;
    let said = world.opsctl(&["exec", "--detach", "-t", "web1", "--", "echo", "later"]).await.ended(0);
    let id = said.text().trim().to_owned();
    world.api().whole(&id).await;
    let said = world.opsctl(&["logs", &id, "--raw"]).await.ended(0);
    assert_eq!(said.stdout, b"later\n");
    let said = world.opsctl(&["execution", "show", &id, "-o", "json"]).await.ended(0);
    assert!(said.json().to_string().contains(&id), "{said}");
    let said = world.opsctl(&["execution", "list", "-o", "json"]).await.ended(0);
    assert!(said.json().to_string().contains(&id), "{said}");

    let said = world
        .opsctl(&["exec", "-l", "role=web", "-o", "json", "--shell", "echo out; echo err >&2"])
        .await
        .ended(0);
    let document = said.json();
    assert_eq!(document["execution"]["state"], "succeeded", "{document}");
    for run in document["runs"].as_array().expect("runs are a list") {
        assert_eq!((&run["stdout"], &run["stderr"]), (&json!("out\n"), &json!("err\n")), "{run}");
    }
    assert_eq!(document["runs"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn the_exit_codes_of_opsctl() {
    let stage = stage().await;
    let world = &stage.world;
    world.opsctl(&["exec", "-t", "web1", "--", "true"]).await.ended(0);
    world.opsctl(&["exec", "-t", "web1", "--", "false"]).await.ended(1);
    world.opsctl(&["exec", "-t", "web1"]).await.ended(2);
    world.opsctl(&["exec", "-l", "role=", "--", "true"]).await.ended(2);
    world.opsctl(&["--addr", "http://127.0.0.1:1", "status"]).await.ended(3);
    let mut denied = world.opsctl_command(&["agent", "list"]);
    denied.env("OPSC_TOKEN", "oca1_nonsense");
    opsconductor_tests::opsctl::run(&mut denied, b"").await.ended(4);
    world.opsctl(&["exec", "-l", "role=nothing", "--", "true"]).await.ended(5);
    world.opsctl(&["exec", "-t", "nobody-of-this-name", "--", "true"]).await.ended(5);
    world.opsctl(&["agent", "show", "nobody-of-this-name"]).await.ended(5);
}
