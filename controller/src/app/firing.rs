//! Fires schedules: works out which firings are not accounted for, decides about each, starts what is to start, and writes
//! down what became of it.
//!
//! Invariants: whoever fires a schedule holds its row; executions, occurrences and the next firing are written in one
//! transaction; what a firing does follows from the signed document, the clock and the tables alone, so that whoever comes next
//! after a crash does the same.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures_util::{FutureExt as _, future::try_join_all};
use jiff::{SignedDuration, Timestamp};
use model::{
    access::Permission,
    api::{
        execution::Execution,
        job::ExecuteJob,
        schedule::{Cause, OccurrenceState, Origin},
    },
    execution::ExecutionState,
    id::{ExecutionId, OccurrenceId, OrgId, ScheduleId, uuid_v7},
    job::JobTargets,
    schedule::{Overlap, Schedule, Source, Taken, Timeliness, WhenOffline, is_enough, jitter, timeliness},
};
use serde_json::json;
use sqlx::{Acquire as _, PgConnection};
use uuid::Uuid;

use super::{
    App,
    access::{
        self, Actor, Authorized, EventRead, ExecutionCancel, JobRead, ScheduleManage, Subject, authorize,
    },
    arrivals, authenticate,
    executions::touched_whole,
    heeded::{self, Heeded},
    start::{self, Later, Scheduled},
    versions,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self, audit,
        events::NewEvent,
        occurrences::{Decided, Waiting},
        schedules::{Due, End, Standing},
    },
};

/// Transactions at a time: while one waits for the database another one signs.
const AT_A_TIME: usize = 4;
/// Schedules that one transaction fires.
const SCHEDULES: i64 = 32;
/// Firings of one schedule that one transaction accounts for, and how many of these may start something. One that has slept for
/// long gets further turns, each behind the others.
const FIRINGS: usize = 200;
const STARTS: usize = 8;
/// Words of a refusal that an occurrence keeps.
const DETAIL_BYTES: usize = 1000;
/// When one is looked at again that could not be fired.
const PUT_OFF: SignedDuration = SignedDuration::from_secs(5);

/// Fires all schedules whose time has come; answers how many these were.
///
/// # Errors
/// When the database does not answer: what was not committed has not happened, and the next round does it.
pub(crate) async fn fire_due(app: &App) -> Result<usize> {
    // Whoever comes second finds what the first has not taken.
    let all = std::iter::repeat_with(|| fire_on(app)).take(AT_A_TIME);
    Ok(try_join_all(all).await?.into_iter().sum())
}

/// Fires some after the other until none is left. When some cannot be fired together each gets a transaction of its own; one that
/// cannot be fired even so is put off, and holds up nobody.
async fn fire_on(app: &App) -> Result<usize> {
    let (mut count, mut limit) = (0, SCHEDULES);
    loop {
        match fire_some(app, clock::now(), limit).await {
            Ok(0) => return Ok(count),
            Ok(fired) => count += fired,
            Err((_, error)) if !is_about_it(&error) => return Err(error),
            Err((taken, error)) if taken.len() == 1 => {
                for id in taken.into_iter().map(ScheduleId) {
                    tracing::error!(schedule.id = %id, %error, "a schedule cannot be fired");
                    let until = clock::now().saturating_add(PUT_OFF).unwrap_or(Timestamp::MAX);
                    store::schedules::put_off(app.db.worker(), id, until).await?;
                }
            }
            Err((_, error)) => {
                tracing::warn!(%error, "some schedules cannot be fired together: each is fired by itself");
                limit = 1;
            }
        }
    }
}

/// Whether an error is about what was fired, and would come again, or about the database, which will answer.
fn is_about_it(error: &Error) -> bool {
    match error {
        // 08: connection, 25P03: idle for too long, 40: rolled back, 53: resources, 57: somebody stops it.
        Error::Database(_, sqlx::Error::Database(error)) => error.code().is_none_or(|code| {
            code != "25P03" && !["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
        }),
        Error::Database(_, error) => {
            matches!(
                error,
                sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_)
            )
        }
        Error::Fatal(_) => false,
        _ => true,
    }
}

