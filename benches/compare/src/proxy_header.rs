//! PROXY headers of version 2, as HAProxy's `doc/proxy-protocol.txt` has them: what the load sends and the servers
//! read.

use crate::wire::HEADER;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The first bytes of every header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection of someone else.
const PROXIED: u8 = 0x21;
/// TCP over IPv4.
const TCP4: u8 = 0x11;
/// Two addresses and two ports.
const ADDRESSES: usize = 12;

/// The header of a connection of `client` to `server`.
pub fn of(client: SocketAddrV4, server: SocketAddrV4) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXIED, TCP4, 0, ADDRESSES as u8]);
    header.extend(client.ip().octets());
    header.extend(server.ip().octets());
    header.extend(client.port().to_be_bytes());
    header.extend(server.port().to_be_bytes());
    header
}

/// Whether a connection whose first bytes these are begins with a header.
pub fn begins(first: [u8; HEADER]) -> bool {
    first.starts_with(&SIGNATURE)
}

/// How many bytes follow the first ones of a header.
pub fn rest(first: [u8; HEADER]) -> usize {
    usize::from(u16::from_be_bytes([first[14], first[15]]))
}

/// The client that a header names; `None` when it names nobody, as that of a health check.
pub fn source(first: [u8; HEADER], rest: &[u8]) -> Option<SocketAddrV4> {
    if first[12] != PROXIED || first[13] != TCP4 || rest.len() < ADDRESSES {
        return None;
    }
    let address = Ipv4Addr::new(rest[0], rest[1], rest[2], rest[3]);
    Some(SocketAddrV4::new(
        address,
        u16::from_be_bytes([rest[8], rest[9]]),
    ))
}

#[cfg(test)]
mod tests {
    use super::{begins, of, rest, source};
    use crate::wire::{HEADER, Request};

    #[test]
    fn a_header_names_its_client() {
        let client = "198.18.7.9:4711".parse().unwrap();
        let mut header = of(client, "127.0.0.1:9000".parse().unwrap());
        let first: [u8; HEADER] = header[..HEADER].try_into().unwrap();
        let after = header.split_off(HEADER);
        assert!(begins(first));
        assert_eq!(rest(first), after.len());
        assert_eq!(source(first, &after), Some(client));
        // LOCAL, and a header that is too short.
        let mut local = first;
        local[12] = 0x20;
        assert_eq!(source(local, &after), None);
        assert_eq!(source(first, &after[..11]), None);
    }

    #[test]
    fn no_request_is_taken_for_a_header() {
        let client = "198.18.7.9:4711".parse().unwrap();
        for request in [Request::Echo, Request::Ended, Request::Announced(client)] {
            assert!(!begins(request.header()));
            assert_eq!(Request::parse(request.header()), Some(request));
        }
    }
}
