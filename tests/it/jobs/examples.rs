//! The jobs of `examples/`, each run on real agents, with what it does there.
//!
//! Each host has folders of its own in the place of some of the machine's (see [`host`]), so that the jobs can write to `/etc`
//! and the like. There is no service manager to restart anything, nothing is installed and nothing restarts: `systemctl`,
//! `apt-get` and `shutdown` are stood in for by scripts of the host, each said where it is made. All else is real.

mod accounts;
mod backups;
mod certificates;
mod configuration;
mod host;
mod incidents;
mod patches;
mod reports;
mod restarts;
mod service;

use std::{collections::BTreeMap, path::PathBuf};

use model::api::{job::Validity, output::Stream};
use opsconductor_tests::{Api, Finished, World, scene};
use serde_json::{Value, json};

use super::{execute, save};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The document of an example.
fn example(name: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{name}.yaml"))).expect("the example is there")
}

/// The document with another text in the place of one that is in it, such as a pause that no test waits for.
#[track_caller]
fn with(document: &str, text: &str, other: &str) -> String {
    assert!(document.contains(text), "the example has no '{text}'");
    document.replace(text, other)
}

/// Whether hosts can have folders of their own here.
fn has_hosts() -> bool {
    if !scene::is_root() {
        scene::skipped("examples need root, for hosts with folders of their own");
    }
    scene::is_root()
}

/// Saves the job and runs it to its end on all hosts, with its output.
async fn run(api: &Api, document: &str, parameters: Value) -> Finished {
    let job = save(api, document).await;
    let body = json!({ "parameters": parameters, "targets": { "all": true } });
    let execution = execute(api, &job, body).await;
    api.finished(execution.id).await;
    let all_there = async || {
        let finished = api.finished(execution.id).await;
        let mut ran = finished.runs.iter().filter(|run| run.attempt > 0);
        ran.all(|run| run.output.complete == Some(true)).then_some(finished)
    };
    opsconductor_tests::eventually(opsconductor_tests::SOON, "the output of what ran is whole", all_there)
        .await
}

/// How a step ended on a host, and what its last try wrote to its standard output.
async fn step(api: &Api, finished: &Finished, host: &str, name: &str) -> (String, String) {
    let run = finished
        .runs
        .iter()
        .find(|run| run.target == host && run.step_name.as_deref() == Some(name))
        .unwrap_or_else(|| panic!("there is no run of {name} on {host}"));
    let query = format!("&target={host}&stream={}", Stream::Stdout.as_str());
    let pieces = api.pieces(finished.id(), &query, 1000).await;
    let own: Vec<_> =
        pieces.into_iter().filter(|piece| (piece.run_id, piece.attempt) == (run.id, run.attempt)).collect();
    let text = String::from_utf8_lossy(&opsconductor_tests::api::bytes(&own)).into_owned();
    (run.state.as_str().to_owned(), text)
}

/// The states of a host's steps, in their order.
async fn states(api: &Api, finished: &Finished) -> Vec<String> {
    super::states(&super::results(api, &finished.execution).await)
}

#[tokio::test]
async fn all_are_valid_and_only_what_must_be_is_dangerous() {
    let world = World::start().await;
    let api = world.api();
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let files = std::fs::read_dir(folder()).expect("the folder is there");
    let mut count = 0;
    for file in files.map(|file| file.expect("it can be listed").path()) {
        let document = std::fs::read_to_string(&file).expect("it is a text");
        let answer = api.post("/api/v1/jobs/validate", &json!({ "document": document })).await.accepted();
        let validity: Validity = answer.json();
        assert!(validity.valid, "{}: {:?}", file.display(), validity.problems);
        let rules: Vec<String> =
            validity.dangers.iter().map(|danger| format!("{} {}", danger.step, danger.rule)).collect();
        if !rules.is_empty() {
            told.insert(validity.name.expect("it has a name"), rules);
        }
        count += 1;
    }
    assert_eq!(count, 10);
    let must: BTreeMap<String, Vec<String>> =
        [("patch-rings".to_owned(), vec!["reboot host.power".to_owned()])].into();
    assert_eq!(told, must);
}
