//! Sections, and the statements of `global`.

use super::Becomes::{Changed, Kept, NeedsAllowDegraded, NoTrafficDependsOnIt, NotNeeded};
use super::Place::{Global, Section};
use super::{Words, words};

/// The words of the families below, which are those of HAProxy 2.6 and 3.5 and of the libraries that these can be built
/// with; of `tune.quic.` there are others in each version.
const OF_FAMILIES: &str = "\
    51degrees-allow-unmatched 51degrees-cache-size 51degrees-data-file 51degrees-difference 51degrees-drift \
    51degrees-property-name-list 51degrees-property-separator 51degrees-use-performance-graph \
    51degrees-use-predictive-graph deviceatlas-cache-size deviceatlas-json-file \
    deviceatlas-log-level deviceatlas-properties-cookie deviceatlas-property-separator deviceatlas-separator \
    h1-accept-payload-with-any-method h1-case-adjust \
    h1-case-adjust-file h1-do-not-close-on-insecure-transfer-encoding \
    harden.reject-privileged-ports.quic \
    harden.reject-privileged-ports.tcp httpclient.resolvers.disabled httpclient.resolvers.id \
    httpclient.resolvers.prefer httpclient.retries httpclient.ssl.ca-file httpclient.ssl.verify \
    httpclient.timeout.connect jwt.decrypt_alg_list jwt.decrypt_enc_list lua-load lua-load-per-thread \
    lua-prepend-path ocsp-update.disable ocsp-update.httpproxy ocsp-update.maxdelay ocsp-update.mindelay \
    ocsp-update.mode profiling.memory profiling.tasks ssl-default-bind-ciphers \
    ssl-default-bind-ciphersuites ssl-default-bind-client-sigalgs ssl-default-bind-curves ssl-default-bind-options \
    ssl-default-bind-sigalgs ssl-default-server-ciphers ssl-default-server-ciphersuites \
    ssl-default-server-client-sigalgs ssl-default-server-curves ssl-default-server-options \
    ssl-default-server-sigalgs ssl-dh-param-file ssl-engine \
    ssl-load-extra-del-ext ssl-load-extra-files ssl-mode-async ssl-passphrase-cmd ssl-propquery ssl-provider \
    ssl-provider-path ssl-security-level ssl-server-verify ssl-skip-self-issued-ca \
    tune.applet.zero-copy-forwarding tune.buffers.limit tune.buffers.reserve tune.bufsize tune.bufsize.large \
    tune.bufsize.small tune.chksize tune.cli.max-payload-size tune.comp.maxlevel tune.defaults.purge \
    tune.disable-fast-forward tune.disable-zero-copy-forwarding tune.epoll.mask-events \
    tune.events.max-events-at-once tune.fail-alloc tune.fd.edge-triggered tune.fd.tables \
    tune.glitches.kill.cpu-usage tune.h1.be.glitches-threshold tune.h1.fe.glitches-threshold \
    tune.h1.zero-copy-fwd-recv tune.h1.zero-copy-fwd-send tune.h2.be.glitches-threshold \
    tune.h2.be.initial-window-size tune.h2.be.max-concurrent-streams tune.h2.be.max-frames-at-once \
    tune.h2.be.rxbuf tune.h2.fe.glitches-threshold tune.h2.fe.initial-window-size \
    tune.h2.fe.max-concurrent-streams tune.h2.fe.max-frames-at-once tune.h2.fe.max-rst-at-once \
    tune.h2.fe.max-total-streams tune.h2.fe.rxbuf tune.h2.header-table-size tune.h2.initial-window-size \
    tune.h2.log-errors tune.h2.max-concurrent-streams tune.h2.max-frame-size tune.h2.zero-copy-fwd-send \
    tune.http.cookielen tune.http.logurilen tune.http.maxhdr tune.idle-pool.shared tune.idletimer \
    tune.listener.default-shards tune.listener.multi-queue tune.lua.bool-sample-conversion tune.lua.burst-timeout \
    tune.lua.forced-yield tune.lua.log.loggers tune.lua.log.stderr tune.lua.maxmem tune.lua.openlibs \
    tune.lua.service-timeout tune.lua.session-timeout tune.lua.task-timeout tune.max-checks-per-thread \
    tune.max-rules-at-once tune.maxaccept tune.maxpollevents tune.maxrewrite tune.memory.hot-size \
    tune.notsent-lowat.client tune.notsent-lowat.server tune.pattern.cache-size tune.peers.max-updates-at-once \
    tune.pipesize tune.pool-high-fd-ratio tune.pool-low-fd-ratio tune.pt.zero-copy-forwarding tune.rcvbuf.backend \
    tune.rcvbuf.client tune.rcvbuf.frontend tune.rcvbuf.server tune.recv_enough tune.renice.runtime \
    tune.renice.startup tune.ring.queues tune.runqueue-depth tune.sched.low-latency tune.sndbuf.backend \
    tune.sndbuf.client tune.sndbuf.frontend tune.sndbuf.server tune.ssl.cachesize tune.ssl.capture-buffer-size \
    tune.ssl.capture-cipherlist-size tune.ssl.certificate-compression tune.ssl.default-dh-param \
    tune.ssl.force-private-cache tune.ssl.hard-maxrecord tune.ssl.keylog tune.ssl.keyupdate-rate-limit \
    tune.ssl.lifetime tune.ssl.maxrecord tune.ssl.ocsp-update.maxdelay tune.ssl.ocsp-update.mindelay \
    tune.ssl.ssl-ctx-cache-size tune.stick-counters tune.streams-elasticity tune.takeover-other-tg-connections \
    tune.vars.check-max-size tune.vars.global-max-size tune.vars.proc-max-size tune.vars.reqres-max-size \
    tune.vars.sess-max-size tune.vars.txn-max-size tune.zlib.memlevel tune.zlib.windowsize tune.zlibmemlevel \
    tune.zlibwindowsize wurfl-cache-size wurfl-data-file wurfl-engine-mode \
    wurfl-information-list wurfl-information-list-separator wurfl-patch-file wurfl-useragent-priority";

