//! How an OpenID provider is spoken to: discovery, the code's exchange, the person's claims (OpenID Connect Core 1.0,
//! Discovery 1.0, RFC 7636).
//!
//! A provider's answers are not trusted before they are checked, are bounded, and are never followed elsewhere. What it
//! says of itself is kept for an hour; its keys are fetched anew when a token names one that is not among them.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use model::limits;
use pki::id_token::{self, Expected, IdToken, Keys};
use reqwest::{RequestBuilder, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    clock,
    config::OidcProvider,
    error::{Error, Result},
};

/// How long a provider may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// How long what it says of itself is believed.
const KEPT: Duration = Duration::from_secs(3600);
/// Shortest time between two fetches of its keys that tokens cause.
const KEYS_EVERY: Duration = Duration::from_secs(10);

/// One provider.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) config: OidcProvider,
    redirect_uri: String,
    http: reqwest::Client,
    known: Mutex<Option<Known>>,
}

/// What a provider says of itself.
#[derive(Debug, Clone)]
struct Known {
    document: Document,
    keys: Keys,
    fetched_at: Instant,
    keys_at: Instant,
}

#[derive(Debug, Clone, Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    id_token: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// What is sent with a login, and must come back with it or be shown to redeem it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) state: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) verifier: &'a str,
}

/// A person, as the provider tells.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) subject: String,
    /// By the claim that names people.
    pub(crate) name: Option<String>,
    pub(crate) groups: Vec<String>,
}

impl Provider {
    /// `url` is where people reach this controller.
    ///
    /// # Errors
    /// When the certificates to believe cannot be read.
    pub(crate) fn new(config: OidcProvider, url: &str) -> anyhow::Result<Self> {
        let mut http = reqwest::Client::builder()
            .timeout(WITHIN)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("opsconductor/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &config.ca {
            http = http.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
        } else if config.issuer.starts_with("http://") {
            // At this machine itself: there need not be any certificates.
            http = http.tls_certs_only([]).no_proxy();
        }
        let redirect_uri = format!("{url}/api/v1/auth/oidc/{}/callback", config.name);
        Ok(Self { config, redirect_uri, http: http.build()?, known: Mutex::default() })
    }

    /// Where a browser begins.
    ///
    /// # Errors
    /// When the provider does not answer.
    pub(crate) async fn authorization_url(&self, sent: Sent<'_>) -> Result<String> {
        let known = self.known().await?;
        let mut url = self.endpoint(&known.document.authorization_endpoint)?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", &self.config.scopes.join(" "))
            .append_pair("state", sent.state)
            .append_pair("nonce", sent.nonce)
            .append_pair("code_challenge", &challenge(sent.verifier))
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    /// Whether an answer with this `iss` is this provider's (RFC 9207): nobody mixes two of them up.
    ///
    /// # Errors
    /// When it is not, or the provider does not answer.
    pub(crate) async fn is_its_answer(&self, iss: Option<&str>) -> Result<()> {
        let known = self.known().await?;
        let is_needed = known.document.authorization_response_iss_parameter_supported;
        match iss {
            Some(iss) if iss != known.document.issuer => {}
            None if is_needed => {}
            _ => return Ok(()),
        }
        Err(Error::BadCredential("this is the answer of another provider".to_owned()))
    }

    /// Exchanges a code for what the provider says of the person.
    ///
    /// # Errors
    /// When it does not answer, refuses the code, or what it says does not hold.
    pub(crate) async fn redeem(&self, code: &str, sent: Sent<'_>) -> Result<Person> {
        let known = self.known().await?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", sent.verifier),
        ];
        let mut request = self.http.post(self.endpoint(&known.document.token_endpoint)?);
        // Basic is what a provider supports that says nothing.
        let methods = &known.document.token_endpoint_auth_methods_supported;
        let is_basic = methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic");
        match &self.config.client_secret {
            Some(secret) if is_basic => {
                let pair = format!("{}:{}", encoded(&self.config.client_id), encoded(secret));
                let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
                request = request.header(reqwest::header::AUTHORIZATION, value);
            }
            Some(secret) => {
                form.extend([("client_id", self.config.client_id.as_str()), ("client_secret", secret)]);
            }
            None => form.push(("client_id", &self.config.client_id)),
        }
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request =
            request.header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        let tokens: TokenAnswer = self.json(request, "code").await?;
        let said = self.verify(&tokens.id_token, known, sent.nonce).await?;
        self.person(said, &tokens.access_token).await
    }

    async fn verify(&self, token: &str, mut known: Known, nonce: &str) -> Result<IdToken> {
        if !known.keys.know(token) && known.keys_at.elapsed() >= KEYS_EVERY {
            let mut held = self.known.lock().await;
            known.keys = self.keys(&known.document).await?;
            known.keys_at = Instant::now();
            *held = Some(known.clone());
        }
        let expected = Expected {
            issuer: &known.document.issuer,
            client_id: &self.config.client_id,
            nonce,
            now: clock::now(),
        };
        id_token::verify(token, &known.keys, &expected).map_err(|error| {
            tracing::warn!(provider = self.config.name, %error, "an ID token was refused");
            Error::BadCredential(error.to_string())
        })
    }

