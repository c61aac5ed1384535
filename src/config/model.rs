//! The validated configuration: what is meant, with every default filled in and every reference
//! resolved.
//!
//! Produced by [`crate::config::load`], read by everyone, changed by no one. Never holds sockets,
//! atomics or shared counters; those are `state` and `live`. Two values compare equal exactly when
//! they mean the same, which is what a reload's diff stands on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[global]`.
    pub global: Global,
    /// `[log]`.
    pub log: Log,
    /// `[runtime-api]`; `None` without the table: no socket for commands.
    pub runtime_api: Option<RuntimeApi>,
    /// `[stats]`; `None` without the table: no stats listener.
    pub stats: Option<Stats>,
    /// Frontends, and the frontend halves of `[[listen]]`, in file order.
    pub frontends: Vec<Frontend>,
    /// Backends, and the backend halves of `[[listen]]`, in file order.
    pub backends: Vec<Backend>,
}

/// Index of a backend in [`Config::backends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendIndex(pub usize);

/// HAProxy's `iid`: the number of a proxy in the statistics. Given by `id`, or counted from 2 in
/// file order (the stats proxy takes the first).
pub type ProxyId = u32;

/// `[global]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// Worker threads. Default: one per usable core.
    pub threads: usize,
    /// Most concurrent client connections of the process, stats not counted. `None`: as many as
    /// the descriptor limit holds.
    pub maxconn: Option<u32>,
    /// How long sessions may go on after a graceful stop has begun. `None`: for ever.
    pub hard_stop_after: Option<Duration>,
    /// How long sessions may go on in the old process after an upgrade. `None`: for ever.
    pub upgrade_stop_after: Option<Duration>,
    /// Name of this machine in statistics and logs. `None`: the host name.
    pub node: Option<Arc<str>>,
    /// Free text shown with the statistics.
    pub description: Option<Arc<str>>,
    /// Reload when the configuration's files change.
    pub watch: bool,
    /// How long after a reload a backend that it took down brings the configuration before back;
    /// `None`: never.
    pub rollback_window: Option<Duration>,
}

/// `[log]`: where log lines in HAProxy's format go. Events for people go to stderr besides.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Program name in syslog headers; default `rlb`.
    pub tag: Arc<str>,
    /// Sinks, each gets every line of its level.
    pub targets: Vec<LogTarget>,
}

/// One `[[log.target]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogTarget {
    /// Where the lines go.
    pub sink: LogSink,
    /// Framing of a line.
    pub format: LogFormat,
    /// Syslog facility; default `local0`.
    pub facility: Facility,
    /// Least severe level that is written; default `info`, so that sessions are.
    pub level: Severity,
}

/// Where the lines of a [`LogTarget`] go.
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

/// `[runtime-api]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeApi {
    /// Path of the unix socket, or an abstract name that begins with `@`.
    pub socket: PathBuf,
    /// Its file mode; default 0600.
    pub mode: u32,
    /// What whoever may open it may do; default everything.
    pub level: ApiLevel,
}

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

/// `[stats]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Name of the stats proxy's row; default `stats`.
    pub name: Arc<str>,
    /// Its number in the statistics.
    pub id: ProxyId,
    /// Where it listens. TCP only.
    pub binds: Vec<Bind>,
    /// Most concurrent connections; default 200. Further ones wait in the backlog.
    pub maxconn: u32,
    /// What its page shows and to whom.
    pub page: StatsPage,
    /// When `/readyz` says yes.
    pub readiness: Readiness,
}

/// The page of the statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct StatsPage {
    /// Prefix of its address; default `/`.
    pub uri: Arc<str>,
    /// How often a browser asks again, whole seconds; `None`: only when told to.
    pub refresh: Option<Duration>,
    /// Do not tell the version.
    pub hide_version: bool,
    /// Who may see it; empty: everyone.
    pub auth: Vec<Credentials>,
    /// What a browser asks a password for; default `rlb statistics`.
    pub realm: Arc<str>,
    /// Show the name of this machine.
    pub show_node: bool,
    /// Free text on the page.
    pub description: Option<Arc<str>>,
    /// Show addresses, numbers and algorithms of proxies and servers.
    pub legends: bool,
    /// The only proxies that are shown; empty: all.
    pub scope: Vec<Arc<str>>,
}

