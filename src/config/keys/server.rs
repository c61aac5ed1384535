//! The keys of servers: those of each server and node, and those that are inherited from a `default-server`.

use super::check::{Check, CheckSetting};
use super::declare::prelude::*;
use super::kinds::{
    Absent, AlgorithmOrNone, NamespaceOrNone, Number, Optional, Priority, Raw, Span, SpanOrZero,
    Switch, Word,
};
use super::source::SourceKind;
use super::tlvs::TlvList;
use crate::config::choices::{
    HashKeyWord, InitStateWord, MarkedDown, MarkedUp, ObserveWord, OnErrorWord, ProxyV2OptionsWord,
    SendProxyWord,
};
use crate::config::key::Effect::{HealthAnew, NextConnection};
use crate::config::key::{ID_BOUNDS, MAXCONN_MAX, REQUIRED};
use crate::config::shapes::{Expected, Maybe};
use crate::config::show::{self, secs};
use crate::config::values::{
    HashKey, HoldDown, InitState, OnError, ProxyV2Options, SendProxy, ServerAddress, ServerPort,
    ServerSocket,
};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Highest weight, as in HAProxy.
pub const WEIGHT_MAX: i64 = 256;
/// Highest priority, which is used last.
const PRIORITY_MAX: i64 = 255;
/// The bounds of limits that 0 takes away.
const LIMIT_BOUNDS: (i64, i64) = (0, MAXCONN_MAX);
/// Highest `error-limit`.
pub const ERROR_LIMIT_MAX: i64 = i32::MAX as i64;

/// Default of `hold-down-max`.
pub(in crate::config) const HOLD_DOWN_MAX: Duration = Duration::from_secs(5 * 60);
/// Default of `flap-window`.
pub(in crate::config) const FLAP_WINDOW: Duration = Duration::from_secs(60);

