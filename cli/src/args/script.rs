//! What people type about scripts.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::Shown;
use crate::parse;

const CREATE_EXAMPLES: &str = "\
Examples:
  opsctl script create deploy -f deploy.sh --label team=web
  opsctl script create cleanup -f cleanup.py --parameters parameters.yaml --comment 'first'

A job uses it with 'script: {use: deploy@1}', or with 'script: {use: deploy}' for the newest version.";

const DIFF_EXAMPLES: &str = "\
Examples:
  opsctl script diff deploy                (what the newest version changed)
  opsctl script diff deploy 3              (from version 3 to the newest)
  opsctl script diff deploy 3 5
  opsctl script diff deploy -f deploy.sh   (what saving the file would change)";

#[derive(Debug, Subcommand)]
pub(crate) enum ScriptCommand {
    /// Save a new script
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateScriptArgs),
    /// List scripts
    List {
        /// Only those whose labels a predicate holds for, as 'team=web'
        #[arg(short = 'l', long)]
        selector: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show one script with its text
    Show {
        #[command(flatten)]
        script: OneScript,
        /// This version [default: the newest]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        version: Option<i32>,
    },
    /// List the versions of a script, the newest first
    History(OneScript),
    /// Show what changed between two versions, or would by a file
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffScriptArgs),
    /// Save a further version of a script; what is not said stays
    Update(UpdateScriptArgs),
    /// Delete a script; jobs that use it say so when they are started
    Delete {
        /// Name or id of the script
        #[arg(value_name = "SCRIPT", value_parser = parse::slug)]
        name: String,
    },
    /// Let the controller check a script without running it: its first line, its syntax, and what is dangerous
    Validate(ValidateScriptArgs),
}

#[derive(Debug, Args)]
pub(crate) struct OneScript {
    /// Name or id of the script
    #[arg(value_name = "SCRIPT", value_parser = parse::slug)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// What a script has beside its text.
#[derive(Debug, Args)]
pub(crate) struct ScriptFields {
    /// Program that runs it, with its options [default: the script's '#!' line]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) interpreter: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Label of the script; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Parameters that it expects in its environment, as a job has them (YAML or JSON)
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters: Option<PathBuf>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CreateScriptArgs {
    #[command(flatten)]
    pub(crate) script: OneScript,
    /// File with the text, or stdin with '-'
    #[arg(short, long, value_name = "FILE|-")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) fields: ScriptFields,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["file", "interpreter", "description", "labels", "parameters"]))]
pub(crate) struct UpdateScriptArgs {
    #[command(flatten)]
    pub(crate) script: OneScript,
    /// File with the text, or stdin with '-'
    #[arg(short, long, value_name = "FILE|-")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) fields: ScriptFields,
}

#[derive(Debug, Args)]
pub(crate) struct DiffScriptArgs {
    /// Name or id of the script
    #[arg(value_name = "SCRIPT", value_parser = parse::slug)]
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
#[command(group = ArgGroup::new("text").required(true).args(["name", "file"]))]
pub(crate) struct ValidateScriptArgs {
    /// Name or id of a script
    #[arg(value_name = "SCRIPT", value_parser = parse::slug)]
    pub(crate) name: Option<String>,
    /// A file that is not saved, or stdin with '-'
    #[arg(short, long, value_name = "FILE|-")]
    pub(crate) file: Option<PathBuf>,
    /// Program that runs the file, with its options [default: the script's '#!' line]
    #[arg(long, value_name = "PROGRAM", conflicts_with = "name")]
    pub(crate) interpreter: Option<String>,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[cfg(test)]
mod tests {
    use clap::{Parser as _, error::ErrorKind};

    use crate::args::Cli;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(["opsctl"].into_iter().chain(line.split(' '))).map_err(|error| error.kind())
    }

    #[test]
    fn what_people_type_about_scripts() {
        for good in [
            "script create deploy -f deploy.sh --label team=web --comment first",
            "script create deploy -f - --interpreter perl --parameters p.yaml",
            "script list -l team=web -o json",
            "script show deploy --version 3",
            "script history deploy",
            "script diff deploy 3 5",
            "script diff deploy -f deploy.sh",
            "script update deploy -f deploy.sh",
            "script update deploy --description new",
            "script delete deploy",
            "script validate deploy",
            "script validate -f deploy.py --interpreter python3",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for (bad, kind) in [
            ("script create deploy", ErrorKind::MissingRequiredArgument),
            ("script create Deploy -f a", ErrorKind::ValueValidation),
            ("script update deploy", ErrorKind::MissingRequiredArgument),
            ("script update deploy --comment why", ErrorKind::MissingRequiredArgument),
            ("script show deploy --version 0", ErrorKind::ValueValidation),
            ("script diff deploy 1 -f a", ErrorKind::ArgumentConflict),
            ("script validate", ErrorKind::MissingRequiredArgument),
            ("script validate deploy -f a", ErrorKind::ArgumentConflict),
            ("script validate deploy --interpreter sh", ErrorKind::ArgumentConflict),
        ] {
            assert_eq!(parse(bad).unwrap_err(), kind, "{bad}");
        }
    }
}
