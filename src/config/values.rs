//! The values of a validated configuration that are not tables: addresses, words, ids of proxies.
//!
//! Plain data. [`model`](crate::config::model) re-exports them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Index of a backend in [`Config::backends`](crate::config::model::Config::backends).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendIndex(pub usize);

/// HAProxy's `iid`: the id of a proxy in the statistics. Given by `id`, or counted from 2 in file order (the
/// stats proxy takes the first).
pub type ProxyId = u32;

/// The destination of a log target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSink {
    /// `stdout`.
    Stdout,
    /// `stderr`.
    Stderr,
    /// `file:/var/log/rlb.log`, opened for appending, and again after a rotation.
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
            Self::Unix(path) => out.write_str(&super::address::unix_text(path)),
            Self::Udp(address) => write!(out, "udp:{address}"),
        }
    }
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Only the line.
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

/// The rights of a client of the runtime socket, HAProxy's `level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiLevel {
    /// It may read data that is not sensitive.
    User,
    /// It may read everything, and change nothing that affects traffic.
    Operator,
    /// It may do everything.
    Admin,
}

impl ApiLevel {
    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Who may change servers on the page of the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PageAdmin {
    /// Nobody: the page is read-only.
    #[default]
    Nobody,
    /// Clients on this machine.
    Localhost,
    /// Everyone who may see it.
    Everyone,
}

impl PageAdmin {
    /// The value in the file.
    pub fn text(self) -> &'static str {
        match self {
            Self::Nobody => "false",
            Self::Localhost => "\"localhost\"",
            Self::Everyone => "true",
        }
    }
}

/// A user and a password, joined as in HTTP's basic authentication. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(pub Arc<str>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.0.split(':').next().unwrap_or_default();
        write!(out, "Credentials({user}:…)")
    }
}

/// The address of a bind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path, or an abstract name that begins with `@`.
    Unix(PathBuf),
    /// A descriptor that whoever starts the process passes to it.
    Descriptor(i32),
}

/// Which clients of a bind begin with a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcceptProxy {
    /// None.
    #[default]
    Off,
    /// All of them, or those from some networks.
    Required,
    /// Those from some networks may.
    Optional,
}

/// What becomes of a client when no server of its backend is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoServer {
    /// An orderly end, as from HAProxy.
    #[default]
    Close,
    /// A reset.
    Reset,
    /// A refusal by the kernel: the frontends that lead to the backend do not listen.
    StopListening,
}

/// With which PROXY header connections to a server begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SendProxy {
    /// None.
    #[default]
    Off,
    /// Of version 1.
    V1,
    /// Of version 2.
    V2,
}

impl SendProxy {
    const ALL: [Self; 3] = [Self::Off, Self::V1, Self::V2];

    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// The value of a word.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// The header of a check of a server with this one. `own`: what the check itself says; `elsewhere`: it goes to
    /// another port or address. As in HAProxy, such a one is another protocol's.
    #[must_use]
    pub fn of_check(self, own: Option<bool>, elsewhere: bool) -> Self {
        match (own, self) {
            (Some(true), Self::Off) => Self::V1,
            (Some(true), header) => header,
            (None, header) if !elsewhere => header,
            _ => Self::Off,
        }
    }
}

/// `proxy-v2-options`: what a PROXY header of version 2 has beside the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyV2Options {
    /// Nothing.
    #[default]
    None,
    /// A checksum.
    Crc32c,
    /// What the frontend's `unique-id-format` has made.
    UniqueId,
    /// Both.
    Both,
}

impl ProxyV2Options {
    /// Whether a checksum.
    pub fn crc32c(self) -> bool {
        matches!(self, Self::Crc32c | Self::Both)
    }

    /// Whether a unique id.
    pub fn unique_id(self) -> bool {
        matches!(self, Self::UniqueId | Self::Both)
    }

    /// Adds HAProxy's `option`. Whether rlb has it.
    pub fn add(&mut self, option: &str) -> bool {
        *self = match (option, *self) {
            ("crc32c", Self::None) => Self::Crc32c,
            ("unique-id", Self::None) => Self::UniqueId,
            ("crc32c", Self::UniqueId) | ("unique-id", Self::Crc32c) => Self::Both,
            ("crc32c" | "unique-id", same) => same,
            _ => return false,
        };
        true
    }

    /// Reads a list, as `crc32c,unique-id`; `none` is an empty one. `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut options = Self::None;
        let mut all = text.split(',').filter(|_| text != "none");
        all.all(|option| options.add(option)).then_some(options)
    }
}

