//! Triggers: what starts a job that no clock starts, a delivery at a webhook or an event.
//!
//! What came is judged, and the values of parameters and the names of hosts are taken out of it, by expressions as those of a
//! step's `if`. Invariant: whatever is taken out is data, and is checked at the start as if a person had typed it.

use std::collections::BTreeMap;

use minijinja::value::ValueKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Invalid, api::event::is_word, job::condition, limits, network::Network};

/// What is waited for, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub source: Source,
    /// An expression: what it does not hold of starts nothing.
    pub condition: Option<String>,
    /// Values of the job's parameters, each an expression.
    pub parameters: BTreeMap<String, String>,
    /// An expression that gives the name of a host, or a list of names: where, in place of what the schedule says.
    pub hosts: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Webhook(Webhook),
    /// Events of this kind; of all that begin with it, where it ends with `.*`.
    Event(String),
}

/// A door at which another program's deliveries arrive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// How a sender shows that it knows the secret.
    #[serde(default)]
    pub proof: Proof,
    /// The header in which it does. By default `X-Hub-Signature-256` for a signature; for the secret `Authorization: Bearer`,
    /// or the end of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The header that tells one delivery from another: what comes again starts nothing. By default `Idempotency-Key`,
    /// `X-GitHub-Delivery`, `X-Gitea-Delivery`, `X-Gitlab-Event-UUID` or `Webhook-Id`, whichever is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_header: Option<String>,
    /// Addresses and networks from which deliveries may come; all by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}

/// How a sender shows that it knows the secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// It sends it.
    #[default]
    Secret,
    /// It sends HMAC-SHA-256 over the body, in hex, with `sha256=` before it or not (RFC 2104).
    Signature,
}

/// The headers that name deliveries, of those who send webhooks.
const DELIVERY_HEADERS: [&str; 5] =
    ["idempotency-key", "x-github-delivery", "x-gitea-delivery", "x-gitlab-event-uuid", "webhook-id"];

impl Webhook {
    /// Where the proof stands; none: as `Authorization: Bearer`, or at the end of the address.
    pub fn proof_header(&self) -> Option<&str> {
        match (&self.header, self.proof) {
            (Some(header), _) => Some(header),
            (None, Proof::Signature) => Some("x-hub-signature-256"),
            (None, Proof::Secret) => None,
        }
    }

    /// Where the name of the delivery may stand, the first that is there.
    pub fn delivery_headers(&self) -> impl Iterator<Item = &str> {
        let chosen = self.delivery_header.as_deref();
        chosen.into_iter().chain(DELIVERY_HEADERS.into_iter().filter(move |_| chosen.is_none()))
    }

    /// The networks from which deliveries may come; none: all.
    ///
    /// # Errors
    /// The first that is none.
    pub fn networks(&self) -> Result<Vec<Network>, Invalid> {
        let read = |text: &String| {
            let problem = |why| Invalid::new("webhook.from", format!("has '{text}', which {why}"));
            text.parse::<Network>().map_err(|why| problem(why.to_string()))
        };
        self.from.iter().map(read).collect()
    }

    fn validate(&self) -> Result<(), Invalid> {
        for (field, header) in
            [("webhook.header", &self.header), ("webhook.delivery_header", &self.delivery_header)]
        {
            let is_token = |name: &str| {
                !name.is_empty()
                    && name.len() <= limits::HEADER_NAME_CHARS
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            };
            if header.as_deref().is_some_and(|name| !is_token(name)) {
                let most = limits::HEADER_NAME_CHARS;
                let why = format!("must be the name of a header: letters, digits, - and _, at most {most}");
                return Err(Invalid::new(field, why));
            }
        }
        if self.from.len() > limits::WEBHOOK_NETWORKS {
            let most = limits::WEBHOOK_NETWORKS;
            return Err(Invalid::over("webhook.from", "WEBHOOK_NETWORKS", most, "networks"));
        }
        self.networks().map(drop)
    }
}

/// What a trigger took out of what came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
}

