//! Every form of address that a file or a command line may have: the only place that reads one.
//!
//! Pure functions, text in, value or [`Problem`] out. [`form`] tells the forms apart, whatever they are
//! for; each use says which forms it takes and what it makes of host and port. A new form is a variant
//! of [`Form`], and loses its line in [`HAPROXY_FORMS`] if it has one there.
//!
//! | use | forms |
//! |---|---|
//! | [`bind`] | `*:80`, `:80`, `127.0.0.1:80`, `[::]:80`, `*:8000-8010`, `unix:/path`, `unix:@name`, `fd@3` |
//! | [`server`] | `10.0.0.1:5432`, `[::1]:80`, `name:80`, `name`, `name:+1000`, `unix:/path`, `unix:@name` |
//! | [`haproxy_server`] | those of [`server`], `/path`, `unix@/path`, `abnsz@name`, `ipv4@10.0.0.1:80`, `::1:80` |
//! | [`node`] | `10.0.0.1`, `[::1]`, `name` |
//! | [`source`] | `10.0.0.1`, `::1`, `[::1]`, `10.0.0.1:1024-65535`, `[::1]:5000`, `*`, `*:1024-65535` |
//! | [`ip_alone`] | `10.0.0.1`, `::1`, `[::1]` |
//! | [`network()`] | `10.0.0.0/8`, `2001:db8::/32`, `10.0.0.1` |
//! | [`socket`] | `/path`, `@name`, `unix:/path`, `unix:@name` |
//! | [`runtime`] | those of [`socket`], `127.0.0.1:9999`, `[::1]:9999`, `*:9999` |
//! | [`log_sink`] | `stdout`, `stderr`, `file:/path`, `unix:/path`, `unix:@name`, `udp:127.0.0.1:514`, `udp:[::1]` |
//!
//! An abstract name begins with `@` in every value that is made here; what the kernel wants in its
//! place is made by `sys::socket`.

mod network;

pub use network::{Network, network};

use super::units::Problem;
use super::values::{BindAddress, LogSink, ServerAddress, ServerPort};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Longest path or abstract name of a unix socket, in bytes (`sun_path` without the zero after a path or before a name).
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Longest host name, in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
/// Default port of syslog.
const SYSLOG_PORT: u16 = 514;

/// An address to listen on, with its port range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindText {
    /// IP address and ports.
    Tcp(IpAddr, RangeInclusive<u16>),
    /// A path, or an abstract name that begins with `@`.
    Unix(PathBuf),
    /// A descriptor that whoever starts the process passes to it.
    Descriptor(i32),
}

/// Begins an abstract name that is padded with zeros, HAProxy's.
const PADDED: &str = "abns@";

const BIND_FORMS: &str = "write \"*:80\", \"127.0.0.1:80\", \"[::]:80\", \"*:8000-8010\" or \
                          \"unix:/path\"";

/// What an address is, before its use is known.
enum Form<'t> {
    /// What stands behind `unix:`.
    Unix(&'t str),
    /// A host and its port, if it has one.
    Host(&'t str, Option<&'t str>),
}

/// HAProxy's forms that rlb writes otherwise or does not have, and what to write for them; `None`:
/// there is nothing.
const HAPROXY_FORMS: &[(&str, Option<&str>)] = &[
    ("abnsz@", Some("unix:@")),
    ("fd@", None),
    ("ipv4@", Some("")),
    ("ipv6@", Some("")),
    ("sockpair@", None),
    ("tcp4@", Some("")),
    ("tcp6@", Some("")),
    ("tcp@", Some("")),
    ("udp4@", None),
    ("udp6@", None),
    ("udp@", None),
    ("unix@", Some("unix:")),
];

/// Which form `text` has.
fn form(text: &str) -> Result<Form<'_>, Problem> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Form::Unix(path));
    }
    if text.starts_with(PADDED) {
        return Ok(Form::Unix(text));
    }
    if text.starts_with('/') {
        return Err(Problem::new(format!("`{text}` is a path, not an address"))
            .hint(format!("write \"unix:{text}\"")));
    }
    let mut known = HAPROXY_FORMS.iter();
    if let Some((prefix, instead)) = known.find(|(prefix, _)| text.starts_with(prefix)) {
        let problem = Problem::new(format!(
            "`{prefix}` is not a form of address that rlb knows"
        ));
        return Err(match instead {
            Some(instead) => problem.hint(format!("write \"{instead}{}\"", &text[prefix.len()..])),
            None => problem,
        });
    }
    Ok(match split_port(text) {
        Some((host, port)) => Form::Host(host, Some(port)),
        None => Form::Host(text, None),
    })
}