/// Fires some of them in one transaction; answers how many these were.
///
/// # Errors
/// With those that it took.
async fn fire_some(app: &App, now: Timestamp, limit: i64) -> std::result::Result<usize, (Vec<Uuid>, Error)> {
    let nobody = |error| (Vec::new(), error);
    let mut tx = app.db.worker().begin().await.during("begin").map_err(nobody)?;
    let ids = store::schedules::take(&mut tx, now, limit).await.map_err(nobody)?;
    if ids.is_empty() {
        tx.rollback().await.during("rollback").map_err(nobody)?;
        return Ok(0);
    }
    fault::point("controller.schedule.taken");
    let mut round = Round::new(app, now);
    let fired = AssertUnwindSafe(round.fire_all(&mut tx, &ids)).catch_unwind().await;
    let fired = fired.unwrap_or_else(|_| Err(Error::internal("a firing panicked", "the log says where")));
    if let Err(error) = fired {
        // Best effort: it is rolled back with its connection too.
        tx.rollback().await.ok();
        return Err((ids, error));
    }
    fault::point("controller.schedule.written");
    if let Err(error) = tx.commit().await.during("commit") {
        return Err((ids, error));
    }
    fault::point("controller.schedule.committed");
    for execution in &round.started {
        start::tell(app, execution, &execution.request_id);
    }
    if round.has_cancelled {
        app.wake.cancel.notify_one();
        app.wake.advance.notify_one();
        app.wake.others.notify_one();
    }
    Ok(ids.len())
}

/// What a schedule says, if its author saved exactly that.
fn as_saved(app: &App, due: &Due) -> Result<Schedule> {
    versions::verify(app, due.org_id, versions::SCHEDULE, due.id.0, &due.saved)?;
    store::schedules::read(&due.saved.document)
}

/// What one transaction knows and does.
struct Round<'a> {
    app: &'a App,
    now: Timestamp,
    ends: HashMap<ScheduleId, Vec<End>>,
    open: HashMap<ScheduleId, Vec<ExecutionId>>,
    waiting: HashMap<ScheduleId, VecDeque<Waiting>>,
    /// What came, and about which nobody has decided.
    arrived: HashMap<ScheduleId, VecDeque<Waiting>>,
    calendars: Heeded,
    /// Who the authors of schedules are now; none who is gone.
    authors: HashMap<(OrgId, String), Option<Arc<Actor>>>,
    decided: Vec<Decided>,
    started: Vec<Execution>,
    /// Executions that are to end for a firing, with its schedule.
    to_cancel: BTreeMap<ExecutionId, (OrgId, ScheduleId)>,
    has_cancelled: bool,
}

/// What became of an attempt to start.
type Started = std::result::Result<ExecutionId, (Cause, String)>;

impl<'a> Round<'a> {
    fn new(app: &'a App, now: Timestamp) -> Self {
        Self {
            app,
            now,
            ends: HashMap::new(),
            open: HashMap::new(),
            waiting: HashMap::new(),
            arrived: HashMap::new(),
            calendars: Heeded::default(),
            authors: HashMap::new(),
            decided: Vec::new(),
            started: Vec::new(),
            to_cancel: BTreeMap::new(),
            has_cancelled: false,
        }
    }

    /// Does all that is due of the schedules that were taken, and writes it.
    async fn fire_all(&mut self, connection: &mut PgConnection, ids: &[Uuid]) -> Result<()> {
        let due = store::schedules::taken(connection, ids).await?;
        self.read(connection, ids).await?;
        let said: Vec<_> = due.iter().map(|due| as_saved(self.app, due)).collect();
        let readable =
            due.iter().zip(&said).filter_map(|(due, said)| Some((due.org_id, said.as_ref().ok()?)));
        let readable: Vec<_> = readable.collect();
        self.calendars = heeded::read(self.app, connection, &readable).await?;
        let mut standings = Vec::with_capacity(due.len());
        for (due, said) in due.iter().zip(said) {
            standings.push(self.fire(connection, due, said).await?);
        }
        fault::point("controller.schedule.started");
        store::occurrences::write(connection, &self.decided, self.now).await?;
        store::schedules::set(connection, &standings, self.now).await?;
        self.tell_of_missed(connection).await?;
        self.cancel(connection).await
    }

