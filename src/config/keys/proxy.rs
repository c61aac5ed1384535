//! The keys of frontends, backends and `[[listen]]`, and those that they inherit from `[defaults]`.
//!
//! `[[listen]]` has the groups of keys of both sides, `[defaults]` those that can be inherited. A key that is
//! added to a group exists in every table with that group.

use super::bind::{BACKLOG_BOUNDS, Bind, Binds};
use super::check::CheckSetting;
use super::declare::prelude::*;
use super::kinds::{
    Expression, Factor, FormatText, IdleSpan, Number, Optional, Port, Prime, Raw, Seconds, Span,
    SpanOrZero, Switch, Text, Word,
};
use super::server::{Server, ServerKeys, ServerTable};
use super::source::SourceKind;
use crate::config::choices::{
    BalanceWord, HashTypeWord, NoServerWord, PreserveAffinityWord, StatesFromWord,
};
use crate::config::hash_on::HashOn;
use crate::config::key::Effect::{AtOnce, NextConnection};
use crate::config::key::{ID_BOUNDS, MAXCONN_MAX, PORT_BOUNDS, REQUIRED};
use crate::config::shapes::{Expected, Located, Maybe, Short};
use crate::config::show::{bool_word, duration, number, optional_text, secs};
use crate::config::values::{
    BackendIndex, Balance, HashType, NoServer, PreserveAffinity, ProxyId, StatesFrom,
};
use std::sync::Arc;
use std::time::Duration;

/// The bounds of `maxconn`.
pub(super) const MAXCONN_BOUNDS: (i64, i64) = (1, MAXCONN_MAX);
/// The bounds of rates.
pub(super) const RATE_BOUNDS: (i64, i64) = MAXCONN_BOUNDS;
/// Default of `retries`.
pub const RETRIES: u32 = 3;
/// Highest `retries`.
pub const RETRIES_MAX: i64 = 100;
/// Most servers that `random` draws.
pub const DRAWS_MAX: i64 = 100;
/// Least and highest `maglev-table-size`: prime numbers.
const TABLE_MIN: i64 = 251;
pub(in crate::config) const TABLE_MAX: i64 = 1_000_003;
/// Highest `min-servers`.
const MIN_SERVERS_MAX: i64 = 65_536;

/// Highest `hash-balance-factor`.
pub const FACTOR_MAX: i64 = 100_000;
/// Default of idle timeouts.
pub(in crate::config) const IDLE: Duration = Duration::from_secs(60 * 60);
/// Default of `timeout client-hs`; `timeout client` when that is shorter.
pub(in crate::config) const CLIENT_HS: Duration = Duration::from_secs(10);
/// Default of `timeout connect`.
pub(in crate::config) const CONNECT: Duration = Duration::from_secs(5);
/// Default of `timeout connect-attempt`; half of `timeout connect` when that is shorter, so that a second server is
/// always asked.
pub(in crate::config) const CONNECT_ATTEMPT: Duration = Duration::from_millis(300);
/// Longest keepalive time, in seconds (`MAX_TCP_KEEPIDLE` of Linux).
const KEEPALIVE_SECONDS_MAX: i64 = 32_767;
/// Most keepalive probes (`MAX_TCP_KEEPCNT` of Linux).
const KEEPALIVE_PROBES_MAX: i64 = 127;

/// `keepalive`: a boolean or a table.
pub type KeepaliveSetting = Short<bool, KeepaliveTable>;

