//! `[[frontend]]`, `[[backend]]`, `[[listen]]` and what stands in them, as written.
//!
//! Plain data; see the head of the folder.

use super::{
    BalanceWord, Binds, CheckSetting, CheckType, Expected, KeepaliveSetting, Located, MarkedDown,
    MarkedUp, Maybe, Timeouts, Timespan,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Where clients connect to.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Frontend {
    /// Name; unique among frontends.
    pub name: Maybe<String>,
    /// Number in the statistics. Default: counted from 2.
    pub id: Maybe<i64>,
    /// Where it listens: `"*:80"`, `"127.0.0.1:80"`, `"[::]:80"`, `"*:8000-8010"`, `"unix:/path"`, a table,
    /// or a list of them.
    pub bind: Option<Binds>,
    /// Name of the backend where its sessions go.
    pub default_backend: Maybe<String>,
    /// Most concurrent sessions. Default: the global limit alone.
    pub maxconn: Maybe<i64>,
    /// Length of the kernel's accept queue, per worker thread. Default: maxconn.
    pub backlog: Maybe<i64>,
    /// Present but not started. Default: false.
    pub disabled: Maybe<bool>,
    /// Timeouts of the client side.
    pub timeout: Maybe<FrontendTimeouts>,
    /// TCP keepalive towards clients.
    pub keepalive: Maybe<KeepaliveSetting>,
    /// Do not log sessions that carried no byte and ended normally. Default: false.
    pub dontlognull: Maybe<bool>,
    /// Do not log sessions that ended normally. Default: false.
    pub dontlog_normal: Maybe<bool>,
}

/// Timeouts of the client side.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FrontendTimeouts {
    /// Longest silence of a client. Default: `"1h"`. `"0s"` switches it off.
    pub client: Maybe<Timespan>,
    /// Longest silence of a client once one direction has ended. Default: `"30s"`.
    pub client_fin: Maybe<Timespan>,
}

/// One listening address, or a range of ports.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bind {
    /// `"*:80"`, `"127.0.0.1:80"`, `"[::]:80"`, `"*:8000-8010"`, `"unix:/path"` or `"unix:@name"`.
    pub address: Maybe<String>,
    /// Name of the listener. Default: its address.
    pub name: Maybe<String>,
    /// Number among the listeners of its frontend. Default: counted from 1.
    pub id: Maybe<i64>,
    /// Length of the kernel's accept queue, per worker thread. Default: the frontend's.
    pub backlog: Maybe<i64>,
    /// Refuse IPv4 on an IPv6 wildcard address. Default: as net.ipv6.bindv6only says.
    pub v6only: Maybe<bool>,
    /// Listen on this network device only.
    pub interface: Maybe<String>,
    /// Bind an address that this machine does not have (yet). Default: false.
    pub freebind: Maybe<bool>,
    /// File mode of a unix socket, octal, as `"0660"`. Default: by the umask.
    pub mode: Maybe<String>,
}

impl Expected for Bind {
    const EXPECTED: &'static str =
        "an address as \"*:80\" or a table as { address = \"*:80\", backlog = 1024 }";
}

/// Servers, and how one is chosen.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Backend {
    /// Name; unique among backends.
    pub name: Maybe<String>,
    /// Number in the statistics. Default: counted from 2.
    pub id: Maybe<i64>,
    /// How a server is chosen. Default: `"roundrobin"`.
    pub balance: Maybe<BalanceWord>,
    /// Health check of each server: true, `"tcp"`, or a table. Default: none.
    pub check: Maybe<CheckSetting>,
    /// The servers.
    #[serde(default)]
    pub servers: Maybe<Vec<Located<Server>>>,
    /// Name of a node group whose hosts are servers here, at `port`.
    pub nodes: Maybe<String>,
    /// Port of the servers that come from `nodes`.
    pub port: Maybe<i64>,
    /// Timeouts of the server side.
    pub timeout: Maybe<BackendTimeouts>,
    /// Connection attempts after the first. Default: 3.
    pub retries: Maybe<i64>,
    /// Use all backup servers at once instead of the first. Default: false.
    pub allbackups: Maybe<bool>,
    /// Session limit shown for the backend. Default: a tenth of the maxconn of the frontends that
    /// lead here.
    pub fullconn: Maybe<i64>,
    /// TCP keepalive towards servers.
    pub keepalive: Maybe<KeepaliveSetting>,
    /// Log each result of a health check that changes a counter. Default: false.
    pub log_health_checks: Maybe<bool>,
    /// What every server of this backend inherits.
    pub default_server: Maybe<ServerDefaults>,
}

/// Timeouts of the server side.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BackendTimeouts {
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

/// One server.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Server {
    /// Name; unique in its backend.
    pub name: Maybe<String>,
    /// Number in its backend. Default: counted from 1.
    pub id: Maybe<i64>,
    /// `"10.0.0.1:5432"`, `"[::1]:80"`, `"name:80"` or `"unix:/path"`. Without a port, or with an offset
    /// as in `"name:+1000"`: the port that the client connected to.
    pub address: Maybe<String>,
    /// Share of the connections, 0 to 256; 0 takes no new ones. Default: 1.
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