    /// Reads what is open, what waits and what has ended of these schedules.
    async fn read(&mut self, connection: &mut PgConnection, ids: &[Uuid]) -> Result<()> {
        for end in store::schedules::take_ends(connection, ids).await? {
            self.ends.entry(end.schedule).or_default().push(end);
        }
        for (schedule, execution) in store::schedules::open(connection, ids).await? {
            self.open.entry(schedule).or_default().push(execution);
        }
        for waiting in store::occurrences::waiting(connection, ids).await? {
            let is_new = waiting.came.as_ref().is_some_and(|came| came.is_new);
            let queues = if is_new { &mut self.arrived } else { &mut self.waiting };
            queues.entry(waiting.schedule_id).or_default().push_back(waiting);
        }
        Ok(())
    }

    /// Does all that is due of one schedule.
    async fn fire(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        said: Result<Schedule>,
    ) -> Result<Standing> {
        let schedule = match said {
            Ok(schedule) => schedule,
            Err(error @ Error::Tampered(_)) => return self.halt(connection, due, &error.to_string()).await,
            // One that another version of the program wrote is that one's: this one puts it off.
            Err(error) => return Err(error),
        };
        let (failures, paused_because) = self.count_ends(connection, due, &schedule).await?;
        let is_paused = due.is_paused || paused_because.is_some();
        let more_waits = !is_paused && self.start_waiting(connection, due, &schedule).await?;
        let (mut next, mut accounted_until) = (due.next_due, due.accounted_until);
        let (mut firings, begun) = (0, self.started.len());
        while firings < FIRINGS
            && self.started.len() - begun < STARTS
            && let Some(came) = self.arrived.get_mut(&due.id).and_then(VecDeque::pop_front)
        {
            self.take_in(connection, due, &schedule, came, is_paused).await?;
            firings += 1;
        }
        while let Some(at) = next
            && begins(due.id, &schedule, at) <= self.now
            && firings < FIRINGS
            && self.started.len() - begun < STARTS
        {
            next = schedule.when.after(at).map(|firing| firing.due);
            let decided = if is_paused {
                skipped(Cause::Paused, None)
            } else {
                let begins_at = begins(due.id, &schedule, at);
                let behind = self.next_allowed(due, &schedule, next);
                let behind = behind.map(|next| begins(due.id, &schedule, next));
                let start = Start { at, taken: None, chain: 0 };
                self.decide(connection, due, &schedule, &start, (begins_at, behind)).await?
            };
            self.note(due, Origin::Planned, at, decided);
            accounted_until = Some(at);
            firings += 1;
        }
        // What is left over, also of what came, is for another turn, behind those that are due by now.
        let look_at = next.map(|at| begins(due.id, &schedule, at).max(self.now));
        let look_at = if more_waits { Some(self.now) } else { look_at };
        Ok(Standing { id: due.id, accounted_until, next_due: next, look_at, failures, paused_because })
    }

    /// Decides about what came.
    async fn take_in(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        schedule: &Schedule,
        waiting: Waiting,
        is_paused: bool,
    ) -> Result<()> {
        let outcome = if due.is_deleted {
            skipped(Cause::Deleted, None)
        } else if schedule.when.trigger().is_none() {
            skipped(Cause::Changed, None)
        } else if is_paused {
            skipped(Cause::Paused, None)
        } else if let Some(why) = not_in_force(schedule, waiting.due) {
            skipped(Cause::NotInForce, Some(why))
        } else {
            match self.start_of(due, &waiting) {
                // Each stands for itself: none takes the place of another.
                Ok(start) => self.decide(connection, due, schedule, &start, (waiting.due, None)).await?,
                Err(error) => skipped(Cause::Tampered, Some(error.to_string())),
            }
        };
        let waits = outcome.state == OccurrenceState::Waiting;
        self.become_of(due, &waiting, outcome);
        if waits {
            self.waiting.entry(due.id).or_default().push_back(waiting);
        }
        Ok(())
    }

