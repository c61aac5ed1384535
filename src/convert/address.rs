//! HAProxy's addresses, as rlb writes them.
//!
//! HAProxy fills in variables of an address without quotes too. A variable of the process stays a
//! `${NAME}` of rlb's where the address means the same with it.

use super::environment::{Environment, Variable};
use super::lexer::Word;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

/// An address of HAProxy's, its form told and nothing looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A host, perhaps none, and what follows the last colon, perhaps nothing.
    Host { host: String, port: Option<String> },
    /// A path.
    Unix(String),
    /// An abstract name.
    Abstract(String),
    /// An abstract name that is padded with zeros (`abns@`).
    Padded(String),
    /// An inherited descriptor.
    Descriptor(String),
    /// Something that rlb cannot use; why.
    Unusable(String),
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Bind,
    Server,
    Log,
}

/// Tells the form of `text`, where it is used so.
pub(super) fn parse_for(text: &str, usage: Use) -> Address {
    let datagram = ["udp", "dgram+", "uxdg@"];
    let stream = ["tcp", "stream+", "uxst@", "mptcp"];
    let begins = |words: &[&str]| {
        let family = text.contains(['@', '+']);
        family && words.iter().any(|word| text.starts_with(word))
    };
    match usage {
        Use::Bind | Use::Server if begins(&datagram) => {
            Address::Unusable("rlb balances TCP: it knows no datagrams".to_owned())
        }
        Use::Log if begins(&stream) => {
            Address::Unusable("log lines are sent in datagrams".to_owned())
        }
        _ => parse(text),
    }
}

/// Whether `text` is an address of MPTCP.
pub(super) fn is_mptcp(text: &str) -> bool {
    let family = text.split_once('@').map(|(family, _)| family);
    matches!(family, Some("mptcp" | "mptcp4" | "mptcp6"))
}

/// Tells the form of `text`.
pub(super) fn parse(text: &str) -> Address {
    let mut text = text;
    for prefix in ["stream+", "dgram+"] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let (family, rest) = match text.split_once('@') {
        Some((family, rest))
            if family
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'+') =>
        {
            (family, rest)
        }
        _ => ("", text),
    };
    match family {
        "" if text.starts_with('/') => Address::Unix(text.to_owned()),
        "" | "ip" | "tcp" | "ipv4" | "tcp4" | "udp" | "udp4" => host(rest, false),
        "ipv6" | "tcp6" | "udp6" => host(rest, true),
        "mptcp" | "mptcp4" | "mptcp6" => host(rest, family == "mptcp6"),
        "unix" | "uxst" | "uxdg" => Address::Unix(rest.to_owned()),
        "abns" => Address::Padded(rest.to_owned()),
        "abnsz" => Address::Abstract(rest.to_owned()),
        "fd" => Address::Descriptor(rest.to_owned()),
        _ => Address::Unusable(format!("rlb has no addresses with `{family}@`")),
    }
}

fn host(text: &str, v6: bool) -> Address {
    // The last colon, unless a bracket stands behind it.
    let colon = text
        .rfind([':', ']'])
        .filter(|at| text.as_bytes()[*at] == b':');
    let (host, port) = match colon {
        Some(at) => (&text[..at], Some(text[at + 1..].to_owned())),
        None => (text, None),
    };
    let host = match host {
        "" | "*" if v6 => "[::]".to_owned(),
        "::" => "[::]".to_owned(),
        _ if host.parse::<Ipv6Addr>().is_ok() => format!("[{host}]"),
        _ => v4_of(host).map_or_else(|| host.to_owned(), |ip| ip.to_string()),
    };
    Address::Host {
        host,
        port: port.filter(|port| !port.is_empty()),
    }
}

