//! An entry of the audit, and the one way in which it is written as bytes to be hashed.
//!
//! 1. Two entries that differ in anything have different bytes: each field has its length before it, and the fields stand
//!    in a fixed order.
//! 2. An entry that went through the database, or through the JSON of an export, gives the same bytes: keys of the detail
//!    are sorted, there are no numbers but whole ones, and times are whole microseconds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::id::OrgId;

/// What the bytes begin with.
const DOMAIN: &[u8] = b"OPSC-AUDIT-ENTRY1";

/// One action: who did what to what, whence, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    pub id: Uuid,
    pub org_id: OrgId,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The name, as people knew it.
    pub actor: String,
    /// `noun/id`, which is never given again; empty where the actor is no row.
    pub actor_id: String,
    pub verb: String,
    /// `noun/id`.
    pub object: String,
    pub outcome: String,
    pub request_id: String,
    /// The address that it came from; empty where there is none.
    pub source: String,
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// Why an entry has no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    #[error("its detail has a number that is not whole, or too large")]
    Number,
    #[error("its time is not in whole microseconds")]
    Time,
}

impl AuditEntry {
    /// The bytes that are hashed.
    ///
    /// # Errors
    /// When the entry has a number or a time that could be written in several ways.
    pub fn encode(&self) -> Result<Vec<u8>, NotCanonical> {
        if self.at.subsec_nanosecond() % 1000 != 0 {
            return Err(NotCanonical::Time);
        }
        let mut detail = Vec::new();
        write(&self.detail, &mut detail)?;
        let at = self.at.as_microsecond().to_be_bytes();
        let fields: [&[u8]; 11] = [
            self.id.as_bytes(),
            self.org_id.0.as_bytes(),
            &at,
            self.actor.as_bytes(),
            self.actor_id.as_bytes(),
            self.verb.as_bytes(),
            self.object.as_bytes(),
            self.outcome.as_bytes(),
            self.request_id.as_bytes(),
            self.source.as_bytes(),
            &detail,
        ];
        let size: usize = fields.iter().map(|field| 8 + field.len()).sum();
        let mut bytes = Vec::with_capacity(DOMAIN.len() + size);
        bytes.extend_from_slice(DOMAIN);
        for field in fields {
            bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        Ok(bytes)
    }
}

/// Writes JSON with sorted keys and without insignificant white space.
fn write(value: &Value, bytes: &mut Vec<u8>) -> Result<(), NotCanonical> {
    match value {
        Value::Null => bytes.extend_from_slice(b"null"),
        Value::Bool(true) => bytes.extend_from_slice(b"true"),
        Value::Bool(false) => bytes.extend_from_slice(b"false"),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            bytes.extend_from_slice(number.to_string().as_bytes());
        }
        Value::Number(_) => return Err(NotCanonical::Number),
        Value::String(text) => write_text(text, bytes),
        Value::Array(items) => {
            bytes.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                write(item, bytes)?;
            }
            bytes.push(b']');
        }
        Value::Object(map) => {
            let mut members: Vec<(&String, &Value)> = map.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            bytes.push(b'{');
            for (index, (key, item)) in members.into_iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                write_text(key, bytes);
                bytes.push(b':');
                write(item, bytes)?;
            }
            bytes.push(b'}');
        }
    }
    Ok(())
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    serde_json::to_writer(bytes, text).expect("a text becomes JSON in memory");
}

/// The value with each number that is not whole as a text, so that it can be hashed.
pub fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) if !(number.is_i64() || number.is_u64()) => Value::String(number.to_string()),
        Value::Array(items) => Value::Array(items.into_iter().map(whole).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, item)| (key, whole(item))).collect()),
        value => value,
    }
}

#[cfg(test)]
mod tests;