impl Source {
    /// What `if` may speak of, and what may be taken out. A signature is one of the body alone: whoever has seen it once can send it
    /// again with another address and other headers, so that nothing is taken out of those.
    const fn names(&self) -> [&'static [&'static str]; 2] {
        match self {
            Self::Webhook(Webhook { proof: Proof::Signature, .. }) => [&["body", "headers"], &["body"]],
            Self::Webhook(_) => [&["body", "headers", "query"]; 2],
            Self::Event(_) => [&["event"]; 2],
        }
    }

    /// Whether events of this kind are waited for.
    pub fn is_of(&self, kind: &str) -> bool {
        match self {
            Self::Webhook(_) => false,
            Self::Event(wanted) => match wanted.strip_suffix('*') {
                Some(start) => kind.starts_with(start),
                None => kind == wanted,
            },
        }
    }
}

impl Trigger {
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        match &self.source {
            Source::Webhook(webhook) => webhook.validate()?,
            Source::Event(kind) => validate_kind(kind)?,
        }
        let [judged, taken] = self.source.names();
        if let Some(condition) = &self.condition {
            check("if", condition, judged)?;
        }
        if self.parameters.len() > limits::PARAMETERS {
            return Err(Invalid::over("parameters", "PARAMETERS", limits::PARAMETERS, "parameters"));
        }
        for (name, expression) in &self.parameters {
            check(&format!("parameters.{name}"), expression, taken)?;
        }
        self.hosts.as_ref().map_or(Ok(()), |hosts| check("hosts", hosts, taken))
    }

    /// What is to start with what came; none when the condition does not hold of it.
    ///
    /// # Errors
    /// With the expression that uses what is not there, or gives what is no value of a parameter and no host.
    pub fn take(&self, came: &Value) -> Result<Option<Taken>, Invalid> {
        let data = minijinja::Value::from(minijinja::value::Serde(came));
        if let Some(condition) = &self.condition
            && !condition::holds("if", condition, &data)?
        {
            return Ok(None);
        }
        let mut taken = Taken::default();
        for (name, expression) in &self.parameters {
            let field = format!("parameters.{name}");
            let value = condition::value(&field, expression, &data)?;
            let value = serde_json::to_value(&value)
                .map_err(|_| Invalid::new(field, "gives what is no value of a parameter"))?;
            taken.parameters.insert(name.clone(), value);
        }
        if let Some(expression) = &self.hosts {
            taken.hosts = Some(names(&condition::value("hosts", expression, &data)?)?);
        }
        let bytes = serde_json::to_string(&taken).map_or(usize::MAX, |json| json.len());
        if bytes > limits::PARAMETERS_BYTES {
            return Err(Invalid::over("parameters", "PARAMETERS_BYTES", limits::PARAMETERS_BYTES, "bytes"));
        }
        Ok(Some(taken))
    }
}

/// Checks an expression and what it speaks of.
fn check(field: &str, expression: &str, names: &[&str]) -> Result<(), Invalid> {
    let used = condition::used(field, expression)?;
    let unknown = |path: &&String| {
        let root = path.split('.').next().unwrap_or_default();
        root != "range" && !names.contains(&root)
    };
    match used.iter().find(unknown) {
        Some(path) => {
            let why = format!("uses '{path}'; what is known here is {}", names.join(", "));
            Err(Invalid::new(field, why))
        }
        None => Ok(()),
    }
}

/// Names of hosts.
fn names(value: &minijinja::Value) -> Result<Vec<String>, Invalid> {
    let wrong = || Invalid::new("hosts", "must give the name of a host, or a list of names");
    let name = |value: &minijinja::Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    match value.kind() {
        ValueKind::Seq => value.try_iter().map_err(|_| wrong())?.map(|item| name(&item)).collect(),
        _ => Ok(vec![name(value)?]),
    }
}

fn validate_kind(kind: &str) -> Result<(), Invalid> {
    let whole = kind.strip_suffix(".*").unwrap_or(kind);
    if kind.len() > limits::EVENT_KIND_CHARS || !whole.split('.').all(is_word) {
        let why = "must be a kind of events, as execution.ended, or the beginning of several, as agent.*";
        return Err(Invalid::new("event", why));
    }
    Ok(())
}
