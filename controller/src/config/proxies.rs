//! `[http] trusted_proxies`: whose word counts for whence a request is.

use std::net::IpAddr;

use axum::http::HeaderMap;
use model::limits;

use super::{ConfigError, wrong};

const KEY: &str = "[http] trusted_proxies";
const HEADER: &str = "x-forwarded-for";

/// Addresses of proxies, or networks of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(Vec<Network>);

#[derive(Debug, Clone, Copy)]
struct Network {
    address: IpAddr,
    /// Bits that count.
    bits: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some(Self { address, bits })
    }

    fn has(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differ >= u32::from(self.bits)
    }
}

impl Proxies {
    pub(super) fn read(texts: Option<Vec<String>>) -> Result<Self, ConfigError> {
        let texts = texts.unwrap_or_default();
        if texts.len() > limits::TRUSTED_PROXIES {
            let message = format!("has more than {} (TRUSTED_PROXIES) of them", limits::TRUSTED_PROXIES);
            return Err(wrong(KEY, message));
        }
        let networks = texts.iter().map(|text| {
            let message = || format!("'{text}' is not an address or a network, as 10.0.0.5 or 10.1.0.0/16");
            Network::parse(text).ok_or_else(|| wrong(KEY, message()))
        });
        Ok(Self(networks.collect::<Result<_, _>>()?))
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.0.iter().map(|network| format!("{}/{}", network.address, network.bits)).collect()
    }

    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address))
    }

    /// Whence a request is that `peer` brings: of what its proxies have written, the last address that is not one of ours.
    /// Whatever stands before that anybody may have written. What cannot be read counts for nothing.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.has(peer) {
            return peer;
        }
        let mut values = headers.get_all(HEADER).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return peer };
        let hops: Option<Vec<IpAddr>> = value
            .to_str()
            .ok()
            .and_then(|text| text.split(',').map(|hop| hop.trim().parse::<IpAddr>().ok()).rev().collect());
        let mut hops = hops.unwrap_or_default().into_iter().map(|hop| hop.to_canonical());
        hops.find(|hop| !self.has(*hop)).unwrap_or(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_proxies_say_whence_a_request_is() {
        let texts = ["10.0.0.5", "10.1.0.0/16", "2001:db8::/32"].map(str::to_owned).to_vec();
        let proxies = Proxies::read(Some(texts)).expect("they are good");
        let client = |peer: &str, said: &[&str]| {
            let headers = said
                .iter()
                .map(|text| (axum::http::HeaderName::from_static(HEADER), text.parse().expect("a header")));
            let address = proxies.client(peer.parse().expect("an address"), &headers.collect());
            address.to_string()
        };
        for (peer, said, want) in [
            ("10.0.0.5", &["192.0.2.7"][..], "192.0.2.7"),
            ("10.0.0.5", &["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
            ("10.0.0.5", &["6.6.6.6, 192.0.2.7, 10.1.2.3"], "192.0.2.7"),
            ("10.0.0.5", &["::ffff:192.0.2.7"], "192.0.2.7"),
            ("2001:db8:9::1", &["2001:db9::1"], "2001:db9::1"),
            // From elsewhere nothing is believed.
            ("10.0.0.6", &["192.0.2.7"], "10.0.0.6"),
            ("10.2.0.1", &["192.0.2.7"], "10.2.0.1"),
            // What is strange neither.
            ("10.0.0.5", &[], "10.0.0.5"),
            ("10.0.0.5", &["192.0.2.7", "192.0.2.8"], "10.0.0.5"),
            ("10.0.0.5", &["192.0.2.7:80"], "10.0.0.5"),
            ("10.0.0.5", &["unknown, 192.0.2.7"], "10.0.0.5"),
            ("10.0.0.5", &["10.1.0.1"], "10.0.0.5"),
        ] {
            assert_eq!(client(peer, said), want, "{peer} {said:?}");
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        for bad in ["", "proxy", "10.0.0.0/33", "10.0.0.0/x", "::/129", "10.0.0.5:80"] {
            let error = Proxies::read(Some(vec![bad.to_owned()])).expect_err(bad).to_string();
            assert!(error.contains(KEY) && error.contains(bad), "{error}");
        }
    }
}
