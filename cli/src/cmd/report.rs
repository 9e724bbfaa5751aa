//! `opsctl report`: who may do what on which host, and who did.

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use model::api::report::AccessReport;

use crate::{
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Format, Table, human},
    parse,
};

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Who may do what on which host, as it is now, and who had what run there
    Access(AccessArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AccessArgs {
    /// What was started since: how long ago (7d), or an RFC 3339 time [default: 30 days]
    #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
    since: Option<parse::Since>,
    /// And before: how long ago, or an RFC 3339 time [default: now]
    #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
    until: Option<parse::Since>,
    /// Only of this person, or service/NAME
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only of this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
    Yaml,
    Csv,
}

/// # Errors
/// As the request, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: ReportCommand) -> Result<Exit> {
    let ReportCommand::Access(args) = command;
    let path = ["api", "v1", "reports", "access"];
    let mut query = Vec::new();
    for (name, when) in [("since", args.since), ("until", args.until)] {
        if let Some(when) = when {
            query.push((name, when.resolve(clock::now()).map_err(Usage)?.to_string()));
        }
    }
    query.extend(args.user.map(|user| ("who", user)));
    query.extend(args.host.map(|host| ("host", host)));
    let format = match args.output {
        Form::Csv => {
            query.push(("format", "csv".to_owned()));
            let Ok(text) = String::from_utf8(client.download_all(&path, &query).await?) else {
                bail!("the report is not text");
            };
            output::print(&text)?;
            return Ok(Exit::Succeeded);
        }
        Form::Table => Format::Table,
        Form::Json => Format::Json,
        Form::Yaml => Format::Yaml,
    };
    let report: AccessReport = client.get(&path, &query).await?;
    output::show(format, &report, describe)?;
    Ok(Exit::Succeeded)
}

fn describe(report: &AccessReport) -> String {
    let mut may = Table::new(&["WHO", "HOST", "MAY", "BY"]);
    for row in &report.may {
        let names: Vec<&str> = row.permissions.iter().map(|permission| permission.as_str()).collect();
        let who = if row.disabled { format!("{} (disabled)", row.who) } else { row.who.clone() };
        may.row([
            who,
            row.host.clone().unwrap_or_else(|| "*".to_owned()),
            names.join(" "),
            row.by.join(", "),
        ]);
    }
    let mut ways = Table::new(&["TOKEN", "WHO", "NAME", "GIVES", "HOSTS", "BY", "UNTIL"]);
    for row in &report.ways {
        ways.row([
            row.kind.clone(),
            human::or_dash(row.who.as_ref()),
            row.name.clone(),
            row.gives.clone(),
            row.hosts.clone().unwrap_or_else(|| "*".to_owned()),
            row.created_by.clone(),
            row.expires_at.to_string(),
        ]);
    }
    let mut did = Table::new(&["AT", "WHO", "HOST", "STATE", "RAN"]);
    for row in &report.did {
        did.row([
            row.at.to_string(),
            row.who.clone(),
            row.host.clone(),
            row.state.clone(),
            row.summary.clone(),
        ]);
    }
    format!("{}\n{}\n{}", may.take(), ways.take(), did.take())
}
