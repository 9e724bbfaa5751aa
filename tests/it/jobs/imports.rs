//! Jobs that `opsctl job import` has made run as they did where they come from.

use opsconductor_tests::World;
use serde_json::json;

use super::agents;

const RUNDECK: &str = r#"
- name: Say It
  nodefilters:
    dispatch: {threadcount: 2}
    filter: 'name: one,two'
  options:
  - {name: Word, required: true}
  - {name: list, multivalued: true, delimiter: ',', value: 'a,b c'}
  sequence:
    strategy: node-first
    commands:
    - exec: printf '[%s]' ${option.Word} "in ${option.Word}" 'in ${option.Word}' ${option.list}
      description: words
    - exec: exit 3
      description: breaks
      errorhandler: {exec: 'echo handled ${option.Word}', keepgoingOnSuccess: true}
    - script: |
        printf '<%s>' "$@" "$RD_OPTION_WORD"
      args: --word ${option.Word} 'two words'
      scriptInterpreter: bash
      description: arguments
    - jobref: {name: Other}
      description: elsewhere
"#;

const CRONTAB: &str = "\
SHELL=/bin/sh
GREETING='good  morning'
# Greets
0 5 * * * cat; printf '\\%s\\%\\%' \"$GREETING\"%first%second
";

#[tokio::test]
async fn a_job_of_rundeck_runs() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two", "three"]).await;
    let said = world.opsctl_with_input(&["job", "import", "rundeck", "-"], RUNDECK.as_bytes()).await.ended(0);
    assert!(said.stderr.contains("<stdin>:") && said.stderr.contains("jobref"), "{said}");
    world.opsctl_with_input(&["job", "apply", "-f", "-"], &said.stdout).await.ended(0);
    let word = "a  'b' \"$(echo no)\" `echo no` *";
    let said =
        world.opsctl(&["run", "say-it", "-p", &format!("word={word}"), "-o", "json"]).await.ended(1).json();
    let outputs = |step: &str, stream: &str| -> Vec<String> {
        let runs = said["runs"].as_array().expect("runs");
        let of_step = runs.iter().filter(|run| run["step_name"] == step);
        of_step.map(|run| run[stream].as_str().unwrap_or_default().to_owned()).collect()
    };
    let words = format!("[{word}][in {word}][in {word}][a,b c]");
    assert_eq!(outputs("words", "stdout"), [words.clone(), words], "{said:#}");
    let handled = format!("handled {word}\n");
    assert_eq!(outputs("breaks-failed", "stdout"), [handled.clone(), handled], "{said:#}");
    let arguments = format!("<--word><{word}><two words><{word}>");
    assert_eq!(outputs("arguments", "stdout"), [arguments.clone(), arguments], "{said:#}");
    assert!(outputs("elsewhere", "stderr")[0].starts_with("not carried over: "), "{said:#}");
}

#[tokio::test]
async fn an_entry_of_a_crontab_runs() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let file = world.folder().join("crontab");
    std::fs::write(&file, CRONTAB).expect("the folder can be written");
    let (file, folder) = (file.display().to_string(), world.folder().join("jobs").display().to_string());
    let import = ["job", "import", "crontab", &file, "-t", "one", "--dir", &folder, "-o", "json"];
    let said = world.opsctl(&import).await.ended(0).json();
    assert_eq!(said["jobs"][0]["name"], json!("cat"), "{said:#}");
    let schedule = said["remarks"].as_array().expect("remarks").iter().find(|one| one["field"] == "schedule");
    assert_eq!(schedule.map(|one| &one["line"]), Some(&json!(4)), "{said:#}");
    // Once there, they stay.
    let again = world.opsctl(&import).await.ended(2);
    assert!(again.stderr.contains("there already") && again.stderr.contains("cat.yaml"), "{again}");
    let strict = ["job", "import", "crontab", &file, "--strict"];
    assert!(world.opsctl(&strict).await.ended(1).stdout.is_empty());
    std::fs::write(&file, "0 5 * *\n").expect("the folder can be written");
    let bad = world.opsctl(&["job", "import", "crontab", &file]).await.ended(2);
    assert!(bad.stderr.contains("crontab:1: "), "{bad}");

    world.opsctl(&["job", "apply", "-f", &folder]).await.ended(0);
    let said = world.opsctl(&["run", "cat", "-o", "json"]).await.ended(0).json();
    assert_eq!(said["runs"][0]["stdout"], json!("first\nsecond\ngood  morning%"), "{said:#}");
}