    /// What the ID token does not say of the person is asked for.
    async fn person(&self, said: IdToken, access_token: &str) -> Result<Person> {
        let IdToken { subject, mut claims } = said;
        let known = self.known().await?;
        let wanted = [&self.config.name_claim, &self.config.groups_claim];
        if wanted.iter().any(|claim| !claims.contains_key(*claim))
            && let Some(endpoint) = &known.document.userinfo_endpoint
        {
            let request = self.http.get(self.endpoint(endpoint)?).bearer_auth(access_token);
            let more: Map<String, Value> = self.json(request, "person").await?;
            if more.get("sub").and_then(Value::as_str) != Some(&subject) {
                return Err(Error::BadCredential("the provider speaks of two people".to_owned()));
            }
            for (claim, value) in more {
                claims.entry(claim).or_insert(value);
            }
        }
        let groups = match claims.get(&self.config.groups_claim) {
            Some(Value::Array(groups)) => {
                groups.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(Value::String(one)) => vec![one.clone()],
            _ => Vec::new(),
        };
        if groups.len() > limits::OIDC_GROUPS {
            let limit = limits::OIDC_GROUPS;
            let message = format!("the provider names more groups than the limit OIDC_GROUPS of {limit}");
            return Err(Error::NotAdmitted(message));
        }
        let name = claims.get(&self.config.name_claim).and_then(Value::as_str).map(str::to_owned);
        Ok(Person { subject, name, groups })
    }

    /// What the provider says of itself, asked for where that is too long ago.
    async fn known(&self) -> Result<Known> {
        let mut held = self.known.lock().await;
        if let Some(known) = &*held
            && known.fetched_at.elapsed() < KEPT
        {
            return Ok(known.clone());
        }
        let url = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let document: Document = self.json(self.http.get(url), "discovery").await?;
        if document.issuer != self.config.issuer {
            let message = format!("it calls itself '{}', not '{}'", document.issuer, self.config.issuer);
            return Err(self.failed("discovery", message));
        }
        let keys = self.keys(&document).await?;
        let now = Instant::now();
        let known = Known { document, keys, fetched_at: now, keys_at: now };
        *held = Some(known.clone());
        Ok(known)
    }

    async fn keys(&self, document: &Document) -> Result<Keys> {
        let answer = self.fetch(self.http.get(self.endpoint(&document.jwks_uri)?), "keys").await?;
        Keys::parse(&answer).map_err(|error| self.failed("keys", error))
    }

    /// An address that the provider names: as safe as its own.
    fn endpoint(&self, text: &str) -> Result<Url> {
        let url = Url::parse(text).map_err(|error| self.failed("discovery", format!("{text}: {error}")))?;
        let is_local = self.config.issuer.starts_with("http://");
        if url.scheme() == "https" || (is_local && url.scheme() == "http") {
            Ok(url)
        } else {
            Err(self.failed("discovery", format!("{text} is not https")))
        }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder, what: &'static str) -> Result<T> {
        let body = self.fetch(request, what).await?;
        serde_json::from_slice(&body).map_err(|error| self.failed(what, error))
    }

    /// The whole body of a good answer.
    async fn fetch(&self, request: RequestBuilder, what: &'static str) -> Result<Vec<u8>> {
        let mut answer = request.send().await.map_err(|error| self.failed(what, chain(&error)))?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.failed(what, chain(&error)))? {
            if body.len() + piece.len() > limits::OIDC_ANSWER_BYTES {
                let limit = limits::OIDC_ANSWER_BYTES;
                return Err(self.failed(what, format!("more than {limit} bytes (OIDC_ANSWER_BYTES)")));
            }
            body.extend_from_slice(&piece);
        }
        let status = answer.status();
        if status.is_success() {
            return Ok(body);
        }
        // Of what it says of the reason only the code goes into the log: the rest may have anything in it.
        let said = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.error).unwrap_or_default();
        let said: String = said.chars().filter(char::is_ascii_graphic).take(60).collect();
        tracing::warn!(provider = self.config.name, %status, said, "the provider refused the {what}");
        if what == "code" && status.is_client_error() {
            return Err(Error::BadCredential(format!(
                "the provider '{}' refused the code",
                self.config.name
            )));
        }
        Err(self.failed(what, status))
    }

    fn failed(&self, what: &'static str, why: impl std::fmt::Display) -> Error {
        tracing::warn!(provider = self.config.name, "the provider's {what} failed: {why}");
        Error::Provider { name: self.config.name.clone(), what }
    }
}

/// An error with its causes, without the address that it concerns: that may have a code in it.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timeout".to_owned() } else { "no answer".to_owned() };
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// RFC 6749, section 2.3.1: the two halves are encoded as in a form.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// RFC 7636, S256.
pub(crate) fn challenge(verifier: &str) -> String {
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}
