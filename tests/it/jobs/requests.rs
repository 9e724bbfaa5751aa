//! Steps in which the controller asks a web server something.

use model::{Reason, execution::ExecutionState, run::RunState};
use opsconductor_tests::{
    Api, SOON, World, eventually,
    web_server::{Says, WebServer},
};
use serde_json::{Value, json};

use super::{agents, execute, results, run, save, states, written};

/// A controller that may ask servers on this machine.
async fn world() -> World {
    let world = World::builder().prepare();
    world.configure("\n[egress]\nallow = ['127.0.0.0/8']\n");
    world.start_controller().await;
    world
}

/// What the run of the controller's step at `place` says: its state, its reason and its detail.
async fn said(
    api: &Api,
    execution: &model::api::execution::Execution,
    place: usize,
) -> (RunState, Option<Reason>, String) {
    let finished = api.finished(execution.id).await;
    let step = i16::try_from(place).expect("few steps");
    let run = finished.runs.iter().find(|run| run.step == Some(step)).expect("a run of the step");
    (run.state, run.reason, run.detail.clone().unwrap_or_default())
}

#[tokio::test]
async fn it_is_asked_once_with_what_the_hosts_told_and_tells_them_the_answer() {
    let world = world().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let server = WebServer::start(|_, _| Says::json(201, &json!({ "ticket": "T-7", "n": 3 }))).await;
    let diary = super::diary(&world);
    let document = format!(
        r#"name: tell
targets: {{all: true}}
parameters:
  change: {{type: string, required: true}}
steps:
  - name: look
    run: echo "{{\"kernel\":\"$(hostname)-k\"}}" > "$OPSC_OUTPUTS"
    outputs: [kernel]
  - name: ticket
    template: true
    http:
      method: POST
      url: {url}?change={{{{ params.change }}}}
      headers: {{x-actor: "{{{{ execution.actor }}}}"}}
      json:
        change: "{{{{ params.change }}}}"
        ok: "{{{{ steps.look.succeeded }}}} of {{{{ steps.look.hosts | length }}}}"
        hosts: ["{{% for host in steps.look.hosts %}}{{{{ host.name }}}}={{{{ host.outputs.kernel }}}};{{% endfor %}}"]
        fixed: [2.5, 0.9333333333333333, 1.0e16, 3.0, -0.0, 1.0e-7]
      expect: [201]
  - name: write
    template: true
    run: echo {{{{ steps.ticket.outputs.body.ticket }}}} {{{{ steps.ticket.outputs.status }}}} >> {diary}
"#,
        url = server.url("/tickets"),
        diary = diary.display()
    );
    let job = save(&api, &document).await;
    let hostile = "a&b=\"c\"\n$(touch /tmp/never)";
    let execution = execute(&api, &job, json!({ "parameters": { "change": hostile } })).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{:?}", finished.runs);
    assert_eq!(written(&world), ["T-7 201", "T-7 201"]);
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "once for all hosts: {asked:?}");
    assert_eq!(asked[0].method, "POST");
    assert_eq!(asked[0].path, "/tickets?change=a%26b%3D%22c%22%0A%24%28touch%20%2Ftmp%2Fnever%29");
    assert_eq!(asked[0].header("x-actor"), Some(finished.execution.actor.as_str()));
    let sent: Value = serde_json::from_str(&asked[0].body).expect("JSON");
    assert_eq!(sent["change"], hostile, "a value stays the text that it is");
    assert_eq!(sent["ok"], "2 of 2");
    assert_eq!(sent["fixed"], json!([2.5, 0.9333333333333333, 10_000_000_000_000_000_u64, 3, 0, 1e-7]));
    let told = sent["hosts"][0].as_str().expect("a text");
    assert!(told.starts_with("one=") && told.contains(";two="), "{told}");
    let (state, reason, detail) = said(&api, &execution, 1).await;
    assert_eq!((state, reason), (RunState::Succeeded, Some(Reason::Done)));
    assert_eq!(detail, "the server answered 201 Created");
}

fn asks(url: &str, more: &str) -> String {
    format!("name: asks\nsteps:\n  - name: ask\n    http: {{url: \"{url}\"}}\n{more}")
}