keys! {
    /// What a frontend may inherit.
    table FrontendKeys, "FrontendDefaults", "[defaults]";
    layer FrontendLayer;
    meant {
        /// Most concurrent sessions of a frontend. Further ones wait in the kernel's accept queue. 0: the global limit
        /// alone.
        maxconn: Optional<Number> = "the global limit alone",
            bounds: Some((0, MAXCONN_MAX)), haproxy: &["maxconn"], reload: NextConnection;
        /// Most sessions that begin in a second. Further clients wait in the kernel's accept queue. 0: no limit.
        rate_limit_sessions: Optional<Number> = "no limit",
            bounds: Some((0, MAXCONN_MAX)), haproxy: &["rate-limit"], reload: NextConnection;
        /// Do not log sessions that carried no byte and ended normally.
        dontlognull: Switch = false, haproxy: &["option dontlognull"], reload: NextConnection;
        /// Do not log sessions that ended normally.
        dontlog_normal: Switch = false, haproxy: &["option dontlog-normal"], reload: NextConnection;
        /// Number sessions by this format, as `"%ci:%cp_%Ts_%rt"`. Servers get it with `proxy-v2-options = "unique-id"`.
        /// `""`: not.
        unique_id_format: Optional<FormatText> = "none",
            haproxy: &["unique-id-format"], reload: NextConnection;
        /// Text behind the line of a session in the log, as `"%ID %[fc_pp_authority]"`. `""`: none.
        log_suffix: Optional<FormatText> = "none", reload: NextConnection;
    }
    /// `[[frontend]]`, or the frontend half of `[[listen]]`.
    #[derive(Debug, Clone, PartialEq)]
    model Frontend {
        /// Name; unique among frontends.
        name: Arc<str> = "".into();
        /// Number in the statistics.
        id: ProxyId = 0, ProxyKeys::id => number;
        /// Position among all proxies of the file: the order of the statistics' rows.
        order: u32 = 0;
        /// Where it listens, port ranges expanded: one entry a socket address.
        binds: Vec<Bind> = Vec::new();
        /// Present but not started.
        disabled: bool = false, ListenerKeys::disabled => bool_word;
        /// Where its sessions go.
        default_backend: BackendIndex = BackendIndex(usize::MAX);
        /// Client idle timeout; `None`: off.
        timeout_client: Option<Duration> = Some(IDLE), ClientTimeouts::client => duration;
        /// Client idle timeout once one direction has ended; `None`: off.
        timeout_client_fin: Option<Duration> = Some(IDLE),
            ClientTimeouts::client_fin => duration;
        /// How long a client's PROXY header is waited for.
        timeout_client_hs: Duration = CLIENT_HS, ClientTimeouts::client_hs => secs;
        /// TCP keepalive towards clients.
        keepalive: Option<Keepalive> = Some(Keepalive::default()),
            FrontendTable::keepalive => Keepalive::text;
    }
}

keys! {
    /// Keys of a frontend that are not inherited.
    table ListenerKeys, "Listener", "[[frontend]]";
    layer ListenerLayer;
    raw {
        /// Where it listens: `"*:80"`, `"127.0.0.1:80"`, `"[::]:80"`, `"*:8000-8010"`, `"unix:/path"`, a
        /// table, or a list of them.
        bind: Raw<Option<Binds>> = REQUIRED, kind: "address, table or list", haproxy: &["bind"];
    }
    read {
        /// Length of the kernel's accept queue, per worker thread. The kernel cuts it at
        /// `net.core.somaxconn`.
        backlog: Optional<Number> = "maxconn",
            bounds: Some(BACKLOG_BOUNDS), haproxy: &["backlog"], reload: NextConnection;
        /// Present but not started.
        disabled: Switch = false, haproxy: &["disabled"], reload: NextConnection;
    }
}

keys! {
    /// Keys of every proxy.
    table ProxyKeys, "Proxy", "[[frontend]]";
    layer ProxyLayer;
    raw {
        /// Name; unique among frontends, and among backends. A listen counts as both.
        name: Raw<Maybe<String>> = REQUIRED, kind: "name";
    }
    read {
        /// Number in the statistics. The statistics' own row takes the first that is free.
        id: Optional<Number> = "counted from 2",
            bounds: Some(ID_BOUNDS), haproxy: &["id"], reload: NextConnection;
    }
}

