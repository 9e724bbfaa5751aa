//! `[egress]`: what the controller itself reaches when a job asks for it.

use std::path::PathBuf;

use model::network::Network;
use serde::Deserialize;

use super::{ConfigError, http::list, wrong};

/// Networks that may be named.
const NETWORKS: usize = 100;

/// Where it goes beside public addresses, and whom it believes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Egress {
    pub(crate) allow: Vec<Network>,
    /// Certificates to believe instead of the system's.
    pub(crate) ca: Option<Vec<u8>>,
    ca_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EgressLayer {
    #[serde(deserialize_with = "list")]
    allow: Option<Vec<String>>,
    ca_file: Option<PathBuf>,
}

impl EgressLayer {
    /// Both, `above` winning.
    pub(super) fn under(self, above: Self) -> Self {
        Self { allow: above.allow.or(self.allow), ca_file: above.ca_file.or(self.ca_file) }
    }
}

impl Egress {
    pub(super) fn read(layer: EgressLayer) -> Result<Self, ConfigError> {
        let key = "[egress] allow";
        let texts = layer.allow.unwrap_or_default();
        if texts.len() > NETWORKS {
            return Err(wrong(key, format!("has more than {NETWORKS} networks")));
        }
        let networks = texts
            .iter()
            .map(|text| text.parse().map_err(|why| wrong(key, format!("'{text}' {why}"))))
            .collect::<Result<_, _>>()?;
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                wrong("[egress] ca_file", format!("cannot be read: {}: {error}", path.display()))
            })
        };
        let ca = layer.ca_file.as_ref().map(read).transpose()?;
        Ok(Self { allow: networks, ca, ca_file: layer.ca_file })
    }

    pub(super) fn table(&self) -> toml::Table {
        let mut table = toml::Table::new();
        if !self.allow.is_empty() {
            let texts = self.allow.iter().map(|network| network.to_string().into()).collect();
            table.insert("allow".into(), toml::Value::Array(texts));
        }
        if let Some(path) = &self.ca_file {
            table.insert("ca_file".into(), path.display().to_string().into());
        }
        table
    }
}