/// The IPv4 address that the system's library reads in `host`, by `inet_aton`: `10.1` is 10.0.0.1, `0` is 0.0.0.0, and
/// numbers may be octal or hexadecimal. HAProxy takes one between brackets, too.
fn v4_of(host: &str) -> Option<Ipv4Addr> {
    let inside = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host = inside.unwrap_or(host);
    if let Ok(ip) = host.parse() {
        return Some(ip);
    }
    let number = |part: &str| {
        let hexadecimal = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X"));
        let octal = part.strip_prefix('0').filter(|rest| !rest.is_empty());
        let (digits, radix) = match (hexadecimal, octal) {
            (Some(digits), _) => (digits, 16),
            (None, Some(digits)) => (digits, 8),
            (None, None) => (part, 10),
        };
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, radix).ok().filter(|_| plain)
    };
    let parts: Option<Vec<u32>> = host.split('.').map(number).collect();
    let parts = parts.filter(|parts| parts.len() <= 4)?;
    let (last, first) = parts.split_last()?;
    // The last number stands for all bytes that are left.
    let bits_left = 32 - 8 * u32::try_from(first.len()).ok()?;
    let fits = u64::from(*last) < 1 << bits_left && first.iter().all(|part| *part < 256);
    let begin = first
        .iter()
        .zip([24, 16, 8])
        .map(|(part, shift)| part << shift)
        .sum::<u32>();
    fits.then(|| Ipv4Addr::from(begin | last))
}

/// The text of an address, variables without quotes filled in; and the same as a string of rlb's
/// when a variable of the process is in it.
pub(super) fn filled_in(word: &Word, environment: &Environment<'_>) -> Word {
    if !word.text.contains('$') {
        return word.clone();
    }
    let (mut text, mut written) = (String::new(), String::new());
    let (mut by_name, mut unset) = (true, word.unset.clone());
    let mut rest = word.text.as_str();
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        written.push_str(before);
        let from = &from[1..];
        let braces = from.starts_with('{');
        let from = from.strip_prefix('{').unwrap_or(from);
        let length = from
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(from.len());
        let name = &from[..length];
        rest = &from[length..];
        if braces {
            rest = rest.strip_prefix('}').unwrap_or(rest);
        }
        match environment.get(name) {
            Variable::Process(value) => text.push_str(&value),
            Variable::Own(value) => {
                text.push_str(&value);
                by_name = false;
            }
            Variable::Removed => by_name = false,
            Variable::Unset => unset = Some(name.to_owned()),
        }
        let _ = write!(written, "${{{name}}}");
    }
    text.push_str(rest);
    written.push_str(rest);
    Word {
        text,
        written: (by_name && word.written.is_none()).then_some(written),
        unset,
        column: word.column,
    }
}

/// An address as rlb writes it.
pub(super) fn render(address: &Address) -> Option<String> {
    Some(match address {
        Address::Host {
            host,
            port: Some(port),
        } => format!("{}:{port}", if host.is_empty() { "*" } else { host }),
        Address::Host { host, port: None } => host.clone(),
        // Behind `unix:` it would be an abstract name, which it is not in HAProxy.
        Address::Unix(path) if path.starts_with('@') || path.starts_with("abns@") => {
            format!("unix:./{path}")
        }
        Address::Unix(path) => format!("unix:{path}"),
        Address::Abstract(name) => format!("unix:@{name}"),
        Address::Padded(name) => format!("abns@{name}"),
        Address::Descriptor(number) => format!("fd@{number}"),
        Address::Unusable(_) => return None,
    })
}

/// The address as a TOML string's content: with `${NAME}` where rlb will read the same then.
pub(super) fn content(word: &Word, environment: &Environment<'_>) -> Option<String> {
    let plain = render(&parse(&word.text))?;
    let Some(written) = &word.written else {
        return Some(escaped(&plain));
    };
    let rendered = render(&parse(written))?;
    let again = expand(&rendered, environment);
    let same = again == plain || word.unset.is_some();
    Some(if same { rendered } else { escaped(&plain) })
}

