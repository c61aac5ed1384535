//! The values of a validated configuration that are no tables: addresses, words, numbers of
//! proxies.
//!
//! Plain data. [`model`](crate::config::model) hands them on to the rest of the program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Index of a backend in [`Config::backends`](crate::config::model::Config::backends).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendIndex(pub usize);

/// HAProxy's `iid`: the number of a proxy in the statistics. Given by `id`, or counted from 2 in
/// file order (the stats proxy takes the first).
pub type ProxyId = u32;

/// Where the lines of a log target go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSink {
    /// `stdout`.
    Stdout,
    /// `stderr`.
    Stderr,
    /// `file:/var/log/rlb.log`, opened for append, opened again after a rotation.
    File(PathBuf),
    /// `unix:/dev/log`, a datagram socket.
    Unix(PathBuf),
    /// `udp:127.0.0.1:514`.
    Udp(SocketAddr),
}

/// As written.
impl std::fmt::Display for LogSink {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => out.write_str("stdout"),
            Self::Stderr => out.write_str("stderr"),
            Self::File(path) => write!(out, "file:{}", path.display()),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Udp(address) => write!(out, "udp:{address}"),
        }
    }
}

/// Framing of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The line alone.
    Raw,
    /// `<134>Nov 22 06:51:57 rlb[7]: line`: what HAProxy sends by default (no host name).
    Rfc3164,
    /// `<134>1 2026-11-22T06:51:57.996+00:00 host rlb 7 - - line`.
    Rfc5424,
}

/// Syslog severities, most severe first (RFC 5424, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Severity {
    /// System is unusable: a backend has no server left.
    Emerg = 0,
    /// Act at once: a server is down.
    Alert = 1,
    /// Critical.
    Crit = 2,
    /// Error.
    Err = 3,
    /// Warning.
    Warning = 4,
    /// Normal but significant: a server is up.
    Notice = 5,
    /// A session's line.
    Info = 6,
    /// Debugging.
    Debug = 7,
}

/// Syslog facility code (RFC 5424, table 1): `kern` 0 to `local7` 23.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facility(pub u8);

/// What a client of the runtime socket may do, HAProxy's `level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiLevel {
    /// Look.
    User,
    /// Look at everything, change nothing that changes traffic.
    Operator,
    /// Everything.
    Admin,
}

impl ApiLevel {
    /// The word of the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A user and a password, as HTTP's basic authentication joins them. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(pub Arc<str>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.0.split(':').next().unwrap_or_default();
        write!(out, "Credentials({user}:…)")
    }
}

/// Where a bind listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path, or an abstract name that begins with `@`.
    Unix(PathBuf),
}

/// `balance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Weighted round robin, exact across workers.
    RoundRobin,
}

impl Balance {
    /// HAProxy's word, as in the statistics' `algo` column.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
        }
    }
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// An IP address.
    Ip(std::net::IpAddr, ServerPort),
    /// A host name, resolved at the start and again until it resolves.
    Name(Arc<str>, ServerPort),
    /// A unix socket path, or an abstract name that begins with `@`.
    Unix(PathBuf),
}

/// The port of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerPort {
    /// This port.
    Fixed(u16),
    /// The port that the client connected to, plus an offset (0 when none was written).
    FromClient(i32),
}

/// What a health check asks of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// `option tcp-check` without rules: a connection.
    Tcp,
}