keys! {
    /// Where clients connect to.
    table FrontendTable, "Frontend", "[[frontend]]";
    groups {
        proxy: ProxyKeys;
        own: ListenerKeys;
        keys: FrontendKeys = from "[defaults]";
    }
    raw {
        /// Name of the backend where its sessions go.
        default_backend: Raw<Maybe<String>> = REQUIRED,
            kind: "name", haproxy: &["default_backend"], reload: NextConnection;
        /// Timeouts of the client side.
        timeout: Raw<Maybe<ClientTimeouts>> = "", haproxy: &["timeout"];
        /// TCP keepalive towards clients.
        keepalive: Raw<Maybe<KeepaliveSetting>> = "on",
            kind: "switch or table", haproxy: &["option clitcpka"], reload: NextConnection;
    }
}

keys! {
    /// Timeouts of the client side.
    table ClientTimeouts, "FrontendTimeouts", "a timeout table";
    layer ClientTimeoutLayer;
    read {
        /// Longest silence of a client. `"0s"` switches it off.
        client: IdleSpan = IDLE, label: Some("timeout client"), example: Some("\"60s\""),
            haproxy: &["timeout client", "clitimeout"], reload: NextConnection;
        /// Longest silence of a client that was told that the server has ended, `client` at most.
        client_fin: Optional<IdleSpan> = "as client", label: Some("timeout client-fin"),
            example: Some("\"30s\""), haproxy: &["timeout client-fin"], reload: NextConnection;
        /// How long a client's PROXY header is waited for.
        client_hs: Optional<Span> = "the shorter of client and \"10s\"",
            label: Some("timeout client-hs"), example: Some("\"10s\""),
            haproxy: &["timeout client-hs"], reload: NextConnection;
    }
}

