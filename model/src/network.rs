//! Networks of addresses.

use std::{fmt, net::IpAddr, str::FromStr};

/// All addresses that begin with the same bits; a single one, when those are all of its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u32,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotANetwork {
    #[error("is neither an address nor a network such as 10.1.0.0/16 or fd00::/8")]
    Shape,
    #[error("has bits set behind its first {0}")]
    BitsBehind(u32),
}

impl Network {
    /// The network of this address and mask.
    pub fn of(address: IpAddr, mask: IpAddr) -> Self {
        let bits = match mask {
            IpAddr::V4(mask) => u32::from(mask).leading_ones(),
            IpAddr::V6(mask) => u128::from(mask).leading_ones(),
        };
        let bits = bits.min(width(address));
        Self { base: first(address, bits), bits }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.base.is_ipv4() && first(address, self.bits) == self.base
    }

    /// It has every address of its kind.
    pub const fn is_everything(&self) -> bool {
        self.bits == 0
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(head, bits)| (head, Some(bits)));
        let base: IpAddr = address.parse().map_err(|_| NotANetwork::Shape)?;
        let bits = match bits {
            None => width(base),
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width(base)).ok_or(NotANetwork::Shape)?,
        };
        if first(base, bits) != base {
            return Err(NotANetwork::BitsBehind(bits));
        }
        Ok(Self { base, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == width(self.base) {
            return self.base.fmt(f);
        }
        write!(f, "{}/{}", self.base, self.bits)
    }
}

const fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address with all behind its first `bits` bits set to zero.
pub fn first(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            IpAddr::from((v4.to_bits() & u32::MAX.checked_shl(32 - bits).unwrap_or(0)).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            IpAddr::from((v6.to_bits() & u128::MAX.checked_shl(128 - bits).unwrap_or(0)).to_be_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn networks_hold_what_begins_like_them() {
        for (network, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.0.0.5", "10.0.0.5", "10.0.0.4"),
            ("10.0.0.5", "::ffff:10.0.0.5", "::10.0.0.5"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
        ] {
            let parsed: Network = network.parse().expect(network);
            assert!(parsed.contains(ip(inside)) && !parsed.contains(ip(outside)), "{network}");
            assert_eq!(parsed.to_string(), network);
        }
        for bad in ["", "10.1.0.0/", "10.1.0.0/33", "10.1.0.0/-1", "x/8", "::/129", "10.1.0.0/16/8", " ::1"] {
            assert_eq!(bad.parse::<Network>(), Err(NotANetwork::Shape), "{bad}");
        }
        assert_eq!("10.1.0.1/16".parse::<Network>(), Err(NotANetwork::BitsBehind(16)));
        assert_eq!("::1/0".parse::<Network>(), Err(NotANetwork::BitsBehind(0)));
    }
}
