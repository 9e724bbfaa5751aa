//! The hosts on which an execution changed something.

use model::{
    api::undo::{ChangedHost, Changes},
    run::RunState,
};

use crate::output::{Table, human};

/// A row for each host, and whether it can be undone from here.
pub(super) fn list(changes: &Changes) -> String {
    let mut table = Table::new(&["TARGET", "STATE", "WENT WELL", "DID NOT"]);
    for host in &changes.hosts {
        let (well, not) = (runs(host, true), runs(host, false));
        table.row([host.target.clone(), host.state.clone(), human::or_dash(well), human::or_dash(not)]);
    }
    let hosts = human::count(changes.total, "host");
    let how = match &changes.refused {
        Some(why) => format!("cannot be undone from here: {why}"),
        None if changes.total == 0 => "nothing to undo".to_owned(),
        None => format!("undo it with: opsctl execution undo {}", changes.execution_id),
    };
    format!("{}\n{hosts} changed; {how}\n", table.take())
}

/// Its runs that succeeded, or those that did not, by the names of their steps.
fn runs(host: &ChangedHost, succeeded: bool) -> Option<String> {
    let runs = host.runs.iter().filter(|run| (run.state == RunState::Succeeded) == succeeded);
    let words = runs.map(|run| {
        let name = run.step.as_deref().unwrap_or("command");
        let exit = run.exit_code.map(|code| format!(" {code}")).unwrap_or_default();
        if succeeded { name.to_owned() } else { format!("{name} ({}{exit})", run.state.as_str()) }
    });
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_what_began_there() {
        let id = "00000000-0000-7000-8000-000000000001";
        let run = |step: &str, state: &str, exit: i32| serde_json::json!({ "run_id": id, "step": step, "state": state, "exit_code": exit });
        let changes: Changes = serde_json::from_value(serde_json::json!({
            "execution_id": id, "total": 1,
            "hosts": [{
                "agent_id": id, "target": "web-1", "state": "failed",
                "runs": [run("a", "succeeded", 0), run("b", "failed", 3)],
            }],
        }))
        .unwrap();
        assert_eq!(
            list(&changes),
            format!(
                "TARGET  STATE   WENT WELL  DID NOT\n\
                 web-1   failed  a          b (failed 3)\n\n\
                 1 host changed; undo it with: opsctl execution undo {id}\n"
            )
        );
        let refused = Changes { refused: Some("it is not over".to_owned()), ..changes };
        assert!(list(&refused).ends_with("1 host changed; cannot be undone from here: it is not over\n"));
    }
}
