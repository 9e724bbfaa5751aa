//! `[oidc.NAME]`: the OpenID providers by which people may log in. Only the file can name them.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use model::{
    access::{BuiltInRole, scope_selector, validate_slug},
    limits,
};
use serde::Deserialize;

use super::{ConfigError, is_web_address, wrong};

/// A provider, and who may do what that it speaks for.
#[derive(Clone)]
pub(crate) struct OidcProvider {
    /// As the file calls it; part of the redirect URI.
    pub(crate) name: String,
    /// Exactly as its discovery document says it.
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    /// Absent for a public client: then PKCE alone protects the code.
    pub(crate) client_secret: Option<String>,
    client_secret_file: Option<PathBuf>,
    /// Where its people work; the home organization where none is said.
    pub(crate) organization: Option<String>,
    pub(crate) scopes: Vec<String>,
    /// The claim that a new person is named by.
    pub(crate) name_claim: String,
    pub(crate) groups_claim: String,
    pub(crate) roles: Vec<GroupRole>,
    /// Certificates to believe instead of the system's.
    pub(crate) ca: Option<Vec<u8>>,
    ca_file: Option<PathBuf>,
}

impl fmt::Debug for OidcProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OidcProvider({}, {})", self.name, self.issuer)
    }
}

/// Whoever is in this group of the provider has this role, on these hosts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupRole {
    pub(crate) group: String,
    pub(crate) role: String,
    pub(crate) hosts: Option<String>,
}

/// The providers as the file has them, by name.
pub(crate) type OidcLayer = BTreeMap<String, ProviderLayer>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderLayer {
    issuer: String,
    client_id: String,
    client_secret_file: Option<PathBuf>,
    organization: Option<String>,
    scopes: Option<Vec<String>>,
    name_claim: Option<String>,
    groups_claim: Option<String>,
    #[serde(default)]
    roles: Vec<GroupRole>,
    ca_file: Option<PathBuf>,
}

/// Checks what the file says of the providers; `url` is where people reach this controller.
pub(super) fn read(layer: OidcLayer, url: Option<&str>) -> Result<Vec<OidcProvider>, ConfigError> {
    if !layer.is_empty() && url.is_none() {
        let message = "is missing: providers send browsers back to it, as https://ops.example.com";
        return Err(wrong("[http] url", message));
    }
    if layer.len() > limits::OIDC_PROVIDERS {
        let message = format!("has more than {} (OIDC_PROVIDERS) providers", limits::OIDC_PROVIDERS);
        return Err(wrong("[oidc]", message));
    }
    layer.into_iter().map(|(name, provider)| provider.read(name)).collect()
}

impl ProviderLayer {
    fn read(self, name: String) -> Result<OidcProvider, ConfigError> {
        let say = |key: &str, message: String| wrong("[oidc]", format!("{name}: {key} {message}"));
        validate_slug("name", &name).map_err(|error| say("its", error.to_string()))?;
        if !is_web_address(&self.issuer) {
            let message = format!("'{}' is not an address as https://id.example.com", self.issuer);
            return Err(say("issuer", message));
        }
        if self.client_id.is_empty() {
            return Err(say("client_id", "is empty".to_owned()));
        }
        if let Some(organization) = &self.organization {
            validate_slug("organization", organization)
                .map_err(|error| say("organization", error.to_string()))?;
        }
        for GroupRole { group, role, hosts } in &self.roles {
            if group.is_empty() {
                return Err(say("roles", "has an empty group".to_owned()));
            }
            if BuiltInRole::parse(role).is_none() {
                validate_slug("role", role).map_err(|error| say("roles", error.to_string()))?;
            }
            if let Some(hosts) = hosts {
                scope_selector("hosts", hosts).map_err(|error| say("roles", error.to_string()))?;
            }
        }
        let scopes = self.scopes.unwrap_or_else(|| ["openid", "profile", "groups"].map(str::to_owned).into());
        if !scopes.iter().any(|scope| scope == "openid") {
            return Err(say("scopes", "must have 'openid'".to_owned()));
        }
        let content = |key: &str, path: &Path| {
            std::fs::read(path)
                .map_err(|error| say(key, format!("cannot be read: {}: {error}", path.display())))
        };
        let client_secret = match &self.client_secret_file {
            None => None,
            Some(path) => {
                let text = String::from_utf8(content("client_secret_file", path)?).unwrap_or_default();
                let secret = text.trim().to_owned();
                if secret.is_empty() {
                    return Err(say("client_secret_file", "has no text in it".to_owned()));
                }
                Some(secret)
            }
        };
        let ca = self.ca_file.as_deref().map(|path| content("ca_file", path)).transpose()?;
        Ok(OidcProvider {
            issuer: self.issuer,
            client_id: self.client_id,
            client_secret,
            client_secret_file: self.client_secret_file,
            organization: self.organization,
            scopes,
            name_claim: self.name_claim.unwrap_or_else(|| "preferred_username".to_owned()),
            groups_claim: self.groups_claim.unwrap_or_else(|| "groups".to_owned()),
            roles: self.roles,
            ca,
            ca_file: self.ca_file,
            name,
        })
    }
}

/// As the file would say it.
pub(super) fn table(providers: &[OidcProvider]) -> toml::Table {
    providers.iter().map(|provider| (provider.name.clone(), provider.table().into())).collect()
}

impl OidcProvider {
    fn table(&self) -> toml::Table {
        let mut table = toml::Table::new();
        let mut text = |key: &str, value: Option<&str>| {
            value.and_then(|value| table.insert(key.to_owned(), value.into()));
        };
        text("issuer", Some(&self.issuer));
        text("client_id", Some(&self.client_id));
        text("client_secret_file", self.client_secret_file.as_deref().and_then(Path::to_str));
        text("organization", self.organization.as_deref());
        text("name_claim", Some(&self.name_claim));
        text("groups_claim", Some(&self.groups_claim));
        text("ca_file", self.ca_file.as_deref().and_then(Path::to_str));
        table.insert("scopes".to_owned(), self.scopes.clone().into());
        let roles: Vec<toml::Table> = self
            .roles
            .iter()
            .map(|GroupRole { group, role, hosts }| {
                let hosts = hosts.iter().map(|hosts| ("hosts", hosts.as_str()));
                let pairs = [("group", group.as_str()), ("role", role.as_str())].into_iter().chain(hosts);
                pairs.map(|(key, value)| (key.to_owned(), value.into())).collect()
            })
            .collect();
        if !roles.is_empty() {
            table.insert("roles".to_owned(), roles.into());
        }
        table
    }
}
