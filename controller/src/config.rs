//! The configuration: read whole and checked before a port opens.
//!
//! Three layers, later ones win: the file (TOML), the environment (`[database] url` is `OPSC_DATABASE__URL`), the flags.
//! Each layer is read by the same rules and on its own, so that an error names the file, the variable or the flag that
//! it comes from. Keys that nobody knows are refused.

mod audit;
mod database;
mod egress;
mod http;
mod oidc;
mod proxies;
mod safety;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use jiff::SignedDuration;
use model::limits;
use serde::{Deserialize, Deserializer, Serialize};

use self::{audit::AuditLayer, egress::EgressLayer, safety::SafetyLayer};
pub(crate) use self::{
    audit::{Audit, Syslog},
    database::{Database, DatabaseLayer, External},
    egress::Egress,
    http::{Http, HttpLayer, Tls},
    oidc::{OidcLayer, OidcProvider},
    proxies::Proxies,
    safety::{Policy, Safety},
};

/// Read when no other file is named, if it exists.
pub(crate) const DEFAULT_FILE: &str = "/etc/opsconductor/controller.toml";
const DEFAULT_DATA: &str = "/var/lib/opsconductor";
/// Notices of the database are no news of the controller.
const DEFAULT_LEVEL: &str = "info,sqlx=warn";
/// Variables `OPSC_<SECTION>__<KEY>` belong to the controller; the others of this prefix are the CLI's and the agent's.
const PREFIX: &str = "OPSC_";
const SECTIONS: [&str; 9] =
    ["http", "agents", "people", "safety", "egress", "timing", "database", "audit", "log"];
/// Shortest and longest life of an agent's certificate.
const CERTIFICATE_LIFE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(90 * 24 * 3600)];
/// Shortest and longest life of a dispatch key's certificate.
const DISPATCH_KEY_LIFE: [Duration; 2] = [Duration::from_secs(4), limits::DISPATCH_KEY_LIFE];
/// Longest absence of an agent before its attempts count as lost.
const MAX_LOST_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
/// Bounds of what `[timing]` may say.
const TIMING: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];

/// What is wrong with the configuration, and where.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {message}")]
    Layer { origin: String, message: String },
    #[error("{key}: {message}")]
    Key { key: &'static str, message: String },
}

fn wrong(key: &'static str, message: impl Into<String>) -> ConfigError {
    ConfigError::Key { key, message: message.into() }
}

/// Everything that the controller can be told, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Folder of all that this controller keeps.
    pub(crate) data: PathBuf,
    pub(crate) http: Http,
    pub(crate) agents: Agents,
    pub(crate) people: People,
    /// The providers by which people may log in, by name.
    pub(crate) oidc: Vec<OidcProvider>,
    pub(crate) timing: Timing,
    pub(crate) database: Database,
    pub(crate) audit: Audit,
    pub(crate) safety: Safety,
    pub(crate) egress: Egress,
    pub(crate) log: Log,
}

/// How people get in.
#[derive(Debug, Clone)]
pub(crate) struct People {
    /// Everybody who reaches the API may become a member of the home organization, without any role.
    pub(crate) registration: bool,
}

/// The agents' door.
#[derive(Debug, Clone)]
pub(crate) struct Agents {
    pub(crate) listen: SocketAddr,
    /// `HOST:PORT` by which agents reach this door; they are told of it.
    pub(crate) announce: Option<String>,
    pub(crate) certificate_life: Duration,
    /// Two controllers on one database need the same.
    pub(crate) dispatch_key_life: Duration,
}

/// How long things may take before they count as over. Two controllers on one database need the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// How long after it was signed an order may start.
    pub(crate) start_window: Duration,
    /// How far two clocks may be apart.
    pub(crate) clock_skew: Duration,
    /// How long an agent may be away before its running attempts count as lost.
    pub(crate) lost_after: Duration,
    /// How often an agent says that it is there.
    pub(crate) heartbeat: Duration,
    /// How long it may say nothing before its session ends.
    pub(crate) silence: Duration,
    /// How long a controller that is gone keeps its sessions.
    pub(crate) lease: Duration,
}

