//! `/api/v1/statistics`, and the same figures as metrics.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use jiff::{SignedDuration, Timestamp};
use model::{
    api::statistics::{Bucket, BucketFigures, Figures, People, Statistics},
    execution::ExecutionState,
    id::OrgId,
    limits,
};
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    problem::{Failure, Result},
    query::{Query, time},
};
use crate::{
    app::access::StatisticsRead,
    clock,
    store::{
        self,
        statistics::{Durations, Started},
    },
};

/// Buckets that are shown where nothing is said of the time: a day of hours, a month of days.
const DEFAULT_HOURS: i64 = 24;
const DEFAULT_DAYS: i64 = 30;
/// What the metrics look back on.
const METRICS_SPAN: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// What was started from then on; 24 hours or 30 days before `until` by default.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// And before then; now by default.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// `hour` (the default) or `day`, in UTC.
    #[param(inline)]
    bucket: Option<Bucket>,
}

/// How many people and hosts there are, what was started, how it went and how long it took; at most 1000 buckets and 366 days.
#[utoipa::path(get, path = "/api/v1/statistics", tag = "statistics", operation_id = "show_statistics",
    params(Parameters), responses((status = 200, body = Statistics)))]
pub(super) async fn show(
    Access(by): Access<StatisticsRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<Parameters>,
) -> Result<Json<Statistics>> {
    let (since, until, bucket) = span(&query, clock::now())?;
    let pool = door.app.db.of(by.org_id());
    let people = store::statistics::people(&pool, Some(by.org_id()), since).await?.pop();
    let people = people.map(|(_, people)| people).unwrap_or_default();
    read(&pool, Some(by.org_id()), since, until, bucket, people).await.map(Json)
}

/// Sets the gauges when the metrics are asked for: of people by organization, of all else for all of them together.
pub(super) async fn measure(door: &Door) -> Result<()> {
    let until = clock::now();
    let since = until - METRICS_SPAN;
    let pool = door.app.db.worker();
    for (organization, people) in store::statistics::people(pool, None, since).await? {
        for (state, count) in [("enabled", people.total - people.disabled), ("disabled", people.disabled)] {
            let organization = organization.clone();
            metrics::gauge!("opsc_members", "organization" => organization, "state" => state)
                .set(count as f64);
        }
        for (name, count) in [
            ("opsc_members_with_second_factor", people.with_second_factor),
            ("opsc_members_active_last_hour", people.active),
            ("opsc_service_accounts", people.service_accounts),
        ] {
            metrics::gauge!(name, "organization" => organization.clone()).set(count as f64);
        }
    }
    let statistics = read(pool, None, since, until, Bucket::Day, People::default()).await?;
    for (state, count) in statistics.hosts {
        metrics::gauge!("opsc_hosts", "state" => state).set(count as f64);
    }
    let total = statistics.total;
    for state in ExecutionState::ALL.map(ExecutionState::as_str) {
        let count = total.executions.get(state).copied().unwrap_or(0);
        metrics::gauge!("opsc_executions_last_hour", "state" => state).set(count as f64);
    }
    // What nobody can know is no number.
    let known = |figure: Option<f64>| figure.unwrap_or(f64::NAN);
    metrics::gauge!("opsc_execution_success_ratio_last_hour").set(known(total.success_rate));
    for (quantile, seconds) in [("0.5", total.duration_p50_seconds), ("0.95", total.duration_p95_seconds)] {
        metrics::gauge!("opsc_run_seconds_last_hour", "quantile" => quantile).set(known(seconds));
    }
    Ok(())
}

/// All but the people, by three statements, whatever the time and the number of buckets.
async fn read(
    pool: &PgPool,
    org: Option<OrgId>,
    since: Timestamp,
    until: Timestamp,
    bucket: Bucket,
    people: People,
) -> Result<Statistics> {
    let mut hosts: BTreeMap<String, i64> =
        ["online", "offline", "pending", "draining"].map(|state| (state.to_owned(), 0)).into();
    hosts.extend(store::statistics::hosts(pool, org).await?);
    let started = store::statistics::started(pool, org, since, until, bucket).await?;
    let durations = store::statistics::durations(pool, org, since, until, bucket).await?;
    let (total, mut by_start) = add_up(&started, &durations);
    let mut buckets = Vec::new();
    let mut start = bucket.start(since);
    while start < until {
        buckets.push(BucketFigures { start, figures: by_start.remove(&start).unwrap_or_default() });
        let Ok(next) = start.checked_add(SignedDuration::from_secs(bucket.seconds())) else { break };
        start = next;
    }
    Ok(Statistics { since, until, bucket, people, hosts, total, buckets })
}

