//! `opsctl job apply`: what the controller has becomes what the files say.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use model::{
    api::job::{Change, Job, SaveJob, SavedJob},
    selector::Selector,
};
use serde::Serialize;

use super::{JOBS, files, path};
use crate::{
    args::ApplyArgs,
    client::Client,
    exit::Usage,
    output::{self, Table},
};

/// What was done, or would be, about one job.
#[derive(Debug, Serialize)]
struct Applied {
    name: String,
    /// `created`, `updated`, `unchanged` or `deleted`.
    change: &'static str,
    version: i32,
}

/// # Errors
/// When a document is wrong, and as the requests; what was done before is shown.
pub(super) async fn run(client: &Client, args: ApplyArgs) -> Result<()> {
    if let Some(selector) = &args.selector {
        Selector::parse(selector).map_err(|error| Usage(format!("--selector: {error}")))?;
    }
    let jobs = files::check(files::read(&args.files)?)?;
    let names: BTreeSet<String> = jobs.iter().map(|(_, job)| job.name.clone()).collect();
    let saves: Vec<(String, SaveJob)> = jobs
        .into_iter()
        .map(|(document, job)| {
            let (comment, dry_run) = (args.comment.clone(), args.dry_run);
            (job.name, SaveJob { document: document.text, comment, expected_version: None, dry_run })
        })
        .collect();
    for (_, save) in &saves {
        save.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    }
    let mut applied = Vec::new();
    let result =
        send(client, saves, args.selector.filter(|_| args.prune), &names, args.dry_run, &mut applied);
    let result = result.await;
    if !applied.is_empty() || result.is_ok() {
        output::show(args.shown.output, &applied, |applied| table(applied))?;
    }
    if args.dry_run {
        output::note("nothing is changed: it is a dry run");
    }
    result
}

async fn send(
    client: &Client,
    saves: Vec<(String, SaveJob)>,
    prune: Option<String>,
    names: &BTreeSet<String>,
    dry_run: bool,
    applied: &mut Vec<Applied>,
) -> Result<()> {
    for (name, save) in saves {
        let saved: Result<SavedJob, _> = client.put(&path(&name, &[]), &save).await;
        let saved = saved.with_context(|| format!("cannot save the job {name}"))?;
        for danger in &saved.dangers {
            output::note(&format!(
                "{}, step {}: {}: {}",
                saved.name, danger.step, danger.severity, danger.why
            ));
        }
        applied.push(Applied { name: saved.name, change: word(saved.change), version: saved.version });
    }
    // What goes is chosen when all that comes is there.
    let Some(selector) = prune else { return Ok(()) };
    let there: Vec<Job> = client.pages(&JOBS, vec![("selector", selector)], None).all().await?;
    for job in surplus(there, names) {
        if !dry_run {
            let id = job.id.to_string();
            client
                .delete(&path(&id, &[]))
                .await
                .with_context(|| format!("cannot delete the job {}", job.name))?;
        }
        applied.push(Applied { name: job.name, change: "deleted", version: job.version });
    }
    Ok(())
}

/// Those of the jobs that the selector matches that are not among the files.
fn surplus(there: Vec<Job>, names: &BTreeSet<String>) -> Vec<Job> {
    there.into_iter().filter(|job| !names.contains(&job.name)).collect()
}

/// What a save did, as the end of a sentence.
pub(in crate::cmd) const fn word(change: Change) -> &'static str {
    match change {
        Change::Created => "created",
        Change::Updated => "updated",
        Change::Unchanged => "unchanged",
    }
}

fn table(applied: &[Applied]) -> String {
    let mut table = Table::new(&["NAME", "CHANGE", "VERSION"]);
    for one in applied {
        table.row([one.name.clone(), one.change.to_owned(), one.version.to_string()]);
    }
    table.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_no_file_goes() {
        let job = |name: &str| -> Job {
            serde_json::from_value(serde_json::json!({
                "id": "00000000-0000-7000-8000-000000000001", "name": name, "labels": {}, "version": 1,
                "author": "ada", "created_at": "2026-01-31T08:00:00Z", "updated_at": "2026-01-31T08:00:00Z",
            }))
            .unwrap()
        };
        let names = BTreeSet::from(["a".to_owned(), "c".to_owned()]);
        let gone: Vec<String> =
            surplus(["a", "b", "c", "d"].map(job).into(), &names).into_iter().map(|job| job.name).collect();
        assert_eq!(gone, ["b", "d"]);
        assert!(surplus(Vec::new(), &names).is_empty());
    }
}
