//! What a session's frontend has it note when it begins: its unique id, and the text behind its line in the log; and what
//! a server's PROXY header says of it. Runs on a worker, in step 4, and in step 8 for a header.
//!
//! The first two are made at once and kept, because the id is the same for each server that is tried and in the log, and because
//! another process may write the line.

use super::header_rule::Announced;
use super::session_stats::{Notes, SessionStats};
use crate::config::format::{Escape, Given, UNIQUE_ID_MAX, Value};
use crate::config::own_tlv::OwnTlv;
use crate::proto::proxy::{TLV_VALUE_MAX, Tlvs};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::UNIX_EPOCH;

/// Longest text behind a line of the log.
const SUFFIX_MAX: usize = 2048;

/// In HAProxy's form for a client of a unix socket, as in the log.
const UNIX: (&str, u64) = ("unix", 1);

/// Notes what the frontend of `stats` says of the session of `client`.
///
/// # Hot path: two branches where it says nothing.
pub(super) fn take(stats: &mut SessionStats, client: &OwnedFd, announced: Option<&Announced>) {
    let spec = &stats.frontend().spec;
    if spec.unique_id_format.is_none() && spec.log_suffix.is_none() {
        return;
    }
    let notes = noted(stats, client, announced);
    stats.beside.get_or_insert_default().notes = notes;
}

#[cold]
fn noted(stats: &SessionStats, client: &OwnedFd, announced: Option<&Announced>) -> Notes {
    let spec = &stats.frontend().spec;
    let values = Values {
        stats,
        local: local(client, announced),
        tlvs: announced.map_or(&[], |announced| &announced.tlvs),
    };
    let text = |bytes: Vec<u8>| -> Box<str> { String::from_utf8_lossy(&bytes).into() };
    let unique_id = spec.unique_id_format.as_ref().map(|format| {
        // As in HAProxy, which may write it into a header of HTTP.
        let escape = Escape::With('%');
        text(format.write(UNIQUE_ID_MAX, escape, |value| values.given(value, None)))
    });
    let log_suffix = spec.log_suffix.as_ref().map(|format| {
        let own = unique_id.as_deref();
        let given = |value| values.given(value, own);
        text(format.write(SUFFIX_MAX, Escape::With('#'), given))
    });
    Notes {
        unique_id,
        log_suffix,
    }
}

/// The TLVs that a server's header has: their types, and what they say of the session of `client`.
pub(super) fn own_tlvs(
    stats: &SessionStats,
    client: &OwnedFd,
    announced: Option<&Announced>,
    tlvs: &[OwnTlv],
) -> Vec<(u8, Vec<u8>)> {
    if tlvs.is_empty() {
        return Vec::new();
    }
    let values = Values {
        stats,
        local: local(client, announced),
        tlvs: announced.map_or(&[], |announced| &announced.tlvs),
    };
    let unique_id = stats.notes().and_then(|notes| notes.unique_id.as_deref());
    let given = |value| values.given(value, unique_id);
    let all = tlvs.iter().map(|tlv| {
        let value = tlv.value.write(TLV_VALUE_MAX, Escape::None, given);
        (tlv.kind, value)
    });
    all.collect()
}

/// Where the client has connected to; `None`: a unix socket.
fn local(client: &OwnedFd, announced: Option<&Announced>) -> Option<SocketAddr> {
    let announced = announced.and_then(|announced| announced.addresses);
    let own = || SocketAddr::try_from(rustix::net::getsockname(client).ok()?).ok();
    announced
        .map(|addresses| addresses.destination)
        .or_else(own)
}

struct Values<'a> {
    stats: &'a SessionStats,
    local: Option<SocketAddr>,
    tlvs: &'a [u8],
}

impl<'a> Values<'a> {
    fn given(&self, value: Value, unique_id: Option<&'a str>) -> Given<'a> {
        let accepted = self.stats.accepted_at().duration_since(UNIX_EPOCH);
        let accepted = accepted.unwrap_or_default();
        match value {
            Value::ClientIp => ip(self.stats.peer),
            Value::ClientPort => port(self.stats.peer),
            Value::FrontendIp => ip(self.local),
            Value::FrontendPort => port(self.local),
            Value::Frontend => {
                let name = &self.stats.frontend().spec.name;
                Given::Bytes(name.as_bytes().to_vec().into())
            }
            Value::Hostname => {
                let system = rustix::system::uname();
                Given::Bytes(system.nodename().to_bytes().to_vec().into())
            }
            Value::Pid => Given::Number(std::process::id().into()),
            Value::Counter => Given::Number(self.stats.id.number()),
            Value::Seconds => Given::Number(accepted.as_secs()),
            Value::Milliseconds => Given::Number(accepted.subsec_millis().into()),
            Value::UniqueId => text(unique_id),
            Value::Tlv(kind) => {
                let found = Tlvs::new(self.tlvs).find(|tlv| tlv.kind == kind);
                found.map_or(Given::Nothing, |tlv| Given::Bytes(tlv.value.into()))
            }
            Value::Uuid4 => Given::Bytes(uuid(fastrand::u128(..), 4).into_bytes().into()),
            Value::Uuid7 => {
                let begin = u128::from(crate::live::timing::millis(accepted)) << 80;
                let random = fastrand::u128(..) >> 48;
                Given::Bytes(uuid(begin | random, 7).into_bytes().into())
            }
        }
    }
}

fn text(text: Option<&str>) -> Given<'_> {
    text.map_or(Given::Nothing, |text| Given::Bytes(text.as_bytes().into()))
}

fn ip(address: Option<SocketAddr>) -> Given<'static> {
    address.map_or_else(|| text(Some(UNIX.0)), |address| Given::Ip(address.ip()))
}

fn port(address: Option<SocketAddr>) -> Given<'static> {
    Given::Number(address.map_or(UNIX.1, |address| address.port().into()))
}

/// The text of a UUID of this version (RFC 9562): the other bits are those of `bits`.
fn uuid(bits: u128, version: u128) -> String {
    const VERSION: u32 = 76;
    const VARIANT: u32 = 62;
    let bits = bits & !(0xF << VERSION) & !(0b11 << VARIANT);
    let bits = bits | version << VERSION | 0b10 << VARIANT;
    let digits = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_its_version() {
        assert_eq!(uuid(0, 4), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX, 7), "ffffffff-ffff-7fff-bfff-ffffffffffff");
    }
}
