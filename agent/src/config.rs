//! Configuration: one TOML file, over it the variables `OPSC_AGENT_…`, over them the flags.
//!
//! Invariants: all is checked before anything starts; a key or variable that nobody reads is refused, because it is a
//! typing error that somebody would search for.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use model::limits;
use serde::{Deserialize, Serialize};

use crate::link::connect::Address;

/// Read when there is one and no other is named.
pub const DEFAULT_FILE: &str = "/etc/opsconductor/agent.toml";
/// Where the agent keeps its identity, journal and spool.
pub const DEFAULT_DATA: &str = "/var/lib/opsconductor-agent";
/// The host's policy.
pub const DEFAULT_POLICY: &str = "/etc/opsconductor/policy.toml";
/// Begins every variable; `__` stands for the dot of a table: `OPSC_AGENT_LOG__LEVEL`.
pub const VARIABLE_PREFIX: &str = "OPSC_AGENT_";
/// Variables with this prefix that are flags of the command line, not keys of the file.
const FLAG_VARIABLES: [&str; 2] = ["CONFIG", "TOKEN"];

/// The longest of all times that can be set.
const TIMING_SECONDS: u32 = 3600;
/// The least room for output: below it single chunks would fill it.
const SPOOL_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// All that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Controllers to try in turn. By default the one that the agent enrolled with.
    pub controller: Vec<Address>,
    /// Folder of the agent's state.
    pub data: PathBuf,
    /// What this host's own administrator allows, whatever a controller orders; the file need not exist.
    pub policy: PathBuf,
    /// Runs at a time.
    pub slots: u32,
    /// Bytes of output on the disk, of all runs, that the controller does not hold yet. When they are taken, runs wait.
    pub spool_bytes: u64,
    /// Seconds between two samples of the host's metrics; 0 turns them off. By default what the controller says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_seconds: Option<u64>,
    /// The user, by name or number, that the agent's part in the network runs as where the agent is root. By default
    /// `opsconductor-agent`, or number 61183 on a host without that user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_user: Option<String>,
    pub timing: Timing,
    pub log: Log,
}

/// How long things may take, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// How far this host's clock and a controller's may be apart.
    pub clock_skew_seconds: u32,
    /// How long a controller that owes an answer may say nothing, until there is a session; from then on it says itself.
    pub silence_seconds: u32,
    /// The longest pause between two tries to reach a controller.
    pub reconnect_seconds: u32,
    /// How long a run waits when there is no room for its output, until that gets a gap.
    pub block_for_seconds: u32,
}

impl Timing {
    pub const fn clock_skew(&self) -> Duration {
        Duration::from_secs(self.clock_skew_seconds as u64)
    }

    pub const fn silence(&self) -> Duration {
        Duration::from_secs(self.silence_seconds as u64)
    }

    pub const fn reconnect(&self) -> Duration {
        Duration::from_secs(self.reconnect_seconds as u64)
    }

    pub const fn block_for(&self) -> Duration {
        Duration::from_secs(self.block_for_seconds as u64)
    }
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        Self {
            clock_skew_seconds: seconds(limits::CLOCK_SKEW),
            silence_seconds: seconds(limits::SESSION_SILENCE),
            reconnect_seconds: seconds(limits::RECONNECT_PAUSE),
            block_for_seconds: seconds(limits::BLOCK_FOR),
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter as `info,opsconductor_agent::link=debug`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            controller: Vec::new(),
            data: PathBuf::from(DEFAULT_DATA),
            policy: PathBuf::from(DEFAULT_POLICY),
            slots: limits::DEFAULT_SLOTS,
            spool_bytes: limits::HOST_SPOOL_BYTES,
            metrics_seconds: None,
            link_user: None,
            timing: Timing::default(),
            log: Log::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".to_owned() }
    }
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {path} is not TOML")]
    Syntax { path: PathBuf, source: toml::de::Error },
    #[error("the configuration is wrong")]
    Value(#[source] toml::de::Error),
    #[error("the variable {VARIABLE_PREFIX}{name} is not a setting of the agent")]
    UnknownVariable { name: String },
    #[error("the variable {VARIABLE_PREFIX}{name} must be a number, not '{value}'")]
    NotANumber { name: String, value: String },
    #[error("slots must be 1 to {max}, not {slots}", max = limits::MAX_SLOTS)]
    Slots { slots: u32 },
    #[error("spool_bytes must be {min} or more, not {bytes}", min = SPOOL_BYTES_MIN)]
    Spool { bytes: u64 },
    #[error("{key} must be an absolute path, not '{path}'")]
    Relative { key: &'static str, path: PathBuf },
    #[error("timing.{key} must be 1 to {max} seconds, not {value}", max = TIMING_SECONDS)]
    Timing { key: &'static str, value: u32 },
    #[error("log.level '{level}' is not a log filter")]
    Level { level: String, source: tracing_subscriber::filter::ParseError },
}

impl Config {
    /// Reads `file` (or the default one, if it exists), then the variables.
    ///
    /// # Errors
    /// Names the file, key or variable that is wrong.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table = read(file)?;
        for (name, value) in variables {
            if let Some(name) =
                name.strip_prefix(VARIABLE_PREFIX).filter(|name| !FLAG_VARIABLES.contains(name))
            {
                set(&mut table, name, value)?;
            }
        }
        let config: Self = table.try_into().map_err(ConfigError::Value)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !(1..=limits::MAX_SLOTS).contains(&self.slots) {
            return Err(ConfigError::Slots { slots: self.slots });
        }
        if self.spool_bytes < SPOOL_BYTES_MIN {
            return Err(ConfigError::Spool { bytes: self.spool_bytes });
        }
        for (key, path) in [("data", &self.data), ("policy", &self.policy)] {
            if !path.is_absolute() {
                return Err(ConfigError::Relative { key, path: path.clone() });
            }
        }
        let timing = self.timing;
        for (key, value) in [
            ("clock_skew_seconds", timing.clock_skew_seconds),
            ("silence_seconds", timing.silence_seconds),
            ("reconnect_seconds", timing.reconnect_seconds),
            ("block_for_seconds", timing.block_for_seconds),
        ] {
            if !(1..=TIMING_SECONDS).contains(&value) {
                return Err(ConfigError::Timing { key, value });
            }
        }
        self.log.filter()?;
        Ok(())
    }
}

impl Log {
    /// The filter that `level` says.
    ///
    /// # Errors
    /// When it is none.
    pub fn filter(&self) -> Result<tracing_subscriber::EnvFilter, ConfigError> {
        tracing_subscriber::EnvFilter::try_new(&self.level)
            .map_err(|source| ConfigError::Level { level: self.level.clone(), source })
    }
}

fn read(file: Option<&Path>) -> Result<toml::Table, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => {
            toml::from_str(&text).map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })
        }
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(toml::Table::new())
        }
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

