//! Jobs: saved as versions that never change, each signed when it is saved.
//!
//! Invariant: what runs is what an author saved: a version whose document does not match its signature starts nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{
    access::Permission,
    api::job::{Change, Danger, ExecuteJob, Job, SaveJob, SavedJob},
    id::JobId,
    job, limits,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, JobManage, JobRead, Right},
    dangers, scripts,
    versions::{self, Newest},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, audit, jobs::ToRun, versions::NewVersion},
};

/// Reads a document.
///
/// # Errors
/// [`Error::Document`] with the place of what is wrong.
pub(crate) fn parse(document: &str) -> Result<job::Job> {
    job::parse(document).map_err(Error::Document)
}

/// What of a job is dangerous, that of its saved scripts included. `document` is its text.
///
/// # Errors
/// [`Error::Document`] when it names a script that is not there, or that `by` may not see.
pub(crate) async fn dangers_of<P: Right>(
    app: &App,
    by: &Authorized<P>,
    job: &job::Job,
    document: &str,
) -> Result<Vec<Danger>> {
    let mut job = job.clone();
    scripts::fill_for(app, by, &mut job, document).await?;
    dangers::of_job(app, &job).await
}

/// Saves a job: a new one, or a further version of one. `key` is the id or name of the job that is meant; without it there
/// must be none.
///
/// # Errors
/// When the document is wrong, somebody else was faster, or the job is not among those that the right holds for.
pub(crate) async fn save(
    app: &App,
    by: &Authorized<JobManage>,
    key: Option<&str>,
    request: &SaveJob,
) -> Result<SavedJob> {
    request.validate()?;
    let job = parse(&request.document)?;
    may_manage(by, &job.labels)?;
    let dangers = dangers_of(app, by, &job, &request.document).await?;
    dangers::check(app, &dangers)?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let before = store::jobs::find(&mut tx, org, key.unwrap_or(&job.name), true).await?;
    if let Some(before) = &before {
        may_manage(by, &before.labels)?;
        if key.is_none() {
            return Err(Error::Conflict(format!(
                "the job '{}' is there already; save a version of it instead",
                job.name
            )));
        }
    }
    let named = before.as_ref().map(|job| job.name.as_str()).or(key);
    if let Some(named) = named
        && named != job.name
    {
        let problem = format!("is '{}', and the job that is saved is '{named}'", job.name);
        return Err(model::Invalid::new("name", problem).into());
    }
    let newest = before.as_ref().map_or(0, |job| job.version);
    let seen = before.as_ref().map(|job| Newest {
        version: job.version,
        author: &job.author,
        comment: job.comment.as_deref(),
    });
    versions::unless_moved_on(versions::JOB.noun, &job.name, request.expected_version, seen.as_ref())?;
    if let Some(before) = &before
        && before.document.as_deref() == Some(request.document.as_str())
    {
        let (name, id) = (before.name.clone(), Some(before.id));
        return Ok(SavedJob { change: Change::Unchanged, name, version: newest, id, dangers });
    }
    let change = if before.is_some() { Change::Updated } else { Change::Created };
    let version = newest + 1;
    unless_endless(&mut tx, by, &job).await?;
    if request.dry_run {
        return Ok(SavedJob { change, name: job.name, version, id: before.map(|job| job.id), dangers });
    }
    if before.is_none() && store::jobs::count(&mut tx, org).await? >= limits::JOBS {
        return Err(
            model::Invalid::over("name", "JOBS", usize::try_from(limits::JOBS).unwrap_or(0), "jobs").into()
        );
    }
    if i64::from(version) > limits::JOB_VERSIONS {
        let limit = usize::try_from(limits::JOB_VERSIONS).unwrap_or(0);
        return Err(model::Invalid::over("document", "JOB_VERSIONS", limit, "versions").into());
    }
    let id = before.as_ref().map_or_else(|| JobId::new(now, clock::entropy()), |job| job.id);
    write(app, &mut tx, by, (id, version), &job, request, now).await?;
    let verb = if before.is_some() { "job.update" } else { "job.create" };
    let detail = json!({
        "name": job.name, "version": version, "comment": request.comment, "labels": job.labels,
        "dangers": dangers.iter().map(|danger| &danger.rule).collect::<Vec<_>>(),
    });
    audit::record(&mut tx, org, now, by.entry(verb, format!("job/{id}"), detail)).await?;
    tx.commit().await.during("commit")?;
    Ok(SavedJob { change, name: job.name, version, id: Some(id), dangers })
}

