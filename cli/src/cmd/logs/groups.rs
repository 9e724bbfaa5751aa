//! `opsctl logs --group`: hosts that came to the same stand together, with what they wrote once.

use anyhow::Result;
use model::{
    Reason,
    api::{
        job::OutputGroup,
        output::{OutputPiece, Stream},
    },
    limits,
    run::RunState,
};
use serde::Serialize;

use super::Sink;
use crate::{
    args::LogsArgs,
    client::Client,
    exit::{Exit, NoMatch},
    output::{self, Content, Format, human, lines::Lines},
    report::{OutputDocument, Report},
};

/// Hosts that a group names before it counts the rest.
const NAMES: usize = 10;
/// SHA-256 of nothing, in hex.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A group with what its example wrote.
#[derive(Debug, Serialize)]
struct GroupDocument {
    #[serde(flatten)]
    group: OutputGroup,
    #[serde(flatten)]
    output: OutputDocument,
}

/// # Errors
/// As the requests, when there is no such step, and when stdout is closed or full.
pub(super) async fn run(client: &Client, args: &LogsArgs) -> Result<Exit> {
    let mut groups = client.groups(args.execution).await?;
    let is_cut = i64::try_from(groups.len()).is_ok_and(|count| count >= limits::OUTPUT_GROUPS);
    if let Some(step) = &args.step {
        groups.retain(|group| group.step_name.as_ref() == Some(step));
        if groups.is_empty() {
            let why = format!("the execution {} has no step '{step}' on its hosts", args.execution);
            return Err(NoMatch(why).into());
        }
    }
    match args.output {
        Format::Table => table(client, args, &groups).await?,
        Format::Json | Format::Yaml => document(client, args, groups).await?,
    }
    if is_cut {
        output::note(&format!(
            "there may be more: an answer has the {} largest groups at most",
            limits::OUTPUT_GROUPS
        ));
    }
    Ok(Exit::Succeeded)
}

/// Writes each group as a line that says what it is, and what it wrote with each line behind the name of its stream: so no
/// host can write what looks like another group.
async fn table(client: &Client, args: &LogsArgs, groups: &[OutputGroup]) -> Result<()> {
    if groups.is_empty() {
        output::note("nothing to list");
    }
    let colour = output::wants_colour(Stream::Stdout);
    for (index, group) in groups.iter().enumerate() {
        let before = if index > 0 { "\n" } else { "" };
        output::print(&format!("{before}{}\n", head(group)))?;
        if !may_have_written(group) {
            continue;
        }
        let mut lines = Lines::new(colour, colour);
        let mut sink = Sink::new(args);
        each_piece(client, args, group, |mut piece, content| {
            piece.stream.as_str().clone_into(&mut piece.target);
            sink.write(Stream::Stdout, &lines.piece(&piece, &content))
        })
        .await?;
        for (_, bytes) in lines.finish() {
            sink.write(Stream::Stdout, &bytes)?;
        }
        sink.release()?;
    }
    Ok(())
}

async fn document(client: &Client, args: &LogsArgs, groups: Vec<OutputGroup>) -> Result<()> {
    let mut all = Vec::with_capacity(groups.len());
    for group in groups {
        let mut report = Report::default();
        if may_have_written(&group) {
            each_piece(client, args, &group, |piece, content| {
                report.take(&piece, content);
                Ok(())
            })
            .await?;
        }
        all.push(GroupDocument { output: report.output_of(group.example), group });
    }
    output::show(args.output, &all, |_| String::new())
}

/// Hands over what the newest try of the group's example wrote.
async fn each_piece(
    client: &Client,
    args: &LogsArgs,
    group: &OutputGroup,
    mut take: impl FnMut(OutputPiece, Content) -> Result<()>,
) -> Result<()> {
    let mut query = vec![("target", group.example_target.clone()), ("attempt", "newest".to_owned())];
    query.extend(args.stream.map(|stream| ("stream", Stream::from(stream).as_str().to_owned())));
    let mut after = None;
    loop {
        let page = client.output(args.execution, &query, after).await?;
        let is_last = page.end || page.items.is_empty();
        for mut piece in page.items {
            if piece.run_id == group.example {
                let content = Content::take(&mut piece)?;
                take(piece, content)?;
            }
        }
        if is_last {
            return Ok(());
        }
        after = Some(page.next_after);
    }
}

