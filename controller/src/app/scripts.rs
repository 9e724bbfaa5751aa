//! Scripts that are kept by name: saved as versions that never change, each signed when it is saved, and looked up by the jobs
//! that use them.
//!
//! Invariant: `NAME@VERSION` is one text for ever. Who takes the name of a script that was deleted goes on with its numbers.

use std::collections::HashMap;

use jiff::Timestamp;
use model::{
    Invalid,
    access::Permission,
    api::{
        job::Change,
        script::{SaveScript, SavedScript, ScriptSaved, ScriptVersion},
    },
    id::{OrgId, ScriptId},
    job::{Job, located},
    label::Labels,
    limits,
    script::{ScriptDocument, ScriptName},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, JobManage, Right},
    dangers,
    versions::{self, Newest},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, audit, versions::NewVersion},
};

/// Saves a script: a new one, or a further version of one. `key` is the id or name of the script that is meant; without it
/// there must be none.
///
/// # Errors
/// When a field is wrong, somebody else was faster, or the script is not among those that the right holds for.
pub(crate) async fn save(
    app: &App,
    by: &Authorized<JobManage>,
    key: Option<&str>,
    request: &SaveScript,
) -> Result<ScriptSaved> {
    request.validate()?;
    let script = &request.script;
    let name = script.name.clone();
    may_manage(by, &script.labels)?;
    let dangers = dangers::of_script(app, &name, script.program()).await?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let before = store::scripts::find(&mut tx, org, key.unwrap_or(&name), true).await?;
    if let Some(before) = &before {
        may_manage(by, &before.labels)?;
        if key.is_none() {
            let why = format!("the script '{name}' is there already; save a version of it instead");
            return Err(Error::Conflict(why));
        }
    }
    if let Some(named) = before.as_ref().map(|script| script.name.as_str()).or(key)
        && named != name
    {
        let problem = format!("is '{name}', and the script that is saved is '{named}'");
        return Err(Invalid::new("script.name", problem).into());
    }
    let seen = before.as_ref().map(|script| Newest {
        version: script.version,
        author: &script.author,
        comment: script.comment.as_deref(),
    });
    versions::unless_moved_on(versions::SCRIPT.noun, &name, request.expected_version, seen.as_ref())?;
    if let Some(before) = &before
        && before.script.as_ref() == Some(script)
    {
        let (version, id) = (before.version, Some(before.id));
        return Ok(ScriptSaved { change: Change::Unchanged, name, version, id, dangers });
    }
    let (change, newest) = match &before {
        Some(before) => (Change::Updated, before.version),
        None => (Change::Created, store::scripts::highest_version(&mut tx, org, &name).await?),
    };
    let version = newest + 1;
    if request.dry_run {
        return Ok(ScriptSaved { change, name, version, id: before.map(|script| script.id), dangers });
    }
    if before.is_none() && store::scripts::count(&mut tx, org).await? >= limits::SCRIPTS {
        return Err(over("script.name", "SCRIPTS", limits::SCRIPTS, "scripts"));
    }
    if i64::from(version) > limits::SCRIPT_VERSIONS {
        return Err(over("script", "SCRIPT_VERSIONS", limits::SCRIPT_VERSIONS, "versions"));
    }
    let id = before.as_ref().map_or_else(|| ScriptId::new(now, clock::entropy()), |script| script.id);
    let sha256 = write(app, &mut tx, by, (id, version, before.is_none()), request, now).await?;
    let verb = if before.is_some() { "script.update" } else { "script.create" };
    let detail = json!({
        "name": name, "version": version, "comment": request.comment, "labels": script.labels,
        "sha256": hex::encode(sha256),
        "dangers": dangers.iter().map(|danger| &danger.rule).collect::<Vec<_>>(),
    });
    audit::record(&mut tx, org, now, by.entry(verb, object(id), detail)).await?;
    tx.commit().await.during("commit")?;
    Ok(ScriptSaved { change, name, version, id: Some(id), dangers })
}

/// Writes a version, and answers the SHA-256 of its text.
async fn write(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<JobManage>,
    (id, version, is_new): (ScriptId, i32, bool),
    request: &SaveScript,
    now: Timestamp,
) -> Result<Vec<u8>> {
    let script = &request.script;
    let document =
        serde_json::to_string(script).map_err(|error| Error::internal("cannot write a script", error))?;
    let sha256 = Sha256::digest(&script.content).to_vec();
    let author_id = by.actor().subject.to_string();
    let signed = versions::sign(app, by, versions::SCRIPT, (id.0, version), &document, now);
    let new = NewVersion {
        id: id.0,
        org_id: by.org_id(),
        version,
        document: &document,
        sha256: &sha256,
        comment: request.comment.as_deref(),
        author: &by.actor().name,
        author_id: &author_id,
        created_at: now,
        signed: &signed,
    };
    if is_new {
        let row = (script.name.as_str(), script.description.as_str(), &script.labels);
        store::scripts::insert(connection, &new, row).await?;
    } else {
        store::scripts::update(connection, &new, &script.description, &script.labels).await?;
    }
    Ok(sha256)
}

fn may_manage(by: &Authorized<JobManage>, labels: &Labels) -> Result<()> {
    if by.reaches_job(labels) {
        return Ok(());
    }
    Err(by.actor().refusal(Permission::JobManage, "theirs is for jobs and scripts with other labels"))
}

