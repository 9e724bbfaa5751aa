//! What people type about jobs.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::Shown;
use crate::{output::Format, parse};

const APPLY_EXAMPLES: &str = "\
Examples:
  opsctl job apply -f jobs/ --dry-run
  opsctl job apply -f jobs/ --prune -l 'team=web' --comment 'as of the release'
  opsctl job new disk-report | opsctl job apply -f -";

const RUN_EXAMPLES: &str = "\
Examples:
  opsctl run disk-report
  opsctl run disk-report -l 'env=prod' --exclude 'role=db' --limit 10
  opsctl run disk-report --expect-targets HASH     (the hash that 'opsctl job plan' shows)

Exit codes are those of 'exec'.";

const IMPORT_NOTES: &str = "\
What could not be carried over is listed on stderr, with -o json in the answer.

Exit codes: 0 all jobs are written, 1 one could not be (or with --strict something is left over), 2 what was read is
not what it should be, or a file is there already.";

const NEW_EXAMPLES: &str = "\
Examples:
  opsctl job new disk-report
  opsctl job new nightly --template disk-report --file nightly.yaml
  opsctl job new restart-web --template restart -p service=nginx -p hosts=web-1,web-2

'opsctl job template list' says which templates there are. Those that are built in need no controller.";

const TEMPLATE_EXAMPLES: &str = "\
Examples:
  opsctl job template show disk-report --yaml > mine.yaml   (to change it, under another name)
  opsctl job template apply -f mine.yaml";

const DIFF_EXAMPLES: &str = "\
Examples:
  opsctl job diff disk-report                      (what the newest version changed)
  opsctl job diff disk-report 3                    (from version 3 to the newest)
  opsctl job diff disk-report 3 5
  opsctl job diff disk-report -f disk-report.yaml  (what applying the file would change)";

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Save jobs from files: all are checked before the first is sent
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(ApplyArgs),
    /// List jobs
    List {
        /// Only those whose labels a predicate holds for, as 'team=web'
        #[arg(short = 'l', long)]
        selector: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show one job with its document
    Show(OneJob),
    /// Write documents as they were saved
    Export(ExportArgs),
    /// List the versions of a job, the newest first
    History(OneJob),
    /// Show what changed between two versions, or would by a file
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// Save the text of an older version as a new one
    Revert {
        #[command(flatten)]
        job: OneJob,
        /// The version whose text it is to be again
        #[arg(value_parser = clap::value_parser!(i32).range(1..))]
        version: i32,
        /// Why [default: which version it is]
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
    },
    /// Delete a job
    Delete {
        /// Name or id of the job
        #[arg(value_name = "JOB", value_parser = parse::slug)]
        name: String,
    },
    /// Check documents without saving them
    Validate(ValidateArgs),
    /// Write the JSON schema of a document, for editors
    Schema,
    /// Write the document of a job that is made of a template
    #[command(after_help = NEW_EXAMPLES)]
    New(NewArgs),
    /// Templates that documents of jobs are made of: your own, and those that are built in
    #[command(subcommand, after_help = TEMPLATE_EXAMPLES)]
    Template(TemplateCommand),
    /// Make documents of what other programs run
    #[command(subcommand)]
    Import(ImportCommand),
    /// Show which hosts a start would go to, in which order, and what it would do
    Plan(PlanArgs),
    /// Start a job and follow its output
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunJobArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct OneJob {
    /// Name or id of the job
    #[arg(value_name = "JOB", value_parser = parse::slug)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
pub(crate) struct Files {
    /// A file, a folder with *.yaml, *.yml and *.json, or stdin with '-'; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Also in the folders of a folder
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Only show what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete the jobs that the selector matches and that are not among the files
    #[arg(long, requires = "selector")]
    pub(crate) prune: bool,
    /// Labels of the jobs that --prune may delete, as 'team=web'
    #[arg(short = 'l', long, requires = "prune")]
    pub(crate) selector: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("jobs").required(true).args(["name", "selector"]))]
pub(crate) struct ExportArgs {
    /// Name or id of the job
    #[arg(value_name = "JOB", value_parser = parse::slug)]
    pub(crate) name: Option<String>,
    /// All jobs whose labels a predicate holds for
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Write a file for each into this folder, instead of all to stdout
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Name or id of the job
    #[arg(value_name = "JOB", value_parser = parse::slug)]
    pub(crate) name: String,
    /// Version to begin with [default: the one before the newest]
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) from: Option<i32>,
    /// Version to compare it with [default: the newest]
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) to: Option<i32>,
    /// Compare the newest version with this file
    #[arg(short, long, value_name = "FILE|-", conflicts_with_all = ["from", "to"])]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Also let the controller check them
    #[arg(long)]
    pub(crate) server: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// What the job is to be called: the value of the template's parameter 'name' [default: as the template says]
    #[arg(value_parser = parse::slug, required_unless_present = "template")]
    pub(crate) name: Option<String>,
    /// What it is made of [default: the template that is called like the job]
    #[arg(long, value_name = "NAME", value_parser = parse::slug)]
    pub(crate) template: Option<String>,
    /// A value of one of the template's parameters
    #[arg(short, long = "param", visible_alias = "set", value_name = "NAME=VALUE", value_parser = parse::key_value)]
    pub(crate) params: Vec<(String, String)>,
    /// Write it into this file instead of to stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Also when the file is there already
    #[arg(long, requires = "file")]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Save templates from files: all are checked before the first is sent
    Apply {
        #[command(flatten)]
        files: Files,
        #[command(flatten)]
        shown: Shown,
    },
    /// List templates
    List {
        /// Only those that are built in, without asking a controller
        #[arg(long)]
        built_in: bool,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show one template: its parameters and its document
    Show {
        /// Name of the template
        #[arg(value_name = "TEMPLATE", value_parser = parse::slug)]
        name: String,
        /// Only its document, as it is
        #[arg(long, conflicts_with = "output")]
        yaml: bool,
        #[command(flatten)]
        shown: Shown,
    },
    /// Delete a template; jobs that were made of it do not notice
    Delete {
        /// Name of the template
        #[arg(value_name = "TEMPLATE", value_parser = parse::slug)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// A job for each entry of a crontab
    #[command(after_help = IMPORT_NOTES)]
    Crontab(ImportCrontabArgs),
    /// A job for each of a Rundeck export in YAML (or JSON)
    #[command(after_help = IMPORT_NOTES)]
    Rundeck(ImportArgs),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("import_targets").args(["selector", "target"]))]
