//! Roles, groups, and who has which role.

use model::{
    Invalid,
    access::{BuiltInRole, Permissions, validate_slug},
    api::{
        role::{CreateRoleBinding, PutRole, Role, RoleBinding},
        user::CreateGroup,
    },
    id::{GroupId, OrgId, RoleBindingId, RoleId},
    limits,
};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, RoleManage},
    authenticate,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self, audit,
        role_bindings::{Holder, NewBinding},
    },
};

/// What a role of the organization allows. The row of one that is not built in is locked until the transaction ends.
///
/// # Errors
/// When there is no such role.
pub(crate) async fn permissions(tx: &mut PgConnection, org: OrgId, role: &str) -> Result<Permissions> {
    if let Some(role) = BuiltInRole::parse(role) {
        return Ok(role.permissions());
    }
    let names = store::roles::lock(tx, org, role).await?;
    names.map(Permissions::of_names).ok_or_else(|| Error::not_found("role", role))
}

/// The built-in roles and the organization's own.
pub(crate) async fn list(app: &App, org: OrgId) -> Result<Vec<Role>> {
    let built_in = BuiltInRole::ALL.into_iter().map(|role| Role {
        name: role.as_str().to_owned(),
        permissions: role.permissions().iter().collect(),
        built_in: true,
    });
    let own = store::roles::list(&app.db.of(org), org).await?.into_iter().map(|role| Role {
        name: role.name,
        permissions: Permissions::of_names(role.permissions).iter().collect(),
        built_in: false,
    });
    Ok(built_in.chain(own).collect())
}

/// Makes a role, or gives one other permissions. Nobody puts into a role, or takes away with one, what he does not have.
///
/// # Errors
/// When a field is wrong, there are too many, or a permission is not the caller's.
pub(crate) async fn put(
    app: &App,
    by: &Authorized<RoleManage>,
    name: &str,
    request: &PutRole,
) -> Result<Role> {
    request.validate(name)?;
    let wanted: Permissions = request.permissions.iter().copied().collect();
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    let before = store::roles::lock(&mut tx, by.org_id(), name).await?;
    by.may_give(wanted.union(before.as_ref().map(Permissions::of_names).unwrap_or_default()))?;
    if before.is_none() && store::roles::count(&mut tx, by.org_id()).await? >= limits::ROLES {
        return Err(too_many("roles", "ROLES", limits::ROLES));
    }
    let names: Vec<String> = wanted.iter().map(|permission| permission.as_str().to_owned()).collect();
    let id = RoleId::new(now, clock::entropy());
    store::roles::put(&mut tx, by.org_id(), id, name, &names, &by.actor().name, now).await?;
    let detail = json!({ "before": before, "after": names });
    audit::record(&mut tx, by.org_id(), now, by.entry("role.put", format!("role/{name}"), detail)).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(Role { name: name.to_owned(), permissions: wanted.iter().collect(), built_in: false })
}