keys! {
    /// What a backend may inherit.
    table BackendKeys, "BackendDefaults", "[defaults]";
    layer BackendLayer;
    raw {
        /// Health check of each server: true, a type as `"tcp"`, or a table.
        check: Raw<Maybe<CheckSetting>> = "none",
            kind: "switch, type or table", haproxy: &["option tcp-check"],
            reload: NextConnection;
        /// What every server inherits.
        default_server: Raw<Maybe<ServerKeys>> = "none", haproxy: &["default-server"];
    }
    meant {
        /// How a server is chosen.
        balance: Word<BalanceWord> = Balance::RoundRobin,
            haproxy: &["balance"], reload: NextConnection;
        /// How many servers `random` draws, to take the one with the least load.
        random_draws: Number = 2,
            bounds: Some((1, DRAWS_MAX)), reload: NextConnection;
        /// How the server of a hash is found.
        hash_type: Word<HashTypeWord> = HashType::default(),
            haproxy: &["hash-type"], reload: NextConnection;
        /// What `hash` hashes: `"src"`, `"src,ipmask(24)"`, `"src,ipmask(24,64)"`, the same with `dst`, or `"dst_port"`.
        hash_on: Expression = HashOn::SOURCE, example: Some("\"src,ipmask(24)\""),
            reload: NextConnection;
        /// Sessions of a server, in percent of its share, above which a hash on a ring leads to the next server; 0: no
        /// limit.
        hash_balance_factor: Factor = 0,
            bounds: Some((0, FACTOR_MAX)), haproxy: &["hash-balance-factor"], reload: NextConnection;
        /// Whether a hash on a ring leads to the next server where a session would have to wait: `"always"` no,
        /// `"maxconn"` when the server is full, `"maxqueue"` when no more sessions may wait for it.
        hash_preserve_affinity: Word<PreserveAffinityWord> = PreserveAffinity::Always,
            haproxy: &["hash-preserve-affinity"], reload: NextConnection;
        /// How many slots the table of `maglev` has: a prime number, at least a hundred times the number of servers.
        maglev_table_size: Prime = 65_537,
            bounds: Some((TABLE_MIN, TABLE_MAX)), reload: NextConnection;
        /// How many of its servers `observe` may take down at once, in percent of those that are not in maintenance.
        max_ejected: Number = 100, bounds: Some((0, 100)), reload: NextConnection;
        /// Servers of the next `priority` are used as well when less of the weight of one is usable, in percent. 0: when
        /// none of its servers is usable.
        spill_below: Number = 0, bounds: Some((0, 100)), reload: NextConnection;
        /// The verdict of the checks is not believed when fewer servers are up, in percent: then all are used that are not
        /// in maintenance or draining. 0: it is always believed.
        fail_open_below: Number = 0, bounds: Some((0, 100)), reload: NextConnection;
        /// When fewer servers are usable, the backend is DOWN, and new sessions get what `no-server` says.
        min_servers: Number = 1, bounds: Some((1, MIN_SERVERS_MAX)), reload: NextConnection;
        /// Connection attempts after the first, each at another server while there is one.
        retries: Number = RETRIES,
            bounds: Some((0, RETRIES_MAX)), haproxy: &["retries"], reload: NextConnection;
        /// Most attempts after the first of all sessions together, in percent of the first ones in the last ten seconds, and
        /// 100 beside them. 0: no limit.
        retry_budget: Optional<Number> = "no limit",
            bounds: Some((0, 100)), reload: NextConnection;
        /// End a session whose client has ended its side before a server has answered, also when it has sent bytes.
        abortonclose: Switch = false,
            haproxy: &["option abortonclose"], reload: NextConnection;
        /// The age at which a session ends, at the next quiet moment: up to a tenth sooner or later, so that sessions that
        /// began together do not end together. `"0s"`: at none.
        max_session_age: SpanOrZero = Duration::ZERO, example: Some("\"8h\""), reload: NextConnection;
        /// How many sessions may be ended in a minute, at quiet moments, so that servers have their shares of the sessions
        /// again, in percent of those of the backend. 0: none.
        rebalance: Number = 0, bounds: Some((0, 100)), reload: AtOnce;
        /// What becomes of a client when no server of the backend is usable.
        no_server: Word<NoServerWord> = NoServer::Close, reload: NextConnection;
        /// Log each result of a health check that changes a counter, not only changes of state.
        log_health_checks: Switch = false,
            haproxy: &["option log-health-checks"], reload: NextConnection;
        /// With which states servers begin after a start: `"global"` those in `server-state-file` of `[global]`, `"local"`
        /// those in a file of the backend's own, which is written likewise.
        load_server_state_from_file: Word<StatesFromWord> = StatesFrom::None,
            haproxy: &["load-server-state-from-file"], reload: NextConnection;
        /// From where connections to servers come that have no `source` of their own.
        source: Optional<SourceKind> = "the system chooses", haproxy: &["source"],
            reload: NextConnection;
    }
    /// `[[backend]]`, or the backend half of `[[listen]]`.
    #[derive(Debug, Clone, PartialEq)]
    model Backend {
        /// Name; unique among backends.
        name: Arc<str> = "".into();
        /// Number in the statistics; that of its frontend for a `[[listen]]`.
        id: ProxyId = 0, ProxyKeys::id => number;
        /// Position among all proxies of the file.
        order: u32 = 0;
        /// Use all backup servers at once instead of the first.
        allbackups: bool = false, ServersKeys::allbackups => bool_word;
        /// Session limit shown for the backend (`slim`); default a tenth of the sum of the maxconn of
        /// the frontends that lead here, as HAProxy.
        fullconn: u32 = 0, ServersKeys::fullconn => number;
        /// Server idle timeout; `None`: off.
        timeout_server: Option<Duration> = Some(IDLE), ServerTimeouts::server => duration;
        /// Server idle timeout once one direction has ended; `None`: off.
        timeout_server_fin: Option<Duration> = Some(IDLE),
            ServerTimeouts::server_fin => duration;
        /// Whole budget for reaching a server.
        timeout_connect: Duration = CONNECT, ServerTimeouts::connect => secs;
        /// Longest time that a session waits in queues; default `timeout connect`.
        timeout_queue: Duration = CONNECT, ServerTimeouts::queue => secs;
        /// How long a session is held while no server is usable.
        timeout_no_server: Duration = Duration::ZERO, ServerTimeouts::no_server => secs;
        /// How long one server may leave a connection unanswered before the next is asked too.
        connect_attempt: Duration = CONNECT_ATTEMPT, ServerTimeouts::connect_attempt => secs;
        /// TCP keepalive towards servers.
        keepalive: Option<Keepalive> = Some(Keepalive::default()),
            BackendTable::keepalive => Keepalive::text;
        /// Name of the backend where sessions go while this one has no usable server. No backend leads to itself.
        sorry_backend: Option<Arc<str>> = None, ServersKeys::sorry_backend => optional_text;
        /// Path of its file of states, with `load-server-state-from-file = "local"`; `None`: its name.
        server_state_file_name: Option<Arc<str>> = None, ServersKeys::server_state_file_name => optional_text;
        /// In file order, names unique.
        servers: Vec<Server> = Vec::new();
    }
}

