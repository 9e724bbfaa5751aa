//! Which controller to speak to, and with which credential.
//!
//! Invariant: a stored credential is only ever sent to the address that it was stored with. What is named on the command
//! line beats the environment, the environment beats the current context.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use reqwest::Url;

use crate::{
    args::Global,
    exit::Usage,
    session::Keeper,
    stored::{Contexts, Stored},
};

const DEFAULT_ADDR: &str = "http://127.0.0.1:8080";

/// A token that somebody was given; it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// # Errors
    /// When it is empty, or could not stand in a header.
    pub(crate) fn parse(text: &str) -> Result<Self, Usage> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Usage("the token is empty".to_owned()));
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Usage("the token has characters that no token has".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself, to be sent.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
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

/// What an invocation shows the controller.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    ApiToken(Token),
    Session(Arc<Keeper>),
}

/// The controller that an invocation speaks to.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) addr: Url,
    pub(crate) credential: Option<Credential>,
    /// The context that the credential is stored in.
    pub(crate) context: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
}

impl Connection {
    /// Settles address, credential and CA from flags, environment and contexts.
    ///
    /// # Errors
    /// When the address or token is not one, or a context or file that was named is not there.
    pub(crate) fn resolve(global: &Global, environment: &Environment, contexts: &Contexts) -> Result<Self> {
        let entry = |name: &str| contexts.contexts.get_key_value(name);
        if let Some(name) = &global.context {
            contexts.get(name)?;
        }
        let named = global.context.as_deref().and_then(entry);
        let current = contexts.current.as_deref().and_then(entry);
        let addr = global
            .addr
            .as_deref()
            .or(named.map(|(_, context)| context.addr.as_str()))
            .or(environment.addr.as_deref())
            .or(current.map(|(_, context)| context.addr.as_str()))
            .unwrap_or(DEFAULT_ADDR);
        let addr = parse_addr(addr)?;
        let is_here =
            |(_, context): &(&String, &Stored)| parse_addr(&context.addr).is_ok_and(|other| other == addr);
        let named = named.filter(is_here);
        let here = named.or(current.filter(is_here)).or_else(|| contexts.contexts.iter().find(is_here));
        let given = match (&global.token_file, named, &environment.token) {
            (Some(file), ..) => Some(read_token(file)?),
            (None, None, Some(token)) => Some(Token::parse(token)?),
            (None, ..) => None,
        };
        let (credential, context) = match (given, here) {
            (Some(token), _) => (Some(Credential::ApiToken(token)), None),
            (None, Some((name, stored))) => {
                (stored_credential(environment, name, stored)?, Some(name.clone()))
            }
            (None, None) => (None, None),
        };
        let ca_file =
            global.ca_file.clone().or_else(|| here.and_then(|(_, context)| context.ca_file.clone()));
        Ok(Self { addr, credential, context, ca_file })
    }

    /// Where to enter anew: neither the context that is to be made nor the current one has a say in it.
    ///
    /// # Errors
    /// When the address is none.
    pub(crate) fn to_enter(global: &Global, environment: &Environment) -> Result<Self> {
        let addr = global.addr.as_deref().or(environment.addr.as_deref()).unwrap_or(DEFAULT_ADDR);
        let addr = parse_addr(addr)?;
        Ok(Self { addr, credential: None, context: None, ca_file: global.ca_file.clone() })
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

fn stored_credential(
    environment: &Environment,
    name: &str,
    stored: &Stored,
) -> Result<Option<Credential>, Usage> {
    Ok(match (&stored.session, &stored.token) {
        (Some(session), _) => {
            Some(Credential::Session(Keeper::new(environment.path.clone(), name, session.clone())))
        }
        (None, Some(token)) => Some(Credential::ApiToken(Token::parse(token)?)),
        (None, None) => None,
    })
}

/// # Errors
/// When the file cannot be read, or has no token in it.
pub(crate) fn read_token(path: &Path) -> Result<Token, Usage> {
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
