//! The configuration as written: what stands in the file, where, and nothing else.
//!
//! Plain data, made by `read`, turned into the model by `validate`. Holds no default and resolves
//! no name. Every key is optional here, so that what is missing is reported beside what is wrong.
//! The doc comments of the fields are the descriptions that `rlb schema` prints.

mod leaf;
mod proxy;

pub use leaf::{
    ApiLevelWord, BalanceWord, CheckType, CheckWord, Expected, FacilityWord, FormatWord, LevelWord,
    Located, MarkedDown, MarkedUp, OneOrMany, Short, Timespan,
};
pub use proxy::{
    Backend, BackendTimeouts, Bind, Check, Frontend, FrontendTimeouts, Listen, Server,
    ServerDefaults,
};

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A value that may be left out, and its place.
pub type Maybe<T> = Option<Located<T>>;
/// A list of addresses to listen on, or one of them.
pub type Binds = OneOrMany<Short<String, Bind>>;
/// `check`: a boolean, ``"tcp"``, or a table.
pub type CheckSetting = Short<CheckWord, Check>;
/// `keepalive`: a boolean or a table.
pub type KeepaliveSetting = Short<bool, Keepalive>;
/// Servers of a node group: name to host, or to a table.
pub type NodeGroup = BTreeMap<Located<String>, Located<Short<String, Node>>>;

/// An rlb configuration file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "rlb.toml")]
pub struct File {
    /// Further files to read: a path or a pattern, or a list of them, relative to this file:
    /// `"conf.d/*.toml"`. Read after this file, each pattern in the order of the names.
    pub include: Option<OneOrMany<String>>,
    /// The process.
    pub global: Maybe<Global>,
    /// Where lines in HAProxy's log format go. Without this table no session is logged.
    pub log: Maybe<Log>,
    /// The statistics listener. Without this table there is none.
    pub stats: Maybe<Stats>,
    /// When this machine is to get traffic. Without this table: while it runs.
    pub readiness: Maybe<Readiness>,
    /// The socket for commands. Without this table there is none.
    pub runtime_api: Maybe<RuntimeApi>,
    /// What every frontend and backend inherits, in included files too.
    pub defaults: Maybe<Defaults>,
    /// Named sets of hosts, so that several backends can use the same: [node-group.NAME] with
    /// lines server-name = `"host"`.
    #[serde(default)]
    pub node_group: BTreeMap<Located<String>, Located<NodeGroup>>,
    /// Where clients connect to.
    #[serde(default)]
    pub frontend: Vec<Located<Frontend>>,
    /// Servers, and how one is chosen.
    #[serde(default)]
    pub backend: Vec<Located<Backend>>,
    /// A frontend and its backend in one.
    #[serde(default)]
    pub listen: Vec<Located<Listen>>,
}

/// The process.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Global {
    /// Worker threads. Default: one per usable core.
    pub threads: Maybe<i64>,
    /// Most concurrent client connections of the process. Default: what the descriptor limit
    /// holds.
    pub maxconn: Maybe<i64>,
    /// How long sessions may go on after a graceful stop has begun. Default: for ever.
    pub hard_stop_after: Maybe<Timespan>,
    /// How long sessions may go on in the old process after an upgrade. Default: for ever.
    pub upgrade_stop_after: Maybe<Timespan>,
    /// Name of this machine in statistics and logs. Default: the host name.
    pub node: Maybe<String>,
    /// Free text shown with the statistics.
    pub description: Maybe<String>,
    /// Reload when the configuration's files change, or those that `${file:…}` reads. Default: false.
    pub watch: Maybe<bool>,
    /// How long after a reload a backend that has lost all its servers by it brings the
    /// configuration before back: `"30s"`. Default: never.
    pub rollback_window: Maybe<Timespan>,
}

/// Log lines in HAProxy's format.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Log {
    /// Program name in syslog headers. Default: `"rlb"`.
    pub tag: Maybe<String>,
    /// Where lines go; each target gets all lines of its level.
    #[serde(default)]
    pub target: Vec<Located<LogTarget>>,
}

/// One place where log lines go.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogTarget {
    /// `"stdout"`, `"stderr"`, `"file:/var/log/rlb.log"`, `"unix:/dev/log"` or `"udp:127.0.0.1:514"`.
    pub to: Maybe<String>,
    /// Framing of a line. Default: `"raw"` for stdout, stderr and files, `"rfc3164"` for syslog.
    pub format: Maybe<FormatWord>,
    /// Syslog facility. Default: `"local0"`.
    pub facility: Maybe<FacilityWord>,
    /// Least severe level that is written. Default: `"info"`, which includes sessions.
    pub level: Maybe<LevelWord>,
}