keys! {
    /// What servers inherit.
    table ServerKeys, "ServerDefaults", "a default-server table";
    layer ServerLayer;
    raw {
        /// Health check; overrides the backend's, key by key.
        check: Raw<Maybe<CheckSetting>> = "the backend's",
            kind: "switch, type or table", haproxy: &["check"],
            reload: NextConnection;
    }
    read {
        /// How the kernel controls congestion towards it (`TCP_CONGESTION`), as `"bbr"`; `""`: as it does for others.
        cc: Optional<AlgorithmOrNone> = "the kernel's", haproxy: &["cc"], reload: NextConnection;
        /// How long what was sent to it may stay without acknowledgement (`TCP_USER_TIMEOUT`); `"0s"`: the kernel's limit.
        tcp_ut: Optional<SpanOrZero> = "the kernel's limit", haproxy: &["tcp-ut"],
            reload: NextConnection;
        /// Connect from this network namespace, of those that `ip netns` lists; `""`: from rlb's own.
        namespace: Optional<NamespaceOrNone> = "rlb's own", haproxy: &["namespace"],
            reload: NextConnection;
        /// Connect by MPTCP, or by TCP to a server without it.
        mptcp: Switch = false, reload: NextConnection;
        /// How long no check brings it up that goes down again within `flap-window`; each further time twice as long.
        /// `"0s"`: it is not held down.
        hold_down: SpanOrZero = Duration::ZERO, example: Some("\"10s\""), reload: NextConnection;
        /// The longest time for which it is held down.
        hold_down_max: Span = HOLD_DOWN_MAX, reload: NextConnection;
        /// How long it has to stay up, or going down again is once more; each such time takes one of them back.
        flap_window: Span = FLAP_WINDOW, reload: NextConnection;
    }
    meant {
        /// Share of the connections, 0 to 256; 0 takes no new ones.
        weight: Number = 1,
            bounds: Some((0, WEIGHT_MAX)), haproxy: &["weight"], reload: NextConnection;
        /// What decides about its places on a ring: `"id"`, `"id32"`, `"addr"` or `"addr-port"`.
        hash_key: Word<HashKeyWord> = HashKey::Id,
            haproxy: &["hash-key"], reload: NextConnection;
        /// Most concurrent sessions; further ones wait in a queue. 0: no limit.
        maxconn: Number = 0,
            bounds: Some(LIMIT_BOUNDS), haproxy: &["maxconn"], reload: NextConnection;
        /// Most concurrent sessions while the backend has few: the limit grows with the backend's sessions, up to
        /// `maxconn` at `fullconn`. 0: always `maxconn`.
        minconn: Number = 0,
            bounds: Some(LIMIT_BOUNDS), haproxy: &["minconn"], reload: NextConnection;
        /// Most sessions that wait for this server alone, with a `balance` by hash. Further ones end. 0: no limit.
        maxqueue: Number = 0,
            bounds: Some(LIMIT_BOUNDS), haproxy: &["maxqueue"], reload: NextConnection;
        /// How long its weight and `maxconn` grow once it is no longer down or in maintenance, rounded up to seconds.
        slowstart: SpanOrZero = Duration::ZERO, haproxy: &["slowstart"], reload: NextConnection;
        /// The same when rlb starts, and for a server that a reload adds.
        slowstart_at_start: Switch = false, reload: NextConnection;
        /// Servers of the lowest priority are used, others when too few of those are usable (`spill-below`).
        priority: Priority = 0,
            bounds: Some((0, PRIORITY_MAX)), reload: NextConnection;
        /// Use only when no other server is usable, of whichever priority.
        backup: Switch = false, haproxy: &["backup"], reload: NextConnection;
        /// Start in maintenance.
        disabled: Switch = false, haproxy: &["disabled"], reload: NextConnection;
        /// How it begins, and how it comes out of maintenance: `"up"` and `"fully-up"`, or `"down"` and `"fully-down"`, until
        /// one check, or `fall` or `rise` of them, say otherwise. `"none"`: as `"up"`, with its slow start.
        init_state: Word<InitStateWord> = InitState::None,
            haproxy: &["init-state"], reload: NextConnection;
        /// What happens to a server's sessions when it goes down.
        shutdown_sessions_on_down: Word<MarkedDown> = false,
            name: "on-marked-down", haproxy: &["on-marked-down"], reload: NextConnection;
        /// What happens to the sessions of backup servers when a server comes up.
        shutdown_backup_sessions_on_up: Word<MarkedUp> = false,
            name: "on-marked-up", haproxy: &["on-marked-up"], reload: NextConnection;
        /// Whether its sessions count for its health: with `"layer4"` a failed connect is an error, and `error-limit`
        /// of them in a row are what `on-error` says. Needs a `check`.
        observe: Word<ObserveWord> = false, haproxy: &["observe"], reload: NextConnection;
        /// How many errors in a row.
        error_limit: Number = 10,
            bounds: Some((1, ERROR_LIMIT_MAX)), haproxy: &["error-limit"], reload: NextConnection;
        /// What they are: `"fail-check"` a failed check, `"sudden-death"` one after which the next takes the server down,
        /// `"mark-down"` the end of it: it goes down, `"fastinter"` nothing. With each of them the next check comes soon.
        on_error: Word<OnErrorWord> = OnError::FailCheck,
            haproxy: &["on-error"], reload: NextConnection;
        /// With which PROXY header, which has the client's address, connections to it begin.
        send_proxy: Word<SendProxyWord> = SendProxy::Off,
            haproxy: &["send-proxy", "send-proxy-v2"], reload: NextConnection;
        /// What a header of version 2 has beside the addresses: `"crc32c"`, `"unique-id"`, `"crc32c,unique-id"`.
        proxy_v2_options: Word<ProxyV2OptionsWord> = ProxyV2Options::None,
            haproxy: &["proxy-v2-options"], reload: NextConnection;
        /// TLVs of a header of version 2, in the place of those of their types in the client's header: `"0xE1=%[src]"`,
        /// a type and a format, or a list of them. `""`: none.
        proxy_v2_tlvs: Optional<TlvList> = "none", haproxy: &["set-proxy-v2-tlv-fmt"],
            reload: NextConnection;
        /// From where its connections come: `"10.0.0.5"`, `"10.0.0.5:1024-65535"`, a table, or a list of them, of
        /// which each connection takes the next one.
        source: Optional<SourceKind> = "the backend's", haproxy: &["source"],
            reload: NextConnection;
    }
    /// One server of a backend.
    #[derive(Debug, Clone, PartialEq)]
    model Server {
        /// Name; unique in its backend.
        name: Arc<str> = "".into();
        /// HAProxy's `sid`: given by `id`, or counted from 1.
        id: u32 = 0, ServerTable::id => show::number;
        /// Where its connections go.
        address: ServerAddress = NOWHERE, ServerTable::address => show::address;
        /// Health check; `None`: always up, shown as `no check`.
        check: Option<Check> = None;
        /// Options of its sockets; `None`: it has none, or is a unix socket.
        socket: Option<Arc<ServerSocket>> = None;
        /// How long it is held down; `None`: it is not. As small as it can be: there may be many servers.
        hold_down: Option<Arc<HoldDown>> = None;
    }
}

/// The address of a server without a valid one.
pub(in crate::config) const NOWHERE: ServerAddress =
    ServerAddress::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), ServerPort::Fixed(1));

