//! `opsctl job import`: documents of what other programs run.
//!
//! Invariants:
//!
//! 1. What is written was read again by [`model::job::parse`] and is the job that was meant.
//! 2. Nothing of the source is dropped without a remark that says where it stood and what to do.
//! 3. A step that could not be carried over becomes one that fails, so that half a job never passes for a whole one.
//! 4. Nothing is written unless all of it can be: no file is replaced without being asked to.

mod crontab;
mod filter;
mod names;
mod rundeck;
mod shell;
mod yaml;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use model::{
    api::output::Stream,
    job::{Job, JobTargets, Length},
};
use serde::Serialize;

use super::files;
use crate::{
    args::{ImportArgs, ImportCommand},
    exit::{Exit, Usage},
    output::{self, Format, Table, human},
};

/// Time limit of steps whose source knows none: neither cron nor Rundeck ends what takes longer than our hour.
const NO_TIME_LIMIT: Length = Length(24 * 3600);

/// What became of a part of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    /// It is not in the document.
    LeftOver,
    /// It is there in another form, which somebody should look at.
    Changed,
}

/// What somebody has to know about a part of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Remark {
    fate: Fate,
    /// Line in the source, from 1.
    line: usize,
    /// The job of ours that it is about; absent where it is about all.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// What it is in the source, as a path where there is one.
    field: String,
    problem: String,
    /// What to do.
    advice: String,
}

impl Remark {
    /// Without the place, on one line.
    fn text(&self) -> String {
        let fate = match self.fate {
            Fate::LeftOver => "left over",
            Fate::Changed => "changed",
        };
        output::one_line(&format!("{}: {fate}: {}; {}", self.field, self.problem, self.advice))
    }
}

/// A job that was made of a part of the source.
#[derive(Debug)]
struct Draft {
    line: usize,
    /// What it is called there.
    title: String,
    job: Job,
}

/// What was made of a source.
#[derive(Debug, Default)]
struct Import {
    drafts: Vec<Draft>,
    remarks: Vec<Remark>,
}

/// One job of the answer.
#[derive(Debug, Serialize)]
struct Imported {
    name: String,
    /// Where it stands in the source.
    line: usize,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// The text, where it is in no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
}

/// The answer for programs.
#[derive(Debug, Serialize)]
struct Answer {
    /// Whether anything was written.
    written: bool,
    jobs: Vec<Imported>,
    remarks: Vec<Remark>,
}

/// # Errors
/// When the source cannot be read or is not what it should be, when a file is there already or cannot be written, and when
/// stdout is closed or full.
pub(super) fn run(command: &ImportCommand) -> Result<Exit> {
    let args = match command {
        ImportCommand::Crontab(args) => &args.import,
        ImportCommand::Rundeck(args) => args,
    };
    let targets = targets(args)?;
    let text = files::text_of(&args.file)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let import = match command {
        ImportCommand::Crontab(args) => {
            let is_system = args.system || crontab::is_of_system(&args.import.file);
            crontab::read(text, is_system, args.user.as_deref(), targets.as_ref())
        }
        ImportCommand::Rundeck(_) => rundeck::read(text, targets.as_ref()),
    };
    let import =
        import.map_err(|bad| Usage(format!("{}:{}: {}", files::shown(&args.file), bad.line, bad.why)))?;
    if import.drafts.is_empty() && import.remarks.is_empty() {
        return Err(Usage(format!("{} has nothing to import", files::shown(&args.file))).into());
    }
    write(args, import)
}

/// Why a source is not what it should be.
#[derive(Debug, PartialEq, Eq)]
struct BadSource {
    line: usize,
    why: String,
}

impl BadSource {
    fn new(line: usize, why: impl Into<String>) -> Self {
        Self { line, why: why.into() }
    }
}

fn targets(args: &ImportArgs) -> Result<Option<JobTargets>> {
    let targets =
        JobTargets { selector: args.selector.clone(), hosts: args.target.clone(), ..JobTargets::default() };
    if targets == JobTargets::default() {
        return Ok(None);
    }
    targets.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    Ok(Some(targets))
}

/// Checks all documents, then writes them.
fn write(args: &ImportArgs, import: Import) -> Result<Exit> {
    let Import { drafts, mut remarks } = import;
    let mut documents = Vec::new();
    let mut refused = 0;
    for draft in drafts {
        match document(&args.file, &draft, &remarks) {
            Ok(text) => documents.push((draft, text)),
            Err(problem) => {
                refused += 1;
                remarks.push(Remark {
                    fate: Fate::LeftOver,
                    line: draft.line,
                    job: Some(draft.job.name),
                    field: draft.title,
                    problem: format!("it makes no job that is allowed: {problem}"),
                    advice: "write it by hand".to_owned(),
                });
            }
        }
    }
    remarks.sort_by_key(|remark| remark.line);
    let left_over = remarks.iter().filter(|remark| remark.fate == Fate::LeftOver).count();
    let is_written = !args.strict || left_over == 0;
    let mut jobs = Vec::new();
    if is_written {
        jobs = put(args, documents)?;
    }
    if args.shown.output == Format::Table {
        let at = files::shown(&args.file);
        let lines = remarks.iter().map(|remark| {
            let job = remark.job.as_ref().map_or_else(String::new, |job| format!("{job}: "));
            format!("{at}:{}: {job}{}", remark.line, remark.text())
        });
        files::complain(&lines.collect::<Vec<_>>());
    }
    let counted = |number: usize, noun| human::count(i64::try_from(number).unwrap_or(i64::MAX), noun);
    let mut said = match &args.dir {
        _ if !is_written => "nothing is written".to_owned(),
        Some(folder) => format!("{} in {}", counted(jobs.len(), "job"), folder.display()),
        None => counted(jobs.len(), "job"),
    };
    if refused > 0 {
        said.push_str(&format!(", {refused} could not be written"));
    }
    if left_over > 0 {
        said.push_str(&format!(", {} left over", counted(left_over, "thing")));
    }
    if args.shown.output != Format::Table || args.dir.is_some() {
        let answer = Answer { written: is_written, jobs, remarks };
        output::show(args.shown.output, &answer, |answer| table(&answer.jobs))?;
    }
    output::note(&said);
    Ok(if refused > 0 || !is_written { Exit::Failed } else { Exit::Succeeded })
}