/// An address to listen on.
///
/// # Errors
/// The problem with it.
pub fn bind(text: &str) -> Result<BindText, Problem> {
    if let Some(number) = text.strip_prefix("fd@") {
        return descriptor(number).map(BindText::Descriptor);
    }
    let (host, port) = match form(text)? {
        Form::Unix(path) => return unix_path(path).map(BindText::Unix),
        Form::Host(host, Some(port)) => (host, port),
        Form::Host(_, None) => {
            bare_v6(text)?;
            let hint = if port_range(text).is_ok() {
                format!("write \"*:{text}\" for all addresses of this machine")
            } else {
                BIND_FORMS.to_owned()
            };
            return Err(Problem::new(format!("`{text}` has no port")).hint(hint));
        }
    };
    let ip = match host {
        "*" | "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => ip(host)?.ok_or_else(|| {
            Problem::new(format!("`{host}` is not an IP address of this machine")).hint(
                if host == "localhost" {
                    format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")
                } else {
                    BIND_FORMS.to_owned()
                },
            )
        })?,
    };
    Ok(BindText::Tcp(ip, port_range(port)?))
}

/// The number of a descriptor that is passed. The first three are standard input, output and error.
fn descriptor(text: &str) -> Result<i32, Problem> {
    match text.parse() {
        Ok(number) if number > 2 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(Problem::new(format!("`fd@{text}` is not a descriptor"))
            .hint("write \"fd@3\": the number of a bound socket that is passed, from 3")),
    }
}

/// Where a server is.
///
/// # Errors
/// The problem with it.
pub fn server(text: &str) -> Result<ServerAddress, Problem> {
    let form = form(text)?;
    if let Form::Unix(path) = form {
        return unix_path(path).map(ServerAddress::Unix);
    }
    if text.contains('/') {
        return Err(Problem::new(format!("`{text}` is not an address"))
            .hint("a server is \"HOST:PORT\", without scheme and path"));
    }
    if let Form::Host(name, Some(port)) = form {
        return host(name, server_port(port)?);
    }
    bare_v6(text)?;
    host(text, ServerPort::FromClient(0))
}

/// Where a server is, as a command of the runtime socket has it: also in HAProxy's forms, which [`server`] refuses
/// with a hint.
///
/// # Errors
/// The problem with it.
pub fn haproxy_server(text: &str) -> Result<ServerAddress, Problem> {
    let mut forms = HAPROXY_FORMS.iter();
    let form = forms.find_map(|(prefix, instead)| Some((text.strip_prefix(prefix)?, (*instead)?)));
    let text = match form {
        Some((rest, instead)) => format!("{instead}{rest}"),
        None if text.starts_with('/') => format!("unix:{text}"),
        None => text.to_owned(),
    };
    // HAProxy takes what stands behind the last colon for the port.
    match text.rsplit_once(':') {
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => {
            server(&format!("[{host}]:{port}"))
        }
        _ => server(&text),
    }
}

/// A server's address as HAProxy writes it, without the `mptcp@` before it, and whether that was there.
pub fn without_mptcp(text: &str) -> (std::borrow::Cow<'_, str>, bool) {
    const FAMILIES: [(&str, &str); 3] =
        [("mptcp@", ""), ("mptcp4@", "ipv4@"), ("mptcp6@", "ipv6@")];
    let found = FAMILIES
        .iter()
        .find_map(|(begin, instead)| Some((text.strip_prefix(begin)?, *instead)));
    match found {
        Some((rest, instead)) => (format!("{instead}{rest}").into(), true),
        None => (text.into(), false),
    }
}

/// A host of a node group, an address or a name, with `port`.
pub fn node(text: &str, port: u16) -> Result<ServerAddress, Problem> {
    if let Some((host, own)) = split_port(text)
        && port_range(own).is_ok()
    {
        return Err(Problem::new(format!("`{text}` has a port")).hint(format!(
            "write \"{host}\": the backend that uses the group says the `port`"
        )));
    }
    host(text, ServerPort::Fixed(port))
}

fn host(text: &str, port: ServerPort) -> Result<ServerAddress, Problem> {
    match text {
        "" => return Err(Problem::new("the host is missing")),
        "*" => {
            return Err(Problem::new("`*` is not a server's address")
                .hint("only `bind` takes it: a server needs an address or a name"));
        }
        _ => {}
    }
    match ip(text)? {
        Some(ip) if ip.is_unspecified() => {
            Err(Problem::new(format!("`{text}` is not a server's address"))
                .hint("nothing can be reached at it: write the server's own address"))
        }
        Some(ip) => Ok(ServerAddress::Ip(ip, port)),
        None => host_name(text).map(|name| ServerAddress::Name(name.into(), port)),
    }
}

