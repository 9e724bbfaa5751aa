//! Organizations: making them.

use model::{
    access::validate_slug,
    api::auth::{CreateOrganization, Organization},
    id::OrgId,
};
use serde_json::json;

use super::{
    App,
    access::{Authorized, OrganizationManage},
    setup,
};
use crate::{
    clock,
    error::{During, Result},
    store::{self, audit},
};

/// Makes an organization; who does is its first member and administrator. The entry is in the audit of both.
///
/// # Errors
/// When the name is wrong or taken.
pub(crate) async fn create(
    app: &App,
    by: &Authorized<OrganizationManage>,
    request: &CreateOrganization,
) -> Result<Organization> {
    validate_slug("name", &request.name)?;
    let (user, _) = by.session()?;
    let now = clock::now();
    let id = OrgId::new(now, clock::entropy());
    let mut tx = app.db.worker().begin().await.during("begin")?;
    store::organizations::insert(&mut tx, id, &request.name, now).await?;
    setup::make_administrator(&mut tx, id, user, &by.actor().name, now).await?;
    let detail = json!({ "name": request.name });
    let entry = || by.entry("organization.create", format!("organization/{id}"), detail.clone());
    audit::record_all(&mut tx, now, vec![(by.org_id(), entry()), (id, entry())]).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(Organization { id, name: request.name.clone(), is_home: false, members: 1, created_at: now })
}
