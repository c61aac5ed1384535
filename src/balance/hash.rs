//! The hashes by which HAProxy chooses a server. They are its own, bit for bit, so that clients stay at their servers
//! when one of two balancers is exchanged.

use crate::config::model::{HashFunction, HashKey};
use std::net::IpAddr;

/// The first places of two servers with neighbouring ids are so far apart on a ring before they are spread: the most
/// places that a server can have.
const PLACES_MAX: u32 = 256 * 16;

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

/// What is hashed of a session for `balance = "hash"`: the value of its `hash-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// An address, in network byte order.
    Address(IpAddr),
    /// A number, as 64 bits, the highest first.
    Number(u64),
}

/// The hash of `value` by a function of `hash-type`.
pub fn of_value(function: HashFunction, value: Value) -> u32 {
    match (function, value) {
        // A number in the place of a hash is cut to 32 bits.
        #[expect(clippy::cast_possible_truncation, reason = "as HAProxy does")]
        (HashFunction::None, Value::Number(number)) => number as u32,
        (HashFunction::None, Value::Address(address)) => leading_number(address),
        (_, Value::Number(number)) => of_bytes(function, &number.to_be_bytes()),
        (_, Value::Address(IpAddr::V4(address))) => of_bytes(function, &address.octets()),
        (_, Value::Address(IpAddr::V6(address))) => of_bytes(function, &address.octets()),
    }
}

fn of_bytes(function: HashFunction, bytes: &[u8]) -> u32 {
    let bytes = bytes.iter().map(|byte| u32::from(*byte));
    match function {
        HashFunction::Sdbm | HashFunction::None => bytes.fold(0_u32, |hash, byte| {
            byte.wrapping_add(hash << 6)
                .wrapping_add(hash << 16)
                .wrapping_sub(hash)
        }),
        HashFunction::Djb2 => bytes.fold(5381_u32, |hash, byte| {
            (hash << 5).wrapping_add(hash).wrapping_add(byte)
        }),
        HashFunction::Wt6 => wt6(bytes),
        HashFunction::Crc32 => !bytes.fold(u32::MAX, |hash, byte| {
            (0..8).fold(hash ^ byte, |hash, _| {
                (hash >> 1) ^ (hash & 1).wrapping_mul(0xedb8_8320)
            })
        }),
    }
}

/// HAProxy's `wt6`: two halves that are rotated by amounts which follow from themselves.
fn wt6(bytes: impl Iterator<Item = u32>) -> u32 {
    let (mut one, mut other) = (0xa53c_965a_u32, 0x5ca6_953a_u32);
    let (mut step, mut other_step) = (6, 18);
    for byte in bytes {
        let (first, second) = (!(one ^ byte), !other.wrapping_add(byte));
        one = second.rotate_left(step);
        other = first.rotate_left(other_step);
        let mixed = ((one >> 16) ^ other) & 0xffff;
        (step, other_step) = (mixed & 31, mixed >> 11);
    }
    one ^ other
}

/// The number that the text of an address begins with: without a function, HAProxy reads it as one.
fn leading_number(address: IpAddr) -> u32 {
    let address = match address {
        IpAddr::V4(address) => return u32::from(address.octets()[0]),
        IpAddr::V6(address) => address,
    };
    // The text of a group of zeros is a colon or 0.
    let group = address.segments()[0];
    let digits = [12, 8, 4, 0].map(|shift| u32::from(group >> shift & 15));
    let digits = digits.iter().skip_while(|digit| **digit == 0);
    let decimal = digits.take_while(|digit| **digit < 10);
    decimal.fold(0, |number, digit| number * 10 + digit)
}

/// The number from which a server's places on a ring follow. `address`: where it is, if it has an IP address; without
/// one its number decides.
pub fn of_server(key: HashKey, id: u32, address: Option<(IpAddr, u32)>) -> u32 {
    match (key, address) {
        (HashKey::Addr, Some((address, _))) => of_server_address(address, 0),
        (HashKey::AddrPort, Some((address, port))) => of_server_address(address, avalanche(port)),
        (HashKey::Id32, _) => avalanche(id.swap_bytes()),
        _ => id.wrapping_mul(PLACES_MAX),
    }
}

fn of_server_address(address: IpAddr, seed: u32) -> u32 {
    match address {
        IpAddr::V4(address) => avalanche(u32::from_le_bytes(address.octets()).wrapping_add(seed)),
        IpAddr::V6(address) => xxh32(address.octets(), seed),
    }
}

/// XXH32 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>) of 16 bytes, which need one round and have no
/// rest.
fn xxh32(bytes: [u8; 16], seed: u32) -> u32 {
    const PRIMES: [u32; 3] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d];
    let [one, two, three] = PRIMES;
    let starts = [
        seed.wrapping_add(one).wrapping_add(two),
        seed.wrapping_add(two),
        seed,
        seed.wrapping_sub(one),
    ];
    let lanes = bytes.chunks_exact(4).zip(starts).zip([1, 7, 12, 18]);
    let hash = lanes.fold(16_u32, |hash, ((lane, start), turn)| {
        let lane = lane
            .iter()
            .rev()
            .fold(0, |lane, byte| lane << 8 | u32::from(*byte));
        let lane = start.wrapping_add(lane.wrapping_mul(two));
        let lane = lane.rotate_left(13).wrapping_mul(one);
        hash.wrapping_add(lane.rotate_left(turn))
    });
    let hash = (hash ^ hash >> 15).wrapping_mul(two);
    let hash = (hash ^ hash >> 13).wrapping_mul(three);
    hash ^ hash >> 16
}
