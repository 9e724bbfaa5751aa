//! Job templates: documents that an organization makes its jobs of, beside those that are part of the program.
//!
//! A template gives no right and starts nothing: a job that is made of one is saved by somebody who may save jobs.

use model::{
    Invalid,
    access::Permission,
    api::{
        job::Change,
        job_template::{FillJobTemplate, FilledJobTemplate, JobTemplate, JobTemplateSaved, SaveJobTemplate},
    },
    id::JobTemplateId,
    job_template::{Template, built_in, built_ins, parse},
    limits,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, JobManage, JobRead},
    versions::{self, Newest},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self, audit,
        job_templates::{Found, Saved},
    },
};

const NOUN: &str = "job template";

/// Saves a template. `key` is the name of the one that is meant, which is made where there is none; without it there must be
/// none.
///
/// # Errors
/// When the document is wrong, its name is taken, somebody else was faster, or there are too many.
pub(crate) async fn save(
    app: &App,
    by: &Authorized<JobManage>,
    key: Option<&str>,
    request: &SaveJobTemplate,
) -> Result<JobTemplateSaved> {
    may_manage(by)?;
    unless_built_in(key)?;
    let template = parse(&request.document).map_err(Error::Document)?;
    let name = template.name.as_str();
    if let Some(key) = key
        && key != name
    {
        let problem = format!("is '{name}', and the template that is saved is '{key}'");
        return Err(Invalid::new("name", problem).into());
    }
    unless_built_in(Some(name))?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let before = store::job_templates::find(&mut tx, org, name, true).await?;
    if before.is_some() && key.is_none() {
        let why = format!("the {NOUN} '{name}' is there already; save a version of it instead");
        return Err(Error::Conflict(why));
    }
    let seen = before.as_ref().map(|before| Newest {
        version: before.version,
        author: &before.updated_by,
        comment: None,
    });
    versions::unless_moved_on(NOUN, name, request.expected_version, seen.as_ref())?;
    let mut new = Saved {
        id: JobTemplateId::new(now, clock::entropy()),
        org_id: org,
        name,
        description: &template.description,
        document: &request.document,
        version: 1,
        at: now,
        by: &by.actor().name,
    };
    let change = match &before {
        Some(Found { id, version, document, .. }) if *document == request.document => {
            let (id, version) = (*id, *version);
            return Ok(JobTemplateSaved { change: Change::Unchanged, id, name: name.to_owned(), version });
        }
        Some(before) => {
            (new.id, new.version) = (before.id, before.version + 1);
            store::job_templates::update(&mut tx, &new).await?;
            Change::Updated
        }
        None => {
            if store::job_templates::count(&mut tx, org).await? >= limits::JOB_TEMPLATES {
                let most = usize::try_from(limits::JOB_TEMPLATES).unwrap_or(0);
                return Err(Invalid::over("name", "JOB_TEMPLATES", most, "job templates").into());
            }
            store::job_templates::insert(&mut tx, &new).await?;
            Change::Created
        }
    };
    let verb = if before.is_some() { "job_template.update" } else { "job_template.create" };
    let detail = json!({
        "name": name, "version": new.version, "sha256": sha256(&request.document),
        "before": before.as_ref().map(|before| sha256(&before.document)),
    });
    audit::record(&mut tx, org, now, by.entry(verb, object(new.id), detail)).await?;
    tx.commit().await.during("commit")?;
    Ok(JobTemplateSaved { change, id: new.id, name: name.to_owned(), version: new.version })
}

/// Deletes a template. Jobs that were made of it do not notice.
///
/// # Errors
/// When there is none, or it is part of the program.
pub(crate) async fn delete(app: &App, by: &Authorized<JobManage>, name: &str) -> Result<()> {
    may_manage(by)?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let Some(before) = store::job_templates::find(&mut tx, org, name, true).await? else {
        unless_built_in(Some(name))?;
        return Err(Error::not_found(NOUN, name));
    };
    store::job_templates::delete(&mut tx, org, before.id).await?;
    let detail =
        json!({ "name": before.name, "version": before.version, "before": sha256(&before.document) });
    audit::record(&mut tx, org, now, by.entry("job_template.delete", object(before.id), detail)).await?;
    tx.commit().await.during("commit")
}

/// By name, from behind `after`: the organization's own and those that are part of the program.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn page(
    app: &App,
    by: &Authorized<JobRead>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<JobTemplate>> {
    let pool = app.db.of(by.org_id());
    let mut all = store::job_templates::page(&pool, by.org_id(), after, limit).await?;
    let behind = |template: &&Template| after.is_none_or(|after| template.name.as_str() > after);
    all.extend(built_ins().iter().filter(behind).map(JobTemplate::built_in));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(all)
}

/// One template with its document.
///
/// # Errors
/// When there is none.
pub(crate) async fn show(app: &App, by: &Authorized<JobRead>, name: &str) -> Result<JobTemplate> {
    let (shown, template) = find(app, by, name).await?;
    Ok(shown.whole(&template))
}

/// What a job of a template would be; nothing is saved.
///
/// # Errors
/// When there is no such template, a value is missing or wrong, or what comes out is no job.
pub(crate) async fn fill(
    app: &App,
    by: &Authorized<JobRead>,
    name: &str,
    request: &FillJobTemplate,
) -> Result<FilledJobTemplate> {
    let (_, template) = find(app, by, name).await?;
    Ok(template.fill(&request.parameters)?.into())
}

async fn find(app: &App, by: &Authorized<JobRead>, name: &str) -> Result<(JobTemplate, Template)> {
    if let Some(template) = built_in(name) {
        return Ok((JobTemplate::built_in(template), template.clone()));
    }
    let mut connection = app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    let found = own(&mut connection, by, name).await?;
    let template = parse(&found.document).map_err(Error::Document)?;
    Ok((found.shown, template))
}

async fn own(connection: &mut PgConnection, by: &Authorized<JobRead>, name: &str) -> Result<Found> {
    let found = store::job_templates::find(connection, by.org_id(), name, false).await?;
    found.ok_or_else(|| Error::not_found(NOUN, name))
}

/// Templates have no labels: they are for all jobs.
fn may_manage(by: &Authorized<JobManage>) -> Result<()> {
    if by.actor().unconfined().contains(Permission::JobManage) {
        return Ok(());
    }
    Err(by.actor().refusal(Permission::JobManage, "job templates are for all jobs, and theirs is for some"))
}

fn unless_built_in(name: Option<&str>) -> Result<()> {
    match name.and_then(built_in) {
        Some(template) => Err(Error::Conflict(format!(
            "the {NOUN} '{}' is part of the program, which nobody changes: give yours another name",
            template.name
        ))),
        None => Ok(()),
    }
}

fn sha256(document: &str) -> String {
    hex::encode(Sha256::digest(document))
}

fn object(id: JobTemplateId) -> String {
    format!("job-template/{id}")
}
