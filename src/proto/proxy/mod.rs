//! The PROXY protocol: a header at the begin of a connection says whose connection it is.
//!
//! Pure; runs on workers (a client's header is read, a server's is written) and on the control thread (checks).
//! Version 1 is a line of text, version 2 is binary and may have TLVs.
//!
//! What is valid follows HAProxy's `conn_recv_proxy`, and the protocol's document where HAProxy differs from it:
//! docs/differences.md has the rows. Invariant: [`parse`] never asks for more than [`HEADER_MAX`] bytes, and its answer
//! for a longer input is the same.

mod crc32c;
mod v1;
mod v2;

pub use v2::{Tlv, Tlvs};

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Longest header: HAProxy's buffer, which has to hold it.
pub const HEADER_MAX: usize = 16_384;

/// Longest value of a TLV, as in HAProxy.
pub const TLV_VALUE_MAX: usize = 1024;

/// The types of TLVs that rlb knows.
pub mod tlv {
    /// The name that the client asked for. At most 255 bytes, as in HAProxy.
    pub const AUTHORITY: u8 = 0x02;
    /// A checksum of the header.
    pub const CRC32C: u8 = 0x03;
    /// Has no meaning; used for padding.
    pub const NOOP: u8 = 0x04;
    /// A number of the connection. At most 128 bytes.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The network namespace that the client has connected to.
    pub const NETNS: u8 = 0x30;
}

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// The content of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// Whose connection it is. `None`: that of the sender itself, whose real address is kept.
    pub addresses: Option<Addresses>,
    /// What version 2 says beside the addresses.
    pub tlvs: Tlvs<'a>,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// They do not begin as one.
    NotAHeader,
    /// They begin as one and are not valid.
    Invalid,
    /// Version 1 of another protocol than TCP.
    OtherProtocol,
}

impl Problem {
    /// HAProxy's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotAHeader => {
                "Received something which does not look like a PROXY protocol header"
            }
            Self::Invalid => "Received an invalid PROXY protocol header",
            Self::OtherProtocol => "Received an unhandled protocol in the PROXY protocol header",
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The begin of a header. It has at least so many bytes, which are more than there are.
    NeedMore(usize),
    /// A header of so many bytes. The connection's own bytes follow.
    Done(Header<'a>, usize),
    /// No header.
    Refused(Problem),
}

/// Reads the header at the begin of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    if begins(bytes, v1::BEGIN) {
        v1::parse(bytes)
    } else if begins(bytes, &v2::SIGNATURE) {
        v2::parse(bytes)
    } else {
        Parsed::Refused(Problem::NotAHeader)
    }
}

/// Whether `bytes` are `begin` and more, or the first of its bytes.
fn begins(bytes: &[u8], begin: &[u8]) -> bool {
    let both = bytes.len().min(begin.len());
    bytes[..both] == begin[..both]
}

/// Appends a header of version 1 to `out`. Without `addresses` it says that they are not known.
pub fn write_v1(out: &mut Vec<u8>, addresses: Option<Addresses>) {
    v1::write(out, addresses);
}

/// Appends a header of version 2 to `out`. Without `addresses` it says that the connection is the sender's own. With
/// `crc` it ends with a checksum. `tlvs` that would make it longer than [`HEADER_MAX`] are left out.
pub fn write_v2<'a>(
    out: &mut Vec<u8>,
    addresses: Option<Addresses>,
    tlvs: impl Iterator<Item = Tlv<'a>>,
    crc: bool,
) {
    v2::write(out, addresses, tlvs, crc);
}

/// The addresses as of one family. If one is of IPv6, the other becomes the IPv6 address that stands for it.
fn of_one_family(addresses: Addresses) -> Addresses {
    let Addresses {
        source,
        destination,
    } = addresses;
    if source.is_ipv4() == destination.is_ipv4() {
        return addresses;
    }
    Addresses {
        source: mapped(source),
        destination: mapped(destination),
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

#[cfg(test)]
mod tests;
