//! Addresses of clients: as what they are counted.

use std::net::IpAddr;

use model::network::first;

/// Whoever has one IPv6 address has the 2^64 of its network: they count as one.
const COUNTED_V6_BITS: u32 = 64;

/// What a limit of an address is counted by; every such limit uses this.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        v6 @ IpAddr::V6(_) => first(v6, COUNTED_V6_BITS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_ipv6_network_of_64_bits_counts_as_one_address() {
        let one = counted(ip("2001:db8:1:2::1"));
        assert_eq!(one, counted(ip("2001:db8:1:2:ffff:ffff:ffff:ffff")));
        assert_ne!(one, counted(ip("2001:db8:1:3::1")));
        assert_eq!(counted(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
        assert_ne!(counted(ip("192.0.2.1")), counted(ip("192.0.2.2")));
    }
}
