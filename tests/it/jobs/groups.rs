//! `opsctl logs --group`.

use opsconductor_tests::World;
use serde_json::json;

use super::{agents, run};

#[tokio::test]
async fn hosts_that_came_to_the_same_are_shown_once() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two", "three", "four"]).await;
    let api = world.api();
    let claim = world.folder().join("claim");
    // One of them alone can make the folder.
    let odd = format!("if mkdir '{}' 2>/dev/null; then echo odd >&2; exit 4; fi; echo same", claim.display());
    let document = format!(
        "name: g\ntargets: {{all: true}}\nsteps:\n  - {{name: quiet, run: 'true'}}\n  - {{name: ask, run: \"{odd}\"}}\n"
    );
    let execution = run(&api, &document).await;
    api.whole(execution.id).await;
    let id = execution.id.to_string();

    let said = world.opsctl(&["logs", &id, "--group"]).await.ended(0);
    let text = said.text();
    let groups: Vec<&str> = text.split("\n\n").collect();
    let [quiet, same, odd] = groups.as_slice() else { panic!("{said}") };
    assert_eq!(*quiet, "quiet: succeeded, exit code 0: 4 hosts: four, one, three, two");
    assert!(
        same.starts_with("ask: succeeded, exit code 0: 3 hosts: ") && same.ends_with("\nstdout | same"),
        "{said}"
    );
    assert!(
        odd.starts_with("ask: failed, exit code 4: 1 host: ") && odd.ends_with("\nstderr | odd\n"),
        "{said}"
    );

    let said = world.opsctl(&["logs", &id, "--group", "--step", "ask", "-o", "json"]).await.ended(0);
    let groups = said.json();
    assert_eq!(groups.as_array().map(Vec::len), Some(2), "{said}");
    assert_eq!((&groups[0]["hosts"], &groups[0]["stdout"]), (&json!(3), &json!("same\n")), "{said}");
    assert_eq!((&groups[1]["exit_code"], &groups[1]["stderr"]), (&json!(4), &json!("odd\n")), "{said}");
    assert_eq!(groups[0]["targets"].as_array().map(Vec::len), Some(3), "{said}");

    let said = world.opsctl(&["logs", &id, "--group", "--step", "ask", "--stream", "stdout"]).await.ended(0);
    assert!(said.text().contains("stdout | same") && !said.text().contains("| odd"), "{said}");
    world.opsctl(&["logs", &id, "--group", "--step", "none"]).await.ended(5);
    world.opsctl(&["logs", &id, "--group", "--follow"]).await.ended(2);
}

#[tokio::test]
async fn a_command_of_its_own_has_groups_too() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two", "three"]).await;
    let said =
        world.opsctl(&["exec", "--all", "-o", "json", "--shell", "printf 'a\\nb\\nno end'"]).await.ended(0);
    let id = said.json()["execution"]["id"].as_str().expect("an id").to_owned();
    let said = world.opsctl(&["logs", &id, "-g"]).await.ended(0);
    assert_eq!(
        said.text(),
        "succeeded, exit code 0: 3 hosts: one, three, two\nstdout | a\nstdout | b\nstdout | no end\n"
    );
    let said = world.opsctl(&["logs", &id, "-g", "--tail", "1"]).await.ended(0);
    assert_eq!(said.text(), "succeeded, exit code 0: 3 hosts: one, three, two\nstdout | no end\n");
}
