//! `opsctl job history`, `diff` and `revert`: what a job was before.

use std::path::PathBuf;

use anyhow::Result;
use model::api::job::{Job, JobVersion, SaveJob, SavedJob};
use similar::TextDiff;

use super::{apply, document_of, files, path};
use crate::{
    args::{DiffArgs, Files, OneJob},
    client::Client,
    clock,
    exit::{NoMatch, Usage},
    output::{self, human},
};

/// Lines around a change.
const CONTEXT_LINES: usize = 3;
/// Digits of a hash that a table shows.
const HASH_DIGITS: usize = 12;

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(super) async fn history(client: &Client, job: &OneJob) -> Result<()> {
    let now = clock::now();
    let header = &["VERSION", "CREATED", "AUTHOR", "SHA256", "COMMENT"];
    let pages = client.pages(&path(&job.name, &["versions"]), Vec::new(), None);
    output::list(pages, job.shown.output, header, |version: &JobVersion| {
        vec![
            version.version.to_string(),
            human::relative(version.created_at, now),
            version.author.clone(),
            version.sha256.chars().take(HASH_DIGITS).collect(),
            version.comment.clone().unwrap_or_default(),
        ]
    })
    .await
}

/// # Errors
/// As the requests, when there is no such version or document, and when stdout is closed or full.
pub(super) async fn diff(client: &Client, args: DiffArgs) -> Result<()> {
    let job: Job = client.get(&path(&args.name, &[]), &[]).await?;
    let title = |version: i32| format!("{} (version {version})", job.name);
    let newest = || document_of(client, &job);
    let (from, from_title, to, to_title) = if let Some(file) = args.file {
        let text = in_file(file.clone(), &job.name)?;
        (newest()?, title(job.version), text, file.display().to_string())
    } else {
        let from = args.from.unwrap_or(job.version - 1);
        let to = args.to.unwrap_or(job.version);
        if from == 0 {
            return Err(NoMatch(format!("the job {} has only one version", job.name)).into());
        }
        let (before, after) = (version(client, &job, from).await?, version(client, &job, to).await?);
        (before, title(from), after, title(to))
    };
    let text = unified(&from, &to, &from_title, &to_title);
    if text.is_empty() {
        output::note("there is no difference");
    }
    output::print(&text)
}

/// What differs, with the lines around.
pub(in crate::cmd) fn unified(from: &str, to: &str, from_title: &str, to_title: &str) -> String {
    TextDiff::from_lines(from, to)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(from_title, to_title)
        .to_string()
}

/// The text of one version.
async fn version(client: &Client, job: &Job, number: i32) -> Result<String> {
    if number == job.version {
        return document_of(client, job);
    }
    let id = job.id.to_string();
    let version: JobVersion = client.get(&path(&id, &["versions", &number.to_string()]), &[]).await?;
    let lacks = || client.undecodable(&"the version has no document");
    Ok(version.document.ok_or_else(lacks)?)
}

/// The document of the job called `name` in a file that may have others.
fn in_file(file: PathBuf, name: &str) -> Result<String> {
    let shown = file.display().to_string();
    let jobs = files::check(files::read(&Files { files: vec![file], recursive: false })?)?;
    jobs.into_iter()
        .find_map(|(document, job)| (job.name == name).then_some(document.text))
        .ok_or_else(|| Usage(format!("{shown} has no job called {name}")).into())
}

/// # Errors
/// As the requests, and when somebody has saved another version meanwhile.
pub(super) async fn revert(client: &Client, one: OneJob, to: i32, comment: Option<String>) -> Result<()> {
    let job: Job = client.get(&path(&one.name, &[]), &[]).await?;
    let save = SaveJob {
        document: version(client, &job, to).await?,
        comment: Some(comment.unwrap_or_else(|| format!("as in version {to}"))),
        expected_version: Some(job.version),
        dry_run: false,
    };
    save.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let saved: SavedJob = client.put(&path(&job.name, &[]), &save).await?;
    output::show(one.shown.output, &saved, |saved| {
        format!("the job {} is {} in version {}\n", saved.name, apply::word(saved.change), saved.version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_has_the_lines_around() {
        let from = "name: a\nsteps:\n  - name: one\n    run: x\n";
        let to = "name: a\nsteps:\n  - name: one\n    run: y\n";
        assert_eq!(
            unified(from, to, "a (version 1)", "a (version 2)"),
            "--- a (version 1)\n+++ a (version 2)\n@@ -1,4 +1,4 @@\n name: a\n steps:\n   - name: one\n\
             -    run: x\n+    run: y\n"
        );
        assert_eq!(unified(from, from, "a", "b"), "");
    }

    #[test]
    fn the_document_is_found_by_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let step = "steps: [{name: one, run: x}]\n";
        std::fs::write(file.path(), format!("name: a\n{step}---\nname: b\n{step}")).unwrap();
        assert_eq!(in_file(file.path().to_owned(), "b").unwrap(), format!("name: b\n{step}"));
        assert!(in_file(file.path().to_owned(), "c").is_err());
    }
}
