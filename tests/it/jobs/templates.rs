//! Job templates: documents that an organization makes its jobs of.

use model::{
    api::{
        Page,
        job_template::{FilledJobTemplate, JobTemplate, JobTemplateSaved},
    },
    job::{Job, parse},
};
use opsconductor_tests::{Api, World, world::PASSWORD};
use serde_json::{Value, json};

use super::{agents, diary, types, written};

const PATH: &str = "/api/v1/job-templates";

/// A template of jobs that write into the diary.
fn template(world: &World) -> String {
    format!(
        "\
# Greets somebody.
name: greet
description: Greet somebody
parameters:
  name: {{type: string, required: true}}
  who: {{type: string, default: world, pattern: '[a-z ]+'}}
  times: {{type: integer, default: 1, minimum: 1, maximum: 3}}
  hosts: {{type: list, required: true}}
job:
  name: ${{{{ name }}}}
  description: Greets ${{{{ who }}}} ${{{{ times }}}} times
  targets:
    hosts: ${{{{ hosts }}}}
    max_targets: ${{{{ times }}}}
  steps:
    - name: greet
      # As often as asked.
      run: |
        #!/bin/sh
        for n in $(seq ${{{{ times }}}}); do echo \"hello $WHO\" >>{}; done
      env: {{WHO: \"${{{{ who }}}}\"}}
",
        diary(world).display()
    )
}

async fn saved(api: &Api, document: &str) -> JobTemplateSaved {
    api.post(PATH, &json!({ "document": document })).await.accepted().json()
}

async fn names(api: &Api) -> Vec<String> {
    let page: Page<JobTemplate> = api.get(PATH).await.accepted().json();
    page.items.into_iter().map(|template| template.name).collect()
}

async fn fill(api: &Api, name: &str, parameters: Value) -> FilledJobTemplate {
    let request = json!({ "parameters": parameters });
    api.post(&format!("{PATH}/{name}/fill"), &request).await.accepted().json()
}

#[tokio::test]
async fn a_job_that_is_made_of_a_template_runs() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let file = world.folder().join("greet.yaml");
    std::fs::write(&file, template(&world)).expect("the folder can be written");
    let file = file.display().to_string();
    let said = world.opsctl(&["job", "template", "apply", "-f", &file]).await.ended(0);
    assert!(said.text().contains("greet  created  1"), "{said}");
    let said = world.opsctl(&["job", "template", "apply", "-f", &file, "-o", "json"]).await.ended(0).json();
    assert_eq!(said[0]["change"], json!("unchanged"));
    let said = types(&world, "job template list").await.ended(0);
    assert!(said.text().contains("disk-report") && said.text().contains("greet"), "{said}");
    let said = types(&world, "job template show greet --yaml").await.ended(0);
    assert_eq!(said.text(), template(&world));
    let said = types(&world, "job template show greet").await.ended(0);
    assert!(said.text().contains("hosts      list     (required)"), "{said}");

    let job = world.folder().join("hello.yaml").display().to_string();
    let new = [
        "job",
        "new",
        "hello",
        "--template",
        "greet",
        "--file",
        &job,
        "-p",
        "times=2",
        "-p",
        "hosts=one,two",
    ];
    let all = [new.as_slice(), &["--set", "who=the whole world"]].concat();
    world.opsctl(&all).await.ended(0);
    let again = world.opsctl(&all).await.ended(2);
    assert!(again.stderr.contains("--force"), "{again}");
    let text = std::fs::read_to_string(&job).expect("it was written");
    assert!(text.contains("# As often as asked.\n"), "{text}");
    world.opsctl(&["job", "apply", "-f", &job]).await.ended(0);
    types(&world, "run hello").await.ended(0);
    assert_eq!(written(&world), ["hello the whole world"; 4]);

    // Nothing is printed that is no job, or not what was asked.
    let bad = types(&world, "job new hello --template greet -p hosts=one -p times=4").await.ended(2);
    assert!(bad.stderr.contains("parameters.times is 4; at most 3 is allowed"), "{bad}");
    let bad = types(&world, "job new hello --template greet -p hosts=one -p times=many").await.ended(2);
    assert!(bad.stderr.contains("'times' has a value that is not a whole number"), "{bad}");
    let bad = types(&world, "job new hello --template nothing").await;
    assert!(bad.stderr.contains("no job template 'nothing'") && bad.stdout.is_empty(), "{bad}");
    types(&world, "job template delete greet").await.ended(0);
    assert!(!names(&world.api()).await.contains(&"greet".to_owned()));
}

#[tokio::test]
async fn what_is_built_in_needs_no_controller() {
    let world = World::start().await;
    let api = world.api();
    world.stop_controller();
    let said = types(&world, "job new nightly --template disk-report").await.ended(0);
    let job = parse(&said.text()).expect("a job");
    assert_eq!(job.name, "nightly");
    assert!(said.text().starts_with("# Says which file systems are nearly full"), "{said}");
    let said = types(&world, "job template list --built-in -o json").await.ended(0).json();
    assert_eq!(said.as_array().expect("a list").len(), 10);
    types(&world, "job template show disk-report").await.ended(0);
    types(&world, "job new greet").await.ended(3);

    world.start_controller().await;
    for name in ["backup-verify", "disk-report", "rolling-restart"] {
        let shown: JobTemplate = api.get(&format!("{PATH}/{name}")).await.accepted().json();
        assert!(shown.built_in && shown.version.is_none() && shown.document.is_some());
        let filled = fill(&api, name, json!({ "name": "mine" })).await;
        assert_eq!(parse(&filled.document).expect("a job"), filled.job);
        let save = json!({ "document": shown.document });
        let refused = api.put(&format!("{PATH}/{name}"), &save).await.refused(409, "conflict");
        assert!(refused.detail.contains("part of the program"), "{}", refused.detail);
        api.post(PATH, &save).await.refused(409, "conflict");
        api.delete(&format!("{PATH}/{name}")).await.refused(409, "conflict");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_place() {
    let world = World::start().await;
    let api = world.api();
    let unknown =
        "name: t\nparameters:\n  service: {type: string}\njob:\n  steps:\n    - run: a ${{ srvice }}\n";
    let bad = api.post(PATH, &json!({ "document": unknown })).await.refused(400, "invalid_document");
    let place = "line 6, column 12: job.steps[0].run uses 'srvice'";
    assert!(bad.detail.contains(place) && bad.detail.contains("did you mean 'service'?"), "{}", bad.detail);
    let file = world.folder().join("t.yaml");
    std::fs::write(&file, unknown).expect("the folder can be written");
    let file = file.display().to_string();
    let said = world.opsctl(&["job", "template", "apply", "-f", &file]).await.ended(2);
    assert!(said.stderr.contains("t.yaml:6:12: job.steps[0].run uses 'srvice'"), "{said}");
    for document in
        ["name: t\n", "name: t\njob: a\n", "name: A b\njob: {}\n", "name: t\njob: {}\nsteps: []\n", "[", ""]
    {
        api.post(PATH, &json!({ "document": document })).await.refused(400, "invalid_document");
    }
    let other = json!({ "document": "name: other\njob: {}\n" });
    api.put(&format!("{PATH}/t"), &other).await.refused(400, "invalid");
    assert_eq!(names(&api).await.len(), 10, "nothing was saved");

    saved(&api, &template(&world)).await;
    let refused = async |parameters: Value| {
        let request = json!({ "parameters": parameters });
        api.post(&format!("{PATH}/greet/fill"), &request).await.refused(400, "invalid")
    };
    for (parameters, field) in [
        (json!({ "hosts": ["one"] }), "parameters.name"),
        (json!({ "name": "a", "hosts": "one" }), "parameters.hosts"),
        (json!({ "name": "a", "hosts": ["one"], "times": "2" }), "parameters.times"),
        (json!({ "name": "a", "hosts": ["one"], "whom": "b" }), "parameters.whom"),
        (json!({ "name": "a", "hosts": ["one"], "who": "b\n  run: rm -rf /" }), "parameters.who"),
        (json!({ "name": "a b", "hosts": ["one"] }), "job.name"),
        (json!({ "name": "a", "hosts": [] }), "job.targets"),
    ] {
        let problem = refused(parameters.clone()).await;
        assert_eq!(problem.field.as_deref(), Some(field), "{parameters}: {}", problem.detail);
    }
    // A value is data, whatever it looks like.
    let hostile = "name: sly\nparameters: {x: {type: string}}\njob:\n  name: j\n  targets: {all: true}\n  steps:\n    - {name: a, argv: [echo, \"${{ x }}\"]}\n";
    saved(&api, hostile).await;
    for x in ["\"\n  run: rm -rf /", "]}\n    - {name: b, run: 'rm -rf /'}", "${{ x }}"] {
        let filled = fill(&api, "sly", json!({ "x": x })).await;
        let job: Job = parse(&filled.document).expect("a job");
        assert_eq!(
            (job.steps.len(), job.steps[0].argv.as_deref()),
            (1, Some(["echo".into(), x.into()].as_slice()))
        );
        let document = json!({ "document": filled.document });
        let validity = api.post("/api/v1/jobs/validate", &document).await.accepted().value();
        assert_eq!(validity["valid"], json!(true));
    }
}

#[tokio::test]
async fn who_is_slower_does_not_overwrite() {
    let world = World::start().await;
    let api = world.api();
    let path = format!("{PATH}/greet");
    let first = template(&world);
    let one = saved(&api, &first).await;
    assert_eq!(one.version, 1);
    api.post(PATH, &json!({ "document": first })).await.refused(409, "conflict");
    let second = first.replace("hello $WHO", "hi $WHO");
    let save = json!({ "document": second, "expected_version": 1 });
    let two: JobTemplateSaved = api.put(&path, &save).await.accepted().json();
    assert_eq!((two.version, two.id), (2, one.id));
    let save = json!({ "document": first, "expected_version": 1 });
    let late = api.put(&path, &save).await.refused(409, "conflict");
    assert!(late.detail.contains("at version 2 by administrator"), "{}", late.detail);
    let shown: JobTemplate = api.get(&path).await.accepted().json();
    assert_eq!((shown.document.as_deref(), shown.version), (Some(second.as_str()), Some(2)));
    assert_eq!(shown.parameters.len(), 4);
    // Many at once: one is first, and the others are told.
    let third = json!({ "document": first, "expected_version": 2 });
    let puts: Vec<u16> = at_once(&api, &path, &third).await;
    assert_eq!(puts.iter().filter(|status| **status == 200).count(), 1, "{puts:?}");
    assert!(puts.iter().all(|status| matches!(status, 200 | 409)), "{puts:?}");
    let gone = json!({ "document": "name: gone\njob: {}\n", "expected_version": 3 });
    api.put(&format!("{PATH}/gone"), &gone).await.refused(409, "conflict");

    api.delete(&path).await.accepted();
    api.get(&path).await.refused(404, "not_found");
    api.delete(&path).await.refused(404, "not_found");
    let audit = api.get(&format!("/api/v1/audit?object=job-template/{}", one.id)).await.accepted().value();
    let entries = audit["items"].as_array().expect("entries");
    let verbs: Vec<&str> = entries.iter().map(|e| e["entry"]["verb"].as_str().expect("a verb")).collect();
    let update = "job_template.update";
    assert_eq!(verbs, ["job_template.delete", update, update, "job_template.create"]);
    assert_eq!(entries[1]["entry"]["detail"]["before"], entries[2]["entry"]["detail"]["sha256"]);
}

/// The states of four of the same request at a time.
async fn at_once(api: &Api, path: &str, body: &Value) -> Vec<u16> {
    let put = || async { api.put(path, body).await.status };
    let (a, b, c, d) = tokio::join!(put(), put(), put(), put());
    vec![a, b, c, d]
}

#[tokio::test]
async fn pages_have_both_kinds_in_one_order() {
    let world = World::start().await;
    let api = world.api();
    for name in ["a", "disk.report", "disk-a", "disk-z", "diskreport", "zz"] {
        saved(&api, &format!("name: {name}\njob: {{}}\n")).await;
    }
    let mut all: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: Page<JobTemplate> = api.get(&format!("{PATH}?limit=3{cursor}")).await.accepted().json();
        all.extend(page.items.into_iter().map(|template| template.name));
        let Some(next) = page.next_cursor else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(all.len(), 16, "{all:?}");
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
}

#[tokio::test]
async fn templates_are_an_organizations_own() {
    let world = World::start().await;
    let administrator = world.administrator().await;
    let api = world.api();
    saved(&api, "name: ours\njob: {name: a}\n").await;

    // Another organization has one of the same name, and does not see this one.
    administrator.post("/api/v1/organizations", &json!({ "name": "other" })).await.accepted();
    let there = world.session(&world.log_in("administrator", PASSWORD, Some("other")).await);
    assert_eq!(names(&there).await.len(), 10);
    there.get(&format!("{PATH}/ours")).await.refused(404, "not_found");
    there.delete(&format!("{PATH}/ours")).await.refused(404, "not_found");
    saved(&there, "name: ours\njob: {name: b}\n").await;
    let shown = |api: Api| async move {
        let shown: JobTemplate = api.get(&format!("{PATH}/ours")).await.accepted().json();
        shown.document.expect("a document")
    };
    assert!(shown(there.clone()).await.contains("name: b") && shown(api.clone()).await.contains("name: a"));
    there.delete(&format!("{PATH}/ours")).await.accepted();
    assert!(shown(api.clone()).await.contains("name: a"));

    // They are for all jobs: who manages some may use them, and change none.
    let nobody = world.person("nora", None).await;
    nobody.get(PATH).await.refused(403, "forbidden");
    nobody.post(&format!("{PATH}/ours/fill"), &json!({})).await.refused(403, "forbidden");
    let viewer = world.person("vera", Some("viewer")).await;
    assert!(names(&viewer).await.contains(&"ours".to_owned()));
    viewer.post(PATH, &json!({ "document": "name: mine\njob: {}\n" })).await.refused(403, "forbidden");
    let dora = world.person("dora", None).await;
    let binding = json!({ "role": "author", "user": "dora", "jobs": "team=web" });
    api.post("/api/v1/role-bindings", &binding).await.accepted();
    dora.post(&format!("{PATH}/disk-report/fill"), &json!({})).await.accepted();
    let save = json!({ "document": "name: ours\njob: {}\n" });
    dora.put(&format!("{PATH}/ours"), &save).await.refused(403, "forbidden");
    dora.delete(&format!("{PATH}/ours")).await.refused(403, "forbidden");
}
