//! What people type about schedules.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use model::{
    api::schedule::OccurrenceState,
    job::Length,
    schedule::{Fold, Gap, Misfire, Overlap, Proof},
};

use super::{Shown, TargetArgs};
use crate::parse;

const WHEN: &str = "\
When, in words or as cron; a zone may stand at the end:
  'every 15m'   'hourly'   'daily at 02:30'   'weekdays 9:00 Europe/Warsaw'   'mon,wed 18:00'
  'monthly on the 1st at 04:00'   'last day of the month at 23:00'   'at 2026-12-01 10:00 Europe/Berlin'
  '30 2 * * *'   '0 9 * * MON#1 America/New_York'

What no clock starts has --webhook or --event in its place:
  --event execution.ended --if \"event.data.state == 'failed'\" --take execution=event.object
  --event agent.connected --hosts event.data.name
  --webhook signature --if \"body.ref == 'refs/heads/main'\" --take commit=body.after";

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Save a new schedule: from then on it starts its job as you
    #[command(after_help = WHEN)]
    Create(Box<CreateScheduleArgs>),
    /// List schedules
    List {
        /// Only those of the job with this name or id
        #[arg(long, value_name = "JOB", value_parser = parse::slug)]
        job: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show one schedule
    Show(OneSchedule),
    /// Save a schedule anew: what is not said stays; from then on it starts its job as you
    #[command(after_help = WHEN)]
    Update(Box<UpdateScheduleArgs>),
    /// Delete a schedule; what it has started goes on
    Delete {
        /// Name or id of the schedule
        #[arg(value_name = "SCHEDULE", value_parser = parse::slug)]
        name: String,
    },
    /// Pause a schedule: its firings are skipped until it is resumed
    Pause {
        #[command(flatten)]
        schedule: OneSchedule,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let a paused schedule go on
    Resume(OneSchedule),
    /// Give the webhook of a schedule a new secret, and print it with its address: it is never shown again
    NewSecret(OneSchedule),
    /// Start the job of a schedule now, with its values and targets, as you
    Trigger(OneSchedule),
    /// Start the job for the planned times of a time that is over, the oldest first
    Backfill {
        #[command(flatten)]
        schedule: OneSchedule,
        /// From this time on, as 2026-11-01T00:00:00Z
        #[arg(long, value_name = "TIME")]
        from: Timestamp,
        /// Before this time [default: now]
        #[arg(long, value_name = "TIME")]
        to: Option<Timestamp>,
        /// How many executions of the schedule may be open at a time, to 50 [default: 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=50))]
        at_a_time: Option<i64>,
        /// Also the times that have started something already
        #[arg(long)]
        again: bool,
        /// Only show which times it would be
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the firings to come, of a schedule or of what you would save
    #[command(after_help = WHEN)]
    Preview(PreviewArgs),
    /// Show what will fire in the hours to come, of all schedules or on one host
    Forecast {
        /// Only what would start on this host
        #[arg(short, long, value_name = "NAME")]
        target: Option<String>,
        /// How far to look, to 744 [default: 24]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=744))]
        hours: Option<i64>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show what became of the firings of a schedule, the newest first
    History {
        #[command(flatten)]
        schedule: OneSchedule,
        /// Only those that came to this: fired, caught_up, skipped, missed or waiting
        #[arg(long, value_name = "STATE", value_parser = parse::word::<OccurrenceState>)]
        state: Option<OccurrenceState>,
        /// How many [default: 50]
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = parse::positive)]
        last: usize,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneSchedule {
    /// Name or id of the schedule
    #[arg(value_name = "SCHEDULE", value_parser = parse::slug)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
pub(crate) struct CreateScheduleArgs {
    #[command(flatten)]
    pub(crate) schedule: OneSchedule,
    /// The job that it starts
    #[arg(long, value_name = "JOB", value_parser = parse::slug, required_unless_present = "file")]
    pub(crate) job: Option<String>,
    /// When; see below
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["file", "webhook", "event"], allow_hyphen_values = true)]
    pub(crate) when: Option<String>,
    #[command(flatten)]
    pub(crate) fields: ScheduleFields,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateScheduleArgs {
    #[command(flatten)]
    pub(crate) schedule: OneSchedule,
    /// The job that it starts
    #[arg(long, value_name = "JOB", value_parser = parse::slug)]
    pub(crate) job: Option<String>,
    /// When; see below
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) when: Option<String>,
    #[command(flatten)]
    pub(crate) fields: ScheduleFields,
}

/// What starts a job that no clock starts.
#[derive(Debug, Args)]
pub(crate) struct TriggerArgs {
    /// When another program delivers something at the schedule's own address, with its secret or with a signature
    #[arg(long, value_name = "PROOF", value_parser = parse::word::<Proof>, conflicts_with_all = ["when", "event"])]
    pub(crate) webhook: Option<Proof>,
    /// When an event of this kind happens, as execution.ended; agent.* is any that begins so
    #[arg(long, value_name = "KIND", conflicts_with = "when")]
    pub(crate) event: Option<String>,
    /// Start nothing when this expression does not hold of what came
    #[arg(long = "if", value_name = "EXPRESSION")]
    pub(crate) condition: Option<String>,
    /// A value of one of the job's parameters, taken out of what came
    #[arg(long, value_name = "NAME=EXPRESSION", value_parser = parse::key_value)]
    pub(crate) take: Vec<(String, String)>,
    /// Where it runs: an expression that gives the name of a host, or a list of names
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) hosts: Option<String>,
    /// Take deliveries from this address or network only; several times for several
    #[arg(long, value_name = "NETWORK")]
    pub(crate) from_network: Vec<String>,
    /// The header with the secret or the signature [default: Authorization, X-Hub-Signature-256]
    #[arg(long, value_name = "NAME")]
    pub(crate) proof_header: Option<String>,
    /// The header that tells one delivery from another [default: those of GitHub, Gitea, GitLab, and Idempotency-Key]
    #[arg(long, value_name = "NAME")]
    pub(crate) delivery_header: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ScheduleFields {
    #[command(flatten)]
    pub(crate) trigger: TriggerArgs,
    /// All of it from a YAML or JSON file, or from stdin with '-'; what is said besides is put on it
    #[arg(short, long, value_name = "FILE|-")]
    pub(crate) file: Option<PathBuf>,
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Not before this time, as 2026-12-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Timestamp>,
    /// Not after this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Timestamp>,
    /// What becomes of a local time that the clock jumps over: first_valid or skip
    #[arg(long, value_name = "POLICY", value_parser = parse::word::<Gap>)]
    pub(crate) gap: Option<Gap>,
    /// What becomes of a local time that comes twice: once or twice
    #[arg(long, value_name = "POLICY", value_parser = parse::word::<Fold>)]
    pub(crate) fold: Option<Fold>,
    /// A value of one of the job's parameters
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = parse::key_value)]
    pub(crate) params: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) targets: TargetArgs,
    /// The version of the job to run [default: the newest at each firing]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) version: Option<i32>,
    /// Of what waits for a host the highest comes first, -100 to 100 [default: as the job says]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) priority: Option<i64>,
    /// Each firing begins up to so much later [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = Length::parse)]
    pub(crate) jitter: Option<Length>,
    /// A firing that begins by so much after its time is not late [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = Length::parse)]
    pub(crate) max_lateness: Option<Length>,
    /// What becomes of later ones: skip, run_once or run_all [default: run_once]
    #[arg(long, value_name = "POLICY", value_parser = parse::word::<Misfire>)]
    pub(crate) misfire: Option<Misfire>,
    /// How long after its time a late one may still start [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = Length::parse)]
    pub(crate) catch_up_window: Option<Length>,
    /// What becomes of one while an execution of the schedule is open: allow, skip, queue_one, queue_all or cancel_running
    /// [default: skip; queue_all where --webhook or --event take the place of a time]
    #[arg(long, value_name = "POLICY", value_parser = parse::word::<Overlap>)]
    pub(crate) overlap: Option<Overlap>,
    /// Pause it after so many executions in a row that did not succeed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pause_after_failures: Option<u32>,
    /// Skip a firing when none of its hosts is connected
    #[arg(long)]
    pub(crate) skip_offline: bool,
    /// A calendar that it heeds; may be repeated
    #[arg(long = "calendar", value_name = "NAME", value_parser = parse::slug)]
    pub(crate) calendars: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// Name or id of a schedule
    #[arg(value_name = "SCHEDULE", value_parser = parse::slug, conflicts_with_all = ["when", "file"])]
    pub(crate) name: Option<String>,
    /// When, of a schedule that is not saved; see below
    #[arg(long, value_name = "TEXT", conflicts_with = "file", allow_hyphen_values = true)]
    pub(crate) when: Option<String>,
    /// A schedule from a YAML or JSON file, or from stdin with '-'
    #[arg(short, long, value_name = "FILE|-", required_unless_present_any = ["name", "when"])]
    pub(crate) file: Option<PathBuf>,
    /// How many firings, to 1000 [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=1000))]
    pub(crate) count: Option<i64>,
    #[command(flatten)]
    pub(crate) shown: Shown,
}
