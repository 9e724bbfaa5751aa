//! `opsctl script`: scripts that jobs use by name, in versions.

use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use model::{
    api::{
        job::Danger,
        script::{
            CheckState, SaveScript, SavedScript, ScriptSaved, ScriptValidity, ScriptVersion, ValidateScript,
        },
    },
    command::Script,
    limits,
    script::{ScriptDocument, validate_text},
};

use super::{
    exec::read_script,
    job::{unified, word},
};
use crate::{
    args::{
        CreateScriptArgs, DiffScriptArgs, OneScript, ScriptCommand, ScriptFields, UpdateScriptArgs,
        ValidateScriptArgs,
    },
    client::Client,
    clock,
    exit::{Exit, NoMatch, Usage},
    output::{self, Table, human},
};

const SCRIPTS: [&str; 3] = ["api", "v1", "scripts"];
/// Digits of a hash that a table shows.
const HASH_DIGITS: usize = 12;

/// The path of a script, by name or id, and of what is below it.
fn path<'a>(script: &'a str, below: &[&'a str]) -> Vec<&'a str> {
    [&SCRIPTS, [script].as_slice(), below].concat()
}

/// # Errors
/// As the requests, when a file cannot be read, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: ScriptCommand) -> Result<Exit> {
    match command {
        ScriptCommand::Create(args) => create(client, args).await?,
        ScriptCommand::List { selector, shown } => {
            let now = clock::now();
            let header = &["NAME", "VERSION", "LABELS", "UPDATED", "AUTHOR", "SHA256", "DESCRIPTION"];
            let query = selector.map(|selector| ("selector", selector)).into_iter().collect();
            output::list(
                client.pages(&SCRIPTS, query, None),
                shown.output,
                header,
                |script: &SavedScript| {
                    vec![
                        script.name.clone(),
                        script.version.to_string(),
                        human::pairs(&script.labels),
                        human::relative(script.updated_at, now),
                        script.author.clone(),
                        script.sha256.chars().take(HASH_DIGITS).collect(),
                        script.description.lines().next().unwrap_or_default().to_owned(),
                    ]
                },
            )
            .await?;
        }
        ScriptCommand::Show { script: OneScript { name, shown }, version: None } => {
            let script: SavedScript = client.get(&path(&name, &[]), &[]).await?;
            output::show(shown.output, &script, |script| describe(script, clock::now()))?;
        }
        ScriptCommand::Show { script: OneScript { name, shown }, version: Some(number) } => {
            let version: ScriptVersion =
                client.get(&path(&name, &["versions", &number.to_string()]), &[]).await?;
            output::show(shown.output, &version, describe_version)?;
        }
        ScriptCommand::History(one) => history(client, &one).await?,
        ScriptCommand::Diff(args) => diff(client, args).await?,
        ScriptCommand::Update(args) => update(client, args).await?,
        ScriptCommand::Delete { name } => {
            client.delete(&path(&name, &[])).await?;
            output::note(&format!("the script {name} is deleted"));
        }
        ScriptCommand::Validate(args) => return validate(client, args).await,
    }
    Ok(Exit::Succeeded)
}

async fn create(client: &Client, args: CreateScriptArgs) -> Result<()> {
    let OneScript { name, shown } = args.script;
    let comment = args.fields.comment.clone();
    let blank = ScriptDocument { name, content: read_script(&args.file)?, ..ScriptDocument::default() };
    let script = changed(blank, args.fields)?;
    let save = SaveScript { script, comment, expected_version: None, dry_run: false };
    save.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let saved: ScriptSaved = client.post(&SCRIPTS, &save).await?;
    tell(&saved.dangers);
    output::show(shown.output, &saved, said)
}

async fn update(client: &Client, args: UpdateScriptArgs) -> Result<()> {
    let OneScript { name, shown } = args.script;
    let before: SavedScript = client.get(&path(&name, &[]), &[]).await?;
    let comment = args.fields.comment.clone();
    let mut script = newest(client, &before)?;
    if let Some(file) = &args.file {
        script.content = read_script(file)?;
    }
    let script = changed(script, args.fields)?;
    let save = SaveScript { script, comment, expected_version: Some(before.version), dry_run: false };
    save.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let saved: ScriptSaved = client.put(&path(&before.name, &[]), &save).await?;
    tell(&saved.dangers);
    output::show(shown.output, &saved, said)
}

