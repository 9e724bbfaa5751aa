//! The first start and every other one: the installation, its authority, the token that sets it up, and the `App`.
//!
//! The first start takes an advisory lock, so that two controllers never make two authorities: the one that comes second
//! leaves nothing in its data folder and is told to join. What the files say and what the database says must be of the
//! same installation.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use model::id::ControllerId;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::{
    App, Installation, access, access_keys, audit, authenticate, ca, clocks, dangers, egress, heeded,
    host_metrics, http_calls, live, manifest, oidc, output, parts, passwords, runs, script_checks, sessions,
    setup, wake,
};
use crate::{
    clock,
    config::{self, Timing},
    store,
};

/// What the configuration says that the verbs need.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub agent_port: u16,
    pub announce: Option<String>,
    pub certificate_life: Duration,
    pub dispatch_key_life: Duration,
    /// Another controller can use the database too.
    pub is_shared: bool,
    /// Everybody may become a member of the home organization.
    pub registration: bool,
    pub proxies: config::Proxies,
    pub providers: oidc::Providers,
    pub timing: Timing,
    pub audit: config::Audit,
    pub safety: config::Safety,
    pub egress: egress::Egress,
}

/// The data folder and the database are not of the same installation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Foreign {
    #[error(
        "the database belongs to the installation '{domain}', of which {} has no keys: to make this another controller \
         of it, get a token with 'opsctl controller join-token' and run 'opsconductor-controller join'; or start with \
         that installation's data folder",
        folder.display()
    )]
    NotJoined { folder: PathBuf, domain: String },
    #[error(
        "the certificate authority in {} is that of the installation '{own}', the database belongs to '{domain}': \
         start with that installation's data folder, or with another database",
        folder.display()
    )]
    Another { folder: PathBuf, own: String, domain: String },
}

const CONTROLLER_ID_FILE: &str = "controller-id";

/// Opens the installation in `data` and the database, making both whole if this is the first start.
///
/// # Errors
/// When files or database cannot be used, or are not of the same installation.
pub(crate) async fn open(options: PgConnectOptions, data: &Path, boot: Boot) -> anyhow::Result<Arc<App>> {
    ca::private_folder(data)?;
    let now = clock::now();
    let mut connection =
        PgConnection::connect_with(&options).await.context("cannot connect to the database")?;
    first_start(&mut connection, data).await?;
    connection.close().await.context("cannot close the first connection")?;

    let controller_id = controller_id(data)?;
    let ca = ca::Ca::open(data, controller_id, boot.dispatch_key_life, now)?;
    let app = App {
        info: Installation {
            controller_id,
            trust_domain: ca.authority().trust_domain().into(),
            root_pin: ca.authority().root_pin(),
            agent_port: boot.agent_port,
            announce: boot.announce,
            certificate_life: boot.certificate_life,
            dispatch_key_life: boot.dispatch_key_life,
            is_shared: boot.is_shared,
            registration: boot.registration,
            proxies: boot.proxies,
            setup_token: data.join(setup::TOKEN_FILE),
            timing: boot.timing,
            audit: boot.audit,
            safety: boot.safety,
            started_at: now,
        },
        db: store::Db::new(options, boot.timing.lease),
        ca,
        sessions: sessions::Sessions::default(),
        live: live::Live::default(),
        wake: wake::Wake::default(),
        parts: parts::Parts::default(),
        reports: runs::Reports::new(),
        chunks: output::Chunks::new(),
        samples: host_metrics::Samples::new(),
        manifests: manifest::Cache::default(),
        calendars: heeded::Cache::default(),
        known: access::Known::default(),
        lookups: authenticate::Lookups::default(),
        access_keys: access_keys::AccessKeys::default(),
        passwords: passwords::Passwords::default(),
        egress: boot.egress,
        http_calls: http_calls::Calls::default(),
        reviews: dangers::Reviews::default(),
        script_checks: script_checks::Places::default(),
        providers: boot.providers,
        audit: audit::Newest::default(),
        alarms: audit::Alarms::default(),
    };
    clocks::agree(app.db.worker(), controller_id, boot.timing.lease).await?;
    let left = store::sessions::close_all_of(app.db.worker(), controller_id, now).await?;
    if left > 0 {
        tracing::info!(sessions = left, "closed the sessions that an earlier process left open");
    }
    if store::events::adopt(app.db.worker()).await? > 0 {
        tracing::warn!("the database has events of another cluster; who follows them may begin anew");
    }
    Ok(Arc::new(app))
}

/// Gives the lease back, so that other controllers need not wait for its end, and closes every connection.
pub(crate) async fn close(app: &App) {
    if let Err(error) = store::controllers::end_lease(app.db.worker(), app.info.controller_id).await {
        tracing::warn!(%error, "the lease was not given back; it will run out");
    }
    app.db.close().await;
}

/// This controller's id, kept in a file.
fn controller_id(data: &Path) -> anyhow::Result<ControllerId> {
    let path = data.join(CONTROLLER_ID_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = ControllerId::new(clock::now(), clock::entropy());
            keep_controller_id(data, id)?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes the controller's id where every start reads it.
pub(crate) fn keep_controller_id(data: &Path, id: ControllerId) -> anyhow::Result<()> {
    Ok(ca::write_private(&data.join(CONTROLLER_ID_FILE), id.to_string().as_bytes())?)
}

async fn first_start(connection: &mut PgConnection, data: &Path) -> anyhow::Result<()> {
    let now = clock::now();
    let mut tx = connection.begin().await.context("cannot begin the first transaction")?;
    store::installation::lock(&mut tx).await?;
    if let Some(installation) = store::installation::get(&mut tx).await? {
        belongs(data, &installation)?;
        let token = setup::offer(&mut tx, data, &installation, now).await?;
        tx.commit().await.context("cannot commit the setup token")?;
        if let Some(token) = token {
            setup::announce(&token, data);
        }
        return Ok(());
    }

    if !ca::exists(data) {
        let trust_domain = format!("opsc-{}", hex::encode(pki::random::<6>()));
        ca::create(data, &trust_domain, now)?;
    }
    let authority = ca::read(data)?;
    store::installation::insert(&mut tx, authority.trust_domain(), &authority.root_pin(), now).await?;
    let installation = store::installation::Installation {
        trust_domain: authority.trust_domain().to_owned(),
        root_pin: authority.root_pin().to_vec(),
        home_org_id: None,
        setup_token_hash: None,
    };
    let token = setup::offer(&mut tx, data, &installation, now).await?;
    tx.commit().await.context("cannot commit the first start")?;
    tracing::info!(trust_domain = authority.trust_domain(), "this is a new installation");
    if let Some(token) = token {
        setup::announce(&token, data);
    }
    Ok(())
}

/// The authority in the data folder must be the one of the database.
fn belongs(data: &Path, installation: &store::installation::Installation) -> anyhow::Result<()> {
    let (folder, domain) = (data.to_owned(), installation.trust_domain.clone());
    if !ca::exists(data) {
        return Err(Foreign::NotJoined { folder, domain }.into());
    }
    let authority = ca::read(data)?;
    if authority.root_pin()[..] != installation.root_pin[..] {
        return Err(Foreign::Another { folder, own: authority.trust_domain().to_owned(), domain }.into());
    }
    Ok(())
}
