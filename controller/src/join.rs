//! `join`: makes this machine another controller of an installation.
//!
//! Invariants: the controller that is asked is believed only after TLS has shown that it stands under the root that the
//! token pins; the token is spent last, after folder and database were found good; on any error the data folder has
//! nothing in it but its lock. The root's key never comes here.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use hyper_util::rt::TokioIo;
use model::id::ControllerId;
use pki::{Authority, AuthorityPem, SealKey, token::JoinToken};
use prost::Message as _;
use proto::joining_client::JoiningClient;
use rustls::{ClientConfig, pki_types::ServerName};
use sqlx::{Connection as _, PgConnection};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use zeroize::Zeroizing;

use crate::{
    app::{boot, ca, joining},
    cli, clock,
    config::{Config, External},
    server,
    store::{self, SchemaState},
};

/// How long connecting, and then the answer, may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Why this machine does not join, where the exit code tells it too.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("{0}")]
    Usage(String),
    #[error("cannot reach the controller at {address}")]
    Unreachable { address: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the controller refused: {0}")]
    Refused(String),
}

/// Joins, and ends.
///
/// # Errors
/// When folder, database, controller or token are not good for it.
pub(crate) async fn join(config: &Config, arguments: &cli::Join) -> anyhow::Result<()> {
    let text = read(&arguments.token)?;
    let token = JoinToken::parse(&text).map_err(|error| JoinError::Usage(error.to_string()))?;
    let host =
        arguments.controller.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']).to_owned());
    let Some(Ok(name)) = host.map(ServerName::try_from) else {
        let text = format!("--controller '{}' is not HOST:PORT", arguments.controller);
        return Err(JoinError::Usage(text).into());
    };
    let Some(external) = &config.database.external else {
        let text = "there is no [database] url: name the Postgres that the other controllers use";
        return Err(JoinError::Usage(text.to_owned()).into());
    };

    let _lock = server::open_folder(&config.data)?;
    ensure!(
        !ca::exists(&config.data),
        "{} has a certificate authority already: this is a controller; to make it one of another installation, \
         give it another data folder",
        config.data.display()
    );
    let trust_domain = installation(external, &token).await?;
    ca::prepare(&config.data)?;
    let id = ControllerId::new(clock::now(), clock::entropy());
    let authority = match ask(&arguments.controller, name, &token, text.trim(), id).await {
        Ok(authority) => authority,
        Err(error) => {
            ca::discard(&config.data);
            return Err(error);
        }
    };
    boot::keep_controller_id(&config.data, id)?;
    ca::install(&config.data, &authority.to_pem(), None)?;
    tracing::info!(
        controller.id = %id,
        trust_domain,
        "joined: {} has the intermediates' keys (the root's stays where it is); start it with 'serve'",
        config.data.display()
    );
    Ok(())
}

/// The text of the token.
fn read(token: &cli::Token) -> anyhow::Result<Zeroizing<String>> {
    if let Some(text) = &token.token {
        return Ok(Zeroizing::new(text.clone()));
    }
    let path = token.token_file.as_deref().unwrap_or(Path::new("-"));
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        io::stdin().read_to_string(&mut text)
    } else {
        File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| {
        JoinError::Usage(format!("cannot read the join token from '{}': {error}", path.display()))
    })?;
    Ok(text)
}

/// The trust domain of the database's installation, which must be the token's.
async fn installation(external: &External, token: &JoinToken) -> anyhow::Result<String> {
    server::reach(external).await?;
    let empty =
        "the database has no installation: [database] url must name the one that the other controllers use";
    match store::check_schema(&external.options).await? {
        SchemaState::Current => {}
        SchemaState::Older(0) => bail!("{empty}"),
        SchemaState::Older(_) => {
            bail!("the database is of an older program than this: upgrade the others first")
        }
        SchemaState::Newer(_) => bail!("the database is of a newer program than this: install that one here"),
    }
    let mut connection =
        PgConnection::connect_with(&external.options).await.context("cannot connect to the database")?;
    let found = store::installation::get(&mut connection).await?;
    connection.close().await.ok();
    let found = found.context(empty)?;
    ensure!(
        found.root_pin[..] == token.root_pin[..],
        "the database belongs to the installation '{}', the token to another one",
        found.trust_domain
    );
    Ok(found.trust_domain)
}

/// Spends the token.
async fn ask(
    address: &str,
    name: ServerName<'static>,
    token: &JoinToken,
    text: &str,
    id: ControllerId,
) -> anyhow::Result<Authority> {
    let tls = pki::tls::enroll_config(token.root_pin)?;
    let channel = timeout(CONNECT_WITHIN, connect(address, name, tls))
        .await
        .unwrap_or_else(|_| Err("it did not answer in time".into()))
        .map_err(|source| JoinError::Unreachable { address: address.to_owned(), source })?;
    let key = SealKey::generate();
    let request = proto::JoinRequest {
        token: text.to_owned(),
        controller_id: id.to_bytes(),
        seal_key: key.public_key(),
    };
    let answer = timeout(ANSWER_WITHIN, JoiningClient::new(channel).join(request))
        .await
        .context("the controller did not answer in time")?
        .map_err(|status| match status.code() {
            Code::Unauthenticated
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::ResourceExhausted => anyhow::Error::from(JoinError::Refused(status.message().to_owned())),
            Code::Unimplemented => JoinError::Refused("it is too old to be joined".to_owned()).into(),
            _ => anyhow::Error::from(status).context("the controller could not answer"),
        })?
        .into_inner();

    let sealed = answer.keys.context("the controller sent no keys")?;
    let aad = joining::aad(token.id, id);
    let opened = key.open(joining::SEAL_INFO, &aad, &sealed.encapsulated_key, &sealed.ciphertext)?;
    let keys = proto::AuthorityKeys::decode(&opened[..]).context("the controller sent unreadable keys")?;
    let authority = Authority::from_pem(&AuthorityPem {
        trust_domain: answer.trust_domain,
        root_cert: answer.root_certificate,
        agents_cert: answer.agents_certificate,
        controllers_cert: answer.controllers_certificate,
        agents_key: keys.agents_key.into(),
        controllers_key: keys.controllers_key.into(),
    })
    .context("the controller sent an authority that cannot be used")?;
    ensure!(
        authority.root_pin() == token.root_pin,
        "the root certificate is not the one that the token names"
    );
    Ok(authority)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One connection, with TLS of our own.
async fn connect(
    address: &str,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
) -> Result<Channel, BoxError> {
    let tcp = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await?;
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is over")) }
    });
    // The scheme is plain because the TLS below it is ours.
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_with_connector(connector).await?)
}
