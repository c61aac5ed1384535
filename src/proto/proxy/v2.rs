//! Version 2: a signature, a command, the addresses and TLVs, all binary.

use super::crc32c::crc32c;
use super::{
    Addresses, HEADER_MAX, Header, Parsed, Problem, TLV_VALUE_MAX, mapped, of_one_family, tlv,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How each header begins.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, the command, the family and the length of the rest.
const FIXED: usize = 16;

const VERSION: u8 = 0x20;
const LOCAL: u8 = VERSION;
const PROXY: u8 = VERSION | 1;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

const CRC32C_LEN: usize = 4;
/// Type and length of a TLV.
const TLV_FIXED: usize = 3;
/// Longest authority, as in HAProxy.
const AUTHORITY_MAX: usize = 255;
/// Longest unique id, as in HAProxy.
const UNIQUE_ID_MAX: usize = 128;

/// One TLV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// Its type.
    pub kind: u8,
    /// Its value.
    pub value: &'a [u8],
}

/// TLVs, one behind the other as in a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tlvs<'a>(&'a [u8]);

impl<'a> Tlvs<'a> {
    /// Those in `bytes`, up to the first that is cut off.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// As they are in a header.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        let (fixed, rest) = self.0.split_first_chunk::<TLV_FIXED>()?;
        let length = usize::from(u16::from_be_bytes([fixed[1], fixed[2]]));
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Tlv {
            kind: fixed[0],
            value,
        })
    }
}

/// Reads a header that begins with the signature, or with the first bytes of it.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some(fixed) = bytes.first_chunk::<FIXED>() else {
        return Parsed::NeedMore(FIXED);
    };
    if fixed[12] & 0xF0 != VERSION {
        return Parsed::Refused(Problem::NotAHeader);
    }
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > HEADER_MAX {
        return Parsed::Refused(Problem::Invalid);
    }
    let Some(header) = bytes.get(..length) else {
        return Parsed::NeedMore(length);
    };
    match content(header) {
        Some(content) => Parsed::Done(content, length),
        None => Parsed::Refused(Problem::Invalid),
    }
}

/// The content of a whole header; `None` when it is not valid.
fn content(header: &[u8]) -> Option<Header<'_>> {
    let (command, family) = (header[12], header[13]);
    let body = &header[FIXED..];
    // One of an unspecified family has TLVs alone.
    let size = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        // That of LOCAL is to be ignored.
        _ if command == LOCAL => 0,
        _ => return None,
    };
    let (block, tlvs) = match command {
        PROXY => body.split_at_checked(size)?,
        // Its addresses are to be ignored, and HAProxy's LOCAL has none.
        LOCAL => body.split_at_checked(size).unwrap_or((&[], body)),
        _ => return None,
    };
    check_tlvs(header, tlvs)?;
    let addresses = match (command, family) {
        (PROXY, TCP4) => Some(v4(block)?),
        (PROXY, TCP6) => Some(v6(block)?),
        // Of a family that is not TCP the sender's real address is kept.
        _ => None,
    };
    let tlvs = Tlvs(tlvs);
    Some(Header { addresses, tlvs })
}

fn v4(block: &[u8]) -> Option<Addresses> {
    let (source, rest) = block.split_first_chunk::<4>()?;
    let (destination, ports) = rest.split_first_chunk::<4>()?;
    let (source, destination) = (Ipv4Addr::from(*source), Ipv4Addr::from(*destination));
    with_ports(source.into(), destination.into(), ports)
}

fn v6(block: &[u8]) -> Option<Addresses> {
    let (source, rest) = block.split_first_chunk::<16>()?;
    let (destination, ports) = rest.split_first_chunk::<16>()?;
    let (source, destination) = (Ipv6Addr::from(*source), Ipv6Addr::from(*destination));
    with_ports(source.into(), destination.into(), ports)
}

fn with_ports(source: IpAddr, destination: IpAddr, ports: &[u8]) -> Option<Addresses> {
    let ports = ports.first_chunk::<4>()?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some(Addresses {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
    })
}

/// Whether the TLVs of `header` fill what is there for them, and each is valid.
fn check_tlvs(header: &[u8], tlvs: &[u8]) -> Option<()> {
    let mut left = Tlvs(tlvs);
    let mut summed = false;
    while !left.0.is_empty() {
        let tlv = left.next()?;
        let valid = match tlv.kind {
            tlv::AUTHORITY => tlv.value.len() <= AUTHORITY_MAX,
            tlv::UNIQUE_ID => tlv.value.len() <= UNIQUE_ID_MAX,
            tlv::CRC32C => !std::mem::replace(&mut summed, true) && is_sum(header, left.0, tlv),
            _ => tlv.value.len() <= TLV_VALUE_MAX,
        };
        if !valid {
            return None;
        }
    }
    Some(())
}

/// Whether `tlv` is the checksum of `header`, in which `rest` follows it.
fn is_sum(header: &[u8], rest: &[u8], tlv: Tlv<'_>) -> bool {
    let Ok(sum) = <[u8; CRC32C_LEN]>::try_from(tlv.value) else {
        return false;
    };
    // It is the sum with zeros in its place.
    let before = &header[..header.len() - rest.len() - CRC32C_LEN];
    let parts = [before, &[0; CRC32C_LEN], rest];
    u32::from_be_bytes(sum) == crc32c(&parts)
}

/// Appends the header.
pub(super) fn write<'a>(
    out: &mut Vec<u8>,
    addresses: Option<Addresses>,
    tlvs: impl Iterator<Item = Tlv<'a>>,
    crc: bool,
) {
    let begin = out.len();
    out.extend_from_slice(&SIGNATURE);
    match addresses.map(of_one_family) {
        None => out.extend_from_slice(&[LOCAL, 0, 0, 0]),
        Some(addresses) => write_addresses(out, addresses),
    }
    let reserved = if crc { TLV_FIXED + CRC32C_LEN } else { 0 };
    for tlv in tlvs {
        let length = out.len() - begin + TLV_FIXED + tlv.value.len() + reserved;
        let Ok(size) = u16::try_from(tlv.value.len()) else {
            continue;
        };
        if length <= HEADER_MAX {
            out.push(tlv.kind);
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(tlv.value);
        }
    }
    if crc {
        out.extend_from_slice(&[tlv::CRC32C, 0, 4, 0, 0, 0, 0]);
    }
    let length = u16::try_from(out.len() - begin - FIXED).expect("at most HEADER_MAX");
    out[begin + 14..begin + FIXED].copy_from_slice(&length.to_be_bytes());
    if crc {
        let sum = crc32c(&[&out[begin..]]).to_be_bytes();
        let end = out.len();
        out[end - CRC32C_LEN..].copy_from_slice(&sum);
    }
}

/// Appends what follows the signature, up to the TLVs. The length is not known yet.
fn write_addresses(out: &mut Vec<u8>, addresses: Addresses) {
    let (source, destination) = (addresses.source, addresses.destination);
    if let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) {
        out.extend_from_slice(&[PROXY, TCP4, 0, 0]);
        out.extend_from_slice(&from.octets());
        out.extend_from_slice(&to.octets());
    } else {
        out.extend_from_slice(&[PROXY, TCP6, 0, 0]);
        for address in [source, destination] {
            if let IpAddr::V6(ip) = mapped(address).ip() {
                out.extend_from_slice(&ip.octets());
            }
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}
