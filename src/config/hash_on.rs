//! `hash-on`: what `balance = "hash"` hashes, as one of HAProxy's expressions. Pure.

use super::units::Problem;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is taken from a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// `src`: the client's address.
    Source,
    /// `dst`: the address that the client connected to.
    Destination,
    /// `dst_port`: the port that the client connected to.
    DestinationPort,
}

impl Sample {
    const ALL: [Self; 3] = [Self::Source, Self::Destination, Self::DestinationPort];

    const fn word(self) -> &'static str {
        match self {
            Self::Source => "src",
            Self::Destination => "dst",
            Self::DestinationPort => "dst_port",
        }
    }
}

/// `ipmask`: how many bits of an address are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mask {
    v4: u32,
    /// `None`: there is nothing to hash of an IPv6 address.
    v6: Option<u32>,
}

/// An expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashOn {
    /// What is taken from a session.
    pub sample: Sample,
    mask: Option<Mask>,
}

impl HashOn {
    /// `src`.
    pub const SOURCE: Self = Self {
        sample: Sample::Source,
        mask: None,
    };

    /// Reads an expression: `src`, `src,ipmask(24)`, `src,ipmask(24,64)`, `dst_port`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        const EXPECTED: &str = "write `src`, `dst` or `dst_port`, and `,ipmask(24)` or `,ipmask(24,64)` behind an address";
        let problem = |what: String| Problem::new(what).hint(EXPECTED);
        let text: String = text.split_whitespace().collect();
        let (word, rest) = match text.split_once(',') {
            Some((word, rest)) => (word, Some(rest)),
            None => (text.as_str(), None),
        };
        let sample = Sample::ALL.into_iter().find(|it| it.word() == word);
        let sample = sample.ok_or_else(|| problem(format!("rlb cannot hash `{word}`")))?;
        let Some(rest) = rest else {
            return Ok(Self { sample, mask: None });
        };
        let mask = mask(rest).filter(|_| sample != Sample::DestinationPort);
        let mask =
            mask.ok_or_else(|| problem(format!("`{rest}` is not possible behind `{word}`")))?;
        Ok(Self {
            sample,
            mask: Some(mask),
        })
    }

    /// What is hashed of an address: its bits within the mask. As in HAProxy, an IPv6 address that has an IPv4 one in it
    /// is masked as that. `None`: nothing.
    pub fn masked(&self, address: IpAddr) -> Option<IpAddr> {
        let Some(mask) = self.mask else {
            return Some(address);
        };
        let inner = match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => inner(address),
        };
        match (inner, address) {
            (Some(address), _) | (None, IpAddr::V4(address)) => {
                let bits = u32::MAX.checked_shl(32 - mask.v4).unwrap_or(0);
                Some(Ipv4Addr::from_bits(address.to_bits() & bits).into())
            }
            (None, IpAddr::V6(address)) => {
                let bits = u128::MAX.checked_shl(128 - mask.v6?).unwrap_or(0);
                Some(Ipv6Addr::from_bits(address.to_bits() & bits).into())
            }
        }
    }
}

impl fmt::Display for HashOn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.sample.word())?;
        match self.mask {
            None => Ok(()),
            Some(Mask { v4, v6: None }) => write!(out, ",ipmask({v4})"),
            Some(Mask { v4, v6: Some(v6) }) => write!(out, ",ipmask({v4},{v6})"),
        }
    }
}

/// `ipmask(24)`, `ipmask(255.255.255.0)`, `ipmask(24,64)`.
fn mask(text: &str) -> Option<Mask> {
    let numbers = text.strip_prefix("ipmask(")?.strip_suffix(')')?;
    let (v4, v6) = match numbers.split_once(',') {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (numbers, None),
    };
    let v4 = match v4.parse::<Ipv4Addr>() {
        Ok(mask) => length(u128::from(mask.to_bits()) << 96)?,
        Err(_) => v4.parse().ok()?,
    };
    let v6 = match v6.map(|v6| (v6.parse::<Ipv6Addr>(), v6)) {
        None => None,
        Some((Ok(mask), _)) => Some(length(mask.to_bits())?),
        Some((Err(_), v6)) => Some(v6.parse().ok()?),
    };
    (v4 <= 32 && v6.is_none_or(|v6| v6 <= 128)).then_some(Mask { v4, v6 })
}

/// The number of bits of a mask without gaps.
fn length(mask: u128) -> Option<u32> {
    let ones = mask.leading_ones();
    (mask.count_ones() == ones).then_some(ones)
}

/// The IPv4 address in an IPv6 address: mapped or compatible (RFC 4291), or of 6to4 (RFC 3056).
fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(expression: &str, address: &str) -> Option<String> {
        let address = address.parse().expect("an address");
        let hash_on = HashOn::parse(expression).expect("an expression");
        hash_on.masked(address).map(|it| it.to_string())
    }

    #[test]
    fn expressions_are_read_and_written() {
        for text in [
            "src",
            "dst",
            "dst_port",
            "src,ipmask(24)",
            "dst,ipmask(0,128)",
        ] {
            let read = HashOn::parse(text).map(|it| it.to_string());
            assert_eq!(read.as_deref(), Ok(text));
        }
        let read = HashOn::parse("src, ipmask(255.255.240.0, ffff:ff00::)");
        assert_eq!(
            read.map(|it| it.to_string()).as_deref(),
            Ok("src,ipmask(20,24)")
        );
        let wrong = [
            "",
            "req.len",
            "src,",
            "src,ipmask()",
            "src,ipmask(33)",
            "src,ipmask(24,129)",
            "src,ipmask(255.0.255.0)",
            "dst_port,ipmask(24)",
            "src,ipmask(24),ipmask(8)",
        ];
        for text in wrong {
            assert!(HashOn::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_masked_as_by_haproxy() {
        let expected = [
            ("src", "10.1.2.3", Some("10.1.2.3")),
            ("src,ipmask(24)", "10.1.2.3", Some("10.1.2.0")),
            ("src,ipmask(0)", "10.1.2.3", Some("0.0.0.0")),
            ("src,ipmask(32)", "10.1.2.3", Some("10.1.2.3")),
            ("src,ipmask(24)", "fd00::1", None),
            ("src,ipmask(24,48)", "fd00:1:2:3::4", Some("fd00:1:2::")),
            ("src,ipmask(24,128)", "fd00::1", Some("fd00::1")),
            ("src,ipmask(24)", "::ffff:10.1.2.3", Some("10.1.2.0")),
            ("src,ipmask(24)", "::10.1.2.3", Some("10.1.2.0")),
            ("src,ipmask(24)", "2002:0a01:0203::1", Some("10.1.2.0")),
        ];
        for (expression, address, result) in expected {
            assert_eq!(
                masked(expression, address).as_deref(),
                result,
                "{expression} {address}"
            );
        }
    }
}