/// Writes the variable `name` over its key.
fn set(table: &mut toml::Table, name: &str, value: String) -> Result<(), ConfigError> {
    let unknown = || ConfigError::UnknownVariable { name: name.to_owned() };
    let key = name.to_ascii_lowercase();
    let value = match key.as_str() {
        "controller" => {
            value.split(',').map(|item| toml::Value::from(item.trim())).collect::<Vec<_>>().into()
        }
        "slots"
        | "metrics_seconds"
        | "timing__clock_skew_seconds"
        | "timing__silence_seconds"
        | "spool_bytes"
        | "timing__block_for_seconds"
        | "timing__reconnect_seconds" => {
            value.parse::<i64>().map_err(|_| ConfigError::NotANumber { name: name.to_owned(), value })?.into()
        }
        "data" | "policy" | "link_user" | "log__format" | "log__level" => toml::Value::from(value),
        _ => return Err(unknown()),
    };
    match key.split_once("__") {
        None => table.insert(key, value),
        Some((outer, inner)) => table
            .entry(outer)
            .or_insert_with(|| toml::Table::new().into())
            .as_table_mut()
            .ok_or_else(unknown)?
            .insert(inner.to_owned(), value),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn variables_go_over_the_file_and_the_file_over_the_defaults() {
        let config = load(
            "controller = ['a:1']\nslots = 4\n[log]\nformat = 'json'",
            &[
                ("OPSC_AGENT_SLOTS", "8"),
                ("OPSC_AGENT_LOG__LEVEL", "debug"),
                ("OPSC_AGENT_CONTROLLER", "b:2, c:3"),
            ],
        )
        .unwrap();
        assert_eq!(config.slots, 8);
        assert_eq!(config.log, Log { format: LogFormat::Json, level: "debug".to_owned() });
        assert_eq!(config.controller, ["b:2".parse().unwrap(), "c:3".parse().unwrap()]);
        assert_eq!(config.data, Path::new(DEFAULT_DATA));
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let config = load("metrics_seconds = 5", &[]).unwrap();
        assert_eq!(load(&toml::to_string(&config).unwrap(), &[]).unwrap(), config);
    }

    #[test]
    fn what_is_wrong_is_refused_and_named() {
        /// A file, variables, and what the error names.
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 10] = [
            ("slot = 1", &[], "slot"),
            ("[log]\ncolour = true", &[], "colour"),
            ("", &[("OPSC_AGENT_SLOT", "1")], "OPSC_AGENT_SLOT"),
            ("", &[("OPSC_AGENT_SLOTS", "many")], "many"),
            ("slots = 0", &[], "slots"),
            ("spool_bytes = 4095", &[], "spool_bytes"),
            ("", &[("OPSC_AGENT_TIMING__BLOCK_FOR_SECONDS", "0")], "block_for_seconds"),
            ("controller = ['nowhere']", &[], "nowhere"),
            ("data = 'here'", &[], "here"),
            ("log.level = '=='", &[], "log.level"),
        ];
        for (text, variables, named) in cases {
            let error = anyhow::Error::from(load(text, variables).unwrap_err());
            assert!(format!("{error:#}").contains(named), "{text}: {error:#}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = Config::load(Some(Path::new("/nonexistent/agent.toml")), []).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }));
    }
}