/// As in the file.
impl std::fmt::Display for ProxyV2Options {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::None => "none",
            Self::Crc32c => "crc32c",
            Self::UniqueId => "unique-id",
            Self::Both => "crc32c,unique-id",
        })
    }
}

/// `on-error`: what follows from as many failed connects in a row as `error-limit` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// The next check comes within the fast interval. So it does with each of the others.
    FastInter,
    /// As a failed check.
    #[default]
    FailCheck,
    /// As a failed check, after which one more takes the server down.
    SuddenDeath,
    /// The server goes down.
    MarkDown,
}

impl OnError {
    const ALL: [Self; 4] = [
        Self::FastInter,
        Self::FailCheck,
        Self::SuddenDeath,
        Self::MarkDown,
    ];

    /// HAProxy's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::FastInter => "fastinter",
            Self::FailCheck => "fail-check",
            Self::SuddenDeath => "sudden-death",
            Self::MarkDown => "mark-down",
        }
    }

    /// The value of a word.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// `load-server-state-from-file`: where the states of a backend's servers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatesFrom {
    /// Nowhere: its servers begin as their keys say.
    #[default]
    None,
    /// In `server-state-file` of the process.
    Global,
    /// In a file of its own.
    Local,
}

/// `init-state`: how a server begins, and how it comes out of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitState {
    /// Up, with its slow start where it has one; the next failed check takes it down.
    #[default]
    None,
    /// Up; `fall` failed checks take it down.
    FullyUp,
    /// Up; the next failed check takes it down.
    Up,
    /// Down; the next passed check brings it up.
    Down,
    /// Down; `rise` passed checks bring it up.
    FullyDown,
}

impl InitState {
    const ALL: [Self; 5] = [
        Self::None,
        Self::FullyUp,
        Self::Up,
        Self::Down,
        Self::FullyDown,
    ];

    /// HAProxy's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FullyUp => "fully-up",
            Self::Up => "up",
            Self::Down => "down",
            Self::FullyDown => "fully-down",
        }
    }

    /// The value of a word.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// `balance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Weighted round robin over all workers.
    RoundRobin,
    /// Weighted round robin in the order of HAProxy's `static-rr`.
    StaticRr,
    /// The first one by number.
    First,
    /// The one with the least load of some that are drawn.
    Random,
    /// The one with the least load.
    LeastConn,
    /// By the hash of the client's address.
    Source,
    /// By the hash of `hash-on`.
    Hash,
    /// The same, with a table that follows from the servers' names.
    Maglev,
    /// The one whose connects take less time, for its load, of two that are drawn.
    Ewma,
}

impl Balance {
    /// HAProxy's word, as in the statistics' `algo` column.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::StaticRr => "static-rr",
            Self::First => "first",
            Self::Random => "random",
            Self::LeastConn => "leastconn",
            Self::Source => "source",
            Self::Hash => "hash",
            Self::Maglev => "maglev",
            Self::Ewma => "ewma",
        }
    }

    /// Whether each server has its share of the sessions by its weight, and a new session goes to whichever lacks some.
    pub fn shares_by_weight(self) -> bool {
        match self {
            Self::RoundRobin | Self::StaticRr | Self::Random | Self::LeastConn => true,
            Self::First | Self::Source | Self::Hash | Self::Maglev | Self::Ewma => false,
        }
    }

    /// Whether it is computed for the weights that are written, so that other ones would lead most clients to other
    /// servers: HAProxy's static algorithms.
    pub fn is_static(self, hash_type: HashType) -> bool {
        match self {
            Self::StaticRr => true,
            Self::Source | Self::Hash => !hash_type.consistent,
            Self::RoundRobin
            | Self::First
            | Self::Random
            | Self::LeastConn
            | Self::Maglev
            | Self::Ewma => false,
        }
    }
}

/// `hash-preserve-affinity`: which servers a hash passes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PreserveAffinity {
    /// None: a session waits for its server.
    #[default]
    Always,
    /// Those that have as many sessions as they may have.
    MaxConn,
    /// Those for which as many sessions wait as may.
    MaxQueue,
}

/// `hash-type`: how the server of a hash is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashType {
    /// On a ring, so that a server that comes or goes moves few clients; otherwise by the remainder of a division.
    pub consistent: bool,
    /// The function that makes the hash, but for `balance = "source"`.
    pub function: HashFunction,
    /// Whether the hash is spread over all 32 bits first.
    pub avalanche: bool,
}

