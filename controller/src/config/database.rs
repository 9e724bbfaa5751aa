//! `[database]`: a Postgres that somebody else runs, or none.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;

use super::{ConfigError, flag, wrong};

#[derive(Debug, Clone)]
pub(crate) struct Database {
    /// Absent: the controller runs a private Postgres of its own.
    pub(crate) external: Option<External>,
    /// Whether `serve` may bring an external database up to date.
    pub(crate) auto_migrate: bool,
}

/// A Postgres that somebody else runs.
#[derive(Clone)]
pub(crate) struct External {
    url: String,
    pub(crate) options: PgConnectOptions,
}

impl External {
    /// The URL without its password.
    pub(crate) fn redacted(&self) -> String {
        redact(&self.url)
    }
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("External").field(&self.redacted()).finish()
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DatabaseLayer {
    pub(crate) url: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    #[serde(deserialize_with = "flag")]
    pub(crate) auto_migrate: Option<bool>,
}

impl DatabaseLayer {
    /// Both, `above` winning.
    pub(super) fn under(self, above: Self) -> Self {
        Self {
            url: above.url.or(self.url),
            password_file: above.password_file.or(self.password_file),
            auto_migrate: above.auto_migrate.or(self.auto_migrate),
        }
    }
}

impl Database {
    pub(super) fn read(layer: DatabaseLayer) -> Result<Self, ConfigError> {
        Ok(Self {
            external: external(layer.url, layer.password_file.as_deref())?,
            auto_migrate: layer.auto_migrate.unwrap_or(false),
        })
    }

    /// As the file would say it, without secrets.
    pub(super) fn table(&self) -> toml::Table {
        let mut table = toml::Table::new();
        if let Some(external) = &self.external {
            table.insert("url".into(), external.redacted().into());
        }
        table.insert("auto_migrate".into(), self.auto_migrate.into());
        table
    }
}

fn external(url: Option<String>, password_file: Option<&Path>) -> Result<Option<External>, ConfigError> {
    const URL: &str = "[database] url";
    const FILE: &str = "[database] password_file";
    let Some(url) = url else {
        return match password_file {
            Some(_) => Err(wrong(FILE, "is set, but [database] url is not")),
            None => Ok(None),
        };
    };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong(URL, "does not begin with postgres://"));
    }
    // The parser's message may repeat parts of the URL, so it is not shown.
    let mut options = PgConnectOptions::from_str(&url)
        .map_err(|_| wrong(URL, "is not a URL as postgres://user:password@host:5432/database"))?;
    if let Some(path) = password_file {
        let password = std::fs::read_to_string(path)
            .map_err(|error| wrong(FILE, format!("cannot read {}: {error}", path.display())))?;
        options = options.password(password.trim_end_matches(['\r', '\n']));
    }
    Ok(Some(External { url, options: options.application_name("opsconductor-controller") }))
}

/// The URL with its password, in either place where it can stand, replaced.
fn redact(url: &str) -> String {
    const HIDDEN: &str = "<redacted>";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (head, query) = rest.split_once('?').map_or((rest, None), |(head, query)| (head, Some(query)));
    let head = match head.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:{HIDDEN}@{host}"),
            None => format!("{user}@{host}"),
        },
        None => head.to_owned(),
    };
    let query = query.map_or_else(String::new, |query| {
        let parts = query.split('&').map(|part| match part.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}={HIDDEN}"),
            _ => part.to_owned(),
        });
        format!("?{}", parts.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{head}{query}")
}