fn host_name(text: &str) -> Result<&str, Problem> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let last = bare.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::new(format!(
            "`{text}` is neither an IPv4 address nor a host name"
        ))
        .hint("an IPv4 address is four numbers from 0 to 255"));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if bare.len() > HOST_BYTES_MAX || !bare.split('.').all(label) {
        return Err(
            Problem::new(format!("`{text}` is neither an address nor a host name"))
                .hint("an IPv6 address with a port is written in brackets: \"[::1]:80\""),
        );
    }
    Ok(text)
}

/// An IP address without a port; brackets may stand around IPv6.
///
/// # Errors
/// When it is none.
pub fn ip_alone(text: &str) -> Result<IpAddr, Problem> {
    let inside = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    match inside {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
    .ok_or_else(|| Problem::new(format!("`{text}` is not an IP address")))
}

/// The address that connections come from, and the first and the last of their ports.
pub type SourceText = (Option<IpAddr>, Option<(u16, u16)>);

/// Where connections come from: the address, and the first and the last of the ports that they may have. `None`: the
/// system chooses.
///
/// # Errors
/// The problem with it.
pub fn source(text: &str) -> Result<SourceText, Problem> {
    let (host, ports) = match split_port(text) {
        Some((host, ports)) => (host, Some(port_range(ports)?)),
        None => (text, None),
    };
    let ip = match host {
        "*" | "" => None,
        _ => Some(ip_alone(host).map_err(|problem| {
            problem.hint("write \"10.0.0.5\", \"10.0.0.5:1024-65535\" or \"[fd00::5]:1024-65535\"")
        })?),
    };
    let ports = ports.map(RangeInclusive::into_inner);
    Ok((
        ip.filter(|ip| !ip.is_unspecified()),
        ports.filter(|ports| *ports != (0, 0)),
    ))
}

/// A unix socket where nothing else can stand: `unix:` may be left out.
///
/// # Errors
/// The problem with it.
pub fn socket(text: &str) -> Result<PathBuf, Problem> {
    unix_path(text.strip_prefix("unix:").unwrap_or(text))
}

/// A socket for commands: a unix socket as in [`socket`], an address and one port, or a descriptor.
///
/// # Errors
/// The problem with it.
pub fn runtime(text: &str) -> Result<BindAddress, Problem> {
    if let Some(number) = text.strip_prefix("fd@") {
        return descriptor(number).map(BindAddress::Descriptor);
    }
    let unix = ["/", "@", "unix:", PADDED];
    if unix.iter().any(|start| text.starts_with(start)) || !text.contains(':') {
        return socket(text).map(BindAddress::Unix);
    }
    match bind(text)? {
        BindText::Unix(path) => Ok(BindAddress::Unix(path)),
        BindText::Tcp(ip, ports) if ports.start() == ports.end() => {
            Ok(BindAddress::Tcp(SocketAddr::new(ip, *ports.start())))
        }
        BindText::Tcp(..) => Err(Problem::new(format!("`{text}` is a range of ports"))
            .hint("a socket for commands has one port")),
        BindText::Descriptor(number) => Ok(BindAddress::Descriptor(number)),
    }
}

/// The address of a syslog receiver.
fn udp(text: &str) -> Result<SocketAddr, Problem> {
    let (host, port) = match split_port(text) {
        Some((host, text)) => (host, port(text)?),
        None => (text, SYSLOG_PORT),
    };
    match ip(host)? {
        Some(ip) if port != 0 => Ok(SocketAddr::new(ip, port)),
        _ => Err(
            Problem::new(format!("`{text}` is not an IP address and port"))
                .hint("write \"udp:127.0.0.1:514\" or \"udp:[::1]:514\""),
        ),
    }
}

/// Splits host and port; an IPv6 address must be in brackets. `None` without a port.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    // "::1" without brackets is an address without a port.
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    (!bare_v6).then_some((host, port))
}

/// Refuses an IPv6 address without brackets, in which the start of the port is ambiguous.
fn bare_v6(text: &str) -> Result<(), Problem> {
    let problem = || Problem::new(format!("`{text}` is an IPv6 address without brackets"));
    if let Some((host, port)) = text.rsplit_once(':')
        && text.contains("::")
        && !text.starts_with('[')
    {
        let with_port = host.parse::<Ipv6Addr>().is_ok() && port_range(port).is_ok();
        let alone = text.parse::<Ipv6Addr>().is_ok();
        return match (with_port, alone) {
            (true, true) => {
                Err(problem().hint(format!("write \"[{host}]:{port}\" or \"[{text}]\"")))
            }
            (true, false) => Err(problem().hint(format!("write \"[{host}]:{port}\""))),
            (false, _) => Err(problem().hint(format!("write \"[{text}]\", followed by :PORT"))),
        };
    }
    Ok(())
}