pub(crate) struct ImportArgs {
    /// What to read, stdin with '-'
    #[arg(value_name = "FILE|-")]
    pub(crate) file: PathBuf,
    /// Write a file for each job into this folder, instead of all to stdout
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long, requires = "dir")]
    pub(crate) force: bool,
    /// Write nothing, and end with 1, unless all of it can be carried over
    #[arg(long)]
    pub(crate) strict: bool,
    /// Hosts of jobs for which the source names none, as a predicate
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Host of jobs for which the source names none; may be repeated
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) target: Vec<String>,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
pub(crate) struct ImportCrontabArgs {
    #[command(flatten)]
    pub(crate) import: ImportArgs,
    /// Each entry names its user, as in /etc/crontab and /etc/cron.d, whose files are read so anyway
    #[arg(long, conflicts_with = "user")]
    pub(crate) system: bool,
    /// Whose crontab it is
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

/// Where a job runs, in place of what it says.
#[derive(Debug, Default, Args)]
#[command(group = ArgGroup::new("job_targets").args(["selector", "target", "all", "target_group"]))]
pub(crate) struct TargetArgs {
    /// Hosts that a predicate holds for, instead of the job's
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Host by name, instead of the job's; may be repeated
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) target: Vec<String>,
    /// Every host, instead of the job's
    #[arg(long)]
    pub(crate) all: bool,
    /// The hosts of a target group, instead of the job's
    #[arg(long, value_name = "NAME", value_parser = parse::slug)]
    pub(crate) target_group: Option<String>,
    /// Of those, not the ones that this predicate holds for
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) exclude: Option<String>,
    /// Of those, the first N by name
    #[arg(long, value_name = "N", value_parser = parse::positive)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) job: OneJob,
    #[command(flatten)]
    pub(crate) targets: TargetArgs,
    /// A value of one of the job's parameters
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = parse::key_value)]
    pub(crate) params: Vec<(String, String)>,
    /// The version to run [default: the newest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) version: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct RunJobArgs {
    /// Name or id of the job
    #[arg(value_name = "JOB", value_parser = parse::slug)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) targets: TargetArgs,
    /// A value of one of the job's parameters
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = parse::key_value)]
    pub(crate) params: Vec<(String, String)>,
    /// The version to run [default: the newest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) version: Option<i32>,
    /// Start nothing unless the hosts are those of the plan with this hash
    #[arg(long, value_name = "HASH")]
    pub(crate) expect_targets: Option<String>,
    /// Of what waits for a host the highest comes first, -100 to 100 [default: as the job says]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) priority: Option<i64>,
    /// Follow the output until the end, which is the default
    #[arg(short, long, conflicts_with = "detach")]
    pub(crate) follow: bool,
    /// Print the execution's id and do not wait
    #[arg(long)]
    pub(crate) detach: bool,
    /// With json or yaml: no live output, one document with the result at the end
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[cfg(test)]
mod tests {
    use clap::{Parser as _, error::ErrorKind};

