//! Version 1: a line of text, `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`.

use super::{Addresses, Header, Parsed, Problem, Tlvs, of_one_family};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How each line begins.
pub(super) const BEGIN: &[u8] = b"PROXY ";

/// Longest line, by the protocol's document.
const LINE_MAX: usize = 107;

/// Reads a line that begins as one. Text that cannot be part of a line is refused before the line has ended.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let window = &bytes[..bytes.len().min(LINE_MAX)];
    let printable = |byte: &u8| (b' '..0x7F).contains(byte);
    let Some(end) = window.iter().position(|byte| !printable(byte)) else {
        return if window.len() < LINE_MAX {
            Parsed::NeedMore(window.len() + 1)
        } else {
            Parsed::Refused(Problem::Invalid)
        };
    };
    match (window[end], window.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) if window.len() < LINE_MAX => return Parsed::NeedMore(window.len() + 1),
        _ => return Parsed::Refused(Problem::Invalid),
    }
    match line(&window[BEGIN.len()..end]) {
        Ok(addresses) => {
            let tlvs = Tlvs::default();
            Parsed::Done(Header { addresses, tlvs }, end + 2)
        }
        Err(problem) => Parsed::Refused(problem),
    }
}

/// The addresses of a line, without its begin and its end.
fn line(text: &[u8]) -> Result<Option<Addresses>, Problem> {
    let text = std::str::from_utf8(text).map_err(|_| Problem::Invalid)?;
    let mut fields = text.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match fields.next() {
        // What follows is ignored, as the protocol's document demands.
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => |text| v4(text).map(IpAddr::V4),
        Some("TCP6") => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(Problem::OtherProtocol),
    };
    let mut next = || fields.next().unwrap_or_default();
    let ips = address(next()).zip(address(next()));
    let ports = port(next()).zip(port(next()));
    match (ips, ports, fields.next()) {
        (Some((source, destination)), Some((source_port, destination_port)), None) => {
            Ok(Some(Addresses {
                source: SocketAddr::new(source, source_port),
                destination: SocketAddr::new(destination, destination_port),
            }))
        }
        _ => Err(Problem::Invalid),
    }
}

/// An IPv4 address. Its numbers may begin with zeros, which do not make them octal, as in HAProxy.
fn v4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.');
    let mut octets = [0; 4];
    for octet in &mut octets {
        *octet = u8::try_from(number(parts.next()?, 3)?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn port(text: &str) -> Option<u16> {
    u16::try_from(number(text, 5)?).ok()
}

/// A decimal number of at most so many digits.
fn number(text: &str, digits_max: usize) -> Option<u32> {
    let digits = (1..=digits_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Appends the line.
pub(super) fn write(out: &mut Vec<u8>, addresses: Option<Addresses>) {
    let Some(addresses) = addresses else {
        return out.extend_from_slice(b"PROXY UNKNOWN\r\n");
    };
    let Addresses {
        source,
        destination,
    } = of_one_family(addresses);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    // Writing to memory cannot fail.
    let _ = write!(
        out,
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
}
