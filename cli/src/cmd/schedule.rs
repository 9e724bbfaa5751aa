//! `opsctl schedule`: when jobs start by themselves, and what became of each firing.

use std::{io::Read as _, path::Path};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use model::{
    api::{
        execution::Execution,
        job::Job,
        schedule::{
            Backfill, Backfilled, Cause, Forecast, Occurrence, PauseSchedule, PlannedFiring, Preview,
            PreviewSchedule, SaveSchedule, Schedule, WebhookSecret,
        },
    },
    limits,
    schedule::{self, Entry, Timing, WhenOffline, WrittenTiming},
};

use super::job::start;
use crate::{
    args::{
        CreateScheduleArgs, OneSchedule, PreviewArgs, ScheduleCommand, ScheduleFields, TriggerArgs,
        UpdateScheduleArgs,
    },
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Table, human},
};

const SCHEDULES: [&str; 3] = ["api", "v1", "schedules"];
/// What overlaps become where something else than a clock starts the job, and nobody says: each of what comes counts, as a time that
/// comes again does not.
const EACH_COUNTS: schedule::Overlap = schedule::Overlap::QueueAll;
/// Stands for a schedule that is only looked at.
const UNSAVED: &str = "unsaved";

/// The path of a schedule, by name or id, and of what is below it.
fn path<'a>(schedule: &'a str, below: &[&'a str]) -> Vec<&'a str> {
    [&SCHEDULES, [schedule].as_slice(), below].concat()
}

/// # Errors
/// As the requests, when a file cannot be read, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: ScheduleCommand) -> Result<Exit> {
    match command {
        ScheduleCommand::Create(args) => create(client, *args).await?,
        ScheduleCommand::List { job, shown } => {
            let now = clock::now();
            let header = &["NAME", "JOB", "WHEN", "STATE", "NEXT", "AUTHOR"];
            let job = match job {
                None => None,
                Some(name) => {
                    Some(client.get::<Job>(&["api", "v1", "jobs", &name], &[]).await?.id.to_string())
                }
            };
            let below = match &job {
                None => SCHEDULES.to_vec(),
                Some(job) => path("job", &[job]),
            };
            output::list(client.pages(&below, Vec::new(), None), shown.output, header, |one: &Schedule| {
                vec![
                    one.schedule.name.clone(),
                    one.schedule.job.clone(),
                    one.schedule.when.to_string(),
                    one.state.as_str().to_owned(),
                    human::or_dash(one.next.map(|next| human::moment(next, now))),
                    one.author.clone(),
                ]
            })
            .await?;
        }
        ScheduleCommand::Show(one) => {
            let schedule: Schedule = client.get(&path(&one.name, &[]), &[]).await?;
            show(&one, &schedule)?;
        }
        ScheduleCommand::Update(args) => update(client, *args).await?,
        ScheduleCommand::Delete { name } => {
            client.delete(&path(&name, &[])).await?;
            output::note(&format!("the schedule {name} is deleted"));
        }
        ScheduleCommand::Pause { schedule: one, reason } => {
            let schedule: Schedule =
                client.post(&path(&one.name, &["pause"]), &PauseSchedule { reason }).await?;
            show(&one, &schedule)?;
        }
        ScheduleCommand::Resume(one) => {
            let schedule: Schedule = client.post(&path(&one.name, &["resume"]), &()).await?;
            show(&one, &schedule)?;
        }
        ScheduleCommand::NewSecret(one) => {
            let secret: WebhookSecret = client.post(&path(&one.name, &["webhook-secret"]), &()).await?;
            output::show(one.shown.output, &secret, |secret| told(client, secret))?;
        }
        ScheduleCommand::Trigger(one) => {
            let execution: Execution = client.post(&path(&one.name, &["trigger"]), &()).await?;
            output::show(one.shown.output, &execution, |execution| format!("{}\n", execution.id))?;
        }
        ScheduleCommand::Backfill { schedule: one, from, to, at_a_time, again, dry_run } => {
            let to = to.unwrap_or_else(clock::now);
            let request = Backfill { from, to, at_a_time, again, dry_run };
            let done: Backfilled = client.post(&path(&one.name, &["backfill"]), &request).await?;
            output::show(one.shown.output, &done, |done| backfilled(done, dry_run))?;
        }
        ScheduleCommand::Preview(args) => preview(client, args).await?,
        ScheduleCommand::Forecast { target, hours, shown } => {
            let hours = hours.map(|hours| ("hours", hours.to_string()));
            let query: Vec<_> = hours.into_iter().chain(target.map(|name| ("target", name))).collect();
            let forecast: Forecast = client.get(&path("forecast", &[]), &query).await?;
            if forecast.is_cut {
                output::note(&format!("only the first {} firings are shown", forecast.firings.len()));
            }
            output::show(shown.output, &forecast, foreseen)?;
        }
        ScheduleCommand::History { schedule: one, state, last } => {
            let now = clock::now();
            let header = &["DUE", "STATE", "ORIGIN", "EXECUTION", "WHY"];
            let query = state.map(|state| ("state", state.as_str().to_owned())).into_iter().collect();
            let pages = client.pages(&path(&one.name, &["history"]), query, u64::try_from(last).ok());
            output::list(pages, one.shown.output, header, |one: &Occurrence| {
                let execution = one.execution_id.map(|id| match one.execution_state {
                    Some(state) => format!("{id} ({})", state.as_str()),
                    None => id.to_string(),
                });
                vec![
                    human::moment(one.due, now),
                    one.state.as_str().to_owned(),
                    one.origin.as_str().to_owned(),
                    human::or_dash(execution),
                    why(one.cause.map(Cause::as_str), one.detail.as_deref()),
                ]
            })
            .await?;
        }
    }
    Ok(Exit::Succeeded)
}