/// A function of `hash-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashFunction {
    /// That of SDBM.
    #[default]
    Sdbm,
    /// Daniel Bernstein's.
    Djb2,
    /// HAProxy's own.
    Wt6,
    /// The checksum of Ethernet.
    Crc32,
    /// The number itself.
    None,
}

/// `hash-key`: what decides about a server's places on a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashKey {
    /// Its number.
    #[default]
    Id,
    /// Its number, spread over 32 bits.
    Id32,
    /// Its address.
    Addr,
    /// Its address and its port.
    AddrPort,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// An IP address.
    Ip(std::net::IpAddr, ServerPort),
    /// A host name, looked up at the start, and again until it resolves.
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

/// From where connections to a server come; never empty. Each connection takes the next one.
pub type Source = Arc<[SourceAddress]>;

/// Options of the sockets that connect to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSocket {
    /// How the kernel controls congestion (`TCP_CONGESTION`).
    pub cc: Option<Arc<str>>,
    /// How long what was sent may stay without acknowledgement (`TCP_USER_TIMEOUT`).
    pub tcp_ut: Option<std::time::Duration>,
    /// The network namespace that they are in; `None`: that of the process.
    pub namespace: Option<Arc<str>>,
    /// MPTCP instead of TCP.
    pub mptcp: bool,
}

/// How long a server is held down that goes down again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldDown {
    /// For the second time.
    pub base: std::time::Duration,
    /// The longest.
    pub max: std::time::Duration,
    /// For how long it has to stay up.
    pub window: std::time::Duration,
}

impl HoldDown {
    /// Of a server that is never held down.
    pub const OFF: Self = Self {
        base: std::time::Duration::ZERO,
        max: std::time::Duration::ZERO,
        window: std::time::Duration::ZERO,
    };
}

/// One source address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceAddress {
    /// `None`: the system chooses.
    pub ip: Option<std::net::IpAddr>,
    /// The first and the last of the ports that connections may have; `None`: the system chooses.
    pub ports: Option<(u16, u16)>,
    /// Device that connections go through.
    pub interface: Option<Arc<str>>,
    /// Connections have the client's address instead, if there is one.
    pub usesrc: Option<UseSrc>,
}

impl SourceAddress {
    /// Whether connections to `to` may come from it.
    pub fn fits(&self, to: std::net::IpAddr) -> bool {
        self.ip.is_none_or(|ip| ip.is_ipv4() == to.is_ipv4())
    }
}

/// HAProxy's words, which stand after `source`.
impl std::fmt::Display for SourceAddress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ip {
            None => out.write_str("*")?,
            Some(std::net::IpAddr::V6(ip)) if self.ports.is_some() => write!(out, "[{ip}]")?,
            Some(ip) => ip.fmt(out)?,
        }
        match self.ports {
            Some((first, last)) if first == last => write!(out, ":{first}")?,
            Some((first, last)) => write!(out, ":{first}-{last}")?,
            None => {}
        }
        if let Some(usesrc) = self.usesrc {
            write!(out, " usesrc {}", usesrc.name())?;
        }
        match &self.interface {
            Some(interface) => write!(out, " interface {interface}"),
            None => Ok(()),
        }
    }
}

/// What of the client's address a connection to a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UseSrc {
    /// Address and port.
    Client,
    /// The address alone.
    ClientIp,
}

impl UseSrc {
    /// HAProxy's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::ClientIp => "clientip",
        }
    }
}

/// The type of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// A connect, as without it, with the texts of `option tcp-check`; or its rules.
    Tcp,
    /// `option httpchk`, and the rules of `http-check`.
    Http,
    /// `option pgsql-check`.
    Postgres,
    /// `option mysql-check`.
    Mysql,
    /// `option redis-check`.
    Redis,
    /// `option smtpchk`.
    Smtp,
    /// `option ldap-check`.
    Ldap,
    /// `option ssl-hello-chk`.
    TlsHello,
    /// An API server of Kubernetes is asked whether it is ready; HAProxy has none.
    KubeApiserver,
}

/// What a server is that lives and does not want to answer those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unauthorized {
    /// Up.
    Up,
    /// Down.
    Down,
}

/// Whether a server's certificate must be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Checks fail when it is not.
    Required,
    /// It may be any.
    None,
}

impl CheckKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Tcp,
        Self::Http,
        Self::Postgres,
        Self::Mysql,
        Self::Redis,
        Self::Smtp,
        Self::Ldap,
        Self::TlsHello,
        Self::KubeApiserver,
    ];

    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Smtp => "smtp",
            Self::Ldap => "ldap",
            Self::TlsHello => "tls-hello",
            Self::KubeApiserver => "kube-apiserver",
        }
    }
}
