//! `opsctl statistics`: how many people and hosts there are, what was started, and how it went.

use anyhow::Result;
use clap::Args;
use model::api::statistics::{Bucket, Figures, People, Statistics};

use crate::{
    args::Shown,
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Table, human},
    parse,
};

#[derive(Debug, Args)]
pub(crate) struct StatisticsArgs {
    /// What was started since: how long ago (7d), or an RFC 3339 time [default: 24 hours, or 30 days of days]
    #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
    since: Option<parse::Since>,
    /// And before: how long ago, or an RFC 3339 time [default: now]
    #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
    until: Option<parse::Since>,
    /// Show it by hour or by day, in UTC
    #[arg(long, value_name = "hour|day", value_parser = bucket, default_value = "hour")]
    bucket: Bucket,
    #[command(flatten)]
    shown: Shown,
}

fn bucket(text: &str) -> Result<Bucket, String> {
    Bucket::parse(text).ok_or_else(|| "there are: hour, day".to_owned())
}

/// # Errors
/// As the request, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, args: StatisticsArgs) -> Result<Exit> {
    let mut query = vec![("bucket", args.bucket.as_str().to_owned())];
    if let Some(since) = args.since {
        query.push(("since", since.resolve(clock::now()).map_err(Usage)?.to_string()));
    }
    if let Some(until) = args.until {
        query.push(("until", until.resolve(clock::now()).map_err(Usage)?.to_string()));
    }
    let statistics: Statistics = client.get(&["api", "v1", "statistics"], &query).await?;
    output::show(args.shown.output, &statistics, describe)?;
    Ok(Exit::Succeeded)
}

fn describe(statistics: &Statistics) -> String {
    let hosts: Vec<String> =
        statistics.hosts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let mut table = Table::new(&["FROM", "EXECUTIONS", "SUCCEEDED", "RUNS", "P50", "P95"]);
    for bucket in statistics.buckets.iter().filter(|bucket| !bucket.figures.executions.is_empty()) {
        table.row(row(bucket.start.to_string(), &bucket.figures));
    }
    table.row(row("in all".to_owned(), &statistics.total));
    format!("people: {}\nhosts: {}\n\n{}", people(&statistics.people), hosts.join(", "), table.take())
}

fn people(people: &People) -> String {
    let People { total, disabled, with_second_factor, active, service_accounts } = people;
    format!(
        "{total} members ({active} active, {disabled} disabled, {with_second_factor} with a second factor), \
         {service_accounts} service accounts"
    )
}

fn row(name: String, figures: &Figures) -> [String; 6] {
    let seconds = |seconds: Option<f64>| human::or_dash(seconds.map(|seconds| format!("{seconds:.1} s")));
    [
        name,
        figures.executions.values().sum::<i64>().to_string(),
        human::or_dash(figures.success_rate.map(|rate| format!("{:.1} %", rate * 100.0))),
        figures.runs.values().sum::<i64>().to_string(),
        seconds(figures.duration_p50_seconds),
        seconds(figures.duration_p95_seconds),
    ]
}