impl Timing {
    /// After this nobody starts an order any more: its window is over, whatever the two clocks say.
    pub(crate) const fn answer_within(&self) -> Duration {
        self.start_window.saturating_add(self.clock_skew.saturating_mul(2))
    }

    /// After this an answer has been heard that was given in time: a link that is stalled, or a controller that stands still,
    /// may keep one back for as long as its session still looks alive.
    pub(crate) const fn answer_heard_within(&self) -> Duration {
        self.answer_within().saturating_add(self.silence).saturating_add(self.lease)
    }

    /// What an attempt may take besides its run's own timeout: to begin, to be ended and killed, and to be reported.
    pub(crate) const fn attempt_margin(&self) -> Duration {
        self.answer_within()
            .saturating_add(limits::KILL_GRACE)
            .saturating_add(limits::KILL_WITHIN)
            .saturating_add(self.lost_after)
    }

    fn read(layer: TimingLayer) -> Result<Self, ConfigError> {
        let one = |key, text, default| duration(key, text, default, TIMING);
        let start_window = one("[timing] start_window", layer.start_window, limits::START_WINDOW)?;
        let clock_skew = one("[timing] clock_skew", layer.clock_skew, limits::CLOCK_SKEW)?;
        // An order that was signed just before the agent went away must have become worthless by then.
        let lost_bounds = [start_window + clock_skew, MAX_LOST_AFTER];
        let lost_after = duration("[timing] lost_after", layer.lost_after, limits::LOST_AFTER, lost_bounds)?;
        let heartbeat = one("[timing] heartbeat", layer.heartbeat, limits::HEARTBEAT_EVERY)?;
        let silence = one("[timing] silence", layer.silence, limits::SESSION_SILENCE)?;
        if silence < heartbeat * 2 {
            return Err(wrong("[timing] silence", "must be twice the heartbeat at least"));
        }
        let lease = one("[timing] lease", layer.lease, limits::LEASE)?;
        Ok(Self { start_window, clock_skew, lost_after, heartbeat, silence, lease })
    }

    fn table(&self) -> toml::Table {
        [
            ("start_window", self.start_window),
            ("clock_skew", self.clock_skew),
            ("lost_after", self.lost_after),
            ("heartbeat", self.heartbeat),
            ("silence", self.silence),
            ("lease", self.lease),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), duration_text(value).into()))
        .collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    /// Directives as `info,sqlx=warn`.
    pub(crate) level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Human,
    Json,
}

