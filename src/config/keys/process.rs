//! The keys of the process, of its log, of its statistics and of its runtime sockets.

use super::bind::{Bind, Binds, NOWHERE};
use super::declare::prelude::*;
use super::kinds::{
    AdminSwitch, Mode, Name, Number, Optional, Raw, Span, SpanOrZero, Switch, Text, Word,
};
use super::proxy::{MAXCONN_BOUNDS, RATE_BOUNDS};
use crate::config::choices::{ApiLevelWord, FacilityWord, FormatWord, LevelWord, WordList};
use crate::config::key::Effect::{
    AtOnce, NewSocket, NextCommand, NextConnection, NextLine, Restart,
};
use crate::config::key::REQUIRED;
use crate::config::shapes::{Expected, Located, Maybe, OneOrMany, Short};
use crate::config::show::{duration, number, optional_number, optional_text, text};
use crate::config::values::{
    ApiLevel, BindAddress, Credentials, Facility, LogFormat, LogSink, PageAdmin, ProxyId, Severity,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Most worker threads.
pub const THREADS_MAX: i64 = 1024;
/// How long a client of the runtime sockets may be silent, HAProxy's default.
const API_TIMEOUT: Duration = Duration::from_secs(10);
/// Most clients of the runtime sockets, HAProxy's default.
const API_MAXCONN: u32 = 10;
/// What it may be.
const API_MAXCONN_BOUNDS: (i64, i64) = (1, API_MAXCONN_MAX);
/// Most clients that the runtime sockets may have.
pub const API_MAXCONN_MAX: i64 = 1000;
/// File mode of a runtime socket when none is written: only the owner has access.
const API_MODE: u32 = 0o600;
/// `local0`.
const FACILITY: Facility = Facility(16);
/// `maxconn` of the statistics listener when none is written.
const STATS_MAXCONN: u32 = 200;

keys! {
    /// The process.
    table GlobalTable, "Global", "[global]";
    layer GlobalLayer;
    read {
        /// Worker threads.
        threads: Optional<Number> = "usable cores",
            bounds: Some((1, THREADS_MAX)), haproxy: &["nbthread"], reload: Restart;
        /// Most concurrent client connections of the process. Further ones wait in the kernel's accept
        /// queue.
        maxconn: Optional<Number> = "what the descriptors hold",
            bounds: Some(MAXCONN_BOUNDS), haproxy: &["maxconn"], reload: AtOnce;
    }
    meant {
        /// Most connections that are accepted in a second. Further clients wait in the kernel's accept queue.
        maxconnrate: Optional<Number> = "no limit",
            bounds: Some(RATE_BOUNDS), haproxy: &["maxconnrate"], reload: AtOnce;
        /// Most sessions that begin in a second, likewise.
        maxsessrate: Optional<Number> = "no limit",
            bounds: Some(RATE_BOUNDS), haproxy: &["maxsessrate"], reload: AtOnce;
        /// How long sessions may go on after a graceful stop has begun.
        hard_stop_after: Optional<Span> = "for ever",
            haproxy: &["hard-stop-after"], reload: AtOnce;
        /// How long sessions may go on in the old process after an upgrade.
        upgrade_stop_after: Optional<Span> = "for ever", reload: AtOnce;
        /// Give sessions to the new process at an upgrade. Otherwise the old process finishes them.
        upgrade_moves_sessions: Switch = true, reload: AtOnce;
        /// Name of this machine in statistics and logs.
        node: Optional<Name> = "host name", haproxy: &["node"], reload: AtOnce;
        /// Free text shown with the statistics.
        description: Optional<Text> = "none", haproxy: &["description"], reload: AtOnce;
        /// The file in which the states of all servers are kept: written every minute, when an operator has changed one, and
        /// at a stop. Backends with `load-server-state-from-file` begin with them.
        server_state_file: Optional<Text> = "none", example: Some("\"/var/lib/rlb/servers\""),
            haproxy: &["server-state-file"], reload: AtOnce;
        /// The folder of such files whose paths do not begin with `/`.
        server_state_base: Optional<Text> = "none", example: Some("\"/var/lib/rlb\""),
            haproxy: &["server-state-base"], reload: AtOnce;
        /// Reload when the configuration's files change, or those that `${file:…}` reads.
        watch: Switch = false, reload: AtOnce;
        /// How long after a reload a backend that has lost all its servers by it brings the
        /// configuration before back.
        rollback_window: Optional<Span> = "never", reload: AtOnce;
        /// Accept a configuration in which no frontend listens.
        allow_no_listener: Switch = false, reload: AtOnce;
    }
    /// `[global]`.
    #[derive(Debug, Clone, PartialEq)]
    model Global {
        /// Worker threads. Default: one per usable core.
        threads: usize = 1, GlobalTable::threads => number;
        /// Most concurrent client connections of the process, stats not counted. `None`: as many as
        /// the descriptor limit holds.
        maxconn: Option<u32> = None, GlobalTable::maxconn => optional_number;
    }
}

keys! {
    /// Log lines in HAProxy's format.
    table LogTable, "Log", "[log]";
    layer LogLayer;
    raw {
        /// Where lines go; each target gets all lines of its level.
        target: Raw<Vec<Located<LogTargetTable>>> = "none",
            kind: "list of tables", haproxy: &["log"];
    }
    meant {
        /// Program name in syslog headers.
        tag: Name = "rlb", haproxy: &["log-tag"], reload: NextLine;
    }
    /// `[log]`: log lines in HAProxy's format. Events for people go to stderr.
    #[derive(Debug, Clone, PartialEq)]
    model Log {
        /// Each gets every line of its level.
        targets: Vec<LogTarget> = Vec::new();
    }
}

keys! {
    /// One place where log lines go.
    table LogTargetTable, "LogTarget", "[[log.target]]";
    layer LogTargetLayer;
    raw {
        /// `"stdout"`, `"stderr"`, `"file:/var/log/rlb.log"`, `"unix:/dev/log"` or `"udp:127.0.0.1:514"`.
        to: Raw<Maybe<String>> = REQUIRED, kind: "string";
        /// Framing of a line.
        format: Raw<Maybe<FormatWord>> = "\"raw\", for syslog \"rfc3164\"",
            kind: "word", haproxy: &["format"], reload: NextLine;
    }
    meant {
        /// Syslog facility, by HAProxy's names.
        facility: Word<FacilityWord> = FACILITY, reload: NextLine;
        /// Least severe level that is written; sessions are `info`.
        level: Word<LevelWord> = Severity::Info, reload: NextLine;
    }
    /// One `[[log.target]]`.
    #[derive(Debug, Clone, PartialEq)]
    model LogTarget {
        /// Where the lines go.
        sink: LogSink = LogSink::Stderr;
        /// Framing of a line.
        format: LogFormat = LogFormat::Raw,
            LogTargetTable::format => |it| FormatWord::of(*it).text().to_owned();
    }
}

keys! {
    /// The statistics listener.
    table StatsTable, "Stats", "[stats]";
    layer StatsLayer;
    groups { page: StatsPageKeys; }
    raw {
        /// Where it listens, TCP only.
        bind: Raw<Option<Binds>> = REQUIRED, kind: "address, table or list", haproxy: &["bind"];
        /// Further pages, on addresses of their own.
        further: Raw<Vec<Located<FurtherPageTable>>> = "none",
            name: "page", kind: "list of tables", reload: AtOnce;
    }
    meant {
        /// Name of its row in the statistics.
        name: Name = "stats", reload: AtOnce;
        /// Most concurrent connections; not counted in the global limit.
        maxconn: Number = STATS_MAXCONN,
            bounds: Some(MAXCONN_BOUNDS), haproxy: &["maxconn"], reload: AtOnce;
    }
    /// `[stats]`.
    #[derive(Debug, Clone, PartialEq)]
    model Stats {
        /// Its number in the statistics.
        id: ProxyId = 0, STATS_ID => number;
        /// Where it listens, the addresses of further pages at the end. TCP only.
        binds: Vec<Bind> = Vec::new();
        /// What its page shows and to whom.
        page: StatsPage = StatsPage::default();
        /// Further pages.
        further: Vec<FurtherPage> = Vec::new();
        /// When `/readyz` says yes.
        readiness: Readiness = Readiness::default();
    }
}

/// The key of the statistics' id in a comparison; it cannot be written.
const STATS_ID: Key = Key {
    reload: AtOnce,
    ..Key::new("id", "", "number", String::new)
};

keys! {
    /// A page of the statistics on addresses of its own. What it does not say is the default.
    table FurtherPageTable, "FurtherPage", "[[stats.page]]";
    groups { page: StatsPageKeys; }
    raw {
        /// Where it listens, TCP only.
        bind: Raw<Option<Binds>> = REQUIRED, kind: "address, table or list", haproxy: &["bind"];
    }
}

/// One `[[stats.page]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct FurtherPage {
    /// Which of the statistics' binds are its own.
    pub binds: Range<usize>,
    /// What it shows and to whom.
    pub page: StatsPage,
}