    /// What is to start for one that waits.
    ///
    /// # Errors
    /// When it came, and is not what a controller took in.
    fn start_of(&self, due: &Due, waiting: &Waiting) -> Result<Start> {
        let (taken, chain) = match &waiting.came {
            None => (None, 0),
            Some(came) => (Some(arrivals::open(self.app, due.org_id, waiting, came)?), came.chain),
        };
        Ok(Start { at: waiting.due, taken, chain })
    }

    /// What becomes of a firing that was to begin at `begins_at`; behind it another one begins at `behind`.
    async fn decide(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        schedule: &Schedule,
        start: &Start,
        (begins_at, behind): (Timestamp, Option<Timestamp>),
    ) -> Result<Outcome> {
        if let Some((cause, why)) = self.calendars.skips(due.org_id, schedule, start.at) {
            return Ok(skipped(cause, why));
        }
        let state = match timeliness(schedule, begins_at, behind, self.now) {
            Timeliness::InTime => OccurrenceState::Fired,
            Timeliness::CaughtUp => OccurrenceState::CaughtUp,
            Timeliness::Missed => {
                let late = self.now.duration_since(begins_at);
                let detail = format!("nobody was there until {:#} after its time", whole_seconds(late));
                return Ok(Outcome {
                    state: OccurrenceState::Missed,
                    cause: Some(Cause::TooLate),
                    detail: Some(detail),
                    execution_id: None,
                });
            }
        };
        let open = self.open.get(&due.id).and_then(|open| open.first().copied());
        let waiting = self.waiting.get(&due.id).into_iter().flatten();
        let queue = waiting.filter(|one| one.at_a_time.is_none()).count();
        if open.is_some() || queue > 0 {
            let held = open.map_or_else(
                || "another one waits before it".to_owned(),
                |id| format!("the execution {id} was still open"),
            );
            match schedule.overlap {
                Overlap::Allow => {}
                Overlap::Skip => return Ok(skipped(Cause::Overlap, Some(held))),
                Overlap::QueueOne if queue > 0 => {
                    return Ok(skipped(Cause::Overlap, Some("another one waits already".to_owned())));
                }
                Overlap::QueueAll if queue >= model::limits::WAITING_OCCURRENCES => {
                    let detail = format!("{queue} wait already, which is the limit WAITING_OCCURRENCES");
                    return Ok(skipped(Cause::Overlap, Some(detail)));
                }
                Overlap::QueueOne | Overlap::QueueAll => return Ok(waits(held)),
                Overlap::CancelRunning => {
                    return self.take_over(connection, due, schedule, start, held).await;
                }
            }
        }
        Ok(match self.start(connection, due, schedule, start).await? {
            Ok(execution) => Outcome { state, cause: None, detail: None, execution_id: Some(execution) },
            Err((cause, detail)) => skipped(cause, Some(detail)),
        })
    }

    /// Of the firings from `next` on whose time has come, the first that the calendars allow.
    fn next_allowed(&self, due: &Due, schedule: &Schedule, mut next: Option<Timestamp>) -> Option<Timestamp> {
        // Behind so many that are not allowed it counts as one that is.
        for _ in 0..FIRINGS {
            let at = next.filter(|at| begins(due.id, schedule, *at) <= self.now)?;
            if self.calendars.skips(due.org_id, schedule, at).is_none() {
                return Some(at);
            }
            next = schedule.when.after(at).map(|firing| firing.due);
        }
        next
    }