keys! {
    /// Keys of a backend that are not inherited.
    table ServersKeys, "Servers", "[[backend]]";
    layer ServersLayer;
    raw {
        /// The servers.
        servers: Raw<Maybe<Vec<Located<ServerTable>>>> = "none",
            kind: "list of tables", haproxy: &["server"];
        /// Name of a node group whose hosts are servers here, at `port`, behind those of `servers`.
        nodes: Raw<Maybe<String>> = "none", kind: "name";
        /// Name of the backend where sessions go while this one has no usable server.
        sorry_backend: Raw<Maybe<String>> = "none", kind: "name", reload: NextConnection;
    }
    read {
        /// Port of the servers that come from `nodes`.
        port: Optional<Port> = "required with nodes", bounds: Some(PORT_BOUNDS);
        /// Use all backup servers at once instead of the first.
        allbackups: Switch = false, haproxy: &["option allbackups"], reload: NextConnection;
        /// Session limit shown for the backend.
        fullconn: Optional<Number> = "a tenth of the maxconn of the frontends that lead here",
            bounds: Some(MAXCONN_BOUNDS), haproxy: &["fullconn"], reload: NextConnection;
        /// With `load-server-state-from-file = "local"`: the path of the backend's file of states.
        server_state_file_name: Optional<Text> = "the backend's name", example: Some("\"/var/lib/rlb/web\""),
            haproxy: &["server-state-file-name"], reload: NextConnection;
    }
}

keys! {
    /// Servers, and how one is chosen.
    table BackendTable, "Backend", "[[backend]]";
    groups {
        proxy: ProxyKeys;
        own: ServersKeys;
        keys: BackendKeys = from "[defaults]";
    }
    raw {
        /// Timeouts of the server side.
        timeout: Raw<Maybe<ServerTimeouts>> = "", haproxy: &["timeout"];
        /// TCP keepalive towards servers.
        keepalive: Raw<Maybe<KeepaliveSetting>> = "on",
            kind: "switch or table", haproxy: &["option srvtcpka"], reload: NextConnection;
    }
}

keys! {
    /// Timeouts of the server side.
    table ServerTimeouts, "BackendTimeouts", "a timeout table";
    layer ServerTimeoutLayer;
    read {
        /// Longest silence of a server. `"0s"` switches it off.
        server: IdleSpan = IDLE, label: Some("timeout server"), example: Some("\"60s\""),
            haproxy: &["timeout server", "srvtimeout"], reload: NextConnection;
        /// Longest silence of a server that was told that the client has ended, `server` at most.
        server_fin: Optional<IdleSpan> = "as server", label: Some("timeout server-fin"),
            example: Some("\"30s\""), haproxy: &["timeout server-fin"], reload: NextConnection;
        /// Whole budget for reaching a server, all attempts together.
        connect: Span = CONNECT, label: Some("timeout connect"), example: Some("\"5s\""),
            haproxy: &["timeout connect", "contimeout"], reload: NextConnection;
        /// How long one server may leave a connection unanswered before the next is asked too,
        /// `connect` at most.
        connect_attempt: Span = CONNECT_ATTEMPT, label: Some("timeout connect-attempt"),
            example: Some("\"300ms\""), reload: NextConnection;
        /// Longest time that a session waits in queues for a server with `maxconn`. It is no part of `connect`.
        queue: Optional<Span> = "as connect", label: Some("timeout queue"), example: Some("\"5s\""),
            haproxy: &["timeout queue"], reload: NextConnection;
        /// How long a client is held while no server is usable, until one is. It is no part of `connect`. `"0s"`: it is
        /// not held.
        no_server: SpanOrZero = Duration::ZERO, label: Some("timeout no-server"), example: Some("\"10s\""),
            reload: NextConnection;
        /// How long one health check may take.
        check: Optional<Span> = "the shorter of the interval and \"1s\"",
            label: Some("timeout check"), example: Some("\"1s\""),
            haproxy: &["timeout check"], reload: NextConnection;
    }
}

