//! `opsctl job template` and `opsctl job new`: templates, and the documents of jobs that are made of them. Those that are part
//! of the program need no controller.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    ops::ControlFlow,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use model::{
    api::{
        job_template::{FillJobTemplate, FilledJobTemplate, JobTemplate, JobTemplateSaved, SaveJobTemplate},
        output::Stream,
    },
    job::parameters::{Parameter, ParameterType, Parameters},
    job_template::{built_in, built_ins, parse},
};
use serde_json::Value;

use super::{apply::word, files, start::typed};
use crate::{
    args::{Files, JobCommand, NewArgs, Shown, TemplateCommand},
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Table, human},
};

const TEMPLATES: [&str; 3] = ["api", "v1", "job-templates"];
const HEADER: [&str; 6] = ["NAME", "BUILT IN", "VERSION", "UPDATED", "UPDATED BY", "DESCRIPTION"];
/// The parameter that a job's name is given as.
const NAME: &str = "name";

/// The path of a template, and of what is below it.
fn path<'a>(template: &'a str, below: &[&'a str]) -> Vec<&'a str> {
    [&TEMPLATES, [template].as_slice(), below].concat()
}

/// Does what is about templates that are part of the program.
///
/// # Errors
/// When stdout is closed or full.
pub(super) fn offline(command: TemplateCommand) -> Result<ControlFlow<Exit, Box<JobCommand>>> {
    match command {
        TemplateCommand::List { built_in: true, shown } => {
            let all: Vec<JobTemplate> = built_ins().iter().map(JobTemplate::built_in).collect();
            let now = clock::now();
            output::show(shown.output, &all, |all| {
                let mut table = Table::new(&HEADER);
                all.iter().for_each(|template| table.row(row(template, now)));
                table.take()
            })?;
        }
        TemplateCommand::Show { name, yaml, shown } => match built_in(&name) {
            Some(template) => show(&JobTemplate::built_in(template).whole(template), yaml, shown)?,
            None => return further(TemplateCommand::Show { name, yaml, shown }),
        },
        command => return further(command),
    }
    Ok(ControlFlow::Break(Exit::Succeeded))
}

fn further(command: TemplateCommand) -> Result<ControlFlow<Exit, Box<JobCommand>>> {
    Ok(ControlFlow::Continue(Box::new(JobCommand::Template(command))))
}

/// # Errors
/// As the requests, when a document is wrong, and when stdout is closed or full.
pub(super) async fn run(client: &Client, command: TemplateCommand) -> Result<()> {
    match command {
        TemplateCommand::Apply { files, shown } => apply(client, &files, shown).await,
        TemplateCommand::List { shown, .. } => {
            let now = clock::now();
            output::list(client.pages(&TEMPLATES, Vec::new(), None), shown.output, &HEADER, |template| {
                row(template, now)
            })
            .await
        }
        TemplateCommand::Show { name, yaml, shown } => {
            let template: JobTemplate = client.get(&path(&name, &[]), &[]).await?;
            show(&template, yaml, shown)
        }
        TemplateCommand::Delete { name } => {
            client.delete(&path(&name, &[])).await?;
            output::note(&format!("the job template {name} is deleted"));
            Ok(())
        }
    }
}

async fn apply(client: &Client, files: &Files, shown: Shown) -> Result<()> {
    let templates = files::check_as(files::read(files)?, "job template", parse, |template| &template.name)?;
    let mut saved: Vec<JobTemplateSaved> = Vec::new();
    let mut result = Ok(());
    for (document, template) in templates {
        let save = SaveJobTemplate { document: document.text, expected_version: None };
        let sent = client.put(&path(&template.name, &[]), &save).await;
        match sent.with_context(|| format!("cannot save the job template {}", template.name)) {
            Ok(one) => saved.push(one),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    // What was done before is shown.
    if !saved.is_empty() || result.is_ok() {
        output::show(shown.output, &saved, |saved| {
            let mut table = Table::new(&["NAME", "CHANGE", "VERSION"]);
            for one in saved {
                table.row([one.name.clone(), word(one.change).to_owned(), one.version.to_string()]);
            }
            table.take()
        })?;
    }
    result
}

fn row(template: &JobTemplate, now: Timestamp) -> Vec<String> {
    vec![
        template.name.clone(),
        if template.built_in { "yes" } else { "no" }.to_owned(),
        human::or_dash(template.version),
        human::or_dash(template.updated_at.map(|then| human::relative(then, now))),
        human::or_dash(template.updated_by.clone()),
        template.description.lines().next().unwrap_or_default().to_owned(),
    ]
}

fn show(template: &JobTemplate, yaml: bool, shown: Shown) -> Result<()> {
    if yaml {
        return output::write(Stream::Stdout, template.document.as_deref().unwrap_or_default().as_bytes());
    }
    output::show(shown.output, template, |template| describe(template, clock::now()))
}

fn describe(template: &JobTemplate, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Name", template.name.clone());
    if !template.description.is_empty() {
        row("Description", template.description.clone());
    }
    row("Built in", if template.built_in { "yes" } else { "no" }.to_owned());
    if let (Some(version), Some(by), Some(at)) = (template.version, &template.updated_by, template.updated_at)
    {
        row("Version", format!("{version} by {by}"));
        row("Updated", human::moment(at, now));
    }
    let mut whole = table.take();
    if !template.parameters.is_empty() {
        let mut table = Table::new(&["PARAMETER", "TYPE", "DEFAULT", "DESCRIPTION"]);
        for (name, parameter) in &template.parameters {
            let description = parameter.description.clone().unwrap_or_default();
            table.row([name.clone(), kind(parameter.kind), default(parameter), description]);
        }
        whole.push('\n');
        whole.push_str(&table.take());
    }
    format!("{whole}\n{}", template.document.as_deref().unwrap_or_default())
}

fn kind(kind: ParameterType) -> String {
    serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn default(parameter: &Parameter) -> String {
    match &parameter.default {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None if parameter.required => "(required)".to_owned(),
        None => "-".to_owned(),
    }
}

/// Writes the document of a job that is made of a template of the program's.
///
/// # Errors
/// When a value is missing or wrong, and as the writing.
pub(super) fn new_offline(args: NewArgs) -> Result<ControlFlow<Exit, Box<JobCommand>>> {
    let Some(template) = built_in(called(&args)) else {
        return Ok(ControlFlow::Continue(Box::new(JobCommand::New(args))));
    };
    let values = values(&template.name, &template.parameters, &args)?;
    let filled = template.fill(&values).map_err(|invalid| Usage(invalid.to_string()))?;
    put(&args, &filled.document)?;
    Ok(ControlFlow::Break(Exit::Succeeded))
}

/// Writes the document of a job that is made of a template of the organization's.
///
/// # Errors
/// As the requests, when a value is missing or wrong, and as the writing.
pub(super) async fn new(client: &Client, args: &NewArgs) -> Result<()> {
    let name = called(args);
    let template: JobTemplate = client.get(&path(name, &[]), &[]).await.with_context(|| {
        let which = if args.template.is_some() { "" } else { "; say which it is made of with --template" };
        format!("cannot make a job of the template {name}{which}")
    })?;
    let parameters = values(name, &template.parameters, args)?;
    let filled: FilledJobTemplate =
        client.post(&path(name, &["fill"]), &FillJobTemplate { parameters }).await?;
    put(args, &filled.document)
}

/// The template that is meant.
fn called(args: &NewArgs) -> &str {
    args.template.as_deref().or(args.name.as_deref()).unwrap_or_default()
}

fn values(template: &str, parameters: &Parameters, args: &NewArgs) -> Result<BTreeMap<String, Value>> {
    let mut given = args.params.clone();
    if let Some(name) = &args.name {
        if parameters.contains_key(NAME) {
            given.push((NAME.to_owned(), name.clone()));
        } else if args.template.is_some() {
            let why = format!(
                "the template {template} has no parameter '{NAME}': it says itself what its job is called"
            );
            return Err(Usage(why).into());
        }
    }
    typed(parameters, &given)
}

/// To stdout, or into a file that is not there yet.
fn put(args: &NewArgs, document: &str) -> Result<()> {
    let Some(file) = &args.file else { return output::write(Stream::Stdout, document.as_bytes()) };
    let mut how = OpenOptions::new();
    how.write(true);
    if args.force {
        how.create(true).truncate(true);
    } else {
        how.create_new(true);
    }
    match how.open(file).and_then(|mut open| open.write_all(document.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Usage(format!("{} is there already (--force replaces it)", file.display())).into())
        }
        written => written.with_context(|| format!("cannot write {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(name: Option<&str>, template: Option<&str>, params: &[(&str, &str)]) -> NewArgs {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        NewArgs {
            name: name.map(str::to_owned),
            template: template.map(str::to_owned),
            params: params.iter().map(owned).collect(),
            file: None,
            force: false,
        }
    }

    #[test]
    fn the_name_is_a_parameter_like_any_other() {
        let parameters = &built_in("disk-report").unwrap().parameters;
        let of = |args: &NewArgs| values("disk-report", parameters, args);
        assert_eq!(of(&args(Some("nightly"), Some("disk-report"), &[])).unwrap()[NAME], "nightly");
        assert!(of(&args(None, Some("disk-report"), &[])).unwrap().is_empty());
        assert!(of(&args(Some("a"), Some("disk-report"), &[(NAME, "b")])).is_err(), "twice");
        let none = Parameters::new();
        assert!(values("t", &none, &args(Some("a"), Some("t"), &[])).is_err());
        assert!(values("t", &none, &args(Some("t"), None, &[])).unwrap().is_empty());
    }

    #[test]
    fn a_file_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let mut args = NewArgs { file: Some(file.clone()), ..args(Some("disk-report"), None, &[]) };
        put(&args, "one").unwrap();
        let error = put(&args, "two").unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
        args.force = true;
        put(&args, "2").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "2");
    }

    #[test]
    fn a_template_for_people() {
        let template = built_in("disk-report").unwrap();
        let now = "2026-02-01T08:00:00Z".parse().unwrap();
        let text = describe(&JobTemplate::built_in(template).whole(template), now);
        for part in [
            "Built in     yes\n",
            "name       string  disk-report  What the job is called\n",
            "name: ${{ name }}",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