#[tokio::test]
async fn what_is_not_expected_is_a_failure_and_hosts_do_not_begin() {
    let world = world().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let server = WebServer::start(|asked, _| match asked.path.as_str() {
        "/elsewhere" => Says::Elsewhere("http://127.0.0.1:1/".to_owned()),
        "/slow" => Says::Nothing,
        "/long" => Says::text(200, &"x".repeat(9000)),
        _ => Says::text(404, "not here"),
    })
    .await;
    let document = format!(
        "name: guarded\ntargets: {{all: true}}\nsteps:\n  - name: ask\n    http: {{url: \"{}\"}}\n{}",
        server.url("/x"),
        super::step(&world, "work", "")
    );
    let execution = run(&api, &document).await;
    let (state, reason, detail) = said(&api, &execution, 0).await;
    assert_eq!((state, reason), (RunState::Failed, Some(Reason::UnexpectedAnswer)));
    assert_eq!(detail, "the server answered 404 Not Found");
    assert_eq!(states(&results(&api, &execution).await), ["one: - skipped"]);
    assert!(written(&world).is_empty());
    // A job of the controller's own steps alone needs no hosts.
    save(&api, &asks(&server.url("/elsewhere"), "")).await;
    let execution = execute(&api, "asks", json!({})).await;
    let (state, _, detail) = said(&api, &execution, 0).await;
    assert_eq!(state, RunState::Failed);
    assert_eq!(detail, "the server answered 302 Found, and it is not led elsewhere");
    api.put("/api/v1/jobs/asks", &json!({ "document": asks(&server.url("/slow"), "    timeout: 1s\n") }))
        .await
        .accepted();
    let execution = execute(&api, "asks", json!({})).await;
    let (state, reason, _) = said(&api, &execution, 0).await;
    assert_eq!((state, reason), (RunState::TimedOut, Some(Reason::TimeLimit)));
    // Of a long answer the beginning is kept, and that is said.
    api.put("/api/v1/jobs/asks", &json!({ "document": asks(&server.url("/long"), "") })).await.accepted();
    let execution = execute(&api, "asks", json!({})).await;
    let (state, _, detail) = said(&api, &execution, 0).await;
    assert_eq!(state, RunState::Succeeded);
    assert!(detail.starts_with("the server answered 200 OK; of its body the first "), "{detail}");
    assert!(detail.ends_with(" bytes are kept"), "{detail}");
    // Nobody listens there.
    let nobody = asks("http://127.0.0.1:1/", "");
    api.put("/api/v1/jobs/asks", &json!({ "document": nobody })).await.accepted();
    let execution = execute(&api, "asks", json!({})).await;
    let (state, reason, detail) = said(&api, &execution, 0).await;
    assert_eq!((state, reason), (RunState::Failed, Some(Reason::NoAnswer)));
    assert!(detail.contains("cannot be reached"), "{detail}");
}

#[tokio::test]
async fn it_is_tried_again_as_often_as_the_step_says() {
    let world = world().await;
    let api = world.api();
    let server = WebServer::start(|_, before| match before {
        0 => Says::text(503, "later"),
        1 => Says::text(429, "slower"),
        _ => Says::text(200, "well"),
    })
    .await;
    let retry = "    retry: {attempts: 3, backoff_seconds: 1, max_backoff_seconds: 1}\n";
    let execution = run(&api, &asks(&server.url("/"), retry)).await;
    let (state, _, detail) = said(&api, &execution, 0).await;
    assert_eq!((state, server.asked().len()), (RunState::Succeeded, 3));
    assert_eq!(detail, "the server answered 200 OK; it was sent 3 times");
    // What would be refused again is not asked again.
    let refusing = WebServer::start(|_, _| Says::text(400, "no")).await;
    api.put("/api/v1/jobs/asks", &json!({ "document": asks(&refusing.url("/"), retry) })).await.accepted();
    let execution = execute(&api, "asks", json!({})).await;
    let (state, ..) = said(&api, &execution, 0).await;
    assert_eq!((state, refusing.asked().len()), (RunState::Failed, 1));
}