impl Stats {
    /// The page that is served on a socket that was opened for `bind`. `None`: the statistics do not listen there any
    /// more, and have several pages now.
    pub fn page_at(&self, bind: &Bind) -> Option<&StatsPage> {
        if self.further.is_empty() {
            return Some(&self.page);
        }
        let mut binds = self.binds.iter();
        let position = binds.position(|own| Bind::is_same_listener(own, bind))?;
        let mut further = self.further.iter();
        let page = further.find(|page| page.binds.contains(&position));
        Some(page.map_or(&self.page, |page| &page.page))
    }

    /// The bind of the newest file for a socket that was opened for `bind`; `None`: there is none any more.
    pub fn bind_like(&self, bind: &Bind) -> Option<&Bind> {
        let mut binds = self.binds.iter();
        binds.find(|own| Bind::is_same_listener(own, bind))
    }

    /// All of its pages.
    pub fn pages(&self) -> impl Iterator<Item = &StatsPage> {
        let further = self.further.iter().map(|page| &page.page);
        std::iter::once(&self.page).chain(further)
    }
}

keys! {
    /// What the page of the statistics shows and to whom.
    table StatsPageKeys, "StatsPage", "[stats]";
    layer StatsPageLayer;
    raw {
        /// Who may see the statistics and `/metrics`: `"user:password"`, or a list of them.
        auth: Raw<Option<OneOrMany<String>>> = "everyone",
            kind: "string or list", haproxy: &["stats auth"], reload: AtOnce;
        /// The only proxies to show: a name, or a list of them.
        scope: Raw<Option<OneOrMany<String>>> = "all",
            kind: "name or list", haproxy: &["stats scope"], reload: AtOnce;
    }
    read {
        /// Where the page is: the beginning of its path, or of the whole URL that clients of a proxy ask for.
        uri: Text = "/", kind: "path", haproxy: &["stats uri"], reload: AtOnce;
        /// How often a browser asks again, whole seconds.
        refresh: Optional<Span> = "not by itself", haproxy: &["stats refresh"], reload: AtOnce;
        /// What a browser asks the password for.
        realm: Text = "rlb statistics", haproxy: &["stats realm"], reload: AtOnce;
        /// Show the `description` of `[global]`.
        show_desc: Switch = false, haproxy: &["stats show-desc"], reload: AtOnce;
        /// Text to show instead of the `description` of `[global]`.
        description: Optional<Text> = "none", haproxy: &["stats show-desc"], reload: AtOnce;
    }
    meant {
        /// Who may change servers on the page: everyone who may see it (`true`), clients on this machine
        /// (`"localhost"`), or nobody.
        admin: AdminSwitch = PageAdmin::Nobody, haproxy: &["stats admin"], reload: AtOnce;
        /// Write a line to the log for each request of the page and the metrics.
        log: Switch = false, haproxy: &["log"], reload: AtOnce;
        /// Do not tell the version on the page.
        hide_version: Switch = false, haproxy: &["stats hide-version"], reload: AtOnce;
        /// Show the name of this machine.
        show_node: Switch = false, haproxy: &["stats show-node"], reload: AtOnce;
        /// Show addresses, numbers and algorithms of proxies and servers.
        legends: Switch = false,
            name: "show-legends", haproxy: &["stats show-legends"], reload: AtOnce;
    }
    /// The page of the statistics.
    #[derive(Debug, Clone, PartialEq)]
    model StatsPage {
        /// Prefix of its address; default `/`.
        uri: Arc<str> = "/".into(), StatsPageKeys::uri => text;
        /// How often a browser asks again, whole seconds; `None`: only when told to.
        refresh: Option<Duration> = None, StatsPageKeys::refresh => duration;
        /// Who may see it; empty: everyone.
        auth: Vec<Credentials> = Vec::new(),
            // Users and passwords must not be in logs.
            StatsPageKeys::auth => |it| format!("{} users", it.len());
        /// What a browser asks a password for; default `rlb statistics`.
        realm: Arc<str> = "rlb statistics".into(), StatsPageKeys::realm => text;
        /// Free text on the page.
        description: Option<Arc<str>> = None, StatsPageKeys::show_desc => optional_text;
        /// The only proxies that are shown, in the metrics too; empty: all.
        scope: Vec<Arc<str>> = Vec::new(), StatsPageKeys::scope => |it| it.join(" ");
    }
}