fn table(jobs: &[Imported]) -> String {
    let mut table = Table::new(&["LINE", "NAME", "FROM", "FILE"]);
    for job in jobs {
        let file = job.file.as_ref().map_or_else(String::new, |file| file.display().to_string());
        table.row([job.line.to_string(), job.name.clone(), job.title.clone(), file]);
    }
    if jobs.is_empty() { String::new() } else { table.take() }
}

/// The text of a job, with what is left over of it in front.
///
/// # Errors
/// What keeps it from being a job.
fn document(source: &Path, draft: &Draft, remarks: &[Remark]) -> Result<String, String> {
    draft.job.validate().map_err(|invalid| invalid.to_string())?;
    let is_meant = |text: &str| model::job::parse(text).is_ok_and(|job| job == draft.job);
    let body = output::yaml(&draft.job).ok().filter(|text| is_meant(text));
    // JSON is YAML, and has a form for each text.
    let body = body.or_else(|| {
        let json = serde_json::to_string_pretty(&draft.job).ok()? + "\n";
        is_meant(&json).then_some(json)
    });
    let body = body.ok_or("its text cannot be written so that it is read the same")?;
    let file = source.file_name().filter(|_| source != Path::new("-"));
    let file = file.map_or_else(|| "stdin".to_owned(), |name| name.to_string_lossy().into_owned());
    let head = output::one_line(&format!("From {file}, line {}: {}", draft.line, draft.title));
    let mut text = format!("# {head}\n");
    let about = |remark: &&Remark| remark.job.as_ref().is_some_and(|job| *job == draft.job.name);
    for remark in remarks.iter().filter(about) {
        text.push_str(&format!("# Line {}: {}\n", remark.line, remark.text()));
    }
    text.push_str(&body);
    match model::job::parse(&text) {
        Ok(_) => Ok(text),
        // The remarks have made it too long.
        Err(_) => Ok(body),
    }
}

/// Writes the documents: to stdout, `---` between them, or each into a file; in the answer where that is for programs.
fn put(args: &ImportArgs, documents: Vec<(Draft, String)>) -> Result<Vec<Imported>> {
    let Some(folder) = &args.dir else {
        if args.shown.output == Format::Table {
            for (index, (_, text)) in documents.iter().enumerate() {
                let before = if index > 0 { "---\n" } else { "" };
                output::write(Stream::Stdout, format!("{before}{text}").as_bytes())?;
            }
        }
        let answer = |(draft, text): (Draft, String)| imported(draft, None, Some(text));
        return Ok(documents.into_iter().map(answer).collect());
    };
    let file_of = |draft: &Draft| folder.join(format!("{}.yaml", draft.job.name));
    if !args.force {
        let there: Vec<String> = documents
            .iter()
            .map(|(draft, _)| file_of(draft))
            .filter(|file| file.symlink_metadata().is_ok())
            .map(|file| file.display().to_string())
            .collect();
        if !there.is_empty() {
            let why =
                format!("there already: {}; nothing is written (--force replaces them)", there.join(", "));
            return Err(Usage(why).into());
        }
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut jobs = Vec::new();
    for (draft, text) in documents {
        let file = file_of(&draft);
        let mut how = OpenOptions::new();
        how.write(true);
        if args.force {
            how.create(true).truncate(true);
        } else {
            how.create_new(true);
        }
        let written = how.open(&file).and_then(|mut open| open.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", file.display()))?;
        jobs.push(imported(draft, Some(file), None));
    }
    Ok(jobs)
}

fn imported(draft: Draft, file: Option<PathBuf>, document: Option<String>) -> Imported {
    Imported { name: draft.job.name, line: draft.line, title: draft.title, file, document }
}

/// A remark about hosts that are not named in the source.
fn no_hosts(line: usize, job: Option<&str>, field: &str, problem: &str) -> Remark {
    Remark {
        fate: Fate::LeftOver,
        line,
        job: job.map(str::to_owned),
        field: field.to_owned(),
        problem: problem.to_owned(),
        advice: "add targets, import again with -t or -l, or name hosts at each start".to_owned(),
    }
}

/// Labels of a job, without those that are not allowed.
fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .filter(|(key, value)| !value.is_empty() && model::label::validate_label(key, value).is_ok())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