/// One layer: what it says, nothing more.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Layer {
    pub(crate) data: Option<PathBuf>,
    pub(crate) http: HttpLayer,
    pub(crate) agents: AgentsLayer,
    pub(crate) people: PeopleLayer,
    pub(crate) oidc: OidcLayer,
    pub(crate) timing: TimingLayer,
    pub(crate) database: DatabaseLayer,
    pub(crate) audit: AuditLayer,
    pub(crate) safety: SafetyLayer,
    pub(crate) egress: EgressLayer,
    pub(crate) log: LogLayer,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AgentsLayer {
    pub(crate) listen: Option<String>,
    pub(crate) announce: Option<String>,
    pub(crate) certificate_life: Option<String>,
    pub(crate) dispatch_key_life: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PeopleLayer {
    #[serde(deserialize_with = "flag")]
    pub(crate) registration: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TimingLayer {
    pub(crate) start_window: Option<String>,
    pub(crate) clock_skew: Option<String>,
    pub(crate) lost_after: Option<String>,
    pub(crate) heartbeat: Option<String>,
    pub(crate) silence: Option<String>,
    pub(crate) lease: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogLayer {
    pub(crate) format: Option<LogFormat>,
    pub(crate) level: Option<String>,
}

/// A boolean, or the text of one: the environment has nothing but texts.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Text(String),
    }
    match Flag::deserialize(deserializer)? {
        Flag::Bool(value) => Ok(Some(value)),
        Flag::Text(text) => text
            .parse()
            .map(Some)
            .map_err(|_| serde::de::Error::custom(format!("'{text}' is neither true nor false"))),
    }
}

impl Layer {
    fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Layer {
            origin: path.display().to_string(),
            message: toml_message(&error, &text),
        })
    }

    /// What the variables say. Each is read by itself, so that an error names it.
    fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut all = Self::default();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            let name = name.to_ascii_lowercase();
            let table = match name.split_once("__") {
                Some((section, key)) if SECTIONS.contains(&section) => {
                    let inner = toml::Table::from_iter([(key.to_owned(), toml::Value::String(value))]);
                    toml::Table::from_iter([(section.to_owned(), toml::Value::Table(inner))])
                }
                None if name == "data" => toml::Table::from_iter([(name, toml::Value::String(value))]),
                _ => continue,
            };
            let layer = table.try_into::<Self>().map_err(|error| ConfigError::Layer {
                origin: variable,
                message: error.message().to_owned(),
            })?;
            all = all.under(layer);
        }
        Ok(all)
    }

    /// Both, `above` winning.
    fn under(self, above: Self) -> Self {
        Self {
            data: above.data.or(self.data),
            http: self.http.under(above.http),
            agents: AgentsLayer {
                listen: above.agents.listen.or(self.agents.listen),
                announce: above.agents.announce.or(self.agents.announce),
                certificate_life: above.agents.certificate_life.or(self.agents.certificate_life),
                dispatch_key_life: above.agents.dispatch_key_life.or(self.agents.dispatch_key_life),
            },
            oidc: if above.oidc.is_empty() { self.oidc } else { above.oidc },
            people: PeopleLayer { registration: above.people.registration.or(self.people.registration) },
            timing: TimingLayer {
                start_window: above.timing.start_window.or(self.timing.start_window),
                clock_skew: above.timing.clock_skew.or(self.timing.clock_skew),
                lost_after: above.timing.lost_after.or(self.timing.lost_after),
                heartbeat: above.timing.heartbeat.or(self.timing.heartbeat),
                silence: above.timing.silence.or(self.timing.silence),
                lease: above.timing.lease.or(self.timing.lease),
            },
            database: self.database.under(above.database),
            audit: self.audit.under(above.audit),
            safety: self.safety.under(above.safety),
            egress: self.egress.under(above.egress),
            log: LogLayer {
                format: above.log.format.or(self.log.format),
                level: above.log.level.or(self.log.level),
            },
        }
    }
}

/// What is wrong and in which line; never the line itself, which may hold a password.
fn toml_message(error: &toml::de::Error, text: &str) -> String {
    match error.span() {
        Some(span) => {
            let line = text.get(..span.start).unwrap_or(text).matches('\n').count() + 1;
            format!("line {line}: {}", error.message())
        }
        None => error.message().to_owned(),
    }
}