/// The script that has this id or name, with its newest version, if the right holds for it.
///
/// # Errors
/// That there is none.
pub(crate) async fn find<P: Right>(
    connection: &mut PgConnection,
    by: &Authorized<P>,
    key: &str,
    to_change: bool,
) -> Result<SavedScript> {
    let script = store::scripts::find(connection, by.org_id(), key, to_change).await?;
    script.filter(|script| by.reaches_job(&script.labels)).ok_or_else(|| Error::not_found("script", key))
}

/// One version of a script.
///
/// # Errors
/// That there is none.
pub(crate) async fn version<P: Right>(
    connection: &mut PgConnection,
    by: &Authorized<P>,
    key: &str,
    number: &str,
) -> Result<ScriptVersion> {
    let script = find(connection, by, key, false).await?;
    let unknown = || Error::not_found("version of the script", number);
    let number: i32 = number.parse().map_err(|_| unknown())?;
    let saved = store::scripts::version(connection, by.org_id(), script.id, number).await?;
    saved.ok_or_else(unknown)?.try_into()
}

/// Deletes a script. Jobs that use it say so at their next start; what was started goes on.
///
/// # Errors
/// When there is none.
pub(crate) async fn delete(app: &App, by: &Authorized<JobManage>, key: &str) -> Result<()> {
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let script = find(&mut tx, by, key, true).await?;
    store::scripts::delete(&mut tx, org, script.id, now).await?;
    let detail = json!({ "name": script.name, "version": script.version });
    audit::record(&mut tx, org, now, by.entry("script.delete", object(script.id), detail)).await?;
    tx.commit().await.during("commit")
}

/// Fills the saved scripts of a job in that is started. Who uses which was decided when the job was saved.
///
/// # Errors
/// When one is not there, is not what its author saved, or they are too large together.
pub(super) async fn fill(app: &App, connection: &mut PgConnection, org: OrgId, job: &mut Job) -> Result<()> {
    fill_with(app, connection, org, job, &|_| true).await.map_err(|missing| missing.error)
}

/// Fills the saved scripts of a job in that is only looked at: those that `by` may see.
///
/// # Errors
/// [`Error::Document`] at the place of a script that is not there or not seen, and as the start of the job.
pub(super) async fn fill_for<P: Right>(
    app: &App,
    by: &Authorized<P>,
    job: &mut Job,
    document: &str,
) -> Result<()> {
    if job.saved_scripts().next().is_none() {
        return Ok(());
    }
    let mut connection = app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    let seen = |labels: &Labels| by.actor().reaches_job(Permission::JobRead, labels);
    let filled = fill_with(app, &mut connection, by.org_id(), job, &seen).await;
    filled.map_err(|Unfilled { path, error }| match error {
        Error::NotFound { noun, name } => Error::Document(located(
            document,
            Invalid::new(path, format!("is '{name}', and there is no such {noun}")),
        )),
        error => error,
    })
}

/// A script that cannot be filled in, with its path in the document.
struct Unfilled {
    path: String,
    error: Error,
}

async fn fill_with(
    app: &App,
    connection: &mut PgConnection,
    org: OrgId,
    job: &mut Job,
    seen: &(dyn Fn(&Labels) -> bool + Sync),
) -> Result<(), Unfilled> {
    let mut known: HashMap<String, (ScriptDocument, i32)> = HashMap::new();
    let mut bytes = 0;
    for (path, script) in job.saved_scripts() {
        let named = script.used.clone().unwrap_or_default();
        if !known.contains_key(&named) {
            match look_up(app, connection, org, &named, seen).await {
                Ok(found) => drop(known.insert(named.clone(), found)),
                Err(error) => return Err(Unfilled { path, error }),
            }
        }
        let (document, version) = &known[&named];
        bytes += document.content.len();
        if bytes > limits::PLAN_SCRIPT_BYTES {
            let limit = limits::PLAN_SCRIPT_BYTES;
            let over = Invalid::over(path.clone(), "PLAN_SCRIPT_BYTES", limit, "bytes of scripts in all");
            return Err(Unfilled { path, error: over.into() });
        }
        script.fill(document, *version);
    }
    Ok(())
}

/// The version that a job means, as its author saved it.
async fn look_up(
    app: &App,
    connection: &mut PgConnection,
    org: OrgId,
    named: &str,
    seen: &(dyn Fn(&Labels) -> bool + Sync),
) -> Result<(ScriptDocument, i32)> {
    let unknown = || Error::not_found("script", named);
    let ScriptName { name, version } = named.parse()?;
    let script = store::scripts::find(connection, org, &name, false).await?;
    let script = script.filter(|script| script.name == name && seen(&script.labels)).ok_or_else(unknown)?;
    let number = version.unwrap_or(script.version);
    let saved = store::scripts::version(connection, org, script.id, number).await?.ok_or_else(unknown)?;
    versions::verify(app, org, versions::SCRIPT, script.id.0, &saved)?;
    let saved = ScriptVersion::try_from(saved)?;
    let document = saved.script.ok_or_else(unknown)?;
    // The script's own row is signed by nobody: it may not pass one script off as another, nor an old version as the newest.
    if document.name != name {
        return Err(Error::Tampered(format!("the script '{name}' is saved as '{}'", document.name)));
    }
    if version.is_none() && store::scripts::newest_version(connection, org, script.id).await? != Some(number)
    {
        return Err(Error::Tampered(format!("version {number} of the script '{name}' is not its newest")));
    }
    Ok((document, number))
}

fn over(field: &str, limit: &str, most: i64, what: &str) -> Error {
    Invalid::over(field, limit, usize::try_from(most).unwrap_or(0), what).into()
}

fn object(id: ScriptId) -> String {
    format!("script/{id}")
}
