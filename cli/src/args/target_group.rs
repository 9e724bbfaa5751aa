//! What people type about target groups.

use clap::{ArgGroup, Args, Subcommand};

use super::Shown;
use crate::parse;

const CREATE_EXAMPLES: &str = "\
Examples:
  opsctl target-group create web-canaries -t web-1,web-2
  opsctl target-group create web -l 'role=web and env=prod'";

const UPDATE_EXAMPLES: &str = "\
Examples:
  opsctl target-group update web-canaries --add web-3 --remove web-1
  opsctl target-group update web-canaries -t web-7,web-8       (these and no others)
  opsctl target-group update web -l 'role in (web, api)'";

#[derive(Debug, Subcommand)]
pub(crate) enum TargetGroupCommand {
    /// Make a target group of hosts, or of a selector
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateTargetGroupArgs),
    /// List the target groups
    List(Shown),
    /// Show one target group with its hosts
    Show(OneTargetGroup),
    /// Change a target group; what is not said stays
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(UpdateTargetGroupArgs),
    /// Delete a target group; what names it says so when it is started
    Delete {
        /// Name of the group
        #[arg(value_name = "GROUP", value_parser = parse::slug)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneTargetGroup {
    /// Name or id of the group
    #[arg(value_name = "GROUP", value_parser = parse::slug)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("members").required(true).args(["target", "selector"]))]
pub(crate) struct CreateTargetGroupArgs {
    #[command(flatten)]
    pub(crate) group: OneTargetGroup,
    /// Host by name; may be repeated
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) target: Vec<String>,
    /// All hosts that a predicate holds for when something starts
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["target", "selector", "add", "remove", "description"]))]
pub(crate) struct UpdateTargetGroupArgs {
    #[command(flatten)]
    pub(crate) group: OneTargetGroup,
    /// The hosts that it is to have, by name, instead of those that it has; may be repeated
    #[arg(short, long, value_name = "NAME", value_delimiter = ',', conflicts_with_all = ["selector", "add", "remove"])]
    pub(crate) target: Vec<String>,
    /// It is to be all hosts that a predicate holds for
    #[arg(short = 'l', long, conflicts_with_all = ["add", "remove"])]
    pub(crate) selector: Option<String>,
    /// One host more; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) add: Vec<String>,
    /// One host less; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) remove: Vec<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::{Parser as _, error::ErrorKind};

    use crate::args::Cli;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(["opsctl"].into_iter().chain(line.split(' '))).map_err(|error| error.kind())
    }

    #[test]
    fn what_people_type_about_target_groups() {
        for good in [
            "target-group create web -t a -t b,c --description why",
            "target-group create web -l role=web -o json",
            "target-group list",
            "target-group show web",
            "target-group update web --add a,b --remove c",
            "target-group update web --description why",
            "target-group delete web",
            "job plan disk-report --target-group web",
            "run disk-report --target-group web --exclude canary --limit 3",
            "exec --target-group web -- uptime",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for (bad, kind) in [
            ("target-group create web", ErrorKind::MissingRequiredArgument),
            ("target-group create web -t a -l role=web", ErrorKind::ArgumentConflict),
            ("target-group update web", ErrorKind::MissingRequiredArgument),
            ("target-group update web -t a --add b", ErrorKind::ArgumentConflict),
            ("target-group update web -l role=web --remove b", ErrorKind::ArgumentConflict),
            ("target-group show ..", ErrorKind::ValueValidation),
            ("run a --all --target-group web", ErrorKind::ArgumentConflict),
            ("exec --all --target-group web -- uptime", ErrorKind::ArgumentConflict),
        ] {
            assert_eq!(parse(bad).unwrap_err(), kind, "{bad}");
        }
    }
}
