//! Versions of what people save: each is signed when it is saved, and compared with that before it is used.
//!
//! Invariant: who can write the database cannot change what a version says without that being seen.

use jiff::Timestamp;
use model::id::OrgId;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{App, access::Authorized};
use crate::{
    error::{Error, Result},
    store::{executions::SignedManifest, versions::SavedVersion},
};

/// What there are versions of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// What the signature is made over, so that it can stand for nothing else.
    signed_as: &'static str,
    pub(super) noun: &'static str,
}

pub(super) const JOB: Kind = Kind { signed_as: "job-version", noun: "job" };
pub(super) const SCRIPT: Kind = Kind { signed_as: "script-version", noun: "script" };
pub(super) const SCHEDULE: Kind = Kind { signed_as: "schedule-revision", noun: "schedule" };

/// Signs that `by` saves this document as this version.
pub(super) fn sign<P>(
    app: &App,
    by: &Authorized<P>,
    kind: Kind,
    (id, version): (Uuid, i32),
    document: &str,
    now: Timestamp,
) -> SignedManifest {
    let saved = proto::SavedVersion {
        org_id: by.org_id().to_bytes(),
        id: id.as_bytes().to_vec(),
        version: u32::try_from(version).unwrap_or(0),
        sha256: Sha256::digest(document).to_vec(),
        author: by.actor().name.clone(),
        author_id: by.actor().subject.to_string(),
        created_at: now.as_microsecond(),
    }
    .encode_to_vec();
    let signer = app.ca.signer();
    SignedManifest {
        signature: signer.sign(kind.signed_as, &saved),
        certificate: signer.certificate().to_vec(),
        manifest: saved,
    }
}

/// Compares a version's row with what was signed of it.
///
/// # Errors
/// [`Error::Tampered`].
pub(super) fn verify(app: &App, org: OrgId, kind: Kind, id: Uuid, saved: &SavedVersion) -> Result<()> {
    let signed = &saved.signed;
    let version = saved.version;
    let refused = |why: String| Error::Tampered(format!("version {version} of the {} {why}", kind.noun));
    // The key signed it when it was in use; that its certificate has ended since does not matter.
    app.ca
        .verifier()
        .verify(kind.signed_as, &signed.manifest, &signed.signature, &signed.certificate, saved.created_at)
        .map_err(|error| refused(format!("has a signature that does not hold: {error}")))?;
    let signed = proto::SavedVersion::decode(signed.manifest.as_slice())
        .map_err(|error| refused(format!("has a signed part that cannot be read: {error}")))?;
    let is_same = signed.org_id == org.to_bytes()
        && signed.id == id.as_bytes()
        && signed.version == u32::try_from(version).unwrap_or(0)
        && signed.sha256 == Sha256::digest(&saved.document)[..]
        && signed.created_at == saved.created_at.as_microsecond()
        && signed.author == saved.author
        && signed.author_id == saved.author_id;
    if is_same { Ok(()) } else { Err(refused("is not what its author saved".to_owned())) }
}

/// The newest version of what somebody wants to save a further one of.
#[derive(Debug)]
pub(super) struct Newest<'a> {
    pub version: i32,
    pub author: &'a str,
    pub comment: Option<&'a str>,
}

/// Checks that nobody has saved since the author looked.
///
/// # Errors
/// With who has.
pub(super) fn unless_moved_on(
    noun: &str,
    name: &str,
    expected: Option<i32>,
    before: Option<&Newest<'_>>,
) -> Result<()> {
    let newest = before.map_or(0, |before| before.version);
    match (expected, before) {
        (Some(expected), None) if expected != newest => Err(Error::Conflict(format!(
            "there is no {noun} '{name}', and version {expected} of it was expected"
        ))),
        (Some(expected), Some(Newest { version, author, comment })) if expected != newest => {
            let comment = comment.map(|text| format!(" ({text})")).unwrap_or_default();
            Err(Error::Conflict(format!(
                "the {noun} '{name}' is at version {version} by {author}{comment}, and version {expected} was expected: \
                 look at what changed and save again"
            )))
        }
        _ => Ok(()),
    }
}
