//! Events: what happened, as programs listen to it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Invalid, limits};

/// What the kinds of events begin with that people's own programs add. All others are the controller's, so whoever
/// listens can believe them.
pub const CUSTOM: &str = "custom.";

/// Something that happened.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    #[schema(value_type = String, format = Uuid)]
    pub id: uuid::Uuid,
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// `noun.what`, as `agent.connected` or `execution.ended`.
    pub kind: String,
    /// What it happened to, as `agent/ID`; of a custom event whatever its program says.
    pub object: String,
    /// Who did it; absent where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// `done`, `denied` or `alarm`.
    #[serde(default = "done")]
    pub outcome: String,
    /// Of what concerns people and their rights the details are in the audit alone.
    pub data: Map<String, Value>,
}

fn done() -> String {
    "done".to_owned()
}

/// One page of events.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventPage {
    pub items: Vec<Event>,
    /// Hand this back as `cursor` to get the next page, of older events; absent on the last, and with `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Hand this back as `after` to go on with what is told from now on, or with `after` behind this page. Nothing is
    /// missed; without `after`, some of this page may come again.
    pub next_after: String,
}

/// An event to be, of a program of people's.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "kind": "custom.deploy.done", "object": "shop", "data": { "version": "1.2" } }))]
pub struct CreateEvent {
    /// `custom.` and then words of `a-z`, `0-9`, `_` and `-`, with dots between them.
    #[schema(pattern = "^custom(\\.[a-z0-9_-]+)+$", max_length = 128)]
    pub kind: String,
    /// What it happened to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 512)]
    pub object: String,
    /// What else there is to know; no secrets.
    #[serde(default)]
    pub data: Map<String, Value>,
}

impl CreateEvent {
    /// # Errors
    /// With the field that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        if !self.kind.strip_prefix(CUSTOM).is_some_and(|rest| rest.split('.').all(is_word)) {
            let problem =
                "must begin with 'custom.' and go on with words of a-z, 0-9, _ and -, as custom.deploy.done";
            return Err(Invalid::new("kind", problem));
        }
        if self.kind.len() > limits::EVENT_KIND_CHARS {
            return Err(Invalid::over("kind", "EVENT_KIND_CHARS", limits::EVENT_KIND_CHARS, "characters"));
        }
        if self.object.len() > limits::EVENT_OBJECT_BYTES {
            return Err(Invalid::over("object", "EVENT_OBJECT_BYTES", limits::EVENT_OBJECT_BYTES, "bytes"));
        }
        if self.object.chars().any(char::is_control) {
            return Err(Invalid::new("object", "must have no control characters"));
        }
        let bytes = serde_json::to_string(&self.data).map_or(usize::MAX, |json| json.len());
        if bytes > limits::EVENT_DATA_BYTES {
            return Err(Invalid::over("data", "EVENT_DATA_BYTES", limits::EVENT_DATA_BYTES, "bytes as JSON"));
        }
        if self.data.values().any(has_vast_number) {
            return Err(Invalid::new(
                "data",
                "must have no numbers of 1e300 and beyond: what is kept could not be read",
            ));
        }
        Ok(())
    }
}

/// One of the words that a kind is made of.
pub(crate) fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}

/// The database writes numbers out with all of their digits, and a float at its end is rounded over it.
fn has_vast_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_none_or(|number| number.abs() >= 1e300),
        Value::Array(items) => items.iter().any(has_vast_number),
        Value::Object(fields) => fields.values().any(has_vast_number),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, object: &str, data: Value) -> CreateEvent {
        let Value::Object(data) = data else { panic!("an object") };
        CreateEvent { kind: kind.to_owned(), object: object.to_owned(), data }
    }

    #[test]
    fn nobody_adds_an_event_of_the_controllers() {
        event("custom.deploy.done-2", "shop", serde_json::json!({ "a": 1 })).validate().unwrap();
        for kind in
            ["agent.connected", "custom", "custom.", "custom..a", "custom.A", "custom.a b", "x.custom.a", ""]
        {
            let invalid = event(kind, "", serde_json::json!({})).validate().unwrap_err();
            assert_eq!(invalid.field, "kind", "{kind}");
        }
    }

    #[test]
    fn what_is_over_a_limit_is_named() {
        let long = |n: usize| "x".repeat(n);
        for (event, field) in [
            (event(&format!("custom.{}", long(limits::EVENT_KIND_CHARS)), "", serde_json::json!({})), "kind"),
            (event("custom.a", &long(limits::EVENT_OBJECT_BYTES + 1), serde_json::json!({})), "object"),
            (event("custom.a", "", serde_json::json!({ "x": [{ "y": -1.797e308 }] })), "data"),
            (event("custom.a", "line\nbreak", serde_json::json!({})), "object"),
            (event("custom.a", "", serde_json::json!({ "x": long(limits::EVENT_DATA_BYTES) })), "data"),
        ] {
            assert_eq!(event.validate().unwrap_err().field, field);
        }
    }
}
