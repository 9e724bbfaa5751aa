//! How many streams may be open: of one principal, and of all of them at this controller. Each costs a look at the
//! tables a second for as long as it is open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::http::StatusCode;
use model::{id::OrgId, limits};

use super::problem::{Failure, Result};
use crate::app::access::Actor;

type Principal = (OrgId, String);

/// The streams that are open now.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of_principal: HashMap<Principal, usize>,
}

/// One place among the open streams, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    streams: Arc<Streams>,
    principal: Principal,
}

impl Streams {
    /// A place for one more stream of this actor.
    ///
    /// # Errors
    /// 429 over `STREAMS_PER_PRINCIPAL` or `STREAMS`.
    pub(super) fn enter(self: &Arc<Self>, actor: &Actor) -> Result<Place> {
        let principal = (actor.org_id, actor.name.clone());
        let mut counts = self.0.lock().expect("no holder of this lock panics");
        if counts.all >= limits::STREAMS {
            return Err(over("STREAMS", limits::STREAMS));
        }
        let own = counts.of_principal.entry(principal.clone()).or_default();
        if *own >= limits::STREAMS_PER_PRINCIPAL {
            return Err(over("STREAMS_PER_PRINCIPAL", limits::STREAMS_PER_PRINCIPAL));
        }
        *own += 1;
        counts.all += 1;
        metrics::gauge!("opsc_http_streams").set(counts.all as f64);
        Ok(Place { streams: Arc::clone(self), principal })
    }
}

fn over(name: &str, limit: usize) -> Failure {
    let detail = format!("the limit {name} of {limit} open streams is reached: close some");
    Failure::refuse(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", detail)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.streams.0.lock().expect("no holder of this lock panics");
        counts.all -= 1;
        metrics::gauge!("opsc_http_streams").set(counts.all as f64);
        if let Some(own) = counts.of_principal.get_mut(&self.principal) {
            *own -= 1;
            if *own == 0 {
                counts.of_principal.remove(&self.principal);
            }
        }
    }
}