/// What servers inherit.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServerDefaults {
    /// Share of the connections, 0 to 256. Default: 1.
    pub weight: Maybe<i64>,
    /// Health check; overrides the backend's, key by key.
    pub check: Maybe<CheckSetting>,
    /// Use only when no other server is usable. Default: false.
    pub backup: Maybe<bool>,
    /// Start in maintenance. Default: false.
    pub disabled: Maybe<bool>,
    /// What happens to a server's sessions when it goes down. Default: `"none"`.
    pub on_marked_down: Maybe<MarkedDown>,
    /// What happens to the sessions of backup servers when a server comes up. Default: `"none"`.
    pub on_marked_up: Maybe<MarkedUp>,
}

/// A health check.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Check {
    /// What is asked of the server. Default: `"tcp"`, a connection.
    #[serde(rename = "type")]
    pub kind: Maybe<CheckType>,
    /// Time between the starts of two checks. Default: `"2s"`.
    pub interval: Maybe<Timespan>,
    /// The same while the server goes down or comes up. Default: interval.
    pub fast_interval: Maybe<Timespan>,
    /// The same while the server is down. Default: interval.
    pub down_interval: Maybe<Timespan>,
    /// Passed checks in a row that bring a server up. Default: 2.
    pub rise: Maybe<i64>,
    /// Failed checks in a row that take a server down. Default: 3.
    pub fall: Maybe<i64>,
    /// How long one check may take. Default: the shorter of interval and `"1s"`.
    pub timeout: Maybe<Timespan>,
    /// Port to check instead of the server's.
    pub port: Maybe<i64>,
    /// Address to check instead of the server's.
    pub address: Maybe<String>,
}

impl Expected for Check {
    const EXPECTED: &'static str =
        "a boolean, \"tcp\" or a table as { interval = \"2s\", rise = 2, fall = 3 }";
}

/// A frontend and its backend in one.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Listen {
    /// Name; unique among frontends and among backends.
    pub name: Maybe<String>,
    /// Number in the statistics. Default: counted from 2.
    pub id: Maybe<i64>,
    /// Where it listens, as for a frontend.
    pub bind: Option<Binds>,
    /// Most concurrent sessions. Default: the global limit alone.
    pub maxconn: Maybe<i64>,
    /// Length of the kernel's accept queue, per worker thread. Default: maxconn.
    pub backlog: Maybe<i64>,
    /// Present but not started. Default: false.
    pub disabled: Maybe<bool>,
    /// Do not log sessions that carried no byte and ended normally. Default: false.
    pub dontlognull: Maybe<bool>,
    /// Do not log sessions that ended normally. Default: false.
    pub dontlog_normal: Maybe<bool>,
    /// Timeouts of both sides.
    pub timeout: Maybe<Timeouts>,
    /// TCP keepalive on both sides.
    pub keepalive: Maybe<KeepaliveSetting>,
    /// How a server is chosen. Default: `"roundrobin"`.
    pub balance: Maybe<BalanceWord>,
    /// Health check of each server: true, `"tcp"`, or a table. Default: none.
    pub check: Maybe<CheckSetting>,
    /// The servers.
    #[serde(default)]
    pub servers: Maybe<Vec<Located<Server>>>,
    /// Name of a node group whose hosts are servers here, at `port`.
    pub nodes: Maybe<String>,
    /// Port of the servers that come from `nodes`.
    pub port: Maybe<i64>,
    /// Connection attempts after the first. Default: 3.
    pub retries: Maybe<i64>,
    /// Use all backup servers at once instead of the first. Default: false.
    pub allbackups: Maybe<bool>,
    /// Session limit shown for the backend. Default: a tenth of maxconn.
    pub fullconn: Maybe<i64>,
    /// Log each result of a health check that changes a counter. Default: false.
    pub log_health_checks: Maybe<bool>,
    /// What every server inherits.
    pub default_server: Maybe<ServerDefaults>,
}

impl Listen {
    /// Its two halves. The frontend's `default-backend` is left open: it is the other half.
    pub fn split(self) -> (Frontend, Backend) {
        let timeouts = self.timeout.map(|timeout| {
            let (t, span) = (timeout.value, timeout.span);
            let client = FrontendTimeouts {
                client: t.client,
                client_fin: t.client_fin,
            };
            let server = BackendTimeouts {
                server: t.server,
                server_fin: t.server_fin,
                connect: t.connect,
                connect_attempt: t.connect_attempt,
                check: t.check,
            };
            (
                Located {
                    value: client,
                    span: span.clone(),
                },
                Located {
                    value: server,
                    span,
                },
            )
        });
        let (client, server) = timeouts.unzip();
        let frontend = Frontend {
            name: self.name.clone(),
            id: self.id.clone(),
            bind: self.bind,
            default_backend: None,
            maxconn: self.maxconn,
            backlog: self.backlog,
            disabled: self.disabled,
            timeout: client,
            keepalive: self.keepalive.clone(),
            dontlognull: self.dontlognull,
            dontlog_normal: self.dontlog_normal,
        };
        let backend = Backend {
            name: self.name,
            id: self.id,
            balance: self.balance,
            check: self.check,
            servers: self.servers,
            nodes: self.nodes,
            port: self.port,
            timeout: server,
            retries: self.retries,
            allbackups: self.allbackups,
            fullconn: self.fullconn,
            keepalive: self.keepalive,
            log_health_checks: self.log_health_checks,
            default_server: self.default_server,
        };
        (frontend, backend)
    }
}
