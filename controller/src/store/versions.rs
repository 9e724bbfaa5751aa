//! What a version of a job and one of a script have in common: they never change, and each is signed.

use jiff::Timestamp;
use model::id::OrgId;
use uuid::Uuid;

use super::executions::SignedManifest;

/// A version to be.
#[derive(Debug)]
pub(crate) struct NewVersion<'a> {
    /// Of the job or the script.
    pub id: Uuid,
    pub org_id: OrgId,
    pub version: i32,
    pub document: &'a str,
    pub sha256: &'a [u8],
    pub comment: Option<&'a str>,
    pub author: &'a str,
    pub author_id: &'a str,
    pub created_at: Timestamp,
    pub signed: &'a SignedManifest,
}

/// A version as it was saved, with what was signed of it.
#[derive(Debug)]
pub(crate) struct SavedVersion {
    pub version: i32,
    pub document: String,
    pub sha256: Vec<u8>,
    pub comment: Option<String>,
    pub author: String,
    pub author_id: String,
    pub created_at: Timestamp,
    pub signed: SignedManifest,
}

/// What was saved, of a record with all columns of a version, or with those that a schedule has for it.
macro_rules! saved_version {
    ($r:ident) => {
        $crate::store::versions::saved_version!($r: $r.version, $r.created_at, $r.sha256, $r.comment)
    };
    (schedule $r:ident) => {
        $crate::store::versions::saved_version!($r: $r.revision, $r.saved_at, Vec::new(), None)
    };
    ($r:ident: $version:expr, $at:expr, $sha256:expr, $comment:expr) => {
        $crate::store::versions::SavedVersion {
            version: $version,
            sha256: $sha256,
            comment: $comment,
            document: $r.document,
            author: $r.author,
            author_id: $r.author_id,
            created_at: $at.to_jiff(),
            signed: $crate::store::executions::SignedManifest {
                manifest: $r.signed,
                signature: $r.signature,
                certificate: $r.certificate,
            },
        }
    };
}
pub(super) use saved_version;