/// The statistics listener.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stats {
    /// Name of its row in the statistics. Default: `"stats"`.
    pub name: Maybe<String>,
    /// Where it listens.
    pub bind: Option<Binds>,
    /// Most concurrent connections. Default: 200.
    pub maxconn: Maybe<i64>,
    /// Where the page is: the beginning of its path. Default: `"/"`.
    pub uri: Maybe<String>,
    /// How often a browser asks again, whole seconds. Default: not by itself.
    pub refresh: Maybe<Timespan>,
    /// Do not tell the version. Default: false.
    pub hide_version: Maybe<bool>,
    /// Who may see the statistics: `"user:password"`, or a list of them. Default: everyone.
    pub auth: Option<OneOrMany<String>>,
    /// What a browser asks the password for. Default: `"rlb statistics"`.
    pub realm: Maybe<String>,
    /// Show the name of this machine. Default: false.
    pub show_node: Maybe<bool>,
    /// Show the description of `[global]`. Default: false.
    pub show_desc: Maybe<bool>,
    /// Text to show instead of the description of `[global]`.
    pub description: Maybe<String>,
    /// Show addresses, numbers and algorithms. Default: false.
    pub show_legends: Maybe<bool>,
    /// The only proxies to show: a name, or a list of them. Default: all.
    pub scope: Option<OneOrMany<String>>,
}

/// When this machine is to get traffic: what `/readyz` on the statistics listener says.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Readiness {
    /// Usable servers that backends must have: { NAME = 1 }. Default: none must.
    #[serde(default)]
    pub require: BTreeMap<Located<String>, Located<i64>>,
    /// How long a stop waits after `/readyz` has turned to no before the listeners close.
    /// Default: `"0s"`.
    pub withdraw_delay: Maybe<Timespan>,
}

/// The socket for commands, as HAProxy's `stats socket`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RuntimeApi {
    /// Path of a unix socket: `"/run/rlb/admin.sock"`.
    pub socket: Maybe<String>,
    /// File mode of the socket, octal. Default: `"0600"`.
    pub mode: Maybe<String>,
    /// What whoever may open the socket may do: `"user"`, `"operator"` or `"admin"`. Default:
    /// `"admin"`.
    pub level: Maybe<ApiLevelWord>,
}

/// What every frontend and backend inherits.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Defaults {
    /// Timeouts.
    pub timeout: Maybe<Timeouts>,
    /// Most concurrent sessions of each frontend. Default: the global limit alone.
    pub maxconn: Maybe<i64>,
    /// Connection attempts after the first. Default: 3.
    pub retries: Maybe<i64>,
    /// How a server is chosen. Default: `"roundrobin"`.
    pub balance: Maybe<BalanceWord>,
    /// Health check of each server: true, `"tcp"`, or a table. Default: none.
    pub check: Maybe<CheckSetting>,
    /// TCP keepalive on both sides. Default: { idle = `"10s"`, interval = `"5s"`, probes = 3 }.
    pub keepalive: Maybe<KeepaliveSetting>,
    /// Do not log sessions that carried no byte and ended normally. Default: false.
    pub dontlognull: Maybe<bool>,
    /// Do not log sessions that ended normally. Default: false.
    pub dontlog_normal: Maybe<bool>,
    /// Log each result of a health check that changes a counter. Default: false.
    pub log_health_checks: Maybe<bool>,
    /// What every server inherits.
    pub default_server: Maybe<ServerDefaults>,
}

/// Timeouts of both sides.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Timeouts {
    /// Longest silence of a client. Default: `"1h"`. `"0s"` switches it off.
    pub client: Maybe<Timespan>,
    /// Longest silence of a client once one direction has ended. Default: `"30s"`.
    pub client_fin: Maybe<Timespan>,
    /// Longest silence of a server. Default: `"1h"`. `"0s"` switches it off.
    pub server: Maybe<Timespan>,
    /// Longest silence of a server once one direction has ended. Default: `"30s"`.
    pub server_fin: Maybe<Timespan>,
    /// Whole budget for reaching a server, all attempts together. Default: `"5s"`.
    pub connect: Maybe<Timespan>,
    /// How long one server may leave a connection unanswered before the next is asked too.
    /// Default: `"300ms"`.
    pub connect_attempt: Maybe<Timespan>,
    /// How long one health check may take. Default: the shorter of the interval and `"1s"`.
    pub check: Maybe<Timespan>,
}

/// TCP keepalive of one side.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Keepalive {
    /// Silence before the first probe, whole seconds. Default: `"10s"`.
    pub idle: Maybe<Timespan>,
    /// Time between probes, whole seconds. Default: `"5s"`.
    pub interval: Maybe<Timespan>,
    /// Unanswered probes that end the connection. Default: 3.
    pub probes: Maybe<i64>,
}

impl Expected for Keepalive {
    const EXPECTED: &'static str =
        "a boolean or a table as { idle = \"10s\", interval = \"5s\", probes = 3 }";
}

/// One host of a node group.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Node {
    /// Address or name, without a port.
    pub host: Maybe<String>,
    /// Number of the server in its backend. Default: counted from 1.
    pub id: Maybe<i64>,
    /// Share of the connections, 0 to 256. Default: 1.
    pub weight: Maybe<i64>,
    /// Health check; overrides the backend's, key by key.
    pub check: Maybe<CheckSetting>,
    /// Use only when no other server is usable. Default: false.
    pub backup: Maybe<bool>,
    /// Start in maintenance. Default: false.
    pub disabled: Maybe<bool>,
    /// What happens to its sessions when it goes down. Default: `"none"`.
    pub on_marked_down: Maybe<MarkedDown>,
    /// What happens to the sessions of backup servers when it comes up. Default: `"none"`.
    pub on_marked_up: Maybe<MarkedUp>,
}

impl Expected for Node {
    const EXPECTED: &'static str =
        "a host in quotes or a table as { host = \"10.0.0.1\", weight = 2 }";
}
