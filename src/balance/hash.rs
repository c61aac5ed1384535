//! The hashes by which HAProxy chooses a server. They are its own, bit for bit, so that clients stay at their servers
//! when one of two balancers is exchanged.

use std::net::IpAddr;

/// The hash of a client's address for `balance = "source"`: its words of 32 bits, joined by exclusive or. HAProxy uses
/// no function of `hash-type` here.
pub fn of_address(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let words = address.octets();
            words.chunks_exact(4).fold(0, |hash, word| {
                hash ^ word
                    .iter()
                    .fold(0, |word, byte| word << 8 | u32::from(*byte))
            })
        }
    }
}

/// Spreads a hash over all 32 bits (`avalanche`); also places the servers on a ring. It is one of Bob Jenkins' integer
/// hashes (<https://burtleburtle.net/bob/hash/integer.html>), multiplied by a prime number near three quarters of 2^32.
pub fn avalanche(hash: u32) -> u32 {
    let add = |hash: u32, constant: u32, shift: u32| {
        hash.wrapping_add(constant).wrapping_add(hash << shift)
    };
    let hash = add(hash, 0x7ed5_5d16, 12);
    let hash = (hash ^ 0xc761_c23c) ^ (hash >> 19);
    let hash = add(hash, 0x1656_67b1, 5);
    let hash = hash.wrapping_add(0xd3a2_646c) ^ (hash << 9);
    let hash = add(hash, 0xfd70_46c5, 3);
    let hash = (hash ^ 0xb55a_4f09) ^ (hash >> 16);
    hash.wrapping_mul(3_221_225_473)
}