impl Config {
    /// Reads the layers and checks what they say together.
    ///
    /// # Errors
    /// The first thing that is wrong, by the name of its key and of where it was said.
    pub(crate) fn read(file: Option<&Path>, flags: Layer) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) => Layer::from_file(path)?,
            None if Path::new(DEFAULT_FILE).exists() => Layer::from_file(Path::new(DEFAULT_FILE))?,
            None => Layer::default(),
        };
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::check(file.under(Layer::from_environment(variables)?).under(flags))
    }

    fn check(layer: Layer) -> Result<Self, ConfigError> {
        let http = Http::read(layer.http)?;
        let agents = Agents {
            listen: address("[agents] listen", layer.agents.listen, "0.0.0.0:7443")?,
            certificate_life: duration(
                "[agents] certificate_life",
                layer.agents.certificate_life,
                limits::AGENT_CERTIFICATE_LIFE,
                CERTIFICATE_LIFE,
            )?,
            announce: layer.agents.announce.map(announce).transpose()?,
            dispatch_key_life: duration(
                "[agents] dispatch_key_life",
                layer.agents.dispatch_key_life,
                limits::DISPATCH_KEY_LIFE,
                DISPATCH_KEY_LIFE,
            )?,
        };
        let timing = Timing::read(layer.timing)?;
        let database = Database::read(layer.database)?;
        let audit = Audit::read(layer.audit)?;
        let safety = Safety::read(&layer.safety)?;
        let egress = Egress::read(layer.egress)?;
        let level = layer.log.level.unwrap_or_else(|| DEFAULT_LEVEL.to_owned());
        tracing_subscriber::EnvFilter::try_new(&level)
            .map_err(|error| wrong("[log] level", format!("'{level}' is not understood: {error}")))?;
        let log = Log { format: layer.log.format.unwrap_or_default(), level };
        let data = layer.data.unwrap_or_else(|| DEFAULT_DATA.into());
        if data.as_os_str().is_empty() {
            return Err(wrong("data", "is empty"));
        }
        let data = std::path::absolute(&data).map_err(|error| wrong("data", error.to_string()))?;
        let people = People { registration: layer.people.registration.unwrap_or(false) };
        let oidc = oidc::read(layer.oidc, http.url.as_deref())?;
        Ok(Self { data, http, agents, people, oidc, timing, database, audit, safety, egress, log })
    }

    /// The configuration as its file would say it, without secrets.
    pub(crate) fn redacted(&self) -> String {
        let mut agents = toml::Table::new();
        agents.insert("listen".into(), self.agents.listen.to_string().into());
        if let Some(announce) = &self.agents.announce {
            agents.insert("announce".into(), announce.clone().into());
        }
        agents.insert("certificate_life".into(), duration_text(self.agents.certificate_life).into());
        agents.insert("dispatch_key_life".into(), duration_text(self.agents.dispatch_key_life).into());
        let mut log = toml::Table::new();
        let format = if self.log.format == LogFormat::Json { "json" } else { "human" };
        log.insert("format".into(), format.into());
        log.insert("level".into(), self.log.level.clone().into());

        let mut all = toml::Table::new();
        all.insert("data".into(), self.data.display().to_string().into());
        let sections = [
            ("http", self.http.table()),
            ("agents", agents),
            (
                "people",
                toml::Table::from_iter([("registration".to_owned(), self.people.registration.into())]),
            ),
            ("oidc", oidc::table(&self.oidc)),
            ("timing", self.timing.table()),
            ("database", self.database.table()),
            ("audit", self.audit.table()),
            ("safety", self.safety.table()),
            ("egress", self.egress.table()),
            ("log", log),
        ];
        for (name, section) in sections.into_iter().filter(|(_, section)| !section.is_empty()) {
            all.insert(name.into(), section.into());
        }
        let source =
            if self.database.external.is_some() { "" } else { "# no [database] url: a private Postgres\n" };
        format!("{source}{all}")
    }
}

fn address(key: &'static str, text: Option<String>, default: &str) -> Result<SocketAddr, ConfigError> {
    let text = text.unwrap_or_else(|| default.to_owned());
    text.parse().map_err(|_| {
        wrong(key, format!("'{text}' is not an address with a port, as 127.0.0.1:8080 or [::1]:8080"))
    })
}

/// Whether this is `https://HOST…`, or `http://` at this machine itself: a whole address without a query.
fn is_web_address(text: &str) -> bool {
    let (host, is_safe) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return false,
    };
    let host = host.split('/').next().unwrap_or_default();
    let is_local = ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|local| host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')));
    let is_plain = |c: char| c.is_ascii_graphic() && !"?#@\\\"<>".contains(c);
    !host.is_empty() && (is_safe || is_local) && text.chars().all(is_plain)
}

/// An address that agents can connect to: a host and a port that is not 0.
fn announce(text: String) -> Result<String, ConfigError> {
    let is_good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        port.parse::<u16>().is_ok_and(|port| port != 0)
            && rustls::pki_types::ServerName::try_from(host).is_ok()
            && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    });
    if is_good {
        Ok(text)
    } else {
        let message =
            format!("'{text}' is not an address that agents can connect to, as controller-1.example:7443");
        Err(wrong("[agents] announce", message))
    }
}

fn duration(
    key: &'static str,
    text: Option<String>,
    default: Duration,
    [shortest, longest]: [Duration; 2],
) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    let duration = SignedDuration::from_str(&text)
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| wrong(key, format!("'{text}' is not a duration, as 90s, 5m or 24h")))?;
    if duration < shortest || duration > longest {
        let (shortest, longest) = (duration_text(shortest), duration_text(longest));
        return Err(wrong(key, format!("{text} is outside of what is allowed, {shortest} to {longest}")));
    }
    Ok(duration)
}

fn duration_text(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{}s", duration.as_secs()), |text| format!("{text:#}"))
}

#[cfg(test)]
mod tests;
