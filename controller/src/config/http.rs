//! `[http]`: the door for people.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use model::limits;
use serde::{Deserialize, Deserializer};

use super::{ConfigError, Proxies, address, duration, duration_text, flag, is_web_address, wrong};

/// Shortest and longest life of a certificate that the installation's own CA issues for this door.
const CERTIFICATE_LIFE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(90 * 24 * 3600)];

/// The door for people.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
    pub(crate) insecure_any_address: bool,
    pub(crate) tls: Option<Tls>,
    /// By which address people reach this door, without a path; whatever names it to others needs it.
    pub(crate) url: Option<String>,
    /// Whose word counts for whence a request is.
    pub(crate) proxies: Proxies,
    /// Origins of other sites, as browsers send them, whose pages may read answers.
    pub(crate) cors_origins: Vec<String>,
}

/// Whence the door's certificate is.
#[derive(Debug, Clone)]
pub(crate) enum Tls {
    /// PEM files of the chain and its key.
    Files { certificate: PathBuf, key: PathBuf },
    /// From the installation's own CA, for these host names and addresses.
    Internal { names: Vec<String>, life: Duration },
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HttpLayer {
    pub(crate) listen: Option<String>,
    #[serde(deserialize_with = "flag")]
    pub(crate) insecure_any_address: Option<bool>,
    pub(crate) tls: Option<String>,
    #[serde(deserialize_with = "list")]
    pub(crate) names: Option<Vec<String>>,
    pub(crate) certificate_life: Option<String>,
    pub(crate) tls_certificate: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) url: Option<String>,
    #[serde(deserialize_with = "list")]
    pub(crate) trusted_proxies: Option<Vec<String>>,
    #[serde(deserialize_with = "list")]
    pub(crate) cors_origins: Option<Vec<String>>,
}

/// A list of texts, or one text with commas: the environment has nothing but texts.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        Items(Vec<String>),
        Text(String),
    }
    Ok(Some(match List::deserialize(deserializer)? {
        List::Items(items) => items,
        List::Text(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
    }))
}

impl HttpLayer {
    /// Both, `above` winning.
    pub(super) fn under(self, above: Self) -> Self {
        Self {
            listen: above.listen.or(self.listen),
            insecure_any_address: above.insecure_any_address.or(self.insecure_any_address),
            tls: above.tls.or(self.tls),
            names: above.names.or(self.names),
            certificate_life: above.certificate_life.or(self.certificate_life),
            tls_certificate: above.tls_certificate.or(self.tls_certificate),
            tls_key: above.tls_key.or(self.tls_key),
            url: above.url.or(self.url),
            trusted_proxies: above.trusted_proxies.or(self.trusted_proxies),
            cors_origins: above.cors_origins.or(self.cors_origins),
        }
    }
}

impl Http {
    pub(super) fn read(layer: HttpLayer) -> Result<Self, ConfigError> {
        let listen = address("[http] listen", layer.listen, "127.0.0.1:8080")?;
        let tls = match layer.tls.as_deref() {
            None => {
                for (key, is_there) in [
                    ("[http] names", layer.names.is_some()),
                    ("[http] certificate_life", layer.certificate_life.is_some()),
                ] {
                    if is_there {
                        return Err(wrong(key, "is set, but [http] tls is not \"internal\""));
                    }
                }
                files(layer.tls_certificate, layer.tls_key)?
            }
            Some("internal") => {
                if layer.tls_certificate.is_some() || layer.tls_key.is_some() {
                    let message =
                        "is \"internal\", and there is tls_certificate or tls_key: one of both is too much";
                    return Err(wrong("[http] tls", message));
                }
                let key = "[http] certificate_life";
                let default = limits::DOOR_CERTIFICATE_LIFE;
                let life = duration(key, layer.certificate_life, default, CERTIFICATE_LIFE)?;
                Some(Tls::Internal { names: names(layer.names, listen.ip())?, life })
            }
            Some(other) => {
                let message = format!(
                    "'{other}' is not known: \"internal\", or leave it out and set tls_certificate and tls_key"
                );
                return Err(wrong("[http] tls", message));
            }
        };
        let insecure_any_address = layer.insecure_any_address.unwrap_or(false);
        if !listen.ip().is_loopback() && tls.is_none() && !insecure_any_address {
            let message = format!(
                "{listen} is reachable from other machines, and there is no TLS: set [http] tls = \"internal\", or \
                 tls_certificate and tls_key, or say insecure_any_address = true"
            );
            return Err(wrong("[http] listen", message));
        }
        let url = layer.url.map(|url| url.trim_end_matches('/').to_owned());
        if let Some(url) = &url
            && (!is_web_address(url) || url.matches('/').count() != 2)
        {
            let message = format!("'{url}' is not an address as https://ops.example.com, without a path");
            return Err(wrong("[http] url", message));
        }
        let proxies = Proxies::read(layer.trusted_proxies)?;
        Ok(Self {
            listen,
            insecure_any_address,
            tls,
            url,
            proxies,
            cors_origins: origins(layer.cors_origins)?,
        })
    }

