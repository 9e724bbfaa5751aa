//! The first start and every other one: the installation, its authority, the administrator's token, and the `App`.
//!
//! The first start takes an advisory lock, so that two controllers never make two authorities. What the files say and
//! what the database says must be of the same installation.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use model::id::{ApiTokenId, ControllerId, OrgId, uuid_v7};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::{App, Installation, ca, host_metrics, live, manifest, output, parts, runs, sessions, wake};
use crate::{clock, config::Timing, store};

/// What the configuration says that the verbs need.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub agent_port: u16,
    pub certificate_life: Duration,
    pub timing: Timing,
}

/// The file in the data folder that the administrator's token is written into, once.
pub(crate) const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Opens the installation in `data` and the database, making both whole if this is the first start.
///
/// # Errors
/// When files or database cannot be used, or are not of the same installation.
pub(crate) async fn open(options: PgConnectOptions, data: &Path, boot: Boot) -> anyhow::Result<Arc<App>> {
    ca::private_folder(data)?;
    let now = clock::now();
    let controller_id = controller_id(data)?;
    let mut connection =
        PgConnection::connect_with(&options).await.context("cannot connect to the database")?;
    first_start(&mut connection, data).await?;
    connection.close().await.context("cannot close the first connection")?;

    let ca = ca::Ca::open(data, controller_id, now)?;
    let app = App {
        info: Installation {
            controller_id,
            trust_domain: ca.authority().trust_domain().into(),
            root_pin: ca.authority().root_pin(),
            agent_port: boot.agent_port,
            certificate_life: boot.certificate_life,
            timing: boot.timing,
            started_at: now,
        },
        db: store::Db::new(options),
        ca,
        sessions: sessions::Sessions::default(),
        live: live::Live::default(),
        wake: wake::Wake::default(),
        parts: parts::Parts::default(),
        reports: runs::Reports::new(),
        chunks: output::Chunks::new(),
        samples: host_metrics::Samples::new(),
        manifests: manifest::Cache::default(),
    };
    let left = store::sessions::close_all_of(app.db.worker(), controller_id, now).await?;
    if left > 0 {
        tracing::info!(sessions = left, "closed the sessions that an earlier process left open");
    }
    Ok(Arc::new(app))
}

/// Gives the lease back, so that other controllers need not wait for its end, and closes every connection.
pub(crate) async fn close(app: &App) {
    if let Err(error) =
        store::controllers::end_lease(app.db.worker(), app.info.controller_id, clock::now()).await
    {
        tracing::warn!(%error, "the lease was not given back; it will run out");
    }
    app.db.close().await;
}

/// This controller's id, kept in a file.
fn controller_id(data: &Path) -> anyhow::Result<ControllerId> {
    let path = data.join("controller-id");
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = ControllerId::new(clock::now(), clock::entropy());
            ca::write_private(&path, id.to_string().as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

async fn first_start(connection: &mut PgConnection, data: &Path) -> anyhow::Result<()> {
    let now = clock::now();
    let mut tx = connection.begin().await.context("cannot begin the first transaction")?;
    store::installation::lock(&mut tx).await?;
    if let Some(installation) = store::installation::get(&mut tx).await? {
        ensure!(
            ca::exists(data),
            "the database belongs to the installation '{}', but {} has no certificate authority: \
             start with that installation's data folder",
            installation.trust_domain,
            data.display()
        );
        let ca = ca::Ca::open(data, ControllerId(uuid::Uuid::nil()), now)?;
        if ca.authority().root_pin()[..] != installation.root_pin[..] {
            bail!(
                "the certificate authority in {} ('{}') is not the one of the database ('{}')",
                data.display(),
                ca.authority().trust_domain(),
                installation.trust_domain
            );
        }
        return Ok(());
    }

    if !ca::exists(data) {
        let trust_domain = format!("opsc-{}", hex::encode(pki::random::<6>()));
        ca::create(data, &trust_domain, now)?;
    }
    let ca = ca::Ca::open(data, ControllerId(uuid::Uuid::nil()), now)?;
    let authority = ca.authority();
    store::installation::insert(&mut tx, authority.trust_domain(), &authority.root_pin(), now).await?;
    let org = OrgId(uuid_v7(now, clock::entropy()));
    store::installation::insert_organization(&mut tx, org, "default", now).await?;
    let token =
        pki::token::ApiToken { id: ApiTokenId::new(now, clock::entropy()), secret: pki::random().into() };
    let hash = pki::token::hash_secret(&token.secret[..]);
    let everything = ["*".to_owned()];
    store::api_tokens::insert(&mut tx, org, token.id, "administrator", &hash, &everything, now).await?;
    // The file comes before the commit: a crash between the two leaves a token that is made anew, not one that is lost.
    ca::write_private(&data.join(ADMIN_TOKEN_FILE), token.reveal().as_bytes())?;
    tx.commit().await.context("cannot commit the first start")?;
    tracing::info!(trust_domain = authority.trust_domain(), "this is a new installation");
    Ok(())
}
