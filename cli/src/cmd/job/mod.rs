//! `opsctl job`: work that a team keeps, and starts of it.

mod apply;
pub(super) mod files;
mod import;
pub(super) mod start;
mod template;
mod validate;
mod versions;

use std::{fs, ops::ControlFlow};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use model::{
    access::validate_slug,
    api::{job::Job, output::Stream},
};

use crate::{
    args::{ExportArgs, JobCommand, RunJobArgs},
    client::{Client, Error},
    clock,
    exit::Exit,
    output::{self, Table, human},
};

pub(super) use self::{apply::word, versions::unified};

const JOBS: [&str; 3] = ["api", "v1", "jobs"];

/// The path of a job, by name or id, and of what is below it.
fn path<'a>(job: &'a str, below: &[&'a str]) -> Vec<&'a str> {
    [&JOBS, [job].as_slice(), below].concat()
}

/// Does what needs no controller, and must not ask for one.
///
/// # Errors
/// When a file cannot be read, a document is wrong, and when stdout is closed or full.
pub(crate) fn offline(command: JobCommand) -> Result<ControlFlow<Exit, Box<JobCommand>>> {
    match command {
        JobCommand::Schema => {
            let text =
                serde_json::to_string_pretty(&model::job::schema()).context("cannot write the schema")?;
            output::write(Stream::Stdout, format!("{text}\n").as_bytes())?;
        }
        JobCommand::New(args) => return template::new_offline(args),
        JobCommand::Template(command) => return template::offline(command),
        JobCommand::Import(command) => return import::run(&command).map(ControlFlow::Break),
        JobCommand::Validate(args) if !args.server => return validate::local(&args).map(ControlFlow::Break),
        command => return Ok(ControlFlow::Continue(Box::new(command))),
    }
    Ok(ControlFlow::Break(Exit::Succeeded))
}

/// # Errors
/// As the requests, when a document is wrong, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: JobCommand) -> Result<Exit> {
    match command {
        JobCommand::Apply(args) => apply::run(client, args).await?,
        JobCommand::List { selector, shown } => {
            let now = clock::now();
            let header = &["NAME", "VERSION", "LABELS", "UPDATED", "AUTHOR", "DESCRIPTION"];
            let query = selector.map(|selector| ("selector", selector)).into_iter().collect();
            output::list(client.pages(&JOBS, query, None), shown.output, header, |job: &Job| {
                vec![
                    job.name.clone(),
                    job.version.to_string(),
                    human::pairs(&job.labels),
                    human::relative(job.updated_at, now),
                    job.author.clone(),
                    job.description.lines().next().unwrap_or_default().to_owned(),
                ]
            })
            .await?;
        }
        JobCommand::Show(one) => {
            let job: Job = client.get(&path(&one.name, &[]), &[]).await?;
            output::show(one.shown.output, &job, |job| describe(job, clock::now()))?;
        }
        JobCommand::Export(args) => export(client, args).await?,
        JobCommand::History(one) => versions::history(client, &one).await?,
        JobCommand::Diff(args) => versions::diff(client, args).await?,
        JobCommand::Revert { job, version, comment } => {
            versions::revert(client, job, version, comment).await?;
        }
        JobCommand::Delete { name } => {
            client.delete(&path(&name, &[])).await?;
            output::note(&format!("the job {name} is deleted"));
        }
        JobCommand::Validate(args) => return validate::by_controller(client, &args).await,
        JobCommand::New(args) => template::new(client, &args).await?,
        JobCommand::Template(command) => template::run(client, command).await?,
        JobCommand::Plan(args) => start::plan(client, args).await?,
        JobCommand::Run(args) => return start::run(client, *args).await,
        JobCommand::Schema | JobCommand::Import(_) => {
            unreachable!("answered without a controller")
        }
    }
    Ok(Exit::Succeeded)
}

/// `opsctl run`.
///
/// # Errors
/// When the start is refused, or the execution cannot be followed to its end.
pub(crate) async fn start(client: &Client, args: RunJobArgs) -> Result<Exit> {
    start::run(client, args).await
}

fn describe(job: &Job, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Id", job.id.to_string());
    row("Name", job.name.clone());
    if !job.description.is_empty() {
        row("Description", job.description.clone());
    }
    if !job.labels.is_empty() {
        row("Labels", human::pairs(&job.labels));
    }
    row("Version", format!("{} by {}", job.version, job.author));
    if let Some(comment) = &job.comment {
        row("Comment", comment.clone());
    }
    row("Created", human::moment(job.created_at, now));
    row("Updated", human::moment(job.updated_at, now));
    format!("{}\n{}", table.take(), job.document.as_deref().unwrap_or_default())
}

/// The text of the newest version.
fn document_of(client: &Client, job: &Job) -> Result<String> {
    let lacks = || -> Error { client.undecodable(&"the job has no document") };
    Ok(job.document.clone().ok_or_else(lacks)?)
}

/// Writes documents as they were saved: to stdout, `---` between them, or each into a file.
async fn export(client: &Client, args: ExportArgs) -> Result<()> {
    let ids = match (args.name, args.selector) {
        (Some(name), _) => vec![name],
        (None, selector) => {
            let query = selector.map(|selector| ("selector", selector)).into_iter().collect();
            let jobs: Vec<Job> = client.pages(&JOBS, query, None).all().await?;
            if jobs.is_empty() {
                output::note("nothing to export");
            }
            jobs.into_iter().map(|job| job.id.to_string()).collect()
        }
    };
    if let Some(folder) = &args.dir {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    for (index, id) in ids.iter().enumerate() {
        let job: Job = client.get(&path(id, &[]), &[]).await?;
        let text = document_of(client, &job)?;
        let Some(folder) = &args.dir else {
            let before = if index > 0 { "---\n" } else { "" };
            let after = if text.ends_with('\n') || index + 1 == ids.len() { "" } else { "\n" };
            output::write(Stream::Stdout, format!("{before}{text}{after}").as_bytes())?;
            continue;
        };
        // It becomes the name of a file here.
        validate_slug("name", &job.name).map_err(|invalid| client.undecodable(&invalid))?;
        let file = folder.join(format!("{}.yaml", job.name));
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        output::note(&format!("{} version {} is in {}", job.name, job.version, file.display()));
    }
    Ok(())
}
