//! The audit: its entries, the checkpoints over them, and the records of an export.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{audit::AuditEntry, id::OrgId};

/// The version of the form of an export.
pub const EXPORT_FORMAT: u32 = 1;

/// `GET /api/v1/audit`: an entry and its place in the chain of its organization.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Audited {
    /// Its number, from 1 and without a hole; null when it is not chained yet, which takes seconds.
    pub seq: Option<i64>,
    /// The hash over it and its predecessor's hash, in hexadecimal.
    pub hash: Option<String>,
    pub entry: AuditEntry,
}

/// What a controller signed: that an organization's entry with this number had this hash, at this time. Only the payload
/// is signed; the fields before it repeat what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SignedCheckpoint {
    /// 0 is the beginning, before any entry.
    pub seq: i64,
    pub hash: String,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// A JSON text: exactly the bytes that are signed, with the kind `audit-checkpoint`.
    pub payload: String,
    /// Ed25519, in hexadecimal.
    pub signature: String,
    /// Of the signing key, DER in hexadecimal, issued by the controllers' intermediate.
    pub certificate: String,
}

/// `GET /api/v1/audit/key`: what the checkpoints are verified with.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditKey {
    pub trust_domain: String,
    /// The controllers' intermediate, PEM.
    pub certificate: String,
    /// Of whoever asked; `opsctl audit verify` knows its name by this. Not in keys of older controllers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<KeyOrganization>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyOrganization {
    #[schema(value_type = String, format = Uuid)]
    pub id: OrgId,
    pub name: String,
}

/// One line of `GET /api/v1/audit/export`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum ExportRecord {
    /// The first line.
    Header(ExportHeader),
    Entry(ExportEntry),
    Checkpoint(SignedCheckpoint),
    /// An entry that has no place in the chain and does not wait for one.
    Unchained(ExportUnchained),
}

/// What an export has.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExportHeader {
    pub format: u32,
    pub organization: OrgId,
    pub trust_domain: String,
    /// The numbers of the first and the last entry.
    pub from_seq: i64,
    pub to_seq: i64,
    /// The hash of the entry before the first, in hexadecimal; zeros before number 1.
    pub prev_hash: String,
}

/// An entry at its place.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportEntry {
    pub seq: i64,
    pub hash: String,
    /// Null: the chain has a place for an entry that is not there.
    pub entry: Option<AuditEntry>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExportUnchained {
    pub entry: AuditEntry,
}
