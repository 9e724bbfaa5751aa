//! What one transaction knows, and what it decides about each firing.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use model::{
    api::{
        execution::Execution,
        schedule::{Cause, OccurrenceState, Origin},
    },
    id::{ExecutionId, OccurrenceId, OrgId, ScheduleId},
    schedule::{Overlap, Schedule, Timeliness, timeliness},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    begins,
    outcome::{Outcome, decided, skipped, waits},
    start::Start,
};
use crate::{
    app::{
        App,
        access::Actor,
        arrivals,
        heeded::{self, Heeded},
        start::Launch,
        versions,
    },
    clock,
    error::{Error, Result},
    store::{
        self,
        occurrences::{Decided, Waiting},
        schedules::{Due, End, Standing},
    },
};

/// Firings of one schedule that one transaction accounts for, and how many of these may start something. One that has slept for
/// long gets further turns, each behind the others.
const FIRINGS: usize = 200;
const STARTS: usize = 8;

/// What a schedule says, if its author saved exactly that.
fn as_saved(app: &App, due: &Due) -> Result<Schedule> {
    versions::verify(app, due.org_id, versions::SCHEDULE, due.id.0, &due.saved)?;
    store::schedules::read(&due.saved.document)
}

/// What one transaction knows and does.
pub(super) struct Round<'a> {
    pub(super) app: &'a App,
    pub(super) now: Timestamp,
    pub(super) ends: HashMap<ScheduleId, Vec<End>>,
    pub(super) open: HashMap<ScheduleId, Vec<ExecutionId>>,
    pub(super) waiting: HashMap<ScheduleId, VecDeque<Waiting>>,
    /// What came, and about which nobody has decided.
    pub(super) arrived: HashMap<ScheduleId, VecDeque<Waiting>>,
    pub(super) calendars: Heeded,
    /// Who the authors of schedules are now; none who is gone.
    pub(super) authors: HashMap<(OrgId, String), Option<Arc<Actor>>>,
    pub(super) decided: Vec<Decided>,
    pub(super) started: Vec<Execution>,
    /// Those of them that are not written yet, and about how many bytes these take.
    pub(super) launches: Vec<Launch>,
    pub(super) weight: usize,
    /// Each start is written by itself, behind a savepoint.
    pub(super) is_careful: bool,
    /// Executions that are to end for a firing, with its schedule.
    pub(super) to_cancel: BTreeMap<ExecutionId, (OrgId, ScheduleId)>,
    pub(super) has_cancelled: bool,
}

impl<'a> Round<'a> {
    pub(super) fn new(app: &'a App, now: Timestamp, is_careful: bool) -> Self {
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
            launches: Vec::new(),
            weight: 0,
            is_careful,
            to_cancel: BTreeMap::new(),
            has_cancelled: false,
        }
    }

    /// Does all that is due of the schedules that were taken, and writes it.
    pub(super) async fn fire_all(&mut self, connection: &mut PgConnection, ids: &[Uuid]) -> Result<()> {
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
        self.write_starts(connection).await?;
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
        Ok(Standing {
            id: due.id,
            accounted_until,
            next_due: next,
            look_at,
            failures,
            paused_because,
            is_halted: false,
        })
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
            match self.start_of(connection, due, &waiting).await? {
                // Each stands for itself: none takes the place of another.
                Ok(start) => self.decide(connection, due, schedule, &start, (waiting.due, None)).await?,
                Err((cause, why)) => skipped(cause, Some(why)),
            }
        };
        let waits = outcome.state == OccurrenceState::Waiting;
        self.become_of(due, &waiting, outcome);
        if waits {
            self.waiting.entry(due.id).or_default().push_back(waiting);
        }
        Ok(())
    }

    /// What is to start for one that waits, or why nothing is: it came, and is not what a controller took in for this revision of the
    /// schedule.
    async fn start_of(
        &self,
        connection: &mut PgConnection,
        due: &Due,
        waiting: &Waiting,
    ) -> Result<std::result::Result<Start, (Cause, String)>> {
        let Some(came) = &waiting.came else {
            return Ok(Ok(Start { at: waiting.due, taken: None, chain: 0 }));
        };
        if came.revision != due.saved.version {
            let why = format!("revision {} of the schedule judged it", came.revision);
            return Ok(Err((Cause::Changed, why)));
        }
        let sealed = store::triggers::sealed(connection, waiting.id).await?;
        Ok(match arrivals::open(self.app, due.org_id, waiting, came, sealed.as_ref()) {
            Ok(taken) => Ok(Start { at: waiting.due, taken: Some(taken), chain: came.chain }),
            Err(error) => Err((Cause::Tampered, error.to_string())),
        })
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
            let started = match self.start_of(connection, due, &next).await? {
                Ok(start) => self.start(connection, due, schedule, &start).await?,
                Err(refused) => Err(refused),
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

    pub(super) fn note(&mut self, due: &Due, origin: Origin, at: Timestamp, outcome: Outcome) {
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
    pub(super) fn become_of(&mut self, due: &Due, waited: &Waiting, outcome: Outcome) {
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

/// Why a schedule has no effect at this time, if it has a beginning or an end.
fn not_in_force(schedule: &Schedule, at: Timestamp) -> Option<String> {
    let (start, end) = (schedule.when.starts_at, schedule.when.ends_at);
    let early = start.filter(|start| at < *start).map(|start| format!("the schedule begins at {start}"));
    early.or_else(|| end.filter(|end| at > *end).map(|end| format!("the schedule ended at {end}")))
}

fn whole_seconds(length: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(length.as_secs())
}
