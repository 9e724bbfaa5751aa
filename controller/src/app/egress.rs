//! What leaves the controller for other servers because a job asks for it.
//!
//! Invariant: it connects to public addresses alone that are none of its own networks, and to those that the configuration names. What a name means is looked up
//! once, and the address that was checked is the one that is connected to; no answer leads it anywhere else.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use model::{job::Ready, limits, network::Network};
use reqwest::{
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use url::Host;

use crate::config;

/// Addresses that lead to nobody on the Internet: this machine, its neighbours, tunnels to them, and what is kept for other
/// uses (RFC 6890 and the registries of special addresses that it made).
static SPECIAL: LazyLock<Vec<Network>> = LazyLock::new(|| {
    const TEXTS: [&str; 19] = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    ];
    TEXTS.iter().map(|text| text.parse().expect("it is a network")).collect()
});
/// Addresses of version 6 that are given to anybody; all others are special.
static GLOBAL_V6: LazyLock<Network> = LazyLock::new(|| "2000::/3".parse().expect("it is a network"));

/// The way out.
#[derive(Debug, Clone)]
pub(crate) struct Egress {
    gate: Arc<Gate>,
    client: reqwest::Client,
}

/// Which addresses may be reached.
#[derive(Debug)]
struct Gate {
    allow: Vec<Network>,
}

/// An answer, its body as far as it is of use.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) is_json: bool,
    /// At most `STEP_HTTP_TOLD_BYTES`.
    pub(crate) body: Vec<u8>,
    pub(crate) is_cut: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) why: String,
    pub(crate) is_late: bool,
    /// The next try would end as this one did.
    pub(crate) is_final: bool,
    /// It was not sent: what it asks for may not be reached from here.
    pub(crate) is_refused: bool,
}

impl Egress {
    /// # Errors
    /// When the certificates to believe cannot be read.
    pub(crate) fn new(config: &config::Egress) -> anyhow::Result<Self> {
        let gate = Arc::new(Gate { allow: config.allow.clone() });
        let mut client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            // One would connect to where it likes.
            .no_proxy()
            .dns_resolver(Arc::clone(&gate))
            .pool_max_idle_per_host(0)
            .user_agent(concat!("opsconductor/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &config.ca {
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
        }
        Ok(Self { gate, client: client.build()? })
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// When its server may not be reached, cannot be, or is not done within `within`.
    pub(crate) async fn send(&self, request: Ready, within: Duration) -> Result<Answer, Failed> {
        let address = match request.url.host() {
            Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
            Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
            _ => None,
        };
        if let Some(address) = address {
            self.gate.check(address).map_err(|why| Failed {
                why,
                is_late: false,
                is_final: true,
                is_refused: true,
            })?;
        }
        let method = reqwest::Method::from_bytes(request.method.as_str().as_bytes()).map_err(|error| {
            Failed { why: error.to_string(), is_late: false, is_final: true, is_refused: false }
        })?;
        let mut sent = self.client.request(method, request.url).timeout(within);
        for (name, value) in request.headers {
            sent = sent.header(name, value);
        }
        if let Some(body) = request.body {
            sent = sent.body(body);
        }
        let mut answer = sent.send().await.map_err(|error| Failed::of(&error))?;
        let is_json = answer
            .headers()
            .get(reqwest::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.split(';').next().unwrap_or_default().trim_end().ends_with("json"));
        let status = answer.status().as_u16();
        let (mut body, mut is_cut) = (Vec::new(), false);
        while let Some(chunk) = answer.chunk().await.map_err(|error| Failed::of(&error))? {
            let room = limits::STEP_HTTP_TOLD_BYTES - body.len();
            if chunk.len() > room {
                body.extend_from_slice(&chunk[..room]);
                is_cut = true;
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, is_json, body, is_cut })
    }
}

impl Failed {
    /// The whole chain of causes, without the address, which may hold what is secret.
    fn of(error: &reqwest::Error) -> Self {
        let is_late = error.is_timeout();
        let mut causes = Vec::new();
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
        let mut is_refused = false;
        while let Some(inner) = cause {
            is_refused |= inner.is::<NotAllowed>();
            causes.push(inner.to_string());
            cause = inner.source();
        }
        causes.dedup();
        let what = if error.is_connect() { "it cannot be reached" } else { "it did not answer" };
        let why = if is_late {
            "it did not answer in time".to_owned()
        } else {
            format!("{what}: {}", causes.join(": "))
        };
        Self { why, is_late, is_final: is_refused || error.is_builder(), is_refused }
    }
}

/// The networks of this machine's own interfaces, whatever addresses these have.
fn neighbours() -> Vec<Network> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let address = |storage: Option<nix::sys::socket::SockaddrStorage>| {
        let storage = storage?;
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    interfaces
        .filter_map(|interface| Some(Network::of(address(interface.address)?, address(interface.netmask)?)))
        .collect()
}

/// An address where nothing may be sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotAllowed(String);

impl Gate {
    fn check(&self, address: IpAddr) -> Result<(), String> {
        let address = address.to_canonical();
        let is_special = SPECIAL.iter().any(|network| network.contains(address))
            || address.is_ipv6() && !GLOBAL_V6.contains(address)
            || neighbours().iter().any(|network| network.contains(address));
        if !is_special || self.allow.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        Err(format!(
            "{address} is no public address, or a neighbour of the controller, and [egress] allow does not name it"
        ))
    }
}

impl Resolve for Gate {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = self.allow.clone();
        Box::pin(async move {
            let gate = Gate { allow };
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut refused = None;
            let mut allowed = Vec::with_capacity(found.len());
            for address in found {
                match gate.check(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(why) if allowed.is_empty() => Err(NotAllowed(why).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(allow: &[&str], address: &str) -> bool {
        let allow = allow.iter().map(|text| text.parse().unwrap()).collect();
        Gate { allow }.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn only_public_addresses_and_those_that_are_named() {
        for address in ["8.8.8.8", "192.0.1.1", "172.15.0.1", "172.32.0.1", "2600::1", "2001:4860:4860::8888"]
        {
            assert!(is_allowed(&[], address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:7f00:1::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_allowed(&[], address), "{address}");
        }
        assert!(is_allowed(&["127.0.0.0/8"], "127.0.0.1"));
        assert!(is_allowed(&["127.0.0.1"], "::ffff:127.0.0.1"));
        assert!(!is_allowed(&["127.0.0.1"], "127.0.0.2"));
        assert!(is_allowed(&["fd00::/8"], "fd12::1"));
    }
}