/// The script with what was said about it.
fn changed(mut script: ScriptDocument, fields: ScriptFields) -> Result<ScriptDocument> {
    if fields.interpreter.is_some() {
        script.interpreter = fields.interpreter;
    }
    if let Some(description) = fields.description {
        script.description = description;
    }
    if !fields.labels.is_empty() {
        script.labels = fields.labels.into_iter().collect();
    }
    if let Some(file) = &fields.parameters {
        script.parameters = parameters(file)?;
    }
    Ok(script)
}

fn parameters(file: &Path) -> Result<model::job::parameters::Parameters> {
    let shown = file.display();
    let size = std::fs::metadata(file).with_context(|| format!("cannot read {shown}"))?.len();
    if size > limits::DOCUMENT_BYTES as u64 {
        return Err(Usage(format!("{shown} is over the limit of {} bytes", limits::DOCUMENT_BYTES)).into());
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    model::script::parse_parameters(&text).map_err(|why| Usage(format!("{shown}: {why}")).into())
}

fn said(saved: &ScriptSaved) -> String {
    format!("the script {} is {} in version {}\n", saved.name, word(saved.change), saved.version)
}

fn tell(dangers: &[Danger]) {
    for danger in dangers {
        output::note(&format!("{}: {}: {}", danger.step, danger.severity, danger.why));
    }
}

/// The newest version whole.
fn newest(client: &Client, script: &SavedScript) -> Result<ScriptDocument> {
    let lacks = || client.undecodable(&"the script has no text");
    Ok(script.script.clone().ok_or_else(lacks)?)
}

async fn history(client: &Client, one: &OneScript) -> Result<()> {
    let now = clock::now();
    let header = &["VERSION", "CREATED", "AUTHOR", "SHA256", "COMMENT"];
    let pages = client.pages(&path(&one.name, &["versions"]), Vec::new(), None);
    output::list(pages, one.shown.output, header, |version: &ScriptVersion| {
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

async fn diff(client: &Client, args: DiffScriptArgs) -> Result<()> {
    let script: SavedScript = client.get(&path(&args.name, &[]), &[]).await?;
    let title = |version: i32| format!("{} (version {version})", script.name);
    let (from, from_title, to, to_title) = if let Some(file) = args.file {
        let before = newest(client, &script)?;
        let after = ScriptDocument { content: read_script(&file)?, ..before.clone() };
        (before, title(script.version), after, file.display().to_string())
    } else {
        let to = args.to.unwrap_or(script.version);
        let from = match args.from {
            Some(from) => from,
            None => before(client, &script).await?,
        };
        (version(client, &script, from).await?, title(from), version(client, &script, to).await?, title(to))
    };
    let text = unified(&written(&from), &written(&to), &from_title, &to_title);
    if text.is_empty() {
        output::note("there is no difference");
    }
    output::print(&text)
}

/// The version before the newest. Its number is not always one less than any: a name that was used before goes on with its
/// numbers.
async fn before(client: &Client, script: &SavedScript) -> Result<i32> {
    let id = script.id.to_string();
    let mut pages = client.pages(&path(&id, &["versions"]), Vec::new(), Some(2));
    let versions: Vec<ScriptVersion> = pages.next().await?.unwrap_or_default();
    let only = || NoMatch(format!("the script {} has only one version", script.name));
    Ok(versions.get(1).ok_or_else(only)?.version)
}

async fn version(client: &Client, script: &SavedScript, number: i32) -> Result<ScriptDocument> {
    if number == script.version {
        return newest(client, script);
    }
    let id = script.id.to_string();
    let version: ScriptVersion = client.get(&path(&id, &["versions", &number.to_string()]), &[]).await?;
    let lacks = || client.undecodable(&"the version has no text");
    Ok(version.script.ok_or_else(lacks)?)
}

/// All of a version as lines, those of its text last.
fn written(script: &ScriptDocument) -> String {
    let mut lines = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push_str(&format!("{name}: {value}\n"));
        }
    };
    line("description", &script.description);
    if !script.labels.is_empty() {
        line("labels", &human::pairs(&script.labels));
    }
    line("interpreter", script.interpreter.as_deref().unwrap_or_default());
    for (name, parameter) in &script.parameters {
        line(&format!("parameter {name}"), &serde_json::to_string(parameter).unwrap_or_default());
    }
    lines + &script.content
}

async fn validate(client: &Client, args: ValidateScriptArgs) -> Result<Exit> {
    let validity: ScriptValidity = match (&args.name, &args.file) {
        (Some(name), _) => client.get(&path(name, &["validate"]), &[]).await?,
        (None, file) => {
            let content = read_script(file.as_deref().unwrap_or_else(|| Path::new("-")))?;
            let script = Script { content, interpreter: args.interpreter, args: Vec::new() };
            validate_text(&script).map_err(|invalid| Usage(invalid.to_string()))?;
            let Script { content, interpreter, .. } = script;
            let request = ValidateScript { content, interpreter };
            client.post(&path("validate", &[]), &request).await?
        }
    };
    output::show(args.shown.output, &validity, checks)?;
    Ok(if validity.valid { Exit::Succeeded } else { Exit::Usage })
}

fn checks(validity: &ScriptValidity) -> String {
    let mut table = Table::new(&["CHECK", "RESULT", "SAYS"]);
    for check in &validity.checks {
        let mut lines = check.text.lines();
        let state = CheckState::as_str(check.state).to_owned();
        table.row([check.by.clone(), state, lines.next().unwrap_or_default().to_owned()]);
        lines.for_each(|line| table.row([String::new(), String::new(), line.to_owned()]));
    }
    let mut whole = table.take();
    if !validity.dangers.is_empty() {
        let mut dangers = Table::new(&["DANGER", "RULE", "WORDS", "WHY"]);
        for Danger { rule, severity, text, why, .. } in validity.dangers.clone() {
            dangers.row([severity, rule, text, why]);
        }
        whole.push('\n');
        whole.push_str(&dangers.take());
    }
    whole
}

fn describe(script: &SavedScript, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Id", script.id.to_string());
    row("Name", script.name.clone());
    if !script.description.is_empty() {
        row("Description", script.description.clone());
    }
    if !script.labels.is_empty() {
        row("Labels", human::pairs(&script.labels));
    }
    if let Some(interpreter) = script.script.as_ref().and_then(|script| script.interpreter.clone()) {
        row("Interpreter", interpreter);
    }
    row("Version", format!("{} by {}", script.version, script.author));
    if let Some(comment) = &script.comment {
        row("Comment", comment.clone());
    }
    row("SHA256", script.sha256.clone());
    row("Created", human::moment(script.created_at, now));
    row("Updated", human::moment(script.updated_at, now));
    let text = script.script.as_ref().map(with_parameters).unwrap_or_default();
    format!("{}\n{text}", table.take())
}

fn describe_version(version: &ScriptVersion) -> String {
    version.script.as_ref().map(written).unwrap_or_default()
}

/// What it expects, and its text.
fn with_parameters(script: &ScriptDocument) -> String {
    if script.parameters.is_empty() {
        return script.content.clone();
    }
    let mut table = Table::new(&["PARAMETER", "VARIABLE", "REQUIRED", "DESCRIPTION"]);
    for (name, parameter) in &script.parameters {
        let required = if parameter.required { "yes" } else { "no" };
        let variable = format!("OPSC_PARAM_{}", name.to_ascii_uppercase());
        let description = parameter.description.clone().unwrap_or_default();
        table.row([name.clone(), variable, required.to_owned(), description]);
    }
    format!("{}\n{}", table.take(), script.content)
}

#[cfg(test)]
mod tests {
    use model::api::script::ScriptCheck;

    use super::*;

    #[test]
    fn what_is_said_changes_and_the_rest_stays() {
        let before = ScriptDocument {
            name: "a".into(),
            description: "old".into(),
            content: "#!/bin/sh\n".into(),
            ..ScriptDocument::default()
        };
        let fields = ScriptFields {
            interpreter: None,
            description: None,
            labels: vec![("team".into(), "web".into())],
            parameters: None,
            comment: None,
        };
        let after = changed(before.clone(), fields).unwrap();
        assert_eq!((after.description.as_str(), after.labels["team"].as_str()), ("old", "web"));
        let text = unified(&written(&before), &written(&after), "1", "2");
        assert!(text.contains("+labels: team=web\n") && !text.contains("+#!"), "{text}");
    }

    #[test]
    fn a_check_is_a_row_and_what_it_says_as_many_as_it_has_lines() {
        let check = ScriptCheck { by: "sh -n".into(), state: CheckState::Failed, text: "one\ntwo".into() };
        let text = checks(&ScriptValidity { valid: false, checks: vec![check], dangers: Vec::new() });
        assert_eq!(text, "CHECK  RESULT  SAYS\nsh -n  failed  one\n               two\n");
    }
}