/// Whether HAProxy has a word that begins as a family.
pub(super) fn is_of_family(word: &str) -> bool {
    word.starts_with("tune.quic.") || of_families().any(|known| known == word)
}

/// The words of the families.
pub(super) fn of_families() -> impl Iterator<Item = &'static str> {
    OF_FAMILIES.split_whitespace()
}

pub(super) const WORDS: &[Words] = &[
    words(
        Section,
        Kept,
        "carried over statement by statement",
        &["global", "defaults", "frontend", "backend", "listen"],
    ),
    words(
        Section,
        NoTrafficDependsOnIt,
        "tables are not shared between machines yet",
        &["peers"],
    ),
    words(
        Section,
        NoTrafficDependsOnIt,
        "names are asked of the system's resolver",
        &["resolvers"],
    ),
    words(
        Section,
        NoTrafficDependsOnIt,
        "passwords of the statistics are `auth` in `[stats]`",
        &["userlist"],
    ),
    words(
        Section,
        NoTrafficDependsOnIt,
        "rlb sends no mail: alert on `/metrics`",
        &["mailers"],
    ),
    words(
        Section,
        NoTrafficDependsOnIt,
        "lines go to the targets of `[log]` directly",
        &["ring", "log-forward", "log-profile"],
    ),
    words(
        Section,
        NoTrafficDependsOnIt,
        "let the service manager start it",
        &["program"],
    ),
    words(
        Section,
        NoTrafficDependsOnIt,
        "servers that ask for it are checked with a connection",
        &["healthcheck"],
    ),
    words(
        Section,
        NotNeeded,
        "rlb balances TCP: it knows no HTTP",
        &["cache", "http-errors", "fcgi-app"],
    ),
    words(
        Section,
        NotNeeded,
        "rlb passes TLS through untouched",
        &["crt-store", "crt-list", "acme"],
    ),
    words(
        Section,
        NotNeeded,
        "rlb has other means to look inside: its log level, `rlb ctl`",
        &["traces", "namespace_list"],
    ),
    words(
        Section,
        NotNeeded,
        "rlb has no agents of this kind",
        &["spoe-agent", "spoe-group", "spoe-message"],
    ),
    words(
        Global,
        Kept,
        "write a `[log]` table with a `[[log.target]]`",
        &["log"],
    ),
    words(
        Global,
        Kept,
        "`stats socket` is `[runtime-api]` with a `socket`, the page is `[stats]` with a `bind`",
        &["stats"],
    ),
    words(
        Global,
        Changed,
        "filled in where it is used: rlb takes variables from its own environment",
        &["setenv", "presetenv", "resetenv", "unsetenv"],
    ),
    words(
        Global,
        NotNeeded,
        "the service manager confines rlb: see its unit file",
        &["chroot", "prealloc-fd"],
    ),
    words(
        Global,
        NotNeeded,
        "it holds under the name `haproxy`, with `user`; otherwise the service manager gives capabilities: \
         `AmbientCapabilities` and `CapabilityBoundingSet` of its unit",
        &["setcap"],
    ),
    words(
        Global,
        NotNeeded,
        "it holds under the name `haproxy`; otherwise the service manager sets the user: see its unit file",
        &["user", "uid"],
    ),
    words(
        Global,
        NotNeeded,
        "it holds under the name `haproxy`; otherwise the service manager sets the group: see its unit file",
        &["group", "gid"],
    ),
    words(
        Global,
        NotNeeded,
        "it holds under the name `haproxy`; `rlb run` stays in the foreground, and signals reload it",
        &["daemon", "master-worker", "mworker-max-reloads"],
    ),
    words(
        Global,
        NotNeeded,
        "it holds under the name `haproxy`; otherwise the service manager knows the process id",
        &["pidfile"],
    ),
    words(
        Global,
        NotNeeded,
        "rlb is one process: see `threads` in `[global]`",
        &[
            "nbproc",
            "cpu-map",
            "cpu-set",
            "cpu-policy",
            "cpu-affinity",
            "numa-cpu-mapping",
            "thread-group",
            "thread-groups",
            "thread-hard-limit",
            "max-threads-per-group",
        ],
    ),
    words(
        Global,
        NotNeeded,
        "rlb raises the descriptor limit to the hard limit: see `LimitNOFILE` of its unit",
        &["ulimit-n", "fd-hard-limit", "strict-limits"],
    ),
    words(
        Global,
        NotNeeded,
        "rlb sizes its buffers, pipes and queues itself",
        &[
            "tune.*",
            "maxpipes",
            "busy-polling",
            "noepoll",
            "nopoll",
            "nokqueue",
            "noevports",
            "nosplice",
            "noreuseport",
            "nogetaddrinfo",
            "no-memory-trimming",
            "maxzlibmem",
            "maxcomprate",
            "maxcompcpuusage",
            "profiling.*",
            "debug.*",
            "debug",
            "limited-quic",
        ],
    ),
    words(
        Global,
        NotNeeded,
        "rlb spreads its checks by itself",
        &["spread-checks", "max-spread-checks"],
    ),
    words(
        Global,
        Kept,
        "write the whole path in `ca-file` and `crt` of a check",
        &["ca-base", "crt-base"],
    ),
    words(
        Global,
        Kept,
        "write `verify` in the check",
        &["ssl-server-verify"],
    ),
    words(
        Global,
        NotNeeded,
        "rlb passes TLS through untouched, and does not end it",
        &[
            "ssl-*",
            "key-base",
            "issuers-chain-path",
            "acme.scheduler",
            "maxsslconn",
            "maxsslrate",
            "ocsp-update.*",
            "jwt.*",
            "noktls",
        ],
    ),
    words(
        Global,
        NotNeeded,
        "rlb balances TCP: it knows no HTTP",
        &[
            "http-err-codes",
            "http-fail-codes",
            "httpclient.*",
            "h1-*",
            "h2-workaround-bogus-websocket-clients",
            "51degrees-*",
            "deviceatlas-*",
            "wurfl-*",
            "lua-*",
        ],
    ),
    words(
        Global,
        NotNeeded,
        "a reload keeps what rlb knows of its servers, and so does an upgrade",
        &["stats-file", "shm-stats-file", "shm-stats-file-max-objects"],
    ),
    words(
        Global,
        NotNeeded,
        "it changes nothing that rlb does",
        &[
            "quiet",
            "zero-warning",
            "quick-exit",
            "set-dumpable",
            "external-check",
            "insecure-fork-wanted",
            "insecure-setuid-wanted",
            "expose-deprecated-directives",
            "expose-experimental-directives",
            "anonkey",
            "stress-level",
            "warn-blocked-traffic-after",
            "force-cfg-parser-pause",
            "close-spread-time",
            "localpeer",
            "cluster-secret",
            "dns-accept-family",
            "pp2-never-send-local",
            "set-var",
            "set-var-fmt",
            "harden.*",
        ],
    ),
    words(
        Global,
        NeedsAllowDegraded,
        "clients are served whatever their source port is",
        &["harden.reject-privileged-ports.tcp"],
    ),
    words(
        Global,
        NoTrafficDependsOnIt,
        "syslog lines in HAProxy's form carry no host name",
        &["log-send-hostname"],
    ),
    words(
        Global,
        Kept,
        "write `timeout` and `maxconn` in `[runtime-api]`",
        &["stats timeout", "stats maxconn"],
    ),
    words(
        Global,
        NotNeeded,
        "rlb is one process",
        &["stats bind-process"],
    ),
    words(
        Global,
        NotNeeded,
        "rlb always counts them",
        &["stats calculate-max-counters"],
    ),
    words(
        Global,
        NotNeeded,
        "rlb reads no file that HAProxy's configuration names",
        &["default-path"],
    ),
    words(
        Global,
        Kept,
        "`mode` and `prefix` are written in the unix sockets of the binds behind it; an owner is as in a bind",
        &["unix-bind"],
    ),
];
