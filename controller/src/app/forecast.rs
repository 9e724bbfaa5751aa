//! What will fire in the hours to come, of all schedules or of those that reach a host.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use jiff::{SignedDuration, Timestamp};
use model::{
    Invalid,
    access::Permission,
    api::schedule::{Cause, Forecast, ForecastFiring, Schedule, ScheduleState},
    command::within,
    id::{AgentId, JobId, OrgId},
    job::{self, JobTargets},
    limits,
};
use sqlx::PgConnection;

use super::{
    App,
    access::{AgentRead, Authorized, ScheduleRead},
    executions::{parse_selector, resolve},
    firing::begins,
    heeded,
    schedules::local,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store,
};

/// Schedules that are read at a time.
const PAGE: i64 = 1000;

/// The firings of the next `hours`, the next one first; those of schedules that reach `host`, if one is named.
///
/// # Errors
/// When a number is out of its range, there is no such host, or there are too many schedules.
pub(crate) async fn forecast(
    app: &App,
    by: &Authorized<ScheduleRead>,
    hours: Option<i64>,
    host: Option<&str>,
) -> Result<Forecast> {
    let hours = hours.unwrap_or(limits::DEFAULT_FORECAST_HOURS);
    within("hours", hours, &limits::FORECAST_HOURS)?;
    let now = clock::now();
    let until = now.saturating_add(SignedDuration::from_hours(hours)).unwrap_or(Timestamp::MAX);
    let mut schedules = all(app, by).await?;
    let mut connection = app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    if let Some(host) = host {
        reaching(app, &mut connection, by, host, &mut schedules).await?;
    }
    let named: Vec<(OrgId, &model::schedule::Schedule)> =
        schedules.iter().map(|one| (by.org_id(), &one.schedule)).collect();
    let heeded = heeded::read(app, &mut connection, &named).await?;
    drop(connection);

    // The next firing of each, the earliest on top.
    let mut next: BinaryHeap<Reverse<(Timestamp, usize)>> = schedules
        .iter()
        .enumerate()
        .filter_map(|(index, one)| Some(Reverse((one.next?, index))))
        .filter(|Reverse((due, _))| *due <= until)
        .collect();
    let mut firings = Vec::new();
    while let Some(Reverse((due, index))) = next.pop() {
        if firings.len() == limits::FORECAST_FIRINGS {
            return Ok(Forecast { until, firings, is_cut: true });
        }
        let one = &schedules[index];
        let (of, when) = (&one.schedule, &one.schedule.when);
        let (skipped, detail) = match one.state {
            ScheduleState::Paused => (Some(Cause::Paused), None),
            _ => match heeded.skips(by.org_id(), of, due) {
                Some((cause, detail)) => (Some(cause), detail),
                None => (None, None),
            },
        };
        let offset = when.zone.to_offset(due);
        firings.push(ForecastFiring {
            schedule_id: one.id,
            schedule: of.name.clone(),
            job: of.job.clone(),
            due,
            local: local(offset.to_datetime(due), offset),
            begins: begins(one.id, of, due),
            skipped,
            detail,
        });
        let following = when.after(due).filter(|firing| firing.due <= until);
        next.extend(following.map(|firing| Reverse((firing.due, index))));
    }
    Ok(Forecast { until, firings, is_cut: false })
}

/// The schedules that one may see and that will fire.
async fn all(app: &App, by: &Authorized<ScheduleRead>) -> Result<Vec<Schedule>> {
    let (pool, org) = (app.db.of(by.org_id()), by.org_id());
    let seen = by.actor().jobs_with(Permission::ScheduleRead);
    let seen: Vec<_> = seen.iter().collect();
    let mut all: Vec<Schedule> = Vec::new();
    loop {
        let after = all.last().map(|last| last.schedule.name.clone());
        let page = store::schedules::page(&pool, org, None, &seen, after.as_deref(), PAGE).await?;
        let is_last = i64::try_from(page.len()).unwrap_or(0) < PAGE;
        all.extend(page);
        if all.len() > limits::FORECAST_SCHEDULES {
            let most = limits::FORECAST_SCHEDULES;
            return Err(Invalid::over("schedules", "FORECAST_SCHEDULES", most, "schedules").into());
        }
        if is_last {
            all.retain(|one| one.next.is_some());
            return Ok(all);
        }
    }
}

/// Keeps those that would start on this host now.
async fn reaching(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<ScheduleRead>,
    host: &str,
    schedules: &mut Vec<Schedule>,
) -> Result<()> {
    let seeing: Authorized<AgentRead> = by.also()?;
    let agent = store::agents::by_name(&app.db.of(by.org_id()), by.org_id(), host).await?;
    let agent = agent.filter(|agent| {
        seeing.hosts().is_none_or(|hosts| hosts.matches(&agent.name, &agent.labels, &agent.facts))
    });
    let agent = agent.ok_or_else(|| Error::not_found("agent", host))?;
    let mut own: HashMap<(JobId, Option<i32>), Option<JobTargets>> = HashMap::new();
    let mut known: HashMap<String, bool> = HashMap::new();
    let mut kept = Vec::new();
    for one in std::mem::take(schedules) {
        let of = (one.job_id, one.schedule.version);
        let targets = match &one.schedule.targets {
            Some(targets) => Some(targets.clone()),
            None => match own.get(&of) {
                Some(targets) => targets.clone(),
                None => {
                    let targets = of_job(connection, by.org_id(), of).await?;
                    own.insert(of, targets.clone());
                    targets
                }
            },
        };
        let Some(targets) = targets else { continue };
        let key = serde_json::to_string(&targets).map_err(|error| Error::internal("cannot write", error))?;
        let reaches = match known.get(&key) {
            Some(reaches) => *reaches,
            None => {
                let reaches = does_reach(connection, &seeing, &targets, agent.id).await?;
                known.insert(key, reaches);
                reaches
            }
        };
        if reaches {
            kept.push(one);
        }
    }
    *schedules = kept;
    Ok(())
}

/// The targets that a job names, in this version or in its newest.
async fn of_job(
    connection: &mut PgConnection,
    org: OrgId,
    (id, version): (JobId, Option<i32>),
) -> Result<Option<JobTargets>> {
    let document = match version {
        Some(version) => {
            let saved = store::jobs::version(connection, org, id, version).await?;
            saved.map(|saved| saved.document)
        }
        None => {
            store::jobs::find(connection, org, &id.to_string(), false).await?.and_then(|job| job.document)
        }
    };
    Ok(document.and_then(|text| job::parse(&text).ok()?.targets))
}

/// Whether the targets have this host now. Where a start would be refused they have none.
async fn does_reach(
    connection: &mut PgConnection,
    by: &Authorized<AgentRead>,
    targets: &JobTargets,
    agent: AgentId,
) -> Result<bool> {
    let exclude = targets.exclude.as_deref().map(|text| parse_selector("exclude", text)).transpose();
    let (Ok(exclude), Ok(chosen)) = (exclude, targets.chosen()) else { return Ok(false) };
    match resolve(connection, by, &chosen, exclude.as_ref()).await {
        Ok(found) => {
            let most = targets.limit.unwrap_or(usize::MAX);
            if targets.max_targets.is_some_and(|limit| found.len().min(most) > limit) {
                return Ok(false);
            }
            Ok(found.iter().take(most).any(|target| target.id == agent.0))
        }
        Err(error @ (Error::Database(..) | Error::Internal(..))) => Err(error),
        Err(_) => Ok(false),
    }
}
