//! Events that people's own programs add.

use model::{
    api::event::{CreateEvent, Event},
    id::uuid_v7,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    App,
    access::{Authorized, EventCreate},
    idempotency::check_key,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, audit, events::NewEvent},
};

/// Adds an event. A repetition with the same `idempotency_key` answers with the first one's.
///
/// # Errors
/// When a field is wrong, or the key came with another request before.
pub(crate) async fn create(
    app: &App,
    by: &Authorized<EventCreate>,
    request: CreateEvent,
    idempotency_key: Option<&str>,
) -> Result<Event> {
    request.validate()?;
    if let Some(key) = idempotency_key {
        check_key(key)?;
    }
    let (org, actor) = (by.org_id(), by.actor().name.as_str());
    let body_hash =
        Sha256::digest(serde_json::to_vec(&request).map_err(|e| Error::internal("cannot hash", e))?);
    let now = clock::now();
    let CreateEvent { kind, object, data } = request;
    let event = Event {
        id: uuid_v7(now, clock::entropy()),
        time: now,
        kind,
        object,
        actor: Some(actor.to_owned()),
        outcome: "done".to_owned(),
        data,
    };
    let pool = app.db.of(org);
    let mut tx = pool.begin().await.during("begin")?;
    if let Some(key) = idempotency_key {
        let answer = json!({ "event": event });
        if !store::idempotency::claim(&mut tx, org, actor, key, &body_hash, &answer, now).await? {
            tx.rollback().await.during("rollback")?;
            let earlier =
                store::idempotency::earlier(&pool, org, actor, key).await?.ok_or(Error::StillRunning)?;
            if earlier.body_hash != body_hash[..] {
                return Err(Error::KeyReused);
            }
            let event = earlier.answer.and_then(|mut answer| answer.get_mut("event").map(Value::take));
            let event = event.ok_or(Error::StillRunning)?;
            return serde_json::from_value(event)
                .map_err(|e| Error::internal("cannot read a kept answer", e));
        }
    }
    let data = Value::Object(event.data.clone());
    let new =
        NewEvent { id: event.id, at: now, kind: &event.kind, object: &event.object, actor, data: &data };
    store::events::insert(&mut tx, org, &new).await?;
    let detail = json!({ "kind": event.kind, "object": event.object });
    audit::record(&mut tx, org, now, by.entry("event.create", format!("event/{}", event.id), detail)).await?;
    tx.commit().await.during("commit")?;
    Ok(event)
}
