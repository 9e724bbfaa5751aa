//! Which controller to speak to, and with which token.
//!
//! Invariant: a stored token is only ever sent to the address that it was stored with. What is named on the command
//! line beats the environment, the environment beats the current context.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{args::Global, exit::Usage};

const DEFAULT_ADDR: &str = "http://127.0.0.1:8080";

/// An API token; it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// # Errors
    /// When it is empty, or could not stand in a header.
    pub(crate) fn parse(text: &str) -> Result<Self, Usage> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Usage("the API token is empty".to_owned()));
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Usage("the API token has characters that no token has".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself, for the one header that carries it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// The file of contexts. It is readable by its owner alone, because it has tokens in it.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Stored>,
}

/// One controller that the user has logged in to.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    pub(crate) addr: String,
    /// The only place where a token is written.
    pub(crate) token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// What the environment says; empty variables count as unset.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) addr: Option<String>,
    pub(crate) token: Option<String>,
    /// Where the file of contexts is.
    pub(crate) path: PathBuf,
}

impl Environment {
    /// # Errors
    /// When there is no home folder and `OPSCTL_CONFIG` is not set either.
    pub(crate) fn read() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = match (variable("OPSCTL_CONFIG"), variable("XDG_CONFIG_HOME"), variable("HOME")) {
            (Some(file), ..) => PathBuf::from(file),
            (None, Some(folder), _) => Path::new(&folder).join("opsctl/contexts.toml"),
            (None, None, Some(home)) => Path::new(&home).join(".config/opsctl/contexts.toml"),
            (None, None, None) => {
                return Err(
                    Usage("HOME is not set: say with OPSCTL_CONFIG where contexts are kept".into()).into()
                );
            }
        };
        Ok(Self { addr: variable("OPSC_ADDR"), token: variable("OPSC_TOKEN"), path })
    }
}

impl Contexts {
    /// A file that does not exist has no contexts.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        // The parser's own error would quote the line, which may have a token in it.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            Usage(format!("{} is not a file of contexts: {}", path.display(), error.message())).into()
        })
    }

    /// Replaces the file as a whole, so that a crash leaves the old one.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let what = || format!("cannot write {}", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut make = fs::DirBuilder::new();
        make.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
        make.create(folder).with_context(what)?;
        let name = path.file_name().with_context(what)?.to_string_lossy();
        let fresh = folder.join(format!(".{name}.{}", std::process::id()));
        let mut open = fs::OpenOptions::new();
        open.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
        let text = toml::to_string(self).with_context(what)?;
        let written = open.open(&fresh).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written.with_context(what)
    }

    /// # Errors
    /// Names the contexts that there are.
    pub(crate) fn get(&self, name: &str) -> Result<&Stored, Usage> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
            Usage(format!("there is no context '{name}' ({known}); 'opsctl login' makes one"))
        })
    }
}

/// The controller that an invocation speaks to.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) addr: Url,
    pub(crate) token: Option<Token>,
    pub(crate) ca_file: Option<PathBuf>,
}

impl Connection {
    /// Settles address, token and CA from flags, environment and contexts.
    ///
    /// # Errors
    /// When the address or token is not one, or a context or file that was named is not there.
    pub(crate) fn resolve(global: &Global, environment: &Environment, contexts: &Contexts) -> Result<Self> {
        let named = global.context.as_deref().map(|name| contexts.get(name)).transpose()?;
        let current = contexts.current.as_deref().and_then(|name| contexts.contexts.get(name));
        let addr = global
            .addr
            .as_deref()
            .or(named.map(|context| context.addr.as_str()))
            .or(environment.addr.as_deref())
            .or(current.map(|context| context.addr.as_str()))
            .unwrap_or(DEFAULT_ADDR);
        let addr = parse_addr(addr)?;
        let is_here = |context: &&Stored| parse_addr(&context.addr).is_ok_and(|other| other == addr);
        let named = named.filter(is_here);
        let here = named.or(current.filter(is_here)).or_else(|| contexts.contexts.values().find(is_here));
        let token = match (&global.token_file, named, &environment.token, here) {
            (Some(file), ..) => Some(read_token(file)?),
            (None, Some(context), ..) => Some(Token::parse(&context.token)?),
            (None, None, Some(token), _) => Some(Token::parse(token)?),
            (None, None, None, Some(context)) => Some(Token::parse(&context.token)?),
            (None, None, None, None) => None,
        };
        let ca_file = global.ca_file.clone().or_else(|| here.and_then(|context| context.ca_file.clone()));
        Ok(Self { addr, token, ca_file })
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.addr)
    }

    /// # Errors
    /// When there is a CA file and it cannot be read.
    pub(crate) fn read_ca(&self) -> Result<Option<Vec<u8>>> {
        let read = |path: &PathBuf| {
            fs::read(path)
                .map_err(|error| Usage(format!("cannot read the CA file {}: {error}", path.display())))
        };
        Ok(self.ca_file.as_ref().map(read).transpose()?)
    }
}

/// Does the address mean the host that we are on, whichever that is?
pub(crate) fn is_loopback(addr: &Url) -> bool {
    addr.host_str().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    })
}

fn read_token(path: &Path) -> Result<Token, Usage> {
    let text = fs::read_to_string(path)
        .map_err(|error| Usage(format!("cannot read the token file {}: {error}", path.display())))?;
    Token::parse(&text)
}

/// Reads the address of a controller.
///
/// # Errors
/// When it is not an http or https address, or has a user, query or fragment in it.
pub(crate) fn parse_addr(text: &str) -> Result<Url, Usage> {
    let like = |why: &str| Usage(format!("'{text}' is not the address of a controller: {why}"));
    let url = Url::parse(text).map_err(|error| like(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(like("it must begin with http:// or https://"));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(like("only scheme, host, port and path may be in it"));
    }
    Ok(url)
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
