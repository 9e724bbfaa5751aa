//! `[audit]`: where entries go besides the database.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;

use super::{ConfigError, wrong};

/// Sinks outside of the database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audit {
    /// Lines of JSON are appended to it.
    pub(crate) file: Option<PathBuf>,
    pub(crate) syslog: Option<Syslog>,
}

/// A server for syslog messages (RFC 5424).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Syslog {
    /// `HOST:PORT`: a datagram a message; what is lost on the way nobody knows.
    Udp(String),
    /// `HOST:PORT`: messages with their length before them (RFC 6587).
    Tcp(String),
    /// The socket of this machine's own.
    Unix(PathBuf),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AuditLayer {
    pub(crate) file: Option<PathBuf>,
    pub(crate) syslog: Option<String>,
}

impl AuditLayer {
    /// Both, `above` winning.
    pub(super) fn under(self, above: Self) -> Self {
        Self { file: above.file.or(self.file), syslog: above.syslog.or(self.syslog) }
    }
}

impl Audit {
    pub(super) fn read(layer: AuditLayer) -> Result<Self, ConfigError> {
        let file = layer.file.filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = file.as_deref().filter(|path| !path.is_absolute()) {
            return Err(wrong("[audit] file", format!("{} is not an absolute path", path.display())));
        }
        let syslog = layer.syslog.filter(|text| !text.is_empty());
        let syslog = syslog.map(|text| text.parse::<Syslog>()).transpose();
        let syslog = syslog.map_err(|message| wrong("[audit] syslog", message))?;
        Ok(Self { file, syslog })
    }

    pub(super) fn table(&self) -> toml::Table {
        let file = self.file.as_ref().map(|path| path.display().to_string());
        let syslog = self.syslog.as_ref().map(ToString::to_string);
        let keys = [("file", file), ("syslog", syslog)];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))).collect()
    }
}

impl FromStr for Syslog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let like = || format!("'{text}' is not like udp://HOST:PORT, tcp://HOST:PORT or unix:/dev/log");
        if let Some(path) = text.strip_prefix("unix:").map(Path::new) {
            return if path.is_absolute() { Ok(Self::Unix(path.to_owned())) } else { Err(like()) };
        }
        let (kind, address) = text.split_once("://").ok_or_else(like)?;
        let is_address = address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
        match kind {
            "udp" if is_address => Ok(Self::Udp(address.to_owned())),
            "tcp" if is_address => Ok(Self::Tcp(address.to_owned())),
            _ => Err(like()),
        }
    }
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_shown() {
        for text in ["udp://logs.example:514", "tcp://[::1]:6514", "unix:/dev/log"] {
            assert_eq!(text.parse::<Syslog>().expect(text).to_string(), text);
        }
        for text in ["", "logs:514", "udp://logs", "tcp://:1", "http://logs:1", "unix:log", "udp://logs:0"] {
            assert!(text.parse::<Syslog>().expect_err(text).contains("is not like"));
        }
    }
}
