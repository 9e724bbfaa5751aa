//! Schedules: how soon all that is due in one second has started, how late a steady stream of firings is, and what many that
//! are not due cost.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use model::{
    api::schedule::SaveSchedule,
    job::JobTargets,
    schedule::{Overlap, Schedule, Timing, WrittenTiming},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::NOTHING;
use crate::{
    clock,
    figure::Book,
    lab::{Database, Lab},
    plan::Plan,
    process::tree_cpu_seconds,
    stats::percentile,
};

/// The hosts of the schedules, on which a run waits that is never taken.
const HOSTS: usize = 200;
/// Seconds between two firings of those that are all due at once.
const APART: i64 = 20;
/// How long one round of firings may take.
const WITHIN: Duration = Duration::from_secs(60);
/// Each look reads all occurrences, and takes its time from what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The job of this name, which all of the schedules start.
async fn job(lab: &mut Lab, name: &str) -> anyhow::Result<Vec<String>> {
    lab.stop_real().await?;
    lab.simulated(HOSTS).await?;
    let document =
        json!({ "name": name, "start_within": "1d", "steps": [{ "name": "do", "argv": [NOTHING] }] });
    lab.api.save_job(document.to_string()).await?;
    let mut database = lab.database().await?;
    let mut names = database.simulated_names().await?;
    names.truncate(HOSTS);
    Ok(names)
}

/// Saves schedules that are all due at the same seconds.
async fn save(lab: &Lab, prefix: &str, hosts: &[String], count: usize, cron: &str) -> anyhow::Result<()> {
    let when: Timing = WrittenTiming { cron: Some(cron.to_owned()), ..WrittenTiming::default() }.read()?;
    let all = (0..count).map(|number| {
        let mut schedule = Schedule::new(&format!("{prefix}-{number}"), prefix, when.clone());
        schedule.overlap = Overlap::Allow;
        let host = hosts[number % hosts.len()].clone();
        schedule.targets = Some(JobTargets { hosts: vec![host], ..JobTargets::default() });
        async move { lab.api.save_schedule(&SaveSchedule { schedule, expected_revision: None }).await }
    });
    stream::iter(all).buffer_unordered(8).try_collect().await
}

/// Many that are due in the same second, among many more that are not.
pub(super) async fn at_once(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    let hosts = job(lab, "once").await?;
    let mut database = lab.database().await?;
    save(lab, "once", &hosts, plan.schedules_due, &format!("*/{APART} * * * * *")).await?;
    database.idle_schedules(plan.schedules_idle).await?;
    let mut samples = Vec::new();
    for repetition in 0..=plan.repetitions {
        let due = next(APART)?;
        sleep(until(due)).await;
        let begun = Instant::now();
        while database.fired(due).await? < plan.schedules_due {
            ensure!(begun.elapsed() < WITHIN, "not all were fired in time");
            sleep(LOOK_EVERY).await;
        }
        let took = clock::now().duration_since(due);
        // The first warms up.
        if repetition > 0 {
            samples.push(took.as_secs_f64());
        }
    }
    database.stop_schedules().await?;
    let note = format!(
        "{} due in the same second, of {} schedules; until the last occurrence with its execution is committed",
        plan.schedules_due,
        plan.schedules_due + plan.schedules_idle
    );
    book.enter("schedules_due_2000_s", samples, note, json!({ "schedules": plan.schedules_due }));
    Ok(())
}

/// So many firings each second.
pub(super) async fn lateness(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    let hosts = job(lab, "steady").await?;
    let mut database = lab.database().await?;
    save(lab, "steady", &hosts, plan.schedules_per_second, "* * * * * *").await?;
    let mut samples = Vec::new();
    for _ in 0..plan.repetitions {
        let from = next(1)? + SignedDuration::from_secs(1);
        let seconds = plan.schedules_seconds;
        let to = from + SignedDuration::from_secs(seconds);
        sleep(until(to) + Duration::from_secs(2)).await;
        let late = database.lateness(from, to).await?;
        let wanted = plan.schedules_per_second * usize::try_from(seconds)?;
        ensure!(late.len() == wanted, "{} of {wanted} firings have a row with an execution", late.len());
        samples.extend(percentile(&late, 99.0));
    }
    database.stop_schedules().await?;
    let note = format!(
        "{} firings at each full second for {} s; from when each was due to the time its transaction wrote",
        plan.schedules_per_second, plan.schedules_seconds
    );
    book.enter("schedules_late_p99_ms", samples, note, json!({}));
    Ok(())
}

