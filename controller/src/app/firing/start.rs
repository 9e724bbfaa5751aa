//! How a firing starts its job: as who saved the schedule, with the rights of that one now.

use std::{collections::VecDeque, sync::Arc};

use jiff::Timestamp;
use model::{
    access::Permission,
    api::{execution::Execution, job::ExecuteJob, schedule::Cause},
    id::ExecutionId,
    job::JobTargets,
    schedule::{Schedule, Source, Taken, WhenOffline},
};
use serde_json::json;
use sqlx::{Acquire as _, PgConnection};
use uuid::Uuid;

use super::{
    as_request,
    outcome::{Outcome, skipped, waits},
    round::Round,
};
use crate::{
    app::{
        access::{
            self, Actor, Authorized, EventRead, ExecutionCancel, JobRead, ScheduleManage, Subject, authorize,
        },
        authenticate,
        executions::touched_whole,
        start::{self, Later, Scheduled},
    },
    error::{During, Error, Result},
    store::{self, audit, occurrences::Waiting, schedules::Due},
};

/// How much may be signed before it is written. Together it takes one statement for what each start takes one for by itself.
const UNWRITTEN_BYTES: usize = 1024 * 1024;

/// What is to start.
pub(super) struct Start {
    /// For when it was planned, or when it came.
    pub(super) at: Timestamp,
    /// What was taken out of what came.
    pub(super) taken: Option<Taken>,
    /// Executions that led to it, each of which caused the next.
    pub(super) chain: i16,
}

impl Start {
    /// What the job is asked for.
    fn request(&self, schedule: &Schedule) -> ExecuteJob {
        let mut request = as_request(schedule);
        if let Some(taken) = &self.taken {
            request.parameters.extend(taken.parameters.clone());
            if let Some(hosts) = &taken.hosts {
                request.targets = Some(JobTargets { hosts: hosts.clone(), ..JobTargets::default() });
            }
        }
        request
    }
}

/// What became of an attempt to start.
type Started = std::result::Result<ExecutionId, (Cause, String)>;