    /// Starts what waits, as far as nothing is in its way any more: what was planned first. Answers whether more of it could begin
    /// in another turn.
    async fn start_waiting(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        schedule: &Schedule,
    ) -> Result<bool> {
        let (begun, mut tried) = (self.started.len(), 0);
        while self.started.len() - begun < STARTS
            && tried < FIRINGS
            && let Some(next) = self.next_waiting(due.id, schedule.overlap)
        {
            tried += 1;
            let late = next.at.duration_since(begins(due.id, schedule, next.due));
            let is_planned = next.origin == Origin::Planned;
            let was_late = is_planned && late > schedule.max_lateness.duration();
            let started = match self.start_of(due, &next) {
                Ok(start) => self.start(connection, due, schedule, &start).await?,
                Err(error) => Err((Cause::Tampered, error.to_string())),
            };
            let outcome = match started {
                Ok(execution) => Outcome {
                    state: if was_late { OccurrenceState::CaughtUp } else { OccurrenceState::Fired },
                    cause: None,
                    detail: (next.origin != Origin::Backfill).then(|| "it waited for its turn".to_owned()),
                    execution_id: Some(execution),
                },
                Err((cause, detail)) => skipped(cause, Some(detail)),
            };
            self.become_of(due, &next, outcome);
        }
        Ok(self.place_of_next(due.id, schedule.overlap).is_some())
    }

    /// Takes the next one that waits and may begin.
    fn next_waiting(&mut self, id: ScheduleId, overlap: Overlap) -> Option<Waiting> {
        let place = self.place_of_next(id, overlap)?;
        self.waiting.get_mut(&id)?.remove(place)
    }

    /// The place of the next one that waits, if it may begin.
    fn place_of_next(&self, id: ScheduleId, overlap: Overlap) -> Option<usize> {
        let open = self.open.get(&id).map_or(0, Vec::len);
        let waiting = self.waiting.get(&id)?;
        let planned = waiting.iter().position(|one| one.at_a_time.is_none());
        let place = planned.or(if waiting.is_empty() { None } else { Some(0) })?;
        let may_begin = match waiting[place].at_a_time {
            Some(most) => open < usize::try_from(most).unwrap_or(0),
            None => open == 0 || overlap == Overlap::Allow,
        };
        may_begin.then_some(place)
    }