/// `${` as rlb writes it in a string.
pub(super) fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

fn expand(text: &str, environment: &Environment<'_>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let Some(end) = inside.find('}') else { break };
        let (name, default) = match inside[..end].split_once('-') {
            Some((name, default)) => (name, default),
            None => (&inside[..end], ""),
        };
        out.push_str(
            &environment
                .value(name)
                .unwrap_or_else(|| default.to_owned()),
        );
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    out
}

/// The address that a host name stands for; IPv4 before IPv6.
pub fn look_up(name: &str) -> Option<IpAddr> {
    if name == "localhost" {
        return Some(IpAddr::from([127, 0, 0, 1]));
    }
    let addresses: Vec<IpAddr> = (name, 0)
        .to_socket_addrs()
        .ok()?
        .map(|it| it.ip())
        .collect();
    let v4 = addresses.iter().find(|address| address.is_ipv4());
    v4.or_else(|| addresses.first()).copied()
}

/// Whether a host is no address but a name.
pub(super) fn is_name(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    !matches!(bare, "" | "*") && bare.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rlb(text: &str) -> Option<String> {
        render(&parse(text))
    }

    #[test]
    fn an_address_is_written_as_rlb_does() {
        for (haproxy, meant) in [
            ("*:80", "*:80"),
            (":80", "*:80"),
            ("10.0.0.1:8000-8010", "10.0.0.1:8000-8010"),
            (":::80", "[::]:80"),
            ("::1:80", "[::1]:80"),
            ("[::1]:80", "[::1]:80"),
            ("ipv6@:80", "[::]:80"),
            ("ipv4@*:80", "*:80"),
            ("ipv6@::1:80", "[::1]:80"),
            ("tcp@db.example:5432", "db.example:5432"),
            ("/run/a.sock", "unix:/run/a.sock"),
            ("unix@/run/a.sock", "unix:/run/a.sock"),
            ("abns@name", "abns@name"),
            ("abnsz@name", "unix:@name"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:", "10.0.0.1"),
            ("10.0.0.1:+1000", "10.0.0.1:+1000"),
            ("10.1:80", "10.0.0.1:80"),
            ("0:80", "0.0.0.0:80"),
            ("0x7f.0.0.010:80", "127.0.0.8:80"),
            ("ipv4@127.65535:80", "127.0.255.255:80"),
            ("4294967295", "255.255.255.255"),
            ("[10.0.0.1]:80", "10.0.0.1:80"),
            ("10.0.0.256:80", "10.0.0.256:80"),
            ("1.2.3.4.5:80", "1.2.3.4.5:80"),
            ("10..1:80", "10..1:80"),
            ("256.1:80", "256.1:80"),
        ] {
            assert_eq!(rlb(haproxy).as_deref(), Some(meant), "{haproxy}");
        }
        assert_eq!(parse("fd@3"), Address::Descriptor("3".to_owned()));
        for refused in ["sockpair@4", "quic4@:443", "rhttp@x"] {
            assert!(matches!(parse(refused), Address::Unusable(_)), "{refused}");
        }
    }

    #[test]
    fn a_variable_stays_where_it_means_the_same() {
        let process = |name: &str| match name {
            "IP" => Some("10.0.0.1".to_owned()),
            "SIX" => Some("::1".to_owned()),
            _ => None,
        };
        let environment = Environment::new(&process, &[]);
        let content = |text: &str| {
            let word = filled_in(&Word::plain(text, 1), &environment);
            content(&word, &environment)
        };
        assert_eq!(content("$IP:80").as_deref(), Some("${IP}:80"));
        assert_eq!(content("ipv4@${IP}:80").as_deref(), Some("${IP}:80"));
        assert_eq!(content("${SIX}:80").as_deref(), Some("[::1]:80"));
        assert_eq!(content("${NONE}:80").as_deref(), Some("${NONE}:80"));
    }
}