    /// As the file would say it.
    pub(super) fn table(&self) -> toml::Table {
        let texts =
            |texts: &[String]| toml::Value::Array(texts.iter().map(|text| text.as_str().into()).collect());
        let mut table = toml::Table::new();
        table.insert("listen".into(), self.listen.to_string().into());
        table.insert("insecure_any_address".into(), self.insecure_any_address.into());
        match &self.tls {
            None => {}
            Some(Tls::Files { certificate, key }) => {
                table.insert("tls_certificate".into(), certificate.display().to_string().into());
                table.insert("tls_key".into(), key.display().to_string().into());
            }
            Some(Tls::Internal { names, life }) => {
                table.insert("tls".into(), "internal".into());
                table.insert("names".into(), texts(names));
                table.insert("certificate_life".into(), duration_text(*life).into());
            }
        }
        if let Some(url) = &self.url {
            table.insert("url".into(), url.as_str().into());
        }
        let proxies = self.proxies.texts();
        if !proxies.is_empty() {
            table.insert("trusted_proxies".into(), texts(&proxies));
        }
        if !self.cors_origins.is_empty() {
            table.insert("cors_origins".into(), texts(&self.cors_origins));
        }
        table
    }
}

/// The names of a certificate: those that are said, or the address and this machine's own name for itself.
fn names(names: Option<Vec<String>>, address: IpAddr) -> Result<Vec<String>, ConfigError> {
    const KEY: &str = "[http] names";
    let names = match names {
        Some(names) => names,
        None if address.is_unspecified() => {
            return Err(wrong(
                KEY,
                "is missing: by which host names and addresses do people reach this door?",
            ));
        }
        None if address.is_loopback() => vec!["localhost".to_owned(), address.to_string()],
        None => vec![address.to_string()],
    };
    if names.is_empty() || names.len() > limits::DOOR_NAMES {
        return Err(wrong(KEY, format!("must be 1 to {} (DOOR_NAMES) names", limits::DOOR_NAMES)));
    }
    for name in &names {
        let is_ip = name.parse::<IpAddr>().is_ok();
        if !is_ip && rustls::pki_types::DnsName::try_from(name.as_str()).is_err() {
            return Err(wrong(KEY, format!("'{name}' is neither a host name nor an address")));
        }
    }
    Ok(names)
}

/// Exact origins: a browser's `Origin` is compared with them byte by byte.
fn origins(origins: Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    const KEY: &str = "[http] cors_origins";
    let origins = origins.unwrap_or_default();
    if origins.len() > limits::CORS_ORIGINS {
        return Err(wrong(KEY, format!("must be at most {} (CORS_ORIGINS) origins", limits::CORS_ORIGINS)));
    }
    for origin in &origins {
        let host = origin.strip_prefix("https://").or_else(|| {
            // A program that is being made on somebody's own machine.
            let host = origin.strip_prefix("http://")?;
            let is_local = ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| {
                host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            });
            is_local.then_some(host)
        });
        let is_host = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_:[]".contains(&byte)
                })
        };
        if !host.is_some_and(is_host) {
            let message = format!(
                "'{origin}' is not an exact origin, as https://console.example (https, in small letters, no path, no *)"
            );
            return Err(wrong(KEY, message));
        }
    }
    Ok(origins)
}

fn files(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Tls>, ConfigError> {
    let (certificate, key) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => return Err(wrong("[http] tls_key", "is missing beside tls_certificate")),
        (None, Some(_)) => return Err(wrong("[http] tls_certificate", "is missing beside tls_key")),
    };
    for (name, path) in [("[http] tls_certificate", &certificate), ("[http] tls_key", &key)] {
        std::fs::File::open(path)
            .map_err(|error| wrong(name, format!("cannot read {}: {error}", path.display())))?;
    }
    Ok(Some(Tls::Files { certificate, key }))
}