keys! {
    /// Whether this machine should receive traffic: the answer of `/readyz` on the statistics listener.
    table ReadinessTable, "Readiness", "[readiness]";
    layer ReadinessLayer;
    raw {
        /// Usable servers that backends must have: { NAME = 1 }.
        require: Raw<BTreeMap<Located<String>, Located<i64>>> = "none",
            label: Some("readiness require"), reload: AtOnce;
    }
    meant {
        /// How long a stop waits after `/readyz` has begun to fail, before the listeners close.
        withdraw_delay: SpanOrZero = Duration::ZERO,
            label: Some("readiness withdraw-delay"), haproxy: &["grace"], reload: AtOnce;
    }
    /// `[readiness]`: whether this machine should receive traffic.
    #[derive(Debug, Clone, PartialEq, Eq)]
    model Readiness {
        /// Usable servers that each of these backends must have, by name.
        require: Vec<(Arc<str>, u32)> = Vec::new(), ReadinessTable::require => required;
    }
}

#[expect(clippy::ptr_arg, reason = "it takes a field of the model as it stands")]
fn required(require: &Vec<(Arc<str>, u32)>) -> String {
    let all = require.iter();
    let all = all.map(|(backend, servers)| format!("{backend}={servers}"));
    all.collect::<Vec<_>>().join(" ")
}

