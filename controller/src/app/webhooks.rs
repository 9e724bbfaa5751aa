//! Webhooks: each schedule that has one has an address of its own, at which another program's deliveries arrive.
//!
//! Invariants: the secret is made of the authority's key when it is needed, and kept nowhere; who has it may start the job as the
//! schedule's author, so nobody but that one gets it; nothing of a delivery is looked at before its sender has shown that it knows it,
//! and then by a document whose signature holds; a delivery that comes again starts nothing.

use std::{collections::BTreeMap, net::IpAddr};

use model::{
    Invalid,
    access::Permission,
    api::schedule::{Cause, Delivered, OccurrenceState, Origin, WebhookSecret},
    id::ScheduleId,
    limits,
    schedule::{Proof, Source, Trigger, Webhook},
};
use pki::derived;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    App,
    access::{Authorized, ScheduleManage},
    arrivals::{self, Coming},
    schedules, versions,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self, audit,
        triggers::{Hook, Verdict},
    },
};

/// What somebody sends to a webhook.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The end of the address, where there is one.
    pub secret: Option<String>,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub query: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub address: Option<IpAddr>,
}

/// Proof that the sender of a delivery knows the secret, and may send from where it is.
#[derive(Debug)]
pub(crate) struct Proven {
    schedule: ScheduleId,
    hook: Hook,
    webhook: Webhook,
    delivery: Delivery,
}

impl Proven {
    pub(crate) const fn schedule(&self) -> ScheduleId {
        self.schedule
    }
}

/// Gives a schedule's webhook a new secret; the one before is worth nothing from then on.
///
/// # Errors
/// When there is no such schedule, it has no webhook, or somebody else saved it last: it acts as that one.
pub(crate) async fn new_secret(
    app: &App,
    by: &Authorized<ScheduleManage>,
    key: &str,
) -> Result<WebhookSecret> {
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let locked = schedules::lock(app, &mut tx, by, key).await?;
    let schedule = store::schedules::read(&locked.document)?;
    if !matches!(schedule.when.trigger(), Some(Trigger { source: Source::Webhook(_), .. })) {
        return Err(Error::Conflict(format!("the schedule '{}' has no webhook", locked.name)));
    }
    schedules::whole_rights(by)?;
    if by.actor().subject.to_string() != locked.author_id {
        let why = format!(
            "who has the secret starts the job as {}, who saved '{}' last: save it anew, and it acts as you",
            locked.author, locked.name
        );
        return Err(by.actor().refusal(Permission::ScheduleManage, &why));
    }
    // Who wrote himself into the row does not get it either.
    let saved = store::schedules::saved(&mut tx, (org, locked.id)).await?;
    versions::verify(app, org, versions::SCHEDULE, locked.id.0, &saved)?;
    let number = store::triggers::next_secret(&mut tx, (org, locked.id)).await?;
    let detail = json!({ "name": locked.name, "number": number });
    let entry = by.entry("schedule.new_secret", format!("schedule/{}", locked.id), detail);
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    let secret = secret(app, locked.id, number, &locked.author_id).reveal();
    Ok(WebhookSecret { path: store::schedules::webhook_path(locked.id), secret })
}

/// The secret of this number, while the schedule acts as this author.
fn secret(app: &App, schedule: ScheduleId, number: i32, author_id: &str) -> derived::WebhookSecret {
    derived::WebhookSecret::of(app.ca.authority(), format!("{schedule}/{number}/{author_id}").as_bytes())
}

/// Checks that the sender knows the secret of the webhook, and may send from where it is.
///
/// # Errors
/// [`Error::BadCredential`], the same for a webhook that is not there.
pub(crate) async fn prove(app: &App, id: ScheduleId, delivery: Delivery) -> Result<Proven> {
    let stranger = || Error::BadCredential("there is no such webhook, or it has another secret".to_owned());
    let hook = store::triggers::hook(app.db.worker(), id).await?.ok_or_else(stranger)?;
    let webhook = door(&hook.saved.document).ok_or_else(stranger)?;
    let secret = secret(app, id, hook.secret_number, &hook.saved.author_id);
    if hook.secret_number <= 0 || !is_proven(&webhook, &secret, &delivery) {
        return Err(stranger());
    }
    if let Err(error) = versions::verify(app, hook.org_id, versions::SCHEDULE, id.0, &hook.saved) {
        if !hook.is_paused {
            // It has its turn, to be paused with an alarm.
            let mut connection = app.db.worker().acquire().await.during("acquire of a connection")?;
            store::schedules::look_at(&mut connection, (hook.org_id, id), clock::now()).await?;
            app.wake.schedules.notify_one();
        }
        return Err(error);
    }
    let networks = webhook.networks()?;
    let is_among = |address: IpAddr| networks.iter().any(|network| network.contains(address));
    if !networks.is_empty() && !delivery.address.is_some_and(is_among) {
        let from = delivery.address.map_or_else(|| "nowhere".to_owned(), |address| address.to_string());
        return Err(Error::NotAdmitted(format!("this webhook takes no deliveries from {from}")));
    }
    Ok(Proven { schedule: id, hook, webhook, delivery })
}