impl Default for StatsPage {
    fn default() -> Self {
        Self {
            uri: "/".into(),
            refresh: None,
            hide_version: false,
            auth: Vec::new(),
            realm: "rlb statistics".into(),
            show_node: false,
            description: None,
            legends: false,
            scope: Vec::new(),
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

/// `[readiness]`: when this machine is to get traffic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Usable servers that each of these backends must have, by name.
    pub require: Vec<(Arc<str>, u32)>,
    /// How long a stop waits after `/readyz` has turned to no, before the listeners close, so that
    /// a router sees it in time.
    pub withdraw_delay: Duration,
}

/// `[[frontend]]`, or the frontend half of `[[listen]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Frontend {
    /// Name; unique among frontends.
    pub name: Arc<str>,
    /// Number in the statistics.
    pub id: ProxyId,
    /// Position among all proxies of the file: the order of the statistics' rows.
    pub order: u32,
    /// Where it listens, port ranges expanded: one entry a socket address.
    pub binds: Vec<Bind>,
    /// Present but not started.
    pub disabled: bool,
    /// Where its sessions go.
    pub default_backend: BackendIndex,
    /// Most concurrent sessions; `None`: the global limit alone.
    pub maxconn: Option<u32>,
    /// Client idle timeout; `None`: off.
    pub timeout_client: Option<Duration>,
    /// Client idle timeout once one direction has ended; `None`: off.
    pub timeout_client_fin: Option<Duration>,
    /// TCP keepalive towards clients.
    pub keepalive: Option<Keepalive>,
    /// Do not log sessions that carried no byte and ended normally (port probes).
    pub dontlognull: bool,
    /// Do not log sessions that ended normally.
    pub dontlog_normal: bool,
}

/// One listening address.
#[derive(Debug, Clone, PartialEq)]
pub struct Bind {
    /// Name of the listener; default its address as written.
    pub name: Arc<str>,
    /// Number among the listeners of its frontend, from 1.
    pub id: u32,
    /// Where.
    pub address: BindAddress,
    /// Refuse IPv4 on an IPv6 wildcard socket; `None`: as the system does.
    pub v6only: Option<bool>,
    /// Length of the kernel's accept queue, per shard; `None`: the frontend's maxconn or the
    /// global one. The kernel caps it at `net.core.somaxconn`.
    pub backlog: Option<u32>,
    /// Listen on this network device only (`SO_BINDTODEVICE`).
    pub interface: Option<Arc<str>>,
    /// Bind an address that this machine does not have yet (`IP_FREEBIND`).
    pub freebind: bool,
    /// File mode of a unix socket; `None`: by the umask.
    pub mode: Option<u32>,
}

/// Where a [`Bind`] listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path, or an abstract name that begins with `@`.
    Unix(PathBuf),
}

/// TCP keepalive of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe; default 10 s.
    pub idle: Duration,
    /// Time between probes; default 5 s.
    pub interval: Duration,
    /// Unanswered probes that end the connection; default 3.
    pub probes: u32,
}

/// `[[backend]]`, or the backend half of `[[listen]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Name; unique among backends.
    pub name: Arc<str>,
    /// Number in the statistics; that of its frontend for a `[[listen]]`.
    pub id: ProxyId,
    /// Position among all proxies of the file.
    pub order: u32,
    /// How a server is chosen.
    pub balance: Balance,
    /// Use all backup servers at once instead of the first.
    pub allbackups: bool,
    /// Session limit shown for the backend (`slim`); default a tenth of the sum of the maxconn of
    /// the frontends that lead here, as HAProxy.
    pub fullconn: u32,
    /// Server idle timeout; `None`: off.
    pub timeout_server: Option<Duration>,
    /// Server idle timeout once one direction has ended; `None`: off.
    pub timeout_server_fin: Option<Duration>,
    /// Whole budget for reaching a server.
    pub timeout_connect: Duration,
    /// How long one server may leave a connection unanswered before the next is asked too.
    pub connect_attempt: Duration,
    /// Connection attempts after the first.
    pub retries: u32,
    /// TCP keepalive towards servers.
    pub keepalive: Option<Keepalive>,
    /// Log each change of a health counter, not only of a state.
    pub log_health_checks: bool,
    /// In file order, names unique.
    pub servers: Vec<Server>,
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

/// One server of a backend.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, as in the file"
)]
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Name; unique in its backend.
    pub name: Arc<str>,
    /// HAProxy's `sid`: given by `id`, or counted from 1.
    pub id: u32,
    /// Where its connections go.
    pub address: ServerAddress,
    /// 0 to 256; 0 takes no new connections.
    pub weight: u32,
    /// Used only when no other server is usable.
    pub backup: bool,
    /// Starts in maintenance.
    pub disabled: bool,
    /// Health check; `None`: always up, shown as `no check`.
    pub check: Option<Check>,
    /// End its sessions when it goes down (`on-marked-down = "shutdown-sessions"`).
    pub shutdown_sessions_on_down: bool,
    /// End the sessions of backup servers when it comes up
    /// (`on-marked-up = "shutdown-backup-sessions"`).
    pub shutdown_backup_sessions_on_up: bool,
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

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asked of the server.
    pub kind: CheckKind,
    /// Time between the starts of two checks; default 2 s.
    pub interval: Duration,
    /// The same while the server goes down or comes up; default `interval`.
    pub fast_interval: Duration,
    /// The same while the server is down; default `interval`.
    pub down_interval: Duration,
    /// Passed checks in a row that bring a server up; default 2.
    pub rise: u32,
    /// Failed checks in a row that take a server down; default 3.
    pub fall: u32,
    /// How long one check may take; default the shorter of `interval` and 1 s.
    pub timeout: Duration,
    /// Port to check instead of the server's.
    pub port: Option<u16>,
    /// Address to check instead of the server's.
    pub address: Option<std::net::IpAddr>,
}

/// What a health check asks of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// `option tcp-check` without rules: a connection.
    Tcp,
}
