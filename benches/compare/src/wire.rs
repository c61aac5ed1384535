//! The protocol of clients and servers: a header, then bytes that both sides can compute.

use std::net::{Ipv4Addr, SocketAddrV4};

/// A client's request, in the first [`HEADER`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The server answers [`DONE`], and another header follows: so a client learns that its connection reaches
    /// its server.
    Hello,
    /// The server sends everything back, until the client shuts down its sending half.
    Echo,
    /// The server sends this many bytes, then closes.
    Download(u64),
    /// The server takes this many bytes, then answers [`DONE`].
    Upload(u64),
    /// The server sends this many bytes, shuts down its sending half and takes as many.
    Leave(u64),
    /// The server sends this many bytes, and resets the connection when a byte comes in answer.
    Reset(u64),
    /// The server takes this many bytes, answers [`DONE`], and waits for an end of any kind.
    Stay(u64),
    /// The server answers how many of [`Request::Leave`] and [`Request::Stay`] have ended correctly, in 8
    /// bytes.
    Ended,
    /// As [`Request::Echo`], but only if a PROXY header has named this client.
    Announced(SocketAddrV4),
}

/// Length of a header.
pub const HEADER: usize = 16;

/// Answer to a [`Request::Hello`] and to a complete upload.
pub const DONE: &[u8; 8] = b"complete";

impl Request {
    /// The header.
    pub fn header(self) -> [u8; HEADER] {
        let (kind, bytes) = match self {
            Self::Echo => (0u64, 0),
            Self::Download(bytes) => (1, bytes),
            Self::Upload(bytes) => (2, bytes),
            Self::Hello => (3, 0),
            Self::Leave(bytes) => (4, bytes),
            Self::Reset(bytes) => (5, bytes),
            Self::Stay(bytes) => (6, bytes),
            Self::Ended => (7, 0),
            Self::Announced(client) => {
                let (address, port) = (client.ip().to_bits(), client.port());
                (8, u64::from(address) << 16 | u64::from(port))
            }
        };
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&bytes.to_le_bytes());
        header
    }

    /// Reads a header.
    pub fn parse(header: [u8; HEADER]) -> Option<Self> {
        let (kind, bytes) = header.split_at(8);
        let bytes = u64::from_le_bytes(bytes.try_into().ok()?);
        match u64::from_le_bytes(kind.try_into().ok()?) {
            0 => Some(Self::Echo),
            1 => Some(Self::Download(bytes)),
            2 => Some(Self::Upload(bytes)),
            3 => Some(Self::Hello),
            4 => Some(Self::Leave(bytes)),
            5 => Some(Self::Reset(bytes)),
            6 => Some(Self::Stay(bytes)),
            7 => Some(Self::Ended),
            8 => {
                let address = Ipv4Addr::from_bits((bytes >> 16) as u32);
                Some(Self::Announced(SocketAddrV4::new(address, bytes as u16)))
            }
            _ => None,
        }
    }
}

/// A block of bytes that differ by their position, sent again and again.
pub struct Pattern(Vec<u8>);

/// Length of a [`Pattern`]: prime, so that no buffer size hides a shift.
const PERIOD: usize = 65_521;

impl Pattern {
    /// Twice the period, so that any window of a period is contiguous.
    pub fn new() -> Self {
        let byte = |n: usize| ((n % PERIOD).wrapping_mul(0x9E37_79B1) >> 13) as u8;
        Self((0..2 * PERIOD).map(byte).collect())
    }

    /// The bytes from `offset` on, at most a period of them.
    pub fn at(&self, offset: u64) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        &self.0[start..start + PERIOD]
    }

    /// Whether `bytes` are those at `offset`. At most a period of them.
    pub fn matches(&self, offset: u64, bytes: &[u8]) -> bool {
        self.at(offset)[..bytes.len()] == *bytes
    }
}