/// The webhook of a document, of which a stranger has nothing else read.
fn door(document: &str) -> Option<Webhook> {
    #[derive(Deserialize)]
    struct Document {
        when: When,
    }
    #[derive(Deserialize)]
    struct When {
        webhook: Option<Webhook>,
    }
    serde_json::from_str::<Document>(document).ok()?.when.webhook
}

fn is_proven(webhook: &Webhook, secret: &derived::WebhookSecret, delivery: &Delivery) -> bool {
    let header = |name: &str| delivery.headers.get(&name.to_ascii_lowercase()).map(String::as_str);
    let given = webhook.proof_header().map(header);
    match (webhook.proof, given) {
        (Proof::Signature, given) => {
            given.flatten().is_some_and(|signature| secret.has_signed(&delivery.body, signature))
        }
        (Proof::Secret, Some(given)) => given.is_some_and(|text| secret.is(text)),
        (Proof::Secret, None) => {
            let bearer = header("authorization").and_then(|text| text.split_once(' '));
            let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let given = delivery.secret.as_deref().or(bearer.map(|(_, token)| token.trim()));
            given.is_some_and(|text| secret.is(text))
        }
    }
}

/// Takes in a delivery: from then on it has a row, whatever becomes of it.
///
/// # Errors
/// When it cannot be read, or too many wait already.
pub(crate) async fn take(app: &App, proven: Proven) -> Result<Delivered> {
    let Proven { schedule, hook, webhook, delivery } = proven;
    let document = store::schedules::read(&hook.saved.document)?;
    let name = webhook
        .delivery_headers()
        .find_map(|name| Some((name.to_owned(), delivery.headers.get(&name.to_ascii_lowercase())?.clone())));
    if let Some((header, name)) = &name
        && (name.is_empty() || name.len() > limits::DELIVERY_BYTES)
    {
        let why = format!("must have 1 to {} bytes", limits::DELIVERY_BYTES);
        return Err(Invalid::new(header, why).into());
    }
    let data = data(&webhook, &delivery)?;
    let judged = arrivals::beside(move || {
        // What nobody can judge starts nothing.
        let unknown = || Err((Cause::Changed, "the schedule has no webhook".to_owned()));
        document.when.trigger().map_or_else(unknown, |trigger| arrivals::judge(trigger, &data))
    })
    .await?;
    let from = delivery.address.map(|address| format!("from {address}")).unwrap_or_default();
    let coming = Coming {
        of: (hook.org_id, schedule),
        revision: hook.saved.version,
        origin: Origin::Webhook,
        delivery: name.map(|(_, name)| name),
        at: clock::now(),
        chain: 0,
        detail: from,
    };
    let arrival = arrivals::seal(app, coming, judged)?;
    let mut tx = app.db.of(hook.org_id).begin().await.during("begin")?;
    if !store::triggers::arrive(&mut tx, &arrival).await? {
        let earlier = store::triggers::earlier(&mut tx, schedule, &arrival.delivery).await?;
        tx.rollback().await.during("rollback")?;
        return earlier.ok_or(Error::StillRunning);
    }
    let most = i64::try_from(limits::WAITING_OCCURRENCES).unwrap_or(i64::MAX);
    if store::triggers::waiting(&mut tx, schedule).await? > most {
        tx.rollback().await.during("rollback")?;
        return Err(Error::TooMany { retry_after_seconds: 60 });
    }
    tx.commit().await.during("commit")?;
    fault::point("controller.trigger.taken");
    app.wake.schedules.notify_one();
    let (state, cause, detail) = match arrival.verdict {
        Verdict::Skip(cause, why) => (OccurrenceState::Skipped, Some(cause), Some(why)),
        Verdict::Start { .. } => (OccurrenceState::Waiting, None, None),
    };
    Ok(Delivered { occurrence_id: arrival.id, state, cause, detail, repeated: false })
}

/// What the expressions of a webhook speak of.
///
/// # Errors
/// When the body says that it is JSON, and is none.
fn data(webhook: &Webhook, delivery: &Delivery) -> Result<Value> {
    let kind = delivery.headers.get("content-type").map(String::as_str).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let text = || String::from_utf8_lossy(&delivery.body).into_owned();
    let body = if kind == "application/x-www-form-urlencoded" {
        let fields = form_urlencoded::parse(&delivery.body);
        Value::Object(
            fields.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect(),
        )
    } else if kind == "application/json" || kind.ends_with("+json") {
        serde_json::from_slice(&delivery.body).map_err(|error| {
            Invalid::new("body", format!("is not the JSON that its Content-Type says: {error}"))
        })?
    } else {
        serde_json::from_slice(&delivery.body).unwrap_or_else(|_| Value::String(text()))
    };
    let is_secret = |name: &str| {
        ["authorization", "cookie", "proxy-authorization"].contains(&name)
            || webhook.proof_header().is_some_and(|proof| proof.eq_ignore_ascii_case(name))
    };
    let texts = |from: &BTreeMap<String, String>| -> Map<String, Value> {
        let plain = from.iter().filter(|(name, _)| !is_secret(name));
        plain.map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect()
    };
    Ok(json!({ "body": body, "headers": texts(&delivery.headers), "query": texts(&delivery.query) }))
}
