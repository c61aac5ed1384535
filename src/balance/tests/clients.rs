//! The addresses of the clients whose servers HAProxy has chosen. `tests/it/balance_source.rs` connects from them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The client with this number: of IPv4 on the loopback, or of IPv6 below `fd00:1::/32`.
pub(crate) fn client(number: u32) -> IpAddr {
    // The constant of Fibonacci hashing: neighbours are far apart.
    let spread = (number + 1).wrapping_mul(0x9e37_79b9);
    if number.is_multiple_of(2) {
        Ipv4Addr::from_bits(0x7f00_0000 | (spread >> 8)).into()
    } else {
        let low = u64::from(spread) << 32 | u64::from(number);
        Ipv6Addr::from_bits(0xfd00_0001 << 96 | u128::from(low)).into()
    }
}