/// What many schedules cost of which none is due, beyond what none at all cost.
pub(super) async fn idle(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    let hosts = job(lab, "idle").await?;
    let mut database = lab.database().await?;
    let pid = lab.controller_pid();
    let cpu = async || -> anyhow::Result<f64> {
        let (begun, before) = (Instant::now(), tree_cpu_seconds(pid)?);
        sleep(plan.idle_window).await;
        Ok(100.0 * (tree_cpu_seconds(pid)? - before) / begun.elapsed().as_secs_f64())
    };
    sleep(plan.idle_settle).await;
    let without = cpu().await?;
    save(lab, "idle", &hosts, 1, "0 0 1 1 *").await?;
    database.idle_schedules(plan.schedules_idle).await?;
    sleep(plan.idle_settle).await;
    let mut samples = Vec::new();
    for _ in 0..plan.repetitions {
        samples.push((cpu().await? - without).max(0.0));
    }
    database.stop_schedules().await?;
    let note = format!(
        "utime + stime of controller and Postgres with {} schedules, of one core, less the {without:.1} % without them",
        plan.schedules_idle
    );
    book.enter("schedules_idle_cpu_percent", samples, note, json!({ "without": without }));
    Ok(())
}

/// The next time whose seconds are a multiple of `apart`.
fn next(apart: i64) -> anyhow::Result<Timestamp> {
    let now = clock::now().as_second();
    Timestamp::from_second((now / apart + 1) * apart).context("a time")
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(clock::now())).unwrap_or(Duration::ZERO)
}

impl Database {
    /// The names of the simulated agents.
    async fn simulated_names(&mut self) -> anyhow::Result<Vec<String>> {
        let names = sqlx::query_scalar("select name from agents where labels ? 'bench' order by id");
        names.fetch_all(self.connection()).await.context("cannot read the names of the agents")
    }

    /// Copies of one schedule that are due when nobody looks any more.
    async fn idle_schedules(&mut self, count: usize) -> anyhow::Result<()> {
        sqlx::query(
            "insert into schedules (id, org_id, name, job_id, document, revision, author, author_id, saved_at, signed, signature,
                                    certificate, next_due, next_at, counted_from, created_at, updated_at)
             select gen_random_uuid(), org_id, 'far-' || n, job_id, document, revision, author, author_id, saved_at, signed,
                    signature, certificate, '2100-01-01', '2100-01-01', saved_at, created_at, updated_at
             from (select * from schedules order by id limit 1) s, generate_series(1, $1) n",
        )
        .bind(i64::try_from(count)?)
        .execute(self.connection())
        .await
        .context("cannot write the schedules that are not due")?;
        // What autovacuum would do in a minute.
        sqlx::query("vacuum analyze schedules").execute(self.connection()).await.context("cannot analyze")?;
        Ok(())
    }

    /// How many firings of this time have a row with an execution.
    async fn fired(&mut self, due: Timestamp) -> anyhow::Result<usize> {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from occurrences where due = (select $1::timestamptz) and execution_id is not null",
        )
        .bind(due.to_string())
        .fetch_one(self.connection())
        .await
        .context("cannot count the occurrences")?;
        Ok(usize::try_from(count)?)
    }

    /// How late each firing of these times was, in milliseconds.
    async fn lateness(&mut self, from: Timestamp, to: Timestamp) -> anyhow::Result<Vec<f64>> {
        sqlx::query_scalar(
            "select (extract(epoch from at - due) * 1000)::float8 from occurrences
             where due >= (select $1::timestamptz) and due < (select $2::timestamptz) and execution_id is not null",
        )
        .bind(from.to_string())
        .bind(to.to_string())
        .fetch_all(self.connection())
        .await
        .context("cannot read the occurrences")
    }

    /// Nothing of this is to disturb what is measured next.
    async fn stop_schedules(&mut self) -> anyhow::Result<()> {
        sqlx::query("update schedules set next_due = null, next_at = null, deleted_at = now()")
            .execute(self.connection())
            .await
            .context("cannot stop the schedules")?;
        Ok(())
    }
}