/// Whether it is worth asking what was written.
fn may_have_written(group: &OutputGroup) -> bool {
    let is_nothing = |hash: &Option<String>| hash.as_deref() == Some(NOTHING);
    let has_begun = !matches!(group.state, RunState::Blocked | RunState::Queued | RunState::Skipped);
    has_begun && !(is_nothing(&group.stdout_sha256) && is_nothing(&group.stderr_sha256))
}

/// `STEP: STATE, exit code N: HOSTS: NAME, NAME and N more`.
fn head(group: &OutputGroup) -> String {
    let mut line = group.step_name.as_ref().map_or_else(String::new, |step| format!("{step}: "));
    line.push_str(group.state.as_str());
    match (group.exit_code, group.reason) {
        (Some(code), None | Some(Reason::Exited)) => line.push_str(&format!(", exit code {code}")),
        (Some(code), Some(reason)) => line.push_str(&format!(", exit code {code}, {}", reason.as_str())),
        (None, Some(reason)) => line.push_str(&format!(", {}", reason.as_str())),
        (None, None) => {}
    }
    let named = group.targets.iter().take(NAMES);
    let names: Vec<&str> = named.map(String::as_str).collect();
    line.push_str(&format!(": {}: {}", human::count(group.hosts, "host"), names.join(", ")));
    let left = group.hosts - i64::try_from(names.len()).unwrap_or(group.hosts);
    if left > 0 {
        line.push_str(&format!(" and {left} more"));
    }
    // Equal hashes are what says that output is equal; where hosts told none, nothing does.
    let is_known = group.stdout_sha256.is_some() && group.stderr_sha256.is_some();
    if group.hosts > 1 && !is_known && may_have_written(group) {
        line.push_str(&format!(" (output of {}; the others' may differ)", group.example_target));
    }
    line
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn group(value: serde_json::Value) -> OutputGroup {
        let mut whole = serde_json::json!({
            "state": "succeeded", "hosts": 1, "targets": ["web-1"], "example_target": "web-1",
            "example": "00000000-0000-7000-8000-000000000001", "stdout_sha256": "ab", "stderr_sha256": NOTHING,
        });
        let serde_json::Value::Object(value) = value else { panic!("an object") };
        for (key, value) in value {
            whole[key] = value;
        }
        serde_json::from_value(whole).expect("a group")
    }

    #[test]
    fn nothing_has_this_hash() {
        assert_eq!(hex::encode(Sha256::digest(b"")), NOTHING);
        let wrote = |value| may_have_written(&group(value));
        assert!(wrote(serde_json::json!({})));
        assert!(!wrote(serde_json::json!({ "stdout_sha256": NOTHING })));
        assert!(wrote(serde_json::json!({ "stdout_sha256": null, "stderr_sha256": null })));
        assert!(!wrote(
            serde_json::json!({ "state": "skipped", "stdout_sha256": null, "stderr_sha256": null })
        ));
    }

    #[test]
    fn the_head_of_a_group() {
        let names: Vec<String> = (100..200).map(|n| format!("web-{n}")).collect();
        for (value, want) in [
            (
                serde_json::json!({ "exit_code": 0, "reason": "exited" }),
                "succeeded, exit code 0: 1 host: web-1",
            ),
            (
                serde_json::json!({ "step_name": "ask", "state": "failed", "exit_code": 4, "hosts": 998, "targets": names }),
                "ask: failed, exit code 4: 998 hosts: web-100, web-101, web-102, web-103, web-104, web-105, web-106, \
                 web-107, web-108, web-109 and 988 more",
            ),
            (
                serde_json::json!({ "state": "failed", "reason": "unknown_user", "hosts": 2, "targets": ["a", "b"] }),
                "failed, unknown_user: 2 hosts: a, b",
            ),
            (
                serde_json::json!({ "state": "active", "hosts": 2, "targets": ["web-1", "web-2"], "stdout_sha256": null }),
                "active: 2 hosts: web-1, web-2 (output of web-1; the others' may differ)",
            ),
        ] {
            assert_eq!(head(&group(value)), want);
        }
    }
}