keys! {
    /// Timeouts of both sides.
    table TimeoutTable, "Timeouts", "a timeout table";
    groups {
        client: ClientTimeouts;
        server: ServerTimeouts;
    }
}

keys! {
    /// A frontend and its backend in one.
    table ListenTable, "Listen", "[[listen]]";
    groups {
        proxy: ProxyKeys;
        listener: ListenerKeys;
        frontend: FrontendKeys = from "[defaults]";
        servers: ServersKeys;
        backend: BackendKeys = from "[defaults]";
    }
    raw {
        /// Timeouts of both sides.
        timeout: Raw<Maybe<TimeoutTable>> = "", haproxy: &["timeout"];
        /// TCP keepalive on both sides.
        keepalive: Raw<Maybe<KeepaliveSetting>> = "on",
            kind: "switch or table", haproxy: &["option tcpka"], reload: NextConnection;
    }
}

keys! {
    /// What every frontend and backend inherits.
    table DefaultsTable, "Defaults", "[defaults]";
    groups {
        frontend: FrontendKeys;
        backend: BackendKeys;
    }
    raw {
        /// Timeouts.
        timeout: Raw<Maybe<TimeoutTable>> = "", haproxy: &["timeout"];
        /// TCP keepalive on both sides.
        keepalive: Raw<Maybe<KeepaliveSetting>> = "on",
            kind: "switch or table", haproxy: &["option tcpka"], reload: NextConnection;
    }
}

keys! {
    /// TCP keepalive of one side.
    table KeepaliveTable, "Keepalive", "a keepalive table";
    layer KeepaliveLayer;
    meant {
        /// Silence before the first probe, whole seconds.
        idle: Seconds = Duration::from_secs(10), label: Some("keepalive idle"),
            bounds: Some((1, KEEPALIVE_SECONDS_MAX)),
            haproxy: &["clitcpka-idle", "srvtcpka-idle"], reload: NextConnection;
        /// Time between probes, whole seconds.
        interval: Seconds = Duration::from_secs(5), label: Some("keepalive interval"),
            bounds: Some((1, KEEPALIVE_SECONDS_MAX)),
            haproxy: &["clitcpka-intvl", "srvtcpka-intvl"], reload: NextConnection;
        /// Unanswered probes that end the connection.
        probes: Number = 3, bounds: Some((1, KEEPALIVE_PROBES_MAX)),
            haproxy: &["clitcpka-cnt", "srvtcpka-cnt"], reload: NextConnection;
    }
    /// TCP keepalive of one side.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    model Keepalive {}
}

impl Expected for KeepaliveTable {
    const EXPECTED: &'static str =
        "a boolean or a table as { idle = \"10s\", interval = \"5s\", probes = 3 }";
}

impl Keepalive {
    /// Its text in a comparison: `10s/5s/3`, or `off`.
    #[expect(
        clippy::ref_option,
        reason = "it takes a field of the model as it stands"
    )]
    fn text(keepalive: &Option<Self>) -> String {
        keepalive.as_ref().map_or_else(
            || "off".to_owned(),
            |it| format!("{}/{}/{}", secs(&it.idle), secs(&it.interval), it.probes),
        )
    }
}