fn why(cause: Option<&str>, detail: Option<&str>) -> String {
    match (cause, detail) {
        (Some(cause), Some(detail)) => format!("{cause}: {detail}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "-".to_owned(),
    }
}

async fn create(client: &Client, args: CreateScheduleArgs) -> Result<()> {
    let name = &args.schedule.name;
    let base = match (&args.fields.file, &args.job, &args.when) {
        (Some(file), ..) => read(file)?,
        (None, Some(job), Some(when)) => schedule::Schedule::new(name, job, timing(when)?),
        (None, Some(job), None) => {
            let trigger = triggered(None, &args.fields.trigger)?;
            let trigger = trigger.ok_or_else(|| Usage("say --when, --webhook or --event".to_owned()))?;
            schedule::Schedule { overlap: EACH_COUNTS, ..schedule::Schedule::new(name, job, trigger) }
        }
        (None, ..) => return Err(Usage("say --job and --when, or --file".to_owned()).into()),
    };
    let base = schedule::Schedule { name: args.schedule.name.clone(), ..base };
    // Without a file they are in it already.
    let when = args.when.as_deref().filter(|_| args.fields.file.is_some());
    let new = changed(client, base, args.job, when, args.fields).await?;
    let request = SaveSchedule { schedule: new, expected_revision: None };
    let saved: Schedule = client.post(&SCHEDULES, &request).await?;
    note_secret(&saved);
    show(&args.schedule, &saved)
}

/// Says that a webhook takes nothing yet, or any more.
fn note_secret(saved: &Schedule) {
    if saved.webhook_has_secret == Some(false) {
        let name = &saved.schedule.name;
        output::note(&format!(
            "it takes nothing before it has a secret of yours: opsctl schedule new-secret {name}"
        ));
    }
}

/// The address and the secret of a webhook.
fn told(client: &Client, secret: &WebhookSecret) -> String {
    let mut table = Table::plain();
    table.row(["Address".to_owned(), format!("{}{}", client.shown_addr(), secret.path)]);
    table.row(["Secret".to_owned(), secret.secret.clone()]);
    table.take()
}

/// When, of what was said about what starts it; none when nothing was. What is not said stays as it was.
fn triggered(before: Option<&Timing>, said: &TriggerArgs) -> Result<Option<Timing>> {
    let TriggerArgs { webhook, event, condition, take, hosts, from_network, proof_header, delivery_header } =
        said;
    let speaks_of_door =
        webhook.is_some() || !from_network.is_empty() || proof_header.is_some() || delivery_header.is_some();
    if !speaks_of_door && event.is_none() && condition.is_none() && take.is_empty() && hosts.is_none() {
        return Ok(None);
    }
    let mut written = before.map(|before| WrittenTiming::from(before.clone())).unwrap_or_default();
    if webhook.is_some() && written.webhook.is_none() || event.is_some() && written.event.is_none() {
        // Another kind of start: nothing of the one before holds for it.
        written = WrittenTiming {
            starts_at: written.starts_at,
            ends_at: written.ends_at,
            ..WrittenTiming::default()
        };
    }
    if speaks_of_door {
        let door = written.webhook.get_or_insert_default();
        if let Some(proof) = webhook.filter(|proof| *proof != door.proof) {
            (door.proof, door.header) = (proof, None);
        }
        door.header = proof_header.clone().or(door.header.take());
        door.delivery_header = delivery_header.clone().or(door.delivery_header.take());
        if !from_network.is_empty() {
            door.from.clone_from(from_network);
        }
    }
    written.event = event.clone().or(written.event);
    written.condition = condition.clone().or(written.condition);
    written.parameters.extend(take.iter().cloned());
    written.hosts = hosts.clone().or(written.hosts);
    let timing = written.read().map_err(|invalid| Usage(invalid.to_string()))?;
    Ok(Some(timing))
}

async fn update(client: &Client, args: UpdateScheduleArgs) -> Result<()> {
    let before: Schedule = client.get(&path(&args.schedule.name, &[]), &[]).await?;
    let base = match &args.fields.file {
        Some(file) => read(file)?,
        None => before.schedule,
    };
    let new = changed(client, base, args.job, args.when.as_deref(), args.fields).await?;
    let request = SaveSchedule { schedule: new, expected_revision: Some(before.revision) };
    let saved: Schedule = client.put(&path(&before.id.to_string(), &[]), &request).await?;
    note_secret(&saved);
    show(&args.schedule, &saved)
}

/// When, of what somebody typed.
fn timing(text: &str) -> Result<Timing> {
    Ok(entry(text)?.timing)
}

fn entry(text: &str) -> Result<Entry> {
    let entry = Entry::parse(text).map_err(|why| Usage(format!("--when: {}", why.problem)))?;
    if let Some(cron) = entry.cron.as_ref().filter(|cron| *cron != text.trim()) {
        output::note(&format!("read as the cron {cron}"));
    }
    Ok(entry)
}

/// The schedule with what was said about it.
async fn changed(
    client: &Client,
    mut new: schedule::Schedule,
    job: Option<String>,
    when: Option<&str>,
    fields: ScheduleFields,
) -> Result<schedule::Schedule> {
    if let Some(job) = job {
        new.job = job;
    }
    if let Some(when) = when {
        let entry = entry(when)?;
        new.when = entry.timing.in_place_of(&new.when, entry.says_zone);
    }
    if let Some(timing) = triggered(Some(&new.when), &fields.trigger)? {
        if new.when.trigger().is_none() && new.overlap == schedule::Overlap::default() {
            new.overlap = EACH_COUNTS;
        }
        new.when = timing;
    }
    new.when.starts_at = fields.from.or(new.when.starts_at);
    new.when.ends_at = fields.until.or(new.when.ends_at);
    if let Some(gap) = fields.gap {
        new.when.gap = gap;
    }
    if let Some(fold) = fields.fold {
        new.when.fold = fold;
    }
    new.version = fields.version.or(new.version);
    let given = start::parameters(client, &new.job, new.version, &fields.params).await?;
    new.parameters.extend(given);
    if let Some(targets) = start::targets(client, &new.job, new.version, fields.targets).await? {
        new.targets = Some(targets);
    }
    new.priority = fields.priority.or(new.priority);
    new.description = fields.description.unwrap_or(new.description);
    new.jitter = fields.jitter.unwrap_or(new.jitter);
    new.max_lateness = fields.max_lateness.unwrap_or(new.max_lateness);
    new.misfire = fields.misfire.unwrap_or(new.misfire);
    new.catch_up_window = fields.catch_up_window.unwrap_or(new.catch_up_window);
    new.overlap = fields.overlap.unwrap_or(new.overlap);
    new.pause_after_failures = fields.pause_after_failures.or(new.pause_after_failures);
    if fields.skip_offline {
        new.when_offline = WhenOffline::Skip;
    }
    if !fields.calendars.is_empty() {
        new.calendars = fields.calendars;
    }
    new.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    Ok(new)
}

/// A schedule from a file.
fn read(file: &Path) -> Result<schedule::Schedule> {
    let shown = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
    let mut text = String::new();
    let most = u64::try_from(limits::DOCUMENT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let done = if file == Path::new("-") {
        std::io::stdin().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    done.with_context(|| format!("cannot read {shown}"))?;
    schedule::read(&text).map_err(|bad| Usage(format!("{shown}: {bad}")).into())
}

async fn preview(client: &Client, args: PreviewArgs) -> Result<()> {
    let preview: Preview = if let Some(name) = &args.name {
        let query: Vec<_> = args.count.map(|count| ("count", count.to_string())).into_iter().collect();
        client.get(&path(name, &["preview"]), &query).await?
    } else {
        let schedule = match (&args.file, &args.when) {
            (Some(file), _) => read(file)?,
            (None, Some(when)) => schedule::Schedule::new(UNSAVED, UNSAVED, timing(when)?),
            (None, None) => return Err(Usage("say a schedule, --when or --file".to_owned()).into()),
        };
        client.post(&path("preview", &[]), &PreviewSchedule { schedule, count: args.count }).await?
    };
    output::show(args.shown.output, &preview, firings)
}

fn firings(preview: &Preview) -> String {
    let mut table = Table::new(&["LOCAL TIME", "UTC", "BEGINS", "SKIPPED"]);
    for PlannedFiring { due, local, begins, skipped, detail } in &preview.firings {
        let begins = if begins == due { "at once".to_owned() } else { begins.to_string() };
        let skipped = why(skipped.map(Cause::as_str), detail.as_deref());
        table.row([local.clone(), due.to_string(), begins, skipped]);
    }
    table.take()
}

fn backfilled(done: &Backfilled, dry_run: bool) -> String {
    let mut text: String = done.firings.iter().map(|due| format!("{due}\n")).collect();
    let count = human::count(i64::try_from(done.firings.len()).unwrap_or(i64::MAX), "firing");
    let word = if dry_run { "would start" } else { "will start" };
    text.push_str(&format!(
        "{count} {word}, {} left out that have started something already\n",
        done.left_out
    ));
    text
}

fn foreseen(forecast: &Forecast) -> String {
    let mut table = Table::new(&["LOCAL TIME", "UTC", "SCHEDULE", "JOB", "SKIPPED"]);
    for one in &forecast.firings {
        let skipped = why(one.skipped.map(Cause::as_str), one.detail.as_deref());
        table.row([one.local.clone(), one.due.to_string(), one.schedule.clone(), one.job.clone(), skipped]);
    }
    table.take()
}

fn show(one: &OneSchedule, schedule: &Schedule) -> Result<()> {
    output::show(one.shown.output, schedule, |schedule| describe(schedule, clock::now()))
}

fn describe(one: &Schedule, now: Timestamp) -> String {
    let said = &one.schedule;
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| {
        table.row([name.to_owned(), value]);
    };
    row("Name", said.name.clone());
    row("Id", one.id.to_string());
    if !said.description.is_empty() {
        row("Description", said.description.clone());
    }
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let version = said.version.map(|version| format!(", version {version}")).unwrap_or_default();
    row("Job", format!("{}{version}", said.job));
    row("When", said.when.to_string());
    row(
        "State",
        match &one.paused_because {
            Some(why) => format!("{} ({why})", one.state.as_str()),
            None => one.state.as_str().to_owned(),
        },
    );
    if let Some(trigger) = said.when.trigger() {
        if let schedule::Source::Webhook(webhook) = &trigger.source {
            let word = word(serde_json::json!(webhook.proof));
            row("Proof", format!("{word} in {}", webhook.proof_header().unwrap_or("authorization")));
            let from = webhook.from.join(", ");
            row("From", if from.is_empty() { "anywhere".to_owned() } else { from });
        }
        if let Some(condition) = &trigger.condition {
            row("If", condition.clone());
        }
        for (name, expression) in &trigger.parameters {
            row(&format!("Takes {name}"), expression.clone());
        }
        if let Some(hosts) = &trigger.hosts {
            row("Hosts", hosts.clone());
        }
        if let Some(address) = &one.webhook_path {
            let has = if one.webhook_has_secret == Some(true) { "" } else { " (it has no secret yet)" };
            row("Address", format!("{address}{has}"));
        }
    }
    row("Next", human::or_dash(one.next.map(|next| human::moment(next, now))));
    if said.jitter.seconds() > 0 {
        row("Jitter", said.jitter.to_string());
    }
    row(
        "Late",
        format!(
            "after {}: {}, within {}",
            said.max_lateness,
            word(serde_json::json!(said.misfire)),
            said.catch_up_window
        ),
    );
    row("Overlap", word(serde_json::json!(said.overlap)));
    if let Some(most) = said.pause_after_failures {
        row("Failures", format!("{} in a row; paused at {most}", one.failures));
    }
    if !said.calendars.is_empty() {
        row("Calendars", said.calendars.join(", "));
    }
    for (name, value) in &said.parameters {
        row(&format!("Parameter {name}"), value.to_string());
    }
    if let Some(targets) = &said.targets {
        row("Targets", serde_json::to_string(targets).unwrap_or_default());
    }
    row("Revision", format!("{} by {}, {}", one.revision, one.author, human::relative(one.updated_at, now)));
    table.take()
}