/// `None` when it is not an address (it may be a name).
fn ip(text: &str) -> Result<Option<IpAddr>, Problem> {
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inner
            .parse::<Ipv6Addr>()
            .map(|ip| Some(IpAddr::V6(ip)))
            .map_err(|_| Problem::new(format!("`{inner}` is not an IPv6 address")));
    }
    if text.contains(':') {
        let problem = Problem::new(format!("`{text}` is an IPv6 address without brackets"));
        return Err(problem.hint(format!("write \"[{text}]\", followed by :PORT")));
    }
    Ok(text.parse::<Ipv4Addr>().ok().map(IpAddr::V4))
}

fn port(text: &str) -> Result<u16, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(Problem::new(format!("`{text}` is not a port")).hint("a port is a number"));
    }
    text.parse().map_err(|_| {
        Problem::new(format!("port {text} is out of range")).hint("ports end at 65535")
    })
}

/// `80` or `8000-8010`. 0 lets the kernel choose and cannot be in a range.
fn port_range(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let Some((first, last)) = text.split_once('-') else {
        return port(text).map(|port| port..=port);
    };
    let (first, last) = (port(first)?, port(last)?);
    if first == 0 {
        return Err(Problem::new(format!("port range {text} begins with 0")));
    }
    if first > last {
        return Err(Problem::new(format!("port range {text} runs backwards"))
            .hint(format!("write {last}-{first}")));
    }
    Ok(first..=last)
}

/// `5432`, `+1000`, `-1000`.
fn server_port(text: &str) -> Result<ServerPort, Problem> {
    if let Some(offset) = text.strip_prefix('+') {
        return Ok(ServerPort::FromClient(i32::from(port(offset)?)));
    }
    if let Some(offset) = text.strip_prefix('-') {
        return Ok(ServerPort::FromClient(-i32::from(port(offset)?)));
    }
    match port(text)? {
        0 => Err(Problem::new("port 0 is not a server's port")
            .hint("leave the port out for the one that the client connected to")),
        port => Ok(ServerPort::Fixed(port)),
    }
}

/// The address of a unix socket in the form that is accepted everywhere.
pub fn unix_text(path: &Path) -> String {
    let path = path.display().to_string();
    if path.starts_with(PADDED) {
        path
    } else {
        format!("unix:{path}")
    }
}

/// Whether the address of a unix socket is an abstract name.
pub fn is_abstract(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|path| path.starts_with('@') || path.starts_with(PADDED))
}

/// The path of a unix socket, or an abstract name that begins with `@`, or with `abns@` if it is padded.
fn unix_path(text: &str) -> Result<PathBuf, Problem> {
    if text.contains('\0') {
        return Err(Problem::new("a path cannot hold a zero byte"));
    }
    let name = text.strip_prefix(PADDED).or_else(|| text.strip_prefix('@'));
    if name.unwrap_or(text).len() > UNIX_PATH_BYTES_MAX {
        return Err(Problem::new(format!(
            "the path is too long for a unix socket, {UNIX_PATH_BYTES_MAX} bytes at most"
        )));
    }
    match text.as_bytes() {
        [b'/' | b'@', _, ..] => Ok(PathBuf::from(text)),
        _ if text.len() > PADDED.len() && text.starts_with(PADDED) => Ok(PathBuf::from(text)),
        _ => Err(Problem::new(format!("`{text}` is not an absolute path"))
            .hint("write \"unix:/path\", or \"unix:@name\" for an abstract socket")),
    }
}

/// `stdout`, `stderr`, `file:/path`, `unix:/path`, `udp:ADDRESS:PORT`.
pub fn log_sink(text: &str) -> Result<LogSink, Problem> {
    const FORMS: &str = "write \"stdout\", \"stderr\", \"file:/var/log/rlb.log\", \
                         \"unix:/dev/log\" or \"udp:127.0.0.1:514\"";
    match text.split_once(':') {
        _ if text.starts_with(PADDED) => unix_path(text).map(LogSink::Unix),
        None if text == "stdout" => Ok(LogSink::Stdout),
        None if text == "stderr" => Ok(LogSink::Stderr),
        Some(("file", path)) if path.starts_with('/') && !path.contains('\0') => {
            Ok(LogSink::File(path.into()))
        }
        Some(("file", path)) => {
            Err(Problem::new(format!("`{path}` is not an absolute path")).hint(FORMS))
        }
        Some(("unix", path)) => unix_path(path).map(LogSink::Unix),
        Some(("udp", address)) => udp(address).map(LogSink::Udp),
        _ if text.starts_with('/') => Err(Problem::new(format!(
            "`{text}` does not say what it is"
        ))
        .hint(format!(
            "write \"unix:{text}\" for a socket, \"file:{text}\" for a file"
        ))),
        _ => Err(Problem::new(format!("`{text}` is not a log target")).hint(FORMS)),
    }
}

#[cfg(test)]
mod tests;
