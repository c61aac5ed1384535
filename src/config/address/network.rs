//! A network: an address and the number of its bits that count. Pure.

use crate::config::units::Problem;
use std::fmt;
use std::net::IpAddr;

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `ip` is in it. An IPv4 address that stands in an IPv6 one is an IPv4 address, and is in the IPv6 networks of
    /// such addresses too (`::ffff:0:0/96`).
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let differ = u32::from(mine) ^ u32::from(other);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(mine), other) => {
                let other = match other {
                    IpAddr::V4(other) => other.to_ipv6_mapped(),
                    IpAddr::V6(other) => other,
                };
                let differ = u128::from(mine) ^ u128::from(other);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// As written.
impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.bits)
    }
}

/// A network as `10.0.0.0/8`, or an address, which is a network of one.
///
/// # Errors
/// The problem with it.
pub fn network(text: &str) -> Result<Network, Problem> {
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let problem = || {
        Problem::new(format!("`{text}` is not a network"))
            .hint("write \"10.0.0.0/8\", \"2001:db8::/32\" or an address")
    };
    let address: IpAddr = address.parse().map_err(|_| problem())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        "" if !text.contains('/') => most,
        _ if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
            bits.parse().map_err(|_| problem())?
        }
        _ => return Err(problem()),
    };
    if bits > most {
        return Err(Problem::new(format!("`{text}` has more than {most} bits")));
    }
    Ok(Network { address, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.255.0.1", "::1"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.1"),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("::1", "::1", "::2"),
            ("192.0.2.0/25", "192.0.2.127", "192.0.2.128"),
        ] {
            let found = network(text).unwrap();
            assert!(found.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(
                !found.contains(outside.parse().unwrap()),
                "{text} {outside}"
            );
        }
        assert!(
            network("::/0")
                .unwrap()
                .contains("10.0.0.1".parse().unwrap())
        );
        let all = network("0.0.0.0/0").unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        assert!(!all.contains("::2".parse().unwrap()));
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "a/8",
            "::1/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
