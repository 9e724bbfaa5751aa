//! `[http] trusted_proxies`: whose word counts for whence a request is.

use std::net::IpAddr;

use model::{limits, network::Network};

use super::{ConfigError, wrong};

const KEY: &str = "[http] trusted_proxies";

/// Addresses of proxies, or networks of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(Vec<Network>);

impl Proxies {
    pub(super) fn read(texts: Option<Vec<String>>) -> Result<Self, ConfigError> {
        let texts = texts.unwrap_or_default();
        if texts.len() > limits::TRUSTED_PROXIES {
            let message = format!("has more than {} (TRUSTED_PROXIES) of them", limits::TRUSTED_PROXIES);
            return Err(wrong(KEY, message));
        }
        let networks = texts.iter().map(|text| match text.parse::<Network>() {
            Ok(network) if network.is_everything() => {
                Err(wrong(KEY, format!("'{text}' is everybody: name the proxies")))
            }
            Ok(network) => Ok(network),
            Err(why) => Err(wrong(KEY, format!("'{text}' {why}"))),
        });
        Ok(Self(networks.collect::<Result<_, _>>()?))
    }

    #[cfg(test)]
    pub(crate) fn of(texts: &[&str]) -> Self {
        Self::read(Some(texts.iter().map(|text| (*text).to_owned()).collect())).expect("they are good")
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.0.iter().map(Network::to_string).collect()
    }

    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whence a request is that `peer` brings, which says `forwarded` (`X-Forwarded-For`): of what its proxies have written, the
    /// last address that is not one of ours. Whatever stands before that anybody may have written. What cannot be read counts
    /// for nothing.
    pub(crate) fn client(&self, peer: IpAddr, forwarded: Option<&str>) -> IpAddr {
        let (true, Some(forwarded)) = (self.has(peer), forwarded) else { return peer };
        for hop in forwarded.rsplit(',').map(|hop| hop.trim().parse::<IpAddr>()) {
            match hop.map(|hop| hop.to_canonical()) {
                Ok(hop) if self.has(hop) => {}
                Ok(hop) => return hop,
                Err(_) => return peer,
            }
        }
        peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_proxies_say_whence_a_request_is() {
        let texts = ["10.0.0.5", "10.1.0.0/16", "2001:db8::/32"].map(str::to_owned).to_vec();
        let proxies = Proxies::read(Some(texts)).expect("they are good");
        let client = |peer: &str, said: Option<&str>| {
            proxies.client(peer.parse().expect("an address"), said).to_string()
        };
        for (peer, said, want) in [
            ("10.0.0.5", Some("192.0.2.7"), "192.0.2.7"),
            ("10.0.0.5", Some("6.6.6.6, 192.0.2.7"), "192.0.2.7"),
            ("10.0.0.5", Some("6.6.6.6, 192.0.2.7, 10.1.2.3"), "192.0.2.7"),
            ("10.0.0.5", Some("::ffff:192.0.2.7"), "192.0.2.7"),
            ("2001:db8:9::1", Some("2001:db9::1"), "2001:db9::1"),
            // From elsewhere nothing is believed.
            ("10.0.0.6", Some("192.0.2.7"), "10.0.0.6"),
            ("10.2.0.1", Some("192.0.2.7"), "10.2.0.1"),
            // What is strange neither.
            ("10.0.0.5", None, "10.0.0.5"),
            ("10.0.0.5", Some("192.0.2.7:80"), "10.0.0.5"),
            ("10.0.0.5", Some("unknown, 192.0.2.7"), "192.0.2.7"),
            ("10.0.0.5", Some("192.0.2.7, unknown"), "10.0.0.5"),
            ("10.0.0.5", Some("10.1.0.1"), "10.0.0.5"),
        ] {
            assert_eq!(client(peer, said), want, "{peer} {said:?}");
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        for bad in ["", "proxy", "10.0.0.0/33", "10.0.0.1/8", "0.0.0.0/0", "::/129", "10.0.0.5:80"] {
            let error = Proxies::read(Some(vec![bad.to_owned()])).expect_err(bad).to_string();
            assert!(error.contains(KEY) && error.contains(bad), "{error}");
        }
    }
}