#[tokio::test]
async fn nothing_leads_to_addresses_that_are_not_public() {
    // Without `[egress] allow`.
    let world = World::start().await;
    let api = world.api();
    let server = WebServer::start(|_, _| Says::text(200, "secret")).await;
    let port = server.url("").rsplit(':').next().expect("a port").to_owned();
    save(&api, &asks(&server.url("/"), "")).await;
    for host in ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let document =
            asks(&format!("http://{host}:{port}/"), "    retry: {attempts: 2, backoff_seconds: 1}\n");
        api.put("/api/v1/jobs/asks", &json!({ "document": document })).await.accepted();
        let execution = execute(&api, "asks", json!({})).await;
        let (state, reason, detail) = said(&api, &execution, 0).await;
        assert_eq!((state, reason), (RunState::Failed, Some(Reason::PolicyRefused)), "{host}: {detail}");
        assert!(detail.contains("[egress] allow"), "{host}: {detail}");
    }
    assert!(server.asked().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn a_controller_that_dies_meanwhile_asks_again_only_what_bears_it() {
    let world = world().await;
    let api = world.api();
    let server =
        WebServer::start(|_, before| if before < 2 { Says::Nothing } else { Says::text(200, "ok") }).await;
    let steps = format!(
        "name: torn\nsteps:\n  - name: read\n    http: {{url: \"{url}\"}}\n  - name: write\n    needs: []\n    \
         http: {{url: \"{url}\", method: POST, body: x}}\n",
        url = server.url("/")
    );
    let execution = run(&api, &steps).await;
    eventually(SOON, "both are under way", async || (server.asked().len() == 2).then_some(())).await;
    world.kill_controller();
    world.start_controller().await;
    let api = world.api();
    let (state, ..) = said(&api, &execution, 0).await;
    assert_eq!(state, RunState::Succeeded, "a GET is asked again");
    let (state, reason, detail) = said(&api, &execution, 1).await;
    assert_eq!((state, reason), (RunState::Unknown, Some(Reason::AnswerLost)), "{detail}");
    let posts = server.asked().iter().filter(|asked| asked.method == "POST").count();
    assert_eq!(posts, 1, "nobody knows what a second POST would do");
}

#[tokio::test]
async fn one_that_is_cancelled_while_it_waits_is_not_asked_again() {
    let world = world().await;
    let api = world.api();
    let server = WebServer::start(|_, _| Says::text(503, "later")).await;
    let retry = "    retry: {attempts: 5, backoff_seconds: 600, max_backoff_seconds: 600}\n";
    let execution = run(&api, &asks(&server.url("/"), retry)).await;
    eventually(SOON, "it was asked", async || (server.asked().len() == 1).then_some(())).await;
    api.post(&format!("/api/v1/executions/{}/cancel", execution.id), &json!({})).await.accepted();
    let (state, ..) = said(&api, &execution, 0).await;
    assert_eq!((state, server.asked().len()), (RunState::Cancelled, 1));
}

#[tokio::test]
async fn after_an_abort_what_was_sent_is_seen_to_its_end_and_nothing_else_is_sent() {
    let world = world().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let server = WebServer::start(|asked, _| match asked.path.as_str() {
        "/slow" => Says::Nothing,
        _ => Says::text(200, "ok"),
    })
    .await;
    let ask = |name: &str, more: &str| {
        format!("  - name: {name}\n    http: {{url: \"{}\"}}\n{more}", server.url(&format!("/{name}")))
    };
    let document = format!(
        "name: sends\ntargets: {{all: true}}\nsteps:\n{}{}{}  - {{name: work, run: 'true'}}\n{}",
        ask("slow", "    timeout: 3s\n"),
        ask("then", "    on_failure: continue\n"),
        ask("tell", "    always: true\n"),
        super::step(&world, "tidy", "\n    always: true"),
    );
    let execution = run(&api, &document).await;
    eventually(SOON, "it is under way", async || (server.asked().len() == 1).then_some(())).await;
    api.post(&format!("/api/v1/executions/{}/abort", execution.id), &json!({})).await.accepted();
    let finished = api.finished(execution.id).await;
    let state = |name: &str| {
        let run = finished.runs.iter().find(|run| run.step_name.as_deref() == Some(name)).expect("a run");
        (run.state, run.reason)
    };
    assert_eq!(state("slow"), (RunState::TimedOut, Some(Reason::TimeLimit)), "it came to its end");
    assert_eq!(state("then"), (RunState::Skipped, Some(Reason::RolloutStopped)));
    assert_eq!(state("tell"), (RunState::Succeeded, Some(Reason::Done)), "it runs always");
    // Nothing had begun on the host.
    assert_eq!(states(&results(&api, &execution).await), ["one: - - - skipped skipped"]);
    assert!(written(&world).is_empty());
    let asked: Vec<String> = server.asked().iter().map(|asked| asked.path.clone()).collect();
    assert_eq!(asked, ["/slow", "/tell"]);
}

#[tokio::test]
async fn what_is_no_request_is_refused_when_it_is_saved() {
    let world = World::start().await;
    let api = world.api();
    let cases = [
        ("http: {url: \"ftp://example.org/\"}", "steps[0].http.url"),
        ("http: {url: \"https://a:b@example.org/\"}", "steps[0].http.url"),
        ("http: {url: \"https://example.org/\", headers: {Host: x}}", "steps[0].http.headers"),
        ("http: {url: \"https://example.org/\", body: x, json: 1}", "steps[0].http.json"),
        ("http: {url: \"https://example.org/\", expect: [42]}", "steps[0].http.expect"),
        ("http: {url: \"https://example.org/\"}\n    timeout: 2h", "steps[0].timeout"),
        ("http: {url: \"https://example.org/\"}\n    user: root", "steps[0].user"),
        ("http: {url: \"https://example.org/{{ params.x }}\"}\n    template: true", "steps[0].http.url"),
        ("http: {url: \"https://example.org/\", method: GRAB}", ""),
    ];
    for (step, field) in cases {
        let document = format!("name: bad\nsteps:\n  - name: ask\n    {step}\n");
        let refused = api.post("/api/v1/jobs", &json!({ "document": document })).await.value();
        assert_eq!(refused["status"], 400, "{step}: {refused}");
        let said = refused.to_string();
        assert!(said.contains(field), "{step}: {said}");
    }
}
