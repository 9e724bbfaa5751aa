//! The calendars that schedules heed, as they are now: read in one statement for many schedules, and made ready once for each
//! version.
//!
//! Invariant: a calendar that is not there or cannot be read allows nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use model::{
    api::schedule::Cause,
    calendar::{Compiled, Verdict, verdict},
    id::{CalendarId, OrgId},
    schedule::Schedule,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::App;
use crate::{error::Result, store};

/// Calendars that are kept ready: a megabyte each at the most.
const KEPT: usize = 200;

/// Calendars that are ready, with their versions.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    ready: Mutex<HashMap<CalendarId, (State, Ready)>>,
}

/// Which state of a calendar: after a database was set back a version may come twice.
type State = (i32, Timestamp);
/// None: it cannot be read.
type Ready = Option<Arc<Compiled>>;

impl Cache {
    fn get(&self, id: CalendarId, state: State) -> Option<Ready> {
        let ready = self.ready.lock().expect("no holder of this lock panics");
        ready.get(&id).filter(|(known, _)| *known == state).map(|(_, calendar)| calendar.clone())
    }

    fn insert(&self, id: CalendarId, state: State, calendar: Ready) {
        let mut ready = self.ready.lock().expect("no holder of this lock panics");
        if ready.len() >= KEPT && !ready.contains_key(&id) {
            ready.clear();
        }
        ready.insert(id, (state, calendar));
    }
}

/// The calendars of some schedules, by organization and name.
#[derive(Debug, Default)]
pub(super) struct Heeded {
    calendars: HashMap<(OrgId, String), Ready>,
}

/// Reads the calendars that these schedules name.
pub(super) async fn read(
    app: &App,
    connection: &mut PgConnection,
    schedules: &[(OrgId, &Schedule)],
) -> Result<Heeded> {
    let mut names = BTreeSet::new();
    for (org, schedule) in schedules {
        names.extend(schedule.calendars.iter().map(|name| (*org, name.as_str())));
    }
    if names.is_empty() {
        return Ok(Heeded::default());
    }
    let names: Vec<_> = names.into_iter().collect();
    let named = store::calendars::named(connection, &names).await?;
    // Asked once: what is in the cache now may not be there any more in a moment.
    let known: Vec<Option<Ready>> =
        named.iter().map(|one| app.calendars.get(one.id, (one.version, one.updated_at))).collect();
    let unknown = named.iter().zip(&known).filter(|(_, known)| known.is_none());
    let unknown: Vec<Uuid> = unknown.map(|(one, _)| one.id.0).collect();
    let mut fresh = HashMap::new();
    if !unknown.is_empty() {
        for (id, document) in store::calendars::documents(connection, &unknown).await? {
            fresh.insert(id, compiled(id, &document));
        }
    }
    let mut heeded = Heeded::default();
    for (one, known) in named.into_iter().zip(known) {
        let ready = match (known, fresh.get(&one.id)) {
            (Some(known), _) => known,
            // One that changed between the two statements is kept under the older state, and read again the next time.
            (None, Some(ready)) => {
                app.calendars.insert(one.id, (one.version, one.updated_at), ready.clone());
                ready.clone()
            }
            // It was deleted between the two.
            (None, None) => continue,
        };
        heeded.calendars.insert((one.org_id, one.name), ready);
    }
    Ok(heeded)
}

fn compiled(id: CalendarId, document: &str) -> Ready {
    let calendar = store::calendars::read(document);
    match calendar.map_err(|error| error.to_string()).and_then(|calendar| {
        Compiled::of(calendar).map_err(|invalid| format!("{} {}", invalid.field, invalid.problem))
    }) {
        Ok(calendar) => Some(Arc::new(calendar)),
        Err(error) => {
            tracing::error!(calendar.id = %id, error, "a calendar cannot be read: it allows nothing");
            None
        }
    }
}

impl Heeded {
    /// The first of these names of which there is no calendar.
    pub(super) fn absent<'a>(&self, org: OrgId, names: &'a [String]) -> Option<&'a String> {
        names.iter().find(|name| !self.calendars.contains_key(&(org, (*name).clone())))
    }

    /// Why the calendars of these names do not allow a firing that is planned for `due`; none where they do.
    pub(super) fn refusal(&self, org: OrgId, names: &[String], due: Timestamp) -> Option<String> {
        let mut calendars = Vec::with_capacity(names.len());
        for name in names {
            match self.calendars.get(&(org, name.clone())) {
                Some(Some(calendar)) => calendars.push(Arc::clone(calendar)),
                Some(None) => return Some(format!("the calendar '{name}' cannot be read")),
                None => return Some(format!("the calendar '{name}' is not there any more")),
            }
        }
        match verdict(&calendars, due) {
            Verdict::Open => None,
            closed => Some(closed.to_string()),
        }
    }

    /// What a schedule does not do at `due` because of its calendars.
    pub(super) fn skips(
        &self,
        org: OrgId,
        schedule: &Schedule,
        due: Timestamp,
    ) -> Option<(Cause, Option<String>)> {
        self.refusal(org, &schedule.calendars, due).map(|why| (Cause::Calendar, Some(why)))
    }
}