    /// Lets a firing wait for the end of what runs, which is cancelled: where its author may do both, and nothing else speaks
    /// against its start.
    async fn take_over(
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
        let mut inner = connection.begin().await.during("savepoint")?;
        let job = due.job_id.to_string();
        let request = start.request(schedule);
        let tried = start::try_out(self.app, &mut inner, &by, &job, &request, &Later::default()).await;
        inner.rollback().await.during("rollback to a savepoint")?;
        let open: Vec<ExecutionId> = self.open.get(&due.id).cloned().unwrap_or_default();
        let refused = match tried {
            Ok(()) => self.may_cancel(&by, &open).await,
            Err(error) => Err(error),
        };
        if let Err(error) = refused {
            let why = cause(&error).ok_or(error)?;
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
    async fn cancel(&mut self, connection: &mut PgConnection) -> Result<()> {
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

    /// Starts the job as who saved the schedule, with the rights of that one now. What is refused leaves nothing behind.
    async fn start(
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
        let mut inner = connection.begin().await.during("savepoint")?;
        let of = Scheduled {
            id: due.id,
            job_id: due.job_id,
            job: &schedule.job,
            due: Some(start.at),
            chain: start.chain,
            needs_one_there,
        };
        match start::scheduled(self.app, &mut inner, &by, of, &request, None).await {
            Ok(Some(execution)) => {
                inner.commit().await.during("release of a savepoint")?;
                let id = execution.id;
                if execution.ended_at.is_none() {
                    self.open.entry(due.id).or_default().push(id);
                }
                self.started.push(execution);
                Ok(Ok(id))
            }
            Ok(None) => {
                inner.rollback().await.during("rollback to a savepoint")?;
                Ok(Err((Cause::TargetOffline, "none of its hosts was connected".to_owned())))
            }
            Err(error) => {
                let refused = cause(&error).ok_or(error)?;
                inner.rollback().await.during("rollback to a savepoint")?;
                Ok(Err(refused))
            }
        }
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

    /// Counts failures in a row, and pauses the schedule when these are enough; answers how many there are, and why it is
    /// paused from now on.
    async fn count_ends(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        schedule: &Schedule,
    ) -> Result<(i32, Option<String>)> {
        let mut failures = due.failures;
        let mut because = None;
        let counts = |end: &End| end.execution.millis() >= millis(due.counted_from);
        for end in self.ends.remove(&due.id).unwrap_or_default().into_iter().filter(counts) {
            match end.state {
                Some(ExecutionState::Succeeded) => failures = 0,
                // Somebody wanted that.
                Some(ExecutionState::Cancelled) => {}
                _ => failures = failures.saturating_add(1),
            }
            let is_over = is_enough(u32::try_from(failures).unwrap_or(0), schedule.pause_after_failures);
            if is_over && !due.is_paused && because.is_none() {
                because = Some(format!(
                    "{failures} executions in a row did not succeed, the last one {}",
                    end.execution
                ));
            }
        }
        if let Some(why) = &because {
            self.tell_of_pause(connection, due, "done", why).await?;
            for old in self.waiting.remove(&due.id).unwrap_or_default() {
                self.become_of(due, &old, skipped(Cause::Paused, None));
            }
        }
        Ok((failures, because))
    }

    /// Somebody changed the schedule in the database: when it was to fire nobody knows. It starts nothing until it is saved anew.
    async fn halt(&mut self, connection: &mut PgConnection, due: &Due, why: &str) -> Result<Standing> {
        tracing::error!(schedule.id = %due.id, why, "a schedule that nobody saved like this fires no more");
        self.tell_of_pause(connection, due, "alarm", why).await?;
        let came = self.arrived.remove(&due.id).unwrap_or_default();
        for old in self.waiting.remove(&due.id).unwrap_or_default().into_iter().chain(came) {
            self.become_of(due, &old, skipped(Cause::Tampered, Some(why.to_owned())));
        }
        let mut accounted_until = due.accounted_until;
        if let Some(at) = due.next_due.filter(|at| *at <= self.now) {
            self.note(due, Origin::Planned, at, skipped(Cause::Tampered, Some(why.to_owned())));
            accounted_until = Some(at);
        }
        let (failures, paused_because) = (due.failures, Some(why.to_owned()));
        Ok(Standing { id: due.id, accounted_until, next_due: None, look_at: None, failures, paused_because })
    }

    async fn tell_of_pause(
        &self,
        connection: &mut PgConnection,
        due: &Due,
        outcome: &'static str,
        why: &str,
    ) -> Result<()> {
        let entry = audit::Entry {
            outcome,
            ..audit::Entry::new(
                "controller",
                "schedule.pause",
                format!("schedule/{}", due.id),
                json!({ "why": why }),
            )
        };
        audit::record_all(connection, self.now, vec![(due.org_id, entry)]).await
    }

    /// Tells of missed firings, once for each schedule.
    async fn tell_of_missed(&self, connection: &mut PgConnection) -> Result<()> {
        let mut missed: HashMap<(OrgId, ScheduleId), (Timestamp, Timestamp, usize)> = HashMap::new();
        for one in self.decided.iter().filter(|one| one.state == OccurrenceState::Missed) {
            let (first, last, count) =
                missed.entry((one.org_id, one.schedule_id)).or_insert((one.due, one.due, 0));
            (*first, *last, *count) = ((*first).min(one.due), (*last).max(one.due), *count + 1);
        }
        for ((org, schedule), (first, last, count)) in missed {
            let event = NewEvent {
                id: uuid_v7(self.now, clock::entropy()),
                at: self.now,
                kind: "schedule.missed",
                object: &format!("schedule/{schedule}"),
                actor: "",
                data: &json!({ "count": count, "first": first, "last": last }),
            };
            store::events::insert(connection, org, &event).await?;
        }
        Ok(())
    }

    fn note(&mut self, due: &Due, origin: Origin, at: Timestamp, outcome: Outcome) {
        let id = OccurrenceId::new(self.now, clock::entropy());
        if outcome.state == OccurrenceState::Waiting {
            let waiting = Waiting {
                id,
                schedule_id: due.id,
                origin,
                due: at,
                at_a_time: None,
                at: self.now,
                came: None,
            };
            self.waiting.entry(due.id).or_default().push_back(waiting);
        }
        self.decided.push(decided(id, due, origin, at, outcome));
    }

    /// What one that waited has become.
    fn become_of(&mut self, due: &Due, waited: &Waiting, outcome: Outcome) {
        let decided = Decided {
            at_a_time: waited.at_a_time,
            ..decided(waited.id, due, waited.origin, waited.due, outcome)
        };
        // One that began to wait in this very transaction has a row only once.
        match self.decided.iter_mut().find(|known| known.id == waited.id) {
            Some(known) => *known = decided,
            None => self.decided.push(decided),
        }
    }
}

/// What is to start.
struct Start {
    /// For when it was planned, or when it came.
    at: Timestamp,
    /// What was taken out of what came.
    taken: Option<Taken>,
    /// Executions that led to it, each of which caused the next.
    chain: i16,
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

/// Why a schedule has no effect at this time, if it has a beginning or an end.
fn not_in_force(schedule: &Schedule, at: Timestamp) -> Option<String> {
    let (start, end) = (schedule.when.starts_at, schedule.when.ends_at);
    let early = start.filter(|start| at < *start).map(|start| format!("the schedule begins at {start}"));
    early.or_else(|| end.filter(|end| at > *end).map(|end| format!("the schedule ended at {end}")))
}

/// What becomes of a firing.
struct Outcome {
    state: OccurrenceState,
    cause: Option<Cause>,
    detail: Option<String>,
    execution_id: Option<ExecutionId>,
}

const fn skipped(cause: Cause, detail: Option<String>) -> Outcome {
    Outcome { state: OccurrenceState::Skipped, cause: Some(cause), detail, execution_id: None }
}

const fn waits(detail: String) -> Outcome {
    Outcome {
        state: OccurrenceState::Waiting,
        cause: Some(Cause::Overlap),
        detail: Some(detail),
        execution_id: None,
    }
}

fn decided(id: OccurrenceId, due: &Due, origin: Origin, at: Timestamp, outcome: Outcome) -> Decided {
    let Outcome { state, cause, detail, execution_id } = outcome;
    let detail = detail.map(|mut text| {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES));
        text
    });
    let (schedule_id, org_id) = (due.id, due.org_id);
    Decided { id, schedule_id, org_id, origin, due: at, at_a_time: None, state, cause, detail, execution_id }
}

/// When the firing planned for `at` begins.
pub(super) fn begins(id: ScheduleId, schedule: &Schedule, at: Timestamp) -> Timestamp {
    let width = std::time::Duration::from_secs(schedule.jitter.seconds().unsigned_abs());
    at.saturating_add(jitter(id.0, at, width)).unwrap_or(Timestamp::MAX)
}

/// What a schedule asks of its job.
pub(super) fn as_request(schedule: &Schedule) -> ExecuteJob {
    ExecuteJob {
        parameters: schedule.parameters.clone(),
        version: schedule.version,
        targets: schedule.targets.clone(),
        expect_targets: None,
        priority: schedule.priority,
    }
}

/// Why a start was refused; none when nobody refused it, and it has to be tried again.
fn cause(error: &Error) -> Option<(Cause, String)> {
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

/// As ids count time.
fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

fn whole_seconds(length: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(length.as_secs())
}