/// The figures in all, and of each bucket that has any.
fn add_up(started: &[Started], durations: &[Durations]) -> (Figures, BTreeMap<Timestamp, Figures>) {
    let mut total = Figures::default();
    let mut by_start: BTreeMap<Timestamp, Figures> = BTreeMap::new();
    for part in started {
        for figures in [&mut total, by_start.entry(part.start).or_default()] {
            *figures.executions.entry(part.state.clone()).or_default() += part.executions;
            for (state, count) in part.runs.iter().filter(|(_, count)| *count > 0) {
                *figures.runs.entry((*state).to_owned()).or_default() += count;
            }
        }
    }
    for part in durations {
        let figures = match part.start {
            Some(start) => by_start.entry(start).or_default(),
            None => &mut total,
        };
        figures.duration_p50_seconds = Some(part.p50_seconds);
        figures.duration_p95_seconds = Some(part.p95_seconds);
    }
    for figures in by_start.values_mut().chain([&mut total]) {
        figures.success_rate = success_rate(&figures.executions);
    }
    (total, by_start)
}

fn success_rate(executions: &BTreeMap<String, i64>) -> Option<f64> {
    let ended: i64 = executions
        .iter()
        .filter(|(state, _)| ExecutionState::parse(state).is_some_and(ExecutionState::is_terminal))
        .map(|(_, count)| count)
        .sum();
    let succeeded = executions.get(ExecutionState::Succeeded.as_str()).copied().unwrap_or(0);
    (ended > 0).then(|| succeeded as f64 / ended as f64)
}

fn span(query: &Parameters, now: Timestamp) -> Result<(Timestamp, Timestamp, Bucket)> {
    let bucket = query.bucket.unwrap_or(Bucket::Hour);
    let until = time("until", query.until)?.unwrap_or(now);
    let count = match bucket {
        Bucket::Hour => DEFAULT_HOURS,
        Bucket::Day => DEFAULT_DAYS,
    };
    let default = SignedDuration::from_secs(count * bucket.seconds());
    let since = match time("since", query.since)? {
        Some(since) => since,
        None => until.checked_sub(default).map_err(|_| Failure::invalid("until", "is too early"))?,
    };
    if since >= until {
        return Err(Failure::invalid("since", "must be before until"));
    }
    let span = until.duration_since(since);
    if span.unsigned_abs() > limits::STATISTICS_SPAN {
        return Err(Failure::invalid("since", "is more than 366 days (STATISTICS_SPAN) before until"));
    }
    if span.as_secs() / bucket.seconds() >= limits::STATISTICS_BUCKETS {
        let problem = format!(
            "is more than {} buckets (STATISTICS_BUCKETS) before until; take bucket=day",
            limits::STATISTICS_BUCKETS
        );
        return Err(Failure::invalid("since", problem));
    }
    Ok((since, until, bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_bounded() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
        let ask = |since: Option<&str>, until: Option<&str>, bucket| {
            let time = |text: &str| text.parse().expect("a time");
            span(&Parameters { since: since.map(time), until: until.map(time), bucket }, now)
        };
        let (since, until, bucket) = ask(None, None, None).expect("valid");
        assert_eq!((since.to_string().as_str(), until, bucket), ("2026-02-28T12:00:00Z", now, Bucket::Hour));
        let (since, ..) = ask(None, None, Some(Bucket::Day)).expect("valid");
        assert_eq!(since.to_string(), "2026-01-30T12:00:00Z");
        for (since, until, bucket, field) in [
            (Some("2026-03-01T12:00:00Z"), None, None, "since"),
            (Some("2026-01-01T00:00:00Z"), None, Some(Bucket::Hour), "since"),
            (Some("2025-01-01T00:00:00Z"), None, Some(Bucket::Day), "since"),
            (Some("1969-12-31T00:00:00Z"), Some("1970-01-02T00:00:00Z"), None, "since"),
        ] {
            let problem = ask(since, until, bucket).expect_err(field).problem("r1");
            assert_eq!(problem.field.as_deref(), Some(field), "{since:?}: {}", problem.detail);
        }
    }

    #[test]
    fn only_what_has_ended_counts_for_success() {
        let counts = |of: &[(&str, i64)]| of.iter().map(|(state, n)| ((*state).to_owned(), *n)).collect();
        assert_eq!(success_rate(&counts(&[])), None);
        assert_eq!(success_rate(&counts(&[("running", 3)])), None);
        assert_eq!(success_rate(&counts(&[("running", 3), ("succeeded", 3), ("failed", 1)])), Some(0.75));
    }
}