impl Round<'_> {
    /// Lets a firing wait for the end of what runs, which is cancelled: where its author may do both, and nothing else speaks
    /// against its start.
    pub(super) async fn take_over(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        schedule: &Schedule,
        start: &Start,
        held: String,
    ) -> Result<Outcome> {
        let by = match self.acting(connection, due, schedule).await? {
            Ok(by) => by,
            Err((cause, detail)) => return Ok(skipped(cause, Some(detail))),
        };
        let job = due.job_id.to_string();
        let request = start.request(schedule);
        let tried = if self.is_careful {
            let mut inner = connection.begin().await.during("savepoint")?;
            let tried = start::try_out(self.app, &mut inner, &by, &job, &request, &Later::default()).await;
            inner.rollback().await.during("rollback to a savepoint")?;
            tried
        } else {
            start::try_out(self.app, connection, &by, &job, &request, &Later::default()).await
        };
        let open: Vec<ExecutionId> = self.open.get(&due.id).cloned().unwrap_or_default();
        let refused = match tried {
            Ok(()) => self.may_cancel(&by, &open).await,
            Err(error) => Err(error),
        };
        if let Err(error) = refused {
            let why = self.cause(&error).ok_or(error)?;
            return Ok(skipped(why.0, Some(why.1)));
        }
        let (planned, others): (VecDeque<Waiting>, VecDeque<Waiting>) = self
            .waiting
            .remove(&due.id)
            .unwrap_or_default()
            .into_iter()
            .partition(|one| one.at_a_time.is_none());
        self.waiting.insert(due.id, others);
        for old in planned {
            self.become_of(due, &old, skipped(Cause::Superseded, None));
        }
        self.to_cancel.extend(open.into_iter().map(|id| (id, (due.org_id, due.id))));
        Ok(waits(held))
    }

    async fn may_cancel(&self, by: &Authorized<JobRead>, open: &[ExecutionId]) -> Result<()> {
        let cancelling: Authorized<ExecutionCancel> = by.also()?;
        for id in open {
            touched_whole(self.app, &cancelling, *id).await?;
        }
        Ok(())
    }

    /// Asks for the end of what is to end, in the order of the ids, as whoever records ends locks them.
    pub(super) async fn cancel(&mut self, connection: &mut PgConnection) -> Result<()> {
        let ids: Vec<Uuid> = self.to_cancel.keys().map(|id| id.0).collect();
        let asked = store::executions::cancelled(connection, &ids).await?;
        for (id, (org, schedule)) in std::mem::take(&mut self.to_cancel) {
            if asked.contains(&id) {
                continue;
            }
            store::progress::wake(connection, id, self.now).await?;
            if store::executions::request_cancel(connection, org, id, self.now).await? {
                let (object, detail) = (format!("execution/{id}"), json!({ "schedule_id": schedule }));
                let entry = audit::Entry {
                    outcome: "requested",
                    ..audit::Entry::new("controller", "execution.cancel", object, detail)
                };
                audit::record_all(connection, self.now, vec![(org, entry)]).await?;
                self.has_cancelled = true;
            }
        }
        Ok(())
    }

    /// The schedule's author, who has to be one who may read jobs and save schedules.
    async fn acting(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        schedule: &Schedule,
    ) -> Result<std::result::Result<Authorized<JobRead>, (Cause, String)>> {
        let Some(author) = self.author(connection, due).await? else {
            let detail = format!("{}, who saved it, is not here any more or disabled", due.saved.author);
            return Ok(Err((Cause::NotAllowed, detail)));
        };
        let origin = access::Origin { request_id: format!("schedule/{}", due.id), address: None };
        let by = authorize::<ScheduleManage>(author, origin).and_then(|by| {
            let trigger = schedule.when.trigger();
            if trigger.is_some_and(|trigger| matches!(trigger.source, Source::Event(_))) {
                let _: Authorized<EventRead> = by.also()?;
            }
            if by.reaches_job(&due.labels) {
                return by.also();
            }
            Err(by
                .actor()
                .refusal(Permission::ScheduleManage, "theirs is for schedules of jobs with other labels"))
        });
        Ok(by.map_err(|error| (Cause::NotAllowed, error.to_string())))
    }

    /// Starts the job as who saved the schedule, with the rights of that one now: it is signed, and written with the others.
    pub(super) async fn start(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        schedule: &Schedule,
        start: &Start,
    ) -> Result<Started> {
        let by = match self.acting(connection, due, schedule).await? {
            Ok(by) => by,
            Err(refused) => return Ok(Err(refused)),
        };
        let request = start.request(schedule);
        let needs_one_there = schedule.when_offline == WhenOffline::Skip;
        let of = Scheduled {
            id: due.id,
            job_id: due.job_id,
            job: &schedule.job,
            due: Some(start.at),
            chain: start.chain,
            needs_one_there,
        };
        let begun = if self.is_careful {
            self.begin_carefully(connection, &by, of, &request).await
        } else {
            self.begin(connection, &by, of, &request).await
        };
        match begun {
            Ok(Some(execution)) => {
                let id = execution.id;
                if execution.ended_at.is_none() {
                    self.open.entry(due.id).or_default().push(id);
                }
                self.started.push(execution);
                Ok(Ok(id))
            }
            Ok(None) => Ok(Err((Cause::TargetOffline, "none of its hosts was connected".to_owned()))),
            Err(error) => Ok(Err(self.cause(&error).ok_or(error)?)),
        }
    }

    /// Signs a start, which is written with others.
    async fn begin(
        &mut self,
        connection: &mut PgConnection,
        by: &Authorized<JobRead>,
        of: Scheduled<'_>,
        request: &ExecuteJob,
    ) -> Result<Option<Execution>> {
        let Some(launch) = start::scheduled(self.app, connection, by, of, request).await? else {
            return Ok(None);
        };
        let execution = launch.execution().clone();
        self.weight += launch.weight();
        self.launches.push(launch);
        if self.weight > UNWRITTEN_BYTES {
            self.write_starts(connection).await?;
        }
        Ok(Some(execution))
    }

    /// Signs and writes a start by itself. What it has that cannot be stored undoes nothing else.
    async fn begin_carefully(
        &self,
        connection: &mut PgConnection,
        by: &Authorized<JobRead>,
        of: Scheduled<'_>,
        request: &ExecuteJob,
    ) -> Result<Option<Execution>> {
        let mut inner = connection.begin().await.during("savepoint")?;
        let begun = match start::scheduled(self.app, &mut inner, by, of, request).await {
            Ok(Some(launch)) => launch.write(&mut inner, None).await,
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match &begun {
            Ok(_) => inner.commit().await.during("release of a savepoint")?,
            Err(_) => inner.rollback().await.during("rollback to a savepoint")?,
        }
        begun
    }

    /// Writes what was signed.
    pub(super) async fn write_starts(&mut self, connection: &mut PgConnection) -> Result<()> {
        self.weight = 0;
        start::write_all(connection, &std::mem::take(&mut self.launches)).await
    }

    /// Why a start was refused; none when nobody refused it, and it has to be tried again: more carefully, if it has something that
    /// cannot be stored.
    fn cause(&self, error: &Error) -> Option<(Cause, String)> {
        if matches!(error, Error::Unstorable(..)) && !self.is_careful {
            return None;
        }
        let cause = match error {
            Error::Forbidden { .. } | Error::OutOfScope { .. } | Error::NeedsLogin | Error::Revoked(_) => {
                Cause::NotAllowed
            }
            Error::NotFound { noun: "job", .. } => Cause::JobDeleted,
            Error::NoTargets(_) => Cause::NoTargets,
            Error::Tampered(_) => Cause::Tampered,
            Error::Database(..) | Error::Fatal(_) => return None,
            Error::Internal(..) => {
                tracing::error!(error = error as &dyn std::error::Error, "a schedule cannot start its job");
                Cause::Refused
            }
            _ => Cause::Refused,
        };
        Some((cause, error.to_string()))
    }

    /// Who saved the schedule, as that one is now.
    async fn author(&mut self, connection: &mut PgConnection, due: &Due) -> Result<Option<Arc<Actor>>> {
        let key = (due.org_id, due.saved.author_id.clone());
        if let Some(known) = self.authors.get(&key) {
            return Ok(known.as_ref().map(|actor| Arc::new(actor.for_schedule(due.id))));
        }
        let actor = match due.saved.author_id.parse::<Subject>() {
            Ok(subject) => {
                let place = (due.org_id, due.organization.as_str(), due.is_home);
                authenticate::for_schedule(connection, place, subject, due.id).await?.map(Arc::new)
            }
            Err(()) => None,
        };
        self.authors.insert(key, actor.clone());
        Ok(actor)
    }
}