    use crate::args::Cli;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(["opsctl"].into_iter().chain(line.split(' '))).map_err(|error| error.kind())
    }

    #[test]
    fn what_people_type_about_jobs() {
        for good in [
            "job apply -f a.yaml -f jobs -R --dry-run",
            "job apply -f - --prune -l team=web --comment why",
            "job list -l team=web -o json",
            "job show 01890a5d-ac96-774b-bcce-b302099a8057",
            "job export disk-report",
            "job export -l team=web --dir out",
            "job diff disk-report 3 5",
            "job diff disk-report -f a.yaml",
            "job revert disk-report 3",
            "job validate -f a.yaml --server",
            "job schema",
            "job new nightly --template disk-report",
            "job new --template restart",
            "job new web -p service=nginx --set hosts=a,b --file web.yaml --force",
            "job template apply -f - -o json",
            "job template list --built-in",
            "job template show restart --yaml",
            "job template delete restart",
            "job import crontab - --user ada",
            "job import crontab /etc/crontab --system --dir jobs --force -t web-1,web-2",
            "job import rundeck jobs.yaml --strict -l team=web -o json",
            "job plan disk-report -t a -t b",
            "job run disk-report -l env=prod --exclude role=db --limit 3 --version 2 --detach",
            "run disk-report -f --priority -5",
            "execution results 01890a5d-ac96-774b-bcce-b302099a8057 --state failed",
            "execution pause 01890a5d-ac96-774b-bcce-b302099a8057",
            "logs 01890a5d-ac96-774b-bcce-b302099a8057 --step ask",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for (bad, kind) in [
            ("job apply", ErrorKind::MissingRequiredArgument),
            ("job apply -f a --prune", ErrorKind::MissingRequiredArgument),
            ("job apply -f a -l team=web", ErrorKind::MissingRequiredArgument),
            ("job export", ErrorKind::MissingRequiredArgument),
            ("job export a -l team=web", ErrorKind::ArgumentConflict),
            ("job diff a 1 -f b", ErrorKind::ArgumentConflict),
            ("job revert a 0", ErrorKind::ValueValidation),
            ("job show ..", ErrorKind::ValueValidation),
            ("job new", ErrorKind::MissingRequiredArgument),
            ("job new a --template ..", ErrorKind::ValueValidation),
            ("job new a --force", ErrorKind::MissingRequiredArgument),
            ("job new a -p service", ErrorKind::ValueValidation),
            ("job template show a --yaml -o json", ErrorKind::ArgumentConflict),
            ("job template apply", ErrorKind::MissingRequiredArgument),
            ("job import crontab", ErrorKind::MissingRequiredArgument),
            ("job import crontab a --system --user b", ErrorKind::ArgumentConflict),
            ("job import rundeck a --force", ErrorKind::MissingRequiredArgument),
            ("job import rundeck a -t b -l c", ErrorKind::ArgumentConflict),
            ("run a --all -t b", ErrorKind::ArgumentConflict),
            ("run a --limit 0", ErrorKind::ValueValidation),
            ("run a -f --detach", ErrorKind::ArgumentConflict),
        ] {
            assert_eq!(parse(bad).unwrap_err(), kind, "{bad}");
        }
    }
}

const APPROVAL_EXAMPLES: &str = "\
Examples:
  opsctl approval list
  opsctl approval show EXECUTION
  opsctl approval approve EXECUTION --reason 'ring one looks good' --input ticket=OPS-7";

/// What people are asked before a job goes on.
#[derive(Debug, Subcommand)]
#[command(after_help = APPROVAL_EXAMPLES)]
pub(crate) enum ApprovalCommand {
    /// List what waits for people
    List(Shown),
    /// Show what an execution asks for, and who decided what
    Show(super::OneExecution),
    /// Approve: it goes on once as many have as it asks for
    Approve {
        #[command(flatten)]
        what: DecideArgs,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// A value that is asked for with it
        #[arg(short, long = "input", value_name = "NAME=VALUE", value_parser = parse::key_value)]
        inputs: Vec<(String, String)>,
    },
    /// Reject: it does not go on
    Reject {
        #[command(flatten)]
        what: DecideArgs,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Let it go on without the approvals that are missing; the audit says so
    BreakGlass {
        #[command(flatten)]
        what: DecideArgs,
        /// Why
        #[arg(long)]
        reason: String,
        /// A value that is asked for with it
        #[arg(short, long = "input", value_name = "NAME=VALUE", value_parser = parse::key_value)]
        inputs: Vec<(String, String)>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DecideArgs {
    #[command(flatten)]
    pub(crate) execution: super::OneExecution,
    /// The step that asks [default: the one that waits]
    pub(crate) step: Option<String>,
    /// What was looked at, as 'approval show' says: nothing is decided about anything else
    #[arg(long, value_name = "HASH")]
    pub(crate) hash: Option<String>,
}