keys! {
    /// The sockets for commands, as HAProxy's `stats socket`.
    table RuntimeApiTable, "RuntimeApi", "[runtime-api]";
    layer RuntimeApiLayer;
    groups { first: RuntimeSocketTable; }
    raw {
        /// Further sockets: an address, or a table with the keys of one socket, or a list of them.
        sockets: Raw<Option<OneOrMany<Short<String, RuntimeSocketTable>>>> = "none",
            kind: "address, table or list", haproxy: &["stats socket"], reload: NewSocket;
    }
    meant {
        /// How long a client may be silent, and how long it may take to read a part of an answer.
        timeout: Span = API_TIMEOUT, haproxy: &["stats timeout"], reload: NextCommand;
        /// Most clients of all sockets together. Further ones wait.
        maxconn: Number = API_MAXCONN,
            bounds: Some(API_MAXCONN_BOUNDS), haproxy: &["stats maxconn"], reload: NextConnection;
    }
    /// `[runtime-api]`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    model RuntimeApi {
        /// At least one.
        sockets: Vec<RuntimeSocket> = Vec::new();
    }
}

keys! {
    /// A socket for commands.
    table RuntimeSocketTable, "RuntimeSocket", "a socket table";
    layer RuntimeSocketLayer;
    raw {
        /// Where it is: `"/run/rlb/admin.sock"`, `"@name"` for an abstract one, `"127.0.0.1:9999"`, or `"fd@3"`, a socket
        /// that is passed.
        socket: Raw<Maybe<String>> = REQUIRED,
            kind: "address", haproxy: &["stats socket"], reload: NewSocket;
    }
    read {
        /// The rights of its clients: `"user"`, `"operator"` or `"admin"`.
        level: Optional<Word<ApiLevelWord>> = "\"admin\"; over TCP and of a descriptor \"operator\"",
            haproxy: &["level"], reload: NextCommand;
    }
    meant {
        /// File mode of a unix socket, octal.
        mode: Mode = API_MODE, haproxy: &["mode"], reload: NextCommand;
        /// User that owns the file of a unix socket: a name or a number.
        owner: Optional<Text> = "that of the process",
            haproxy: &["user", "uid"], reload: NextCommand;
        /// Group of the file of a unix socket: a name or a number.
        group: Optional<Text> = "that of the process",
            haproxy: &["group", "gid"], reload: NextCommand;
    }
    /// A socket for commands.
    #[derive(Debug, Clone, PartialEq, Eq)]
    model RuntimeSocket {
        /// Where it is.
        address: BindAddress = NOWHERE;
        /// What its clients may do.
        level: ApiLevel = ApiLevel::User,
            RuntimeSocketTable::level => |it| ApiLevelWord::of(*it).text().to_owned();
    }
}

impl RuntimeSocket {
    /// Where it is, as in the file.
    pub fn place(&self) -> String {
        match &self.address {
            BindAddress::Tcp(address) => address.to_string(),
            BindAddress::Unix(path) => path.display().to_string(),
            BindAddress::Descriptor(number) => format!("fd@{number}"),
        }
    }
}

impl Expected for RuntimeSocketTable {
    const EXPECTED: &'static str = "an address as \"127.0.0.1:9999\" or a table as { socket = \"/run/rlb/user.sock\", level = \"user\" }";
}