async fn write(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<JobManage>,
    (id, version): (JobId, i32),
    job: &job::Job,
    request: &SaveJob,
    now: Timestamp,
) -> Result<()> {
    let sha256 = Sha256::digest(&request.document);
    let author_id = by.actor().subject.to_string();
    let signed = versions::sign(app, by, versions::JOB, (id.0, version), &request.document, now);
    let new = NewVersion {
        id: id.0,
        org_id: by.org_id(),
        version,
        document: &request.document,
        sha256: &sha256,
        comment: request.comment.as_deref(),
        author: &by.actor().name,
        author_id: &author_id,
        created_at: now,
        signed: &signed,
    };
    if version == 1 {
        store::jobs::insert(connection, &new, (&job.name, &job.description, &job.labels)).await
    } else {
        store::jobs::update(connection, &new, &job.description, &job.labels).await
    }
}

/// That no job that this one starts, and none that these start, starts this one. What is not there, or not to be read, is met
/// when it is started.
async fn unless_endless(
    connection: &mut PgConnection,
    by: &Authorized<JobManage>,
    job: &job::Job,
) -> Result<()> {
    let names = |job: &job::Job| job.started_names().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let mut open: Vec<Vec<String>> =
        names(job).into_iter().map(|name| vec![job.name.clone(), name]).collect();
    let mut seen = BTreeSet::new();
    let reading: Option<Authorized<JobRead>> = by.also().ok();
    while let Some(path) = open.pop() {
        let Some(last) = path.last() else { continue };
        if !seen.insert(last.clone()) || seen.len() > limits::JOBS_OF_A_START {
            continue;
        }
        let found = store::jobs::find(connection, by.org_id(), last, false).await?;
        let found = found.filter(|found| reading.as_ref().is_some_and(|by| by.reaches_job(&found.labels)));
        let Some(Ok(below)) = found.and_then(|found| found.document).as_deref().map(job::parse) else {
            continue;
        };
        for name in names(&below) {
            let mut path = path.clone();
            path.push(name.clone());
            if name == job.name {
                let why = format!("never ends: {}", path.join(" → "));
                return Err(model::Invalid::new("steps", why).into());
            }
            open.push(path);
        }
    }
    Ok(())
}

fn may_manage(by: &Authorized<JobManage>, labels: &model::label::Labels) -> Result<()> {
    if by.reaches_job(labels) {
        return Ok(());
    }
    Err(by.actor().refusal(Permission::JobManage, "theirs is for jobs with other labels"))
}

/// The job that has this id or name, if the right holds for it.
///
/// # Errors
/// That there is none.
pub(crate) async fn find<P: Right>(
    connection: &mut PgConnection,
    by: &Authorized<P>,
    key: &str,
    to_change: bool,
) -> Result<Job> {
    let job = store::jobs::find(connection, by.org_id(), key, to_change).await?;
    job.filter(|job| by.reaches_job(&job.labels)).ok_or_else(|| Error::not_found("job", key))
}

/// Deletes a job. What was started of it goes on, and its versions stay.
///
/// # Errors
/// When there is none.
pub(crate) async fn delete(app: &App, by: &Authorized<JobManage>, key: &str) -> Result<()> {
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let job = find(&mut tx, by, key, true).await?;
    store::jobs::delete(&mut tx, org, job.id, now).await?;
    let detail = json!({ "name": job.name, "version": job.version });
    audit::record(&mut tx, org, now, by.entry("job.delete", format!("job/{}", job.id), detail)).await?;
    tx.commit().await.during("commit")
}

/// The version that a start is about, as its author saved it.
///
/// # Errors
/// When there is no such job or version, or it is not what was signed.
pub(crate) async fn to_run(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<JobRead>,
    key: &str,
    request: &ExecuteJob,
) -> Result<(ToRun, job::Job)> {
    let found = store::jobs::to_run(connection, by.org_id(), key, request.version).await?;
    let Some(job) = found.filter(|job| by.reaches_job(&job.labels)) else {
        let job = find(connection, by, key, false).await?;
        let version = request.version.unwrap_or(job.version);
        return Err(Error::not_found("version of the job", version.to_string()));
    };
    versions::verify(app, by.org_id(), versions::JOB, job.id.0, &job.saved)?;
    let document = parse(&job.saved.document)?;
    // The job's own row is signed by nobody: it may not pass one job off as another, nor an old version as the newest.
    if document.name != job.name {
        return Err(Error::Tampered(format!("the job '{}' is saved as '{}'", job.name, document.name)));
    }
    let version = job.saved.version;
    if request.version.is_none() && job.newest != version {
        return Err(Error::Tampered(format!(
            "version {version} of the job '{}' is not its newest",
            job.name
        )));
    }
    Ok((job, document))
}