keys! {
    /// One server.
    table ServerTable, "Server", "a server";
    layer ServerOwnLayer;
    groups { keys: ServerKeys = from "default-server"; }
    raw {
        /// Name; unique in its backend.
        name: Raw<Maybe<String>> = REQUIRED, kind: "name";
        /// `"10.0.0.1:5432"`, `"[::1]:80"`, `"name:80"` or `"unix:/path"`. Without a port, or with an
        /// offset as in `"name:+1000"`: the port that the client connected to.
        address: Raw<Maybe<String>> = REQUIRED, kind: "address", reload: HealthAnew;
    }
    read {
        /// Number in its backend.
        id: Optional<Number> = "counted from 1",
            bounds: Some(ID_BOUNDS), haproxy: &["id"], reload: NextConnection;
    }
}

keys! {
    /// One host of a node group.
    table NodeTable, "Node", "a node";
    layer NodeOwnLayer;
    groups { keys: ServerKeys = from "default-server"; }
    raw {
        /// Address or name, without a port.
        host: Raw<Maybe<String>> = REQUIRED, kind: "address or name", reload: HealthAnew;
    }
    read {
        /// Number of the server in its backend.
        id: Optional<Number> = "counted from 1",
            bounds: Some(ID_BOUNDS), haproxy: &["id"], reload: NextConnection;
    }
}

impl Expected for NodeTable {
    const EXPECTED: &'static str =
        "a host in quotes or a table as { host = \"10.0.0.1\", weight = 2 }";
}

impl Server {
    /// How many connects may fail in a row before it is as if a check had failed; `None`: failed connects do not count
    /// for its health, or nothing would bring it up again.
    pub fn error_limit(&self) -> Option<u32> {
        (self.observe && self.check.is_some()).then_some(self.error_limit)
    }

    /// The differences of two servers with the same name.
    pub(in crate::config) fn differences(old: &Self, new: &Self) -> Differences {
        let mut found = Differences::default();
        Self::compare(old, new, &mut found);
        let key = &ServerKeys::check;
        let effect = Check::effect(old.check.as_ref(), new.check.as_ref()).unwrap_or(key.reload);
        let checks = (&old.check, &new.check);
        found.compare_as(&key.path(), effect, checks, |check| {
            show::optional(check.as_ref(), Check::text)
        });
        ServerSocket::compare((old, new), &mut found);
        HoldDown::compare((old, new), &mut found);
        found
    }
}

/// The value of a key, unless it stands for none.
fn present<K: Absent>(written: Option<&Written<K::Value>>) -> Option<K::Value> {
    let value = &written?.value;
    (!K::is_absent(value)).then(|| value.clone())
}

impl ServerSocket {
    /// The options of `layer`; `None`: there are none.
    pub(in crate::config) fn of(layer: &ServerLayer) -> Option<Arc<Self>> {
        let socket = Self {
            cc: present::<AlgorithmOrNone>(layer.cc.as_ref()),
            tcp_ut: present::<SpanOrZero>(layer.tcp_ut.as_ref()),
            namespace: present::<NamespaceOrNone>(layer.namespace.as_ref()),
            mptcp: layer.mptcp.as_ref().is_some_and(|it| it.value),
        };
        (socket != Self::default()).then(|| Arc::new(socket))
    }

    fn compare((old, new): (&Server, &Server), found: &mut Differences) {
        let of = |server: &Server| server.socket.as_deref().cloned().unwrap_or_default();
        let (old, new) = (of(old), of(new));
        let texts = (&old.cc, &new.cc);
        found.compare(
            &ServerKeys::cc,
            texts,
            <Optional<AlgorithmOrNone> as Plain>::show,
        );
        let times = (&old.tcp_ut, &new.tcp_ut);
        found.compare(
            &ServerKeys::tcp_ut,
            times,
            <Optional<SpanOrZero> as Plain>::show,
        );
        let names = (&old.namespace, &new.namespace);
        found.compare(
            &ServerKeys::namespace,
            names,
            <Optional<NamespaceOrNone> as Plain>::show,
        );
        let switches = (&old.mptcp, &new.mptcp);
        found.compare(&ServerKeys::mptcp, switches, <Switch as Plain>::show);
    }
}

impl HoldDown {
    fn compare((old, new): (&Server, &Server), found: &mut Differences) {
        let default = Self {
            base: Duration::ZERO,
            max: HOLD_DOWN_MAX,
            window: FLAP_WINDOW,
        };
        let of = |server: &Server| server.hold_down.as_deref().copied().unwrap_or(default);
        let (old, new) = (of(old), of(new));
        found.compare(&ServerKeys::hold_down, (&old.base, &new.base), secs);
        found.compare(&ServerKeys::hold_down_max, (&old.max, &new.max), secs);
        let windows = (&old.window, &new.window);
        found.compare(&ServerKeys::flap_window, windows, secs);
    }
}