/// Deletes a role that nobody has.
///
/// # Errors
/// When there is none, it is built in, or bindings give it.
pub(crate) async fn delete(app: &App, by: &Authorized<RoleManage>, name: &str) -> Result<()> {
    if BuiltInRole::parse(name).is_some() {
        return Err(Error::Conflict(format!("'{name}' is a built-in role, which cannot be deleted")));
    }
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    let before = store::roles::lock(&mut tx, by.org_id(), name).await?;
    let before = before.ok_or_else(|| Error::not_found("role", name))?;
    by.may_give(Permissions::of_names(&before))?;
    let bindings = store::role_bindings::of_role(&mut tx, by.org_id(), name).await?;
    if bindings > 0 {
        return Err(Error::Conflict(format!(
            "the role '{name}' is given by {bindings} bindings; delete them first"
        )));
    }
    store::roles::delete(&mut tx, by.org_id(), name).await?;
    let entry = by.entry("role.delete", format!("role/{name}"), json!({ "before": before }));
    audit::record(&mut tx, by.org_id(), now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// Gives a role to somebody. Nobody gives what he does not have for the whole organization.
///
/// # Errors
/// When a field is wrong, one of the names is unknown, it is given already, or there are too many.
pub(crate) async fn bind(
    app: &App,
    by: &Authorized<RoleManage>,
    mut request: CreateRoleBinding,
) -> Result<RoleBinding> {
    request.validate()?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    by.may_give(permissions(&mut tx, org, &request.role).await?)?;
    if store::role_bindings::count(&mut tx, org).await? >= limits::ROLE_BINDINGS {
        return Err(too_many("role bindings", "ROLE_BINDINGS", limits::ROLE_BINDINGS));
    }
    let holder = if let Some(name) = &request.user {
        let found = store::users::find_member(&mut tx, org, &name.trim().to_ascii_lowercase()).await?;
        Holder::User(found.ok_or_else(|| Error::not_found("user", name))?)
    } else if let Some(name) = &request.group {
        Holder::Group(group(&mut tx, org, name).await?)
    } else {
        let name = request.service_account.as_deref().unwrap_or_default();
        let found = store::service_accounts::find(&mut tx, org, name).await?;
        Holder::ServiceAccount(found.ok_or_else(|| Error::not_found("service account", name))?)
    };
    let id = RoleBindingId::new(now, clock::entropy());
    let new = NewBinding {
        id,
        org_id: org,
        role: &request.role,
        holder,
        hosts: request.hosts.as_deref(),
        jobs: request.jobs.as_deref(),
        created_at: now,
        created_by: &by.actor().name,
    };
    store::role_bindings::insert(&mut tx, &new).await?;
    let entry = by.entry("role_binding.create", format!("role-binding/{id}"), json!({ "after": request }));
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    let CreateRoleBinding { role, user, group, service_account, hosts, jobs } = request;
    let created_by = by.actor().name.clone();
    Ok(RoleBinding { id, role, user, group, service_account, hosts, jobs, created_at: now, created_by })
}

/// Takes what a binding gives away again.
///
/// # Errors
/// When there is none of this id, it gives what the caller does not have, or no administrator would be left.
pub(crate) async fn unbind(app: &App, by: &Authorized<RoleManage>, id: RoleBindingId) -> Result<()> {
    let (org, now) = (by.org_id(), clock::now());
    let found = store::role_bindings::page(&app.db.of(org), org, Some(id), None, 1).await?.pop();
    let before = found.ok_or_else(|| Error::not_found("role binding", id.to_string()))?;
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    // A role that was deleted meanwhile gives nothing.
    match permissions(&mut tx, org, &before.role).await {
        Ok(given) => by.may_give(given)?,
        Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    if before.role == BuiltInRole::Administrator.as_str()
        && store::role_bindings::administrators(&mut tx, org, Some(id), None).await? == 0
    {
        return Err(Error::Conflict(
            "this gives the last administrator of this organization the role".to_owned(),
        ));
    }
    if !store::role_bindings::delete(&mut tx, org, id).await? {
        return Err(Error::not_found("role binding", id.to_string()));
    }
    let entry = by.entry("role_binding.delete", format!("role-binding/{id}"), json!({ "before": before }));
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// Makes a group without members.
///
/// # Errors
/// When the name is wrong or taken, or there are too many.
pub(crate) async fn create_group(
    app: &App,
    by: &Authorized<RoleManage>,
    request: &CreateGroup,
) -> Result<GroupId> {
    validate_slug("name", &request.name)?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    if store::groups::count(&mut tx, org).await? >= limits::GROUPS {
        return Err(too_many("groups", "GROUPS", limits::GROUPS));
    }
    let id = GroupId::new(now, clock::entropy());
    store::groups::insert(&mut tx, org, id, &request.name, &by.actor().name, now).await?;
    let entry = by.entry("group.create", format!("group/{id}"), json!({ "name": request.name }));
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    Ok(id)
}

/// Deletes a group, and what was given to its members through it.
///
/// # Errors
/// When there is none, or it gives what the caller does not have.
pub(crate) async fn delete_group(app: &App, by: &Authorized<RoleManage>, name: &str) -> Result<()> {
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let id = may_change(&mut tx, by, name).await?;
    let administrators = store::role_bindings::administrators(&mut tx, org, None, None).await?;
    store::groups::delete(&mut tx, org, id).await?;
    unless_the_last(&mut tx, org, administrators).await?;
    let entry = by.entry("group.delete", format!("group/{id}"), json!({ "name": name }));
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// Makes somebody a member of a group, or ends that.
///
/// # Errors
/// When group or person are unknown, or the group gives what the caller does not have.
pub(crate) async fn set_member(
    app: &App,
    by: &Authorized<RoleManage>,
    name: &str,
    user: &str,
    is_member: bool,
) -> Result<()> {
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let id = may_change(&mut tx, by, name).await?;
    let found = store::users::find_member(&mut tx, org, user).await?;
    let member = found.ok_or_else(|| Error::not_found("user", user))?;
    let administrators = store::role_bindings::administrators(&mut tx, org, None, None).await?;
    let changed = if is_member {
        store::groups::add(&mut tx, org, id, member).await?
    } else {
        store::groups::remove(&mut tx, org, id, member).await?
    };
    if changed {
        unless_the_last(&mut tx, org, administrators).await?;
        let verb = if is_member { "group.member.add" } else { "group.member.remove" };
        let entry = by.entry(verb, format!("group/{id}"), json!({ "group": name, "user": user }));
        audit::record(&mut tx, org, now, entry).await?;
        tx.commit().await.during("commit")?;
        app.known.forget();
    }
    Ok(())
}

/// An organization that had an administrator must have one afterwards.
async fn unless_the_last(tx: &mut PgConnection, org: OrgId, before: i64) -> Result<()> {
    if before > 0 && store::role_bindings::administrators(tx, org, None, None).await? == 0 {
        return Err(Error::Conflict("no administrator of this organization would be left".to_owned()));
    }
    Ok(())
}

/// Whoever changes who is in a group gives, or takes, what the group has.
async fn may_change(tx: &mut PgConnection, by: &Authorized<RoleManage>, name: &str) -> Result<GroupId> {
    let id = group(tx, by.org_id(), name).await?;
    let held = authenticate::grants(store::role_bindings::of_group(tx, by.org_id(), id).await?);
    by.may_give(held.iter().fold(Permissions::NONE, |all, grant| all.union(grant.permissions)))?;
    Ok(id)
}

async fn group(tx: &mut PgConnection, org: OrgId, name: &str) -> Result<GroupId> {
    store::groups::find(tx, org, name).await?.ok_or_else(|| Error::not_found("group", name))
}

fn too_many(what: &'static str, limit: &str, most: i64) -> Error {
    Invalid::new(what, format!("are as many as can be: the limit {limit} is {most}")).into()
}
